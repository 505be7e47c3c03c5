"""What several databases need becomes one list: each change is written once, in an order that works both ways."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
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
from sqlalchemy.dialects import mysql

from microorm import Databases, Registry, types
from microorm.migrations.dialects import type_source
from microorm.migrations.operations import (
    AddWithoutValueOps,
    ConditionalOps,
    DropRequiredColumnOps,
    RenameColumnOp,
    RequiredColumnOps,
)
from microorm.migrations.plan import Change, build, merge, order_renames, remove_index_drops, sort_changes
from microorm.migrations.targets import Target

METADATA = sa.MetaData()
AUTHOR = sa.Table("author", METADATA, sa.Column("id", sa.Integer, primary_key=True))
BOOK = sa.Table(
    "book",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("author_id", sa.Integer, sa.ForeignKey("author.id", name="fk")),
    sa.Column("pages", sa.Integer, nullable=False),
)


@pytest.fixture
def places() -> dict[str, Target]:
    """Targets of three dialects and a second of the first; no connection is opened."""
    urls = {
        "default": "sqlite:///a.db",
        "again": "sqlite:///b.db",
        "pg": "postgresql+psycopg://127.0.0.1/none",
        "maria": "mariadb+pymysql://127.0.0.1/none",
    }
    registry = Registry(Databases(urls))
    return {alias: Target(registry, (alias,), {}) for alias in urls}


def added(name: str) -> ModifyTableOps:
    return ModifyTableOps("book", [AddColumnOp("book", sa.Column(name, sa.Integer))])


def merged(needs: dict[Target, list[Any]]) -> tuple[list[Any], list[Any]]:
    pairs = [(target, UpgradeOps(operations)) for target, operations in needs.items()]
    upgrade, downgrade = merge(pairs, METADATA, lambda table, column: (False, None))
    return list(upgrade.ops), list(downgrade.ops)


def test_a_change_that_all_need_is_written_once(places: dict[str, Target]) -> None:
    up, down = merged({place: [added("a")] for place in places.values()})
    assert [type(each) for each in up] == [type(each) for each in down] == [ModifyTableOps]
    assert len(up[0].ops) == 1


def test_a_change_that_one_dialect_needs_is_written_for_it(places: dict[str, Target]) -> None:
    up, _ = merged({place: [added("a")] if place.dialect == "sqlite" else [] for place in places.values()})
    (only,) = up
    assert isinstance(only, ConditionalOps)
    assert only.condition == {"dialect": ("sqlite",)}


def test_a_change_that_some_aliases_need_is_written_for_them(places: dict[str, Target]) -> None:
    needs = {place: [added("a")] if place.alias in ("again", "pg") else [] for place in places.values()}
    up, _ = merged(needs)
    (only,) = up
    assert only.condition == {"alias": ("again", "pg")}


def test_parts_keep_their_order(places: dict[str, Target]) -> None:
    first, second = places["default"], places["again"]
    for each in merged({first: [added("a"), added("c")], second: [added("a"), added("b"), added("c")]}):
        assert [type(part).__name__ for part in each] == [
            "ModifyTableOps",
            "ConditionalOps",
            "ModifyTableOps",
        ]


def test_a_type_that_does_not_change_is_that_of_the_model(places: dict[str, Target]) -> None:
    narrow = AlterColumnOp("book", "pages", existing_type=sa.VARCHAR(3), modify_nullable=False)
    up, _ = merged({places["default"]: [ModifyTableOps("book", [narrow])]})
    assert isinstance(up[0].ops[0].existing_type, sa.Integer)


def test_a_dropped_column_comes_back_with_a_type_for_every_dialect(places: dict[str, Target]) -> None:
    def dropped(type_: Any) -> list[Any]:
        column: sa.Column[Any] = sa.Column("gone", type_, nullable=True)
        return [ModifyTableOps("book", [DropColumnOp.from_column_and_tablename(None, "book", column)])]

    maria = mysql.VARCHAR(9, charset="utf8mb4", collation=types.COLLATION)
    reported = {"default": sa.VARCHAR(9), "pg": sa.VARCHAR(9), "maria": maria}
    _, down = merged({places[alias]: dropped(type_) for alias, type_ in reported.items()})
    assert type_source(down[0].ops[0].column.type) == "types.text_type(9)"


def test_a_new_table_is_dropped_without_its_indexes_first(places: dict[str, Target]) -> None:
    index = ModifyTableOps("book", [CreateIndexOp.from_index(sa.Index("ix_pages", BOOK.c.pages))])
    up, down = merged({places["default"]: [CreateTableOp.from_table(BOOK), index]})
    assert [type(each) for each in up] == [CreateTableOp, ModifyTableOps]
    assert [type(each) for each in down] == [DropTableOp]


def ordered(*operations: Any, default: Any = None) -> list[Any]:
    changes = [
        Change(
            getattr(each, "source_table", None) or each.table_name,
            not isinstance(each, CreateTableOp | DropTableOp),
            [each],
        )
        for each in operations
    ]
    has_default = default is not None
    return build(sort_changes(changes), METADATA, lambda table, column: (has_default, default))


def key(name: str, table: str) -> CreateForeignKeyOp:
    return CreateForeignKeyOp(name, table, "author", ["x"], ["id"])


def names(operations: list[Any]) -> list[str]:
    return [
        type(inner).__name__
        for each in operations
        for inner in (each.ops if type(each) is ModifyTableOps else [each])
    ]


def test_constraints_are_dropped_before_and_created_after_columns_change() -> None:
    built = ordered(
        key("fk2", "book"),
        CreateUniqueConstraintOp("uq", "book", ["x"]),
        AddColumnOp("book", sa.Column("x", sa.Integer)),
        DropIndexOp("ix", "book", _reverse=CreateIndexOp("ix", "book", ["pages"])),
        DropConstraintOp("fk", "book", type_="foreignkey", _reverse=key("fk", "book")),
    )
    assert names(built) == [
        "DropConstraintOp",
        "DropIndexOp",
        "AddColumnOp",
        "CreateUniqueConstraintOp",
        "CreateForeignKeyOp",
    ]
    assert len(built) == 1


def test_no_foreign_key_is_there_while_the_table_changes_that_it_refers_to() -> None:
    narrow = AlterColumnOp("author", "id", modify_type=sa.String(9))
    built = ordered(
        narrow,
        AddColumnOp("book", sa.Column("x", sa.Integer)),
        key("fk2", "book"),
        DropConstraintOp("fk", "book", type_="foreignkey", _reverse=key("fk", "book")),
    )
    assert names(built) == ["DropConstraintOp", "AlterColumnOp", "AddColumnOp", "CreateForeignKeyOp"]


@pytest.mark.parametrize(
    ("renames", "steps"),
    [
        ({"a": "b"}, [("a", "a", "b")]),
        ({"a": "b", "b": "c"}, [("b", "b", "c"), ("a", "a", "b")]),
        ({"a": "b", "b": "a"}, [("a", "a", "microorm_a"), ("b", "b", "a"), ("a", "microorm_a", "b")]),
        ({"Name": "name"}, [("Name", "Name", "microorm_Name"), ("Name", "microorm_Name", "name")]),
    ],
)
def test_a_new_name_is_free_when_it_is_taken(renames: dict[str, str], steps: list[Any]) -> None:
    assert list(order_renames(renames)) == steps


def test_a_renamed_column_has_a_batch_of_its_own() -> None:
    built = ordered(
        RenameColumnOp("book", "pages", modify_name="length"),
        CreateIndexOp("ix_length", "book", ["length"]),
        DropIndexOp("ix_pages", "book", _reverse=CreateIndexOp("ix_pages", "book", ["pages"])),
    )
    assert [names([each]) for each in built] == [["DropIndexOp"], ["RenameColumnOp"], ["CreateIndexOp"]]


def test_a_required_column_with_a_default_is_filled() -> None:
    column = sa.Column("x", sa.Integer, nullable=False)
    assert isinstance(ordered(AddColumnOp("book", column), default=3)[0], RequiredColumnOps)
    (unfilled,) = ordered(AddColumnOp("book", column))
    assert isinstance(unfilled, AddWithoutValueOps)
    assert unfilled.note.startswith("book.x is required and has no default: this fails if book has rows.")


def test_a_dropped_column_can_come_back_in_a_table_with_rows() -> None:
    def drop(*, nullable: bool) -> Any:
        column: sa.Column[Any] = sa.Column("x", sa.Integer, nullable=nullable)
        return DropColumnOp.from_column_and_tablename(None, "book", column)

    assert isinstance(ordered(drop(nullable=False))[0], DropRequiredColumnOps)
    assert names(ordered(drop(nullable=True))) == ["DropColumnOp"]


def test_tables_are_created_after_and_dropped_before_those_they_refer_to() -> None:
    created = ordered(CreateTableOp.from_table(BOOK), CreateTableOp.from_table(AUTHOR))
    assert [each.table_name for each in created] == ["author", "book"]
    dropped = ordered(DropTableOp.from_table(AUTHOR), DropTableOp.from_table(BOOK))
    assert [each.table_name for each in dropped] == ["book", "author"]


def test_an_index_of_a_dropped_table_is_not_dropped_before() -> None:
    drop = DropIndexOp("ix", "book", _reverse=CreateIndexOp("ix", "book", ["pages"]))
    upgrade = UpgradeOps([ModifyTableOps("book", [drop]), DropTableOp.from_table(BOOK)])
    remove_index_drops(upgrade)
    assert names(list(upgrade.ops)) == ["DropTableOp"]
