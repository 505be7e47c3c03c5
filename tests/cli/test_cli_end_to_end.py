"""Bad input to the whole program: one line that says what is wrong, a status, and nothing that has changed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import microorm
from microorm import Databases, Field, Registry
from microorm.migrations import Migrations, write_environment
from tests.programs import Program

pytestmark = pytest.mark.slow

PYPROJECT = '[tool.microorm]\napps = ["shop"]\ndatabases = {{ default = "sqlite:///shop.db"{more} }}\n'
MODELS = "from microorm import Field, Model\n\n\nclass Book(Model):\n    title: Field[str]\n"
MORE_PAGES = """def upgrade() -> None:
    op.add_column("book", sa.Column("pages", sa.BigInteger()))
    op.execute("UPDATE book SET pages = 1")
"""
UNREACHABLE = ', archive = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"'

Break = Callable[[Path], object]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A project whose database has a row and is at its first revision; a second one waits."""
    program = Program(tmp_path)
    program.write({"pyproject.toml": PYPROJECT.format(more=""), "shop/models.py": MODELS})
    write_environment(tmp_path / "migrations")
    with Databases(f"sqlite:///{tmp_path / 'shop.db'}") as databases:

        class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
            pass

        class Book(Base):
            title: Field[str]

        migrations = Migrations(tmp_path / "migrations", Base.__options__.registry)
        migrations.make("first")
        migrations.migrate()
        Book(title="Dune").save()
        migrations.make("second", empty=True)
    second = second_of(tmp_path)
    second.write_text(second.read_text().replace("def upgrade() -> None:\n    pass\n", MORE_PAGES))
    return program


def second_of(folder: Path) -> Path:
    return folder / "migrations" / "versions" / "0002_second.py"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def fork(folder: Path) -> None:
    """Another revision after the first one."""
    second = second_of(folder)
    text = second.read_text().replace("revision = '0002'", "revision = '0003'")
    second.with_name("0003_other.py").write_text(text)


def fail(folder: Path) -> None:
    """A revision that fails half-way."""
    second = second_of(folder)
    second.write_text(second.read_text().replace("UPDATE book SET pages", "UPDATE nothing SET pages"))


CASES: dict[str, tuple[Break | None, list[str], int, str]] = {
    "no configuration": (
        lambda folder: (folder / "pyproject.toml").unlink(),
        ["migrate"],
        1,
        "no pyproject.toml with [tool.microorm] in '",
    ),
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
        "models.py:7: LookupError: no such shelf",
    ),
    "init where migrations are": (None, ["init"], 1, "is there already"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_changes_nothing(case: str, program: Program) -> None:
    spoil, arguments, status, told = CASES[case]
    if spoil is not None:
        spoil(program.folder)
    before = program.files()
    out, err, done = program.run(*arguments)
    assert (out, done) == ("", status)
    assert re.fullmatch(r"microorm: .*\n", err)
    assert told in err
    assert "secret" not in err
    assert program.files() == before


def test_what_was_bad_and_is_mended_goes_on(program: Program) -> None:
    good = second_of(program.folder).read_text()
    fail(program.folder)
    assert program.run("migrate")[2] == 1
    second_of(program.folder).write_text(good)
    out, err, status = program.run("migrate")
    assert (err, status) == ("", 0)
    assert out.startswith("default: up 0002 second")
