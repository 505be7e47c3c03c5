"""`[tool.microorm]` is found, read and refused by file, line and key; setting up does it once."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microorm import Databases, Registry
from microorm.apps import Apps
from microorm.errors import ConfigurationError
from microorm.project import read_project

ROOT = Path(__file__).parent.parent
MODELS = """
from microorm import Field, Model


class Book(Model):
    title: Field[str]
"""
ROUTERS = """
class Archive:
    def db_for_read(self, model, **hints):
        return "archive"


class Wanting:
    def __init__(self, alias):
        pass


made = Archive()
"""
SECTION = """\
[project]
name = "x"

[tool.microorm]
apps = ["shop"]
databases = { default = "sqlite:///shop.db" }
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the pyproject.toml of a project; gives its path."""

    def write(text: str) -> Path:
        file = tmp_path / "pyproject.toml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package of models and routers, named after nothing that the tests have already."""
    folder = tmp_path / "projectshop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "routers.py").write_text(ROUTERS)
    path = list(sys.path)
    yield folder
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "projectshop"]:
        del sys.modules[name]


def refused(file: Path) -> str:
    """What is wrong with *file*, without its folder."""
    with pytest.raises(ConfigurationError) as caught:
        read_project(file)
    return str(caught.value).removeprefix(f"{file.parent}{os.sep}")


def test_it_is_found_from_below_past_files_without_the_section(write, tmp_path, monkeypatch) -> None:
    file = write(SECTION)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\n")
    project = read_project(below)
    assert project == read_project(str(file))
    monkeypatch.chdir(below)
    assert read_project() == project
    assert (project.path, project.folder) == (file, tmp_path)
    assert project.apps == ("shop",)
    assert project.routers == ()
    assert project.migrations == tmp_path / "migrations"
    assert list(project.databases) == ["default"]
    assert project.databases["default"]["url"].database == str(tmp_path / "shop.db")
    assert list(tmp_path.rglob("*.db")) == []


