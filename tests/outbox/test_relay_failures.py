"""What fails is tried again, waits or dies, and keeps nothing else from being delivered."""

import asyncio
import contextlib
import enum
import logging
import os
import threading

import pytest

import microorm
from microorm import Field
from microorm.outbox import Delivered, Retry
from microorm.outbox.waiting import Waiter
from microorm.testing import count_statements


def test_a_failed_event_is_tried_again_with_its_attempts_counted(shop) -> None:
    attempts = []

    @shop.receives()
    def charge(event, **kwargs):
        attempts.append((event.id, event.attempt))
        if len(attempts) < 3:
            raise ValueError("not yet")

    shop.registry.create_all()
    shop.Order(name="a").save()
    assert shop.relay().drain() == 3
    assert [attempt for _, attempt in attempts] == [1, 2, 3]
    assert len({event for event, _ in attempts}) == 1
    assert shop.rows() == []


def test_an_event_that_fails_too_often_is_dead_and_its_error_names_no_values(shop) -> None:
    @shop.receives(retry=Retry(max_attempts=2, base=0))
    def charge(instance, **kwargs):
        raise ValueError(f"the card of {instance.name}")

    shop.registry.create_all()
    shop.Order(name="secret").save()
    assert shop.relay().drain() == 2
    assert shop.rows() == []
    (dead,) = shop.rows("microorm_outbox_dead")
    assert (dead.receiver, dead.attempts) == ("charge", 2)
    assert dead.error.startswith("builtins.ValueError in ")
    assert "test_relay_failures.py" in dead.error
    assert "secret" not in dead.error
    assert '"name":"secret"' in dead.body


def test_the_stored_error_of_an_event_that_cannot_be_read_names_the_field_and_no_value(shop) -> None:
    shop.note()
    shop.note("loads", payload="key")
    shop.registry.create_all()
    key = shop.Order(name="a").save().pk
    shop.run('UPDATE microorm_outbox SET body = REPLACE(body, \'"total"\\:0\', \'"total"\\:"secret"\')')
    shop.Order.objects.delete()
    shop.relay(unknown_for=0).drain()
    unreadable, gone = [row.error for row in shop.rows("microorm_outbox_dead")]
    assert unreadable == "IncompatibleEvent: the event cannot be read: Order cannot hold its value of 'total'"
    assert gone == "InvalidEvent: the row of Order was deleted before its event was delivered"
    assert str(key) not in gone


def test_a_failed_event_waits_before_it_is_tried_again(shop) -> None:
    @shop.receives(retry=Retry(base=1000))
    def charge(**kwargs):
        shop.calls.append(1)
        raise ValueError

    shop.registry.create_all()
    shop.Order(name="a").save()
    assert shop.relay().drain() == 1
    assert 400 < shop.relay().store("default").next_due() <= 1000
    shop.pass_time()
    assert shop.relay().drain() == 1


def test_one_failing_receiver_does_not_keep_another_from_its_event(shop) -> None:
    @shop.receives("fails", retry=Retry(base=1000))
    def fails(**kwargs):
        raise ValueError

    shop.note("works")
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().drain()
    assert shop.calls == ["a"]
    assert [row.receiver for row in shop.rows()] == ["fails"]


def test_an_event_without_a_receiver_waits_for_one_and_is_never_dropped(shop) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.disconnect()
    relay = shop.relay(aliases=["default"])
    for _ in range(15):
        assert relay.run_once() == 1
        assert relay.run_once() == 0, "it waits"
        shop.pass_time()
    (row,) = shop.rows()
    assert row.attempts == 0, "they are not attempts of a receiver that comes later"
    shop.note()
    relay.drain()
    assert shop.calls == ["a"]


