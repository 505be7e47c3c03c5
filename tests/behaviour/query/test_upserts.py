"""Many rows of which some are there: left alone, or updated."""

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Index, String, UniqueConstraint, func, literal
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import Field, FieldError, ForeignKey, InvalidValue, Model, TransactionError, field, foreign_key
from microorm.mapping.unique import unique_sets
from microorm.signals import post_bulk_create, post_save, pre_bulk_create, pre_save

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def Event(Base, registry):
    """A model with a made key, one unique field, and values that the database makes."""

    class Event(Base):
        name: Field[str] = field(max_length=9, unique=True)
        price: Field[Decimal] = field(default=Decimal(0), max_digits=8, decimal_places=2)
        note: Field[str | None] = field(default=None, max_length=9)
        tags: Field[list[str]] = field(default_factory=list)
        rank: Field[int] = field(server_default="7")
        stamp: Field[int] = field(on_update=lambda: 5)

    registry.create_all("default")
    return Event


def state(instance: Any) -> tuple[Any, ...]:
    """What a rollback, or an ignored row, leaves as it was."""
    return dict(vars(instance)), instance._state.adding, instance._state.db


@pytest.mark.parametrize("size", [None, 1, 2])
def test_rows_that_are_there_are_left_alone(Event, stored, size):
    """`ignore`. Nobody knows which rows were inserted, so no object says that it was."""
    Event(name="b", price=Decimal(1)).save()
    events = [Event(name=name, price=Decimal(9)) for name in "abcb"]
    before = [state(event) for event in events]
    assert Event.objects.bulk_create(events, on_conflict="ignore", batch_size=size) == events
    assert sorted(stored(Event, "name", "price", "rank", "stamp")) == [
        ("a", Decimal(9), 7, 5),
        ("b", Decimal(1), 7, 5),
        ("c", Decimal(9), 7, 5),
    ]
    assert [state(event) for event in events] == before


def test_rows_that_are_there_take_the_values(Event, wire, stored):
    """`update` by the one unique field; the key is that of the row, in the order of the objects."""
    old = [Event(name="b", note="old").save(), Event(name="d", note="old").save()]
    old[0].rank = 1
    old[0].save()
    events = [Event(name=name, price=Decimal(9), tags=[name]) for name in "dcba"]
    with wire.record() as sent:
        assert Event.objects.bulk_create(events, on_conflict="update") == events
    assert [each.split()[0] for each in sent] in (
        ["INSERT", "SELECT"],
        ["many", "SELECT"],
        ["many", "INSERT", "SELECT"],
    )
    rows = {row[1]: row for row in stored(Event, "id", "name", "price", "note", "tags", "rank", "stamp")}
    assert rows["b"] == (old[0].id, "b", Decimal(9), None, ["b"], 1, 5)
    assert rows["d"][:2] == (old[1].id, "d")
    assert [(event.id, event.name, event.rank) for event in events] == [
        (rows[name][0], name, rows[name][5]) for name in "dcba"
    ]
    for event in events:
        assert (event.changes(), event._state.adding, event._state.db) == ({}, False, "default")
    events[0].tags.append("more")
    assert events[0].changed_fields == {"tags"}
    assert events[0].save().id == old[1].id
    assert len(rows) == 4


def test_the_fields_to_update_can_be_named(Event, stored):
    """By name or column; what is not updated is read back, so that no later save undoes it."""
    Event(name="b", price=Decimal(1), note="old", tags=["old"]).save()
    events = [Event(name=name, price=Decimal(9), note="new", tags=["new"]) for name in "ab"]
    Event.objects.bulk_create(
        events, on_conflict="update", unique_fields=[Event.name], update_fields=["price", Event.tags]
    )
    assert sorted(stored(Event, "name", "price", "note", "tags")) == [
        ("a", Decimal(9), "new", ["new"]),
        ("b", Decimal(9), "old", ["new"]),
    ]
    assert [(event.note, event.changes()) for event in events] == [("new", {}), ("old", {})]


def test_what_the_database_makes_is_left_in_a_row_that_is_there_unless_it_is_named(Event, stored):
    """A value that the object does not have changes nothing; a field that is named is as a new row's."""
    first = Event(name="a")
    first.rank = 1
    first.save()
    Event.objects.bulk_create([Event(name="a")], on_conflict="update")
    assert stored(Event, "rank") == [1]
    Event.objects.bulk_create([Event(name="a")], on_conflict="update", update_fields=["rank"])
    assert stored(Event, "rank") == [7]


