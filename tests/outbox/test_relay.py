"""A relay calls the receivers of stored events until they succeed."""

import asyncio
import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest

import microorm
from microorm import TransactionError
from microorm.outbox import Event, Relay, Retry
from microorm.outbox.waiting import Waiter
from microorm.signals import post_delete, post_save
from microorm.testing import count_statements


def test_a_receiver_gets_the_arguments_of_the_save_and_the_event(shop) -> None:
    got = []

    @shop.receives()
    def charge(signal, sender, instance, created, raw, using, update_fields, event, **kwargs):
        got.append((signal, sender, instance, created, raw, using, update_fields, event, kwargs))

    shop.registry.create_all()
    before = datetime.now(UTC)
    order = shop.Order(name="a").save()
    order.total = 5
    order.save(update_fields=["total"], raw=True)
    assert shop.relay().drain() == 2
    first, second = got
    assert first[:2] == (post_save, shop.Order)
    assert (first[2].pk, first[2].name, first[2].total, first[2]._state.adding) == (order.pk, "a", 0, False)
    assert first[3:7] == (True, False, "default", None)
    assert second[3:7] == (False, True, "default", frozenset({"total"}))
    assert second[2].changed_fields == frozenset()
    event = first[7]
    assert isinstance(event, Event)
    assert (type(event.id), event.attempt, event.alias) == (UUID, 1, "default")
    assert abs((event.created_at - before).total_seconds()) < 60
    assert first[8] == {}
    assert shop.rows() == []


def test_the_instance_of_an_event_is_saved_to_the_alias_it_came_from(shop) -> None:
    @shop.receives()
    def change(instance, created, **kwargs):
        if created:
            instance.total = 7
            instance.save()

    shop.registry.create_all()
    shop.Order(name="a").save(using="other")
    shop.relay().drain()
    assert [each.total for each in shop.Order.objects.using("other")] == [7]
    assert shop.Order.objects.using("default").count() == 0


def test_payload_key_loads_the_row_as_it_is_at_the_delivery(shop) -> None:
    shop.note(payload="key")
    shop.registry.create_all()
    order = shop.Order(name="a").save()
    shop.Order.objects.update(name="b")
    shop.relay().run_once()
    assert shop.calls == ["b"]
    order.save()
    order.delete()
    shop.relay().drain()
    assert shop.calls == ["b"]
    (dead,) = shop.rows("microorm_outbox_dead")
    assert "was deleted before its event was delivered" in dead.error


def test_an_event_of_a_delete_has_the_deleted_row(shop) -> None:
    got = []

    @shop.receives(signal=post_delete)
    def gone(instance, origin, using, **kwargs):
        got.append((instance.pk, instance.name, origin is instance, using))

    shop.registry.create_all()
    order = shop.Order(name="a").save()
    key = order.pk
    order.delete()
    shop.Order(name="b").save()
    shop.Order.objects.delete()
    shop.relay().drain()
    assert got[0] == (key, "a", True, "default")
    assert got[1][1:] == ("b", False, "default")


def test_async_receivers_are_run(shop) -> None:
    @shop.receives()
    async def charge(instance, **kwargs):
        await asyncio.sleep(0)
        shop.calls.append(instance.name)

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().drain()
    assert shop.calls == ["a"]


def test_a_save_with_async_durable_receivers_works_on_a_running_event_loop(shop) -> None:
    @shop.receives()
    async def charge(instance, **kwargs):
        shop.calls.append(instance.name)

    shop.registry.create_all()

    async def save():
        shop.Order(name="a").save()

    asyncio.run(save())
    shop.relay().drain()
    assert shop.calls == ["a"]


def test_an_async_receiver_is_cancelled_after_its_timeout(shop) -> None:
    @shop.receives(timeout=0.01, retry=Retry(max_attempts=1))
    async def charge(instance, **kwargs):
        await asyncio.Event().wait()

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().drain()
    (dead,) = shop.rows("microorm_outbox_dead")
    assert dead.error.startswith("builtins.TimeoutError in ")


