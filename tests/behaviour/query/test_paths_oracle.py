"""Queries along relations against an oracle in Python: whatever the rows and the conditions, SQL and the oracle agree.

What stays the database's own is said in the expressions: where NULLs come, and the order of text.
"""

from collections import Counter
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import and_, func, select

from microorm import Field, ForeignKey, ManyToMany, Related, field, foreign_key, many_to_many, related
from tests.behaviour.oracle import World, binary
from tests.behaviour.questions import conditions, numbers, spread, texts, worlds
from tests.thorough import examples

EXAMPLES = settings(
    max_examples=examples(8),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MODELS = st.sampled_from(["book", "author", "country", "tag"])


@cache
def calls_of(model: str, *, many: bool = True) -> st.SearchStrategy[list[tuple[str, list[Any]]]]:
    """Calls of `filter` and `exclude`, one after the other."""
    call = st.tuples(
        st.sampled_from(["filter", "exclude"]), st.lists(conditions(model, many=many), min_size=1, max_size=2)
    )
    return st.lists(call.filter(lambda call: spread(call[1]) <= 4), max_size=2)


@st.composite
def asked(draw: Any, *, many: bool = True) -> Any:
    """A model, and calls of its query."""
    model = draw(MODELS)
    return model, draw(calls_of(model, many=many))


@st.composite
def ordered(draw: Any) -> Any:
    """A model, calls of its query, and what to order by: each a value, whether NULLs come first, and descending."""
    model, calls = draw(asked())
    value = numbers(model) | texts(model)
    return model, calls, draw(st.lists(st.tuples(value, st.booleans(), st.booleans()), max_size=2))


class Library:
    """The models, each by its name in the oracle, and what the oracle and they say."""

    def __init__(self, models: dict[str, Any], through: Any, dialect: str) -> None:
        self.models = models
        self.through = through
        self.dialect = dialect

    def fill(self, world: World) -> None:
        for name, model in self.models.items():
            made = []
            for row in world.rows[name]:
                instance = model(**{each: value for each, value in row.items() if each != "id"})
                instance.id = row["id"]
                made.append(instance)
            model.objects.bulk_create(made)
        pairs = [self.through(book_id=book, tag_id=tag) for book, tag in sorted(world.tagged)]
        self.through.objects.bulk_create(pairs)

    def query(self, model: str, calls: Any) -> Any:
        query = self.models[model].objects
        for method, wanted in calls:
            query = getattr(query, method)(*[each.sql(self.models[model]) for each in wanted])
        return query

    def order(self, model: str, value: Any, first: bool, descending: bool) -> list[Any]:
        """*value* in the order of its characters or numbers, NULLs *first* or last: all of it said."""
        sql = binary(value, self.dialect).sql(self.models[model])
        turned = sql.desc() if descending else sql.asc()
        if self.dialect == "mariadb":  # which has no NULLS FIRST
            return [sql.is_not(None) if first else sql.is_(None), turned]
        return [turned.nulls_first() if first else turned.nulls_last()]


def found_by(world: World, model: str, calls: Any) -> list[dict[str, Any]]:
    """The rows that the oracle finds, in the order of their keys."""
    rows = world.rows[model]
    for method, wanted in calls:
        rows = [row for row in rows if world.matches(row, wanted) is (method == "filter")]
    return rows


def keys(found: Any) -> list[int]:
    return [each["id"] if isinstance(each, dict) else each.id for each in found]


@pytest.fixture
def library(Base: Any, registry: Any, databases: Any) -> Library:
    class Country(Base):
        name: Field[str | None] = field(max_length=9)
        age: Field[int | None] = field()
        size: Field[int | None] = field()
        people: Related["Author"] = related("country")

    class Author(Base):
        name: Field[str | None] = field(max_length=9)
        age: Field[int | None] = field()
        country: ForeignKey[Country | None] = foreign_key()
        mentor: ForeignKey["Author | None"] = foreign_key()
        books: Related["Book"] = related("author")
        edited: Related["Book"] = related("editor")
        pupils: Related["Author"] = related("mentor")

    class Tag(Base):
        name: Field[str | None] = field(max_length=9)
        weight: Field[int | None] = field()
        tagged: Related["Book"] = related("tags")

    class Book(Base):
        title: Field[str | None] = field(max_length=9)
        pages: Field[int | None] = field()
        size: Field[int | None] = field()
        author: ForeignKey[Author] = foreign_key()
        editor: ForeignKey[Author | None] = foreign_key()
        prequel: ForeignKey["Book | None"] = foreign_key()
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all("default")
    through = Book.__schema__.relations["tags"].through
    models = {"country": Country, "author": Author, "book": Book, "tag": Tag}
    return Library(models, through, databases.engine("default").dialect.name)


@settings(EXAMPLES, max_examples=examples(15))
@given(world=worlds(), question=asked())
def test_filter_and_exclude_along_paths_agree_with_the_oracle(library, undone, world, question):
    """In one call, one combination of related rows; `exclude` is the exact complement."""
    model, calls = question
    with undone():
        library.fill(world)
        query, rows = library.query(model, calls), found_by(world, model, calls)
        assert keys(query.order_by("id")) == keys(rows)
        assert (query.count(), query.exists()) == (len(rows), bool(rows))
        assert keys([query.first()] if rows else []) == keys(rows[:1])
        assert keys([query.last()] if rows else []) == keys(rows[-1:])
        assert keys(query.distinct().order_by("id")) == keys(rows)


PARTS = st.lists(st.builds(slice, st.none() | st.integers(0, 3), st.none() | st.integers(1, 6)), max_size=2)


@EXAMPLES
@given(world=worlds(), question=ordered(), parts=PARTS)
def test_order_slices_and_values_agree_with_the_oracle(library, undone, world, question, parts):
    """A part of a part, the first and the last of it; columns in the place of instances."""
    model, calls, orders = question
    with undone():
        library.fill(world)
        query, rows = library.query(model, calls), found_by(world, model, calls)
        order = [each for value, *how in orders for each in library.order(model, value, *how)]
        query = query.order_by(*order, "id")
        rows = ordered_by(world, rows, orders)
        assert keys(query[::]) == keys(rows)
        for part in parts:
            query, rows = query[part], rows[part]
        assert keys(query) == keys(query.iterate(chunk=2)) == keys(rows)
        assert (query.count(), query.exists()) == (len(rows), bool(rows))
        assert keys([query.first()] if rows else []) == keys(rows[:1])
        assert keys([query.last()] if rows else []) == keys(rows[-1:])
        values = [value for value, *_ in orders]
        columns = [value.sql(library.models[model]) for value in values]
        assert [tuple(row) for row in query.values("id", *columns)] == [
            (row["id"], *(world.value(row, value) for value in values)) for row in rows
        ]
        for value, sql in zip(values, columns, strict=True):
            assert query.scalars(sql) == [world.value(row, value) for row in rows]


@EXAMPLES
@given(world=worlds(), question=asked(), draw=st.data())
def test_aggregates_and_groups_agree_with_the_oracle(library, undone, world, question, draw):
    """No row counts twice, whatever paths to many rows the conditions have; NULLs are a group."""
    model, calls = question
    number, text = draw.draw(numbers(model)), draw.draw(texts(model))
    group, least = draw.draw(numbers(model) | texts(model)), draw.draw(st.integers(1, 3))
    part = draw.draw(st.just(slice(None)) | st.just(slice(1, 3)))
    with undone():
        library.fill(world)
        of = library.models[model]
        rows = found_by(world, model, calls)
        query = library.query(model, calls)
        sql, ordered_text = number.sql(of), binary(text, library.dialect).sql(of)
        row = query.order_by("id")[part].aggregate(
            rows=func.count(),
            there=func.count(sql),
            kinds=func.count(sql.distinct()),
            total=func.sum(sql),
            least=func.min(ordered_text),
            most=func.max(ordered_text),
        )
        limited = rows[part]
        assert row._asdict() == summary(world, limited, number, text)

        # PostgreSQL takes an expression with a value in it for the same only where it is the same object.
        grouped = group.sql(of)
        counted = query.group_by(grouped).having(func.count() >= least)
        groups: dict[Any, list[Any]] = {}
        for each in rows:
            groups.setdefault(world.value(each, group), []).append(each)
        kept = {value: found for value, found in groups.items() if len(found) >= least}
        there = counted.values(grouped, func.count(), func.sum(sql))
        assert Counter(map(tuple, there)) == Counter(
            (value, len(found), total_of(world, found, number)) for value, found in kept.items()
        )
        assert (counted.count(), counted.exists()) == (len(kept), bool(kept))
        assert Counter(query.distinct().scalars(group.sql(of))) == Counter(list(groups))


@EXAMPLES
@given(world=worlds(), question=asked(), number=st.integers(-3, 3))
def test_update_and_delete_reach_exactly_the_rows_found(library, undone, world, question, number):
    """Nothing else is written, and nothing else goes."""
    model, calls = question
    of = library.models[model]
    with undone():
        library.fill(world)
        found = keys(found_by(world, model, calls))
        column = {"book": "pages", "author": "age", "country": "age", "tag": "weight"}[model]
        query = library.query(model, calls)
        assert query.update(**{column: number}) == len(found)
        assert dict(map(tuple, of.objects.values("id", column))) == {
            row["id"]: number if row["id"] in found else row[column] for row in world.rows[model]
        }
    with undone():
        library.fill(world)
        library.through.objects.delete()
        library.models["book"].objects.update(prequel=None)
        for row in world.rows["book"]:
            row["prequel_id"] = None
        world = World(world.rows, set())
        if model in ("author", "country"):
            return  # others refer to them
        found = keys(found_by(world, model, calls))
        assert query.delete()[0] == len(found)
        assert keys(of.objects.order_by("id")) == [
            row["id"] for row in world.rows[model] if row["id"] not in found
        ]


@EXAMPLES
@given(world=worlds(), wanted=st.lists(conditions("book", many=False), min_size=1, max_size=3))
def test_what_is_said_in_two_ways_finds_the_same_rows(library, undone, world, wanted):
    """One call or several, by a relation or by its path, from this side or from the other."""
    book, author = library.models["book"], library.models["author"]
    with undone():
        library.fill(world)
        expressions = [each.sql(book) for each in wanted]
        query = book.objects.order_by("id")
        found = keys(query.filter(*expressions))
        assert found == keys(row for row in world.rows["book"] if world.matches(row, wanted))
        assert found == keys(query.filter(and_(*expressions)))
        one_by_one = query
        for each in expressions:
            one_by_one = one_by_one.filter(each)
        assert found == keys(one_by_one)
        assert found == keys(query.exclude(book.id.in_(keys(query.exclude(*expressions)))))
        assert found == keys(
            query.filter(book.id.in_(query.filter(*expressions).statement.with_only_columns(book.id)))
        )
        ours = query.filter(*expressions)
        for writer in author.objects.order_by("id"):
            theirs = keys(ours.filter(author=writer))
            assert theirs == keys(writer.books.filter(*expressions).order_by("id"))
            assert theirs == keys(ours.filter(book.author.id == writer.id))
            assert theirs == keys(ours.filter(author_id=writer.pk))
            assert keys(ours.exclude(author=writer)) == [key for key in found if key not in theirs]
            assert keys(ours.filter(editor=writer)) == keys(writer.edited.filter(*expressions).order_by("id"))
        assert keys(ours.filter(editor=None)) == keys(ours.filter(book.editor.id.is_(None)))
        for written in query:
            assert keys(author.objects.filter(books=written)) == [written.author_id]
        idle = author.objects.filter(books=None).order_by("id")
        assert keys(idle) == keys(
            author.objects.exclude(author.id.in_(select(book.author_id))).order_by("id")
        )
        for tag in library.models["tag"].objects:
            assert keys(ours.filter(tags=tag)) == keys(tag.tagged.filter(*expressions).order_by("id"))
            assert keys(ours.filter(tags=tag)) == keys(ours.filter(book.tags.id == tag.id))


def ordered_by(world: World, rows: list[Any], orders: Any) -> list[Any]:
    """*rows* in the order of values of theirs, and last of their keys, as Python sorts them."""
    for value, first, descending in reversed(orders):
        there = [row for row in rows if world.value(row, value) is not None]
        missing = [row for row in rows if world.value(row, value) is None]
        there.sort(key=lambda row: world.value(row, value), reverse=descending)
        rows = [*missing, *there] if first else [*there, *missing]
    return rows


def total_of(world: World, rows: list[Any], number: Any) -> int | None:
    """What SQL makes of numbers of which some are NULL: their sum, NULL of none."""
    there = [value for row in rows if (value := world.value(row, number)) is not None]
    return sum(there) if there else None


def summary(world: World, rows: list[Any], number: Any, text: Any) -> dict[str, Any]:
    """What the aggregates are of *rows*."""
    numbers_there = [value for row in rows if (value := world.value(row, number)) is not None]
    texts_there = [value for row in rows if (value := world.value(row, text)) is not None]
    return {
        "rows": len(rows),
        "there": len(numbers_there),
        "kinds": len(set(numbers_there)),
        "total": total_of(world, rows, number),
        "least": min(texts_there, default=None),
        "most": max(texts_there, default=None),
    }