def test_a_key_that_was_set_by_hand_is_what_conflicts(Base, registry, stored):
    """Natural, composite and UUID keys; objects without a key are inserted."""

    class Land(Base):
        code: Field[str] = field(primary_key=True, max_length=2)
        name: Field[str] = field(max_length=9)

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)
        note: Field[str] = field(default="", max_length=9)

    class Token(Model[UUID], registry=registry):
        note: Field[str] = field(default="", max_length=9)

    class Number(Base):
        note: Field[str] = field(default="", max_length=9)

    registry.create_all("default")
    Land(code="cl", name="?").save()
    Land.objects.bulk_create(
        [Land(code="cl", name="Chile"), Land(code="pe", name="Peru")], on_conflict="update"
    )
    assert stored(Land) == [("cl", "Chile"), ("pe", "Peru")]
    Pair(left=1, right=2).save()
    pairs = [Pair(left=1, right=number, note="new") for number in (3, 2)]
    Pair.objects.bulk_create(pairs, on_conflict="update", unique_fields=["right", "left"])
    assert stored(Pair) == [(1, 2, "new"), (1, 3, "new")]
    token = Token().save()
    again = Token(note="new")
    again.id = token.id
    Token.objects.bulk_create([again, Token()], on_conflict="update")
    assert sorted(stored(Token, "note")) == ["", "new"]
    number = Number().save()
    numbers = [Number(note="made"), Number(note="changed"), Number(note="set")]
    numbers[1].id, numbers[2].id = number.id, number.id + 100
    Number.objects.bulk_create(numbers, on_conflict="update")
    assert sorted(stored(Number)) == sorted((each.id, each.note) for each in numbers)
    assert [each._state.adding for each in numbers] == [False] * 3
    Number.objects.bulk_create([Number(note="made"), numbers[1]], on_conflict="ignore", unique_fields=["id"])
    assert sorted(stored(Number, "note")) == ["changed", "made", "made", "set"]


def test_fields_that_are_unique_together(Base, registry, stored):
    """Of a constraint or of an index; NULL is no value, and meets none."""

    class Seat(Base, table_args=(UniqueConstraint("row", "place"),)):
        row: Field[int]
        place: Field[int | None] = field(default=None)
        name: Field[str] = field(max_length=9)

    registry.create_all("default")
    Seat(row=1, place=1, name="old").save()
    Seat(row=1, name="old").save()
    seats = [Seat(row=1, place=place, name="new") for place in (1, 2, None)]
    Seat.objects.bulk_create(seats, on_conflict="update")
    assert sorted(stored(Seat, "row", "name")) == [(1, "new")] * 3 + [(1, "old")]
    assert sorted(stored(Seat, "id", "name"))[2:] == sorted((seat.id, "new") for seat in seats[1:])
    assert seats[0].id == stored(Seat, "id")[0]


@pytest.mark.parametrize("on_conflict", ["ignore", "update"])
def test_another_unique_value_that_is_taken_is_an_error(Base, registry, stored, on_conflict, databases):
    """On MariaDB, too, which knows no target; nothing was written, and a block is doomed."""

    class Person(Base):
        name: Field[str] = field(max_length=9, unique=True)
        mail: Field[str] = field(max_length=9, unique=True)
        age: Field[int] = field(default=0)

    registry.create_all("default")
    Person(name="a", mail="a@").save()
    people = [Person(name="c", mail="c@"), Person(name="b", mail="a@", age=3)]
    before = [state(person) for person in people]
    for size in (None, 1):
        with pytest.raises(IntegrityError):
            Person.objects.bulk_create(
                people, on_conflict=on_conflict, unique_fields=["name"], batch_size=size
            )
        with pytest.raises(TransactionError), databases.atomic(), pytest.raises(IntegrityError):
            Person.objects.bulk_create(people, on_conflict=on_conflict, unique_fields=["name"])
        assert [state(person) for person in people] == before
        odd = Person(name="b", mail="a@", age=literal(1) + 2)
        with pytest.raises(IntegrityError):
            Person.objects.bulk_create([odd], on_conflict=on_conflict, unique_fields=["name"])
    assert stored(Person, "name", "age") == [("a", 0)]
    Person.objects.bulk_create(people, on_conflict=on_conflict, unique_fields=["mail"])
    assert sorted(stored(Person, "name", "age")) == [
        ("a", 0 if on_conflict == "ignore" else 3),
        ("c", 0),
    ] or (sorted(stored(Person, "name", "age")) == [("b", 3), ("c", 0)])


