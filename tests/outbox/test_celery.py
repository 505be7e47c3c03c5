"""Events as tasks of Celery: over RabbitMQ and Redis, with real workers."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from celery import Celery

from microorm.errors import ConfigurationError
from microorm.outbox import Retry
from microorm.outbox.celery import TASK, CeleryTransport, register_task
from tests.outbox import broker_shop
from tests.outbox.brokers import Proxy, remove_tasks, required
from tests.programs import ROOT, Program

pytestmark = [pytest.mark.server, pytest.mark.backends("sqlite-file")]

PATIENCE = 90  # seconds; no test takes so long
KINDS = ["rabbit", "redis"]


@pytest.fixture(params=KINDS)
def address(request) -> str:
    return required(request.param)


@pytest.fixture
def app(address) -> Iterator[Celery]:
    made = an_app(address, f"microorm_test_{uuid4().hex[:12]}")
    yield made
    remove_tasks(made)
    made.close()


def an_app(address: str, queue: str) -> Celery:
    made = Celery("shop", broker=address, set_as_current=False)
    made.conf.update(task_default_queue=queue, accept_content=["json"])
    return made


def count(app: Celery) -> int:
    """How many tasks wait."""
    with app.connection_for_write() as connection:
        return connection.default_channel.queue_declare(
            app.conf.task_default_queue, passive=True
        ).message_count


def wait_for(found: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.05)


def test_a_row_leaves_the_outbox_when_the_broker_has_its_task(shop, app) -> None:
    shop.note()
    shop.registry.create_all()
    for name in "abc":
        shop.Order(name=name).save()
    transport = CeleryTransport(app)
    assert shop.relay(transport=transport).drain() == 3
    assert (shop.rows(), shop.calls, count(app)) == ([], [], 3)
    transport.close()


def test_a_task_is_json_and_its_id_is_that_of_event_and_receiver(shop, app) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    (event,) = [row.event for row in shop.rows()]
    transport = CeleryTransport(app)
    shop.relay(transport=transport).drain()
    transport.close()
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(app.conf.task_default_queue, no_ack=True)
        message = (
            connection.default_channel.message_to_python(message) if isinstance(message, dict) else message
        )
    assert message.content_type == "application/json"
    assert message.headers["id"] == f"{event}:charge"
    assert message.headers["task"] == TASK
    assert json.loads(json.loads(message.body)[0][0])["receiver"] == "charge"


def test_events_stay_in_the_outbox_while_the_broker_is_down_and_no_attempt_counts(shop, app, address) -> None:
    shop.note(retry=Retry(max_attempts=1, base=0))
    shop.registry.create_all()
    for name in "ab":
        shop.Order(name=name).save()
    proxy = Proxy(address)
    proxy.closed = True
    transport = CeleryTransport(an_app(proxy.address, app.conf.task_default_queue), timeout=1)
    relay = shop.relay(transport=transport)
    assert relay.run_once() == 2
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)] * 2
    proxy.closed = False
    shop.pass_time()
    relay.drain()
    assert (shop.rows(), count(app)) == ([], 2)
    transport.close()
    proxy.close()


def test_a_task_whose_confirmation_is_lost_is_published_again(shop, app, address) -> None:
    shop.note()
    shop.registry.create_all()
    proxy = Proxy(address)
    transport = CeleryTransport(an_app(proxy.address, app.conf.task_default_queue), timeout=1)
    relay = shop.relay(transport=transport)
    shop.Order(name="first").save()
    assert relay.drain() == 1
    shop.Order(name="second").save()
    proxy.deaf = True
    relay.run_once()
    wait_for(lambda: count(app) == 2)
    assert [row.attempts for row in shop.rows()] == [0], "the broker has it, and the relay does not know"
    proxy.cut()
    proxy.deaf = False
    wait_for(lambda: (shop.pass_time(), relay.run_once(), shop.rows())[2] == [])
    assert count(app) == 3
    transport.close()
    proxy.close()


def test_an_application_that_accepts_pickle_is_refused() -> None:
    app = Celery("shop", set_as_current=False)
    app.conf.accept_content = ["json", "pickle"]
    with pytest.raises(ConfigurationError, match="set accept_content=\\['json'\\]"):
        register_task(app)


def test_the_task_is_acknowledged_late_and_comes_again_after_a_kill(databases) -> None:
    app = Celery("shop", set_as_current=False)
    task = register_task(app, databases)
    assert (task.name, task.serializer, task.acks_late, task.reject_on_worker_lost, task.acks_on_timeout) == (
        TASK,
        "json",
        True,
        True,
        False,
    )


@pytest.fixture
def working(address, tmp_path) -> Iterator[Callable[[], object]]:
    """Runs a worker of Celery for the shop of tests.outbox.broker_shop."""
    queue = f"microorm_test_{uuid4().hex[:12]}"
    settings = {
        "url": f"sqlite:///{tmp_path}/shop.db?timeout=30",
        "file": str(tmp_path / "log"),
        "broker": address,
        "queue": queue,
    }
    broker_shop.open_shop(**settings)
    broker_shop.registry.create_all()

    @contextmanager
    def work() -> Iterator[subprocess.Popen[bytes]]:
        output = (tmp_path / "output").open("ab")
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tests.outbox.broker_shop",
                "worker",
                "-n",
                f"{queue}@%h",
                "-c",
                "2",
                "-l",
                "INFO",
                "--without-gossip",
                "--without-mingle",
            ],
            cwd=ROOT,
            env=Program(ROOT).environment()
            | {broker_shop.VARIABLE: json.dumps(settings), "C_FORCE_ROOT": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield worker
        finally:
            worker.terminate()
            worker.wait(60)
            output.close()

    yield work
    remove_tasks(broker_shop.app)
    broker_shop.close_shop()


@pytest.mark.slow
def test_a_worker_delivers_and_neither_failures_nor_kills_nor_hostile_messages_stop_it(
    working, tmp_path
) -> None:
    names = sorted(["a", "fails", "b", "kills", "c"])
    for name in names:
        broker_shop.Order(name=name).save()
    transport = CeleryTransport(broker_shop.app)
    relay = broker_shop.Relay(broker_shop.databases, transport=transport)
    with working():
        with broker_shop.app.connection_for_write() as connection:
            queue = broker_shop.app.conf.task_default_queue
            producer = broker_shop.app.amqp.Producer(connection)
            headers = {"task": TASK, "id": uuid4().hex, "lang": "py"}
            deep = b"[" * 100_000 + b"]" * 100_000
            for body, kind, encoding in [
                (pickle.dumps(((Boom(),), {}, {})), "application/x-python-serialize", "binary"),
                (b"{", "application/json", "utf-8"),
                (deep, "application/json", "utf-8"),
                (json.dumps([["{"], {}, {}]), "application/json", "utf-8"),
                (json.dumps([[1, 2], {}, {}]), "application/json", "utf-8"),
                (json.dumps([[["os.system"]], {}, {}]), "application/json", "utf-8"),
                (json.dumps([[None], {}, {}]), "application/json", "utf-8"),
            ]:
                producer.publish(
                    body,
                    routing_key=queue,
                    exchange="",
                    content_type=kind,
                    content_encoding=encoding,
                    headers=headers,
                )
            producer.publish(
                json.dumps([["x"], {}, {}]),
                routing_key=queue,
                exchange="",
                content_type="application/json",
                content_encoding="utf-8",
                headers=headers | {"task": "os.system"},
            )
        wait_for(lambda: (relay.drain(), set(broker_shop.delivered()) == set(names))[1])
    transport.close()
    assert broker_shop.delivered() == names
    assert "BOOM" not in (tmp_path / "output").read_text().splitlines()


class Boom:
    def __reduce__(self):
        return (print, ("BOOM",))


@pytest.mark.slow
def test_what_a_killed_worker_had_in_hand_comes_again(working) -> None:
    """The whole worker, not only its child.

    With Redis, Celery takes one more message than it has in hand, and loses it if it is killed; so none waits here.
    """
    transport = CeleryTransport(broker_shop.app)
    relay = broker_shop.Relay(broker_shop.databases, transport=transport)
    names = ["waits1", "waits2"]
    broker_shop.gate().touch()
    with working() as worker:
        for name in names:
            broker_shop.Order(name=name).save()
        relay.drain()
        wait_for(lambda: broker_shop.begun() == names)
        os.killpg(worker.pid, signal.SIGKILL)
    broker_shop.gate().unlink()
    with working():
        wait_for(lambda: (relay.drain(), broker_shop.delivered() == names)[1])
    transport.close()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["rabbit"], indirect=True)
def test_no_task_of_rabbitmq_is_lost_when_a_worker_is_killed(working) -> None:
    transport = CeleryTransport(broker_shop.app)
    relay = broker_shop.Relay(broker_shop.databases, transport=transport)
    with working() as worker:
        broker_shop.Order(name="first").save()
        relay.drain()
        wait_for(lambda: broker_shop.delivered() == ["first"])
        for number in range(20):
            broker_shop.Order(name=f"n{number:02}").save()
        relay.drain()
        os.killpg(worker.pid, signal.SIGKILL)
    with working():
        wait_for(lambda: (relay.drain(), len(set(broker_shop.delivered())) == 21)[1])
    transport.close()
    assert len(broker_shop.delivered()) <= 21 + 2, "at most what the two processes had in hand"
