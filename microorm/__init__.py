"""Typed models, signals and several databases on SQLAlchemy Core, without a web framework."""

import typing

from microorm.db.blocks import ScopeWarning
from microorm.db.databases import Databases, default_databases
from microorm.db.routing import Router
from microorm.dispatch.receivers import ReceiverLostWarning
from microorm.dispatch.signal import Signal, muted, receiver
from microorm.errors import (
    AfterCommitError,
    CommitOutcomeUnknown,
    ConfigurationError,
    CrossDatabaseRelation,
    FieldError,
    FixtureError,
    InvalidValue,
    LazyLoadError,
    MicroormError,
    MigrationError,
    ModelError,
    MultipleObjectsReturned,
    NotUpdated,
    ObjectDoesNotExist,
    OutboxError,
    RestrictedError,
    StaleUpdate,
    TenantError,
    TransactionError,
    TransactionSharedError,
    UnknownAlias,
    UnsavedError,
)
from microorm.fields.field import Field, field
from microorm.fields.version import version_field
from microorm.mapping.annotation import Annotation, annotation
from microorm.mapping.foreign_key import ForeignKey, foreign_key
from microorm.model import Model
from microorm.query.prefetch import Prefetch, aprefetch, prefetch
from microorm.query.query import Query
from microorm.registry import Registry, default_registry
from microorm.relations.many_to_many import ManyToMany, many_to_many, through
from microorm.relations.reverse import Related, RelatedOne, related

if typing.TYPE_CHECKING:
    from pathlib import Path

    from microorm.project import Project

__version__ = "0.1.0"

configure = default_databases.configure
close = default_databases.close
aclose = default_databases.aclose
atomic = default_databases.atomic
on_commit = default_databases.on_commit
using = default_databases.using
connection = default_databases.connection
aconnection = default_databases.aconnection
create_all = default_registry.create_all
drop_all = default_registry.drop_all
acreate_all = default_registry.acreate_all
adrop_all = default_registry.adrop_all


def setup(entries: list[str] | tuple[str, ...]) -> None:
    """Set up the applications of this process, by the *entries* of each; see `microorm.apps.Apps.setup`."""
    from microorm import apps  # noqa: PLC0415 not every program has applications

    apps.setup(entries)


def configure_project(start: "str | Path | None" = None) -> "Project":
    """Configure the databases and set up the applications from `[tool.microorm]` in pyproject.toml.

    *start*: the file, or the folder from which to search upward, by default the working directory. A second call does
    nothing. Returns the project. Raises the errors of `microorm.project.read_project` and `Project.set_up`.
    """
    from microorm.project import read_project  # noqa: PLC0415 not every program has a pyproject.toml

    project = read_project(start)
    project.set_up()
    return project


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


__all__ = [
    "AfterCommitError",
    "Annotation",
    "CommitOutcomeUnknown",
    "ConfigurationError",
    "CrossDatabaseRelation",
    "Databases",
    "Field",
    "FieldError",
    "FixtureError",
    "ForeignKey",
    "InvalidValue",
    "LazyLoadError",
    "ManyToMany",
    "MicroormError",
    "MigrationError",
    "Model",
    "ModelError",
    "MultipleObjectsReturned",
    "NotUpdated",
    "ObjectDoesNotExist",
    "OutboxError",
    "Prefetch",
    "Query",
    "ReceiverLostWarning",
    "Registry",
    "Related",
    "RelatedOne",
    "RestrictedError",
    "Router",
    "ScopeWarning",
    "Signal",
    "StaleUpdate",
    "TenantError",
    "TransactionError",
    "TransactionSharedError",
    "UnknownAlias",
    "UnsavedError",
    "aclose",
    "aconnection",
    "acreate_all",
    "adrop_all",
    "annotation",
    "aprefetch",
    "atomic",
    "close",
    "configure",
    "configure_project",
    "connection",
    "create_all",
    "default_databases",
    "default_registry",
    "drop_all",
    "field",
    "foreign_key",
    "many_to_many",
    "muted",
    "on_commit",
    "prefetch",
    "receiver",
    "related",
    "setup",
    "through",
    "using",
    "version_field",
]
