"""What is written through a query, and where it is read and written, on every database."""

import pytest
from sqlalchemy import func
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import CrossDatabaseRelation, Field, ForeignKey, InvalidValue, UnknownAlias, foreign_key


def test_create_inserts_with_any_key(Book, wire, stored):
    """`id=5` or `pk=5`; what is there already is an error."""
    with wire.record() as sent:
        assert Book.objects.create(title="a").id == 1
        assert Book.objects.create(title="b", id=5).id == 5
        assert Book.objects.create(title="c", pk=6)._state.db == "default"
    assert [each.split()[0] for each in sent] == ["INSERT"] * 3
    with pytest.raises(DBAPIError):
        Book.objects.create(title="d", id=5)
    assert stored(Book, "id", "title") == [(1, "a"), (5, "b"), (6, "c")]
    with pytest.raises(TypeError, match=r"^create\(\) got two values for Book.id$"):
        Book.objects.create(title="d", id=7, pk=8)
    with pytest.raises(TypeError, match=r"^Book\(\) is missing 'title'"):
        Book.objects.create(pages=3)
    with pytest.raises(InvalidValue):
        Book.objects.create(title=3)


@pytest.mark.parametrize("method", ["create", "get_or_create", "update_or_create"])
def test_a_row_that_is_made_refers_to_no_row_of_another_alias(Base, registry, stored, method):
    """The key would be that of another row; the routers may allow it, as for a condition."""

    class Author(Base):
        name: Field[str]

    class Note(Base):
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        text: Field[str]

    registry.create_all()
    Author(name="here").save()
    there = Author(name="there").save(using="other")
    values = (
        {"text": "a", "author": there} if method == "create" else {"defaults": {"author": there}, "text": "a"}
    )
    with pytest.raises(CrossDatabaseRelation, match=r"'default' uses Author\(id=1\) of 'other'$"):
        getattr(Note.objects, method)(**values)
    assert stored(Note) == []
    getattr(Note.objects.using("other"), method)(**values)
    assert stored(Note, "author_id", alias="other") == [1]


def test_using_reads_and_writes_there(Book, registry, stored):
    """All ends; a later one wins; an unknown alias is an error at the end."""
    registry.create_all("other")
    there = Book.objects.using("other")
    assert there.create(title="a")._state.db == "other"
    there.bulk_create([Book(title="b"), Book(title="c")])
    assert (there.count(), there.exists(), Book.objects.count()) == (3, True, 0)
    assert [each._state.db for each in there.order_by("title")] == ["other"] * 3
    assert there.get(title="a")._state.db == there.filter(Book.title == "a")[0]._state.db == "other"
    assert there.filter(title="a").update(pages=3) == 1
    assert there.raw("SELECT * FROM book WHERE pages = 3")[0]._state.db == "other"
    assert there.filter(title="b").delete()[0] == 1
    assert there.using("default").count() == 0
    assert stored(Book, "title", alias="other") == ["a", "c"]
    lost = Book.objects.using("nowhere")
    for end in (lost.all, lost.count, lost.exists, lost.first, lost.delete, lambda: lost.update(pages=1)):
        with pytest.raises(UnknownAlias):
            end()
    with pytest.raises(Book.DoesNotExist, match="in 'other'$"):
        there.get(title="z")


def test_the_key_zero_is_stored_as_it_is(Book, stored):
    """Also on MariaDB, which by default makes another key of it."""
    Book.objects.create(id=0, title="a")
    book, other = Book(title="b"), Book(title="c")
    book.id = other.id = 0
    book.save()
    book.save()
    assert stored(Book, "id", "title") == [(0, "b")]
    with pytest.raises(IntegrityError):
        Book.objects.bulk_create([other])
    assert Book.objects.create(title="d").id > 0


def test_what_a_condition_of_a_number_does_not_find_is_what_exclude_finds(Book, shelf, databases):
    """A number is true unless it is zero; PostgreSQL takes no number for a condition."""
    if databases.database("default").dialect == "postgresql":
        return
    for number in (Book.pages.bitwise_and(2), Book.price, func.length(Book.title) * Book.pages - 2):
        found = {*Book.objects.filter(number).scalars("id")}
        others = Book.objects.exclude(number).scalars("id")
        assert found
        assert others
        assert sorted([*found, *others]) == sorted(Book.objects.scalars("id"))


@pytest.mark.backends("sqlite-memory")
def test_in_is_refused_as_it_would_load_all_rows(Book, shelf, wire):
    book = shelf[0]
    with wire.record() as sent, pytest.raises(TypeError, match=r"use filter\(...\).exists\(\)"):
        assert book in Book.objects
    assert not sent
