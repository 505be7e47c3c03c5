"""The program: its commands, its help, the project of a run, completion, and how an error ends it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import microorm
from microorm import Databases, Field, ForeignKey, Model, Registry, foreign_key
from microorm.apps import Apps
from microorm.cli import main
from microorm.cli.program import Invocation
from microorm.errors import MigrationError
from microorm.migrations import Migrations, write_environment
from microorm.project import read_project
from tests.programs import Program


@pytest.mark.parametrize("name", main.commands)
def test_the_help_teaches(name: str, invoke: Any) -> None:
    """A sentence that the list of commands shows as a whole, examples, exit statuses, and a line for each option."""
    done = invoke(name, "--help")
    assert done.exit_code == 0
    assert f"  Examples:\n    microorm {name}" in done.output
    assert "  Exit status:\n    0  " in done.output
    options = [each for each in main.commands[name].params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []
    sentence = str(main.commands[name].help).partition("\n")[0]
    assert re.search(rf"^  {name} +{re.escape(sentence)}$", invoke("--help").output, re.MULTILINE)


@pytest.mark.slow
def test_help_loads_neither_a_project_nor_the_libraries_of_single_commands(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from microorm.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print({'alembic', 'rich', 'tomlkit', 'microorm.migrations'} & set(sys.modules))\n"
    )
    out, err, status = Program(tmp_path).python("-c", code)
    assert (out.splitlines()[-1], err, status) == ("set()", "", 0)


def test_without_a_command_there_is_the_help(invoke: Any) -> None:
    assert invoke().output == invoke("--help").output
    assert invoke("--version").output == f"microorm {microorm.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["migrat"], "no command named 'migrat'; nearest: 'migrate'; see 'microorm --help'"),
        (["nonsense"], "no command named 'nonsense'; see 'microorm --help'"),
        (["--nonsense"], "no such option"),
        (["show", "--nonsense"], "no such option"),
        (["show", "more"], "got unexpected extra argument "),
        (["merge", "-m"], "option '-m' requires an argument"),
        (["makemigrations"], "missing option '-m' / '--message'; see 'microorm makemigrations --help'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(invoke: Any, arguments: list[str], message: str) -> None:
    done = invoke(*arguments)
    assert (done.stdout, done.exit_code) == ("", 2)
    assert done.stderr.startswith(f"microorm: {message}")
    assert done.stderr.count("\n") == 1
    assert not done.stderr.endswith(".\n")


def test_an_error_is_one_line_unless_a_traceback_is_asked_for(invoke: Any, migrations: Any) -> None:
    """Only the migrations' own errors may have several lines."""
    migrations.answer = MigrationError("two heads: 'a', 'b'\ndefault: at 'a'")
    done = invoke("migrate")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert done.stderr == "microorm: two heads: 'a', 'b'\ndefault: at 'a'\n"
    done = invoke("--traceback", "migrate")
    assert done.exit_code == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("MigrationError: two heads: 'a', 'b'\ndefault: at 'a'\n")


