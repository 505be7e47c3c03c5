"""The constructor of a model: what it takes, what it refuses, and whom it tells."""

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func

from microorm import Databases, Field, Model, Registry, field
from microorm.mapping.constructor import create_instance
from microorm.signals import post_init, pre_init


@pytest.fixture
def databases() -> Iterator[Databases]:
    """One memory database: no statement of these tests depends on its kind."""
    with Databases("sqlite://") as databases:
        yield databases


@pytest.fixture
def Book(Base) -> type[Model]:
    counter = itertools.count(1)

    class Book(Base):
        title: Field[str]
        pages: Field[int]
        price: Field[int] = field(default=5)
        tags: Field[list[Any]] = field(default_factory=list)
        number: Field[int] = field(default_factory=lambda: next(counter))
        note: Field[str | None] = field(default=None)
        fixed: Field[str] = field(default="x", init=False)
        made: Field[list[Any]] = field(default_factory=list, init=False)
        later: Field[str | None] = field(init=False)
        added: Field[int] = field(server_default="7")
        touched: Field[int] = field(on_update=lambda: 1)
        both: Field[int] = field(default=2, on_update=lambda: 3)

    return Book


@pytest.fixture
def listen() -> Iterator[Any]:
    """Connects a receiver for the time of the test."""
    connected = []

    def listen(signal, receiver, **options):
        signal.connect(receiver, **options)
        connected.append((signal, receiver, options.get("sender")))
        return receiver

    yield listen
    for signal, receiver, sender in connected:
        signal.disconnect(receiver, sender)


@pytest.fixture(params=["generated", "told"])
def either_way(request, listen) -> str:
    """The fast way, and the careful way that tells a listener: both are to do the same."""
    if request.param == "told":

        def hear(sender, **kwargs):
            pass

        listen(post_init, hear)
    return request.param


def test_what_is_given_is_set_and_the_rest_has_its_default(Book, either_way) -> None:
    book = Book(title="t", pages=3)
    assert vars(book) == {
        "id": None,
        "title": "t",
        "pages": 3,
        "price": 5,
        "tags": [],
        "number": 1,
        "note": None,
        "fixed": "x",
        "made": [],
        "both": 2,
    }
    assert list(vars(book)) == [name for name in Book.__schema__.names if name in vars(book)]
    assert (book.later, book.added, book.touched) == (None, None, None)
    given = Book(title="t", pages=3, price=1, tags=["x"], number=9, note="n", both=8)
    assert [given.price, given.tags, given.number, given.note, given.both] == [1, ["x"], 9, "n", 8]
    assert Book(title="t", pages=3).number == 2  # the factory of 9 was not called
    assert (book._state.adding, book._state.db) == (True, None)


