"""What a revision says beside alembic's own operations is written, run, and taken back."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.operations.ops import AddColumnOp, DropColumnOp, UpgradeOps

from microorm import Field, Model, field, types
from microorm.migrations import Migrations
from microorm.migrations.dialects import render_item
from microorm.migrations.operations import (
    AddedCheck,
    Dropped,
    Filled,
    OnlyOn,
    RenamedColumn,
    RenamedTable,
)

Anew = Callable[[], type[Model]]


def written(*operations: Any) -> str:
    """The operations as a revision has them."""
    return render_python_code(UpgradeOps(operations), render_as_batch=True, render_item=render_item)


def pages(**options: Any) -> sa.Column[Any]:
    return sa.Column("pages", types.integer_type(), **options)


def test_a_filled_column_is_added_filled_and_narrowed() -> None:
    filled = Filled(AddColumnOp("pages", pages(nullable=False)), pages(nullable=False), 7)
    text = written(filled)
    lines = [line.strip() for line in text.splitlines()]
    assert "batch_op.add_column(sa.Column('pages', types.integer_type(), nullable=True))" in lines
    assert "op.fill_column('pages', 'pages', types.integer_type(), 7)" in lines
    assert text.index("add_column") < text.index("fill_column") < text.index("alter_column")
    assert "drop_column('pages')" in written(filled.reverse())


def test_what_goes_comes_back_with_a_zero() -> None:
    drop = DropColumnOp.from_column_and_tablename(None, "book", pages(nullable=False))
    assert "drop_column('pages')" in written(Dropped(drop))
    assert "op.fill_column('book', 'pages', types.integer_type(), 0)" in written(Dropped(drop).reverse())


def test_what_has_no_zero_comes_back_as_it_was() -> None:
    class Odd(sa.types.UserDefinedType[Any]):
        cache_ok = True

        def get_col_spec(self) -> str:
            return "ODD"

    drop = DropColumnOp.from_column_and_tablename(None, "book", sa.Column("odd", Odd(), nullable=False))
    back = written(Dropped(drop).reverse())
    assert "add_column" in back
    assert "fill_column" not in back


def test_a_renamed_column_goes_back_to_its_name() -> None:
    renamed = RenamedColumn("book", "pages", modify_name="length", existing_type=types.integer_type())
    back = renamed.reverse()
    assert (back.column_name, back.modify_name) == ("length", "pages")
    assert back.has_changes()
    assert renamed.to_diff_tuple() == ("rename_column", "book", "pages", "length")


def test_a_renamed_table_goes_back_to_its_name() -> None:
    renamed = RenamedTable("book", "volume")
    assert "op.rename_table('book', 'volume')" in written(renamed)
    assert "op.rename_table('volume', 'book')" in written(renamed.reverse())


def test_what_some_databases_need_is_said_for_them() -> None:
    only = OnlyOn([RenamedTable("book", "volume")], alias=("archive",))
    assert "if on(alias='archive'):\n        op.rename_table('book', 'volume')" in written(only)
    several = OnlyOn([RenamedTable("a", "b"), RenamedTable("c", "d")], dialect=("mariadb", "sqlite"))
    back = written(several.reverse())
    assert "if on(dialect=('mariadb', 'sqlite')):" in back
    assert back.index("'d', 'c'") < back.index("'b', 'a'")


def test_a_check_comes_back_as_it_was() -> None:
    check = AddedCheck.of("book", "ck_book_pages", sa.text("pages > 0"))
    again = check.reverse().reverse()
    assert (again.table_name, str(again.constraint_name), str(again.condition)) == (
        "book",
        "ck_book_pages",
        "pages > 0",
    )


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_rows_without_a_value_are_filled_and_others_left(anew: Anew, migrations: Any, backend: str) -> None:
    old: Any = anew()

    class Book(old):
        title: Field[str] = field(max_length=40)
        price: Field[Decimal | None] = field(default=None, max_digits=8, decimal_places=2)
        at: Field[datetime.datetime | None] = field(default=None)

    history: Migrations = migrations(old)
    history.make("first")
    history.migrate()
    Book(title="free").save()
    Book(title="dear", price=Decimal("9.50")).save()
    made = history.make("fill", empty=True)
    assert made is not None
    lines = (
        "import datetime",
        "from decimal import Decimal",
        "from microorm import types",
        "def upgrade() -> None:",
        "    op.fill_column('book', 'price', types.ExactNumeric(8, 2), Decimal('1.25'))",
        "    op.fill_column('book', 'at', types.UtcDateTime(), datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC))",
        "def downgrade() -> None:",
        "    pass",
    )
    made.write_text(made.read_text().partition("def upgrade()")[0] + "\n".join(lines))
    assert "1.25" in history.sql("0001:0002", alias="default")
    history.migrate()
    assert [(book.title, book.price) for book in Book.objects.order_by(Book.id)] == [
        ("free", Decimal("1.25")),
        ("dear", Decimal("9.50")),
    ]
    assert {book.at for book in Book.objects} == {datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)}
