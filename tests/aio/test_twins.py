"""Twins: each method that reaches a database has one, which does the same and is called in the same way."""

import asyncio
import inspect
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

import microorm
from microorm import (
    Databases,
    Field,
    LazyLoadError,
    Model,
    Query,
    Registry,
    field,
    fixtures,
)
from microorm.query.stream import Stream
from microorm.relations.related_query import RelatedQuery
from microorm.testing import count_statements, no_lazy_loads
from tests.behaviour.library import library

BUILDING = {
    "annotate", "as_objects", "default_filter", "defer", "distinct", "exclude", "filter", "for_update", "group_by", "having", "iterate", "limit", "offset", "only",
    "order_by", "prefetch_related", "select_related", "unfiltered", "using",
}  # fmt: skip
"""The methods of a query that return another one, or a stream."""

REACHES_NO_DATABASE: dict[Any, set[str]] = {
    Model: {"from_dict"},
    Query: BUILDING,
    RelatedQuery: BUILDING,
    Stream: set(),
    Registry: {
        "add", "add_abstract", "check_free", "find", "forget_waiting", "known", "label", "labelled", "newest", "postpone",
        "prepare", "referring", "tables_by_alias", "take_back", "waiting", "when_defined",
    },
    # `atomic` has `async with`, `on_commit` takes coroutine functions; connections that were lost are only dropped.
    Databases: {
        "add", "allows_migration", "allows_relation", "async_engine", "atomic", "awaited", "channel", "configure", "database",
        "drop_lost_connections", "engine", "exchange", "for_read", "for_write", "kept", "lost_in_coroutines", "on_commit", "place", "transaction", "usable", "using",
    },
    microorm: {
        "annotation", "atomic", "configure", "configure_project", "field", "foreign_key", "many_to_many", "muted", "on_commit", "receiver",
        "related", "setup", "through", "using", "version_field",
    },
    fixtures: set(),
}  # fmt: skip
"""What is public of each, and is called in a coroutine as it is."""

FUNCTIONS = (FunctionType, MethodType, classmethod, staticmethod)

MADE_LATER = {"aload"}
"""Twins of what is an attribute otherwise."""


def public(owner: Any) -> dict[str, Any]:
    """The public functions of *owner*, a class or the package, by name."""
    names = (
        owner.__all__
        if isinstance(owner, ModuleType)
        else [name for name in dir(owner) if not name.startswith("_")]
    )
    static = {name: inspect.getattr_static(owner, name) for name in names}
    return {name: getattr(owner, name) for name, each in static.items() if isinstance(each, FUNCTIONS)}


def twins(owner: Any) -> set[str]:
    """The names of the twins of *owner*: of what has the same name without the `a` in front."""
    names = {*public(owner)}
    return {name for name in names if name.startswith("a") and (name[1:] in names or name in MADE_LATER)}