def test_whatever_is_unique_is_ignored_unless_it_is_named(Base, registry, stored):
    """And no other error is hidden."""

    class Person(Base):
        name: Field[str] = field(max_length=9, unique=True)
        mail: Field[str] = field(max_length=9, unique=True)
        age: Field[int] = field(default=0)

    registry.create_all("default")
    Person(name="a", mail="a@").save()
    people = [Person(name="a", mail="b@"), Person(name="b", mail="a@"), Person(name="c", mail="c@")]
    Person.objects.bulk_create(people, on_conflict="ignore")
    assert stored(Person, "name") == ["a", "c"]
    with pytest.raises(DBAPIError):
        Person.objects.bulk_create([Person(name="d", mail=literal(None, String()))], on_conflict="ignore")
    assert stored(Person, "name") == ["a", "c"]


def test_a_model_of_nothing_but_what_is_unique(Base, registry, stored):
    """There is nothing to update, and the keys are known all the same."""

    class Tag(Base):
        name: Field[str] = field(max_length=9, unique=True)

    registry.create_all("default")
    old = Tag(name="b").save()
    tags = [Tag(name=name) for name in "abc"]
    Tag.objects.bulk_create(tags, on_conflict="update")
    assert tags[1].id == old.id
    assert sorted(stored(Tag)) == sorted((tag.id, tag.name) for tag in tags)


def test_no_ignored_row_tells_whether_it_was_inserted_without_a_value_either(Base, registry, stored):
    """Nor does one of NULL, which meets none; rows of nothing but a made key meet none, too."""

    class Seat(Base):
        place: Field[int | None] = field(default=None, unique=True)

    class Ticket(Base):
        pass

    registry.create_all("default")
    seats = [Seat(place=1), Seat(), Seat(place=1), Seat()]
    before = [state(seat) for seat in seats]
    Seat.objects.bulk_create(seats, on_conflict="ignore", unique_fields=["place"])
    assert [state(seat) for seat in seats] == before
    assert stored(Seat, "place").count(None) == 2
    assert stored(Seat, "place").count(1) == 1
    tickets = [Ticket(), Ticket()]
    Ticket.objects.bulk_create(tickets, on_conflict="ignore")
    assert [ticket.id for ticket in tickets] == [None, None]
    tickets[0].id = stored(Ticket)[0]
    Ticket.objects.bulk_create(tickets, on_conflict="ignore")
    assert len(stored(Ticket)) == 3


def test_expressions_go_along(Event, stored):
    """And what they came to is read back, of a row that was there, too."""
    Event(name="b").save()
    events = [Event(name="a", price=literal(2) + 1), Event(name="b", note=func.lower("NEW")), Event(name="c")]
    Event.objects.bulk_create(events, on_conflict="update")
    assert sorted(stored(Event, "name", "price", "note")) == [
        ("a", Decimal(3), None),
        ("b", Decimal(0), "new"),
        ("c", Decimal(0), None),
    ]
    assert [(event.price, event.note) for event in events] == [
        (Decimal(3), None),
        (Decimal(0), "new"),
        (Decimal(0), None),
    ]
    assert [event.changes() for event in events] == [{}] * 3
    Event.objects.bulk_create([Event(name="d", price=literal(2) + 1)], on_conflict="ignore")
    Event.objects.bulk_create([Event(name="d", price=literal(2) + 2)], on_conflict="ignore")
    assert stored(Event, "price")[-1] == Decimal(3)


def test_a_rollback_restores_the_instances(Event, undone, stored):
    """Keys, what was read back, state."""
    Event(name="b", note="old").save()
    events = [Event(name=name, note="new") for name in "ab"]
    before = [state(event) for event in events]
    with undone():
        Event.objects.bulk_create(events, on_conflict="update", update_fields=["price"])
        assert [event.note for event in events] == ["new", "old"]
    assert [state(event) for event in events] == before
    assert stored(Event, "name") == ["b"]


@pytest.mark.servers_only  # nobody else writes while a block of SQLite is open
def test_what_another_has_committed_since_the_block_began_is_found(Event, databases, stored):
    """On MariaDB a transaction reads what was there when it began; an upsert that changes nothing, too."""
    with databases.atomic():
        assert Event.objects.count() == 0
        with databases.engine("default").begin() as other:
            other.execute(Event.__table__.insert().values(name="a", price=0, tags=[], stamp=5))
        event = Event(name="a")
        Event.objects.bulk_create([event], on_conflict="update")
    assert event.id == stored(Event, "id")[0]


