"""The changes of a table come in an order that every database can go, and can go back."""

from typing import Any

import sqlalchemy as sa
from alembic.operations.ops import (
    AddColumnOp,
    CreateForeignKeyOp,
    CreateIndexOp,
    CreateTableOp,
    CreateUniqueConstraintOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)

from microorm.migrations.operations import Dropped, Filled, RenamedColumn
from microorm.migrations.plan import Change, forget_indexes, modified, ordered
from microorm.migrations.plan import arranged as arrange

METADATA = sa.MetaData()
AUTHOR = sa.Table("author", METADATA, sa.Column("id", sa.Integer, primary_key=True))
BOOK = sa.Table(
    "book",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("author_id", sa.Integer, sa.ForeignKey("author.id", name="fk")),
    sa.Column("pages", sa.Integer, nullable=False),
)


def arranged(*operations: Any, value: Any = None) -> list[Any]:
    changes = [
        Change(
            (),
            getattr(each, "source_table", None) or each.table_name,
            not isinstance(each, CreateTableOp | DropTableOp),
            [each],
        )
        for each in operations
    ]
    return ordered(arrange(changes, METADATA), METADATA, lambda table, column: (value is not None, value))


def names(operations: list[Any]) -> list[str]:
    return [
        type(inner).__name__
        for each in operations
        for inner in (each.ops if isinstance(each, ModifyTableOps) else [each])
    ]


def test_what_goes_goes_first_and_what_comes_comes_last() -> None:
    built = arranged(
        CreateForeignKeyOp("fk2", "book", "author", ["x"], ["id"]),
        CreateUniqueConstraintOp("uq", "book", ["x"]),
        AddColumnOp("book", sa.Column("x", sa.Integer)),
        DropIndexOp("ix", "book", _reverse=CreateIndexOp("ix", "book", ["pages"])),
        DropConstraintOp("fk", "book", type_="foreignkey"),
    )
    assert names(built) == [
        "DropConstraintOp",
        "DropIndexOp",
        "AddColumnOp",
        "CreateUniqueConstraintOp",
        "CreateForeignKeyOp",
    ]
    assert len(built) == 1


def test_an_index_that_a_key_needs_goes_when_another_is_there() -> None:
    built = arranged(
        DropIndexOp("ix", "book", _reverse=CreateIndexOp("ix", "book", ["author_id"])),
        CreateUniqueConstraintOp("uq", "book", ["author_id"]),
    )
    assert names(built) == ["CreateUniqueConstraintOp", "DropIndexOp"]


def test_a_renamed_column_has_a_batch_of_its_own() -> None:
    built = arranged(
        RenamedColumn("book", "pages", modify_name="length"),
        CreateIndexOp("ix_length", "book", ["length"]),
        DropIndexOp("ix_pages", "book", _reverse=CreateIndexOp("ix_pages", "book", ["pages"])),
    )
    assert [names([each]) for each in built] == [["DropIndexOp"], ["RenamedColumn"], ["CreateIndexOp"]]


def test_a_column_that_wants_a_value_is_filled() -> None:
    column = sa.Column("x", sa.Integer, nullable=False)
    assert isinstance(arranged(AddColumnOp("book", column), value=3)[0], Filled)
    assert names(arranged(AddColumnOp("book", column))) == ["AddColumnOp"]


def test_a_column_whose_values_go_is_told_apart() -> None:
    drop = DropColumnOp.from_column_and_tablename(None, "book", sa.Column("x", sa.Integer, nullable=False))
    assert isinstance(arranged(drop)[0], Dropped)
    loose = DropColumnOp.from_column_and_tablename(None, "book", sa.Column("x", sa.Integer))
    assert names(arranged(loose)) == ["DropColumnOp"]


def test_tables_come_after_those_they_refer_to_and_go_before_them() -> None:
    created = arranged(CreateTableOp.from_table(BOOK), CreateTableOp.from_table(AUTHOR))
    assert [each.table_name for each in created] == ["author", "book"]
    dropped = arranged(DropTableOp.from_table(AUTHOR), DropTableOp.from_table(BOOK))
    assert [each.table_name for each in dropped] == ["book", "author"]


def test_an_index_of_a_table_that_goes_is_not_dropped_before() -> None:
    drop = DropIndexOp("ix", "book", _reverse=CreateIndexOp("ix", "book", ["pages"]))
    upgrade = UpgradeOps([ModifyTableOps("book", [drop]), DropTableOp.from_table(BOOK)])
    forget_indexes(upgrade)
    assert names(list(upgrade.ops)) == ["DropTableOp"]


def test_what_a_change_of_a_column_changes_is_known() -> None:
    assert modified(RenamedColumn("book", "a", modify_nullable=False)) == (False, True, False, False)
