"""What an instance knows of its row: `_state`, `changed_fields`, `changes()`, and what copies keep of it."""

import copy
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ARRAY, Integer, bindparam

from microorm import Databases, Field, Model, field
from microorm.fields.field import MISSING
from microorm.mapping.state import RowLayout, RowState, State, changes, loaded_value
from microorm.signals import post_save


@pytest.fixture
def databases() -> Iterator[Databases]:
    """Two memory databases: no statement of these tests depends on their kind."""
    with Databases({"default": "sqlite://", "other": "sqlite://"}) as databases:
        yield databases


@pytest.fixture
def Book(Base, registry) -> type[Model]:
    class Book(Base):
        title: Field[str]
        pages: Field[int] = field(default=1)
        tags: Field[dict[str, Any]] = field(default_factory=dict)
        read: Field[datetime | None] = field(default=None)

    registry.create_all()
    return Book


@pytest.fixture
def book(Book) -> Model:
    """An instance that was loaded."""
    Book(title="t", pages=3, tags={"a": [1, {"b": 2}]}).save()
    return Book.objects.get(title="t")


def test_state_says_whether_and_where_the_row_is(Book, book) -> None:
    new = Book(title="n")
    assert (new._state.adding, new._state.db) == (True, None)
    assert repr(new._state) == "<State adding=True db=None>"
    assert (book._state.adding, book._state.db) == (False, "default")
    assert repr(book._state) == "<State adding=False db='default'>"
    new.save()
    assert (new._state.adding, new._state.db) == (False, "default")


def test_state_can_be_set_for_one_instance_alone(Book) -> None:
    """The rows of one load share their state, and must not share what is set afterwards."""
    Book.objects.bulk_create([Book(title=letter) for letter in "ab"])
    one, two = Book.objects.order_by(Book.id).all()
    one._state.adding = True
    assert (one._state.adding, two._state.adding) == (True, False)
    assert one.changes() == {}
    one._state.db = "other"
    assert (one._state.db, two._state.db) == ("other", "default")
    assert (one._state.adding, one.changes()) == (True, {})
    fresh = Book(title="x")
    fresh._state.adding = False
    assert Book(title="y")._state.adding is True
    with pytest.raises(AttributeError):
        fresh._state.other = 1


def test_of_a_new_instance_all_values_count_as_changed(Book) -> None:
    new = Book(title="n")
    assert new.changed_fields == frozenset({"id", "title", "pages", "tags", "read"})
    assert isinstance(new.changed_fields, frozenset)
    assert new.changes()["title"] == (None, "n")
    assert list(new.changes()) == list(Book.__schema__.names)


def test_what_was_loaded_or_saved_is_what_changes_compare_with(Book, book) -> None:
    assert (book.changed_fields, book.changes()) == (frozenset(), {})
    book.title, book.pages = "u", 4
    assert book.changed_fields == {"title", "pages"}
    assert book.changes() == {"title": ("t", "u"), "pages": (3, 4)}
    book.pages = 3
    assert book.changes() == {"title": ("t", "u")}
    book.save(update_fields=["pages"])
    assert book.changes() == {"title": ("t", "u")}
    book.pages = 9
    book.save(update_fields=["title"])
    assert book.changes() == {"pages": (3, 9)}
    book.save()
    assert book.changes() == {}
    new = Book(title="n").save()
    assert new.changes() == {}
    new.read = datetime(2020, 1, 1, tzinfo=UTC)
    assert new.changes() == {"read": (None, datetime(2020, 1, 1, tzinfo=UTC))}


@pytest.mark.parametrize("how", ["loaded", "saved", "found anew by fields"])
def test_changes_inside_a_json_value_are_noticed(Book, book, how) -> None:
    if how == "saved":
        book = Book(title="s", tags={"a": [1, {"b": 2}]}).save()
    elif how == "found anew by fields":
        book = Book.objects.filter(Book.pages == 3).all()[0]
    book.tags["a"][1]["b"] = 3
    assert book.changes() == {"tags": ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})}
    book.save(update_fields=book.changed_fields)
    assert book.changes() == {}
    assert Book.objects.get(id=book.id).tags == {"a": [1, {"b": 3}]}
    book.tags["a"].append(0)
    assert book.changed_fields == {"tags"}


