"""What is known of a receiver: whether it fits, whether it is async, where it was written."""

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from microorm.dispatch import Signal
from microorm.dispatch.receivers import NO_OPTIONS, Connection, check_receiver, connection_key, is_async


def plain(**kwargs: Any) -> None: ...


async def waiting(**kwargs: Any) -> None: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**kwargs: Any) -> Any:
        return function(**kwargs)

    return call


@wrapped
def decorated(**kwargs: Any) -> None: ...


class Shelf:
    def put(self, **kwargs: Any) -> None: ...

    async def wait(self, **kwargs: Any) -> None: ...

    @classmethod
    def make(cls, **kwargs: Any) -> None: ...

    @classmethod
    async def amake(cls, **kwargs: Any) -> None: ...

    @staticmethod
    def sort(**kwargs: Any) -> None: ...

    @functools.cache  # noqa: B019 the shelf is never freed
    def cached(self, **kwargs: Any) -> None: ...

    def __call__(self, **kwargs: Any) -> None: ...


class Waiting:
    def __init__(self, **kwargs: Any) -> None: ...

    async def __call__(self, **kwargs: Any) -> None: ...


class Decorated:
    """A decorator that works for methods, too."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    def __get__(self, instance: Any, owner: Any) -> Any:
        return functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> None: ...


class Generating:
    async def __call__(self, **kwargs: Any) -> Any:
        yield


def mark(function: Any) -> Any:
    """As asgiref does, and the standard library: by an attribute of asyncio's, or by inspect's own."""
    if hasattr(inspect, "markcoroutinefunction"):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine
    return function


def returns_a_coroutine(**kwargs: Any) -> Any:
    return waiting(**kwargs)


class Marked:
    def __init__(self) -> None:
        mark(self)

    def __call__(self, **kwargs: Any) -> Any: ...


class MarkedCall:
    @mark
    def __call__(self, **kwargs: Any) -> Any: ...


shelf = Shelf()


@pytest.mark.parametrize(
    "receiver",
    [
        waiting,
        functools.partial(waiting),
        functools.partial(functools.partial(waiting)),
        shelf.wait,
        functools.partial(shelf.wait),
        Shelf.amake,
        Waiting(),
        functools.partial(Waiting()),
        Waiting().__call__,
        mark(lambda **kwargs: waiting(**kwargs)),
        Marked(),
        functools.partial(Marked()),
        MarkedCall(),
        AsyncMock(),
    ],
)
def test_is_async(receiver: Any) -> None:
    assert is_async(receiver) is True
    signal = Signal()
    signal.connect(receiver)
    assert [each.is_async for each in signal.receivers] == [True]


@pytest.mark.parametrize(
    "receiver",
    [
        plain,
        functools.partial(plain),
        shelf.put,
        shelf,
        Waiting,
        Generating(),
        Generating().__call__,
        returns_a_coroutine,
        wrapped(waiting),
        Mock(),
        MagicMock(),
        functools.partial(Mock()),
    ],
)
def test_is_sync(receiver: Any) -> None:
    """What returns something to await without saying so is no async receiver; a class is called itself."""
    assert is_async(receiver) is False


def test_nothing_is_marked_while_asyncio_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute that happens to be None marks nothing."""

    class Unlucky:
        _is_coroutine = None

        def __call__(self, **kwargs: Any) -> None: ...

    monkeypatch.delitem(sys.modules, "asyncio.coroutines")
    assert is_async(Unlucky()) is False
    assert is_async(waiting) is True


@pytest.mark.parametrize(
    "receiver",
    [
        plain,
        decorated,
        shelf.put,
        shelf,
        Shelf.make,
        Shelf.sort,
        Waiting,
        lambda **kwargs: 1,
        Mock(),
        AsyncMock(),
        Shelf.__dict__["sort"],
        Decorated(plain),
        functools.partial(Decorated(plain), title="a"),
        functools.lru_cache(plain),
        functools.partial(functools.lru_cache(plain), title="a"),
        shelf.cached,
    ],
)
def test_what_accepts_keywords_fits(receiver: Any) -> None:
    check_receiver(receiver)


