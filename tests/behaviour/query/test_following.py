"""Following a relation to one row: lazily by one statement, and what becomes of what was found."""

import copy
import pickle
import sys
from typing import Any

import pytest
from sqlalchemy import literal

from microorm import (
    CrossDatabaseRelation,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    LazyLoadError,
    RelatedOne,
    UnsavedError,
    field,
    foreign_key,
    related,
)
from microorm.signals import post_save
from microorm.testing import no_lazy_loads
from tests.behaviour.library import fill, library

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def shop(Base, registry) -> Any:
    """The models of a library, and its rows on `default`."""
    models = library(Base)
    registry.create_all()
    fill(models)
    return models


@pytest.fixture
def book(shop) -> Any:
    """The book called a, by isabel, whom nobody has asked for yet."""
    return shop.Book.objects.get(title="a")


@pytest.fixture
def global_models(shop, monkeypatch) -> Any:
    """The same, where a pickle finds them."""
    for name, model in vars(shop).items():
        monkeypatch.setattr(sys.modules[__name__], name, model, raising=False)
        model.__qualname__, model.__module__ = name, __name__
    return shop


# One statement


def test_it_takes_one_statement_once(shop, book, wire):
    with wire.record() as sent:
        assert [book.author.name, book.author.name] == ["isabel"] * 2
    assert len(sent) == 1
    with wire.record() as sent:
        assert book.author.country.code == "cl"  # by a field that is not the key
    assert len(sent) == 1
    assert book.author._state.db == "default"
    assert (book.changes(), book.author.changes()) == ({}, {})


def test_null_takes_none(shop, book, wire):
    with wire.record() as sent:
        assert book.editor is None
        assert shop.Author.objects.only("name", "country").get(name="nobody").country is None
    assert len(sent) == 1


def test_the_other_side_of_one_to_one(shop, wire):
    isabel, mario = shop.Author.objects.get(name="isabel"), shop.Author.objects.get(name="mario")
    with wire.record() as sent:
        assert isabel.profile.text == "born in Lima"
        assert isabel.profile.author is isabel
        assert (mario.profile, mario.profile) == (None, None)
    assert len(sent) == 2
    profile = shop.Profile.objects.get()
    with wire.record() as sent:
        assert profile.author.profile is profile
    assert len(sent) == 1


def test_a_deferred_key_is_loaded_first(shop, wire):
    book = shop.Book.objects.only("title").get(title="a")
    with wire.record() as sent:
        assert book.author.name == "isabel"
    assert len(sent) == 2


def test_a_row_that_must_be_there(Base, registry, wire):
    class Owner(Base):
        pets: RelatedOne["Pet"] = related("owner")

    class Pet(Base):
        owner: ForeignKey[Owner] = foreign_key(unique=True, constraint=False)
        friend: ForeignKey[Owner | None] = foreign_key(constraint=False, default=None)

    registry.create_all("default")
    owner = Owner().save()
    with pytest.raises(Pet.DoesNotExist, match=r"Owner.pets of Owner\(id=1\): no Pet"):
        _ = owner.pets
    pet = Pet(owner_id=77, friend_id=78).save()
    with pytest.raises(Owner.DoesNotExist, match=r"Pet.owner of Pet\(id=1\): no Owner with id=77"):
        _ = pet.owner
    with wire.record() as sent:
        with pytest.raises(Owner.DoesNotExist):
            _ = pet.owner  # known to be missing
    assert sent == []
    assert pet.friend is None
    with pytest.raises(Pet.DoesNotExist):
        _ = Owner().pets


def test_it_is_refused_where_lazy_loads_are(shop, book):
    author = shop.Author.objects.get(name="isabel")
    with no_lazy_loads():
        with pytest.raises(LazyLoadError, match=r"Book.author of Book\(id=1\) is not loaded"):
            _ = book.author
        with pytest.raises(LazyLoadError, match="Author.profile of"):
            _ = author.profile
        assert book.editor is None
        book.author = author
        assert book.author is author
    assert author.profile.author is author


# What is kept goes with the key


def test_another_key_leads_to_another_row(shop, book, wire):
    assert book.author.name == "isabel"
    book.author_id = 2
    with wire.record() as sent:
        assert book.author.name == "mario"
    assert len(sent) == 1
    assert book.changes() == {"author": (1, 2)}
    book.author_id = 1
    assert book.author.name == "isabel"
    author = shop.Author.objects.get(id=1)
    assert author.country.code == "cl"
    author.country_id = "pe"
    assert author.country.code == "pe"
    author.country_id = None
    assert author.country is None