def test_many_rows_and_few_in_a_batch(Event, stored):
    """Each object has the key of its own row, whatever the batches."""
    Event.objects.bulk_create([Event(name=f"n{number}") for number in range(0, 300, 3)])
    events = [Event(name=f"n{number}", price=Decimal(number)) for number in range(300)]
    done: list[tuple[int, int]] = []
    Event.objects.bulk_create(
        events, on_conflict="update", batch_size=70, progress=lambda *told: done.append(told)
    )
    assert sorted(stored(Event, "id", "name", "price")) == sorted((e.id, e.name, e.price) for e in events)
    assert done == [(70, 300), (140, 300), (210, 300), (280, 300), (300, 300)]


def test_relations_are_named_as_they_are_declared(Base, registry, stored):
    """Among the unique fields and those to update, and in errors."""

    class Author(Base):
        name: Field[str] = field(max_length=9)

    class Essay(Base, table_args=(UniqueConstraint("author_id", "title"),)):
        title: Field[str] = field(max_length=9)
        author: ForeignKey[Author] = foreign_key()
        editor: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all("default")
    author, other = Author(name="a").save(), Author(name="b").save()
    Essay(title="x", author=author).save()
    essays = [Essay(title="x", author=each, editor=other) for each in (author, other)]
    Essay.objects.bulk_create(
        essays, on_conflict="update", unique_fields=["author", "title"], update_fields=[Essay.editor.id]
    )
    assert sorted(stored(Essay, "author_id", "editor_id")) == [(author.id, other.id), (other.id, other.id)]
    assert [(essay.author, essay.editor) for essay in essays] == [(author, other), (other, other)]
    with pytest.raises(
        FieldError, match=r"^Essay: \(author\) is not unique; unique: \(id\), \(author, title\)$"
    ):
        Essay.objects.bulk_create(essays, on_conflict="ignore", unique_fields=["author_id"])
    with pytest.raises(FieldError, match=r"^Essay\.author is one of the unique fields"):
        Essay.objects.bulk_create(essays, on_conflict="update", update_fields=["author"])
    twins = [Essay(title="x", author=author) for _ in range(2)]
    with pytest.raises(
        ValueError, match=r"^object 1 of bulk_create\(\) has the same author=\d+, title='x' as object 0$"
    ):
        Essay.objects.bulk_create(twins, on_conflict="update")


@MEMORY
def test_the_database_says_which_values_are_the_same(Base, registry, stored):
    """Where a type of the user's own compares otherwise than Python does, the key is found all the same."""

    class Tag(Base):
        name: Field[str] = field(type_=String(9, collation="NOCASE"), unique=True)
        count: Field[int] = field(default=0)

    registry.create_all("default")
    old = Tag(name="A").save()
    tags = [Tag(name="b", count=2), Tag(name="a", count=3)]
    Tag.objects.bulk_create(tags, on_conflict="update")
    assert stored(Tag) == [(old.id, "A", 3), (tags[0].id, "b", 2)]
    assert tags[1].id == old.id


@MEMORY
def test_the_signals_are_those_of_the_batch(Event, listen):
    """Never those of single saves, which may not have happened."""
    told = []
    for signal in (pre_bulk_create, post_bulk_create, pre_save, post_save):
        listen(signal, lambda signal, **kwargs: told.append(signal), sender=Event)
    Event.objects.bulk_create([Event(name="a")], on_conflict="ignore")
    Event.objects.bulk_create([Event(name="a")], on_conflict="update")
    assert told == [pre_bulk_create, post_bulk_create] * 2


@MEMORY
def test_two_of_the_same_unique_values_are_an_error_where_one_would_overwrite_the_other(Event, stored):
    """PostgreSQL refuses it, and the others take the last."""
    with pytest.raises(ValueError, match=r"^object 2 of bulk_create\(\) has the same name='a' as object 0$"):
        Event.objects.bulk_create(
            [Event(name="a"), Event(name="b"), Event(name="a", note="x")], on_conflict="update"
        )
    assert stored(Event) == []


