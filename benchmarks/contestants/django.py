"""Django's ORM, as in a project: `save()`, managers, its dispatcher with its cache on."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import django
from django.conf import settings
from sqlalchemy import URL

from benchmarks.contestant import Contestant, counting, ignoring
from benchmarks.databases import server_of
from benchmarks.table import Row, run_plainly

settings.configure(
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from django.db import connections, models, transaction  # noqa: E402  (wants the settings first)
from django.db.models.signals import post_save  # noqa: E402
from django.dispatch import Signal  # noqa: E402


class Item(models.Model):
    name = models.CharField(max_length=100)
    amount = models.BigIntegerField()
    score = models.FloatField()
    note = models.CharField(max_length=200, null=True)
    level = models.BigIntegerField(db_index=True)

    class Meta:
        app_label = "benchmarks"
        db_table = "item"


class Django(Contestant):
    name = "django"
    packages = ("django",)

    def open(self, url: URL) -> None:
        connections.settings = connections.configure_settings({"default": _settings(url)})
        connections["default"].ensure_connection()

    def close(self) -> None:
        # Closing a memory database is refused by Django's own close(), which keeps it for its test runner.
        connection = connections["default"]
        raw, connection.connection = connection.connection, None
        raw.close()
        del connections["default"]

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return run_plainly(connections["default"].connection, sql, rows)

    def transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic()

    def insert(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            item = Item(**record)
            item.save()
            keys.append(item.id)
        return keys

    def insert_alone_heard(self, records: Sequence[Any]) -> list[int]:
        # Its save() calls receivers after the row is committed, unless a block is open.
        keys = []
        for record in records:
            with transaction.atomic():
                keys += self.insert([record])
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        Item.objects.bulk_create([Item(**record) for record in records])

    def get(self, keys: Sequence[int]) -> list[Any]:
        objects = Item.objects
        return [objects.get(id=key) for key in keys]

    def get_pk(self, keys: Sequence[int]) -> list[Any]:
        objects = Item.objects
        return [objects.get(pk=key) for key in keys]

    def load(self) -> list[Any]:
        return list(Item.objects.all())

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        objects = Item.objects
        return [list(objects.filter(level=level)) for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = Item.objects.get(id=key)
            item.amount += 1
            item.save()

    def delete(self, instances: Sequence[Item]) -> None:
        for item in instances:
            item.delete()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()
        return _connect(receiver, calls)

    def listen_on_commit(self) -> Callable[[], int]:
        receiver, calls = counting()

        def wait(sender: Any, instance: Any, **kwargs: Any) -> None:
            transaction.on_commit(lambda: receiver(sender=sender, instance=instance))

        return _connect(wait, calls)

    def sender(self, receivers: int) -> Callable[[], Any]:
        signal, listening, instance = Signal(use_caching=True), ignoring(receivers), object()
        for receiver in listening:
            signal.connect(receiver)

        def send(alive: Any = listening) -> Any:
            return signal.send(Django, instance=instance, created=True)

        return send


def _connect(receiver: Callable[..., None], calls: Callable[[], int]) -> Callable[[], int]:
    post_save.connect(receiver, sender=Item)

    def stop() -> int:
        post_save.disconnect(receiver, sender=Item)
        return calls()

    return stop


def _settings(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url.database or ":memory:"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "OPTIONS": dict(url.query),
        **{key.upper(): value for key, value in server_of(url).items()},
    }
