"""Brokers: where those of the tests are, a queue of its own for each test, and connections that break on purpose."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

ADDRESSES = {
    "rabbit": os.environ.get("MICROORM_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672/"),
    "redis": os.environ.get("MICROORM_TEST_REDIS", "redis://127.0.0.1:6379/0"),
    "nats": os.environ.get("MICROORM_TEST_NATS", "nats://127.0.0.1:4222"),
}
EXPIRES = 600_000  # milliseconds: what a killed test leaves behind is gone by then


def required(kind: str) -> str:
    """The address of a broker; skips the test if it does not answer, unless `CI` is set."""
    address = urlsplit(ADDRESSES[kind])
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except OSError as error:
        import pytest  # not by the programs that tests start: it would be half of what they import

        message = f"no {kind} at {address.hostname}:{address.port} (MICROORM_TEST_… names another): {error}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return ADDRESSES[kind]


class Proxy:
    """A server that hands bytes on to another. *deaf*: no answer comes back. *closed*: nobody is let in."""

    def __init__(self, address: str) -> None:
        target = urlsplit(address)
        self.target = (target.hostname, target.port)
        self.deaf = self.closed = False
        self.open: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.address = address.replace(f"{target.hostname}:{target.port}", f"127.0.0.1:{port}")
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections."""
        for each in self.open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.open.clear()

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.closed:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not (answers and self.deaf):
                    target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class Queue:
    """A queue that no other test has, on the broker of *kind*; or the one with this *name*."""

    def __init__(self, kind: str, name: str | None = None) -> None:
        self.kind = kind
        self.address = required(kind)
        self.name = name or f"microorm_test_{uuid4().hex[:12]}"

    def broker(self, address: str | None = None) -> Any:
        """A broker of FastStream, at the *address* of a proxy, for example."""
        address = address or self.address
        quiet: dict[str, Any] = {"logger": None}
        if self.kind == "rabbit":
            from faststream.rabbit import RabbitBroker

            return RabbitBroker(address, **quiet)
        if self.kind == "redis":
            from faststream.redis import RedisBroker

            return RedisBroker(address, **quiet)
        from faststream.nats import NatsBroker

        return NatsBroker(address, max_reconnect_attempts=-1, reconnect_time_wait=0.1, **quiet)

    @property
    def queue(self) -> Any:
        """What the transport and the subscriber are given."""
        if self.kind == "rabbit":
            from faststream.rabbit import RabbitQueue

            return RabbitQueue(self.name, durable=True, arguments={"x-expires": EXPIRES})
        return self.name

    def send(self, *bodies: bytes) -> None:
        """Publish *bodies* as somebody would that is no transport."""

        async def send(broker: Any, client: Any) -> None:
            for body in bodies:
                if self.kind == "rabbit":
                    await broker.publish(
                        body, self.queue, content_type="application/json", reply_to=self.name
                    )
                elif self.kind == "redis":
                    await client.xadd(self.name, {"__data__": body})
                    await client.xadd(self.name, {"another": body})
                else:
                    await client.jetstream().publish(self.name, body)

        self._run(send)

    def count(self) -> int:
        """How many messages are in the queue, delivered or not."""

        async def count(broker: Any, client: Any) -> int:
            if self.kind == "rabbit":
                async with client.channel() as channel:
                    queue = await channel.declare_queue(self.name, passive=True)
                    return queue.declaration_result.message_count
            if self.kind == "redis":
                return await client.xlen(self.name)
            return (await client.jetstream().stream_info(self.name)).state.messages

        return self._run(count)

    def remove(self) -> None:
        async def remove(broker: Any, client: Any) -> None:
            with suppress(Exception):
                if self.kind == "rabbit":
                    async with client.channel() as channel:
                        await channel.queue_delete(self.name)
                elif self.kind == "redis":
                    await client.delete(self.name)
                else:
                    await client.jetstream().delete_stream(self.name)

        self._run(remove)

    def _run(self, function: Callable[[Any, Any], Any]) -> Any:
        async def main() -> Any:
            broker = self.broker()
            client = await broker.connect()
            try:
                return await function(broker, client)
            finally:
                await broker.stop()

        return asyncio.run(main())


def remove_tasks(app: Any) -> None:
    """Remove the queue of *app*, an application of Celery, and what its client has noted of it."""
    name = app.conf.task_default_queue
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(name)
        if connection.transport.driver_type == "redis":
            client = connection.default_channel.client
            client.delete(name, *(f"_kombu.{kind}.{name}" for kind in ("binding", "binding_permanent")))


@contextmanager
def running(broker: Any) -> Iterator[None]:
    """Run the subscribers of *broker* in a thread, as an application would."""
    started = threading.Event()
    errors: list[BaseException] = []
    loop: Any = None
    stop: Any = None

    async def main() -> None:
        nonlocal loop, stop
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await broker.start()
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            started.set()
        await stop.wait()
        await broker.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    started.wait()
    assert not errors, errors
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
