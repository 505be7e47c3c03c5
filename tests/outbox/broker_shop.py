"""A shop in several processes: one produces and relays, others consume, and write what they did to a file.

`celery -A tests.outbox.broker_shop worker` is a worker of Celery; `python -m tests.outbox.broker_shop` runs a subscriber
of FastStream. Both are configured by the variable SHOP, a JSON.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import billiard.pool
from celery import Celery
from faststream import FastStream

from microorm import Databases, Field, Model, Registry, field
from microorm.cli.relay import stopped_by_signals
from microorm.outbox import Relay, Retry
from microorm.outbox.celery import CeleryTransport, register_task
from microorm.outbox.faststream import FastStreamTransport, subscribe
from microorm.signals import post_save
from tests.outbox.brokers import Queue

VARIABLE = "SHOP"
RETURNS_SOON = {
    "visibility_timeout": 3,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 3,  # held by a worker that was killed while it looked
}
"""Redis gives back after some seconds what a killed worker had, and not after hours."""
ENDS_SOON = 10
"""How often a process of Celery's pool looks at its end whether all its results were read, each 0.1 s.

It would look for half a minute, since a worker that ends does not always read them.
"""

databases = Databases()
registry = Registry(databases)
app: Celery
log: Path


class Order(Model, registry=registry, app="shop"):
    """What is saved; its name is in the log once it was delivered."""

    name: Field[str] = field(max_length=60, unique=True)


def charge(instance: Order, event: Any, **kwargs: Any) -> None:
    if instance.name.startswith("kills") and event.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if instance.name.startswith("fails") and event.attempt == 1:
        raise ValueError(instance.name)
    if instance.name.startswith("waits"):
        Path(f"{log}.{instance.name}").touch()
        while gate().exists():
            time.sleep(0.02)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "wb", buffering=0) as file:
        file.write(f"{instance.name}\n".encode())


def open_shop(url: str, file: str, broker: str = "", queue: str = "") -> None:
    """Configure the databases and the application of Celery, and connect the receiver."""
    global log  # a used application keeps its broker and queue
    log = Path(file)
    databases.configure(url)
    retry = Retry(max_attempts=1000, base=0.05)
    post_save.connect(charge, sender=Order, delivery="durable", dispatch_uid="charge", retry=retry)
    if broker:
        set_broker(broker, queue)


def set_broker(broker: str, queue: str) -> None:
    """Make the application of Celery, whose tasks are in *queue*."""
    global app
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = ENDS_SOON
    app = Celery("shop", set_as_current=False)
    app.conf.update(
        broker_url=broker,
        task_default_queue=queue,
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=(
            {**RETURNS_SOON, "unacked_mutex_key": f"{queue}.mutex"} if broker.startswith("redis") else {}
        ),
    )
    register_task(app, databases)


def close_shop() -> None:
    registry.drop_all()
    databases.close()
    post_save.disconnect(sender=Order, dispatch_uid="charge")


def delivered() -> list[str]:
    return sorted(log.read_text().splitlines()) if log.exists() else []


def gate() -> Path:
    """A file; while it exists, receivers wait in orders whose name begins with *waits*."""
    return Path(f"{log}.gate")


def begun() -> list[str]:
    """The orders whose receiver has waited, or waits."""
    return sorted(path.name.removeprefix(f"{log.name}.") for path in log.parent.glob(f"{log.name}.waits*"))


def relay(queue: Queue) -> None:
    """Publish until the process is killed."""
    transport = FastStreamTransport(queue.broker(), queue.queue, timeout=5)
    Relay(databases, batch=10, lease=2, idle=0.02, transport=transport).run()


def consume(queue: Queue) -> None:
    """Deliver until the process is killed."""

    async def main() -> None:
        broker = queue.broker()
        subscribe(broker, queue.queue, databases, workers=2, redeliver_after=2)
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(main())


def run_consumer(queue: Queue) -> None:
    """Deliver until SIGTERM, as an application of FastStream does."""
    broker = queue.broker()
    subscribe(broker, queue.queue, databases, workers=2, redeliver_after=2)
    asyncio.run(FastStream(broker, logger=None).run())


if VARIABLE in os.environ:
    open_shop(**json.loads(os.environ[VARIABLE]))


def relay_until_stopped(transport: Any) -> None:
    """Publish small batches by *transport*, as the command does, until SIGTERM."""
    worker = Relay(databases, batch=5, idle=0.02, transport=transport)
    with stopped_by_signals(worker):
        worker.run()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["relay", "celery"]:
            relay_until_stopped(CeleryTransport(app))
        case ["relay", *names]:
            queue = Queue(*names)
            relay_until_stopped(FastStreamTransport(queue.broker(), queue.queue))
        case names:
            run_consumer(Queue(*names))