def test_its_signature_is_what_it_takes(Base, Book) -> None:
    class Paper(Base):
        title: Field[str]
        shelf: Field[str | None] = field(default=None)
        tags: Field[list[Any]] = field(default_factory=list)

    told = [(p.name, p.default, p.annotation) for p in inspect.signature(Paper).parameters.values()]
    assert told == [
        ("id", None, int | None),
        ("title", inspect.Parameter.empty, str),
        ("shelf", None, str | None),
        ("tags", ..., list[Any]),
    ]
    assert {p.kind for p in inspect.signature(Paper).parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert list(inspect.signature(Book).parameters) == [f.name for f in Book.__schema__.fields if f.init]


def test_the_implicit_key_may_be_given(Base, either_way) -> None:
    """A row whose key is known, such as one from elsewhere, is made like any other."""

    class Node(Base):
        name: Field[str]

    assert (Node(name="a").id, Node(id=None, name="b").id, Node(id=50, name="c").id) == (None, None, 50)
    Node.__schema__.registry.create_all()
    node = Node(id=50, name="c").save()
    assert Node.objects.get(id=50) == node
    assert Node(name="d").save().id == 51
    with pytest.raises(TypeError, match=r"^Node\(\) has no argument 'idd'; nearest: 'id'$"):
        Node(idd=50, name="c")


def test_a_factory_is_called_for_each_instance(Book, either_way) -> None:
    one, two = Book(title="a", pages=1), Book(title="b", pages=1)
    assert one.tags is not two.tags
    assert one.made is not two.made
    assert (one.number, two.number) == (1, 2)


WRONG = [
    ((), {}, "Book() is missing 'title', 'pages'"),
    ((), {"pages": 1}, "Book() is missing 'title'"),
    ((), {"title": "t", "pages": 1, "pagse": 2}, "Book() has no argument 'pagse'; nearest: 'pages'"),
    ((), {"title": "t", "pages": 1, "zzzzz": 2}, "Book() has no argument 'zzzzz'"),
    ((), {"pagse": 2}, "Book() has no argument 'pagse'; nearest: 'pages'"),
    (("t",), {}, "Book() takes keyword arguments only, but 1 positional were given"),
    (("t", 1), {"zzz": 1}, "Book() takes keyword arguments only, but 2 positional were given"),
    *(
        ((), {"title": "t", "pages": 1, name: 1}, f"Book() has no argument {name!r}")
        for name in ("fixed", "made", "added", "touched", "_row", "_row_state")
    ),
]


@pytest.mark.parametrize(("args", "kwargs", "message"), WRONG)
def test_a_wrong_argument_is_a_type_error(Book, either_way, args, kwargs, message) -> None:
    with pytest.raises(TypeError) as caught:
        Book(*args, **kwargs)
    assert str(caught.value).split(";")[0] == message.split(";")[0]
    if "nearest" in message:
        assert str(caught.value) == message
    assert type(caught.value) is TypeError


AWKWARD = [
    "self",
    "cls",
    "new",
    "missing",
    "schema",
    "args",
    "kwargs",
    "pre_init",
    "post_init",
    "values",
    "row",
]
AWKWARD += [
    "rows",
    "origin",
    "instance",
    "given",
    "unknown",
    "passed",
    "careful",
    "instances",
    "append",
    "deepcopy",
]
AWKWARD += [
    "object",
    "type",
    "list",
    "p0",
    "v0",
    "v1",
    "d0",
    "c0",
    "f0",
    "match",
    "case",
    "sender",
    "signal",
    "café",
]


def test_a_field_may_be_called_as_anything_that_microorm_itself_uses(Base, registry, listen) -> None:
    body: dict[str, Any] = {"__annotations__": dict.fromkeys(AWKWARD, Field[int])}
    body["given"] = field(default=4)
    body["args"] = field(default_factory=lambda: 5)
    Odd = type(Base)("Odd", (Base,), {"__module__": "shop.models", **body})
    registry.create_all()
    numbers = {name: number for number, name in enumerate(AWKWARD)}
    odd = Odd(**numbers)
    assert vars(odd) == {"id": None, **numbers}
    listen(pre_init, heard := Heard())
    assert vars(Odd(**numbers)) == vars(odd)
    assert heard.told[-1]["kwargs"] == numbers
    with pytest.raises(TypeError, match=r"^Odd\(\) is missing 'self', 'cls', "):
        Odd()
    odd.save()
    assert vars(Odd.objects.get(id=odd.id)) == vars(odd)


class Heard:
    """A receiver that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def __call__(self, **kwargs: Any) -> None:
        self.told.append(kwargs)


def test_pre_init_gets_the_live_keywords_before_anything_is_checked(Book, listen) -> None:
    """What the receiver changes is what the constructor takes."""
    seen = []

    def mend(sender, args, kwargs, **rest):
        seen.append((sender, args, dict(kwargs), set(rest)))
        kwargs["pages"] = int(kwargs.pop("sheets")) * 2
        kwargs["price"] = 1

    listen(pre_init, mend, sender=Book)
    book = Book(title="t", sheets="4")
    assert (book.pages, book.price) == (8, 1)
    assert seen == [(Book, (), {"title": "t", "sheets": "4"}, {"signal"})]
    with pytest.raises(
        TypeError, match=r"^Book\(\) takes keyword arguments only, but 1 positional were given"
    ):
        Book("t", sheets=1)
    assert seen[-1] == (Book, ("t",), {"sheets": 1}, {"signal"})


def test_pre_init_may_take_a_keyword_away_or_add_a_wrong_one(Book, listen) -> None:
    """The check comes after the receiver."""

    def edit(kwargs, **rest):
        kwargs.update(kwargs.pop("note"))
        kwargs.pop("gone", None)

    listen(pre_init, edit, sender=Book)
    assert Book(title="t", pages=1, gone=2, note={}).note is None
    with pytest.raises(TypeError, match=r"^Book\(\) has no argument 'zzzzz'$"):
        Book(title="t", pages=1, note={"zzzzz": 1})


def test_post_init_gets_exactly_the_instance_when_it_is_complete(Book, listen) -> None:
    """Signal, sender, instance; there is no `using`."""
    seen = []

    def look(**kwargs):
        instance = kwargs["instance"]
        seen.append((kwargs, dict(vars(instance)), instance._state.adding, instance._state.db))

    listen(post_init, look, sender=Book)
    book = Book(title="t", pages=1)
    assert seen == [({"signal": post_init, "sender": Book, "instance": book}, vars(book), True, None)]
    assert seen[0][0]["instance"] is book
    with pytest.raises(TypeError):
        Book(title="t")
    assert len(seen) == 1


def test_a_receiver_that_fails_stops_the_constructor(Book, listen) -> None:

    def stop(**kwargs):
        raise OSError("stopped")

    told = Heard()
    listen(pre_init, stop, sender=Book)
    listen(post_init, told, sender=Book)
    with pytest.raises(OSError, match="^stopped$"):
        Book(title="t", pages=1)
    assert told.told == []


def test_listeners_of_another_model_are_not_told(Base, Book, listen) -> None:
    class Author(Base):
        name: Field[str]

    before, after = Heard(), Heard()
    listen(pre_init, before, sender=Author)
    listen(post_init, after, sender=Author)
    Book(title="t", pages=1)
    assert before.told == after.told == []
    author = Author(name="x")
    assert before.told == [{"signal": pre_init, "sender": Author, "args": (), "kwargs": {"name": "x"}}]
    assert [told["instance"] for told in after.told] == [author]


@pytest.mark.parametrize("late", [False, True])
def test_a_constructor_of_ones_own_calls_the_next(Base, late) -> None:
    """`super().__init__(**kwargs)`, in the model, or in an abstract base, also while a name is missing."""

    class Titled(Base, abstract=True):
        title: Field[str]

        def __init__(self, **kwargs: Any) -> None:
            kwargs.setdefault("title", "untitled")
            super().__init__(**kwargs)

    class Book(Titled):
        pages: Field["Count"] if late else Field[int]

        def __init__(self, half: int, /, **kwargs: Any) -> None:
            super().__init__(pages=half * 2, **kwargs)
            self.seen = True

    class Paper(Titled):
        pass

    Count = int
    book = Book(Count(4))
    assert (book.title, book.pages, book.seen) == ("untitled", 8, True)
    assert Book(4, title="t").title == "t"
    assert Paper().title == "untitled"
    with pytest.raises(TypeError, match=r"^Book\(\) has no argument 'zzzzz'$"):
        Book(4, zzzzz=1)


def test_an_abstract_model_has_no_instances(Base) -> None:
    class Titled(Base, abstract=True):
        title: Field[str]

    for model in (Model, Base, Titled):
        with pytest.raises(TypeError) as caught:
            model(title="t")
        assert str(caught.value) == f"{model.__name__} is abstract and has no instances"


def test_create_takes_the_key_and_whatever_else_the_constructor_does_not(Book, registry) -> None:
    registry.create_all()
    book = Book.objects.create(id=5, title="t", pages=1, fixed="y", added=3)
    assert (book.id, book.fixed, book.added) == (5, "y", 3)
    assert Book.objects.get(id=5).added == 3
    with pytest.raises(TypeError, match=r"^Book\(\) has no argument 'pagse'; nearest: 'pages'$"):
        Book.objects.create(id=6, title="t", pagse=1)
    with pytest.raises(TypeError, match=r"^Book\(\) is missing 'pages'$"):
        Book.objects.create(id=6, title="t")
    given = {"id": 7, "title": "t", "pages": 1}
    assert create_instance(Book.__schema__, given).id == 7


def test_a_default_may_be_an_expression(Base, registry) -> None:
    class Book(Base):
        title: Field[str] = field(default=func.lower("ABC"))

    registry.create_all()
    assert Book().save().title == "abc"


def test_the_generated_source_holds_nothing_but_names(Book, Base) -> None:
    """Values enter by the namespace; no text of the user's becomes code."""

    class Trap(Base):
        note: Field[str] = field(default="'); raise SystemExit(('", column="x'); raise SystemExit(('")

    source = Trap.__init__.__source__
    assert "SystemExit" not in source
    assert Trap().note == "'); raise SystemExit(('"
    assert source.splitlines()[0] == "def __init__(_self, /, *_args, id=_missing, note=_missing, **_unknown):"
    assert Book.__init__.__source__.count("\n") > 3


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "x"]), st.integers(), max_size=6))
def test_the_generated_way_and_the_careful_way_agree(kwargs) -> None:
    """For any keywords both give the same instance, or the same error."""

    def outcome() -> object:
        try:
            return vars(Plain(**kwargs))
        except TypeError as error:
            return str(error)

    def hear(**told):
        pass

    fast = outcome()
    post_init.connect(hear)
    try:
        careful = outcome()
    finally:
        post_init.disconnect(hear)
    assert fast == careful
    wrong = [name for name in kwargs if name not in "abcd"]
    lacking = [name for name in "ab" if name not in kwargs]
    if wrong:
        assert str(fast).startswith(f"Plain() has no argument {wrong[0]!r}")
    elif lacking:
        assert fast == f"Plain() is missing {', '.join(map(repr, lacking))}"
    else:
        assert fast == {"id": None, "c": 3, "d": 4, "e": 5} | kwargs


def plain() -> Any:
    databases = Databases("sqlite://")

    class Plain(Model, registry=Registry(databases)):
        a: Field[int]
        b: Field[int]
        c: Field[int] = field(default=3)
        d: Field[int] = field(default_factory=lambda: 4)
        e: Field[int] = field(default=5, init=False)

    return Plain


Plain = plain()
