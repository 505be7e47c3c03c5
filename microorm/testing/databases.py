"""The databases of a test run: made beside those of the configuration, emptied between tests, and dropped at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, NullPool, Table, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from microorm.apps import default_apps
from microorm.db.databases import Databases, default_databases
from microorm.db.engines.engine import Database
from microorm.errors import ConfigurationError
from microorm.messages import brief
from microorm.project import FILE_NAME, Project, configured_by, read_project, read_tool_table
from microorm.registry import Registry

__all__ = ["empty", "isolated_registry", "made_databases", "worker_suffix"]

LONGEST_NAME = 63  # PostgreSQL's; MariaDB takes one more
LOCK_TIMEOUT = 10  # seconds that emptying waits for a transaction that a test has left open


def worker_suffix() -> str:
    """Return what the names of the databases of this process end with: `_gw0` in a worker of xdist, else nothing."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return f"_{worker}" if worker else ""


@contextmanager
def made_databases(root: Path, folder: Path) -> Iterator[Databases]:
    """Configure the default databases with empty ones for this process, and drop these at the end.

    Until then they are kept: to configure or close them does nothing. Those that the program has configured are the model, or
    else those of the project in *root*, whose applications are set up as well. A server gets a database `test_NAME` beside each;
    SQLite's files are made in *folder*; databases in memory stay. Raises `ConfigurationError` if nothing is configured, for an
    alias that was given as an `Engine`, and if a database cannot be made.
    """
    databases = default_databases
    project = configured_by(databases) if databases.aliases else _project_of(root)
    if project is None and not databases.aliases:
        raise ConfigurationError(
            f"no database is configured: call microorm.configure() in conftest.py, or write [tool.microorm] into "
            f"{root / FILE_NAME}"
        )
    model = databases
    if project is not None:
        model = Databases()
        project.configure(model)  # with its routers, which say what is a copy of another database
    routers = databases.routers
    planned = {alias: _plan(model.database(alias), folder) for alias in model.aliases}
    own = {alias: url for alias, url in planned.items() if url is not None}
    for alias in model.aliases:
        if (
            copied := model.database(alias).row_alias
        ) != alias:  # what a test writes there can be read here at once
            planned[alias] = planned[copied]
            own.pop(alias, None)
    with ExitStack() as cleanup:
        databases.reserved = frozenset(model.database(alias).url for alias in own)
        cleanup.callback(setattr, databases, "reserved", frozenset())
        for alias, url in own.items():
            _make(model.database(alias), url, cleanup)
        cleanup.callback(databases.close)
        settings = {alias: _settings(model.database(alias), url) for alias, url in planned.items()}
        if model is not databases:
            model.close()
        if project is not None or any(url is not None for url in planned.values()):
            databases.close()
            if project is None:
                databases.configure(settings, routers=routers)
            else:
                project.set_up(default_apps, instead=settings)
        with databases.kept():
            yield databases


def empty(registry: Registry, aliases: Iterable[str] | None = None) -> None:
    """Delete all rows of the tables of *registry*, on all aliases or on *aliases*, in whatever order they refer to each other."""
    wanted = registry.databases.aliases if aliases is None else tuple(aliases)
    for alias, tables in registry.tables_by_alias():
        if alias in wanted and tables:
            with registry.databases.connection(alias) as connection:
                _empty(connection, tables)


@contextmanager
def isolated_registry(*aliases: str) -> Iterator[Registry]:
    """Yield an empty registry, for the models of one test, over databases of its own in memory: *aliases*, or `default`.

    `class Book(Model, registry=registry)` puts a model there. Raises `ConfigurationError` for an invalid alias.
    """
    with Databases(dict.fromkeys(aliases or ("default",), "sqlite://")) as databases:
        yield Registry(databases)


