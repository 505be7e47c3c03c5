"""`microorm makemigrations` says what it wrote, and when it wrote nothing."""

from pathlib import Path
from typing import Any

from microorm.cli.makemigrations import operations

REVISION = '''
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


def test_it_says_what_it_wrote(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    migrations.answer = tmp_path / "3f2a_first.py"
    migrations.answer.write_text(REVISION)
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
    )
    assert migrations.calls[-1] == ("make", "first", ("a:b", "book.cost:price"), False)


def test_it_says_when_nothing_has_changed(invoke: Any, migrations: Any) -> None:
    done = invoke("makemigrations", "--message", "nothing", "--empty")
    assert (done.stdout, done.exit_code) == ("nothing has changed\n", 0)
    assert migrations.calls[-1] == ("make", "nothing", (), True)


def test_a_revision_without_operations_has_none(tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.write_text("def upgrade() -> None:\n    pass\n")
    assert operations(file) == []
