"""`bulk_create` gives new instances the keys and states of single saves, and an error restores them."""

import sys
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import StaticPool, String, create_engine, func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeDecorator

from microorm import Databases, Field, InvalidValue, Model, Registry, field
from microorm.persistence.bulk import ROWS_PER_STATEMENT, WORTH_IT


class Broken(Exception):
    """The error that ends a block, so that it is rolled back."""


@pytest.fixture
def Note(Base: Any, registry: Any) -> Any:
    class Note(Base):
        text: Field[str] = field(max_length=20, unique=True)
        rank: Field[int | None]

    registry.create_all("default")
    return Note


def make(Note: Any, count: int) -> list[Any]:
    return [Note(text=f"n{number}", rank=number or None) for number in range(count)]


@pytest.mark.parametrize("count", [1, WORTH_IT - 1, WORTH_IT, WORTH_IT + ROWS_PER_STATEMENT + 1])
def test_each_instance_has_the_key_of_its_row(Note: Any, count: int) -> None:
    notes = make(Note, count)
    Note(text="before", rank=1).save()
    Note.objects.bulk_create(notes)
    found = {note.id: (note.text, note.rank) for note in Note.objects.all()}
    assert [found[note.id] for note in notes] == [(note.text, note.rank) for note in notes]
    assert [(note.changes(), note._state.adding, note._state.db) for note in notes] == [
        ({}, False, "default")
    ] * count
    notes[-1].rank = 9
    assert list(notes[-1].changes()) == ["rank"]
    notes[-1].save()
    assert Note.objects.count() == count + 1


def test_a_rollback_puts_them_back(Note: Any, databases: Any) -> None:
    notes = make(Note, WORTH_IT + 7)
    with pytest.raises(Broken), databases.atomic():
        Note.objects.bulk_create(notes)
        notes[3].rank = 77
        notes[3].save()
        notes[4].delete()
        raise Broken
    assert [note.id for note in notes] == [None] * (WORTH_IT + 7)
    assert all(note._state.adding and note._state.db is None and note._row is None for note in notes)
    assert notes[3].rank == 77
    Note.objects.bulk_create(notes)
    assert Note.objects.count() == WORTH_IT + 7


def test_an_inner_rollback_puts_back_what_came_inside(Note: Any, databases: Any) -> None:
    outer, inner = make(Note, 60), [Note(text=f"i{number}", rank=1) for number in range(60)]
    with databases.atomic():
        Note.objects.bulk_create(outer)
        with pytest.raises(Broken), databases.atomic():
            Note.objects.bulk_create(inner)
            raise Broken
    assert all(note.id is not None for note in outer)
    assert [note.id for note in inner] == [None] * 60


def test_a_refused_row_puts_all_back(Note: Any) -> None:
    notes = make(Note, WORTH_IT + 6)
    notes.append(Note(text="n3", rank=1))
    with pytest.raises(IntegrityError):
        Note.objects.bulk_create(notes)
    assert [note.id for note in notes] == [None] * (WORTH_IT + 7)
    assert all(note._state.adding for note in notes)
    assert Note.objects.count() == 0


def test_a_bad_value_names_its_object(Note: Any) -> None:
    notes = make(Note, 3)
    notes[2].rank = "high"
    with pytest.raises(InvalidValue) as caught:
        Note.objects.bulk_create(notes)
    assert caught.value.__notes__ == ["in object 2 of bulk_create()"]


def test_objects_that_differ_in_kind_are_written_together(Note: Any) -> None:
    """A key set by hand, a new object and an expression in one call."""
    with_key = Note(text="k", rank=1)
    with_key.id = 500
    objects = [Note(text="a", rank=1), with_key, Note(text="b", rank=func.abs(-7))]
    Note.objects.bulk_create(objects)
    assert {note.text: note.rank for note in Note.objects.all()} == {"a": 1, "k": 1, "b": 7}
    assert (with_key.id, objects[2].rank) == (500, 7)
    assert len({note.id for note in objects}) == 3


class Upper(TypeDecorator[str]):
    """Text that the database stores in capitals."""

    impl = String(20)
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.upper(bindvalue)


# Python 3.12 deprecates numeric placeholders of sqlite3, and 3.14 refuses them.
STYLES = ["qmark", "named", *(["numeric"] if sys.version_info < (3, 12) else [])]


@pytest.mark.parametrize("style", STYLES)
def test_many_rows_are_written_with_whatever_placeholders_the_engine_has(style: str) -> None:
    """The text of one row is repeated on SQLite, whatever else is in it."""
    engine = create_engine("sqlite://", paramstyle=style, poolclass=StaticPool)
    with Databases(engine) as databases:

        class Odd(Model, registry=Registry(databases)):
            text: Field[str] = field(type_=Upper(), column=") VALUES (?, :a")
            at: Field[date]

        Odd.__schema__.registry.create_all()
        count = WORTH_IT + ROWS_PER_STATEMENT + 1
        days = [date(2000, 1, 1) + timedelta(number) for number in range(count)]
        odd = Odd.objects.bulk_create([Odd(text=f"n{number}", at=day) for number, day in enumerate(days)])
        found = [(each.id, each.text, each.at) for each in Odd.objects.order_by(Odd.id)]
        assert found == [(each.id, f"N{number}", days[number]) for number, each in enumerate(odd)]
    engine.dispose()  # an engine that was given is its maker's
