"""Types in a revision are microorm's, so that they mean the same on every database; others are imported."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.operations.ops import AddColumnOp, UpgradeOps
from sqlalchemy.dialects import mysql, sqlite

from microorm import types
from microorm.migrations.dialects import portable, render_item, type_source


@pytest.mark.parametrize(
    ("type_", "source"),
    [
        (types.integer_type(), "types.integer_type()"),
        (types.text_type(40), "types.text_type(40)"),
        (types.text_type(), "types.text_type()"),
        (types.bytes_type(16), "types.bytes_type(16)"),
        (types.UtcDateTime(), "types.UtcDateTime()"),
        (types.datetime_type(aware=False), "types.datetime_type(aware=False)"),
        (types.time_type(), "types.time_type()"),
        (types.Duration(), "types.Duration()"),
        (types.uuid_type(), "types.uuid_type()"),
        (types.json_type(), "types.json_type()"),
        (types.ExactNumeric(8, 2), "types.ExactNumeric(8, 2)"),
        (types.ExactNumeric(30, 2), "types.ExactNumeric(30, 2)"),
        (sa.Text(), None),
        (sa.Boolean(), None),
    ],
)
def test_a_type_is_written_by_the_name_that_makes_it_again(type_: Any, source: str | None) -> None:
    assert type_source(type_) == source
    if source is not None:
        assert type_source(eval(source, {"types": types})) == source


def test_what_databases_tell_is_one_type_again() -> None:
    told = {
        "sqlite": sa.VARCHAR(40),
        "postgresql": sa.VARCHAR(40),
        "mariadb": mysql.VARCHAR(40, charset="utf8mb4", collation=types.COLLATION),
    }
    assert type_source(portable(told)) == "types.text_type(40)"
    assert type_source(portable({"mariadb": mysql.BIGINT(display_width=20)})) == "types.integer_type()"


def test_what_has_no_name_is_kept_in_the_words_of_each() -> None:
    combined = portable({"sqlite": sa.BOOLEAN(), "mariadb": mysql.TINYINT(display_width=1)})
    assert combined.compile(dialect=sqlite.dialect()) == "BOOLEAN"
    maria = sa.make_url("mariadb+pymysql://").get_dialect()()
    assert combined.compile(dialect=maria) == "TINYINT(1)"


class Money(sa.types.TypeDecorator[Any]):
    """A type of somebody's own."""

    impl = sa.Integer
    cache_ok = True


def test_somebody_elses_type_is_imported() -> None:
    imports: set[str] = set()

    def render(kind: str, item: Any, autogenerate: Any) -> Any:
        rendered = render_item(kind, item, autogenerate)
        imports.update(autogenerate.imports)
        return rendered

    column = sa.Column("price", Money())
    code = render_python_code(UpgradeOps([AddColumnOp("book", column)]), render_item=render)
    assert f"{Money.__module__}.Money()" in code
    assert imports == {f"import {Money.__module__}"}