@MEMORY
def test_wrong_arguments_are_errors_before_anything(Base, registry, Event, wire):
    """What contradicts itself, what is unknown, and what nobody can choose."""

    class Person(Base):
        name: Field[str] = field(max_length=9, unique=True)
        mail: Field[str] = field(max_length=9, unique=True)

    create = Event.objects.bulk_create
    event = Event(name="a")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"on_conflict": "replace"}, ValueError, "on_conflict= must be 'ignore' or 'update', not 'replace'"),
        ({"unique_fields": ["name"]}, ValueError, "unique_fields= needs on_conflict="),
        (
            {"on_conflict": "ignore", "update_fields": ["note"]},
            ValueError,
            "update_fields= needs on_conflict='update'",
        ),
        (
            {"on_conflict": "update", "update_fields": "note"},
            TypeError,
            "update_fields= must be a list of names or columns, not 'note'",
        ),
        ({"on_conflict": "update", "update_fields": []}, ValueError, "update_fields= cannot be empty"),
        ({"on_conflict": "update", "unique_fields": []}, ValueError, "unique_fields= cannot be empty"),
        (
            {"on_conflict": "update", "update_fields": ["nte"]},
            FieldError,
            "Event has no field 'nte'; nearest: 'note'",
        ),
        (
            {"on_conflict": "update", "unique_fields": ["note"]},
            FieldError,
            "Event: (note) is not unique; unique: (id), (name)",
        ),
        (
            {"on_conflict": "update", "unique_fields": ["name", "id"]},
            FieldError,
            "Event: (name, id) is not unique; unique: (id), (name)",
        ),
        (
            {"on_conflict": "update", "update_fields": ["name"]},
            FieldError,
            "Event.name is one of the unique fields, which an upsert cannot change",
        ),
        (
            {"on_conflict": "update", "update_fields": [Event.id]},
            FieldError,
            "Event.id is the primary key, which an upsert cannot change",
        ),
        ({"signals": "all"}, ValueError, "signals= must be 'batch' or 'each', not 'all'"),
        (
            {"signals": "each", "on_conflict": "ignore"},
            ValueError,
            "signals='each' cannot be combined with on_conflict=",
        ),
    ]
    with wire.everything() as sent:
        for arguments, error, message in cases:
            with pytest.raises(error) as raised:
                create([event], **arguments)
            assert (type(raised.value), str(raised.value)) == (error, message)
        with pytest.raises(ValueError) as ambiguous:
            Person.objects.bulk_create([Person(name="a", mail="b")], on_conflict="update")
    assert sent == []
    assert str(ambiguous.value) == "Person needs unique_fields=; unique: (id), (mail), (name)"
    with pytest.raises(InvalidValue, match=r"^Event\.name is a unique field, and must be a value") as unfit:
        create([event, Event(name=func.lower("A"))], on_conflict="update")
    assert unfit.value.__notes__ == ["in object 1 of bulk_create()"]
    assert event._state.adding


@MEMORY
def test_what_is_unique_in_a_model(Base, registry):
    """The key, constraints, and indexes of whole columns and all rows."""

    class Thing(
        Base,
        table_args=(
            UniqueConstraint("left", "right"),
            Index("ix_whole", "size", unique=True),
            Index("ix_plain", "colour"),
            Index("ix_lower", func.lower(literal("x")), unique=True),
        ),
    ):
        code: Field[UUID] = field(primary_key=True, default_factory=uuid4)
        left: Field[int]
        right: Field[int]
        size: Field[int]
        colour: Field[int]
        name: Field[str] = field(max_length=9, unique=True, index=True)

    Index("ix_some", Thing.__table__.c.colour, unique=True, sqlite_where=Thing.__table__.c.colour > 3)
    assert unique_sets(Thing.__schema__) == [("code",), ("left", "right"), ("name",), ("size",)]


def test_the_result_of_an_expression_in_an_upsert_fits_its_field_or_nothing_is_written(
    Base, registry, databases, stored
):
    """As in a save: SQLite would store a text that is too long."""

    class Word(Base):
        code: Field[str] = field(max_length=3, unique=True)
        text: Field[str] = field(max_length=4)

    registry.create_all()
    Word(code="a", text="old").save()
    words = [Word(code="b", text="new"), Word(code="a", text=func.lower("TOO LONG"))]
    with pytest.raises(InvalidValue if databases.database("default").is_sqlite else DBAPIError):
        Word.objects.bulk_create(words, on_conflict="update", unique_fields=["code"])
    with pytest.raises(InvalidValue if databases.database("default").is_sqlite else DBAPIError):
        Word.objects.bulk_create([Word(code="c", text=func.lower("TOO LONG"))])
    assert stored(Word, "code", "text") == [("a", "old")]
    assert [word.id for word in words] == [None, None]