def test_where_there_is_none_it_says_where_it_looked(write, tmp_path) -> None:
    file = write("[tool.other]\n")
    assert refused(file) == "pyproject.toml has no [tool.microorm]"
    with pytest.raises(ConfigurationError) as caught:
        read_project(tmp_path)
    assert str(caught.value) == f"no pyproject.toml with [tool.microorm] in {str(tmp_path)!r} or above it"
    with pytest.raises(ConfigurationError, match="^there is no folder or file '.*nowhere'$"):
        read_project(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("databass = {}", "2: [tool.microorm] has no key 'databass'; known: 'apps', 'databases', 'migrations', 'routers'; nearest: 'databases'"),
        ("apps = []", "1: [tool.microorm] has no 'databases'"),
        ("databases = {}", "2: databases names no database"),
        ("databases = 'sqlite://'", "2: databases is a table of aliases, not a string"),
        ("apps = 'shop'", "2: apps is an array of dotted paths, not a string"),
        ("apps = [\n'shop',\n3]", "4: apps is an array of dotted paths, not a number"),
        ("apps = ['a b']", "2: apps holds dotted paths, not 'a b'"),
        ("routers = ['Archive']\ndatabases = {a = 'sqlite://'}", "2: routers holds dotted paths, not 'Archive'"),
        ("migrations = ['x']\ndatabases = {a = 'sqlite://'}", "2: migrations is the path of a folder, not an array"),
        ("migrations = ''\ndatabases = {a = 'sqlite://'}", "2: migrations is the path of a folder, not an empty string"),
        ("[tool.microorm.databases]\nok = 'sqlite://'\nmy-db = 'sqlite://'", "4: an alias wants letters, digits and underscores, not 'my-db'"),
        ("databases.a = 1979-05-27", "2: databases.a is a URL, or a table with one, not a date or time"),
        ("databases.a = true", "2: databases.a is a URL, or a table with one, not a boolean"),
        ("[tool.microorm.databases.a]\nurl = []", "3: databases.a.url is a URL, or a table with one, not an array"),
        ("databases.a = {pool_size = 3}", "2: database 'a' has no 'url'; given: 'pool_size'"),
        ("databases.a = {}", "2: database 'a' has no 'url'; given: nothing"),
        ("databases.a = 'geheim'", "2: the URL of database 'a' is not a URL that SQLAlchemy can read"),
        ("databases.a = 'orakel://u:geheim@h/d'", "2: the URL of database 'a' names 'orakel', which SQLAlchemy does not know"),
        ("databases.a = 'postgresql://u:${GEHEIM}@h/d'", "2: databases.a names the variable 'GEHEIM', which the environment does not have"),
        ("databases.a = {url = 'sqlite://', connect_args = {x = ['$geheim']}}", "2: databases.a.connect_args has a '$' that is neither of '${NAME}' nor of '$$'"),
        ("apps = [", "2: this is not TOML: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_line_and_key(write, lines: str, message: str) -> None:
    found = refused(write(f"[tool.microorm]\n{lines}\n"))
    assert found.startswith(f"pyproject.toml:{message}")
    if not message.endswith(": "):
        assert found == f"pyproject.toml:{message}"
    assert "geheim" not in found


def test_a_section_that_is_no_table_is_refused(write) -> None:
    assert (
        refused(write("[tool]\nmicroorm = 3\n")) == "pyproject.toml:2: tool.microorm is a table, not a number"
    )


def test_the_environment_is_read_when_the_file_is(write, monkeypatch) -> None:
    file = write(
        """
        [tool.microorm]
        apps = ["${APP}"]
        migrations = "${APP}/moves"
        databases.default = "${URL}"
        databases.a = { url = "postgresql://u:${WORD}@h/d", pool_size = 3, connect_args = { sslkey = "${APP}.key" } }
        """
    )
    monkeypatch.setenv("APP", "shop")
    monkeypatch.setenv("URL", "sqlite:////tmp/x%2520y.db")
    monkeypatch.setenv("WORD", "p@ss/%")
    project = read_project(file)
    assert project.apps == ("shop",)
    assert project.migrations == file.parent / "shop" / "moves"
    assert project.databases["default"]["url"].database == "/tmp/x%20y.db"
    assert project.databases["a"]["url"].password == "p@ss/%"
    assert project.databases["a"]["pool_size"] == 3
    assert project.databases["a"]["connect_args"] == {"sslkey": "shop.key"}
    assert "p@ss" not in repr(project)
    monkeypatch.setenv("WORD", "other")
    assert read_project(file) != project


def test_files_of_sqlite_are_beside_pyproject(write, tmp_path) -> None:
    file = write(
        """
        [tool.microorm.databases]
        relative = "sqlite:///data/shop.db"
        absolute = "sqlite:////var/shop.db"
        uri = "sqlite:///file:shop.db?mode=ro&uri=true"
        memory = "sqlite://"
        named = "sqlite:///:memory:"
        """
    )
    found = {alias: settings["url"] for alias, settings in read_project(file).databases.items()}
    assert found["relative"].database == str(tmp_path / "data" / "shop.db")
    assert found["absolute"].database == "/var/shop.db"
    assert found["uri"].database == f"file:{tmp_path}/shop.db"
    assert (found["memory"], found["named"]) == ("sqlite://", "sqlite:///:memory:")


def test_setting_up_configures_once(write, package, tmp_path) -> None:
    file = write(
        """
        [tool.microorm]
        routers = ["projectshop.routers.Archive", "projectshop.routers.made"]
        databases = { default = "sqlite://", archive = "sqlite:///archive.db" }
        """
    )
    with Databases() as databases:
        apps = Apps(Registry(databases))
        read_project(file).set_up(apps)
        assert databases.aliases == ("default", "archive")
        assert [type(router).__name__ for router in databases.routers] == ["Archive", "Archive"]
        assert sys.path[0] == str(tmp_path)
        with databases.connection("default"):
            read_project(file).set_up(apps)
        assert sys.path.count(str(tmp_path)) == 1
        with pytest.raises(ConfigurationError, match="^databases are configured already, and open: default$"):
            file.write_text(file.read_text().replace("archive.db", "other.db"))
            read_project(file).set_up(apps)
        databases.close()
        read_project(file).set_up(apps)
        assert databases.aliases == ("default", "archive")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("routers = ['projectshop.routers.Archiv']", "the router 'projectshop.routers.Archiv' is not there: 'projectshop.routers' has no 'Archiv'; nearest: 'Archive'"),
        ("routers = ['projectshop.router.Archive']", "the router 'projectshop.router.Archive' is not there: no module 'projectshop.router'"),
        ("routers = ['projectshop.routers.Wanting']", "the router 'projectshop.routers.Wanting' cannot be made without arguments: "),
        ("apps = ['projectshopp']", "the application 'projectshopp' is not there: no module 'projectshopp'"),
        ("apps = ['projectshop.routers']", "'projectshop.routers' is neither an AppConfig nor a package, but a module"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_by_line(write, package, line: str, message: str) -> None:
    file = write(f"[tool.microorm]\ndatabases.default = 'sqlite://'\n{line}\n")
    with Databases() as databases, pytest.raises(ConfigurationError) as caught:
        read_project(file).set_up(Apps(Registry(databases)))
    assert str(caught.value).startswith(f"{file}:3: {message}")


@pytest.mark.parametrize(
    "line", ["routers = ['projectshop.broken.Archive']", "apps = ['projectshop.broken.App']"]
)
def test_what_a_module_raises_comes_out_as_it_is(write, package, line: str) -> None:
    (package / "broken.py").write_text("import nowhere_at_all\n")
    file = write(f"[tool.microorm]\ndatabases.default = 'sqlite://'\n{line}\n")
    with Databases() as databases, pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        read_project(file).set_up(Apps(Registry(databases)))


@pytest.mark.slow
def test_a_script_is_set_up_by_one_line(write, package, tmp_path) -> None:
    (package / "models.py").write_text(MODELS)
    write("[tool.microorm]\napps = ['projectshop']\ndatabases.default = 'sqlite:///x.db'\n")
    program = """
import sys

before = set(sys.modules)
import microorm

loaded = set(sys.modules) - before
assert not {"tomllib", "click", "rich", "alembic", "microorm.project"} & loaded
project = microorm.configure_project()
assert microorm.configure_project(project.folder) == project
from projectshop.models import Book

microorm.create_all()
assert microorm.configure_project() == project
Book(title="Lathe").save()
print(Book.objects.count(), Book.__schema__.label)
"""
    below = tmp_path / "below"
    below.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=below,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("1 projectshop.Book\n", "")
    assert (tmp_path / "x.db").is_file()
