"""FastStream: events go to RabbitMQ, Redis, NATS or Kafka, and subscribers call the receivers.

    transport = FastStreamTransport(RabbitBroker(url))     # for Relay(transport=…), or `microorm relay --transport`
    subscribe(RabbitBroker(url), workers=4)                # in the application that calls the receivers

A row leaves the outbox when the broker has confirmed the message: a publisher confirm of RabbitMQ, the acknowledgement of a
JetStream, the identifier of a stream's entry in Redis, the metadata of a record in Kafka. Needs the extra `faststream`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from faststream import AckPolicy, Context
from faststream.exceptions import AckMessage, NackMessage, RejectMessage

from microorm.db.databases import Databases
from microorm.errors import InvalidEvent, PublishError, UnknownReceiver
from microorm.messages import brief
from microorm.outbox.consumer import PAUSE, Consumer, dump_message, message_id, unconfirmed
from microorm.outbox.event import Delivered, Message

QUEUE = "microorm"
"""The queue, stream or topic of the events, unless another is named."""

Subscriber = tuple[tuple[Any, ...], Mapping[str, Any], bool]

T = TypeVar("T")

_MESSAGE: Any = Context("message")


class FastStreamTransport:
    """Publishes events by *broker*, a broker of FastStream, to the *queue* to which `subscribe` listens.

    *queue*: the name of a queue of RabbitMQ, a stream of Redis or NATS, or a topic of Kafka; or a `RabbitQueue` or `JStream`.
    It is made if it does not exist. *timeout*: for how many seconds a confirmation is waited for.

    The broker is connected at the first event, in a thread with an event loop of its own, so that the connection is kept alive
    between batches; it is to be used by nothing else. `close()` closes it. While it cannot be reached, events stay in the outbox.
    """

    def __init__(self, broker: Any, queue: Any = QUEUE, *, timeout: float = 10.0) -> None:
        self._adapter = adapter_of(broker, queue)
        self._broker = broker
        self._timeout = timeout
        self._loop: _Loop | None = None
        self._prepared = False

    def publish(self, events: Iterable[Message]) -> Collection[str]:
        """Publish *events* all at once; return the `id` of those that the broker has confirmed."""
        messages = list(events)
        if not messages:
            return ()
        if self._loop is None:
            self._loop = _Loop()
        return self._loop.run(self._publish(messages))

    def close(self) -> None:
        """Close the connection, and end the thread. The next event opens them again."""
        loop, self._loop, self._prepared = self._loop, None, False
        if loop is not None:
            try:
                loop.run(self._stop())
            finally:
                loop.close()

    async def _publish(self, messages: list[Message]) -> set[str]:
        try:
            async with asyncio.timeout(self._timeout):
                if not self._prepared:
                    await self._adapter.prepare(await self._broker.connect())
                    self._prepared = True
        except Exception as error:  # noqa: BLE001 each broker raises its own
            for message in messages:
                message.error = unconfirmed(error)
            return set()
        tasks = {asyncio.ensure_future(self._confirmed(message)): message for message in messages}
        _, late = await asyncio.wait(tasks, timeout=self._timeout)
        for task in late:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        done = set()
        for message, result in zip(tasks.values(), results, strict=True):
            if result is None:
                done.add(message.id)
            else:
                late_or_failed = TimeoutError() if isinstance(result, asyncio.CancelledError) else result
                own = isinstance(result, (InvalidEvent, UnknownReceiver))
                message.error = result if own else unconfirmed(late_or_failed)
                self._prepared = False  # the queue may be gone
        return done

    async def _confirmed(self, message: Message) -> None:
        await self._adapter.publish(dump_message(message), message, self._timeout)

    async def _stop(self) -> None:
        async with asyncio.timeout(self._timeout):
            await self._broker.stop()


def subscribe(
    broker: Any,
    queue: Any = QUEUE,
    databases: Databases | None = None,
    *,
    workers: int = 1,
    redeliver_after: float = 60.0,
    observe: Callable[[Delivered], object] | None = None,
) -> None:
    """Have *broker*, when its application starts, deliver the events in *queue* to the durable receivers of this process.

    *databases*: by default the default ones. *workers*: how many events are delivered at once, in threads; only with 1, in one
    process, does the order of the queue hold. *redeliver_after*: after how many seconds Redis and NATS deliver an event again
    that was not acknowledged, because its process was killed; a receiver may not take longer. *observe*: as that of `Relay`.

    An event whose receiver fails goes back to the outbox of its database. What is no event is discarded, with an error in the
    log; RabbitMQ moves it to the dead-letter exchange of the queue, if there is one.
    """
    if type(workers) is not int or workers < 1:
        raise ValueError(f"workers= must be a positive int, not {brief(workers)}")
    adapter, consumer = adapter_of(broker, queue), Consumer(databases, observe=observe)
    pool = ThreadPoolExecutor(workers, "microorm receiver")
    common = {"ack_policy": adapter.policy, "decoder": _undecoded, "no_reply": True}
    for names, options, again in adapter.subscribers(workers, redeliver_after):
        broker.subscriber(*names, **options, **common)(_handler(adapter, consumer, pool, again=again))


def _handler(
    adapter: Adapter, consumer: Consumer, pool: Executor, *, again: bool
) -> Callable[..., Coroutine[Any, Any, None]]:
    async def deliver(body: Any, message: Any = _MESSAGE) -> None:
        redelivered = again or adapter.redelivered(message)
        take = partial(consumer.take, message.body, redelivered=redelivered)
        verdict = await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, take)
        if verdict == "keep":
            await asyncio.sleep(PAUSE)
            raise NackMessage
        await adapter.forget(message)
        if verdict == "discard" and adapter.rejects:
            raise RejectMessage
        raise AckMessage

    return deliver


async def _undecoded(message: Any) -> Any:
    """Return the bytes of *message*, which are parsed within limits later."""
    return message.body


class _Loop:
    """An event loop that runs in a thread until it is closed."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="microorm transport", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* on the loop and return its result; an interrupt of this thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is left, and end the thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stopped.wait()


