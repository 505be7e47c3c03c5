"""A shop whose orders have durable receivers, and the outbox as its tables show it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select, text

import microorm
from microorm import Field, Registry
from microorm.outbox import Relay, Retry
from microorm.signals import post_save

NOW = Retry(base=0)


@dataclass
class Shop:
    """The models of one test, what their receivers were called with, and the relay."""

    databases: microorm.Databases
    registry: Registry
    Order: Any
    calls: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def receives(self, uid: str = "charge", signal: Any = post_save, **options: Any) -> Callable[[Any], Any]:
        """Connect a durable receiver of orders, which fails never; kept alive until the test ends."""
        options = {"sender": self.Order, "retry": NOW} | options

        def connect(function: Any) -> Any:
            self.kept.append(function)
            return signal.connect(function, delivery="durable", dispatch_uid=uid, **options)

        return connect

    def note(self, uid: str = "charge", **options: Any) -> None:
        """Connect a durable receiver that notes the names of the orders that it was called with."""

        @self.receives(uid, **options)
        def note(instance: Any, **kwargs: Any) -> None:
            self.calls.append(instance.name)

    def relay(self, **options: Any) -> Relay:
        return Relay(self.databases, **options)

    def rows(self, table: str = "microorm_outbox", alias: str = "default") -> list[Any]:
        found = self.registry.metadata.tables[table]
        with self.databases.connection(alias) as connection:
            key = next(iter(found.primary_key.columns))
            return list(connection.execute(select(found).order_by(key)))

    def run(self, sql: str, alias: str = "default", **values: Any) -> None:
        with self.databases.connection(alias) as connection:
            connection.execute(text(sql), values)

    def pass_time(self) -> None:
        """Make all events due, as if their pauses and leases were over."""
        self.run("UPDATE microorm_outbox SET due_at = 0")

    def forget(self) -> None:
        """Empty the outbox, and forget the calls, as if nothing had happened yet."""
        self.calls.clear()
        self.run("DELETE FROM microorm_outbox")
        self.run("DELETE FROM microorm_outbox_dead")

    def disconnect(self) -> None:
        for signal in (microorm.signals.post_save, microorm.signals.post_delete):
            for each in signal.receivers:
                if each.stored:
                    signal.disconnect(None, each.sender, each.dispatch_uid)


@pytest.fixture
def shop(databases, registry, Base) -> Iterator[Shop]:
    class Order(Base):
        name: Field[str]
        total: Field[int] = microorm.field(default=0)

    made = Shop(databases, registry, Order)
    yield made
    made.disconnect()
