"""SIGTERM, as a supervisor sends it: relays and consumers of real brokers end by themselves, and no event is lost."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from microorm.outbox.celery import CeleryTransport
from microorm.outbox.faststream import FastStreamTransport
from tests.outbox import broker_shop
from tests.outbox.brokers import Queue, remove_tasks, required
from tests.programs import ROOT, Program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.timeout(300),
    pytest.mark.backends("sqlite-file"),
    # The client of NATS leaves the stream of a broken connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE = 90  # seconds; no test takes so long
NAMES = [f"n{number:03}" for number in range(120)]
TWICE = 6  # at most, of what a broker had given to a process that ended


def wait_for(found: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


def left() -> int:
    """How many rows the outbox has."""
    store = broker_shop.Relay(broker_shop.databases).store("default")
    with broker_shop.databases.connection() as connection:
        return len(connection.execute(store.waiting.select()).fetchall())


@contextmanager
def started(*arguments: str, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=Program(ROOT).environment() | {broker_shop.VARIABLE: json.dumps(settings), "C_FORCE_ROOT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[dict[str, str]]:
    made = {"url": f"sqlite:///{tmp_path}/shop.db?timeout=30", "file": str(tmp_path / "log")}
    broker_shop.open_shop(**made)
    broker_shop.registry.create_all()
    with broker_shop.databases.atomic():
        for name in NAMES:
            broker_shop.Order(name=name).save()
    yield made
    with suppress(Exception):
        broker_shop.app.close()
    broker_shop.close_shop()


def ended(process: "subprocess.Popen[str]") -> str:
    """Send SIGTERM once; return what the program has printed. It has to end by itself, and not with an error.

    What an earlier program had been given by its broker, and not begun with, comes again: that is logged.
    """
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert output.count("Traceback") == output.count("errors.RedeliveredError: "), output
    return output


@pytest.mark.parametrize("kind", ["rabbit", "redis", "nats"])
def test_a_relay_and_a_consumer_of_faststream_end_by_sigterm_and_lose_nothing(kind, settings) -> None:
    queue = Queue(kind)
    try:
        with started("-m", "tests.outbox.broker_shop", "relay", kind, queue.name, **settings) as relay:
            wait_for(lambda: left() < len(NAMES) or relay.poll() is not None)
            ended(relay)
        store = broker_shop.Relay(broker_shop.databases).store("default")
        assert store.claim(1, 60, 65_536, lost=True) == [], "nothing stays claimed"
        transport = FastStreamTransport(queue.broker(), queue.queue)
        broker_shop.Relay(broker_shop.databases, transport=transport).drain()
        with started("-m", "tests.outbox.broker_shop", kind, queue.name, **settings) as consumer:
            wait_for(broker_shop.delivered)
            ended(consumer)
        with started("-m", "tests.outbox.broker_shop", kind, queue.name, **settings) as consumer:
            relay = broker_shop.Relay(broker_shop.databases, transport=transport)
            wait_for(lambda: (relay.drain(), set(broker_shop.delivered()) == set(NAMES))[1])
            ended(consumer)
        transport.close()
        assert len(broker_shop.delivered()) <= len(NAMES) + TWICE
    finally:
        queue.remove()


@pytest.mark.parametrize("kind", ["rabbit", "redis"])
def test_a_relay_and_a_worker_of_celery_end_by_sigterm_and_lose_nothing(kind, settings) -> None:
    address, name = required(kind), f"microorm_test_{uuid4().hex[:12]}"
    broker_shop.set_broker(address, name)
    settings |= {"broker": address, "queue": name}
    worker = ["-m", "celery", "-A", "tests.outbox.broker_shop", "worker", "-n", f"{name}@%h", "-c", "2"]
    worker += ["-l", "WARNING", "--without-gossip", "--without-mingle"]
    try:
        with started("-m", "tests.outbox.broker_shop", "relay", "celery", **settings) as relay:
            wait_for(lambda: left() < len(NAMES) or relay.poll() is not None)
            ended(relay)
        transport = CeleryTransport(broker_shop.app)
        broker_shop.Relay(broker_shop.databases, transport=transport).drain()
        with started(*worker, **settings) as first:
            wait_for(broker_shop.delivered)
            ended(first)
        with started(*worker, **settings) as second:
            relay = broker_shop.Relay(broker_shop.databases, transport=transport)
            wait_for(lambda: (relay.drain(), set(broker_shop.delivered()) == set(NAMES))[1])
            ended(second)
        transport.close()
        assert len(broker_shop.delivered()) <= len(NAMES) + TWICE
    finally:
        remove_tasks(broker_shop.app)
