"""The operations of revisions beside alembic's own are written, executed and reversed."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.operations.ops import AddColumnOp, DropColumnOp, UpgradeOps

from microorm import Databases, Field, field, types
from microorm.migrations.dialects import render_item
from microorm.migrations.operations import (
    ConditionalOps,
    CreateCheckOp,
    DropRequiredColumnOps,
    RenameColumnOp,
    RenameTableOp,
    RequiredColumnOps,
    altered,
    zero_value,
)
from tests.migrations.shop import migrated, new_base, revise


def written(*operations: Any) -> str:
    """The operations as a revision has them."""
    return render_python_code(UpgradeOps(operations), render_as_batch=True, render_item=render_item)


def pages(**options: Any) -> sa.Column[Any]:
    return sa.Column("pages", types.integer_type(), **options)


def test_a_required_column_is_added_filled_and_narrowed() -> None:
    operation = RequiredColumnOps(AddColumnOp("book", pages(nullable=False)), pages(nullable=False), 7)
    text = written(operation)
    lines = [line.strip() for line in text.splitlines()]
    assert "batch_op.add_column(sa.Column('pages', types.integer_type(), nullable=True))" in lines
    assert "op.fill_column('book', 'pages', types.integer_type(), 7)" in lines
    assert text.index("add_column") < text.index("fill_column") < text.index("alter_column")
    assert "drop_column('pages')" in written(operation.reverse())


def test_values_are_written_with_their_types() -> None:
    for type_, value, source in (
        (types.ExactNumeric(8, 2), Decimal("1.25"), "types.ExactNumeric(8, 2), Decimal('1.25')"),
        (sa.Date(), datetime.date(2020, 1, 2), "sa.Date(), datetime.date(2020, 1, 2)"),
    ):
        column: sa.Column[Any] = sa.Column("value", type_, nullable=False)
        text = written(RequiredColumnOps(AddColumnOp("book", column), column, value))
        assert f"op.fill_column('book', 'value', {source})" in text


def test_a_dropped_column_comes_back_with_a_zero() -> None:
    drop = DropColumnOp.from_column_and_tablename(None, "book", pages(nullable=False))
    assert "drop_column('pages')" in written(DropRequiredColumnOps(drop))
    back = written(DropRequiredColumnOps(drop).reverse())
    assert "op.fill_column('book', 'pages', types.integer_type(), 0)" in back
    constrained = written(DropRequiredColumnOps(drop, constrained=True).reverse())
    assert "fill_column" not in constrained
    assert "nullable=True" in constrained


def test_a_dropped_column_without_a_zero_comes_back_as_it_was() -> None:
    class Odd(sa.types.UserDefinedType[Any]):
        cache_ok = True

        def get_col_spec(self) -> str:
            return "ODD"

    drop = DropColumnOp.from_column_and_tablename(None, "book", sa.Column("odd", Odd(), nullable=False))
    back = written(DropRequiredColumnOps(drop).reverse())
    assert "add_column" in back
    assert "nullable=False" in back
    assert "fill_column" not in back


def test_a_renamed_column_is_renamed_back() -> None:
    renamed = RenameColumnOp("book", "pages", modify_name="length", existing_type=types.integer_type())
    back = renamed.reverse()
    assert (back.column_name, back.modify_name) == ("length", "pages")
    assert back.has_changes()
    assert altered(RenameColumnOp("book", "a", modify_nullable=False)) == ("nullability",)


def test_a_renamed_table_is_renamed_back() -> None:
    renamed = RenameTableOp("book", "volume")
    assert "op.rename_table('book', 'volume')" in written(renamed)
    assert "op.rename_table('volume', 'book')" in written(renamed.reverse())


def test_operations_for_some_databases_are_written_with_their_condition() -> None:
    only = ConditionalOps([RenameTableOp("book", "volume")], {"alias": ("archive",)})
    assert "if on(alias='archive'):\n        op.rename_table('book', 'volume')" in written(only)
    renames = [RenameTableOp("a", "b"), RenameTableOp("c", "d")]
    back = written(ConditionalOps(renames, {"dialect": ("mariadb", "sqlite")}).reverse())
    assert "if on(dialect=('mariadb', 'sqlite')):" in back
    assert back.index("'d', 'c'") < back.index("'b', 'a'")


def test_a_check_comes_back_as_it_was() -> None:
    again = CreateCheckOp("ck_book_pages", "book", sa.text("pages > 0")).reverse().reverse()
    assert (again.table_name, str(again.constraint_name)) == ("book", "ck_book_pages")
    assert str(again.condition) == "pages > 0"


@pytest.mark.parametrize(
    ("type_", "zero"),
    [
        (types.integer_type(), 0),
        (types.text_type(9), ""),
        (types.UtcDateTime(), datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)),
        (types.ExactNumeric(8, 2), Decimal(0)),
        (types.uuid_type(), UUID(int=0)),
        (types.json_type(), {}),
        (sa.types.NullType(), None),
    ],
)
def test_a_zero_is_of_the_type_of_its_column(type_: Any, zero: Any) -> None:
    assert zero_value(type_) == zero


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_rows_without_a_value_are_filled_and_others_left(database: Databases, folder: Path) -> None:
    base = new_base(database)

    class Book(base):
        title: Field[str] = field(max_length=40)
        price: Field[Decimal | None] = field(default=None, max_digits=8, decimal_places=2)
        at: Field[datetime.datetime | None] = field(default=None)

    migrations = migrated(base, folder, "first")
    Book(title="free").save()
    Book(title="dear", price=Decimal("9.50")).save()
    revise(
        migrations,
        "op.fill_column('book', 'price', types.ExactNumeric(8, 2), Decimal('1.25'))",
        "op.fill_column('book', 'at', types.UtcDateTime(), datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC))",
    )
    assert "1.25" in migrations.sql("0001:0002", using="default")
    migrations.migrate()
    assert [(book.title, book.price) for book in Book.objects.order_by(Book.id)] == [
        ("free", Decimal("1.25")),
        ("dear", Decimal("9.50")),
    ]
    assert {book.at for book in Book.objects} == {datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)}
