"""Renames that `--rename` declares: parsed, compared, made in any order, and reverted."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CheckConstraint

from microorm import Databases, Field, ForeignKey, field, foreign_key
from microorm.errors import MigrationError
from microorm.migrations.renames import Rename, parse_rename, renamed_columns, renamed_tables
from tests.migrations.shop import define, execute, history, migrated, new_base

ALL = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
TITLE = (Field[str], field(max_length=40))


@pytest.mark.parametrize(
    ("given", "rename"),
    [
        ("book:volume", Rename(None, "book", "volume")),
        ("book.pages:length", Rename("book", "pages", "length")),
        ("book.pages:book.length", Rename("book", "pages", "length")),
    ],
)
def test_a_rename_is_parsed(given: str, rename: Rename) -> None:
    assert parse_rename(given) == rename


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("book", "'book' is not a rename; write 'old:new' for a table or 'table.old:new' for a column"),
        ("a:b:c", "is not a rename"),
        ("book.pages:shelf.pages", "the rename 'book.pages:shelf.pages' names two tables"),
        ("book:shelf.pages", "names two tables"),
        ("book:book", "changes nothing"),
    ],
)
def test_anything_else_is_refused(given: str, message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        parse_rename(given)


def test_renames_of_columns_and_of_tables_are_told_apart() -> None:
    renames = [Rename("book", "a", "b"), Rename(None, "c", "d")]
    assert renamed_columns(renames, "book") == {"b": "a"}
    assert renamed_columns(renames, "shelf") == {}
    assert renamed_tables(renames) == {"d": "c"}


@ALL
def test_foreign_keys_follow_a_renamed_table(database: Databases, folder: Path) -> None:
    def authors(name: str) -> tuple[Any, Any, Any]:
        base = new_base(database)
        person = define(base, name, {"name": TITLE})
        book = define(base, "Book", {"author": (ForeignKey[person], foreign_key(column="author_id"))})
        return base, person, book

    old, author, book = authors("Author")
    migrated(old, folder, "first")
    book(author=author(name="Le Guin").save()).save()
    new, writer, book = authors("Writer")
    migrations = history(new, folder)
    made = migrations.make("writers", renames=["author:writer"])
    assert made is not None
    source = made.read_text()
    assert "op.rename_table('author', 'writer')" in source
    assert "create_foreign_key" not in source
    assert "create_table" not in source
    migrations.migrate()
    assert migrations.check() == []
    assert writer(name="Lem").save().pk == 2  # keys are generated as before
    assert [each.author.name for each in book.objects] == ["Le Guin"]
    migrations.migrate("0001")
    assert history(old, folder).compare() == []


@pytest.mark.backends("sqlite-file")
def test_a_rename_of_something_missing_writes_nothing(database: Databases, folder: Path) -> None:
    old = new_base(database)
    define(old, "Book", {"pages": Field[int]})
    migrated(old, folder, "first")
    for table, renames in {
        "volume": ["bok:volume", "book:volum"],
        "book": ["book.pags:length", "book.pages:lenght", "nothing.a:b"],
    }.items():
        new = new_base(database)
        define(new, "Tome", {"length": Field[int]}, table=table)
        migrations = history(new, folder)
        for rename in renames:
            with pytest.raises(MigrationError, match="there is no"):
                migrations.make("second", renames=[rename])
    assert len(migrations.show()) == 1


@pytest.mark.backends("postgresql", "mariadb")
def test_a_rename_on_several_dialects_can_be_reverted(url: str, sqlite_url: str, folder: Path) -> None:
    """MariaDB reports a unique column as an index, so that the needs of the databases differ around the rename."""

    def coded(name: str) -> Any:
        base = new_base(databases)
        check = CheckConstraint(f"{name} <> ''", name="filled")
        define(base, "Book", {name: (Field[str], field(max_length=40, unique=True))}, table_args=(check,))
        return base

    with Databases({"default": sqlite_url, "server": url}) as databases:
        first = migrated(coded("code"), folder, "first")
        for alias in databases.aliases:
            execute(databases, "INSERT INTO book (code) VALUES ('a')", using=alias)
        second = history(coded("sign"), folder)
        second.make("second", renames=["book.code:sign"])
        second.migrate()
        assert second.check() == []
        second.migrate("-1")
        assert first.compare() == []
        for alias in databases.aliases:
            assert execute(databases, "SELECT code FROM book", using=alias) == [("a",)]


class Steps:
    """Two versions of the models, and what the database has before, between and after them."""

    def __init__(self, databases: Databases, folder: Path, old: Any, new: Any) -> None:
        self.databases, self.folder = databases, folder
        self.old, self.new = new_base(databases), new_base(databases)
        old(self.old)
        migrated(self.old, folder, "first")
        new(self.new)

    def change(self, *renames: str) -> str:
        """Make and apply the second revision; revert it, compare, and apply it again. Return its text."""
        migrations = history(self.new, self.folder)
        made = migrations.make("second", renames=renames)
        assert made is not None
        migrations.migrate()
        assert migrations.check() == []
        migrations.migrate("-1")
        assert history(self.old, self.folder).compare() == []
        migrations.migrate()
        assert migrations.check() == []
        return made.read_text()


TEXT = (Field[str], field(max_length=9))
UNIQUE = (Field[str], field(max_length=9, unique=True))


@ALL
def test_the_old_name_of_a_column_can_be_used_again(database: Databases, folder: Path) -> None:
    new = (Field[str], field(max_length=9, default="new", index=True))
    check = CheckConstraint("a <> 'x'", name="filled")
    steps = Steps(
        database,
        folder,
        lambda base: define(
            base, "Book", {"a": (Field[str], field(max_length=9, index=True))}, table_args=(check,)
        ),
        lambda base: define(base, "Book", {"a": new, "b": TEXT}, table_args=(check,)),
    )
    execute(database, "INSERT INTO book (a) VALUES ('was a')")
    steps.change("book.a:b")
    assert execute(database, "SELECT a, b FROM book") == [("new", "was a")]
    execute(database, "INSERT INTO book (a, b) VALUES ('y', 'x')")


@ALL
def test_columns_can_swap_their_names(database: Databases, folder: Path) -> None:
    models = [{"a": UNIQUE, "b": TEXT}, {"a": TEXT, "b": UNIQUE}]
    old, new = ((lambda base, each=each: define(base, "Book", each)) for each in models)
    steps = Steps(database, folder, old, new)
    execute(database, "INSERT INTO book (a, b) VALUES ('was a', 'was b')")
    steps.change("book.a:b", "book.b:a")
    assert execute(database, "SELECT a, b FROM book") == [("was b", "was a")]


@ALL
def test_the_old_name_of_a_table_can_be_used_again(database: Databases, folder: Path) -> None:
    steps = Steps(
        database,
        folder,
        lambda base: define(base, "Book", {"a": UNIQUE}),
        lambda base: [define(base, "Book", {"a": UNIQUE}), define(base, "Old", {"a": UNIQUE})],
    )
    execute(database, "INSERT INTO book (a) VALUES ('kept')")
    steps.change("book:old")
    assert execute(database, "SELECT a FROM old") == [("kept",)]
    assert execute(database, "SELECT a FROM book") == []


@ALL
def test_tables_can_swap_their_names(database: Databases, folder: Path) -> None:
    def models(first: Any, second: Any) -> Any:
        return lambda base: [define(base, "First", {"a": first}), define(base, "Second", {"a": second})]

    steps = Steps(database, folder, models(TEXT, UNIQUE), models(UNIQUE, TEXT))
    execute(database, "INSERT INTO first (a) VALUES ('1')", "INSERT INTO second (a) VALUES ('2')")
    steps.change("first:second", "second:first")
    assert execute(database, "SELECT a FROM first") == [("2",)]


@ALL
def test_names_may_differ_by_case_alone(database: Databases, folder: Path) -> None:
    steps = Steps(
        database,
        folder,
        lambda base: define(
            base, "Book", {"a": (Field[str], field(max_length=9, column="Title"))}, table="Book"
        ),
        lambda base: define(
            base, "Book", {"a": (Field[str], field(max_length=9, column="title"))}, table="book"
        ),
    )
    quote = "`" if "mariadb" in str(database.engine().url) else '"'
    execute(database, f"INSERT INTO {quote}Book{quote} ({quote}Title{quote}) VALUES ('kept')")
    steps.change("Book:book", "book.Title:title")
    assert execute(database, "SELECT title FROM book") == [("kept",)]


@ALL
def test_a_downgrade_gives_a_table_its_name_before_its_foreign_keys(
    database: Databases, folder: Path
) -> None:
    def models(name: str, kept: Any) -> Any:
        def define_both(base: Any) -> None:
            person = define(base, name, {"name": TEXT})
            define(base, "Book", {"author": (ForeignKey[person], foreign_key(on_delete=kept))})

        return define_both

    steps = Steps(database, folder, models("Author", "restrict"), models("Writer", "cascade"))
    execute(database, "INSERT INTO author (name) VALUES ('Lem')", "INSERT INTO book (author_id) VALUES (1)")
    steps.change("author:writer")
    assert execute(database, "SELECT name FROM writer JOIN book ON author_id = writer.id") == [("Lem",)]


@ALL
def test_a_new_name_that_is_taken_is_refused(database: Databases, folder: Path) -> None:
    old, new = new_base(database), new_base(database)
    define(old, "Book", {"a": TEXT, "b": TEXT})
    define(old, "Volume", {"a": TEXT})
    migrated(old, folder, "first")
    define(new, "Volume", {"a": TEXT})
    migrations = history(new, folder)
    with pytest.raises(
        MigrationError, match="'book' cannot be renamed to 'volume': the database has a table"
    ):
        migrations.make("second", renames=["book:volume"])
    new = new_base(database)
    define(new, "Book", {"b": TEXT})
    with pytest.raises(
        MigrationError, match=r"'book\.a' cannot be renamed to 'b': the table has a column 'b'"
    ):
        history(new, folder).make("second", renames=["book.a:b"])


@ALL
def test_a_key_that_the_database_makes_is_renamed(database: Databases, folder: Path) -> None:
    def models(column: str) -> Any:
        return lambda base: define(
            base, "Book", {"key": (Field[int], field(primary_key=True, init=False, column=column)), "a": TEXT}
        )

    steps = Steps(database, folder, models("id"), models("number"))
    execute(database, "INSERT INTO book (a) VALUES ('kept')")
    steps.change("book.id:number")
    execute(database, "INSERT INTO book (a) VALUES ('new')")
    assert execute(database, "SELECT number FROM book ORDER BY number") == [(1,), (2,)]
