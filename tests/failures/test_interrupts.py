"""Ctrl-C at any step: an interrupt at whichever bytecode of an operation leaves nothing open, held, lost or half done.

Signals are handled between bytecodes, so a trace function that raises at the n-th one stands for a signal that comes then.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import microorm
from microorm import CommitOutcomeUnknown, Databases, Field, Model, Registry, field
from microorm.db.context import innermost
from microorm.signals import post_save
from tests.pools import unreturned
from tests.thorough import size

PACKAGE = os.path.dirname(microorm.__file__)


class Interrupt:
    """A trace function that raises *error* at the bytecode number *at* of the package."""

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.at = at
        self.seen = 0
        self.where = ""
        self._error = error

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Count a bytecode."""
        if not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_name == "__del__":
            return None  # Python reports what is raised in `__del__`, and goes on
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.seen += 1
            if self.seen == self.at:
                self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                raise self._error
        return self.trace

    def run(self, function: Callable[[], object]) -> str:
        """Call *function* and return the name of the error that leaves it, without keeping the error."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            function()
        except CommitOutcomeUnknown:
            return "unknown"
        except BaseException as error:  # noqa: BLE001 KeyboardInterrupt, above all
            return type(error).__name__
        finally:
            sys.settrace(before)
        return ""


class World:
    """A file, a model with a receiver that writes and registers a function, and what has come of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.databases = Databases({"default": f"sqlite:///{path}"})
        registry = Registry(self.databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=50, unique=True)

        class Note(Model, registry=registry):
            title: Field[str] = field(max_length=50)

        registry.create_all()
        self.Book, self.Note = Book, Note
        self.saved: list[Any] = []
        self.ran: list[str] = []
        post_save.connect(self.told, sender=Book)

    def told(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        """Register a function and save another instance, as receivers do."""
        self.databases.on_commit(lambda: self.ran.append(instance.title))
        self.Note(title=instance.title).save()

    def save(self, title: str, model: Any = None) -> None:
        """Save a new instance, which is kept from before the save."""
        self.saved.append((model or self.Book)(title=title))
        self.saved[-1].save()

    def in_block(self, title: str) -> None:
        """Save in a block."""
        with self.databases.atomic():
            self.save(title)

    def in_nested(self, title: str) -> None:
        """Save in a savepoint."""
        with self.databases.atomic(), self.databases.atomic():
            self.save(title)

    def by_decorator(self, title: str) -> None:
        """Save in a decorated function."""
        self.databases.atomic(lambda: self.save(title))()

    def routed(self, title: str) -> None:
        """Save in a `using()` block."""
        with self.databases.using("default"):
            self.save(title)

    def get_or_create(self, title: str) -> None:
        """Create what is not there."""
        self.saved.append(self.Book.objects.get_or_create(title=title)[0])

    def silent(self, title: str) -> None:
        """Save without a receiver, in autocommit."""
        self.save(title, self.Note)

    def stored(self, model: Any, title: str) -> int:
        """Count the rows by a connection of its own, which finds the file locked if a transaction is open."""
        with sqlite3.connect(self.path, timeout=0.2) as connection:
            connection.execute("BEGIN IMMEDIATE")
            sql = f"SELECT count(*) FROM {model.__table__.name} WHERE title = ?"
            count: int = connection.execute(sql, (title,)).fetchone()[0]
        connection.close()
        return count


@pytest.fixture
def world(tmp_path: Any) -> Iterator[World]:
    """A world with everything compiled that the operations need."""
    world = World(str(tmp_path / "a.db"))
    for number, name in enumerate(OPERATIONS):
        getattr(world, name)(f"warm {number}")
    yield world
    post_save.disconnect(world.told, sender=world.Book)
    world.databases.close()


OPERATIONS = ["save", "silent", "in_block", "in_nested", "by_decorator", "routed", "get_or_create"]


def check(world: World, name: str, interrupt: Interrupt, number: int) -> None:
    """Interrupt the operation *name*, and check what is left of it."""
    title, model = f"{name} {number}", world.Note if name == "silent" else world.Book
    world.saved.clear()
    world.ran.clear()
    outcome = interrupt.run(lambda: getattr(world, name)(title))
    at = f"interrupted at {interrupt.where}"
    assert innermost() is None, at
    rows = world.stored(model, title)
    if unreturned(world.databases):
        gc.collect()  # SQLAlchemy's `Connection` is in a cycle with its transaction, and may hold an idle connection
        assert unreturned(world.databases) == 0, at
    if outcome != "unknown":
        assert [not each._state.adding for each in world.saved] == [bool(rows)] * len(world.saved), at
        assert world.ran == ([title] if rows and model is world.Book else []), at
    assert world.stored(world.Note, title) == rows, at
    world.Note(title="next").save()
    assert world.stored(world.Note, "next"), at
    world.Note.objects.filter(title="next").delete()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("step", [199, pytest.param(37, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_step_leaves_rows_instances_and_functions_in_agreement(
    world: World, name: str, step: int
) -> None:
    """Nothing is open afterwards, the pool is whole, and the next save is stored. The soak begins at a step by chance."""
    counted = Interrupt(0)
    assert counted.run(lambda: getattr(world, name)(f"{name} counted")) == ""
    for number in itertools.count(random.randint(1, size(1, step)), step):
        interrupt = Interrupt(number)
        check(world, name, interrupt, number)
        if not interrupt.where:
            break
    # An idle connection that has expired costs a few hundred steps more, in the one run or in the other.
    assert number > counted.seen // 2