class Adapter:
    """What differs from broker to broker. *queue*: as `FastStreamTransport` takes it."""

    rejects = True
    """Whether the broker is to be told of a message that is discarded, and not only that it is done."""

    policy = AckPolicy.REJECT_ON_ERROR
    """What FastStream does with a message that it cannot even take apart."""

    def __init__(self, broker: Any, queue: Any) -> None:
        self.broker = broker
        self.name: str = queue if isinstance(queue, str) else queue.name
        self.queue: Any = queue

    async def prepare(self, client: Any) -> None:
        """Make the queue if it does not exist; *client* is what `broker.connect()` has returned."""

    async def publish(self, text: str, message: Message, timeout: float) -> None:
        """Publish *text*, and return when the broker has confirmed it."""
        raise NotImplementedError

    def subscribers(self, workers: int, redeliver_after: float) -> Iterable[Subscriber]:
        """Yield the arguments of each subscriber, and whether it gets only what was delivered before."""
        raise NotImplementedError

    def redelivered(self, message: Any) -> bool:
        """Return whether the broker has delivered *message* before, as far as it says so."""
        return False

    async def forget(self, message: Any) -> None:
        """Remove *message* where its acknowledgement alone would leave it."""


class Rabbit(Adapter):
    """A queue of RabbitMQ, which survives a restart, as do its messages."""

    def __init__(self, broker: Any, queue: Any) -> None:
        from faststream.rabbit import RabbitQueue  # noqa: PLC0415 of this broker alone

        super().__init__(broker, RabbitQueue(queue, durable=True) if isinstance(queue, str) else queue)

    async def prepare(self, client: Any) -> None:
        # Not by the broker, which declares a queue only once, even if that was deleted.
        queue = self.queue
        async with client.channel() as channel:
            await channel.declare_queue(
                queue.name,
                durable=queue.durable,
                exclusive=queue.exclusive,
                passive=not queue.declare,
                auto_delete=queue.auto_delete,
                arguments=queue.arguments,
            )

    async def publish(self, text: str, message: Message, timeout: float) -> None:
        from pamqp.commands import Basic  # noqa: PLC0415 of this broker alone

        identifier = message_id(message)
        confirmation = await self.broker.publish(
            text,
            self.queue,
            persist=True,
            mandatory=True,
            timeout=timeout,
            content_type="application/json",
            correlation_id=identifier,
            message_id=identifier,
        )
        if not isinstance(confirmation, Basic.Ack):
            raise PublishError(
                f"{type(confirmation).__name__} is no confirmation: the queue {self.name!r} does not exist, or the broker was made "
                "with publisher_confirms=False"
            )

    def subscribers(self, workers: int, redeliver_after: float) -> Iterable[Subscriber]:
        from faststream.rabbit import Channel  # noqa: PLC0415 of this broker alone

        yield (self.queue,), {"channel": Channel(prefetch_count=workers)}, False

    def redelivered(self, message: Any) -> bool:
        return bool(message.raw_message.redelivered)


