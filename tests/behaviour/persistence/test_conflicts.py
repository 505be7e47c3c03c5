"""Which of many objects an `IntegrityError` of a bulk write is about, as far as the database tells."""

import enum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import UniqueConstraint
from sqlalchemy.exc import IntegrityError

from microorm import Field, ForeignKey, Model, field, foreign_key


class Kind(enum.Enum):
    NEW = "n"
    OLD = "o"


@pytest.fixture
def Word(Base: Any, registry: Any) -> Any:
    class Language(Base):
        name: Field[str] = field(max_length=20)

    class Word(Base, table_args=(UniqueConstraint("kind", "rank"),)):
        text: Field[str] = field(max_length=20, unique=True, column="word")
        kind: Field[Kind] = field(default=Kind.NEW)
        rank: Field[int | None] = field(default=None)
        language: ForeignKey[Language | None] = foreign_key(default=None)

    registry.create_all()
    return Word


def notes(call: Any) -> list[str]:
    with pytest.raises(IntegrityError) as caught:
        call()
    return list(getattr(caught.value, "__notes__", []))


def test_two_objects_of_the_same_values_are_named(Word: Any, stored: Any) -> None:
    words = [Word(text=text) for text in ("a", "b", "c", "b")]
    told = ["in object 3 of bulk_create(), which has the same text as object 1"]
    assert notes(lambda: Word.objects.bulk_create(words)) == told
    assert notes(lambda: Word.objects.bulk_create(words, batch_size=2)) == told
    words = [Word(text=text, kind=Kind.OLD, rank=rank) for text, rank in (("a", 2), ("b", None), ("c", 2))]
    assert notes(lambda: Word.objects.bulk_create(words)) == [
        "in object 2 of bulk_create(), which has the same kind, rank as object 0"
    ]
    assert stored(Word) == []


def test_an_object_that_conflicts_with_a_row_is_named_where_the_database_tells(
    Word: Any, databases: Any
) -> None:
    Word(text="b").save()
    told = ["in object 1 of bulk_create(), by its text"]
    expected = [] if databases.database("default").is_sqlite else told
    assert notes(lambda: Word.objects.bulk_create([Word(text=text) for text in "abc"])) == expected


def test_an_update_of_many_names_the_object_too(Word: Any) -> None:
    words = Word.objects.bulk_create([Word(text=text) for text in "abc"])
    words[1].text = words[2].text = "x"
    found = notes(lambda: Word.objects.bulk_update(words, ["text"]))
    assert found == ["in object 2 of bulk_update(), which has the same text as object 1"]


def test_a_row_that_is_referred_to_and_missing_is_named_by_postgresql(Word: Any, databases: Any) -> None:
    words = [Word(text="a"), Word(text="b", language_id=99)]
    told = ["in object 1 of bulk_create(), by its language"]
    expected = told if databases.database("default").dialect == "postgresql" else []
    assert notes(lambda: Word.objects.bulk_create(words)) == expected


@pytest.mark.parametrize("batch_size", [None, 1])
def test_objects_that_refer_to_each_other_are_inserted_in_the_order_of_the_list(
    registry: Any, stored: Any, batch_size: int | None
) -> None:
    class Node(Model[UUID], registry=registry):
        parent: ForeignKey["Node | None"] = foreign_key(default=None)

    registry.create_all()
    top = Node()
    middle = Node(parent=top)
    Node.objects.bulk_create([top, middle, Node(parent=middle)], batch_size=batch_size)
    assert Node.objects.filter(Node.parent.parent.id == top.id).count() == 1