@pytest.mark.parametrize("length", [100_000, 1_500_000])
def test_a_long_event_waits_for_its_receiver(shop, length) -> None:
    """A relay of the version before has neither the receiver nor its `max_bytes=`."""
    shop.note(max_bytes=2_000_000)
    shop.registry.create_all()
    shop.Order(name="a" * length).save()
    shop.disconnect()
    shop.relay(aliases=["default"]).drain()
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)]
    shop.note(max_bytes=2_000_000)
    shop.pass_time()
    shop.relay().drain()
    assert [len(name) for name in shop.calls] == [length]


def test_an_event_without_a_receiver_for_too_long_is_kept_among_the_dead(shop) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.disconnect()
    shop.relay(aliases=["default"], unknown_for=0).drain()
    assert shop.rows() == []
    assert "has dispatch_uid='charge'" in shop.rows("microorm_outbox_dead")[0].error


def test_the_time_without_a_receiver_counts_from_when_the_relay_first_missed_it(shop, monkeypatch) -> None:
    """Not from the save: it may be an old event that was retried."""
    seconds = [0.0]
    monkeypatch.setattr("microorm.outbox.outcomes.monotonic", lambda: seconds[0])
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.run("UPDATE microorm_outbox SET created_at = created_at - 864000000")
    shop.disconnect()
    relay = shop.relay(aliases=["default"], unknown_for=1000)
    for moment in (0, 999):
        seconds[0] = moment
        relay.drain()
        assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)]
        shop.pass_time()
    seconds[0] = 1000
    relay.drain()
    assert (shop.rows(), len(shop.rows("microorm_outbox_dead"))) == ([], 1)


@pytest.mark.parametrize("change", ["a member of an enum", "a wider field", "a later version of microorm"])
def test_an_event_of_the_next_version_of_a_model_waits_for_a_process_that_can_read_it(
    shop, Base, change, monkeypatch
) -> None:
    """Half of a deploy: this process has the old model, and another one saves what only the new one can hold."""

    class Status(enum.Enum):
        NEW = "new"

    class Order2(Base):
        name: Field[str] = microorm.field(max_length=5)
        status: Field[Status]

    shop.note(sender=Order2)
    shop.registry.create_all()
    Order2(name="a", status=Status.NEW).save()
    of_the_next = {
        "a member of an enum": ('"status"\\:"new"', '"status"\\:"paid"'),
        "a wider field": ('"name"\\:"a"', '"name"\\:"abcdefgh"'),
        "a later version of microorm": ('"version"\\:1', '"version"\\:2'),
    }
    old, new = of_the_next[change]
    shop.run(f"UPDATE microorm_outbox SET body = REPLACE(body, '{old}', '{new}')")
    seconds = [0.0]
    monkeypatch.setattr("microorm.outbox.outcomes.monotonic", lambda: seconds[0])
    relay = shop.relay(unknown_for=1000)
    for moment in (0, 999):
        seconds[0] = moment
        assert relay.run_once() == 1
        assert relay.run_once() == 0, "it waits"
        assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)]
        Order2(name="b", status=Status.NEW).save()
        relay.drain()
        shop.pass_time()
    assert shop.calls == ["b", "b"], "others are delivered meanwhile, and do not begin its time anew"
    shop.run(f"UPDATE microorm_outbox SET body = REPLACE(body, '{new}', '{old}')")
    shop.relay().drain()
    assert shop.calls == ["b", "b", "a"]


def test_a_model_that_cannot_hold_a_row_for_too_long_has_its_event_kept_among_the_dead(
    shop, monkeypatch
) -> None:
    seconds = [0.0]
    monkeypatch.setattr("microorm.outbox.outcomes.monotonic", lambda: seconds[0])
    shop.note()
    shop.registry.create_all()
    relay = shop.relay(unknown_for=10_000)
    wrong = 'UPDATE microorm_outbox SET body = REPLACE(body, \'"total"\\:0\', \'"total"\\:"x"\')'
    for moments in ((0, 5_000), (90_000, 95_000, 100_000)):
        shop.Order(name="a").save()
        shop.run(wrong)
        for moment in moments:
            seconds[0] = moment
            shop.pass_time()
            assert relay.drain()
        if moments[0] == 0:
            assert len(shop.rows()) == 1, "and the next time, after a long one without, is counted anew"
            shop.run("DELETE FROM microorm_outbox")
    assert shop.rows() == []
    (dead,) = shop.rows("microorm_outbox_dead")
    assert dead.error == "IncompatibleEvent: the event cannot be read: Order cannot hold its value of 'total'"


