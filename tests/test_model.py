"""An instance and its class: identity, equality, keys, errors of its own, and what is where."""

import enum
import gc
import pickle
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

import microorm
from microorm import Databases, Field, Model, Query, Registry, field


@pytest.fixture
def databases() -> Iterator[Databases]:
    """Two memory databases: no statement of these tests depends on their kind."""
    with Databases({"default": "sqlite://", "other": "sqlite://"}) as databases:
        yield databases


@pytest.fixture
def Book(Base, registry) -> type[Model]:
    class Book(Base):
        title: Field[str]

    registry.create_all()
    return Book


@pytest.fixture
def Line(Base, registry) -> type[Model]:
    class Line(Base):
        book: Field[int] = field(primary_key=True)
        number: Field[int | None] = field(default=None)
        position: Field[int] = field(primary_key=True, init=False)

    registry.create_all()
    return Line


def test_instances_are_equal_by_model_and_key(Book, Line, Base) -> None:
    class Paper(Base):
        title: Field[str]

    Book(title="t").save()
    one, two = Book.objects.get(id=1), Book.objects.get(id=1)
    two.title = "other"
    assert one == two
    assert one is not two
    assert (one != two) is False
    assert hash(one) == hash(two)
    assert len({one, two}) == 1
    other = Book(title="t").save()
    paper = Paper(title="t")
    paper.id = 1
    assert one != other
    assert one != paper
    assert hash(one) != hash(paper)
    for stranger in (1, "Book(id=1)", None, Book, object()):
        assert one != stranger
        assert stranger != one


def test_without_a_key_an_instance_is_equal_to_itself_alone_and_unhashable(Book, Line) -> None:
    one, two = Book(title="t"), Book(title="t")
    assert one == one
    assert one != two
    with pytest.raises(TypeError) as caught:
        hash(one)
    assert str(caught.value) == "Book has no key yet and is unhashable"
    line = Line(book=1)
    assert (line.pk, line == Line(book=1)) == (None, False)
    with pytest.raises(TypeError, match="^Line has no key yet and is unhashable$"):
        hash(line)


def test_pk_is_the_key_whatever_it_is_called(Base, Book, Line) -> None:
    class Author(Base):
        name: Field[str] = field(primary_key=True, max_length=20)

    class Place(Model[UUID], registry=Registry()):
        name: Field[str]

    assert Book(title="t").pk is None
    assert Book(title="t").save().pk == 1
    assert Author(name="x").pk == "x"
    assert Author(name="").pk == ""
    line = Line(book=1)
    line.position = 0
    assert line.pk == (1, 0)
    assert {line: "found"}[line] == "found"
    place = Place(name="x")
    assert place.pk == place.id
    assert isinstance(place.pk, UUID)
    with pytest.raises(AttributeError):
        line.pk = (2, 2)


def test_the_repr_shows_the_model_its_key_and_its_fields(Book, Line) -> None:
    assert repr(Book(title="t")) == "Book(id=None, title='t')"
    assert repr(Book(title="t").save()) == "Book(id=1, title='t')"
    assert repr(Line(book=3)) == "Line(book=3, position=None, number=None)"


def test_each_model_has_errors_of_its_own(Book, Line) -> None:
    """`Book.DoesNotExist` and its like catch what concerns books, and nothing else."""
    roots = {
        "DoesNotExist": microorm.ObjectDoesNotExist,
        "MultipleObjectsReturned": microorm.MultipleObjectsReturned,
        "NotUpdated": microorm.NotUpdated,
    }
    for name, root in roots.items():
        error = getattr(Book, name)
        assert issubclass(error, root)
        assert issubclass(error, microorm.MicroormError)
        assert error is not root
        assert error is not getattr(Line, name)
        assert not issubclass(error, getattr(Line, name))
        assert error.__name__ == name
        assert error.__qualname__ == f"{Book.__qualname__}.{name}"
        assert error.__module__ == Book.__module__
        assert Book(title="t").__class__.__dict__[name] is error
        assert getattr(Model, name) is root
    with pytest.raises(Book.DoesNotExist):
        Book.objects.get(id=5)
    with pytest.raises(microorm.ObjectDoesNotExist):
        Line.objects.get(book=5)


def test_a_models_errors_are_pickled_by_name(monkeypatch) -> None:
    module = types.ModuleType("a_library")
    monkeypatch.setitem(sys.modules, "a_library", module)
    exec(
        "from microorm import Field, Model, Registry\n"
        "class Book(Model, registry=Registry()):\n    title: Field[str]\n",
        vars(module),
    )
    for name in ("DoesNotExist", "MultipleObjectsReturned", "NotUpdated"):
        error = getattr(module.Book, name)("what was asked")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert type(again) is getattr(module.Book, name)
            assert again.args == ("what was asked",)


def test_objects_belongs_to_concrete_models(Book, Base) -> None:
    assert isinstance(Book.objects, Query)
    with pytest.raises(AttributeError) as caught:
        _ = Book(title="t").objects
    assert str(caught.value) == "objects belongs to the model, not to an instance"
    for abstract in (Base, Model):
        with pytest.raises(AttributeError) as caught:
            _ = abstract.objects
        assert str(caught.value) == f"{abstract.__name__} is abstract and has no rows"


def test_instances_can_be_referred_to_weakly(Book) -> None:
    book = Book(title="t").save()
    reference = weakref.ref(book)
    assert reference() is book
    del book
    gc.collect()
    assert reference() is None


def test_an_instance_may_carry_more_than_its_fields(Book) -> None:
    """What is no field is no column, no change, and goes with copies."""
    book = Book(title="t").save()
    book.shelf = "A"
    assert book.changed_fields == frozenset()
    book.save()
    assert not hasattr(Book.objects.get(id=book.id), "shelf")


def test_a_value_that_was_taken_away_reads_none_and_is_refused(Book) -> None:
    book = Book(title="t").save()
    del book.title
    assert book.title is None
    assert book.changes() == {"title": ("t", None)}
    with pytest.raises(microorm.InvalidValue, match="^Book.title must be str, not None$"):
        book.save()
    assert Book.objects.get(id=book.id).title == "t"


def test_a_model_has_methods_and_properties_of_its_own(Base, registry) -> None:
    class Shelf(enum.Enum):
        A = "a"

    class Book(Base):
        """A book."""

        title: Field[str]
        shelf: Field[Shelf] = field(default=Shelf.A)
        limit = 10

        @property
        def short(self) -> str:
            return self.title[: self.limit]

        @classmethod
        def untitled(cls) -> Any:
            return cls(title="untitled")

        def __repr__(self) -> str:
            return f"<{self.title}>"

    registry.create_all()
    book = Book.untitled().save()
    assert (book.short, repr(book), Book.__doc__) == ("untitled", "<untitled>", "A book.")
    assert Book.objects.get(id=book.id).shelf is Shelf.A


def test_save_returns_the_instance_and_delete_the_count(Book) -> None:
    book = Book(title="t")
    assert book.save() is book
    assert book.delete() == (1, {"test_model.Book": 1})