@pytest.mark.parametrize("other", [True, 1.0, "1", [1], None])
def test_json_values_that_python_calls_equal_are_still_changes(Book, other) -> None:
    book = Book(title="t", tags={"a": [1]}).save()
    book.tags["a"][0] = other
    assert book.changed_fields == {"tags"}
    book.tags = {"a": [1]}
    assert book.changed_fields == frozenset()


def test_an_expression_counts_as_changed(Book, book) -> None:
    book.pages = Book.pages + 1
    book.title = Book.title
    assert book.changed_fields == {"pages", "title"}
    assert book.changes()["pages"][0] == 3
    book.save(update_fields=["pages"])
    assert book.pages == 4
    assert book.changed_fields == {"title"}


def test_one_moment_in_two_zones_is_no_change(Book, book) -> None:
    """Also where a clock is set back, and Python calls every moment unequal to itself elsewhere."""
    paris = ZoneInfo("Europe/Paris")
    moment = datetime(2024, 10, 27, 2, 30, tzinfo=paris)
    book.read = moment
    book.save()
    again = Book.objects.get(id=book.id)
    again.read = moment
    assert again.changed_fields == frozenset()
    again.read = moment.replace(fold=1)
    assert again.changed_fields == {"read"}
    again.read = datetime(2024, 10, 27, 0, 30)  # noqa: DTZ001 that it has no zone is the change
    assert again.changed_fields == {"read"}


class Odd:
    """A value whose comparison is no truth value."""

    def __ne__(self, other: object) -> Any:
        raise ValueError("several truths")

    __hash__ = None


def instance(names: tuple[str, ...], row: tuple[Any, ...] | None, values: dict[str, Any]) -> Any:
    """Something with the three things that changes are read from."""
    layout = RowLayout(names)
    return type("Thing", (), {"_row_state": RowState("default", layout), "_row": row, **values})()


def test_what_cannot_be_compared_counts_as_changed_unless_it_is_the_same() -> None:
    odd = Odd()
    thing = instance(("a", "b"), (odd, odd), {})
    thing.__dict__.update(a=odd, b=Odd())
    assert changes(thing, ("a", "b")).keys() == {"b"}


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
)
def test_changes_are_what_a_slow_comparison_finds(loaded, present) -> None:
    thing = instance(tuple(loaded), tuple(loaded.values()), {})
    thing.__dict__.update(present)
    expected = {}
    for name in {*loaded, *present}:
        if name not in loaded or name not in present or loaded[name] != present[name]:
            expected[name] = (loaded.get(name), present.get(name))
    assert changes(thing, tuple("abcd")) == expected


def test_a_layout_reads_a_row_by_name() -> None:
    layout = RowLayout(("a", "b"), (None, int))
    assert (layout.value(("x", "7"), "a"), layout.value(("x", "7"), "b")) == ("x", 7)
    assert layout.value(("x", "7"), "c") is MISSING
    assert RowLayout(("a",), (None,)).decoders is None
    assert loaded_value(instance(("a",), None, {}), "a") is MISSING


def test_lists_that_are_no_documents_are_compared_too(Base) -> None:
    class Book(Base):
        sizes: Field[list[int]] = field(type_=ARRAY(Integer))

    thing = Book(sizes=[1, 2])
    thing._row_state, thing._row = RowState("default", Book.__schema__.layout), (None, [1, 2])
    assert thing.changes() == {}
    thing.sizes.append(3)
    assert thing.changes() == {"sizes": ([1, 2], [1, 2, 3])}


MODELS = '''
"""Models that another process can import."""
from datetime import datetime
from typing import Any
from microorm import Databases, Field, Model, Registry, field

registry = Registry(Databases({"default": "sqlite://", "other": "sqlite://"}))

class Base(Model, registry=registry, abstract=True):
    pass

class Book(Base):
    title: Field[str]
    pages: Field[int] = field(default=1)
    tags: Field[dict[str, Any]] = field(default_factory=dict)
    read: Field[datetime | None] = field(default=None)

class Late(Base):
    size: Field["Size"]

    def __init__(self, size):
        super().__init__(size=size)

Size = int
'''