def test_an_assigned_instance_is_the_one(shop, book, wire):
    mario = shop.Author.objects.get(name="mario")
    book.author = mario
    with wire.record() as sent:
        assert (book.author, book.author_id) == (mario, 2)
        assert book.author is mario
    assert sent == []
    book.save(update_fields=["author"])
    assert shop.Book.objects.get(id=book.id).author == mario
    book.editor = mario
    book.editor = None
    assert (book.editor, book.editor_id) == (None, None)


def test_a_refresh_forgets_what_was_found_by_the_old_values(shop, book):
    author = book.author
    shop.Book.objects.filter(id=book.id).update(author_id=2)
    book.refresh_from_db()
    assert (book.author.name, book.author_id) == ("mario", 2)
    shop.Author.objects.filter(id=2).update(name="other")
    book.refresh_from_db(fields=["title"])
    assert book.author.name == "mario"
    book.refresh_from_db(fields=["author"])
    assert book.author.name == "other"
    profile = author.profile
    shop.Profile.objects.filter(id=profile.id).update(text="x")
    author.refresh_from_db()
    assert author.profile.text == "x"


def test_a_key_that_is_an_expression_leads_nowhere_yet(shop, book):
    book.editor_id = literal(2)
    with pytest.raises(FieldError, match="Book.editor is an SQL expression; save the instance to read it"):
        _ = book.editor
    book.save()
    assert (book.editor_id, book.editor.name) == (2, "mario")


def test_what_cannot_be_assigned(shop, book):
    author = shop.Author.objects.get(name="isabel")
    for wrong, error, message in (
        (shop.Tag.objects.get(name="red"), InvalidValue, "Book.author must be Author, not"),
        (3, InvalidValue, "must be Author, not int 3"),
        ("isabel", InvalidValue, "must be Author"),
    ):
        with pytest.raises(error, match=message):
            book.author = wrong
    assert (book.author, book.changes()) == (author, {})
    with pytest.raises(AttributeError, match="Author.profile cannot be assigned; assign Profile.author"):
        author.profile = None


def test_none_is_found_out_when_it_is_saved(shop, book):
    book.author = None
    with pytest.raises(shop.Author.DoesNotExist, match="no Author is assigned"):
        _ = book.author
    with pytest.raises(InvalidValue, match="Book.author"):
        book.save()


# Natural keys, and keys that change


def test_a_natural_key_that_changes_is_taken_anew(Base, registry, stored):
    class Plane(Base):
        code: Field[str] = field(primary_key=True, max_length=5)

    class Flight(Base):
        plane: ForeignKey[Plane] = foreign_key()

    registry.create_all("default")
    plane = Plane(code="A").save()
    flight = Flight(plane=plane)
    plane.code = "B"
    plane.save()
    assert flight.save().plane_id == "B"
    assert flight.plane is plane
    assert stored(Flight, "plane_id") == ["B"]
    assert Flight.objects.get().plane.code == "B"


def test_an_instance_that_lost_its_key_cannot_be_referred_to(shop, undone):
    book = shop.Book(title="n", author_id=1)
    with undone():
        author = shop.Author(name="new").save()
        book.author = author
    with pytest.raises(
        UnsavedError, match=r"Book\.author: Author\(id=None\) has no key; save it before the Book"
    ):
        book.save()
    author.save()
    book.save()
    assert shop.Book.objects.get(title="n").author.name == "new"


def test_a_rollback_leaves_what_was_assigned(shop, book, undone, stored):
    mario = shop.Author.objects.get(name="mario")
    with undone():
        book.author = mario
        book.save()
    assert (book.author, book.changes()) == (mario, {"author": (1, 2)})
    assert stored(shop.Book, "author_id")[0] == 1
    with undone():
        shop.Book.objects.filter(id=book.id).update(author_id=3)
        book.refresh_from_db()
        assert book.author.name == "nobody"
    assert book.author.name == book.author.name == "mario"


# Copies


