"""microorm as it is shipped: values checked, the loaded state kept, instances put back by a rollback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from sqlalchemy import URL

from benchmarks.contestant import BEFORE, OURS, Contestant, counting, ignoring
from benchmarks.table import Row
from microorm import Databases, Field, Model, Registry, Signal, field
from microorm.errors import InvalidValue
from microorm.signals import post_save


class NotAsShipped(Exception):
    """What is clocked leaves out something that microorm promises."""


class MicroORM(Contestant):
    name = OURS
    packages: ClassVar[tuple[str, ...]] = ("microorm",)

    def open(self, url: URL) -> None:
        self.databases = Databases({"default": url})
        self.model = self._model()

    def _model(self) -> Any:
        class Item(Model, registry=Registry(self.databases), table="item"):
            name: Field[str] = field(max_length=100)
            amount: Field[int]
            score: Field[float]
            note: Field[str | None] = field(max_length=200)
            level: Field[int] = field(index=True)

        return Item

    def close(self) -> None:
        self.databases.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        with self.databases.connection() as connection:
            result = connection.exec_driver_sql(sql, list(rows) or None)
            return [tuple(row) for row in result] if result.returns_rows else []

    def transaction(self) -> AbstractContextManager[Any]:
        return self.databases.atomic()

    def insert(self, records: Sequence[Any]) -> list[int]:
        item = self.model
        return [item(**record).save().id for record in records]

    def bulk(self, records: Sequence[Any]) -> None:
        item = self.model
        item.objects.bulk_create([item(**record) for record in records])

    def get(self, keys: Sequence[int]) -> list[Any]:
        objects = self.model.objects
        return [objects.get(id=key) for key in keys]

    def get_pk(self, keys: Sequence[int]) -> list[Any]:
        objects = self.model.objects
        return [objects.get(pk=key) for key in keys]

    def load(self) -> list[Any]:
        loaded: list[Any] = self.model.objects.all()
        return loaded

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        objects = self.model.objects
        return [objects.filter(level=level).all() for level in levels]

    def by_expression(self, levels: Sequence[int]) -> list[list[Any]]:
        item = self.model
        return [item.objects.filter(item.level == level).all() for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        objects = self.model.objects
        for key in keys:
            item = objects.get(id=key)
            item.amount += 1
            item.save()

    def delete(self, instances: Sequence[Any]) -> None:
        for item in instances:
            item.delete()

    def listen(self) -> Callable[[], int]:
        return self._connect()

    def listen_on_commit(self) -> Callable[[], int]:
        return self._connect(delivery="on_commit")

    def _connect(self, **options: Any) -> Callable[[], int]:
        receiver, calls = counting()
        post_save.connect(receiver, sender=self.model, **options)

        def stop() -> int:
            post_save.disconnect(receiver, sender=self.model)
            return calls()

        return stop

    def sender(self, receivers: int) -> Callable[[], Any]:
        signal, listening, instance = Signal(), ignoring(receivers), object()
        for receiver in listening:
            signal.connect(receiver)

        def send(alive: Any = listening) -> Any:
            return signal.send(MicroORM, instance=instance, created=True)

        return send

    def check(self) -> None:
        """Raise NotAsShipped unless checks, loaded state and rollback work on this very model.

        The table is left as it was.
        """
        item = self.model
        record = {"name": "a", "amount": 1, "score": 1.0, "note": None, "level": 0}
        try:
            with self.databases.atomic():
                saved = item(**record).save()
                _want(_refuses(item(**{**record, "amount": "one"})), "a str for an int was stored")
                _want(_refuses(item(**{**record, "name": "a" * 101})), "a name too long was stored")
                loaded = item.objects.get(id=saved.id)
                loaded.amount = 2
                _want(loaded.changed_fields == {"amount"}, "changed_fields does not know the change")
                _want(loaded.changes() == {"amount": (1, 2)}, "the loaded value is not kept")
                raise _RollBack
        except _RollBack:
            _want(saved.pk is None and saved._state.adding, "a rollback did not put the instance back")
            _want(not item.objects.exists(), "a rollback left a row")
        post_save.connect(_fail, sender=item)
        try:
            saved = item(**record)
            saved.save()
        except _RollBack:
            _want(saved.pk is None and not item.objects.exists(), "an error of a receiver left a row")
        finally:
            post_save.disconnect(_fail, sender=item)


class MicroORMBefore(MicroORM):
    """microorm of another checkout; the process that this runs in has imported that one."""

    name = BEFORE
    packages = ()


class _RollBack(Exception):
    """Leave the block without a commit."""


def _fail(sender: Any, **kwargs: Any) -> None:
    raise _RollBack


def _want(claim: object, otherwise: str) -> None:
    if not claim:
        raise NotAsShipped(otherwise)


def _refuses(instance: Any) -> bool:
    try:
        instance.save()
    except InvalidValue:
        return True
    return False
