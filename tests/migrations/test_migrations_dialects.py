"""SQL in a revision is in the words of each database, and what needs no translation stands once."""

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateTable

from microorm.migrations.dialects import (
    ByDialect,
    as_text,
    by_dialect,
    default_of,
    in_words,
    plain,
    sql_source,
    together,
)

TABLE = sa.Table("t", sa.MetaData(), sa.Column("order", sa.Integer), sa.Column("name", sa.String(9)))


def test_each_database_gets_its_own_words() -> None:
    words = by_dialect(sqlite="a", postgresql="b", mariadb="c")
    assert str(words.compile(dialect=sqlite.dialect())) == "a"
    assert str(words.compile(dialect=postgresql.dialect())) == "b"  # type: ignore[no-untyped-call]
    with pytest.raises(CompileError, match="given for sqlite, and not for postgresql"):
        by_dialect(sqlite="a").compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


def test_an_expression_is_told_as_each_would_write_it() -> None:
    quoted = in_words(TABLE.c.order > 3)
    assert isinstance(quoted, ByDialect)
    assert quoted.words == {"sqlite": '"order" > 3', "postgresql": '"order" > 3', "mariadb": "`order` > 3"}
    assert sql_source(quoted).startswith("by_dialect(sqlite='\"order\" > 3'")
    same = in_words(TABLE.c.name.like("a%"))
    assert not isinstance(same, ByDialect)
    assert sql_source(same) == "sa.text(\"name LIKE 'a%'\")"
    assert in_words(quoted) is quoted


def test_a_colon_begins_no_parameter() -> None:
    text = as_text("name <> 'a :b'")
    assert plain(text) == "name <> 'a :b'"
    assert str(text.compile()) == "name <> 'a :b'"
    assert eval(sql_source(text), {"sa": sa}).compile().params == {}


def test_what_all_say_stands_once() -> None:
    assert not isinstance(together({"sqlite": "5", "mariadb": "5"}), ByDialect)
    assert isinstance(together({"sqlite": "5", "postgresql": "'5'::bigint"}), ByDialect)


def test_a_default_is_told_by_all_or_by_nobody() -> None:
    five = sa.DefaultClause(sa.text("5"))
    known = default_of({"sqlite": five, "mariadb": five})
    assert known is not None
    assert str(known.arg) == "5"
    assert default_of({"sqlite": five, "mariadb": None}) is None


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg", "mariadb+pymysql"])
def test_a_percent_sign_reaches_the_database_as_one(driver: str) -> None:
    dialect = sa.make_url(f"{driver}://").get_dialect()()
    words = by_dialect(sqlite="'50%'", postgresql="'50%'", mariadb="'50%'")
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.String(9), server_default=words))
    sql = str(CreateTable(table).compile(dialect=dialect))
    assert ("'50%%'" in sql) is (dialect.paramstyle in ("format", "pyformat"))
    assert "'50%" in sql