def test_a_missing_configuration_is_an_error_of_every_command(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").unlink()
    for name in main.commands.keys() - {"init", "makemigrations", "outbox"}:
        done = invoke(name, *(["rows.json"] if name == "load" else []))
        text = (
            f"microorm: no pyproject.toml with [tool.microorm] in {str(tmp_path)!r} or its parent folders\n"
        )
        assert (done.stdout, done.stderr, done.exit_code) == ("", text, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_project_may_be_elsewhere(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.microorm]\ndatabases = { far = 'sqlite://' }\n")
    migrations.answer = []
    for path in ("elsewhere", str(folder / "pyproject.toml")):
        migrations.calls = []
        assert invoke("--project", path, "show").exit_code == 0
        assert migrations.calls[0] == ("made", "migrations", ("far",))
    done = invoke("--project", "nowhere", "show")
    assert done.stderr == f"microorm: no such file or folder: {str(tmp_path / 'nowhere')!r}\n"


def test_it_is_a_command_of_another_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.group()
    def outer() -> None: ...

    outer.add_command(main, "db")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(outer, ["db", "--version"]).exit_code == 0
    done = CliRunner().invoke(outer, ["db", "show"])
    assert isinstance(done.exception, microorm.ConfigurationError)
    assert main(["--version"], standalone_mode=False) == 0


# The project of a run.


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.microorm]\ndatabases = { default = 'sqlite://' }\n")
    monkeypatch.syspath_prepend(tmp_path)
    return file


def test_the_project_is_read_once(file: Path) -> None:
    invocation = Invocation()
    invocation.start = file
    assert invocation.loaded_project is None
    assert invocation.project == read_project(file)
    file.unlink()
    assert invocation.project is invocation.loaded_project


def test_a_project_that_is_passed_is_not_searched_for(file: Path, tmp_path: Path) -> None:
    project = read_project(file)
    invocation = Invocation(project)
    invocation.start = tmp_path / "nowhere"
    assert invocation.project is project


def test_databases_configured_by_a_run_are_closed_by_it(file: Path) -> None:
    with Databases() as databases:
        apps = Apps(Registry(databases))
        invocation = Invocation(read_project(file), apps)
        invocation.close()
        invocation.set_up()
        assert apps.ready
        assert invocation.registry.databases is databases
        assert databases.aliases == ("default",)
        invocation.set_up()
        invocation.close()
        assert databases.aliases == ()


def test_databases_configured_before_a_run_stay_open(file: Path) -> None:
    """A program that runs a command in its own process continues with its databases."""
    with Databases() as databases:
        apps = Apps(Registry(databases))
        read_project(file).set_up(apps)
        invocation = Invocation(read_project(file), apps)
        invocation.set_up()
        invocation.close()
        assert databases.aliases == ("default",)


def test_relations_by_name_are_resolved(file: Path) -> None:
    with Databases() as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            author: ForeignKey["Writer"] = foreign_key(on_delete="cascade")

        class Writer(Model, registry=registry):
            name: Field[str]

        assert len(registry.models) < 2
        Invocation(read_project(file), Apps(registry)).set_up()
        assert {model.__name__ for model in registry.models.values()} == {"Book", "Writer"}


def test_the_migrations_are_those_of_the_project(invoke: Any, migrations: Any) -> None:
    migrations.answer = []
    assert invoke("show").exit_code == 0
    assert migrations.calls == [("made", "migrations", ("default", "archive")), ("show",)]


# Completion.


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("microorm mig", ["migrate"]),
        ("microorm migrate --alias a", ["archive"]),
        ("microorm migrate --alias ", ["default", "archive"]),
        ("microorm sql ", ["head", "base", "3f00", "3f2a"]),
        ("microorm migrate 3f2", ["3f2a"]),
        ("microorm signals --model shop.", ["shop.Author", "shop.Book"]),
    ],
)
def test_a_shell_completes_names_of_the_project(
    invoke: Any, shop: Program, words: str, found: list[str]
) -> None:
    """Revisions are read, not imported; what a module prints is not offered."""
    shop.write(
        {
            "shop/__init__.py": "print('noise')\n",
            "migrations/versions/b.py": 'revision: str = "3f2a"\ndown_revision = "3f00"\n',
            "migrations/versions/a.py": "revision = '3f00'\ndown_revision = None\nraise RuntimeError\n",
        }
    )
    (shop.folder / "migrations" / "versions" / "__init__.py").unlink()
    assert complete(invoke, words) == found


@pytest.mark.parametrize(
    "words", ["microorm migrate --alias ", "microorm migrate ", "microorm signals --model "]
)
def test_a_project_that_cannot_be_read_completes_nothing(invoke: Any, project: Program, words: str) -> None:
    project.write({"pyproject.toml": "[tool.microorm\n"})
    assert complete(invoke, words) == []


def complete(invoke: Any, words: str) -> list[str]:
    index = str(words.count(" "))
    done = invoke(_MICROORM_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=index)
    assert (done.stderr, done.exit_code) == ("", 0)
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


# The end of a whole program.


def test_an_interrupt_is_status_130(invoke: Any) -> None:
    done = invoke("shell", "-c", "raise KeyboardInterrupt")
    assert (done.stdout, done.stderr.strip(), done.exit_code) == ("", "", 130)
    code = "error = KeyboardInterrupt()\nerror.add_note('default: at 0001')\nraise error"
    assert invoke("shell", "-c", code).stderr.strip() == "microorm: default: at 0001"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_a_process_that_is_interrupted_ends_with_130(project: Program) -> None:
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    out, err, status = project.run("shell", "-c", code)
    assert (out, err.strip(), status) == ("", "", 128 + signal.SIGINT)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_leaves_is_no_error(project: Program) -> None:
    """As in `microorm show | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "microorm", "--help"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=project.environment(),
        )
    assert (done.stderr, done.returncode) == (b"", 1)


# Bad input: one line that says what is wrong, a status, and nothing that has changed.

PYPROJECT = '[tool.microorm]\napps = ["shop"]\ndatabases = {{ default = "sqlite:///shop.db"{more} }}\n'
BOOK = "from clibase import Base\nfrom microorm import Field\n\n\nclass Book(Base):\n    title: Field[str]\n"
MORE_PAGES = """def upgrade() -> None:
    op.add_column("book", sa.Column("pages", sa.BigInteger()))
    op.execute("UPDATE book SET pages = 1")
