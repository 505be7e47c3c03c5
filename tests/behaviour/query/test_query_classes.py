"""Query classes of one's own: their methods, and their default filter."""

import asyncio
import copy
import pickle
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Self

import pytest
from sqlalchemy import func

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    ModelError,
    Prefetch,
    Query,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)


class LiveQuery(Query[Any]):
    def default_filter(self) -> Self:
        return self.filter(deleted=False)

    def named(self, name: str) -> Self:
        return self.filter(name=name)


class BookQuery(LiveQuery):
    def cheap(self) -> Self:
        return self.filter(self._model.price < 6)

    def delete(self) -> tuple[int, dict[str, int]]:
        return self.update(deleted=True), {}

    async def anames(self) -> list[str]:
        return sorted(await self.ascalars("name"))


@pytest.fixture
def shop(Base: Any, registry: Any) -> Any:
    """Author A has three books, of which b3 is deleted; the deleted author has b4. b1 has the tags t, and h, which is deleted."""

    class Live(Base, abstract=True):
        name: Field[str] = field(max_length=20)
        deleted: Field[bool] = field(default=False)
        objects = LiveQuery.as_objects()
        all_objects = Query[Any].as_objects()

    class Author(Live):
        books: Related["Book"] = related("author")
        profile: RelatedOne["Profile | None"] = related("author")

    class Profile(Live):
        author: ForeignKey[Author] = foreign_key(unique=True)

    class Tag(Live):
        books: Related["Book"] = related("tags")

    class Book(Live):
        price: Field[int] = field(default=1)
        author: ForeignKey[Author | None] = foreign_key(default=None, on_delete="cascade")
        tags: ManyToMany[Tag] = many_to_many()
        objects = BookQuery.as_objects()
        named_x = LiveQuery.as_objects()

    registry.create_all("default")
    a, gone = Author(name="A").save(), Author(name="gone", deleted=True).save()
    Profile(name="p", author=a, deleted=True).save()
    b1, b2 = Book(name="b1", price=5, author=a).save(), Book(name="b2", price=7, author=a).save()
    b3, b4 = Book(name="b3", price=5, author=a, deleted=True).save(), Book(name="b4", author=gone).save()
    t, h = Tag(name="t").save(), Tag(name="h", deleted=True).save()
    b1.tags.add(t, h)
    return SimpleNamespace(
        Author=Author,
        Profile=Profile,
        Tag=Tag,
        Book=Book,
        a=a,
        gone=gone,
        b1=b1,
        b2=b2,
        b3=b3,
        b4=b4,
        t=t,
        h=h,
    )


def names(query: Any) -> list[str]:
    return sorted(each.name for each in query)


def test_methods_chain_and_are_inherited(shop: Any) -> None:
    Author, Book = shop.Author, shop.Book
    assert names(Book.objects.cheap().order_by("id")[:5].named("b1")) == ["b1"]
    assert type(Author.objects) is LiveQuery
    assert type(Book.objects.filter(name="x")) is BookQuery
    assert type(Book.named_x) is LiveQuery
    assert Book.objects.cheap() is not Book.objects.cheap()
    assert repr(Book.objects.cheap()).startswith("<BookQuery of Book: SELECT")
    query = Book.objects.cheap()
    assert copy.deepcopy(query) is query
    with pytest.raises(TypeError, match="<BookQuery of Book> cannot be pickled"):
        pickle.dumps(query)
    with pytest.raises(AttributeError, match="all_objects belongs to the model"):
        _ = shop.a.all_objects


def test_related_queries_have_the_methods_and_the_filter_of_objects(shop: Any) -> None:
    a, b1 = shop.a, shop.b1
    assert names(a.books) == ["b1", "b2"]
    assert names(a.books.cheap()) == ["b1"]
    assert names(a.books.cheap().unfiltered()) == ["b1", "b3"]
    assert (a.books.count(), a.books.unfiltered().count()) == (2, 3)
    assert repr(a.books).startswith("<BookQuery of Book: ")
    assert names(b1.tags) == ["t"]
    assert names(b1.tags.named("h").unfiltered()) == ["h"]
    assert names(shop.h.books) == ["b1"]


def test_a_default_filter_is_for_what_a_query_reads_and_writes(shop: Any) -> None:
    Author, Book = shop.Author, shop.Book
    assert names(Author.objects) == ["A"]
    assert names(Author.all_objects) == names(Author.objects.unfiltered()) == ["A", "gone"]
    assert names(Author.objects.named("gone").unfiltered()) == ["gone"]
    assert (Author.objects.count(), Author.objects.filter(name="gone").exists()) == (1, False)
    with pytest.raises(Author.DoesNotExist):
        Author.objects.get(pk=shop.gone.pk)
    assert Author.objects.unfiltered().get(pk=shop.gone.pk) == shop.gone
    assert Author.objects.in_bulk([1, 2]).keys() == {1}
    assert [each.name for each in Author.objects.iterate()] == ["A"]
    assert names(Book.objects.filter(Book.author_id.in_(Author.objects))) == ["b1", "b2"]
    assert Book.objects.update(price=50) == 3
    assert Book.all_objects.get(name="b3").price == 5
    assert Book.objects.filter(name="b1").delete() == (1, {})
    assert names(Book.objects) == ["b2", "b4"]
    assert Book.objects.bulk_update([shop.b3], ["name"]) == 1
    assert Book.all_objects.delete()[0] == 6  # the rows themselves, and the two of the many-to-many relation


