"""Routing: the rule that picks an alias. Pure functions; all they need is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

DEFAULT_ALIAS = "default"


class Router:
    """Say where a model's rows are read, written, related and created; None leaves it to the next router.

    Derive from it, or pass any object that has some of these methods. The first answer that is not None
    wins (CONTRACT N2, N4).
    """

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """The alias to read *model* from. Hints: `instance` where there is one, `in_atomic`."""
        return None

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """The alias to write *model* to. Hints: `instance` where there is one, `in_atomic`."""
        return None

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
        """Whether the instances *left* and *right* may refer to each other."""
        return None

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Whether *alias* holds the table of the model labelled *label*, which may be gone by now."""
        return None


def first_answer(routers: Iterable[object], method: str, *arguments: Any, **hints: Any) -> Any:
    """The first answer of *routers* that is not None; a router without *method* is passed over.

    An error inside a router's method is its caller's to see (CONTRACT N5).
    """
    for router in routers:
        ask = getattr(router, method, None)
        if ask is not None and (answer := ask(*arguments, **hints)) is not None:
            return answer
    return None


def pick_alias(
    *,
    using: str | None,
    block: str | None,
    routed: str | None,
    loaded: str | None,
    home: str | None,
    receiver: str | None,
) -> str:
    """The alias to use: asked for, of the `using()` block, routed, loaded from, the model's home, the
    running receiver's, or `"default"`: the first that is not None (DESIGN 4, 7)."""
    for alias in (using, block, routed, loaded, home, receiver):
        if alias is not None:
            return alias
    return DEFAULT_ALIAS


def relation_allowed(
    routers: Iterable[object], left: Any, right: Any, *, left_alias: str | None, right_alias: str | None
) -> bool:
    """Whether *left* may refer to *right*: what the routers say, else whether their aliases are the same.

    An instance that has no alias yet (None) takes the other's (CONTRACT N4, N11).
    """
    answer = first_answer(routers, "allow_relation", left, right)
    if answer is not None:
        return bool(answer)
    return left_alias is None or right_alias is None or left_alias == right_alias


def migration_allowed(routers: Iterable[object], alias: str, label: str, model: type[Any] | None) -> bool:
    """Whether *alias* holds the table of *label*: what the routers say, else yes (CONTRACT N4, N18)."""
    answer = first_answer(routers, "allow_migrate", alias, label, model=model)
    return True if answer is None else bool(answer)
