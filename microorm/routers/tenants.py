"""Tenants: each has a database of its own, and what runs in `with tenant(alias):` works on that of one tenant.

The scope of `tenant()` is like that of a running receiver: its alias is the current one for `atomic()`, `on_commit()` and
`connection()`, and routers still decide where a model goes. So a receiver that runs after the commit, or from the outbox,
has the tenant of the row that was written, whatever is current by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from microorm.db.blocks import Using
from microorm.db.context import RECEIVER, open_scopes
from microorm.db.databases import Databases, default_databases
from microorm.db.routing import DEFAULT_ALIAS, Router
from microorm.errors import ConfigurationError, TenantError
from microorm.messages import brief

__all__ = ["Tenants", "current_tenant", "tenant"]


class Tenants(Router):
    """Send the models of tenants to the database of the current tenant, and all others to *shared_alias*.

    *shared*: the applications and labels, such as `"accounts"` or `"billing.Plan"`, whose models all tenants share; or else
    *models*: those whose models are the tenants'. *other_aliases*: databases of no tenant, which other routers decide about.
    Every other alias is a tenant. Raises `ConfigurationError` unless one of *shared* and *models* is given.

    A model of tenants is refused by a `TenantError` while no tenant is current, and so is an instance of another tenant.
    """

    def __init__(
        self,
        *,
        shared: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
        shared_alias: str = DEFAULT_ALIAS,
        other_aliases: Iterable[str] = (),
    ) -> None:
        if (shared is None) == (models is None):
            raise ConfigurationError("Tenants() needs shared=, or else models=")
        self.shared_alias = shared_alias
        self._not_tenants = frozenset({shared_alias, *_names("other_aliases", other_aliases)})
        self._is_named_shared = models is None
        self._named = _names("shared", shared) if shared is not None else _names("models", models)

    def __repr__(self) -> str:
        kind = "shared" if self._is_named_shared else "models"
        return f"<Tenants {kind}={sorted(self._named)}>"

    def is_tenant(self, alias: str, /) -> bool:
        """Return whether *alias* is the database of a tenant."""
        return alias not in self._not_tenants

    def is_shared(self, label: str) -> bool:
        """Return whether the tenants share the model *label*."""
        named = label in self._named or label.partition(".")[0] in self._named
        return named is self._is_named_shared

    def current(self, databases: Databases) -> str | None:
        """Return the alias of the current tenant of *databases*, or None.

        That is the innermost of the open `tenant()` scopes, and of the receivers that run because of a write to a tenant.
        """
        for scope in open_scopes(databases):
            if scope.kind is RECEIVER and self.is_tenant(scope.alias):
                alias: str = scope.alias
                return alias
        return None

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """Return the alias of the rows of *model*. Raises `TenantError`."""
        schema = model.__schema__
        if self.is_shared(schema.label):
            return self.shared_alias
        current, instance = self.current(schema.registry.databases), hints.get("instance")
        loaded = None if instance is None else instance._row_state.alias
        if loaded is None or not self.is_tenant(loaded):
            if current is None:
                raise TenantError(
                    f"{schema.label} is a model of tenants, and no tenant is current; write `with tenant(alias):` around it, "
                    "or name one by using="
                )
            return current
        if current is not None and current != loaded:
            raise TenantError(
                f"{brief(instance)} belongs to the tenant {brief(loaded)}, and the current one is {brief(current)}"
            )
        found: str = loaded
        return found

    db_for_write = db_for_read

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Return whether *alias* holds the table of *label*; None for one of *other_aliases*."""
        if alias == self.shared_alias:
            return self.is_shared(label)
        return not self.is_shared(label) if self.is_tenant(alias) else None


class _Tenant(Using):
    """`with tenant(alias)`."""

    __slots__ = ()

    kind = RECEIVER
    name = "tenant"


def tenant(alias: str, /, databases: Databases = default_databases) -> Using:
    """Return a `with` block in which *alias* is the current tenant of this thread or task, and of the tasks it starts.

    *databases*: by default the default ones. Blocks can be nested. The alias is also that of `atomic()`, `on_commit()` and `connection()` without `using=`. Raises
    `UnknownAlias`, `TenantError` for an alias that is no tenant, and `ConfigurationError` without a router `Tenants`.
    """
    router = _router_of(databases)
    alias = databases.database(alias).alias
    if not router.is_tenant(alias):
        raise TenantError(f"{alias!r} is not the database of a tenant")
    return _Tenant(databases, alias)


def current_tenant(databases: Databases = default_databases) -> str | None:
    """Return the alias of the current tenant of *databases*, or None.

    Raises `ConfigurationError` without a router `Tenants`.
    """
    return _router_of(databases).current(databases)


def _router_of(databases: Databases) -> Tenants:
    for router in databases.routers:
        if isinstance(router, Tenants):
            return router
    raise ConfigurationError("no router of these databases is a Tenants; pass one to configure(routers=[…])")


def _names(option: str, given: Iterable[str] | None) -> frozenset[str]:
    names = frozenset(() if given is None or isinstance(given, str) else given)
    if isinstance(given, str) or not all(isinstance(each, str) and each for each in names):
        raise ConfigurationError(f"{option}= must be a list of names, not {brief(given)}")
    return names