OTHER_PROCESS = """
import pickle, sys
for _ in range(2):
    book, late = pickle.load(sys.stdin.buffer)
    print(book._state, book.changes(), book.tags, book.pk, late._state, late.size, sorted(late.changed_fields))
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of models, on the path of this process and of those it starts."""
    (tmp_path / "library.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import library  # noqa: PLC0415 - it is there now

    library.registry.create_all()
    yield library
    library.registry.databases.close()
    del sys.modules["library"]


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
WAYS = [copy.copy, copy.deepcopy, *PROTOCOLS]


def twin_of(way: Any, thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing, way)) if isinstance(way, int) else way(thing)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_keeps_values_state_and_what_was_loaded(library, way) -> None:
    library.Book(title="t", pages=3, tags={"a": [1]}, read=datetime(2020, 1, 1, tzinfo=UTC)).save()
    book = library.Book.objects.get(title="t")
    book.pages = 4
    twin = twin_of(way, book)
    assert type(twin) is library.Book
    assert twin is not book
    assert twin == book
    assert vars(twin) == vars(book)
    assert (twin._state.adding, twin._state.db) == (False, "default")
    assert twin.changes() == {"pages": (3, 4)}
    twin.title = "u"
    assert (book.title, book.changed_fields) == ("t", {"pages"})
    twin._state.db = "other"
    assert book._state.db == "default"
    if way is not copy.copy:
        twin.tags["a"].append(2)
        assert twin.changes()["tags"] == ({"a": [1]}, {"a": [1, 2]})
        assert (book.tags, book.changed_fields) == ({"a": [1]}, {"pages"})
    twin._state.db = "default"
    twin.save()
    assert library.Book.objects.get(id=book.id).title == "u"


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_new_instance_is_new(library, way) -> None:
    new = library.Book(title="n", tags={"a": 1})
    twin = twin_of(way, new)
    assert (twin._state.adding, twin._state.db, twin.pk) == (True, None, None)
    assert twin.changes() == new.changes()
    twin.save()
    assert (new.pk, new._state.adding, twin.pk) == (None, True, 1)
    with pytest.raises(TypeError):
        hash(new)


def test_a_deep_copy_of_a_structure_keeps_its_shape(Book, book) -> None:
    one, _, again = copy.deepcopy([book, Book(title="x"), book])
    assert one is again
    assert one == book
    assert one is not book
    book.tags["self"] = book
    twin = copy.deepcopy(book)
    assert twin.tags["self"] is twin


@pytest.mark.parametrize("way", [copy.deepcopy, *PROTOCOLS])
def test_a_copy_saves_the_expression_that_the_original_holds(library, way) -> None:
    book = library.Book(title="t", pages=3).save()
    book.pages = library.Book.pages + 1
    twin = twin_of(way, book)
    assert twin.save().pages == 4
    assert book.save().pages == 5


def test_an_expression_that_cannot_be_pickled_is_refused(library) -> None:
    book = library.Book(title="t").save()
    book.pages = bindparam("n", lambda: 3, type_=Integer())
    with pytest.raises(
        pickle.PicklingError, match=r"^Book\.pages is an SQL expression that cannot be pickled: "
    ):
        pickle.dumps(book)


def older(data: bytes, *without: str) -> Any:
    """Load *data* as if the fields *without* had been added to the model since it was made."""
    state = pickle.loads(data).__getstate__()
    for part in (state["values"], state["loaded"] or {}):
        for name in without:
            part.pop(name, None)
    made: Any = object.__new__(type(pickle.loads(data)))
    made.__setstate__(state)
    return made


def test_a_field_that_an_older_pickle_lacks_is_not_loaded(library) -> None:
    """It is read from the row, and no save of another field overwrites it."""
    book = library.Book(title="t", pages=3).save()
    again = older(pickle.dumps(book), "pages", "read")
    again.title = "u"
    again.save()
    assert library.Book.objects.get(id=book.id).pages == 3
    assert "pages" not in vars(again)
    assert (again.pages, again.read, again.changes()) == (3, None, {})