def test_a_batch_is_claimed_and_acknowledged_by_one_statement_each(shop, backend) -> None:
    shop.note()
    shop.registry.create_all()
    for number in range(100):
        shop.Order(name=f"{number:03}").save()
    relay = shop.relay(batch=100)
    with count_statements(databases=shop.databases) as counted:
        assert relay.run_once() == 100
    assert len(counted) == (3 if backend == "mariadb" else 2), counted
    assert shop.calls == sorted(shop.calls)
    assert not any("count(" in sql.lower() for sql in counted.statements)


def test_the_event_is_acknowledged_after_its_receiver(shop) -> None:
    """The row is there while the receiver runs, so that it is not lost with the process."""

    @shop.receives()
    def charge(**kwargs):
        shop.calls.append(len(shop.rows()))

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().drain()
    assert shop.calls == [1]


def test_only_what_the_transport_confirms_leaves_the_outbox(shop) -> None:
    class Broker:
        def __init__(self):
            self.seen = []

        def publish(self, events):
            self.seen = [each.id for each in events]
            return self.seen[:1]

        def close(self):
            pass

    shop.note("a")
    shop.note("b")
    shop.registry.create_all()
    shop.Order(name="a").save()
    broker = Broker()
    shop.relay(transport=broker).run_once()
    assert [each.rpartition(":")[2] for each in broker.seen] == ["a", "b"]
    assert [(row.receiver, row.attempts) for row in shop.rows()] == [("b", 1)]
    assert shop.calls == []


def test_an_effect_that_is_to_happen_once_is_committed_with_the_end_of_its_event(shop) -> None:
    @shop.receives(exactly_once=True)
    def charge(instance, created, event, **kwargs):
        if created:
            instance.total += 1
            instance.save(update_fields=["total"])
            if event.attempt == 1:
                raise ValueError

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().drain()
    assert shop.Order.objects.get().total == 1
    assert shop.rows() == []
    assert [row.receiver for row in shop.rows("microorm_outbox_done")] == ["charge", "charge"]


def test_an_effect_that_has_happened_is_not_repeated(shop) -> None:
    @shop.receives(exactly_once=True)
    def charge(**kwargs):
        shop.calls.append(1)

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.run("INSERT INTO microorm_outbox_done (event, receiver) SELECT event, receiver FROM microorm_outbox")
    shop.relay().drain()
    assert (shop.calls, shop.rows()) == ([], [])


def test_an_effect_is_rolled_back_if_another_relay_has_its_event(shop) -> None:
    @shop.receives(exactly_once=True)
    def charge(instance, **kwargs):
        with shop.databases.connection() as connection:
            connection.exec_driver_sql("UPDATE microorm_outbox SET claim = 7")
        shop.Order(name="effect").save()

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().run_once()
    assert shop.Order.objects.count() == 1
    assert shop.rows("microorm_outbox_done") == []


def test_a_relay_delivers_the_events_of_all_its_aliases(shop) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.Order(name="b").save(using="other")
    relay = shop.relay()
    assert relay.aliases == ("default", "other")
    assert relay.run_once() == 2
    assert shop.calls == ["a", "b"]


def test_a_relay_of_one_alias_leaves_the_others(shop) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.Order(name="b").save(using="other")
    shop.relay(aliases=["other"]).drain()
    assert shop.calls == ["b"]


def test_a_relay_of_an_unknown_alias_is_refused(shop) -> None:
    with pytest.raises(microorm.UnknownAlias):
        shop.relay(aliases=["othr"])


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"batch": 10**6},
        {"lease": 0},
        {"lease": 1e300},
        {"lease": float("nan")},
        {"idle": "1"},
        {"idle": float("inf")},
        {"unknown_for": float("nan")},
        {"unknown_for": -1},
    ],
)
def test_invalid_options_of_a_relay_are_refused(shop, options) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}= must be"):
        shop.relay(**options)