def can_be_awaited(function: Any) -> bool:
    """Whether *function* is called in a coroutine: it returns something to await, or an asynchronous context manager."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(inspect.unwrap(function))


def pairs() -> Iterator[tuple[Any, str]]:
    """Each owner with the name of a function that reaches a database."""
    for owner, others in REACHES_NO_DATABASE.items():
        yield from [(owner, name) for name in {*public(owner)} - twins(owner) - others]


@pytest.mark.parametrize(
    ("owner", "name"),
    [pytest.param(*pair, id=f"{pair[0].__name__}.{pair[1]}") for pair in sorted(pairs(), key=repr)],
)
def test_what_reaches_a_database_has_a_twin_of_the_same_signature(owner: Any, name: str) -> None:
    twin = public(owner).get(f"a{name}")
    assert twin is not None, f"{owner.__name__}.{name} has no twin; if it reaches no database, say so here"
    assert can_be_awaited(twin)
    given, expected = inspect.signature(twin), inspect.signature(getattr(owner, name))
    assert list(given.parameters.values()) == list(expected.parameters.values())
    assert twin.__name__ == f"a{name}"
    assert twin.__doc__


@pytest.mark.parametrize("owner", REACHES_NO_DATABASE)
def test_what_is_said_to_reach_no_database_exists_and_cannot_be_awaited(owner: Any) -> None:
    functions = public(owner)
    assert REACHES_NO_DATABASE[owner] <= {*functions} - twins(owner)
    assert [name for name in REACHES_NO_DATABASE[owner] if can_be_awaited(functions[name])] == []


def test_what_overrides_a_method_is_called_by_its_twin(Base: Any, registry: Registry) -> None:
    class Word(Base):  # type: ignore[misc]
        text: Field[str] = field(max_length=40)

        def save(self, **options: Any) -> Any:
            self.text = self.text.upper()
            return super().save(**options)

    registry.create_all("default")
    assert asyncio.run(Word(text="a").asave()).text == "A"


@pytest.fixture
def Book(Base: Any, registry: Registry) -> Any:
    class Book(Base):  # type: ignore[misc]
        title: Field[str] = field(max_length=40)

    registry.create_all("default")
    return Book


def test_related_rows_of_instances_are_prefetched(
    Base: Any, registry: Registry, databases: Databases
) -> None:
    models = library(Base)
    Author, Book = models.Author, models.Book
    registry.create_all("default")

    async def main() -> list[list[str]]:
        authors = [await Author.objects.acreate(name=name) for name in "ab"]
        await Book.objects.abulk_create(
            [Book(title=one.name + n, author=one) for one in authors for n in "12"]
        )
        loaded = await Author.objects.order_by("name").aall()
        await microorm.aprefetch(loaded, "books")
        with count_statements("default", databases) as counted:
            found = [sorted(book.title for book in author.books.all()) for author in loaded]
        assert counted.count == 0
        return found

    assert asyncio.run(main()) == [["a1", "a2"], ["b1", "b2"]]


def test_the_changes_of_a_deferred_field_are_awaited(Book: Any) -> None:
    async def main() -> dict[str, Any]:
        await Book(title="a").asave()
        book = await Book.objects.defer("title").aget()
        book.title = "b"
        with pytest.raises(LazyLoadError, match="await achanges\\(\\) of the instance first"):
            book.changes()
        found: dict[str, Any] = await book.achanges()
        assert book.changes() == found
        return found

    assert asyncio.run(main()) == {"title": ("a", "b")}


@pytest.mark.backends("sqlite-memory")
def test_the_functions_of_the_package_are_those_of_the_defaults() -> None:
    async def main() -> None:
        microorm.configure("sqlite://")
        await microorm.acreate_all()
        await microorm.adrop_all()
        await microorm.aclose()

    asyncio.run(main())
    assert microorm.default_databases.aliases == ()


def test_statements_of_coroutines_and_of_threads_are_counted_together(
    Book: Any, databases: Databases
) -> None:
    """Although each has an engine of its own; that of a new event loop is made while they are counted."""

    async def main() -> None:
        await Book(title="a").asave()

    with count_statements("default", databases) as counted:
        asyncio.run(main())
        Book(title="b").save()
        asyncio.run(main())
    assert [each.split()[0] for each in counted.statements] == ["INSERT"] * 3


def test_aload_takes_a_column_and_works_where_lazy_loads_are_refused(databases: Any, Base: Any) -> None:
    """It says what it loads, so it is no lazy load."""

    class Page(Base):  # type: ignore[misc]
        text: Field[str] = field(max_length=20)

    async def main() -> None:
        await Page.__schema__.registry.acreate_all()
        await Page(text="a").asave()
        for name in ("text", Page.text):
            page = await Page.objects.defer("text").aget()
            with no_lazy_loads():
                assert await page.aload(name) == "a"
                assert page.text == "a"
        other = await Page.objects.defer("text").aget()
        with no_lazy_loads(), pytest.raises(LazyLoadError):
            assert other.text

    asyncio.run(main())
