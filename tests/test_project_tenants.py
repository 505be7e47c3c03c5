"""Projects whose tenants are listed by a function: set up, migrated by a function and by the command line."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microorm import ConfigurationError, Databases, Registry
from microorm.apps import Apps
from microorm.migrations import Migrations
from microorm.project import configured_by, read_project
from tests.cli.conftest import invoke, project  # noqa: F401 fixtures

PYPROJECT = """[tool.microorm]
apps = ["shop"]
routers = ["shop.tenants.router"]
databases = { default = "sqlite:///main.db", template = "sqlite:///template.db" }
tenants = "shop.tenants.databases"
max_connections = 10
idle_timeout = 300
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    "shop/models.py": """from clibase import Base
from microorm import Field, field


class Tenant(Base, app="accounts"):
    alias: Field[str] = field(max_length=40, unique=True)


class Book(Base):
    title: Field[str]
""",
    "shop/tenants.py": """from pathlib import Path

from microorm.routers import Tenants
from sqlalchemy.exc import DBAPIError

router = Tenants(shared=["accounts"])
FOLDER = Path(__file__).parent.parent


def databases():
    from shop.models import Tenant

    try:
        tenants = Tenant.objects.all()
    except DBAPIError:  # before the first migration
        return {}
    return {each.alias: f"sqlite:///{FOLDER}/{each.alias}.db" for each in tenants}
""",
}


@pytest.fixture
def service(project: Any) -> Any:  # noqa: F811
    project.write(FILES)
    return project


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def add_tenant(alias: str) -> None:
    with closing(sqlite3.connect("main.db")) as connection:
        connection.execute("INSERT INTO tenant (alias) VALUES (?)", [alias])
        connection.commit()


@pytest.fixture
def migrated(service: Any, invoke: Any) -> Any:  # noqa: F811
    """The service, with a history that is applied to the databases of the file, and the tenant `red`, which is new."""
    for command in (["init"], ["makemigrations", "-m", "first"], ["migrate"]):
        done = invoke(*command)
        assert done.exit_code == 0, done.output
    add_tenant("red")
    return service


def test_migrate_migrates_the_tenants_that_the_function_lists(migrated: Any, invoke: Any) -> None:  # noqa: F811
    done = invoke("migrate")
    assert (done.exit_code, done.output.partition(" (")[0]) == (0, "red: up 0001 first")
    assert tables(migrated.folder / "red.db") == {"book", "alembic_version", "sqlite_sequence"}
    assert tables(migrated.folder / "main.db") == {"tenant", "alembic_version", "sqlite_sequence"}
    assert invoke("check").exit_code == 0


def test_migrate_migrates_one_tenant(migrated: Any, invoke: Any) -> None:  # noqa: F811
    add_tenant("blue")
    done = invoke("migrate", "--alias", "blue")
    assert (done.exit_code, done.output.partition(" (")[0]) == (0, "blue: up 0001 first")
    assert "book" in tables(migrated.folder / "blue.db")
    assert not (migrated.folder / "red.db").exists()


def test_an_alias_that_is_no_tenant_is_an_error(migrated: Any, invoke: Any) -> None:  # noqa: F811
    done = invoke("migrate", "--alias", "rde")
    assert done.exit_code == 1
    assert done.stderr == (
        "microorm: no database named 'rde'; configured: 'default', 'red', 'template'; nearest: 'red'\n"
    )


def test_the_tenants_are_not_listed_for_a_database_of_the_file(migrated: Any, invoke: Any) -> None:  # noqa: F811
    text = FILES["shop/tenants.py"].replace("    from shop", "    1 / 0\n    from shop")
    migrated.write({"shop/tenants.py": text})
    assert invoke("migrate", "--alias", "default").exit_code == 0
    assert "division by zero" in invoke("migrate").stderr


def test_a_tenant_that_is_added_at_run_time_is_migrated_by_a_function(
    migrated: Any,
    fresh_file: Any,
) -> None:
    with Databases(fresh_file()) as databases:
        databases.add("green", fresh_file())
        steps = Migrations(migrated.folder / "migrations", Registry(databases)).migrate(using="green")
    assert [(step.alias, step.revision) for step in steps] == [("green", "0001")]


def configured(folder: Path, text: str) -> Any:
    (folder / "pyproject.toml").write_text(
        f"[tool.microorm]\ndatabases = {{ default = 'sqlite://' }}\n{text}\n"
    )
    return read_project(folder)


@pytest.fixture
def apps() -> Any:
    with Databases() as databases:
        yield Apps(Registry(databases))


def test_setting_up_adds_the_tenants_once_and_add_tenants_those_that_have_come(
    tmp_path: Path, apps: Any, monkeypatch: Any
) -> None:
    (tmp_path / "listed.py").write_text(
        "LISTED = {'red': 'sqlite://'}\ndef databases():\n    return dict(LISTED)\n"
    )
    project = configured(tmp_path, "tenants = 'listed.databases'\nmax_connections = 7\nidle_timeout = 2.5")  # noqa: F811
    monkeypatch.syspath_prepend(str(tmp_path))
    project.set_up(apps)
    databases = apps.registry.databases
    assert (databases.aliases, databases._limits.max_connections, databases._limits.idle_timeout) == (
        ("default", "red"),
        7,
        2.5,
    )
    listed: Any = sys.modules["listed"]
    listed.LISTED["blue"] = "sqlite://"
    project.set_up(apps)
    assert databases.aliases == ("default", "red")
    assert configured_by(databases) == project
    project.add_tenants(databases)
    assert databases.aliases == ("default", "red", "blue")
    assert configured_by(databases) == project
    del sys.modules["listed"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tenants = 5", ".tenants: must be a dotted path, not a number"),
        ("tenants = 'shop'", ".tenants: must be a dotted path such as 'shop.tenants.databases', not 'shop'"),
        ("max_connections = 0", ".max_connections: must be an int from 1 on, or None, not 0"),
        ("idle_timeout = 'x'", ".idle_timeout: must be a number of seconds above 0, or None, not 'x'"),
    ],
)
def test_an_error_in_the_file_names_the_key(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, line)
    assert str(raised.value) == f"{tmp_path / 'pyproject.toml'}: tool.microorm{message}"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.databases", ".tenants: no function 'nowhere.databases': there is no module 'nowhere'"),
        ("json.databases", ".tenants: no function 'json.databases': 'json' has no 'databases'"),
        ("time.time", ".tenants: 'time.time' must return a mapping of aliases to URLs, not "),
    ],
)
def test_a_function_that_lists_no_tenants_is_an_error(
    tmp_path: Path, apps: Any, path: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, f"tenants = '{path}'").set_up(apps)
    assert str(raised.value).startswith(f"{tmp_path / 'pyproject.toml'}: tool.microorm{message}")
