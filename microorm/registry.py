"""Registry: the models by label, their tables, and what waits for a model not yet defined."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, Connection, ForeignKey, MetaData, inspect, literal_column, select, text
from sqlalchemy.schema import sort_tables_and_constraints

from microorm.db.databases import Databases, default_databases
from microorm.errors import ConfigurationError, ModelError, TransactionError
from microorm.fields.types import MARIADB

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
VERSION_TABLE = "alembic_version"  # where migrations note what a database is at
_TO_CLASS_STATEMENT = 5
_LABEL = re.compile(r"[^\W\d]\w*\.[^\W\d]\w*")


class Registry:
    """The models that belong together, and the databases they live in.

    *databases*: else the default ones. A test, or a second application in the process, makes its own.
    """

    def __init__(self, databases: Databases | None = None) -> None:
        self.databases: Databases = default_databases if databases is None else databases
        self.tables = MetaData(naming_convention=NAMING)
        self.models: dict[str, Any] = {}
        self.apps: dict[str, str] = {}
        self.paths: dict[Any, Any] = {}  # the alias in a statement → the path that it stands for
        self._postponed: dict[str, Any] = {}
        self._waiting: dict[str, list[tuple[Callable[[Any], object], bool]]] = {}
        self._referring: dict[Any, tuple[Any, ...]] = {}

    def __repr__(self) -> str:
        return f"<Registry of {len(self.models)} models>"

    @property
    def metadata(self) -> MetaData:
        """The tables of all models, those that waited for a name included.

        Raises `ModelError` where such a name is still not defined.
        """
        for model in list(self._postponed.values()):
            _ = model.__schema__
        return self.tables

    def by_name(self) -> dict[str, Any]:
        """The models by their class names, those that wait for a name included."""
        known = [*self.models.values(), *self._postponed.values()]
        return {model.__name__: model for model in known}

    def referring(self, model: Any) -> tuple[Any, ...]:
        """The foreign keys that refer to *model*; of a model that waits for a name in vain, there are no rows."""
        for waiting in list(self._postponed.values()) if self._postponed else ():
            with suppress(ModelError):
                _ = waiting.__schema__
        if (found := self._referring.get(model)) is None:
            models = [*self.models.values()]
            keys = [key for each in models for key in each.__schema__.foreign_keys]
            found = self._referring[model] = tuple(key for key in keys if key.target is model)
        return found

    def newest(self, model: Any) -> Any:
        """The model that has taken the place of *model*, or *model* itself where none has (CONTRACT P7)."""
        options = getattr(model, "__options__", None)
        if options is None or options.abstract or (options.registry or default_registry) is not self:
            return model
        return self.models.get(self.label(model, options.app), model)

    def label(self, cls: type, app: str | None) -> str:
        """The label of a model: its app and its name (DESIGN 3)."""
        return f"{app or self._app_of(cls.__module__)}.{cls.__name__}"

    def _app_of(self, module: str) -> str:
        packages = module.split(".")
        for length in range(len(packages), 0, -1):
            if (label := self.apps.get(".".join(packages[:length]))) is not None:
                return label
        if "models" in packages[1:]:
            return packages[packages.index("models", 1) - 1]
        # A process that multiprocessing spawned calls its script otherwise.
        return "main" if module in ("__main__", "__mp_main__") else packages[-1]

    def check_free(self, cls: type, label: str) -> Any:
        """The model labelled *label* that *cls* takes the place of, with one warning, or None (CONTRACT P7).

        Raises `ModelError` where that model comes from another module: only what a reload or a notebook defines
        again takes a place.
        """
        known = self.models.get(label) or self._postponed.get(label)
        if known is None or known is cls:
            return None
        if known.__module__ != cls.__module__:
            raise ModelError(
                f"two models are labelled {label!r}: in {known.__module__} and in {cls.__module__}"
            )
        if self._postponed.get(label) is not cls:  # else its class statement has warned already
            warnings.warn(
                f"the model {label!r} is defined again", RuntimeWarning, stacklevel=_TO_CLASS_STATEMENT
            )
        return self.models.get(label)

    def forget_table(self, model: Any) -> None:
        """Take the table of *model* out of the metadata, so that another can have its name."""
        self.tables.remove(model.__table__)

    def postpone(self, model: Any, label: str) -> None:
        """Remember *model*, which waits for a name in its annotations and is made at its first use."""
        self.check_free(model, label)
        self._postponed[label] = model

    def add(self, model: Any, label: str) -> None:
        """Make *model* known as *label*, and run what waited for it."""
        if self._postponed.get(label) is model:
            del self._postponed[label]
        again = self.models.get(label) not in (None, model)
        self.models[label] = model
        self._referring.clear()
        if again:
            self._relate_anew(model)
        waiting = self._waiting.get(label, [])
        for entry in list(waiting):
            function, always = entry
            function(model)
            if not always and entry in waiting:
                waiting.remove(entry)

    def take_back(self, model: Any, label: str, older: Any) -> None:
        """Forget *model*, whose class statement failed; *older*, if any, has its place again."""
        if self.models.get(label) is model:
            del self.models[label]
            self._referring.clear()
            self.forget_table(model)
        if older is not None:
            self.models[label] = older
            if older.__table__.key not in self.tables.tables:
                older.__table__.to_metadata(self.tables)
            self._relate_anew(older)

    def _relate_anew(self, model: Any) -> None:
        """Let all relations lead to *model*, which has taken the place of another, and no longer to that."""
        for each in list(self.models.values()):
            each.__schema__.paths.clear()
            each.__schema__.sides.clear()
            for key in each.__schema__.foreign_keys:
                if key.constrained and key.target is model:
                    _constrain_anew(key.field.column)

    def when_defined(self, label: str, function: Callable[[Any], object], *, always: bool = False) -> None:
        """Call *function* with the model labelled *label*: now, or when it is defined (CONTRACT P8).

        *always*: again with each model that takes the label later (CONTRACT P7), until `forget_waiting`.
        """
        check_label(label)
        model = self.models.get(label)
        if always or model is None:
            self._waiting.setdefault(label, []).append((function, always))
        if model is not None:
            function(model)

    def forget_waiting(self, label: str, function: Callable[[Any], object]) -> bool:
        """Take *function* out of what waits for *label*; whether it was there."""
        waiting = self._waiting.get(label, [])
        for entry in list(waiting):
            if entry[0] == function:
                waiting.remove(entry)
                return True
        return False

    def create_all(self, using: str | None = None) -> None:
        """Make the tables that are missing: those the routers allow on each alias, or on *using* alone.

        Raises `UnknownAlias`, `ConfigurationError` where no database is configured, and where tables are missing in
        one that migrations keep, and `TransactionError` inside a block on MariaDB, which commits when a table is made
        or dropped.
        """
        for alias, tables in self._placed(using):
            self._refuse_implicit_commit(alias)
            with self.databases.connection(alias) as connection:
                _refuse_migrated(
                    alias, connection, [each for each in tables if not _is_there(each, connection)]
                )
                self.metadata.create_all(connection, tables=tables)

    def drop_all(self, using: str | None = None) -> None:
        """Drop the tables that are there: those the routers allow on each alias, or on *using* alone.

        Raises as `create_all` does.
        """
        for alias, tables in self._placed(using):
            self._refuse_implicit_commit(alias)
            with self.databases.connection(alias) as connection:
                _refuse_migrated(alias, connection, [each for each in tables if _is_there(each, connection)])
                if connection.dialect.name == "sqlite":
                    _drop_on_sqlite(connection, tables)
                else:
                    self.metadata.drop_all(connection, tables=tables)

    def _refuse_implicit_commit(self, alias: str) -> None:
        database = self.databases.database(alias)
        if database.dialect in MARIADB and self.databases.transaction(database) is not None:
            raise TransactionError(
                f"{alias!r} commits when tables are made or dropped, and a block is open on it"
            )

    def _placed(self, using: str | None) -> list[tuple[str, list[Any]]]:
        _ = self.metadata  # a model that waits for a name has its table made, too
        databases = self.databases
        aliases = databases.aliases if using is None else (databases.database(using).alias,)
        if not aliases:
            raise ConfigurationError("no database is configured")
        placed = []
        for alias in aliases:
            allowed = [
                self.tables.tables[model.__table__.key]  # which constraints refer to, a copy though it may be
                for label, model in self.models.items()
                if databases.allows_migration(alias, label, model)
            ]
            placed.append((alias, allowed))
        return placed


def _is_there(table: Any, connection: Connection) -> bool:
    return inspect(connection).has_table(table.name, schema=table.schema)


def _refuse_migrated(alias: str, connection: Connection, tables: list[Any]) -> None:
    """Raise `ConfigurationError` where *tables* would be made or dropped behind the back of migrations."""
    version: ColumnElement[str] = literal_column("version_num")
    if not tables or not inspect(connection).has_table(VERSION_TABLE):
        return
    if at := connection.execute(select(version).select_from(text(VERSION_TABLE))).scalars().all():
        raise ConfigurationError(
            f"the tables of {alias!r} are made and dropped by migrations, which are at {', '.join(map(repr, at))}"
        )


def _constrain_anew(column: Any) -> None:
    """Let the constraint of *column* find the table of its name anew: it keeps the one that it found once."""
    for constraint in list(column.foreign_keys):
        column.foreign_keys.discard(constraint)
        column.table.foreign_keys.discard(constraint)
        column.table.constraints.discard(constraint.constraint)
        column.append_foreign_key(ForeignKey(constraint.target_fullname))


def _drop_on_sqlite(connection: Connection, tables: list[Any]) -> None:
    """Drop *tables*, which may refer to each other in a circle: SQLite cannot drop a constraint by itself."""
    order = [table for table, _ in sort_tables_and_constraints(tables) if table is not None]  # type: ignore[no-untyped-call]
    # Inside a block the checks cannot be switched off, only put off.
    connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    (checked,) = connection.exec_driver_sql("PRAGMA foreign_keys").one()
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    try:
        for table in reversed(order):
            table.drop(connection, checkfirst=True)
    finally:
        connection.exec_driver_sql(f"PRAGMA foreign_keys={checked:d}")


def check_label(label: str) -> None:
    """Raise `ValueError` unless *label* has the form `app.Model` (CONTRACT L5)."""
    if not _LABEL.fullmatch(label):
        raise ValueError(f"a label has the form 'app.Model', not {label!r}")


default_registry = Registry()
