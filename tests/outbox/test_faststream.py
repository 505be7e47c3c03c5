"""Events by way of real brokers: RabbitMQ, Redis and NATS, and Kafka in memory."""

import asyncio
import gc
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.rabbit import Channel, RabbitBroker

from microorm.outbox import Retry
from microorm.outbox.faststream import FastStreamTransport, adapter_of, subscribe
from tests.outbox import broker_shop
from tests.outbox.brokers import Proxy, Queue, running
from tests.programs import ROOT, Program

pytestmark = [
    pytest.mark.server,
    pytest.mark.backends("sqlite-file"),
    # The client of NATS leaves the stream of a broken connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE = 60  # seconds; no test takes so long


@pytest.fixture(params=["rabbit", "redis", "nats"])
def queue(request) -> Iterator[Queue]:
    made = Queue(request.param)
    yield made
    made.remove()


@pytest.fixture
def proxy(queue) -> Iterator[Proxy]:
    made = Proxy(queue.address)
    yield made
    made.close()
    gc.collect()  # broken connections, here and not in another test


@pytest.fixture
def transport(queue) -> Iterator[FastStreamTransport]:
    made = FastStreamTransport(queue.broker(), queue.queue)
    yield made
    made.close()


def wait_for(found: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


def consuming(shop, queue: Queue, **options):
    broker = queue.broker()
    subscribe(broker, queue.queue, shop.databases, **options)
    return running(broker)


def test_events_are_delivered_by_a_subscriber_and_a_failed_one_comes_again(shop, queue, transport) -> None:
    failures = [ValueError()]
    attempts = []

    @shop.receives()
    def charge(instance, event, **kwargs):
        attempts.append((instance.name, event.attempt))
        if instance.name == "b" and failures:
            raise failures.pop()

    shop.registry.create_all()
    for name in "abc":
        shop.Order(name=name).save()
    relay = shop.relay(transport=transport)
    assert relay.drain() == 3
    assert shop.rows() == []
    assert attempts == [], "the relay calls nothing"
    with consuming(shop, queue):
        wait_for(lambda: len(attempts) == 3)
        wait_for(lambda: relay.drain())
        wait_for(lambda: len(attempts) == 4)
        wait_for(lambda: queue.count() == 0)
    assert sorted(attempts) == [("a", 1), ("b", 1), ("b", 2), ("c", 1)], "their order does not matter here"
    assert shop.rows("microorm_outbox_dead") == []


def test_an_async_receiver_is_awaited(shop, queue, transport) -> None:
    @shop.receives()
    async def charge(instance, **kwargs):
        shop.calls.append(instance.name)

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay(transport=transport).drain()
    with consuming(shop, queue, workers=2):
        wait_for(lambda: shop.calls == ["a"])


def test_events_of_one_row_arrive_in_the_order_of_their_commits_at_a_single_consumer(
    shop, queue, transport
) -> None:
    @shop.receives(ordered=True)
    def charge(instance, **kwargs):
        shop.calls.append(instance.total)

    shop.registry.create_all()
    order = shop.Order(name="a").save()
    for number in range(1, 20):
        order.total = number
        order.save()
    with consuming(shop, queue):
        assert shop.relay(transport=transport).drain() == 20
        wait_for(lambda: len(shop.calls) == 20)
    assert shop.calls == [*range(20)]


def test_events_stay_in_the_outbox_while_the_broker_is_down_and_no_attempt_counts(shop, queue, proxy) -> None:
    shop.note(retry=Retry(max_attempts=1, base=0))
    shop.registry.create_all()
    for name in "ab":
        shop.Order(name=name).save()
    proxy.closed = True
    transport = FastStreamTransport(queue.broker(proxy.address), queue.queue, timeout=1)
    relay = shop.relay(transport=transport)
    assert relay.run_once() == 2
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)] * 2
    assert shop.rows("microorm_outbox_dead") == []
    proxy.closed = False
    shop.pass_time()
    wait_for(lambda: (relay.run_once(), shop.pass_time(), shop.rows())[2] == [])
    assert queue.count() == 2
    transport.close()


def test_an_event_whose_confirmation_is_lost_is_published_again(shop, queue, proxy) -> None:
    @shop.receives(exactly_once=True)
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)

    shop.registry.create_all()
    transport = FastStreamTransport(queue.broker(proxy.address), queue.queue, timeout=1)
    relay = shop.relay(transport=transport)
    shop.Order(name="first").save()
    assert relay.drain() == 1
    shop.Order(name="second").save()
    proxy.deaf = True
    relay.run_once()
    wait_for(lambda: queue.count() == 2)
    assert [row.attempts for row in shop.rows()] == [0], "the broker has it, and the relay does not know"
    proxy.cut()
    proxy.deaf = False
    wait_for(lambda: (shop.pass_time(), relay.run_once(), shop.rows())[2] == [])
    assert queue.count() >= 3
    transport.close()
    with consuming(shop, queue):
        wait_for(lambda: queue.count() == 0)
    assert shop.calls == ["first", "second"], "the duplicate has no second effect"


class Boom:
    def __reduce__(self):
        return (print, ("called",))


