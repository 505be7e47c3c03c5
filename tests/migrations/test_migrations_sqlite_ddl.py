"""What a CREATE TABLE statement of SQLite says, whatever it has in strings, comments and names."""

import pytest
import sqlalchemy as sa

from microorm.migrations.sqlite_ddl import Check, ForeignKey, Unique, read_table_ddl, table_ddl, tokenize


@pytest.mark.parametrize(
    ("condition", "column"),
    [
        ("name <> ':memory'", "name"),
        ("name COLLATE NOCASE <> 'a'", "name"),
        ("name <> 'it''s (not', AND name <> 'CHECK (x)'", None),
        ("\"na\"\"me\" IN ('a', 'b)')", None),
        ("length(name) > 1 -- ) a comment\n AND name <> /* ( */ ''", None),
        ("[name] <> 'x' AND `name` <> 'y'", "name"),
    ],
)
def test_a_check_is_read_to_its_closing_bracket(condition: str, column: str | None) -> None:
    inline = f"name TEXT DEFAULT 'CHECK (no)' CHECK ({condition}) NOT NULL, n INT"
    outside = f"name TEXT /* CHECK (no) */, n INT, CHECK ({condition})"
    ddl = read_table_ddl(f'CREATE TABLE "CHECK (a)" ({outside if column is None else inline})')
    assert ddl.checks == [Check(None, condition, column)]


def test_the_name_of_a_constraint_belongs_to_that_constraint() -> None:
    ddl = read_table_ddl(
        'CREATE TABLE t (a INT CONSTRAINT nn NOT NULL CHECK (a > 0) CONSTRAINT "big" CHECK (a < 9),'
        " CONSTRAINT pk PRIMARY KEY (a), CHECK (a <> 5), CONSTRAINT [odd one] CHECK (a % 2))"
    )
    assert ddl.checks == [
        Check(None, "a > 0", "a"),
        Check("big", "a < 9", "a"),
        Check(None, "a <> 5", None),
        Check("odd one", "a % 2", None),
    ]


def test_collations_and_expressions_are_those_of_the_column() -> None:
    ddl = read_table_ddl(
        "create table t (a text collate nocase, b text check (b collate rtrim <> ''),"
        ' c int generated always as (length(a || \')\')) stored, d int as (c + 1), "e f" text COLLATE "RTRIM")'
    )
    assert ddl.collations == {"a": "nocase", "e f": "RTRIM"}
    assert ddl.generated == {"c": "length(a || ')')", "d": "c + 1"}


def test_options_are_words_and_no_strings() -> None:
    said = read_table_ddl(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'AUTOINCREMENT') -- WITHOUT ROWID, STRICT"
    )
    assert (said.autoincrement, said.without_rowid, said.strict) == (False, False, False)
    meant = read_table_ddl("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT) strict")
    assert (meant.autoincrement, meant.without_rowid, meant.strict) == (True, False, True)
    assert read_table_ddl("CREATE TABLE t (id INT PRIMARY KEY) STRICT, WITHOUT ROWID").without_rowid


def test_quotation_marks_are_no_part_of_a_name() -> None:
    assert read_table_ddl("").checks == []
    assert [each.name for each in tokenize("\"a\"\"b\" [c] 'd''e' f /* open")] == ['a"b', "c", "d'e", "f"]


def test_the_statement_of_a_temporary_table_is_found() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE t (a INT CHECK (a > 0))")
        assert table_ddl(connection, "T").checks == [Check(None, "a > 0", "a")]
        assert table_ddl(connection, "missing").checks == []
    engine.dispose()


def test_unique_constraints_and_foreign_keys_are_read_with_their_options() -> None:
    ddl = read_table_ddl(
        "CREATE TABLE t (a VARCHAR(4) NOT NULL UNIQUE ON CONFLICT REPLACE, b INT CONSTRAINT fk REFERENCES u ON DELETE"
        ' SET NULL NOT NULL, c INT REFERENCES "v w" (x) ON UPDATE NO ACTION ON DELETE CASCADE DEFERRABLE INITIALLY'
        ' DEFERRED CHECK (c > 0), d INT DEFAULT (1), CONSTRAINT once UNIQUE (a COLLATE NOCASE, "b" DESC),'
        " CONSTRAINT two FOREIGN KEY (a, b) REFERENCES t (b, a) MATCH FULL ON DELETE RESTRICT NOT DEFERRABLE)"
    )
    assert ddl.uniques == [Unique(None, ("a",)), Unique("once", ("a", "b"))]
    deferred = {"onupdate": "NO ACTION", "ondelete": "CASCADE", "deferrable": True, "initially": "DEFERRED"}
    assert ddl.foreign_keys == [
        ForeignKey("fk", ("b",), "u", (), {"ondelete": "SET NULL"}),
        ForeignKey(None, ("c",), "v w", ("x",), deferred),
        ForeignKey("two", ("a", "b"), "t", ("b", "a"), {"ondelete": "RESTRICT"}),
    ]
    assert ddl.checks == [Check(None, "c > 0", "c")]
