"""Celery: events are tasks, and its workers call the receivers.

    transport = CeleryTransport(app)     # for Relay(transport=…), or `microorm relay --transport`
    register_task(app)                   # in the module of the worker's application, after the models

A row leaves the outbox when the broker has confirmed the task. Needs the extra `celery`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.exceptions import Reject

from microorm.db.databases import Databases
from microorm.errors import ConfigurationError, InvalidEvent, UnknownReceiver
from microorm.messages import brief
from microorm.outbox.consumer import PAUSE, Consumer, dump_message, message_id, unconfirmed
from microorm.outbox.event import Delivered, Message

TASK = "microorm.deliver"
"""The name of the task that calls the receivers."""


class CeleryTransport:
    """Publishes each event as a task of *app*, which `register_task` gives to its workers.

    *queue*: of the tasks; by default as *app* routes them. *timeout*: for how many seconds the broker is waited for. RabbitMQ
    confirms each task, whatever the settings of *app* are; Redis has a task when it has answered. On Redis a worker of Celery
    that is killed may lose a task that it has just taken; RabbitMQ loses none.
    """

    def __init__(self, app: Celery, queue: str | None = None, *, timeout: float = 10.0) -> None:
        self._app = app
        self._queue = queue
        self._timeout = timeout
        self._connection: Any = None
        self._producer: Any = None

    def publish(self, events: Iterable[Message]) -> Collection[str]:
        """Publish *events* one after another; return the `id` of those that the broker has confirmed."""
        done: set[str] = set()
        unreachable: BaseException | None = None
        for message in list(events):
            if unreachable is None:
                try:
                    unreachable = self._send(message)
                except (InvalidEvent, UnknownReceiver) as error:
                    message.error = error
                    continue
                except Exception as error:  # noqa: BLE001 each broker raises its own
                    self.close()  # whether it is usable after an error is not known
                    message.error = unconfirmed(error)
                    continue
            if unreachable is None:
                done.add(message.id)
            else:
                message.error = unconfirmed(unreachable)
        return done

    def close(self) -> None:
        """Close the connection. The next event opens it again."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # it was lost
                connection.release()

    def _send(self, message: Message) -> BaseException | None:
        """Publish *message*. Return the error if the broker cannot be reached, and raise that of the message alone."""
        text = dump_message(message)
        if self._producer is None:
            try:
                self._connect()
            except Exception as error:  # noqa: BLE001 each broker raises its own
                self.close()
                return error
        self._app.send_task(
            TASK,
            args=[text],
            task_id=message_id(message),
            producer=self._producer,
            queue=self._queue,
            serializer="json",
            compression=None,
            delivery_mode="persistent",
            ignore_result=True,
            retry=False,
            confirm_timeout=self._timeout,
        )
        return None

    def _connect(self) -> None:
        options = {"confirm_publish": True, "read_timeout": self._timeout, "write_timeout": self._timeout}
        if self._app.connection_for_write().transport_cls not in ("amqp", "pyamqp"):
            options = {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
        self._connection = self._app.connection_for_write(
            transport_options=options, connect_timeout=self._timeout
        )
        self._connection.connect()
        self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)


def register_task(
    app: Celery,
    databases: Databases | None = None,
    *,
    observe: Callable[[Delivered], object] | None = None,
) -> Any:
    """Register the task by which the workers of *app* call the durable receivers of their process, and return it.

    *databases*: by default the default ones. *observe*: as that of `Relay`. The task takes JSON alone, is acknowledged after the
    receiver, and comes again if its worker was killed. An event whose receiver fails goes back to the outbox of its database;
    what is no event is discarded, with an error in the log.

    Raises `ConfigurationError` if *app* accepts other content than JSON.
    """
    accepted = set(app.conf.accept_content or ())
    if accepted - {"json", "application/json"}:
        raise ConfigurationError(
            f"the workers of {brief(app.main)} accept {', '.join(sorted(map(str, accepted)))}; events are JSON, and a message in another "
            "format may run code: set accept_content=['json']"
        )
    consumer = Consumer(databases, observe=observe)

    def deliver(task: Any, text: Any) -> None:
        redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
        verdict = consumer.take(text, redelivered=redelivered)
        if verdict == "keep":
            time.sleep(PAUSE)
        if verdict != "done":
            raise Reject(verdict, requeue=verdict == "keep")

    options: dict[str, Any] = {
        "name": TASK,
        "bind": True,
        "acks_late": True,
        "acks_on_failure": False,  # such as that of a message with other arguments, which is discarded
        "acks_on_timeout": False,  # it comes again, as after a kill
        "reject_on_worker_lost": True,
        "ignore_result": True,
        "serializer": "json",
    }
    return app.task(**options)(deliver)