def test_an_old_event_waits_for_a_broker_that_cannot_be_reached(shop) -> None:
    class Unreachable:
        def publish(self, events):
            for each in events:
                each.error = microorm.errors.PublishError("no broker")
            return ()

        def close(self):
            pass

    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.run("UPDATE microorm_outbox SET created_at = created_at - 864000000")
    shop.relay(transport=Unreachable(), unknown_for=0).drain()
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)]


def test_many_failures_are_stored_by_one_statement(shop, backend) -> None:
    @shop.receives()
    def charge(**kwargs):
        raise ValueError

    shop.registry.create_all()
    for _ in range(10):
        shop.Order(name="a").save()
    relay = shop.relay()
    with count_statements(databases=shop.databases) as counted:
        relay.run_once()
    assert len(counted) == (3 if backend == "mariadb" else 2), counted


def test_a_transport_that_fails_leaves_all_its_events(shop) -> None:
    class Broken:
        def publish(self, events):
            list(events)
            raise ConnectionError("no broker")

        def close(self):
            pass

    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    with pytest.raises(ConnectionError):
        shop.relay(transport=Broken()).run_once()
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(1, 0)]
    shop.relay().drain()
    assert shop.calls == ["a"]


def test_an_interrupt_in_a_receiver_leaves_nothing_claimed(shop) -> None:
    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        if shop.calls == ["a", "b"]:
            raise KeyboardInterrupt

    shop.registry.create_all()
    for name in "abc":
        shop.Order(name=name).save()
    with pytest.raises(KeyboardInterrupt):
        shop.relay().drain()
    left = [(row.attempts, row.claim) for row in shop.rows()]
    assert left[-2:] == [(1, 0), (0, 0)]
    shop.relay().drain()
    assert shop.calls[-2:] == ["b", "c"]


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_exit_in_a_receiver_keeps_what_was_delivered_before_it(shop, raised, asynchronous) -> None:
    def note(instance):
        shop.calls.append(instance.name)
        if instance.name == "b" and shop.calls.count("b") == 1:
            raise raised

    if asynchronous:

        @shop.receives()
        async def charge(instance, **kwargs):
            note(instance)
    else:

        @shop.receives()
        def charge(instance, **kwargs):
            note(instance)

    shop.registry.create_all()
    for name in "abc":
        shop.Order(name=name).save()
    with pytest.raises(raised):
        shop.relay().drain()
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(1, 0), (0, 0)]
    shop.relay().drain()
    assert (sorted(shop.calls), shop.rows()) == (["a", "b", "b", "c"], [])


def test_a_receiver_that_leaks_a_cancellation_has_failed_and_spoils_no_other(shop) -> None:
    @shop.receives(retry=Retry(base=1000))
    async def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        if instance.name == "b":
            task = asyncio.ensure_future(asyncio.sleep(9))
            task.cancel()
            await task

    shop.registry.create_all()
    for name in "abc":
        shop.Order(name=name).save()
    assert shop.relay().drain() == 3
    assert shop.calls == ["a", "b", "c"]
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(1, 0)]


def test_an_error_after_the_commit_of_an_effect_is_logged_and_the_event_is_done(shop, caplog) -> None:
    told: list[Delivered] = []

    @shop.receives(exactly_once=True)
    def charge(**kwargs):
        shop.calls.append(1)
        shop.databases.on_commit(lambda: 1 / 0)

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay(observe=told.append).drain()
    assert ([each.outcome for each in told], shop.calls, shop.rows()) == (["done"], [1], [])
    assert "has its effect" in caplog.text


