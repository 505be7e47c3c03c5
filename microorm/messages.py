"""How values are shown in messages of errors: short, without SQL, and whatever their own `__repr__` does."""

from reprlib import Repr
from typing import Any

MAX_VALUE = 60
"""How many characters of one value of an instance are shown."""

MAX_MESSAGE = 500
"""How many characters of one value are shown in a message."""


class Brief(Repr):
    """A `repr` that is cut, and in which an object of ours says itself how it is shown."""

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the text of an object: that of its method `_in_messages`, if it has one, or its `repr`."""
        describe = getattr(type(x), "_in_messages", repr)
        try:
            text = str(describe(x))
        except Exception as error:  # noqa: BLE001 a broken __repr__ must not hide what the message is about
            text = f"<unprintable {type(x).__name__}: {type(error).__name__}>"
        return text if len(text) <= self.maxother else f"{text[: self.maxother - 1]}…"


def _brief(maximum: int, *, items: int) -> Brief:
    made = Brief()
    made.maxstring = made.maxother = made.maxlong = maximum
    made.maxlist = made.maxtuple = made.maxdict = made.maxset = made.maxfrozenset = items
    return made


_of_values = _brief(MAX_VALUE, items=4)
_in_messages = _brief(MAX_MESSAGE, items=20)


def brief(value: object) -> str:
    """Return a text for *value* in a message: for an instance its model and key, for others their `repr`, cut.

    No `__repr__` of a model runs, which may load what it shows. Any other that fails is replaced by the error's name.
    """
    return _shown(_in_messages, value)


def brief_value(value: object) -> str:
    """Return a shorter text for *value*, one of several of an instance."""
    return _shown(_of_values, value)


def printable(text: str) -> str:
    """Return *text* as one line of which a terminal shows each character: any other is replaced by its escape, as in a `repr`."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def _shown(shorten: Brief, value: object) -> str:
    try:
        return shorten.repr(value)
    except Exception as error:  # noqa: BLE001 such as an int of more digits than Python converts
        return f"<unprintable: {type(error).__name__}>"