def test_the_signature_that_counts_is_that_of_what_is_called() -> None:
    """A decorator may take the keywords, whatever stands below it; the reverse does not fit."""

    def below(instance: Any) -> None: ...

    check_receiver(wrapped(below))

    @functools.wraps(plain)
    def narrow(instance: Any) -> None: ...

    with pytest.raises(ValueError, match=r"^receiver does not accept \*\*kwargs: <function plain at"):
        check_receiver(narrow)


def test_an_object_in_c_that_only_passes_calls_on_has_the_signature_of_its_function() -> None:

    def narrow(instance: Any) -> None: ...

    for receiver in (
        staticmethod(narrow),
        functools.lru_cache(narrow),
        functools.partial(staticmethod(narrow)),
    ):
        with pytest.raises(ValueError, match=r"^receiver does not accept \*\*kwargs"):
            check_receiver(receiver)
    assert is_async(staticmethod(waiting))
    assert not is_async(staticmethod(plain))


def test_a_receiver_that_needs_what_a_signal_does_not_have_is_refused() -> None:
    """Where the arguments of the signal are known; an argument with a default, or bound by a partial, is its own."""
    signal = Signal(("created", "instance"))

    def misspelt(instance: Any, creatd: bool, **kwargs: Any) -> None: ...

    def positional(instance: Any, /, **kwargs: Any) -> None: ...

    def own(sender: Any, signal: Any, created: bool, *rest: Any, log: Any = None, **kwargs: Any) -> None: ...

    with pytest.raises(ValueError) as caught:
        signal.connect(misspelt)
    assert str(caught.value) == (
        f"receiver needs the argument 'creatd', which this signal does not have: {misspelt!r}; "
        "it has: 'created', 'instance', 'sender', 'signal'; nearest: 'created'"
    )
    with pytest.raises(ValueError, match=r"'created', 'instance', 'sender', 'signal'; nearest: 'created'$"):
        Signal(("create", "created", "instance")).connect(misspelt)
    with pytest.raises(ValueError, match="^receiver takes 'instance' by position, but gets keywords: "):
        signal.connect(positional)
    assert signal.receivers == ()
    signal.connect(own)
    signal.connect(functools.partial(misspelt, creatd=True), weak=False)
    Signal().connect(misspelt)
    assert len(signal.receivers) == 2


def test_an_optional_argument_that_looks_misspelt_is_warned_of() -> None:
    """It would always have its default; one that is unlike all that is sent is the receiver's own."""
    signal = Signal(("created", "instance"))

    def misspelt(instance: Any, creatd: bool = False, log: Any = None, **kwargs: Any) -> None: ...

    def both(created: bool, creatd: bool = False, **kwargs: Any) -> None: ...

    with pytest.warns(RuntimeWarning) as caught:
        signal.connect(misspelt)
    [warning] = caught
    text = "receiver always gets the default of 'creatd', which this signal does not have; nearest: 'created'"
    assert (str(warning.message), warning.filename) == (text, __file__)
    signal.connect(both)
    assert len(signal.receivers) == 2


def test_without_a_signature_nothing_fits() -> None:
    with pytest.raises(ValueError) as caught:
        check_receiver(dict)
    assert str(caught.value) == "receiver does not accept **kwargs: <class 'dict'>"


def test_keys() -> None:
    """What makes two connections one."""
    assert connection_key(plain, Shelf, None) == connection_key(plain, Shelf, "")
    assert connection_key(plain, Shelf, None) != connection_key(plain, None, None)
    assert connection_key(plain, Shelf, "uid") == connection_key(waiting, Shelf, "uid")
    assert connection_key(plain, Shelf, "uid") != connection_key(plain, None, "uid")
    assert connection_key(plain, Shelf, "uid") != connection_key(plain, Shelf, "other")
    other = Shelf()
    keys = {connection_key(each, None, None) for each in (shelf.put, shelf.put, shelf.wait, other.put, shelf)}
    assert len(keys) == 4


def connected(receiver: Any, **options: Any) -> Connection:
    signal = Signal()
    signal.connect(receiver, **options)
    [connection] = signal.receivers
    return connection


def line_of(function: Any) -> int:
    return inspect.unwrap(function).__code__.co_firstlineno