"""
UNREACHABLE = ', archive = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"'


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project whose database has a row and is at the first of two revisions."""
    folder = tmp_path_factory.mktemp("migrated")
    Program(folder).write({"pyproject.toml": PYPROJECT.format(more=""), "shop/models.py": BOOK})
    write_environment(folder / "migrations")
    with Databases(f"sqlite:///{folder / 'shop.db'}") as databases:

        class Base(Model, registry=Registry(databases), app="shop", abstract=True):
            pass

        class Book(Base):
            title: Field[str]

        migrations = Migrations(folder / "migrations", Base.__options__.registry)
        migrations.make("first")
        migrations.migrate()
        Book(title="Dune").save()
        migrations.make("second", empty=True)
    second = second_of(folder)
    second.write_text(second.read_text().replace("def upgrade() -> None:\n    pass\n", MORE_PAGES))
    return folder


@pytest.fixture
def library(project: Program, migrated: Path) -> Program:
    """A copy of that project, in the working directory."""
    shutil.copytree(migrated, project.folder, dirs_exist_ok=True)
    return project


def second_of(folder: Path) -> Path:
    return folder / "migrations" / "versions" / "0002_second.py"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def fork(folder: Path) -> None:
    """Add another revision after the first one."""
    second = second_of(folder)
    text = second.read_text().replace("revision = '0002'", "revision = '0003'")
    second.with_name("0003_other.py").write_text(text)


def fail(folder: Path) -> None:
    """Let the second revision fail half-way."""
    second = second_of(folder)
    second.write_text(second.read_text().replace("UPDATE book SET pages", "UPDATE nothing SET pages"))


CASES: dict[str, tuple[Callable[[Path], object] | None, list[str], int, str]] = {
    "a wrong alias": (
        None,
        ["migrate", "--alias", "defualt"],
        1,
        "no database named 'defualt'; configured: 'default'; nearest: 'default'",
    ),
    "a wrong revision": (
        None,
        ["migrate", "0007"],
        1,
        "no revision '0007'; nearest: '0002'; known: '0001', '0002'",
    ),
    "a revision that is no Python": (
        lambda folder: append(second_of(folder), "def (:\n"),
        ["migrate"],
        1,
        "0002_second.py:",
    ),
    "a revision that fails": (fail, ["migrate"], 1, "revision '0002' failed on 'default': "),
    "two heads": (
        fork,
        ["migrate"],
        1,
        "the history has 2 heads, '0002' and '0003', which no revision joins",
    ),
    "two heads, and a third revision": (
        fork,
        ["makemigrations", "-m", "third"],
        1,
        "the history has 2 heads",
    ),
    "a database that is behind": (
        None,
        ["makemigrations", "-m", "third"],
        1,
        "'default' is at '0001', and the newest revision is '0002'",
    ),
    "a server that is not there": (
        lambda folder: (folder / "pyproject.toml").write_text(PYPROJECT.format(more=UNREACHABLE)),
        ["migrate"],
        1,
        "'archive' cannot be reached: ",
    ),
    "an unknown command": (None, ["migrat"], 2, "no command named 'migrat'; nearest: 'migrate'"),
    "models that raise": (
        lambda folder: append(folder / "shop" / "models.py", "\nraise LookupError('no such shelf')\n"),
        ["migrate"],
        1,
        "models.py:8: LookupError: no such shelf",
    ),
    "init where migrations are": (None, ["init"], 1, "already exists"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_changes_nothing(case: str, invoke: Any, library: Program) -> None:
    spoil, arguments, status, text = CASES[case]
    if spoil is not None:
        spoil(library.folder)
    before = library.files()
    done = invoke(*arguments)
    assert (done.stdout, done.exit_code) == ("", status)
    assert re.fullmatch(r"microorm: .*\n", done.stderr)
    assert text in done.stderr
    assert "secret" not in done.stderr
    assert library.files() == before


def test_the_same_command_continues_once_the_error_is_corrected(invoke: Any, library: Program) -> None:
    good = second_of(library.folder).read_text()
    fail(library.folder)
    assert invoke("migrate").exit_code == 1
    second_of(library.folder).write_text(good)
    done = invoke("migrate")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout.startswith("default: up 0002 second")


@pytest.mark.parametrize("command", ["signals", "migrate", "makemigrations -m x", "check", "shell -c 1"])
def test_models_that_raise_are_the_same_line_in_every_command(
    invoke: Any, shop: Program, command: str
) -> None:
    shop.write({"shop/models.py": "import json\n\njson.loads('[')\n", "migrations/env.py": ""})
    before = shop.files()
    done = invoke(*command.split())
    place = f"shop.models, {shop.folder}/shop/models.py:3"
    assert done.stderr == f"microorm: {place}: JSONDecodeError: Expecting value: line 1 column 2 (char 1)\n"
    assert (done.stdout, done.exit_code) == ("", 1)
    assert shop.files() == before
