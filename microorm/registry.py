"""The `Registry`: models by label, their metadata, and functions that wait for a model to be defined."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import ColumnElement, Connection, MetaData, inspect, literal_column, select, text
from sqlalchemy.schema import sort_tables_and_constraints

from microorm.db.aio.twins import twin
from microorm.db.databases import Databases, default_databases
from microorm.errors import ConfigurationError, ModelError, TransactionError, nearest
from microorm.fields.types import MARIADB

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
VERSION_TABLE = "alembic_version"  # the table in which alembic stores the revisions of a database
OUTBOX_TABLES = frozenset({"microorm_outbox", "microorm_outbox_dead", "microorm_outbox_done"})
"""The tables of durable receivers, which stay when the last one is gone: they may hold events."""

_TO_CLASS_STATEMENT = 5
_TO_CALL_OF_CREATE_ALL = 3


class Registry:
    """A set of models and the databases they use, by default `default_databases`.

    Tests, or a second application in the same process, make their own registry, and give it to an abstract base:
    `class Base(Model, abstract=True, registry=mine)`.
    """

    def __init__(self, databases: Databases | None = None) -> None:
        self.databases: Databases = default_databases if databases is None else databases
        self.tables = MetaData(naming_convention=NAMING)
        self.models: dict[str, Any] = {}
        self.apps: dict[str, str] = {}
        self.paths: WeakValueDictionary[Any, Any] = (
            WeakValueDictionary()
        )  # SQL alias → path, which its schema holds
        self._abstract: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._postponed: dict[str, Any] = {}
        self._taken: dict[str, str] = {}  # labels that a model of another application was taken for
        self._waiting: dict[str, dict[Callable[[Any], object], bool]] = {}
        self._referring: dict[Any, tuple[Any, ...]] = {}

    def __repr__(self) -> str:
        return f"<Registry of {len(self.models)} models>"

    @property
    def metadata(self) -> MetaData:
        """The tables of all models.

        Raises `ModelError` if a model uses a name that is not defined, or if a relation has no other side.
        """
        for model in list(self._postponed.values()):
            _ = model.__schema__
        for model in list(self.models.values()):
            for relation in model.__schema__.relations.values():
                relation.check()
        return self.tables

    def known(self) -> dict[str, Any]:
        """Return the models by label, including those that are not prepared yet."""
        return self.models | self._postponed

    def find(self, cls: Any, name: str, *, final: bool = True) -> Any:
        """Return what *name* means in the body of the model *cls*; None if there is no such model.

        That is the model of this name in the same application, else the only one of this name, else an application as
        `LabelledModels`. If not *final*, a model of another application is not returned either, since one of the same
        application may still be defined. Raises `ModelError` for a name that several models have.
        """
        known, label = self.known(), self.label(cls, cls.__options__.app)
        own = known.get(f"{label.partition('.')[0]}.{name}")
        if own is not None:
            return own
        found = {label: model for label, model in known.items() if label.partition(".")[2] == name}
        if len(found) > 1 and final:
            labels = sorted(found)
            raise ModelError(
                f"{name!r} is the name of several models: {', '.join(labels)}; write the label, such as {labels[0]!r}"
            )
        if found and final:
            self._taken[f"{label.partition('.')[0]}.{name}"] = f"{label} takes it for {next(iter(found))}"
            return next(iter(found.values()))
        if found:
            return None
        return LabelledModels(self, name) if any(label.partition(".")[0] == name for label in known) else None

    def prepare(self) -> None:
        """Prepare the models that were waiting for others, as far as all names they use are defined.

        Raises `ModelError` for a model that is wrong in another way, such as by a name that several models have.
        """
        for model in list(self._postponed.values()):
            try:
                _ = model.__schema__
            except ModelError as error:
                if not isinstance(error.__cause__, PendingName):
                    raise

    def referring(self, model: Any) -> tuple[Any, ...]:
        """Return the foreign keys that refer to *model*, except those of models with undefined names."""
        for waiting in list(self._postponed.values()) if self._postponed else ():
            with suppress(ModelError):
                _ = waiting.__schema__
        if (found := self._referring.get(model)) is None:
            models = [*self.models.values()]
            keys = [key for each in models for key in each.__schema__.foreign_keys]
            found = self._referring[model] = tuple(key for key in keys if key.target is model)
        return found

    def newest(self, model: Any) -> Any:
        """Return the model that was last defined with the label of *model*."""
        options = getattr(model, "__options__", None)
        if options is None or options.abstract or (options.registry or default_registry) is not self:
            return model
        return self.models.get(self.label(model, options.app), model)

    def label(self, cls: type, app: str | None) -> str:
        """Return the label of a model, `app.Name`."""
        return f"{app or self._app_of(cls.__module__)}.{cls.__name__}"

    def _app_of(self, module: str) -> str:
        packages = module.split(".")
        for length in range(len(packages), 0, -1):
            if (label := self.apps.get(".".join(packages[:length]))) is not None:
                return label
        if "models" in packages[1:]:
            return packages[packages.index("models", 1) - 1]
        # multiprocessing imports the main module as __mp_main__.
        return "main" if module in ("__main__", "__mp_main__") else packages[-1]

    def check_free(self, cls: type, label: str) -> Any:
        """Return the model with the same label that *cls* replaces, with a warning; None if there is none.

        Warns as well if a model of another application has been taken for *cls*.

        Raises `ModelError` if that model is from another module. Only a reload, or a notebook, may replace a model.
        """
        known = self.models.get(label) or self._postponed.get(label)
        if known is None and (taken := self._taken.pop(label, None)) is not None:
            warnings.warn(
                f"the model {label!r} is defined after the first use of its name: {taken}; write the label there",
                RuntimeWarning,
                stacklevel=_TO_CLASS_STATEMENT,
            )
        if known is None or known is cls:
            return None
        if known.__module__ != cls.__module__:
            raise ModelError(
                f"two models are labelled {label!r}: in {known.__module__} and in {cls.__module__}"
            )
        if self._postponed.get(label) is not cls:  # else the class statement has warned already
            warnings.warn(
                f"the model {label!r} is defined again", RuntimeWarning, stacklevel=_TO_CLASS_STATEMENT
            )
        return self.models.get(label)

    def postpone(self, model: Any, label: str) -> None:
        """Register *model* under its *label*; it uses undefined names and is prepared at its first use."""
        self.check_free(model, label)
        self._postponed[label] = model

    def add(self, model: Any, label: str) -> None:
        """Register *model* as *label*, and call the functions that wait for it."""
        if self._postponed.get(label) is model:
            del self._postponed[label]
        again = self.models.get(label) not in (None, model)
        self.models[label] = model
        self._referring.clear()
        if again:
            self._renew_relations(model)
        self._call_waiting(model, label)

    def add_abstract(self, model: Any, label: str) -> None:
        """Note the abstract *model*, and call the functions that wait for *label*, unless another model has it."""
        self._abstract[label] = model
        if label not in self.known():
            self._call_waiting(model, label)

    def labelled(self, label: str) -> Any:
        """Return the model labelled *label*, which may be abstract, or None."""
        return self.models.get(label) or self._abstract.get(label)

    def _call_waiting(self, model: Any, label: str) -> None:
        for function, always in list(self._waiting.get(label, {}).items()):
            function(model)
            if not always:
                self.forget_waiting(label, function)

    def take_back(self, model: Any, label: str, older: Any) -> None:
        """Unregister *model*, whose class statement failed, and give its *label* back to *older*, if there is one."""
        if self.models.get(label) is model:
            self.tables.remove(self.models.pop(label).__table__)
            self._referring.clear()
        if older is not None:
            self.models[label] = older
            if older.__table__.key not in self.tables.tables:
                older.__table__.to_metadata(self.tables)
            self._renew_relations(older)

    def _renew_relations(self, model: Any) -> None:
        """Make all relations refer to *model*, which has replaced another model with its label."""
        for each in list(self.models.values()):
            each.__schema__.paths.clear()
            each.__schema__.sides.clear()
            for key in each.__schema__.foreign_keys:
                if key.constrained and key.target is model:
                    _renew_constraint(key.field.column)

    def when_defined(self, label: str, function: Callable[[Any], object], *, always: bool = False) -> None:
        """Call *function* with the model labelled *label*, which may be abstract, now or when it is defined.

        *always*: call it again for each later model with this label, until `forget_waiting`.
        """
        check_label(label)
        model = self.labelled(label)
        if always or model is None:
            self._waiting.setdefault(label, {})[function] = always
        if model is not None:
            function(model)

    def forget_waiting(self, label: str, function: Callable[[Any], object]) -> bool:
        """Stop calling *function* for *label*; return whether it was waiting."""
        waiting = self._waiting.get(label, {})
        found = waiting.pop(function, None) is not None
        if not waiting:
            self._waiting.pop(label, None)
        return found

    def waiting(self) -> Iterator[tuple[str, Callable[[Any], object]]]:
        """Yield the functions that wait for a model that is not defined, each with its label."""
        for label, functions in list(self._waiting.items()):
            if label not in self._postponed and self.labelled(label) is None:
                yield from [(label, function) for function in functions]

    def create_all(self, using: str | None = None) -> None:
        """Create the missing tables of managed models on all aliases, or on *using*, as far as the routers allow it.

        Warns of receivers whose sender is a label that no model has, if that of a model is much like it. Raises `UnknownAlias`,
        `ConfigurationError` if no database is configured or if migrations manage the tables, `ModelError` for a name that is not
        defined, and `TransactionError` inside a block on MariaDB, which would commit it.
        """
        self._warn_of_labels()
        self._change_tables(using, self.metadata.create_all, existing=False)

    def _warn_of_labels(self) -> None:
        for label, function in self.waiting():
            if getattr(function, "alive", True) and (near := nearest(label, self.known())):
                warnings.warn(
                    f"no model is labelled {label!r}, to which {function!r} is connected{near}",
                    RuntimeWarning,
                    stacklevel=_TO_CALL_OF_CREATE_ALL,
                )

    def drop_all(self, using: str | None = None) -> None:
        """Drop the existing tables of managed models on all aliases, or on *using*, as far as the routers allow it.

        Raises the same errors as `create_all`.
        """

        def drop(connection: Connection, tables: list[Any]) -> None:
            if connection.dialect.name == "sqlite":
                _drop_on_sqlite(connection, tables)
            else:
                self.tables.drop_all(connection, tables)

        self._change_tables(using, drop, existing=True)

    acreate_all = twin(create_all)
    adrop_all = twin(drop_all)

    def _change_tables(self, using: str | None, change: Callable[..., None], *, existing: bool) -> None:
        """Call *change* for each alias, unless migrations manage a table of it whose existence is *existing*."""
        for alias, tables in self.tables_by_alias(using):
            database = self.databases.database(alias)
            if database.row_alias != alias:  # a copy gets its tables from the original
                continue
            if database.dialect in MARIADB and self.databases.transaction(database) is not None:
                raise TransactionError(
                    f"{alias!r} would commit the open block, since MariaDB commits when tables are created or dropped"
                )
            with self.databases.connection(alias) as connection:
                has_table = inspect(connection).has_table
                if any(has_table(each.name, schema=each.schema) is existing for each in tables):
                    _refuse_migrated(alias, connection)
                change(connection, tables=tables)

    def tables_by_alias(self, using: str | None = None) -> list[tuple[str, list[Any]]]:
        """Return each alias, or *using* alone, with the tables that the routers allow there.

        Raises `UnknownAlias`, and `ConfigurationError` if no database is configured.
        """
        _ = self.metadata  # prepares all models
        databases = self.databases
        aliases = databases.aliases if using is None else (databases.database(using).alias,)
        if not aliases:
            raise ConfigurationError(f"no database is configured; {databases.remedy}")
        models = self.models.items()
        tables = self.tables.tables  # not model.__table__, which may have been copied
        return [
            (
                alias,
                [
                    tables[m.__table__.key]
                    for label, m in models
                    if m.__schema__.managed and databases.allows_migration(alias, label, m)
                ],
            )
            for alias in aliases
        ]


class PendingName(Exception):
    """An annotation uses a name that is not defined yet."""

    def __init__(self, name: str, hint: str = "") -> None:
        self.name = name
        super().__init__(f"name {name!r} is not defined{hint}")


class LabelledModels:
    """The models of one application as attributes, so that an annotation can be a label: `accounts.User`.

    If the name of the application is also that of a *module* in the namespace, its attributes come first. A model that is
    not defined yet raises `PendingName`.
    """

    def __init__(self, registry: Registry, app: str, module: ModuleType | None = None) -> None:
        self._registry = registry
        self._app = app
        self._module = module

    def beside(self, module: ModuleType) -> LabelledModels:
        """Return the same models, and the attributes of *module*."""
        return LabelledModels(self._registry, self._app, module)

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._module, name):
            return getattr(self._module, name)
        known = self._registry.known()
        label = f"{self._app}.{name}"
        if label not in known:
            raise PendingName(label, nearest(label, known))
        return known[label]


def _refuse_migrated(alias: str, connection: Connection) -> None:
    """Raise `ConfigurationError` if the tables of *alias* are managed by migrations."""
    version: ColumnElement[str] = literal_column("version_num")
    if not inspect(connection).has_table(VERSION_TABLE):
        return
    if at := connection.execute(select(version).select_from(text(VERSION_TABLE))).scalars().all():
        raise ConfigurationError(
            f"the tables of {alias!r} are managed by migrations, which are at {', '.join(map(repr, at))}"
        )


def _renew_constraint(column: Any) -> None:
    """Let the constraint of *column* look up the table that it refers to once more."""
    for constraint in column.foreign_keys:
        vars(constraint).pop("column", None)  # SQLAlchemy looks it up when it is first asked for


def _drop_on_sqlite(connection: Connection, tables: list[Any]) -> None:
    """Drop *tables*, which may refer to each other in a cycle; SQLite cannot drop a constraint alone."""
    order = [table for table, _ in sort_tables_and_constraints(tables) if table is not None]  # type: ignore[no-untyped-call]
    # Inside a block, the checks cannot be disabled, only deferred.
    connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    (checked,) = connection.exec_driver_sql("PRAGMA foreign_keys").one()
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    try:
        for table in reversed(order):
            table.drop(connection, checkfirst=True)
    finally:
        connection.exec_driver_sql(f"PRAGMA foreign_keys={checked:d}")


def check_label(label: str) -> None:
    """Raise `ValueError` unless *label* has the form `app.Model`."""
    if label.count(".") != 1 or not all(map(str.isidentifier, label.split("."))):
        raise ValueError(f"a label must have the form 'app.Model', not {label!r}")


default_registry = Registry()