def _empty(connection: Connection, tables: list[Table]) -> None:
    dialect = connection.dialect.name
    if dialect == "postgresql":
        preparer = connection.dialect.identifier_preparer
        names = ", ".join(map(preparer.format_table, tables))
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}s'")
        try:
            connection.exec_driver_sql(f"TRUNCATE {names}")
        finally:
            connection.exec_driver_sql("SET lock_timeout = DEFAULT")
        return
    off, on = _KEYS["sqlite" if dialect == "sqlite" else "mysql"]
    connection.exec_driver_sql(off)
    try:
        for table in tables:
            connection.execute(table.delete())
    finally:
        connection.exec_driver_sql(on)


# Tables may refer to each other in a circle.
_KEYS = {
    "sqlite": ("PRAGMA foreign_keys=OFF", "PRAGMA foreign_keys=ON"),
    "mysql": ("SET foreign_key_checks = 0", "SET foreign_key_checks = 1"),
}


def _project_of(root: Path) -> Project | None:
    """Return the project of the nearest pyproject.toml of *root* and its parents that has a section for microorm."""
    for folder in (root, *root.parents):
        file = folder / FILE_NAME
        if file.is_file() and "microorm" in read_tool_table(file):
            return read_project(file)
    return None


def _plan(database: Database, folder: Path) -> URL | None:
    """Return the URL of the test database for *database*; None if it is in memory, and stays."""
    if database.is_memory:
        return None
    if database.given is not None:
        raise ConfigurationError(
            f"database {database.alias!r} was given as an Engine, of which no test database can be made; configure it by its "
            "URL, or write a fixture microorm_databases that returns your own databases"
        )
    url = database.url
    if database.is_sqlite:
        name = sha256(str(url.database).encode()).hexdigest()[:8]  # one for aliases that share a file
        query = {key: value for key, value in url.query.items() if key not in ("mode", "uri")}
        stem = Path(str(url.database).removeprefix("file:")).stem
        return url.set(database=str(folder / f"{stem}_{name}.db"), query=query)
    name = f"test_{url.database or database.alias}"
    room = LONGEST_NAME - len(worker_suffix())
    if len(name) > room:
        name = f"{name[: room - 9]}_{sha256(name.encode()).hexdigest()[:8]}"
    return url.set(database=name + worker_suffix())


def _settings(database: Database, url: URL | None) -> Any:
    if url is None and database.given is not None:
        return database.given
    return {**database.options, "url": database.configured_url if url is None else _driver(database, url)}


def _driver(database: Database, url: URL) -> URL:
    """Return *url* with the driver that the program has configured."""
    return url.set(drivername=database.configured_url.drivername)


def _make(database: Database, url: URL, cleanup: ExitStack) -> None:
    """Make an empty database at *url*, and drop it in *cleanup*."""
    if database.is_sqlite:
        for suffix in ("", "-wal", "-shm"):
            cleanup.callback(Path(f"{url.database}{suffix}").unlink, missing_ok=True)
        return
    name = str(url.database)
    try:
        _administer(database, [*_drop(database, name), _create(database, name)])
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"the test database {name!r} for {database.alias!r} cannot be made: {brief(error)}; the user "
            f"{brief(url.username)} needs the right to create databases, or write a fixture microorm_databases that returns "
            "your own databases"
        ) from error
    cleanup.callback(_administer, database, _drop(database, name))


def _administer(database: Database, statements: list[str]) -> None:
    name = "postgres" if database.dialect == "postgresql" else ""
    engine = create_engine(
        database.url.set(database=name),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _quoted(database: Database, name: str) -> str:
    return database.engine.dialect.identifier_preparer.quote_identifier(name).replace(":", r"\:")


def _drop(database: Database, name: str) -> list[str]:
    force = " WITH (FORCE)" if database.dialect == "postgresql" else ""
    return [f"DROP DATABASE IF EXISTS {_quoted(database, name)}{force}"]


def _create(database: Database, name: str) -> str:
    # Nothing can be connected to template0, so that workers may copy it at the same time.
    how = "TEMPLATE template0" if database.dialect == "postgresql" else "CHARACTER SET utf8mb4"
    return f"CREATE DATABASE {_quoted(database, name)} {how}"