def test_copies_keep_what_was_found(shop, book, wire):
    author = book.author
    with wire.record() as sent:
        shallow, deep = copy.copy(book), copy.deepcopy(book)
        assert shallow.author is author
        assert deep.author is not author
        assert (deep.author, deep.author.name) == (author, "isabel")
    assert sent == []
    shallow.author_id = 2
    assert (shallow.author.name, book.author.name) == ("mario", "isabel")


def test_a_deep_copy_of_a_one_to_one_pair_is_a_pair(shop):
    author = shop.Author.objects.select_related("profile").get(name="isabel")
    twin = copy.deepcopy(author)
    assert twin.profile.author is twin
    assert twin.profile is not author.profile


def test_pickles_keep_what_was_found(global_models, wire):
    Author = global_models.Author
    author = (
        Author.objects.select_related("profile", "country").prefetch_related("books.tags").get(name="isabel")
    )
    with wire.record() as sent, no_lazy_loads():
        twin = pickle.loads(pickle.dumps(author))
        assert (twin, twin.country.code, twin.profile.author is twin) == (author, "cl", True)
        assert sorted(tag.name for book in twin.books for tag in book.tags) == ["new", "old", "old"]
        assert all(book.author is twin for book in twin.books)
    assert sent == []
    assert (twin._state.db, twin.changes()) == ("default", {})


def test_receivers_after_the_commit_have_what_was_found(shop, book, databases, listen, wire):
    told: list[Any] = []

    def note(instance: Any, **_: Any) -> None:
        told.append((instance is book, instance.author.name))

    listen(post_save, note, sender=shop.Book, delivery="on_commit")
    assert book.author.name == "isabel"
    with databases.atomic():
        book.save()
        book.author_id = 2
    assert told == [(False, "isabel")]
    assert book.author.name == "mario"


# Several databases


def test_it_stays_on_the_alias_of_the_instance(shop, databases):
    fill(shop, "other")
    book = shop.Book.objects.using("other").get(title="a")
    assert (book.author._state.db, book.author.profile._state.db) == ("other", "other")
    with databases.atomic():  # of another alias
        again = shop.Book.objects.using("other").get(title="a")
        assert again.author._state.db == "other"


def test_inside_a_block_it_reads_what_was_written_there(shop, book, undone):
    with undone():
        shop.Author.objects.filter(id=1).update(name="changed")
        assert book.author.name == "changed"


def test_a_router_is_asked_with_the_instance_and_wins(shop, book, databases):
    fill(shop, "other")
    hints: list[Any] = []

    class Router:
        def db_for_read(self, model: Any, **given: Any) -> str | None:
            hints.append((model.__name__, given["instance"], given["in_atomic"]))
            return "other"

    databases.routers = (Router(),)
    assert book.author._state.db == "other"
    assert hints == [("Author", book, False)]
    with databases.using("default"):
        assert shop.Book.objects.get(title="b").author._state.db == "default"


def test_an_instance_of_another_alias_is_refused(shop, book):
    fill(shop, "other")
    elsewhere = shop.Author.objects.using("other").get(name="mario")
    with pytest.raises(
        CrossDatabaseRelation, match="Book.author of 'default' cannot refer to Author.* of 'other'"
    ):
        book.author = elsewhere
    assert (book.author.name, book.changes()) == ("isabel", {})


def test_a_new_instance_takes_the_alias_of_what_it_refers_to(shop):
    fill(shop, "other")
    elsewhere = shop.Author.objects.using("other").get(name="mario")
    new = shop.Book(title="new", author=elsewhere)
    assert (new._state.db, new._state.adding) == ("other", True)
    with pytest.raises(CrossDatabaseRelation):
        new.editor = shop.Author.objects.get(name="isabel")
    new.save()
    assert shop.Book.objects.using("other").get(title="new").author == elsewhere
    assert not shop.Book.objects.filter(title="new").exists()


@MEMORY
def test_routers_allow_and_forbid_relations(shop, book, databases):
    asked: list[Any] = []

    class Router:
        answer = True

        def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool:
            asked.append((left, right, hints))
            return self.answer

    fill(shop, "other")
    elsewhere, here = shop.Author.objects.using("other").get(id=2), shop.Author.objects.get(id=2)
    router = Router()
    databases.routers = (router,)
    book.author = elsewhere
    assert asked == [(book, elsewhere, {})]
    assert book.author is elsewhere
    router.answer = False
    with pytest.raises(CrossDatabaseRelation):
        book.author = here
    assert book.author is elsewhere