def test_instances_and_single_related_rows_are_found_without_it(shop: Any) -> None:
    Author, Book = shop.Author, shop.Book
    gone = shop.gone
    gone.name = "Gone"
    gone.save()
    gone.refresh_from_db()
    assert (gone.name, Book.objects.get(name="b4").author.name, shop.a.profile.name) == ("Gone", "Gone", "p")
    for query in (Book.objects.select_related("author"), Book.objects.prefetch_related("author")):
        assert query.get(name="b4").author.name == "Gone"
    assert Author.objects.prefetch_related("profile").get(pk=1).profile.name == "p"
    assert gone.delete() == (2, {shop.Author.__schema__.label: 1, Book.__schema__.label: 1})


def test_prefetched_rows_are_those_of_the_attribute(shop: Any) -> None:
    Author, Book = shop.Author, shop.Book
    (author,) = Author.objects.prefetch_related("books__tags".replace("__", "."))
    assert names(author.books) == ["b1", "b2"]
    assert names(author.books.all()[0].tags) in (["t"], [])
    assert names(author.books.unfiltered()) == ["b1", "b2", "b3"]
    (author,) = Author.objects.prefetch_related(Prefetch(Author.books, Book.objects.unfiltered()))
    assert names(author.books) == ["b1", "b2", "b3"]


def test_hidden_rows_stay_related(shop: Any) -> None:
    a, b1, b3 = shop.a, shop.b1, shop.b3
    a.books.set([b1])
    assert names(a.books.unfiltered()) == ["b1", "b3"]
    b1.tags.set([])
    assert names(b1.tags.unfiltered()) == ["h"]
    a.books.remove(b3)
    assert names(a.books.unfiltered()) == ["b1"]
    a.books.add(b3)
    a.books.clear()
    assert names(a.books.unfiltered()) == ["b3"]
    b1.tags.clear()
    assert names(b1.tags.unfiltered()) == []
    assert a.books.create(name="n").author == a
    assert b1.tags.create(name="z").name == "z"
    assert names(a.books) == ["n"]
    assert a.books.delete() == (1, {})
    assert names(a.books.unfiltered()) == ["b3", "n"]


def test_a_filter_is_asked_for_whenever_a_query_begins(Base: Any, registry: Any) -> None:
    tenant: ContextVar[int] = ContextVar("tenant")

    class TenantQuery(Query[Any]):
        def default_filter(self) -> Self:
            return self.filter(tenant=tenant.get())

    class Note(Base):
        tenant: Field[int]
        objects = TenantQuery.as_objects()

    registry.create_all("default")
    Query(Note).bulk_create([Note(tenant=number) for number in (1, 2, 2)])
    found = []
    for number in (1, 2):
        token = tenant.set(number)
        found.append(Note.objects.count())
        assert {each.tenant for each in Note.objects} == {number}
        tenant.reset(token)
    assert found == [1, 2]
    with pytest.raises(LookupError):
        _ = Note.objects


def test_a_filter_that_a_window_function_was_computed_with_stays(shop: Any) -> None:
    """`unfiltered()` after it is refused: rows would stay hidden, and the window would be of other rows."""
    Book = shop.Book
    dearest = func.row_number().over(partition_by=Book.author_id, order_by=Book.price.desc()) == 1
    assert names(Book.objects.filter(dearest)) == ["b2", "b4"]
    assert names(Book.objects.unfiltered().filter(dearest)) == ["b2", "b4"]
    for chosen in (Book.objects.filter(dearest), Book.objects.exclude(dearest), shop.a.books.filter(dearest)):
        with pytest.raises(TypeError, match=r"unfiltered\(\) must be called before a condition on a window"):
            chosen.unfiltered()
    with pytest.raises(TypeError, match=r"^bulk_update\(\) finds rows by their keys"):
        Book.objects.filter(dearest).bulk_update([shop.b1], ["price"])
    assert Book.objects.bulk_update([shop.b1, shop.b3], ["price"]) == 2
    assert names(Book.all_objects.filter(dearest).unfiltered()) == ["b2", "b4"]


def test_wrong_classes_are_refused(Base: Any) -> None:
    with pytest.raises(ModelError, match=r"write objects = Class.as_objects\(\)"):

        class Wrong(Base):
            objects = BookQuery

    class Limited(Query[Any]):
        def default_filter(self) -> Self:
            return self[:3]

    class Nothing(Query[Any]):
        def default_filter(self) -> Any:
            self.filter(pk=1)

    class Note(Base):
        limited = Limited.as_objects()
        nothing = Nothing.as_objects()

    with pytest.raises(TypeError, match="cannot limit, group or lock rows"):
        _ = Note.limited
    with pytest.raises(TypeError, match="must return a query of its class, not None"):
        _ = Note.nothing


@pytest.mark.sync_only("awaits by itself")
def test_methods_of_ones_own_are_awaited(shop: Any, databases: Any) -> None:
    Book = shop.Book

    async def main() -> None:
        assert await Book.objects.anames() == ["b1", "b2", "b4"]
        assert await Book.objects.cheap().acount() == 2
        assert await Book.objects.cheap().adelete() == (2, {})  # by the overridden delete()
        assert [each.name async for each in Book.objects] == ["b2"]
        await databases.aclose()

    asyncio.run(main())
