"""The repository's own migrations give each database of the flights example what is its own, and take it away again."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect

import microorm
from examples.flights.models import Audit, Flight
from examples.flights.routers import SecondDatabase
from microorm.migrations import Migrations, commands

ROOT = Path(__file__).parent.parent
MODELS = [each for label, each in microorm.default_registry.models.items() if label.startswith("flights.")]
SECOND = {"audit", "weather"}
DEFAULT = {model.__table__.name for model in MODELS} - SECOND

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


@pytest.fixture
def migrations(url: str, other_url: str) -> Iterator[Migrations]:
    """The repository's migrations, over two empty databases."""
    microorm.configure({"default": url, "second": other_url}, routers=[SecondDatabase()])
    try:
        yield Migrations(ROOT / "migrations")
    finally:
        microorm.close()


def tables(alias: str) -> set[str]:
    with microorm.connection(alias) as connection:
        return set(inspect(connection).get_table_names())


def test_the_migrations_make_what_the_models_declare(migrations: Migrations) -> None:
    """Each database gets its own tables and no others, the models work on them, and nothing is left to migrate."""
    migrations.migrate()
    assert tables("default") == {*DEFAULT, "alembic_version"}
    assert tables("second") == {*SECOND, "alembic_version"}
    assert migrations.check() == []
    assert migrations.plan() == []
    assert all(all(revision.applied.values()) for revision in migrations.show())
    saved = Audit(table="flight", key="1", action="created").save()
    assert Audit.objects.get(pk=saved.pk).at == saved.at
    assert [model.objects.count() for model in MODELS if model is not Audit] == [0] * (len(MODELS) - 1)


def test_the_migrations_can_be_undone_and_done_again(migrations: Migrations) -> None:
    """The last one alone, and all of them."""
    migrations.migrate()
    migrations.migrate("0001")
    with microorm.connection("default") as connection:
        assert inspect(connection).get_foreign_keys("flight") == []
        indexes = {index["name"] for index in inspect(connection).get_indexes("flight")}
    assert indexes >= {"ix_flight_dest", "ix_flight_tailnum"}
    assert "ix_flight_origin" not in indexes
    migrations.migrate()
    assert migrations.check() == []
    steps = migrations.migrate("base")
    assert [(step.alias, step.revision, step.down) for step in steps] == [
        (alias, revision, True) for alias in ("default", "second") for revision in ("0002", "0001")
    ]
    assert tables("default") == tables("second") == {"alembic_version"}
    migrations.migrate()
    assert migrations.check() == []


def test_rows_stay_when_their_table_gets_relations(migrations: Migrations) -> None:
    """On SQLite the table is built anew, and a key that was given is not given again."""
    migrations.migrate("0001")
    numbers = "year, month, day, sched_dep_time, sched_arr_time, flight, distance, hour, minute"
    with microorm.atomic("default"), microorm.connection("default") as connection:
        for statement in (
            "INSERT INTO airline (carrier, name) VALUES ('UA', 'United')",
            "INSERT INTO airport (faa, name, lat, lon, alt, tz, dst) VALUES ('JFK', 'Kennedy', 0, 0, 0, -5, 'A')",
            f"INSERT INTO flight ({numbers}, carrier, origin, dest, tailnum, time_hour)"
            " VALUES (1, 1, 1, 1, 1, 1, 1, 1, 1, 'UA', 'JFK', 'SJU', 'N1', '2013-01-01 05:00:00')",
        ):
            connection.exec_driver_sql(statement)
    audit = Audit(table="flight", key="1", action="created").save()
    migrations.migrate()
    flight = Flight.objects.get()
    assert (flight.carrier.name, flight.origin.name, flight.plane) == ("United", "Kennedy", None)
    key = flight.pk
    flight.delete()
    assert flight.save().pk > key
    migrations.migrate("0001")
    assert (Flight.objects.get().dest_id, Audit.objects.all()) == ("SJU", [audit])


def test_a_column_that_is_gone_is_noticed(migrations: Migrations) -> None:
    migrations.migrate()
    for alias, table, column in (("default", "flight", "dep_time"), ("second", "weather", "temp")):
        with microorm.atomic(alias), microorm.connection(alias) as connection:
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
    flight, weather = sorted(migrations.check(), key=lambda difference: difference.alias)
    assert (flight.alias, weather.alias) == ("default", "second")
    assert "flight" in flight.text
    assert "dep_time" in flight.text
    assert "weather" in weather.text
    assert "temp" in weather.text


def test_the_sql_of_the_migrations_is_written_and_no_database_is_touched(migrations: Migrations) -> None:
    written = parts(migrations.sql())
    made = {alias: set(re.findall(r"CREATE TABLE (\w+)", sql)) for alias, sql in written.items()}
    assert made["default"] - {"_alembic_tmp_flight"} == {*DEFAULT, "alembic_version"}
    assert made["second"] == {*SECOND, "alembic_version"}
    assert tables("default") == tables("second") == set()


def test_the_sql_does_what_migrating_does(migrations: Migrations, url: str, other_url: str) -> None:
    """Up in two parts, and down again."""
    urls = {"default": url, "second": other_url}
    for revisions in ("0001", "0001:0002"):
        for alias, sql in parts(migrations.sql(revisions)).items():
            send(urls[alias], sql)
    assert migrations.check() == []
    for alias, sql in parts(migrations.sql("0002:base")).items():
        send(urls[alias], sql)
    assert tables("default") == tables("second") == {"alembic_version"}


def parts(sql: str) -> dict[str, str]:
    """The SQL for each database, by its alias."""
    _, *words = re.split(r"^-- (default|second) \(\w+\)$", sql, flags=re.M)
    return dict(zip(words[::2], words[1::2], strict=True))


def send(url: str, sql: str) -> None:
    """Send the statements of *sql* one after the other, as the client of a database does."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in re.split(r";$", re.sub(r"^--.*$", "", sql, flags=re.M), flags=re.M):
            if statement.strip():
                connection.exec_driver_sql(statement)


def test_the_environment_is_the_one_that_init_writes() -> None:
    assert (ROOT / "migrations" / "env.py").read_text() == commands.ENVIRONMENT
    assert (ROOT / "migrations" / "script.py.mako").read_text() == commands.TEMPLATE


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what alembic and microorm read of this repository, so that its databases are made elsewhere."""
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=ignored)
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, *command: str) -> tuple[str, int]:
    """Run a module of Python in *folder*, as a user would: what it printed, errors included, and its exit status."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *command],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout, done.returncode


@pytest.mark.slow
@pytest.mark.timeout(300)  # several programs, on a machine that may be busy
def test_plain_alembic_migrates_both_databases_of_pyproject_toml(copy: Path) -> None:
    """Where alembic has migrated, microorm finds nothing to do, and alembic itself neither."""
    assert run(copy, "alembic", "upgrade", "head") == ("", 0)
    assert {path.name for path in copy.glob("*.db")} == {"flights.db", "second.db"}
    assert run(copy, "microorm", "check") == ("models and databases agree\n", 0)
    assert run(copy, "alembic", "check") == ("No new upgrade operations detected.\n", 0)
    assert run(copy, "alembic", "revision", "--autogenerate", "-m", "nothing") == ("", 0)
    assert len(list((copy / "migrations" / "versions").glob("*.py"))) == 2
    assert run(copy, "alembic", "downgrade", "base") == ("", 0)
