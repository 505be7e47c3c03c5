"""Units: several writes that happen together or not at all, and what they change in instances meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from microorm.databases import Databases
from microorm.engines import Database
from microorm.fields.field import MISSING
from microorm.scopes import note_split_write
from microorm.undo import Image, UndoLog, image_of, settle


class Unit:
    """What is being done on *channel*; *half_way* once a receiver or SQL of it has run."""

    __slots__ = ("_changes", "channel", "half_way")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.half_way = False
        self._changes = UndoLog()

    def change(self, instance: Any, values: Mapping[str, Any], image: Image | None = None) -> None:
        """Give *instance* the *values*, until a rollback, which makes it what it is now, or in *image*."""
        image = image_of(instance) if image is None else image
        settle(instance, image, dict(values))
        self._remember(image)

    def forget(self, instance: Any, names: Iterable[str]) -> None:
        """Drop the rows that *instance* knows as related by *names*, until a rollback."""
        image = image_of(instance)
        for name in names:
            if (known := instance.__dict__.pop(name, MISSING)) is not MISSING:
                image[3][name] = (known, MISSING)
        if image[3]:
            self._remember(image)

    def check(self) -> None:
        """Raise `TransactionError` where somebody has doomed the block meanwhile."""
        with self.channel:
            pass

    def undo(self) -> None:
        """Put the instances back."""
        self._changes.roll_back()

    def _remember(self, image: Image) -> None:
        # Each log makes one image of several of an instance, so neither has the other's.
        self.channel.undo.record((*image[:3], dict(image[3])))
        self._changes.record(image)


@contextmanager
def unit(databases: Databases, database: Database) -> Iterator[Unit]:
    """A unit inside the block that is open on *database*, or else in a transaction of its own.

    An error that leaves it half-way dooms the block; the instances are put back in any case. Raises
    `TransactionError` where the block is doomed or for reading only.
    """
    if databases.transaction(database) is not None:
        with _unit(databases, database) as whole:
            yield whole
        return
    note_split_write(databases, database.alias)
    with databases.block(database), _unit(databases, database) as whole:
        yield whole


@contextmanager
def _unit(databases: Databases, database: Database) -> Iterator[Unit]:
    transaction: Any = databases.channel(database, prepared=False, writes=True)
    with transaction as channel:
        whole = Unit(channel)
        try:
            yield whole
        except BaseException as error:
            whole.undo()
            if whole.half_way:
                channel.doom(error)
            raise
