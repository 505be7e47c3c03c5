"""`ModelSignal`, and all built-in signals, at the end of the file.

A model signal takes a model or its label as sender, and has three more options: *delivery*, *subclasses* and *skip_raw*.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from copy import copy
from typing import Any, ClassVar, Literal, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

from microorm.db.context import ReceiverScope
from microorm.db.engine import connection_created
from microorm.db.routing import postpone
from microorm.dispatch.receivers import Connection, connection_key
from microorm.dispatch.signal import Signal, muted, receiver, run_coroutine
from microorm.messages import brief
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


class _Labelled:
    """A connection to a label: to the model that has it, and to each later model that replaces it.

    A plain signal holds the receiver: it checks it, references it weakly if requested, and warns if it is lost.
    *arguments* are the other arguments of `Signal._connect`.
    """

    def __init__(
        self, signal: ModelSignal, identity: tuple[Registry, str, Hashable], receiver: Any, *arguments: Any
    ) -> None:
        self._signal = signal
        self._holder = Signal()
        self._holder._connect(receiver, None, *arguments)
        self.identity = identity
        self._arguments = arguments
        self._models: list[ReferenceType[Any]] = []

    @property
    def alive(self) -> bool:
        """Whether the receiver has not been collected."""
        return bool(self._holder._route(None))

    @property
    def models(self) -> list[Any]:
        """The models that the receiver was connected to and that still exist."""
        return [model for each in self._models if (model := each()) is not None]

    def __call__(self, model: Any) -> None:
        """Connect the receiver to *model*, which has the label now."""
        if not (route := self._holder._route(None)):
            self.forget()
        for connection in route:
            connection.ran = True  # now the connection to the model warns if it is lost
            if (receiver := connection.receiver) is not None:
                self._signal._connect(receiver, model, *self._arguments)
                self._models = [*filter(ReferenceType.__call__, self._models), ref(model)]

    def forget(self) -> None:
        """Ignore later models with the label; existing connections remain."""
        registry, label, _ = self.identity
        registry.forget_waiting(label, self)
        with self._signal._lock:
            self._signal._labelled.pop(self, None)


class ModelSignal(Signal):
    """A signal about models: its senders are model classes."""

    # Concurrent receivers could open savepoints on one connection at the same time.
    concurrent: ClassVar[bool] = False

    def __init__(self, *, postponable: bool = False) -> None:
        super().__init__()
        self._postponable = postponable
        self._labelled: WeakKeyDictionary[_Labelled, None] = WeakKeyDictionary()  # held by the registries

    @property
    def waiting(self) -> tuple[tuple[str, Connection], ...]:
        """Pairs of label and connection, for labels that no model has yet."""
        held = [each for each in self._following() if not each.models]
        return tuple((each.identity[1], known) for each in held for known in each._holder.receivers)

    def connect(  # type: ignore[override]
        self,
        receiver: F,
        sender: type[Any] | str | None = None,
        weak: bool = True,
        dispatch_uid: object = None,
        *,
        delivery: Literal["immediate", "on_commit"] = "immediate",
        subclasses: bool = False,
        skip_raw: bool = False,
        registry: Registry | None = None,
    ) -> F:
        """Connect *receiver* to the signals of *sender*: a model, a label `"app.Model"`, or None for all models.

        The model of a label may be defined later, in *registry* (by default the default one); a model that replaces it
        gets its connections. *delivery*: `"on_commit"` calls the receiver after the commit, with copies of the
        arguments, and never after a rollback. *subclasses*: also connect to models derived from *sender*. *skip_raw*:
        ignore raw saves. Other arguments and the return value are those of `Signal.connect`.

        Raises `ValueError` for an unknown delivery, a signal without `"on_commit"`, and an invalid label; `TypeError`
        for a sender that is neither a class nor a label.
        """
        if delivery not in ("immediate", "on_commit"):
            raise ValueError(f"delivery= must be 'immediate' or 'on_commit', not {brief(delivery)}")
        if delivery == "on_commit" and not self._postponable:
            raise ValueError("delivery='on_commit' is only available for signals sent after a write")
        options: dict[str, Any] = {} if delivery == "immediate" else {"delivery": delivery}
        flags = {"subclasses": subclasses, "skip_raw": skip_raw}
        options |= {name: True for name, given in flags.items() if given}
        self._check_sender(sender)
        if isinstance(sender, str):
            self._connect_label(receiver, sender, weak, dispatch_uid, options, registry or default_registry)
        else:
            self._connect(receiver, sender, weak, dispatch_uid, options)
        return receiver

    def disconnect(
        self,
        receiver: Any = None,
        sender: object = None,
        dispatch_uid: object = None,
        *,
        registry: Registry | None = None,
    ) -> bool:
        """Remove a connection; return whether there was one.

        A label removes it from all models that have, had or will have the label; a class also from later models that
        replace it.
        """
        key, registry = connection_key(receiver, None, dispatch_uid), registry or default_registry
        if not isinstance(sender, str):
            for known in self._following(key):
                if sender is not None and known.identity[0].models.get(known.identity[1]) is sender:
                    known.forget()
            return super().disconnect(receiver, sender, dispatch_uid)
        check_label(sender)
        found = [each for each in self._following(key) if each.identity == (registry, sender, key)]
        models = [model for each in found for model in each.models]
        ended = any(not each.models and each.alive for each in found)
        for each in found:
            each.forget()
        for model in (*models, registry.models.get(sender)):
            if model is not None and super().disconnect(receiver, model, dispatch_uid):
                ended = True
        return ended

    def has_listeners(self, sender: object = None, *, registry: Registry | None = None) -> bool:
        """Whether a signal of *sender*, a model or its label in *registry*, would be received."""
        self._check_sender(sender)
        if not isinstance(sender, str):
            return super().has_listeners(sender)
        registry = registry or default_registry
        if (model := registry.models.get(sender)) is not None:
            return super().has_listeners(model)
        waits = any(each.identity[:2] == (registry, sender) and each.alive for each in self._following())
        return waits or any(each.wildcard for each in self.receivers)

    def _connect_label(
        self, receiver: Any, label: str, weak: bool, uid: object, options: dict[str, Any], registry: Registry
    ) -> None:
        identity = (registry, label, connection_key(receiver, None, uid))
        for known in self._following():
            if known.identity == identity:
                if known.alive:
                    return
                known.forget()
        labelled = _Labelled(self, identity, receiver, weak, uid, options)
        with self._lock:
            self._labelled[labelled] = None
        registry.when_defined(label, labelled, always=True)

    def _following(self, key: Hashable = None) -> list[_Labelled]:
        with self._lock:
            return [each for each in self._labelled if key is None or each.identity[2] == key]

    def _check_sender(self, sender: object) -> None:
        if isinstance(sender, str):
            check_label(sender)
        elif sender is not None and not isinstance(sender, type):
            raise TypeError(f"the sender of a model signal must be a model or its label, not {brief(sender)}")

    def _is_muted_by(self, muted: object, sender: object) -> bool:
        if isinstance(muted, str):  # in any registry, and also if it is defined inside the block
            schema = getattr(sender, "__schema__", None)
            return schema is not None and schema.label == muted
        return muted is sender

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
        databases, alias = sender.__schema__.registry.databases, named["using"]
        sent = _as_sent(named)

        def deliver() -> None:
            if (held := connection.receiver) is None:  # collected in the meantime
                return
            with ReceiverScope(databases, alias):
                result = held(signal=self, sender=sender, **sent)
                if connection.is_async:
                    run_coroutine(_awaited(result))

        if postpone(databases, alias, deliver):
            return None
        with ReceiverScope(databases, alias):
            return receiver(signal=self, sender=sender, **sent)

    def refuse_waiting(self, sender: type[Any]) -> None:
        """Raise RuntimeError if async receivers of *sender* would have to run on a running event loop."""
        if (route := self._route(sender)).asynchronous:
            self._runner(route)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _as_sent(named: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the arguments for a receiver that is called later."""
    sent = dict(named)
    if "instance" in named:
        sent["instance"] = copy(named["instance"])
        if named.get("origin") is named["instance"]:
            sent["origin"] = sent["instance"]
    if "objects" in named:
        sent["objects"] = [copy(each) for each in named["objects"]]
    if "values" in named:
        sent["values"] = dict(named["values"])
    return sent


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
