"""The commands for migrations say what they did, and pass their arguments on."""

from pathlib import Path
from typing import Any

import pytest

from microorm.cli.migrate import notes, operations, rename_notes
from microorm.errors import MigrationError
from microorm.migrations import Difference, Revision, Step
from tests.cli.conftest import MODELS

STEPS = [
    Step("default", "3f00", "first", down=False, seconds=0.25),
    Step("archive", "3f2a", "second", down=True, seconds=1.5),
]
REVISIONS = [
    Revision("3f00", "first", (), Path("a.py"), {"default": True, "archive": True}),
    Revision("3f2a", "second", ("3f00",), Path("b.py"), {"default": False, "archive": True}),
    Revision("4a00", "third", ("3f2a",), Path("c.py"), {"default": False}),
]
UNKNOWN = "microorm: no database named 'archiv'; configured: 'archive', 'default'; nearest: 'archive'\n"
SOURCE = '''
"""First."""

from alembic import op
import sqlalchemy as sa

revision = "3f2a"


def upgrade() -> None:
    op.create_table("author", sa.Column("id", sa.Integer()), sa.PrimaryKeyConstraint("id"))
    if True:
        op.create_index(op.f("ix_author_name"), "author", ["name"])
    with op.batch_alter_table("book", schema=None) as batch_op:
        batch_op.add_column(sa.Column("price", sa.Numeric()))
        batch_op.create_index(batch_op.f("ix_book_price"), ["price"])
        batch_op.drop_column("cost")
    op.execute(sa.text("SELECT 1"))
    print("no operation")


def downgrade() -> None:
    op.drop_table("author")
'''


@pytest.mark.parametrize("command", ["migrate", "sql"])
def test_a_wrong_alias_is_refused_before_anything_is_done(invoke: Any, migrations: Any, command: str) -> None:
    done = invoke(command, "--alias", "archiv")
    assert (done.stdout, done.stderr, done.exit_code) == ("", UNKNOWN, 1)
    assert migrations.calls == ()


@pytest.mark.parametrize("command", ["migrate", "show", "sql", "check", "merge"])
def test_an_error_of_the_migrations_is_status_1(invoke: Any, migrations: Any, command: str) -> None:
    migrations.answer = MigrationError("two heads: 'a', 'b'")
    done = invoke(command)
    assert (done.stdout, done.stderr, done.exit_code) == ("", "microorm: two heads: 'a', 'b'\n", 1)


@pytest.mark.parametrize("revision", ["-12", "+2", "base", "3f2a"])
def test_a_revision_may_be_a_number_of_steps(invoke: Any, migrations: Any, revision: str) -> None:
    migrations.answer = []
    assert invoke("migrate", revision).exit_code == 0
    assert migrations.calls[-1] == ("migrate", revision, None, False)


@pytest.mark.parametrize("option", ["--fakee", "-x", "-1x", "--1"])
def test_an_unknown_option_is_not_taken_for_a_revision(invoke: Any, migrations: Any, option: str) -> None:
    done = invoke("migrate", option)
    assert done.exit_code == 2
    assert done.stderr.startswith("microorm: no such option")
    assert option in done.stderr
    assert done.stderr.endswith("; see 'microorm migrate --help'\n")
    assert migrations.calls == ()


