"""SQL and column types in a revision mean the same on every database, and are written once if one text fits all."""

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.operations.ops import AddColumnOp, UpgradeOps
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateTable

from microorm import types
from microorm.migrations.dialects import (
    DIALECTS,
    ByDialect,
    by_dialect,
    combine_defaults,
    combine_sql,
    combine_types,
    compile_sql,
    literal_text,
    render_item,
    render_sql,
    sql_for,
    type_source,
)

TABLE = sa.Table("t", sa.MetaData(), sa.Column("order", sa.Integer), sa.Column("name", sa.String(9)))


def source(expression: Any) -> str:
    """What a revision has for *expression*."""
    autogenerate: Any = SimpleNamespace(imports=set())
    return render_sql(expression, autogenerate)


def test_each_database_gets_its_own_sql() -> None:
    sql = by_dialect(sqlite="a", postgresql="b", mariadb="c")
    assert str(sql.compile(dialect=sqlite.dialect())) == "a"
    assert str(sql.compile(dialect=postgresql.dialect())) == "b"  # type: ignore[no-untyped-call]
    with pytest.raises(CompileError, match="no SQL for the dialect 'postgresql'; given for: sqlite"):
        by_dialect(sqlite="a").compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


def test_an_expression_is_compiled_for_each_dialect() -> None:
    quoted = compile_sql(TABLE.c.order > 3)
    assert isinstance(quoted, ByDialect)
    assert quoted.sql == {"sqlite": '"order" > 3', "postgresql": '"order" > 3', "mariadb": "`order` > 3"}
    assert source(quoted).startswith("by_dialect(sqlite='\"order\" > 3'")
    same = compile_sql(TABLE.c.name.like("a%"))
    assert not isinstance(same, ByDialect)
    assert source(same) == "sa.text(\"name LIKE 'a%'\")"
    assert compile_sql(quoted) is quoted


def test_a_colon_does_not_begin_a_parameter() -> None:
    text = literal_text("name <> 'a :b'")
    assert sql_for(text, "sqlite") == str(text.compile()) == "name <> 'a :b'"
    assert eval(source(text), {"sa": sa}).compile().params == {}


def test_sql_that_is_the_same_for_all_is_written_once() -> None:
    assert not isinstance(combine_sql({"sqlite": "5", "mariadb": "5"}), ByDialect)
    assert isinstance(combine_sql({"sqlite": "5", "postgresql": "'5'::bigint"}), ByDialect)


def test_a_default_is_reported_by_all_or_dropped() -> None:
    five = sa.DefaultClause(sa.text("5"))
    known = combine_defaults({"sqlite": five, "mariadb": five})
    assert known is not None
    assert str(known.arg) == "5"
    assert combine_defaults({"sqlite": five, "mariadb": None}) is None


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg", "mariadb+pymysql"])
def test_a_percent_sign_reaches_the_database_as_one(driver: str) -> None:
    dialect = sa.make_url(f"{driver}://").get_dialect()()
    default = by_dialect(sqlite="'50%'", postgresql="'50%'", mariadb="'50%'")
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.String(9), server_default=default))
    sql = str(CreateTable(table).compile(dialect=dialect))
    assert ("'50%%'" in sql) is (dialect.paramstyle in ("format", "pyformat"))
    assert "'50%" in sql


@pytest.mark.parametrize(
    ("type_", "expected"),
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
def test_a_type_is_written_as_what_makes_it_again(type_: Any, expected: str | None) -> None:
    assert type_source(type_) == expected
    if expected is not None:
        assert type_source(eval(expected, {"types": types})) == expected


def test_what_databases_report_is_one_type_again() -> None:
    reported = {
        "sqlite": sa.VARCHAR(40),
        "postgresql": sa.VARCHAR(40),
        "mariadb": mysql.VARCHAR(40, charset="utf8mb4", collation=types.COLLATION),
    }
    assert type_source(combine_types(reported)) == "types.text_type(40)"
    assert type_source(combine_types({"mariadb": mysql.BIGINT(display_width=20)})) == "types.integer_type()"


def test_a_type_without_a_name_is_kept_for_each_dialect() -> None:
    combined = combine_types({"sqlite": sa.BOOLEAN(), "mariadb": mysql.TINYINT(display_width=1)})
    assert combined.compile(dialect=sqlite.dialect()) == "BOOLEAN"
    maria = sa.make_url("mariadb+pymysql://").get_dialect()()
    assert combined.compile(dialect=maria) == "TINYINT(1)"


class Money(sa.types.TypeDecorator[Any]):
    """A type of the project."""

    impl = sa.Integer
    cache_ok = True


def test_a_type_of_the_project_is_imported() -> None:
    imports: set[str] = set()

    def render(kind: str, item: Any, autogenerate: Any) -> Any:
        rendered = render_item(kind, item, autogenerate)
        imports.update(autogenerate.imports)
        return rendered

    column = sa.Column("price", Money())
    code = render_python_code(UpgradeOps([AddColumnOp("book", column)]), render_item=render)
    assert f"{Money.__module__}.Money()" in code
    assert imports == {f"import {Money.__module__}"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_bytes_and_documents_have_literals(dialect: str) -> None:
    hexadecimal = "'\\xff27'::bytea" if dialect == "postgresql" else "X'ff27'"
    assert sql_for(sa.literal(b"\xff'", types.bytes_type()), dialect) == hexadecimal
    document = sql_for(sa.literal({"a%": "it's"}, types.json_type()), dialect)
    assert """'{"a%": "it''s"}'""" in document
    assert sql_for(sa.literal("50%"), dialect).startswith("'50%'")