class Nats(Adapter):
    """A JetStream whose messages are removed when they are acknowledged, and a durable consumer of it."""

    def __init__(self, broker: Any, queue: Any) -> None:
        from faststream.nats import JStream  # noqa: PLC0415 of this broker alone
        from nats.js.api import RetentionPolicy  # noqa: PLC0415 of this broker alone

        if isinstance(queue, str):
            queue = JStream(queue, subjects=[queue], retention=RetentionPolicy.WORK_QUEUE)
        super().__init__(broker, queue)

    async def prepare(self, client: Any) -> None:
        await client.jetstream().add_stream(self.queue.config)

    async def publish(self, text: str, message: Message, timeout: float) -> None:
        # Not as Nats-Msg-Id, by which an event that is tried again would be taken for a duplicate.
        await self.broker.publish(
            text, self.name, stream=self.name, timeout=timeout, correlation_id=message_id(message)
        )

    def subscribers(self, workers: int, redeliver_after: float) -> Iterable[Subscriber]:
        from faststream.nats import PullSub  # noqa: PLC0415 of this broker alone
        from nats.js.api import ConsumerConfig  # noqa: PLC0415 of this broker alone

        options: dict[str, Any] = {
            "stream": self.queue,
            "durable": self.name,
            "config": ConsumerConfig(ack_wait=redeliver_after),
            "pull_sub": PullSub(batch_size=workers),
        }
        yield (self.name,), options, False

    def redelivered(self, message: Any) -> bool:
        return bool(message.raw_message.metadata.num_delivered > 1)


class Redis(Adapter):
    """A stream of Redis with one group of consumers; entries are removed when they are acknowledged."""

    rejects = False

    async def prepare(self, client: Any) -> None:
        """Make the group before the first event, since a group that is made later does not get it."""
        from redis.exceptions import ResponseError  # noqa: PLC0415 of this broker alone

        try:
            await client.xgroup_create(self.name, self.name, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def publish(self, text: str, message: Message, timeout: float) -> None:
        await self.broker.publish(text, stream=self.name, correlation_id=message_id(message))

    def subscribers(self, workers: int, redeliver_after: float) -> Iterable[Subscriber]:
        from faststream.redis import StreamSub  # noqa: PLC0415 of this broker alone

        own = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        for idle in (None, round(redeliver_after * 1000)):
            stream = StreamSub(
                self.name, group=self.name, consumer=own, max_records=workers, min_idle_time=idle
            )
            yield (), {"stream": stream, "parser": _parsed, **_at_once(workers)}, idle is not None

    async def forget(self, message: Any) -> None:
        await message.delete()


async def _parsed(entry: Any, parse: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Parse an *entry* of a stream; one that cannot be taken apart would otherwise be delivered for ever."""
    try:
        return await parse(entry)
    except Exception:  # noqa: BLE001 whatever a decoder raises
        return await parse({**entry, "data": {b"__data__": b"not readable"}})


class Kafka(Adapter):
    """A topic of Kafka; the events of one row have one key, so that they are in one partition."""

    rejects = False
    policy = AckPolicy.ACK  # Kafka has no rejection

    async def publish(self, text: str, message: Message, timeout: float) -> None:
        key = None if message.order_key is None else message.order_key.encode()
        await self.broker.publish(text, self.name, key=key, correlation_id=message_id(message))

    def subscribers(self, workers: int, redeliver_after: float) -> Iterable[Subscriber]:
        options = {"group_id": self.name, "auto_offset_reset": "earliest", **_at_once(workers)}
        yield (self.name,), options, False


def _at_once(workers: int) -> dict[str, int]:
    return {"max_workers": workers} if workers > 1 else {}


ADAPTERS: Mapping[str, type[Adapter]] = {"rabbit": Rabbit, "nats": Nats, "redis": Redis, "kafka": Kafka}


def adapter_of(broker: Any, queue: Any) -> Adapter:
    """Return what knows the kind of *broker*. Raises `TypeError` for what is no broker of FastStream that is supported."""
    for each in type(broker).__mro__:
        for kind, adapter in ADAPTERS.items():
            if each.__module__.startswith(f"faststream.{kind}."):
                return adapter(broker, queue)
    raise TypeError(
        f"a RabbitBroker, RedisBroker, NatsBroker or KafkaBroker of FastStream is needed, not {brief(broker)}"
    )