def test_a_relay_refuses_to_run_inside_a_block(shop) -> None:
    shop.note()
    shop.registry.create_all()
    with shop.databases.atomic(), pytest.raises(TransactionError, match="inside the open block"):
        shop.relay().run_once()


def test_a_relay_without_durable_receivers_has_nothing_to_do(shop) -> None:
    shop.registry.create_all()
    assert shop.relay().drain() == 0
    with pytest.raises(microorm.ConfigurationError, match="no model .* has a durable receiver"):
        shop.relay(aliases=["default"]).run_once()


def test_a_relay_as_a_thread_delivers_until_it_is_stopped(shop) -> None:
    called = threading.Event()

    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        called.set()

    shop.registry.create_all()
    relay = shop.relay(idle=0.05)
    relay.start()
    try:
        with pytest.raises(RuntimeError, match="running already"):
            relay.start()
        shop.Order(name="a").save()
        assert called.wait(20)
    finally:
        assert relay.stop(20)
    assert shop.calls == ["a"]
    assert shop.rows() == []
    shop.Order(name="b").save()
    relay.start()
    while shop.calls != ["a", "b"]:
        called.wait(0.01)
    assert relay.stop(20)


@pytest.mark.backends("postgresql")
def test_a_commit_wakes_a_relay_that_waits(shop) -> None:
    """Its pause is longer than the test may take."""
    called = threading.Event()

    @shop.receives()
    def charge(**kwargs):
        called.set()

    shop.registry.create_all()
    relay = shop.relay(idle=1000, aliases=["default"])
    waiting = threading.Event()
    wait = relay._waiter.wait
    relay._waiter.wait = lambda *arguments: (
        relay._waiter._connection("default"),
        waiting.set(),
        wait(*arguments),
    )  # type: ignore[method-assign]
    relay.start()
    try:
        assert waiting.wait(20)
        shop.Order(name="a").save()
        assert called.wait(20)
    finally:
        assert relay.stop(20)


@pytest.mark.backends("postgresql")
def test_a_save_notifies_only_while_a_relay_waits(shop) -> None:
    """The server commits transactions that notify one after the other."""
    shop.note()
    shop.registry.create_all()
    listening = shop.databases.engine("default").raw_connection()
    driver = listening.dbapi_connection
    driver.autocommit = True
    driver.execute("LISTEN microorm_outbox")

    def notified() -> int:
        driver.execute("SELECT 1")  # what was sent before has arrived then
        return len([*driver.notifies(timeout=0)])

    waiter, stopping = Waiter(shop.databases), threading.Event()
    try:
        shop.Order(name="a").save()
        assert notified() == 0
        waiter.wait(["default"], 1000, stopping)  # at once, since it has begun to wait
        shop.Order(name="b").save()
        assert notified() == 1
        waiter.wait(["default"], 1000, stopping)  # the notification ends it
        shop.Order(name="c").save()
        assert notified() == 0
    finally:
        waiter.close()
        listening.invalidate()
        listening.close()


@pytest.mark.backends("postgresql")
def test_a_relay_does_not_begin_to_wait_before_a_save_in_progress_has_ended(shop) -> None:
    """Else nothing would wake it: the save has found no relay that waits."""
    shop.note()
    shop.registry.create_all()
    waiter, stopping = Waiter(shop.databases), threading.Event()
    try:
        with shop.databases.atomic():
            shop.Order(name="a").save()
            waiter.wait(["default"], 1000, stopping)  # a short pause
            assert waiter._locked == set()
        waiter.wait(["default"], 1000, stopping)
        assert waiter._locked == {"default"}
    finally:
        waiter.close()


def test_a_relay_that_is_stopped_finishes_one_event_and_releases_the_others(shop) -> None:
    relay = shop.relay()

    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        relay.stop()

    shop.registry.create_all()
    for name in "abc":
        shop.Order(name=name).save()
    relay.drain()
    assert shop.calls == ["a"]
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0), (0, 0)]


def test_the_default_relay_is_that_of_the_default_databases() -> None:
    assert Relay().databases is microorm.default_databases