def test_makemigrations_lists_the_operations(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    migrations.answer = tmp_path / "3f2a_first.py"
    migrations.answer.write_text(SOURCE)
    done = invoke("makemigrations", "-m", "first", "--rename", "a:b", "--rename", "book.cost:price")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout == (
        "wrote 3f2a_first.py\n"
        "  create_table author\n"
        "  create_index ix_author_name author\n"
        "  add_column book price\n"
        "  create_index book ix_book_price\n"
        "  drop_column book cost\n"
        "  execute\n"
        "note: if the column 'book.cost' was renamed to 'price', delete the file, and repeat the command with --rename "
        "book.cost:price\n"
    )
    assert migrations.calls[-1] == ("make", "first", ("a:b", "book.cost:price"), False)


def test_makemigrations_says_if_there_are_no_changes(invoke: Any, shop: Any, migrations: Any) -> None:
    done = invoke("makemigrations", "--message", "nothing", "--empty")
    assert (done.stdout, done.exit_code) == ("no changes\n", 0)
    assert migrations.calls[-1] == ("make", "nothing", (), True)


def test_an_empty_revision_has_no_operations(tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.write_text("def upgrade() -> None:\n    pass\n")
    assert operations(file) == []


def test_migrate_prints_a_line_for_each_step(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS
    done = invoke("migrate", "--alias", "default")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout == "default: up 3f00 first (0.25 s)\narchive: down 3f2a second (1.50 s)\n"
    assert migrations.calls[-1] == ("migrate", "head", "default", False)


def test_migrate_marks_faked_steps(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS[:1]
    assert invoke("migrate", "3f00", "--fake").stdout == "default: up 3f00 first (0.25 s, faked)\n"
    assert migrations.calls[-1] == ("migrate", "3f00", None, True)


def test_a_plan_takes_no_step(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS
    done = invoke("migrate", "--plan")
    assert done.stdout == (
        "alias\tdirection\trevision\tmessage\ndefault\tup\t3f00\tfirst\narchive\tdown\t3f2a\tsecond\n"
    )
    assert [call[0] for call in migrations.calls] == ["made", "plan"]


@pytest.mark.parametrize("arguments", [[], ["--plan"]])
def test_migrate_says_if_there_is_nothing_to_do(invoke: Any, migrations: Any, arguments: list[str]) -> None:
    migrations.answer = []
    done = invoke("migrate", *arguments)
    assert (done.stdout, done.exit_code) == ("nothing to do\n", 0)


def test_on_a_terminal_the_steps_stay_and_the_bar_goes(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS
    done = invoke("migrate", FORCE_COLOR="1", TERM="xterm", COLUMNS="70")
    assert done.exit_code == 0
    lines = [line.rpartition("\x1b[2K")[2].rstrip() for line in done.stdout.splitlines()]
    assert "default: up 3f00 first (0.25 s)" in lines
    assert "archive: down 3f2a second (1.50 s)" in lines
    assert "migrating" in done.stdout
    assert [call[0] for call in migrations.calls] == ["made", "plan", "migrate"]


def test_steps_before_an_error_are_printed(invoke: Any, migrations: Any, monkeypatch: Any) -> None:
    def migrate(self: Any, *args: Any, progress: Any, **kwargs: Any) -> Any:
        progress(STEPS[0])
        raise MigrationError("archive: at 3f00; 3f2a failed")

    monkeypatch.setattr(migrations, "migrate", migrate)
    done = invoke("migrate")
    assert done.stdout == "default: up 3f00 first (0.25 s)\n"
    assert (done.stderr, done.exit_code) == ("microorm: archive: at 3f00; 3f2a failed\n", 1)


def test_show_marks_applied_revisions(invoke: Any, migrations: Any) -> None:
    migrations.answer = REVISIONS
    assert invoke("show").stdout == (
        "revision\tmessage\tdefault\tarchive\n"
        "3f00\tfirst\t[x]\t[x]\n"
        "3f2a\tsecond\t[ ]\t[x]\n"
        "4a00\tthird\t[ ]\t\n"
    )
    migrations.answer = []
    done = invoke("show")
    assert (done.stdout, done.exit_code) == ("no revisions\n", 0)


def test_sql_prints_nothing_but_sql(invoke: Any, migrations: Any) -> None:
    migrations.answer = "CREATE TABLE a (id INTEGER);\n\n"
    done = invoke("sql", "base:head", "--alias", "archive", FORCE_COLOR="1")
    assert (done.stdout, done.stderr, done.exit_code) == ("CREATE TABLE a (id INTEGER);\n", "", 0)
    assert migrations.calls[-1] == ("sql", "base:head", "archive")


def test_check_prints_differences_with_status_1(invoke: Any, shop: Any, migrations: Any) -> None:
    migrations.answer = [
        Difference("default", "book: no column 'price'"),
        Difference("archive", "no table 'book'"),
    ]
    done = invoke("check")
    assert done.stdout == "default: book: no column 'price'\narchive: no table 'book'\n"
    assert (done.stderr, done.exit_code) == ("", 1)
    migrations.answer = []
    done = invoke("check")
    assert (done.stdout, done.exit_code) == ("models and databases agree\n", 0)


def test_merge_names_the_file(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    migrations.answer = tmp_path / "migrations" / "4a00_merge.py"
    assert invoke("merge").stdout == "wrote migrations/4a00_merge.py\n"
    assert migrations.calls[-1] == ("merge", "merge")
    assert invoke("merge", "-m", "prices and names").exit_code == 0
    assert migrations.calls[-1] == ("merge", "prices and names")


def test_a_note_of_a_revision_is_repeated(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    note = "book.price is required and has no default: this fails if book has rows."
    migrations.answer = tmp_path / "3f2a_first.py"
    batch = '    with op.batch_alter_table("book"'
    migrations.answer.write_text(
        SOURCE.replace(batch, f"    # {note}\n{batch}").replace("op.drop", "# no note\n    op.drop")
    )
    assert notes(migrations.answer) == [note]
    assert f"note: {note}\n" in invoke("makemigrations", "-m", "first").stdout


@pytest.mark.parametrize(
    ("found", "rename"),
    [
        (
            ["drop_column book note", "add_column book remark"],
            ["column 'book.note' was renamed to 'remark', book.note:remark"],
        ),
        (
            [
                "add_column book title",
                "add_column book price",
                "drop_column book prices",
                "drop_column book cost",
            ],
            ["column 'book.prices' was renamed to 'price', book.prices:price"],
        ),
        (["drop_column book a", "add_column author b", "create_table author", "drop_index book c"], []),
        (
            ["create_table author", "create_table volume", "drop_table volumes"],
            ["table 'volumes' was renamed to 'volume', volumes:volume"],
        ),
    ],
)
def test_what_may_be_a_rename_is_noted(found: list[str], rename: list[str]) -> None:
    """Once for each table, with the names that are most alike."""
    texts = [f"if the {each}" for each in rename]
    how = "delete the file, and repeat the command with --rename"
    assert list(rename_notes(found)) == [each.replace(", ", f", {how} ") for each in texts]


def test_a_rename_that_was_forgotten_can_be_declared_as_the_note_says(invoke: Any, project: Any) -> None:
    project.write({"models.py": MODELS})
    for command in (("init",), ("makemigrations", "-m", "first"), ("migrate",)):
        assert invoke(*command).exit_code == 0
    project.write({"models.py": MODELS.replace("title", "caption")})
    done = invoke("makemigrations", "-m", "second").stdout
    note = done.splitlines()[-1]
    assert note.startswith("note: if the column 'book.title' was renamed to 'caption', delete the file, and ")
    (project.folder / done.split()[1]).unlink()
    done = invoke("makemigrations", "-m", "second", *note.split()[-2:]).stdout
    assert "alter_column book title" in done
    assert "note" not in done


def test_without_migrations_the_error_says_how_to_begin(invoke: Any, project: Any) -> None:
    project.write({"models.py": MODELS})
    assert invoke("check").stderr.endswith("it has no env.py; run `microorm init`\n")


def test_a_project_without_models_says_so(invoke: Any, migrations: Any) -> None:
    for command in (("makemigrations", "-m", "first"), ("check",)):
        migrations.answer = None if command[0] == "makemigrations" else []
        done = invoke(*command)
        assert done.stdout.startswith("no models; list the applications that define them in 'apps'")
        assert done.exit_code == 0


def test_a_project_of_one_module_has_models(invoke: Any, project: Any) -> None:
    project.write({"models.py": MODELS})
    assert invoke("init").exit_code == 0
    assert "create_table book" in invoke("makemigrations", "-m", "first").stdout
    assert invoke("migrate").exit_code == 0
    assert invoke("check").stdout == "models and databases agree\n"