def test_an_error_of_the_database_does_not_end_the_relay(shop, caplog) -> None:
    called = threading.Event()

    @shop.receives()
    def charge(**kwargs):
        called.set()

    shop.registry.create_all()
    relay = shop.relay(idle=0.01)
    claim, failures = relay.store("default").claim, []

    def failing(*arguments, **options):
        if len(failures) < 2:
            failures.append(1)
            raise microorm.TransactionError("the database is gone")
        return claim(*arguments, **options)

    relay.store("default").claim = failing  # type: ignore[method-assign]
    shop.Order(name="a").save()
    with caplog.at_level(logging.ERROR, "microorm.outbox"):
        relay.start()
        try:
            assert called.wait(20)
        finally:
            assert relay.stop(20)
    assert "the database is gone" in caplog.text


@pytest.mark.parametrize("where", ["claim", "wait"])
def test_no_error_ends_the_thread_of_a_relay(shop, caplog, monkeypatch, where) -> None:
    """A router of the program that raises, for example, which is asked in each round."""
    called, failed = threading.Event(), []

    @shop.receives()
    def charge(**kwargs):
        called.set()

    shop.registry.create_all()
    relay = shop.relay(idle=0.01)
    owner, name = (relay, "_run_once") if where == "claim" else (relay._waiter, "wait")
    working = getattr(owner, name)

    def failing(*arguments, **options):
        if len(failed) < 2:
            failed.append(1)
            raise KeyError("the configuration is gone")
        return working(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)
    relay.start()
    try:
        while len(failed) < 2:
            called.wait(0.01)
        shop.Order(name="a").save()
        assert called.wait(20)
    finally:
        assert relay.stop(20)
    assert "the configuration is gone" in caplog.text


@pytest.mark.backends("postgresql")
def test_a_relay_waits_on_descriptors_that_select_refuses(shop) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this process may not have so many files open")
    shop.note()
    shop.registry.create_all()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.enter_context(open(os.devnull))
        waiter, stopping = Waiter(shop.databases), threading.Event()
        stack.callback(waiter.close)
        waiter.wait(["default"], 0, stopping)
        shop.Order(name="a").save()
        waiter.wait(["default"], 1000, stopping)


def test_each_attempt_is_told_to_the_observer(shop) -> None:
    told: list[Delivered] = []

    @shop.receives(retry=Retry(max_attempts=2, base=0))
    def charge(instance, event, **kwargs):
        if instance.name == "bad":
            raise ValueError

    shop.registry.create_all()
    shop.Order(name="good").save()
    shop.Order(name="bad").save()
    shop.relay(observe=told.append).drain()
    assert [(each.alias, each.receiver, each.outcome, each.attempt) for each in told] == [
        ("default", "charge", "done", 1),
        ("default", "charge", "failed", 1),
        ("default", "charge", "dead", 2),
    ]
    assert all(each.seconds >= 0 for each in told)


def test_an_observer_that_raises_is_logged_and_what_was_delivered_is_stored(shop, caplog) -> None:
    def observe(delivered):
        assert shop.rows() == [], "it is called when that is stored"
        raise ValueError("metrics are down")

    shop.note()
    shop.registry.create_all()
    for name in "ab":
        shop.Order(name=name).save()
    assert shop.relay(observe=observe).drain() == 2
    assert (shop.calls, shop.rows()) == (["a", "b"], [])
    assert caplog.text.count("observe= has failed: ValueError") == 2


def test_the_pauses_of_a_retry_double_up_to_the_cap_and_differ() -> None:
    retry = Retry(base=1, cap=100)
    for attempt, longest in [(1, 1), (2, 2), (5, 16), (8, 100), (500, 100)]:
        delays = {retry.delay(attempt) for _ in range(20)}
        assert longest / 2 <= min(delays) < max(delays) <= longest


@pytest.mark.parametrize(
    "options",
    [{"max_attempts": 0}, {"base": -1}, {"cap": float("inf")}, {"cap": 1e300}, {"base": True}],
)
def test_an_impossible_retry_is_refused(options) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}= must be"):
        Retry(**options)
