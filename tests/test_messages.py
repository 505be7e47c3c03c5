"""What messages show: values cut, instances by their key, and no `__repr__` that could hide what is wrong."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microorm import AfterCommitError, Databases, Field, TransactionError, field
from microorm.messages import MAX_MESSAGE, brief

PACKAGE = Path(__file__).parent.parent / "microorm"

# What `!r` may show in a message: names and aliases, which are str, and objects of our own.
PLAIN = {
    "alias", "column", "current", "database", "due", "example", "key", "module_name", "other", "through", "drivername", "entry", "folder", "format", "fullname", "here", "label", "loaded", "name", "new", "normalized",
    "old", "option", "own", "path", "primary", "revision", "self", "table", "table_name", "text", "theirs", "twice", "via",
}  # fmt: skip


class Odd(Exception):
    """An exception that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("broken")


def test_a_value_is_cut() -> None:
    assert brief("a") == "'a'"
    assert len(brief("x" * 10_000)) <= MAX_MESSAGE
    assert len(brief(list(range(10_000)))) <= MAX_MESSAGE
    assert brief(10**5000) == "<unprintable: ValueError>"


def test_a_broken_repr_is_replaced_where_it_stands() -> None:
    assert brief(Odd()) == "<unprintable Odd: RuntimeError>"
    assert brief({"a": [1, Odd()]}) == "{'a': [1, <unprintable Odd: RuntimeError>]}"


def test_an_instance_is_named_by_its_key_wherever_it_stands(Base: Any) -> None:
    class Book(Base):
        title: Field[str] = field(max_length=20)

        def __repr__(self) -> str:
            return f"<{self.missing}>"

    book = Book(title="x")
    assert brief(book) == "Book(id=None)"
    assert brief([book, {"b": book}]) == "[Book(id=None), {'b': Book(id=None)}]"
    assert brief(Book.objects) == "<Query of Book>"
    assert brief(Book).startswith("<class ")


@pytest.mark.backends("sqlite-memory")
def test_a_doomed_block_says_so_whatever_doomed_it(databases: Databases) -> None:
    with pytest.raises(TransactionError, match="unprintable Odd"), databases.atomic():
        databases.transaction(databases.database("default")).doom(Odd())


@pytest.mark.backends("sqlite-memory")
def test_the_first_of_two_failed_hooks_is_raised(databases: Databases) -> None:
    def fail() -> None:
        raise Odd

    with pytest.raises(AfterCommitError, match="first") as caught, databases.atomic():
        databases.on_commit(lambda: int("first"))
        databases.on_commit(fail)
    assert caught.value.__notes__ == [
        f"the on_commit function {fail.__qualname__} failed as well: <unprintable Odd: RuntimeError>"
    ]


def shown_by_repr(tree: ast.AST) -> Iterator[str]:
    """Yield the last name of each expression that a message shows by `!r`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            for part in ast.walk(node):
                match part:
                    case ast.FormattedValue(
                        conversion=114, value=ast.Name(id=name) | ast.Attribute(attr=name)
                    ):
                        yield name


def test_errors_show_values_of_the_user_by_brief_only() -> None:
    """A `{value!r}` would run the `__repr__` of a user's class."""
    assert list(shown_by_repr(ast.parse("raise E(f'{self.value!r} {name!r}')"))) == ["value", "name"]
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ("cli", "migrations") and "!r" in path.read_text()
        for name in shown_by_repr(ast.parse(path.read_text()))
        if name.strip("_") not in PLAIN
    }
    assert found == set()
