"""`[tool.microorm]` is found and read, errors name the file and the key, and setting up happens once."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from microorm import Databases, Registry
from microorm.apps import Apps
from microorm.db.engines.urls import FORMS
from microorm.errors import ConfigurationError
from microorm.project import expand, expand_url, read_project
from tests.programs import Program

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


def refused(file: Path, start: Path | None = None) -> str:
    """The error for *file*, without its folder."""
    with pytest.raises(ConfigurationError) as caught:
        read_project(start or file)
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


def test_a_missing_project_is_an_error_that_says_where_it_was_searched(write, tmp_path) -> None:
    file = write("[tool.other]\n")
    assert refused(file) == "pyproject.toml has no [tool.microorm]"
    with pytest.raises(ConfigurationError) as caught:
        read_project(tmp_path)
    assert (
        str(caught.value)
        == f"no pyproject.toml with [tool.microorm] in {str(tmp_path)!r} or its parent folders"
    )
    with pytest.raises(ConfigurationError, match="^no such file or folder: '.*nowhere'$"):
        read_project(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("databass = {}", ".databass: unknown key; known: 'apps', 'databases', 'idle_timeout', 'max_connections', 'migrations', 'routers', 'tenants'; nearest: 'databases'"),
        ("apps = []", ": the key 'databases' is missing"),
        ("databases = {}", ".databases: must have at least one alias"),
        ("databases = 'sqlite://'", ".databases: must be a table of aliases, not a string"),
        ("apps = 'shop'", ".apps: must be an array of dotted paths, not a string"),
        ("apps = ['shop', 3]", ".apps[1]: must be a dotted path, not a number"),
        ("apps = ['a b']", ".apps[0]: must be a dotted path such as 'shop', not 'a b'"),
        ("routers = ['Archive']\ndatabases = {a = 'sqlite://'}", ".routers[0]: must be a dotted path such as 'shop.routers.Archive', not 'Archive'"),
        ("migrations = ['x']\ndatabases = {a = 'sqlite://'}", ".migrations: must be the path of a folder, not an array"),
        ("migrations = ''\ndatabases = {a = 'sqlite://'}", ".migrations: must be the path of a folder, not an empty string"),
        ("databases.my-db = 'sqlite://'", ".databases.my-db: an alias must consist of letters, digits and underscores"),
        ("databases.a = 1979-05-27", ".databases.a: must be a URL, or a table with the key 'url', not a date or time"),
        ("databases.a = true", ".databases.a: must be a URL, or a table with the key 'url', not a boolean"),
        ("databases.a.url = []", ".databases.a.url: must be a URL, not an array"),
        ("databases.a = {pool_size = 3}", ".databases.a: the key 'url' is missing; given: 'pool_size'"),
        ("databases.a = {}", ".databases.a: the key 'url' is missing; given: nothing"),
        ("databases.a = 'geheim'", f".databases.a: the URL of database 'a' cannot be read by SQLAlchemy; {FORMS}"),
        ("databases.a = 'orakel://u:geheim@h/d'", ".databases.a: the URL of database 'a' names 'orakel', which SQLAlchemy does not know"),
        ("databases.a = 'postgresql://u:${GEHEIM}@h/d'", ".databases.a: the environment variable 'GEHEIM' is not set"),
        ("databases.a = {url = 'sqlite://', connect_args = {x = ['$geheim']}}", ".databases.a.connect_args: single '$'; write '${NAME}' for an environment variable, or '$$' for a dollar sign"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_the_key(write, lines: str, message: str) -> None:
    found = refused(write(f"[tool.microorm]\n{lines}\n"))
    assert found == f"pyproject.toml: tool.microorm{message}"
    assert "geheim" not in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"[tool.microorm]\napps = [\n",
            "pyproject.toml: not valid TOML: Invalid value (at end of document)",
        ),
        (b"a = '\xff'\n", "pyproject.toml: not valid TOML: 'utf-8' codec can't decode byte 0xff"),
        (b"tool = 3\n", "pyproject.toml: tool: must be a table, not a number"),
        (b"tool.microorm = 3\n", "pyproject.toml: tool.microorm: must be a table, not a number"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(write, content: bytes, message: str) -> None:
    file = write("")
    file.write_bytes(content)
    assert refused(file).startswith(message)
    assert refused(file) == refused(file, file.parent), "a search from the folder ends here, too"


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
        with pytest.raises(
            ConfigurationError,
            match=r"^the databases are already configured, and have open connections: default; call close\(\) first$",
        ):
            file.write_text(file.read_text().replace("archive.db", "other.db"))
            read_project(file).set_up(apps)
        databases.close()
        read_project(file).set_up(apps)
        assert databases.aliases == ("default", "archive")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("routers = ['projectshop.routers.Archiv']", "routers[0]: no router 'projectshop.routers.Archiv': 'projectshop.routers' has no 'Archiv'; nearest: 'Archive'"),
        ("routers = ['projectshop.router.Archive']", "routers[0]: no router 'projectshop.router.Archive': there is no module 'projectshop.router'"),
        ("routers = ['projectshop.routers.Wanting']", "routers[0]: the router 'projectshop.routers.Wanting' cannot be created without arguments: "),
        ("apps = ['projectshop', 'projectshopp']", "apps[1]: no application 'projectshopp': there is no module 'projectshopp'"),
        ("apps = ['projectshop.routers']", "apps: 'projectshop.routers' is neither an AppConfig nor a package, but a module"),
    ],
)  # fmt: skip
def test_a_missing_router_or_application_is_an_error_with_its_key(
    write, package, line: str, message: str
) -> None:
    file = write(f"[tool.microorm]\ndatabases.default = 'sqlite://'\n{line}\n")
    with Databases() as databases, pytest.raises(ConfigurationError) as caught:
        read_project(file).set_up(Apps(Registry(databases)))
    assert str(caught.value).startswith(f"{file}: tool.microorm.{message}")


@pytest.mark.parametrize(
    "line", ["routers = ['projectshop.broken.Archive']", "apps = ['projectshop.broken.App']"]
)
def test_an_error_raised_by_a_module_is_passed_on(write, package, line: str) -> None:
    (package / "broken.py").write_text("import nowhere_at_all\n")
    file = write(f"[tool.microorm]\ndatabases.default = 'sqlite://'\n{line}\n")
    with Databases() as databases, pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        read_project(file).set_up(Apps(Registry(databases)))


@pytest.mark.slow
def test_a_script_is_set_up_by_one_line(package, tmp_path) -> None:
    script = """