def test_hostile_messages_are_discarded_and_the_consumer_goes_on(shop, queue, transport, capsys) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="good").save()
    relay = shop.relay(transport=transport)
    with consuming(shop, queue):
        queue.send(
            b"{",
            b"",
            b"\xff\x00",
            pickle.dumps(Boom()),
            b"[" * 10_000 + b"]" * 10_000,
            b"[" + b"0," * 400_000 + b"0]",
            b'{"receiver": "os.system"}',
        )
        relay.drain()
        wait_for(lambda: shop.calls == ["good"])
        wait_for(lambda: queue.count() == 0)
    assert shop.calls == ["good"]
    assert shop.rows() == shop.rows("microorm_outbox_dead") == []
    assert "called" not in capsys.readouterr().out


def test_an_unknown_receiver_goes_back_to_the_outbox_and_the_consumer_goes_on(shop, queue, transport) -> None:
    shop.note("gone")
    shop.note("charge")
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay(transport=transport).drain()
    shop.disconnect()
    shop.note("charge")
    with consuming(shop, queue):
        wait_for(lambda: shop.calls and shop.rows())
    assert [(row.receiver, row.attempts) for row in shop.rows()] == [("gone", 0)]
    assert shop.calls == ["a"]


def test_a_transport_that_was_closed_opens_again(shop, queue, transport) -> None:
    shop.note()
    shop.registry.create_all()
    relay = shop.relay(transport=transport)
    for name in "ab":
        shop.Order(name=name).save()
        relay.drain()
        transport.close()
        transport.close()
    assert queue.count() == 2


def test_a_relay_that_was_started_closes_its_transport(shop, queue, transport) -> None:
    shop.note()
    shop.registry.create_all()
    relay = shop.relay(transport=transport, idle=0.05)
    relay.start()
    shop.Order(name="a").save()
    wait_for(lambda: shop.rows() == [])
    assert relay.stop()
    assert transport._loop is None


@pytest.mark.parametrize("queue", ["rabbit", "nats"], indirect=True)
def test_a_message_that_no_queue_takes_is_not_confirmed_and_the_queue_is_made_anew(
    shop, queue, transport
) -> None:
    shop.note()
    shop.registry.create_all()
    relay = shop.relay(transport=transport)
    shop.Order(name="a").save()
    relay.drain()
    queue.remove()
    shop.Order(name="b").save()
    relay.run_once()
    assert [row.attempts for row in shop.rows()] == [0]
    shop.pass_time()
    relay.run_once()
    assert (shop.rows(), queue.count()) == ([], 1)


@pytest.mark.parametrize("queue", ["rabbit"], indirect=True)
def test_a_broker_without_publisher_confirms_confirms_nothing(shop, queue, caplog) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    broker = RabbitBroker(queue.address, default_channel=Channel(publisher_confirms=False), logger=None)
    transport = FastStreamTransport(broker, queue.queue)
    shop.relay(transport=transport).run_once()
    assert [row.attempts for row in shop.rows()] == [0]
    assert "publisher_confirms" in caplog.text
    transport.close()


def test_kafka_in_memory_delivers_and_keys_ordered_events_by_their_row(shop) -> None:
    shop.note(ordered=True)
    shop.registry.create_all()
    shop.Order(name="a").save()
    broker = KafkaBroker(logger=None)
    subscribe(broker, "orders", shop.databases)
    transport = FastStreamTransport(broker, "orders")

    async def main() -> None:
        async with TestKafkaBroker(broker):
            await asyncio.to_thread(shop.relay(transport=transport).drain)

    asyncio.run(main())
    assert (shop.calls, shop.rows()) == (["a"], [])
    transport.close()


@pytest.mark.slow
def test_an_event_whose_consumer_is_killed_in_the_receiver_comes_again(queue, tmp_path) -> None:
    settings = {"url": f"sqlite:///{tmp_path}/shop.db?timeout=30", "file": str(tmp_path / "log")}
    broker_shop.open_shop(**settings)
    broker_shop.registry.create_all()
    names = sorted(["a", "kills", "b", "fails", "c"])
    for name in names:
        broker_shop.Order(name=name).save()
    transport = FastStreamTransport(queue.broker(), queue.queue)
    relay = broker_shop.Relay(broker_shop.databases, transport=transport)
    relay.drain()

    def consumer() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.outbox.broker_shop", queue.kind, queue.name],
            cwd=ROOT,
            env=Program(ROOT).environment() | {broker_shop.VARIABLE: json.dumps(settings)},
            stderr=subprocess.DEVNULL,
        )

    first = consumer()
    assert first.wait(PATIENCE) == -signal.SIGKILL
    second = consumer()
    try:
        wait_for(lambda: (relay.drain(), set(broker_shop.delivered()) == set(names))[1])
    finally:
        second.kill()
        second.wait()
        transport.close()
    assert len(broker_shop.delivered()) <= len(names) + 1, "the other worker had one in hand"
    broker_shop.close_shop()


@pytest.mark.parametrize("broker", [None, "amqp://", object()])
def test_what_is_no_broker_is_an_error(broker) -> None:
    with pytest.raises(TypeError, match="a RabbitBroker, RedisBroker, NatsBroker or KafkaBroker"):
        adapter_of(broker, "orders")


@pytest.mark.parametrize("workers", [0, True, "2"])
def test_workers_must_be_a_positive_number(workers) -> None:
    with pytest.raises(ValueError, match="workers="):
        subscribe(None, workers=workers)