def test_a_new_instance_gets_the_default_that_its_pickle_lacks(library) -> None:
    again = older(pickle.dumps(library.Book(title="t")), "pages", "tags")
    assert (again.pages, again.tags, again._state.adding) == (1, {}, True)


def test_a_field_that_the_model_has_no_more_is_forgotten(library) -> None:
    book = library.Book(title="t").save()
    state = book.__getstate__()
    state["loaded"]["gone"] = 1
    again = object.__new__(library.Book)
    again.__setstate__(state)
    again.title = "u"
    assert again.changes() == {"title": ("t", "u")}
    again.save()
    assert library.Book.objects.get(id=book.id).title == "u"


@pytest.mark.slow
def test_an_instance_travels_to_another_process(library, tmp_path) -> None:
    """A model that waits for a name is prepared there, too; its own constructor is not called."""
    library.Book(title="t", tags={"a": [1]}).save()
    book = library.Book.objects.get(title="t")
    book.pages = 2
    both = [pickle.dumps((book, library.Late(5)), protocol) for protocol in (0, pickle.HIGHEST_PROTOCOL)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OTHER_PROCESS],
        input=b"".join(both),
        capture_output=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent.parent)])},
        timeout=250,
        check=False,
    )
    assert done.stderr.decode() == ""
    told = (
        "<State adding=False db='default'> {'pages': (1, 2)} {'a': [1]} 1 "
        "<State adding=True db=None> 5 ['id', 'size']"
    )
    assert done.stdout.decode().splitlines() == [told, told]


def test_a_copy_made_in_a_block_is_no_part_of_it(Book, databases) -> None:
    """A rollback restores the instance that was saved; its copies stay as they are."""
    book = Book(title="t")
    with pytest.raises(OSError, match="stopped"), databases.atomic():
        book.save()
        twin = copy.copy(book)
        raise OSError("stopped")
    assert (book.pk, book._state.adding) == (None, True)
    assert (twin.pk, twin._state.adding) == (1, False)


def test_the_state_is_a_view_of_its_instance(book) -> None:
    state = book._state
    assert isinstance(state, State)
    book._state.db = "other"
    assert (state.db, state.adding) == ("other", False)
    state.adding = True
    assert (book._state.db, book._state.adding) == ("other", True)


def test_float_changes_are_exact(Base, registry) -> None:
    class Point(Base):
        x: Field[float]

    registry.create_all()
    point = Point(x=0.1).save()
    point.x = 0.1 + 1e-18
    assert point.changed_fields == frozenset()
    point.x = math.nextafter(0.1, 1)
    assert point.changed_fields == {"x"}


def test_a_value_that_is_neither_there_nor_loaded_is_no_change(Base, registry) -> None:
    """What the database will make is not there yet."""

    class Book(Base):
        title: Field[str]
        added: Field[int] = field(server_default="7")

    registry.create_all()
    book = Book(title="t")
    assert book.changed_fields == {"id", "title"}
    book.save()
    assert (book.added, book.changed_fields) == (7, frozenset())
    book.added = 8
    assert book.changes() == {"added": (7, 8)}


def test_while_receivers_are_told_changes_are_those_of_the_save(Base, registry, databases) -> None:
    """Inside `post_save`, too; what a receiver keeps a copy of, knows them still."""

    class Book(Base):
        title: Field[str]

    registry.create_all()
    kept: list[Any] = []

    def hear(instance, **kwargs):
        assert instance.changes() == {"title": ("t", "u")}
        instance._state.db = "default"
        kept.extend([copy.copy(instance), copy.deepcopy(instance)])
        assert instance.changes() == {"title": ("t", "u")}

    book = Book(title="t").save()
    post_save.connect(hear, sender=Book)
    try:
        book.title = "u"
        book.save()
    finally:
        post_save.disconnect(hear, Book)
    assert book.changes() == {}
    assert [each.changes() for each in kept] == [{"title": ("t", "u")}] * 2