@pytest.mark.parametrize(
    ("receiver", "qualname", "written"),
    [
        (plain, "plain", plain),
        (waiting, "waiting", waiting),
        (decorated, "decorated", decorated),
        (shelf.put, "Shelf.put", Shelf.put),
        (Shelf.make, "Shelf.make", Shelf.make.__func__),
        (Shelf.sort, "Shelf.sort", Shelf.sort),
        (shelf, "Shelf", Shelf.__call__),
        (functools.partial(plain), "plain", plain),
        (functools.partial(functools.partial(shelf.put)), "Shelf.put", Shelf.put),
        (functools.partial(shelf), "Shelf", Shelf.__call__),
    ],
)
def test_a_connection_knows_where_its_receiver_was_written(
    receiver: Any, qualname: str, written: Any
) -> None:
    """The function itself, below what wraps it."""
    connection = connected(receiver, weak=False)
    assert (connection.module, connection.qualname) == (__name__, qualname)
    assert (connection.file, connection.line) == (__file__, line_of(written))
    assert connection.location == f"{__file__}:{line_of(written)}"
    assert repr(connection) == f"<Connection {__name__}.{qualname} at {connection.location}>"
    assert connection.receiver == receiver


def test_without_source_a_connection_knows_the_module() -> None:
    connection = connected(Waiting)
    assert (connection.module, connection.qualname) == (__name__, "Waiting")
    assert (connection.file, connection.line, connection.location) == (None, None, __name__)


def test_a_name_that_is_no_string_is_not_taken() -> None:

    class Odd:
        __module__ = None  # type: ignore[assignment]

        def __init__(self) -> None:
            self.__qualname__ = 5

        def __call__(self, **kwargs: Any) -> None: ...

    odd = Odd()
    connection = connected(odd)
    assert connection.qualname == "test_a_name_that_is_no_string_is_not_taken.<locals>.Odd"
    assert connection.module == "None"
    assert connected(Mock(), weak=False).qualname == "Mock"


def test_a_connection_shows_how_it_was_made() -> None:
    by_default = connected(plain)
    assert by_default.sender is None
    assert by_default.wildcard is True
    assert by_default.dispatch_uid is None
    assert by_default.weak is True
    assert by_default.is_async is False
    assert by_default.ran is False
    assert by_default.options is NO_OPTIONS
    assert by_default.options == {}
    told = connected(waiting, sender=Shelf, weak=False, dispatch_uid="uid")
    assert told.sender is Shelf
    assert told.wildcard is False
    assert told.dispatch_uid == "uid"
    assert told.weak is False
    assert told.is_async is True
    assert told.receiver is waiting


def test_a_connection_outlives_what_it_refers_to() -> None:
    """As a record of what was; it counts as alive while both are."""

    class Sender: ...

    signal, sender = Signal(), Sender()

    def receiver(**kwargs: Any) -> None: ...

    signal.connect(receiver)
    signal.connect(receiver, sender=sender)
    wildcard, connection = signal.receivers
    assert (wildcard.alive, connection.alive) == (True, True)
    assert connection.sender is sender
    del sender
    assert (wildcard.alive, connection.alive) == (True, False)
    assert (connection.receiver, connection.sender, connection.wildcard) == (receiver, None, False)
    del receiver
    assert (wildcard.alive, connection.alive) == (False, False)
    assert wildcard.receiver is None
    assert wildcard.qualname == "test_a_connection_outlives_what_it_refers_to.<locals>.receiver"


def test_options_are_a_copy_that_nobody_can_change() -> None:
    """What a subclass of Signal was told."""
    options = {"delivery": "on_commit"}
    signal = Signal()
    signal._connect(plain, None, True, None, options)
    [connection] = signal.receivers
    options.clear()
    assert connection.options == {"delivery": "on_commit"}
    with pytest.raises(TypeError):
        connection.options["delivery"] = "immediate"  # type: ignore[index]


@pytest.mark.parametrize(
    ("receiver", "volatile"),
    [
        (plain, False),
        (decorated, True),
        (lambda **kwargs: 1, True),
        (functools.partial(plain), True),
        (shelf.put, False),
        (shelf, False),
        (Waiting, False),
    ],
)
def test_volatile_is_what_dies_with_the_call_that_made_it(receiver: Any, volatile: bool) -> None:
    """And only where the connection does not keep it."""
    assert connected(receiver).volatile is volatile
    assert connected(receiver, weak=False).volatile is False
