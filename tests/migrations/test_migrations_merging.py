"""What several databases need becomes one list, in which each change is said once, for those that need it."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateIndexOp,
    CreateTableOp,
    DropColumnOp,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy.dialects import mysql

from microorm import Databases, Registry, types
from microorm.migrations.dialects import type_source
from microorm.migrations.operations import OnlyOn
from microorm.migrations.plan import merged
from microorm.migrations.targets import Target

METADATA = sa.MetaData()
BOOK = sa.Table("book", METADATA, sa.Column("id", sa.Integer, primary_key=True), sa.Column("a", sa.Integer))


@pytest.fixture
def places() -> Any:
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


def union(needs: dict[Target, list[Any]]) -> tuple[list[Any], list[Any]]:
    pairs = [(target, UpgradeOps(operations)) for target, operations in needs.items()]
    upgrade, downgrade = merged(pairs, METADATA, lambda table, column: (False, None))
    return list(upgrade.ops), list(downgrade.ops)


def test_what_all_need_is_said_once(places: dict[str, Target]) -> None:
    up, down = union({place: [added("a")] for place in places.values()})
    assert [type(each) for each in up] == [type(each) for each in down] == [ModifyTableOps]
    assert len(up[0].ops) == 1


def test_what_one_dialect_needs_is_said_for_it(places: dict[str, Target]) -> None:
    up, _ = union({place: [added("a")] if place.dialect == "sqlite" else [] for place in places.values()})
    (only,) = up
    assert isinstance(only, OnlyOn)
    assert only.asked == {"dialect": ("sqlite",), "alias": (), "missing": None}


def test_what_some_aliases_need_is_said_for_them(places: dict[str, Target]) -> None:
    needs = {place: [added("a")] if place.alias in ("again", "pg") else [] for place in places.values()}
    up, _ = union(needs)
    (only,) = up
    assert only.asked == {"dialect": (), "alias": ("again", "pg"), "missing": None}


def test_parts_keep_their_order(places: dict[str, Target]) -> None:
    first, second = places["default"], places["again"]
    up, down = union({first: [added("a"), added("c")], second: [added("a"), added("b"), added("c")]})
    assert [type(each).__name__ for each in up] == ["ModifyTableOps", "OnlyOn", "ModifyTableOps"]
    assert [type(each).__name__ for each in down] == ["ModifyTableOps", "OnlyOn", "ModifyTableOps"]


def test_what_does_not_change_is_told_as_the_model_has_it(places: dict[str, Target]) -> None:
    nullable = AlterColumnOp("book", "a", existing_type=sa.VARCHAR(3), modify_nullable=False)
    up, _ = union({places["default"]: [ModifyTableOps("book", [nullable])]})
    assert isinstance(up[0].ops[0].existing_type, sa.Integer)


def test_what_was_is_told_for_every_dialect(places: dict[str, Target]) -> None:
    def gone(type_: Any) -> list[Any]:
        column: sa.Column[Any] = sa.Column("gone", type_, nullable=True)
        return [ModifyTableOps("book", [DropColumnOp.from_column_and_tablename(None, "book", column)])]

    maria = mysql.VARCHAR(9, charset="utf8mb4", collation=types.COLLATION)
    _, down = union(
        {
            places["default"]: gone(sa.VARCHAR(9)),
            places["pg"]: gone(sa.VARCHAR(9)),
            places["maria"]: gone(maria),
        }
    )
    assert type_source(down[0].ops[0].column.type) == "types.text_type(9)"


def test_a_new_table_is_taken_back_whole(places: dict[str, Target]) -> None:
    index = sa.Index("ix_a", BOOK.c.a)
    from_index = ModifyTableOps("book", [CreateIndexOp.from_index(index)])
    up, down = union({places["default"]: [CreateTableOp.from_table(BOOK), from_index]})
    assert [type(each).__name__ for each in up] == ["CreateTableOp", "ModifyTableOps"]
    assert [type(each).__name__ for each in down] == ["DropTableOp"]
