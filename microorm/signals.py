"""Signals: what models, databases and applications tell, by name.

A `ModelSignal` takes a model or its label as sender and three options more than a plain signal: *delivery*,
*subclasses* and *skip_raw* (DESIGN 5). Signals that modules above this one send are made here, too, so that
all can be imported from here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from typing import Any, ClassVar, Literal, TypeVar

from microorm.dispatch import EMPTY, Connection, Route, Signal, muted, receiver, run_coroutine
from microorm.engines import connection_created
from microorm.registry import Registry, check_label, default_registry

__all__ = [
    "ModelSignal",
    "class_prepared",
    "connection_created",
    "got_request_exception",
    "m2m_changed",
    "muted",
    "post_bulk_create",
    "post_delete",
    "post_init",
    "post_migrate",
    "post_save",
    "post_update",
    "pre_bulk_create",
    "pre_delete",
    "pre_init",
    "pre_migrate",
    "pre_save",
    "pre_update",
    "receiver",
    "request_finished",
    "request_started",
]

F = TypeVar("F", bound=Callable[..., Any])
Delivery = Literal["immediate", "on_commit"]


class _Queued:
    """A connection to a label that no model has yet."""

    def __init__(self, key: tuple[Any, ...], connect: Callable[[Any], object]) -> None:
        self.key = key
        self.connect = connect

    def __call__(self, model: Any) -> None:
        self.connect(model)


class ModelSignal(Signal):
    """A signal about models: its senders are model classes."""

    # Two savepoints at once on one connection break it, so async receivers take turns.
    concurrent: ClassVar[bool] = False

    def __init__(self, *, postponable: bool = False) -> None:
        super().__init__()
        self._postponable = postponable
        self._queued: list[tuple[Registry, str, _Queued]] = []

    def connect(  # type: ignore[override]
        self,
        receiver: F,
        sender: type[Any] | str | None = None,
        weak: bool = True,
        dispatch_uid: object = None,
        *,
        delivery: Delivery = "immediate",
        subclasses: bool = False,
        skip_raw: bool = False,
        registry: Registry | None = None,
    ) -> F:
        """Connect *receiver* to the signals of *sender*: a model, a label `"app.Model"`, or None for all.

        A label that no model has yet waits for it, in *registry* (else the default one). *delivery*:
        `"on_commit"` calls the receiver after the commit of the alias that was written, with the arguments as
        they were, and never after a rollback. *subclasses*: also for models derived from *sender*. *skip_raw*:
        not for raw saves. The rest is as `Signal.connect` says. Returns the receiver.

        Raises `ValueError` for an unknown delivery, one that this signal does not offer, and a label that has
        not the form `app.Model`; `TypeError` for a sender that is neither class nor label.
        """
        if delivery not in ("immediate", "on_commit"):
            raise ValueError(f"delivery= is 'immediate' or 'on_commit', not {delivery!r}")
        if delivery == "on_commit" and not self._postponable:
            raise ValueError("delivery='on_commit' is for signals that are sent after a write")
        options: dict[str, Any] = {}
        if delivery != "immediate":
            options["delivery"] = delivery
        if subclasses:
            options["subclasses"] = True
        if skip_raw:
            options["skip_raw"] = True
        if isinstance(sender, str):
            self._connect_label(receiver, sender, weak, dispatch_uid, options, registry or default_registry)
        elif sender is None or isinstance(sender, type):
            self._connect(receiver, sender, weak, dispatch_uid, options)
        else:
            raise TypeError(f"the sender of a model signal is a model or its label, not {sender!r}")
        return receiver

    def disconnect(
        self,
        receiver: Any = None,
        sender: object = None,
        dispatch_uid: object = None,
        *,
        registry: Registry | None = None,
    ) -> bool:
        """End a connection, or take it out of what waits for a label; whether there was one (CONTRACT L6)."""
        if not isinstance(sender, str):
            return super().disconnect(receiver, sender, dispatch_uid)
        registry = registry or default_registry
        check_label(sender)
        if (model := registry.models.get(sender)) is not None:
            return super().disconnect(receiver, model, dispatch_uid)
        key = _key(receiver, dispatch_uid)
        for entry in self._queued:
            where, label, queued = entry
            if where is registry and label == sender and queued.key == key:
                self._queued.remove(entry)
                return registry.forget_waiting(sender, queued)
        return False

    def _connect_label(
        self, receiver: Any, label: str, weak: bool, uid: object, options: dict[str, Any], registry: Registry
    ) -> None:
        check_label(label)
        if (model := registry.models.get(label)) is not None:
            self._connect(receiver, model, weak, uid, options)
            return
        key = _key(receiver, uid)
        if any(where is registry and at == label and old.key == key for where, at, old in self._queued):
            return
        # A scratch signal checks the receiver, and holds it as weakly as it will be held.
        probe = Signal()
        probe.connect(receiver, None, weak, uid)

        def connect(model: Any) -> None:
            self._queued.remove(entry)
            for connection in probe.receivers:
                if (held := connection.receiver) is not None:
                    self._connect(held, model, weak, uid, options)

        queued = _Queued(key, connect)
        entry = (registry, label, queued)
        self._queued.append(entry)
        registry.when_defined(label, queued)

    def _matches(self, connection: Connection, sender: object) -> bool:
        if super()._matches(connection, sender):
            return True
        if "subclasses" not in connection.options or not isinstance(sender, type):
            return False
        wanted = connection.sender
        return isinstance(wanted, type) and issubclass(sender, wanted)

    def _accepts(self, connection: Connection, named: Mapping[str, Any]) -> bool:
        return not (named.get("raw") and "skip_raw" in connection.options)

    def _deliver(self, connection: Connection, receiver: Any, sender: Any, named: Mapping[str, Any]) -> Any:
        if "delivery" not in connection.options:
            return receiver(signal=self, sender=sender, **named)
        self._postpone(connection, receiver, sender, dict(named))
        return None

    def _postpone(self, connection: Connection, receiver: Any, sender: Any, named: dict[str, Any]) -> None:
        """Call the receiver after the commit, with the instance as it is now; a weak one may be gone by then."""
        if "instance" in named:
            named["instance"] = copy(named["instance"])
        databases, alias = sender.__schema__.registry.databases, named["using"]
        if connection.weak:
            del receiver

        def deliver() -> None:
            held = connection.receiver
            if held is None:
                return
            with databases.receiving(alias):
                result = held(signal=self, sender=sender, **named)
                if connection.is_async:
                    run_coroutine(_awaited(result))

        databases.on_commit(deliver, using=alias)

    def immediate(self, sender: type[Any]) -> Route:
        """The connections of *sender* that run at the send itself."""
        route = self._route(sender)
        if not route or not any(connection.options for connection in route):
            return route
        return Route(each for each in route if "delivery" not in each.options) or EMPTY

    def refuse_waiting(self, sender: type[Any]) -> None:
        """RuntimeError where a send would have to wait for async receivers on a running event loop."""
        if (route := self._route(sender)).asynchronous:
            self._waiter(route)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _key(receiver: Any, dispatch_uid: object) -> tuple[Any, ...]:
    if dispatch_uid:
        return ("uid", dispatch_uid)
    return (id(getattr(receiver, "__self__", None)), id(getattr(receiver, "__func__", receiver)))


Awaiting = Callable[[Coroutine[Any, Any, Any]], Any]

class_prepared = ModelSignal()
pre_init = ModelSignal()
post_init = ModelSignal()
pre_save = ModelSignal()
post_save = ModelSignal(postponable=True)
pre_delete = ModelSignal()
post_delete = ModelSignal(postponable=True)
m2m_changed = ModelSignal()
pre_bulk_create = ModelSignal()
post_bulk_create = ModelSignal(postponable=True)
pre_update = ModelSignal()
post_update = ModelSignal(postponable=True)
pre_migrate = Signal()
post_migrate = Signal()
request_started = Signal()
request_finished = Signal()
got_request_exception = Signal()