import sys

before = set(sys.modules)
import microorm

loaded = set(sys.modules) - before
assert not {"tomllib", "tomlkit", "click", "rich", "alembic", "microorm.project"} & loaded
project = microorm.configure_project()
assert microorm.configure_project(project.folder) == project
from projectshop.models import Book

microorm.create_all()
assert microorm.configure_project() == project
Book(title="Lathe").save()
print(Book.objects.count(), Book.__schema__.label)
"""
    section = "[tool.microorm]\napps = ['projectshop']\ndatabases.default = 'sqlite:///x.db'\n"
    files = {"pyproject.toml": section, "projectshop/models.py": MODELS, "below/script.py": script}
    Program(tmp_path).write(files)
    assert Program(tmp_path / "below").python("script.py") == ("1 projectshop.Book\n", "", 0)
    assert (tmp_path / "x.db").is_file()


# Environment variables.

SECRET = "p@ss:w/o?r&d #%$"
ENVIRONMENT = {"USER": "a b", "PASSWORD": SECRET, "HOST": "db", "URL": "postgresql://u:%40@h/d", "EMPTY": ""}


def test_variables_are_replaced_at_any_depth() -> None:
    value = {"a": ["${HOST}", 1, {"b": "x-${HOST}-${EMPTY}-$$"}], "c": True}
    assert expand(value, ENVIRONMENT) == {"a": ["db", 1, {"b": "x-db--$"}], "c": True}


def test_a_value_is_percent_encoded_in_a_url() -> None:
    """In user, password, database and query; the host and a URL that is one variable are not."""
    text = expand_url("${HOST}://${USER}:${PASSWORD}@${HOST}/${PASSWORD}?options=${PASSWORD}", ENVIRONMENT)
    url = make_url(text)
    assert (url.drivername, url.username, url.password) == ("db", "a b", SECRET)
    assert (url.host, url.database) == ("db", SECRET)
    assert url.query == {"options": SECRET}
    assert expand_url("${URL}", ENVIRONMENT) == ENVIRONMENT["URL"]
    assert expand_url("sqlite:///${USER}/x@y.db", ENVIRONMENT) == "sqlite:///a%20b/x@y.db"
    assert expand_url("sqlite:///${MEMORY}", {"MEMORY": ":memory:"}) == "sqlite:///:memory:"
    assert expand_url("sqlite:///${FILE}", {"FILE": "/a/b.db"}) == "sqlite:////a/b.db"
    assert expand_url("postgresql://u:$$${HOST}@h/d", ENVIRONMENT) == "postgresql://u:$db@h/d"


@pytest.mark.parametrize("text", ["$", "$USER", "${", "${}", "${A-B}", "x${USER", "${USER}$"])
def test_any_other_dollar_is_an_error(text: str) -> None:
    for function in (expand, expand_url):
        with pytest.raises(ConfigurationError, match=r"^single '\$'; write '\$\{NAME\}'"):
            function(text, ENVIRONMENT)


def test_a_missing_variable_is_named_without_the_text_around_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        expand_url("postgresql://u:geheim@${NOWHERE}/d", ENVIRONMENT)
    assert str(caught.value) == "the environment variable 'NOWHERE' is not set"
