"""`ModelSignal`, and all built-in signals, at the end of the file.

A model signal takes a model or its label as sender, and has four more options: *delivery*, *robust*,
*subclasses* and *skip_raw*.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from weakref import ReferenceType, WeakValueDictionary, ref

from sqlalchemy.sql import ClauseElement

from microorm.db.context import ReceiverScope
from microorm.db.engines.engine import connection_created
from microorm.db.routing import postpone
from microorm.dispatch.receivers import (
    Connection,
    Route,
    check_receiver,
    connection_key,
    source_location,
    warn_at,
)
from microorm.dispatch.signal import Signal, muted, receiver, run_coroutine
from microorm.dispatch.stored import STORED, stored_delivery
from microorm.instrumentation import NOTHING, STORE, Step, note, watchers
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

if TYPE_CHECKING:
    from typing import Unpack

    from microorm.outbox.options import DurableArguments

F = TypeVar("F", bound=Callable[..., Any])


class _Labelled:
    """A connection to a label: to the model that has it, and to each later model that replaces it.

    *held*: the receiver, checked and referenced as by any other connection. *arguments* are the other arguments of
    `Signal._connect`.
    """

    def __init__(
        self, signal: ModelSignal, identity: tuple[Registry, str, Hashable], held: Connection, *arguments: Any
    ) -> None:
        self._signal = signal
        self.held = held
        self.identity = identity
        self._arguments = arguments
        self._models: list[ReferenceType[Any]] = []

    def __repr__(self) -> str:
        return f"{self.held.module}.{self.held.qualname} ({self.held.location})"

    @property
    def alive(self) -> bool:
        """Whether the receiver has not been collected."""
        return self.held.alive

    @property
    def models(self) -> list[Any]:
        """The models that the receiver was connected to and that still exist."""
        return [model for each in self._models if (model := each()) is not None]

    def __call__(self, model: Any) -> None:
        """Connect the receiver to *model*, which has the label now."""
        if (receiver := self.held.receiver) is None:
            self._signal._prune()
            return
        self.held.ran = True  # now the connection to the model warns if it is lost
        self._signal._connect(receiver, model, *self._arguments)
        self._models = [*filter(ReferenceType.__call__, self._models), ref(model)]

    def forget(self) -> None:
        """Ignore later models with the label; existing connections remain."""
        registry, label, key = self.identity
        registry.forget_waiting(label, self)
        with self._signal._lock:
            self._signal._labelled.pop((id(registry), label, key), None)


class ModelSignal(Signal):
    """A signal about models: its senders are model classes."""

    # Concurrent receivers could open savepoints on one connection at the same time.
    concurrent: ClassVar[bool] = False
    instead: ClassVar[str] = "; await the call, as in `await book.asave()` for `book.save()`"

    def __init__(
        self, arguments: Iterable[str] | None = None, *, postponable: bool = False, through: bool = False
    ) -> None:
        """*arguments*: the names of what is sent; any if None. *postponable*: sent after a write.

        *through*: sent by the through models of many-to-many relations only.
        """
        super().__init__(arguments)
        self._postponable = postponable
        self._through = through
        # By the id of the registry, the label and the key of the connection; held by the registries.
        self._labelled: WeakValueDictionary[tuple[int, str, Hashable], _Labelled] = WeakValueDictionary()

    @property
    def waiting(self) -> tuple[tuple[str, Connection], ...]:
        """Pairs of label and connection, for labels that no model has yet."""
        waiting = [each for each in self._following() if each.alive and not each.models]
        return tuple((each.identity[1], each.held) for each in waiting)

    @staticmethod
    def all_waiting(registry: Registry) -> Iterator[tuple[str, str]]:
        """Yield the labels in *registry* that receivers of any signal wait for, and the name and place of each receiver."""
        for label, function in registry.waiting():
            if isinstance(function, _Labelled) and function.alive:
                yield label, repr(function)

    def connect(  # type: ignore[override]
        self,
        receiver: F,
        sender: type[Any] | str | None = None,
        weak: bool = True,
        dispatch_uid: object = None,
        *,
        delivery: Literal["immediate", "on_commit", "durable"] = "immediate",
        robust: bool = False,
        subclasses: bool = False,
        skip_raw: bool = False,
        registry: Registry | None = None,
        **durable: Unpack[DurableArguments],
    ) -> F:
        """Connect *receiver* to the signals of *sender*: a model, a label `"app.Model"`, or None for all models.

        The model of a label may be defined later, in *registry* (by default the default one); a model that replaces it
        gets its connections. *delivery*: `"on_commit"` calls the receiver after the commit, with copies of the
        arguments, and never after a rollback; `"durable"` stores the call in the same transaction, and a relay makes
        it, again and again until it succeeds. *robust*: an error of an `"on_commit"` receiver is logged. *subclasses*:
        also connect to models derived from *sender*. *skip_raw*: ignore raw saves. *durable*: options of a durable
        receiver, see `microorm.outbox`. The other arguments (*weak*, *dispatch_uid*) and the return value are those of
        `Signal.connect`.

        Raises `ValueError` for an unknown delivery, a signal without it, *robust* without `"on_commit"`, an invalid label, and
        a durable receiver without a `dispatch_uid` of its own; `TypeError` for an unknown option, and for a sender that is neither a class nor a label. Warns of a class that never sends the signal, such as an abstract
        model without *subclasses*.
        """
        if delivery not in ("immediate", "on_commit", *STORED):
            raise ValueError(
                f"delivery= must be 'immediate', 'on_commit' or 'durable', not {brief(delivery)}"
            )
        if delivery == "on_commit" and not self._postponable:
            raise ValueError("delivery='on_commit' is only available for signals sent after a write")
        if robust and delivery != "on_commit":
            raise ValueError("robust=True needs delivery='on_commit': an earlier error has to undo the write")
        options: dict[str, Any] = {} if delivery == "immediate" else {"delivery": delivery}
        flags = {"robust": robust, "subclasses": subclasses, "skip_raw": skip_raw}
        options |= {name: True for name, given in flags.items() if given}
        self._check_sender(sender)
        if delivery in STORED:
            checked = stored_delivery(delivery).check(self, receiver, dispatch_uid, durable)
            options |= {**checked, "stored": True}
            if sender is None:
                stored_delivery(delivery).connected(registry or default_registry)
        elif durable:
            raise TypeError(f"{next(iter(durable))}= needs delivery='durable'")
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
        """Remove the connection of *receiver*, or of *dispatch_uid*, to *sender*; return whether there was one.

        *registry*: that of a label, by default the default one. A label removes it from all models that have, had or
        will have the label; a class also from later models that replace it.
        """
        key, registry = connection_key(receiver, None, dispatch_uid), registry or default_registry
        if not isinstance(sender, str):
            for known in self._following(key):
                if sender is not None and known.identity[0].labelled(known.identity[1]) is sender:
                    known.forget()
            return super().disconnect(receiver, sender, dispatch_uid)
        check_label(sender)
        found = [each for each in self._following(key) if each.identity == (registry, sender, key)]
        models = [model for each in found for model in each.models]
        ended = any(not each.models and each.alive for each in found)
        for each in found:
            each.forget()
        for model in (*models, registry.labelled(sender)):
            if model is not None and super().disconnect(receiver, model, dispatch_uid):
                ended = True
        return ended

    def has_listeners(self, sender: object = None, *, registry: Registry | None = None) -> bool:
        """Whether a signal of *sender*, a model or its label in *registry*, would be received."""
        self._check_sender(sender)
        if not isinstance(sender, str):
            return super().has_listeners(sender)
        registry = registry or default_registry
        if (model := registry.labelled(sender)) is not None:
            return super().has_listeners(model)
        if super().has_listeners(None):
            return True
        return any(each.identity[:2] == (registry, sender) and each.alive for each in self._following())

    def receivers_for(
        self, sender: object = None, *, registry: Registry | None = None
    ) -> tuple[Connection, ...]:
        """Return the connections that a signal of *sender*, a model or its label in *registry*, would reach.

        As `Signal.receivers_for` does. Of a label that no model has yet: those of all senders, then those that wait for it.
        """
        self._check_sender(sender)
        if not isinstance(sender, str):
            return super().receivers_for(sender)
        registry = registry or default_registry
        if (model := registry.labelled(sender)) is not None:
            return super().receivers_for(model)
        waiting = [
            each.held for each in self._following() if each.identity[:2] == (registry, sender) and each.alive
        ]
        return (*super().receivers_for(None), *waiting)

    def _connect_label(
        self, receiver: Any, label: str, weak: bool, uid: object, options: dict[str, Any], registry: Registry
    ) -> None:
        check_receiver(receiver, self._arguments_for(options))
        held = Connection(receiver, None, uid, options, weak=weak, flag=self._dead.append)
        key = connection_key(receiver, None, uid)
        self._prune()
        with self._lock:
            known = self._labelled.get((id(registry), label, key))
            if known is not None and known.identity[0] is registry:
                if not held.replaces(known.held):
                    for model in known.models:
                        self._connect(receiver, model, weak, uid, options)
                    return
                known.forget()
            labelled = _Labelled(self, (registry, label, key), held, weak, uid, options)
            self._labelled[id(registry), label, key] = labelled
        registry.when_defined(label, labelled, always=True)

    def _following(self, key: Hashable = None) -> list[_Labelled]:
        with self._lock:
            return [each for each in self._labelled.values() if key is None or each.identity[2] == key]

    def _remove_dead(self, *, keep_lost: bool) -> list[Connection]:
        dead = super()._remove_dead(keep_lost=keep_lost)
        for each in self._following():
            if each.alive:
                continue
            if (successor := each.held.living_successor) is not None:
                each.held = successor
                continue
            if not (keep_lost and each.held.lost):
                each.forget()
            dead.append(each.held)
        return dead

    def _connect(
        self, receiver: Any, sender: Any, weak: bool, dispatch_uid: object, options: Mapping[str, Any]
    ) -> None:
        super()._connect(receiver, sender, weak, dispatch_uid, options)
        if "stored" in options and (model_options := getattr(sender, "__options__", None)) is not None:
            stored_delivery(options["delivery"]).connected(model_options.registry or default_registry)
        if sender is not None and "subclasses" not in options and (reason := self._silence_of(sender)):
            module, name, file, line = source_location(receiver)
            warn_at(f"receiver {name} will not be called: {reason}", RuntimeWarning, module, file, line)

    def _arguments_for(self, options: Mapping[str, Any]) -> frozenset[str] | None:
        if "stored" not in options or self._arguments is None:
            return self._arguments
        return self._arguments | stored_delivery(options["delivery"]).arguments

    def _silence_of(self, sender: Any) -> str | None:
        """Return why *sender*, a class, never sends this signal; None if it may."""
        if (options := getattr(sender, "__options__", None)) is None:
            return f"{sender.__name__}, to which it is connected, is not a model"
        if options.abstract:
            return f"{sender.__name__} is abstract and sends no signals; pass subclasses=True for those of its models"
        schema = sender.__dict__.get("__schema__")
        if self._through and schema is not None and len(schema.foreign_keys) < _SIDES:
            return (
                f"m2m_changed is sent by through models, and {sender.__name__} is not one; "
                f"use through({sender.__name__}.…), with the name of the relation"
            )
        return None

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

    def _call(self, route: Route, sender: Any, named: dict[str, Any], catch: Any) -> list[tuple[Any, Any]]:
        """Store the calls of stored receivers first: what the others change is not part of this event."""
        if route.stored:
            self._store(route, sender, [named])
        return super()._call(route, sender, named, catch)

    def _store(self, route: Route, sender: Any, calls: Sequence[dict[str, Any]]) -> None:
        """Store *calls* of the stored receivers of *route*; all of them are raw, or none is."""
        stored = self._accepting(route.stored, calls[0]) if calls[0].get("raw") else route.stored
        if stored:
            with Step(STORE, stored, alias=calls[0]["using"]) if watchers else NOTHING:
                stored_delivery(stored[0].options["delivery"]).store(self, stored, sender, calls)

    def _store_calls(self, sender: type[Any], calls: Sequence[dict[str, Any]]) -> None:
        """Store what several sends would store, all at once; each of *calls* has the arguments of a send."""
        if calls and not self._muted(sender):
            self._store(self._route(sender), sender, calls)

    def _send_unstored(self, sender: type[Any], **named: Any) -> list[tuple[Any, Any]]:
        """Send as `send` does, to the receivers whose calls are not stored."""
        route = self._route(sender)
        if not route.stored:
            return self.send(sender, **named)
        return self._send(Route(each for each in route if not each.stored), sender, named, ())

    def _deliver(self, connection: Connection, receiver: Any, sender: Any, named: Mapping[str, Any]) -> Any:
        if "delivery" not in connection.options:
            return receiver(signal=self, sender=sender, **named)
        databases, alias = sender.__schema__.registry.databases, named["using"]
        sent = _as_sent(named)

        def call(held: Any) -> None:
            result = held(signal=self, sender=sender, **sent)
            if connection.is_async:
                run_coroutine(_awaited(result))

        def deliver() -> None:
            if (held := connection.receiver) is None:  # collected in the meantime
                return
            ReceiverScope(databases, alias).run(call, held)

        deliver.__qualname__ = connection.qualname
        deliver.__dict__["connection"] = connection  # what is called, for those that watch
        if postpone(databases, alias, deliver, "robust" in connection.options):
            if watchers:
                note(waits=True)
            return None
        return ReceiverScope(databases, alias).run(receiver, signal=self, sender=sender, **sent)

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
        sent["instance"] = _as_it_is(named["instance"])
    if (origin := named.get("origin")) is not None:
        shared = origin is named.get("instance")
        sent["origin"] = sent["instance"] if shared else _as_it_is(origin)
    if "objects" in named:
        sent["objects"] = [*map(_as_it_is, named["objects"])]
    if "values" in named:
        sent["values"] = {name: _unshared(value) for name, value in named["values"].items()}
    return sent


def _as_it_is(instance: Any) -> Any:
    """Return a copy of *instance*, with copies of the values that can change in place; a query does not change."""
    if not hasattr(instance, "_row_state"):
        return instance
    twin, schema = copy(instance), instance.__schema__
    if schema.mutable:
        values = twin.__dict__
        for field in schema.fields:
            if field.mutable and field.name in values:
                values[field.name] = _unshared(values[field.name])
    return twin


def _unshared(value: Any) -> Any:
    """Return a copy of *value*, unless it is an SQL expression, or an instance that stands for its key."""
    return value if isinstance(value, ClauseElement) or hasattr(value, "_row_state") else deepcopy(value)


_SIDES = 2  # the foreign keys that a through model has at least
_SAVE = ("instance", "raw", "using", "update_fields")
_DELETE = ("instance", "using", "origin")
_UPDATE = ("query", "values", "using")

class_prepared = ModelSignal(())
pre_init = ModelSignal(("args", "kwargs"))
post_init = ModelSignal(("instance",))
pre_save = ModelSignal(_SAVE)
post_save = ModelSignal((*_SAVE, "created"), postponable=True)
pre_delete = ModelSignal(_DELETE)
post_delete = ModelSignal(_DELETE, postponable=True)
m2m_changed = ModelSignal(("instance", "action", "reverse", "model", "pk_set", "using", "raw"), through=True)
pre_bulk_create = ModelSignal(("objects", "using"))
post_bulk_create = ModelSignal(("objects", "using"), postponable=True)
pre_update = ModelSignal(_UPDATE)
post_update = ModelSignal((*_UPDATE, "count"), postponable=True)
pre_migrate = Signal(("using", "plan"))
post_migrate = Signal(("using", "plan"))
request_started = Signal(("environ", "scope"))
request_finished = Signal(("environ", "scope"))
got_request_exception = Signal(("exception", "environ", "scope"))
