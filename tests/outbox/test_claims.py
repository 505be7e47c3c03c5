"""Relays share the events of one database: each event is one relay's, until its lease is over."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import OperationalError

from microorm.outbox import Retry
from microorm.outbox.store import Outcome, Store, _is_conflict


def claim(shop, relay, limit=100, *, lost=False):
    return relay.store("default").claim(limit, 60.0, 65_536, lost=lost)


def saved(shop, count: int) -> None:
    shop.registry.create_all()
    for number in range(count):
        shop.Order(name=f"{number:03}").save()


def test_a_claimed_event_is_not_claimed_again(shop) -> None:
    shop.note()
    saved(shop, 3)
    one, two = shop.relay(), shop.relay()
    first, second = claim(shop, one, 2), claim(shop, two)
    assert [each.row for each in first + second] == [row.id for row in shop.rows()]
    assert claim(shop, one) == claim(shop, two, lost=True) == []
    assert {each.attempt for each in first + second} == {1}
    assert len({each.claim for each in first}) == 1
    assert first[0].claim != second[0].claim


@pytest.mark.servers_only
def test_a_claim_locks_no_more_events_than_it_takes(shop) -> None:
    """Else a relay finds nothing while another one claims."""
    shop.note()
    shop.registry.create_all()
    with shop.databases.atomic():
        for number in range(400):
            shop.Order(name=f"{number:03}").save()
    one, two = shop.relay().store("default"), shop.relay().store("default")
    with one._transaction() as connection:
        statement = one._due(10, lost=False, columns=[*one.waiting.c])
        taken = connection.execute(statement).fetchall()
        others = two.claim(1000, 60.0, 65_536)
    assert (len(taken), len(others)) == (10, 390)


def test_a_relay_past_its_lease_acknowledges_nothing_that_another_has(shop) -> None:
    shop.note()
    saved(shop, 2)
    slow, fast = shop.relay(), shop.relay()
    late = claim(shop, slow)
    shop.pass_time()
    mine = claim(shop, fast, 1, lost=True)
    assert slow.store("default").settle(Outcome(done=late)) == 1, "of the other event, which is still its own"
    assert [(row.id, row.claim) for row in shop.rows()] == [(mine[0].row, mine[0].claim)]
    slow.store("default").settle(Outcome(failed=[(late[0], 0)]))
    slow.store("default").settle(Outcome(released=[(late[0], 0)]))
    slow.store("default").settle(Outcome(dead=[(late[0], "late")]))
    slow.store("default").extend(late, 1000)
    assert [(row.id, row.claim) for row in shop.rows()] == [(mine[0].row, mine[0].claim)]
    assert shop.rows("microorm_outbox_dead") == []
    assert fast.store("default").settle(Outcome(done=mine)) == 1
    assert shop.rows() == []


def test_a_relay_calls_no_receiver_once_its_lease_is_over(shop, monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("microorm.outbox.relay.monotonic", lambda: now[0])

    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        now[0] += 61

    saved(shop, 3)
    shop.relay(lease=60).run_once()
    assert shop.calls == ["000"]


def test_the_lease_is_extended_while_events_of_a_batch_are_left(shop, monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("microorm.outbox.relay.monotonic", lambda: now[0])

    @shop.receives(timeout=500)
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        now[0] += 55

    saved(shop, 5)
    relay = shop.relay(lease=60)
    assert relay.run_once() == 5
    assert len(shop.calls) == 5
    assert shop.rows() == []


def test_an_event_that_kills_its_relay_dies_alone(shop) -> None:
    """Its neighbours in the batch are delivered, although each claim counts as an attempt."""

    @shop.receives(retry=Retry(max_attempts=3, base=0))
    def charge(instance, **kwargs):
        if instance.name == "001":
            raise SystemExit  # stands for a kill: nothing is settled, see below
        shop.calls.append(instance.name)

    saved(shop, 4)
    for _ in range(20):
        relay = shop.relay()
        store = relay.store("default")
        settle, store.settle = store.settle, lambda outcome: 0
        dead = relay._transport.publish

        def publish(events, dead=dead, store=store, settle=settle):
            found = dead(events)
            store.settle = settle
            return found

        relay._transport.publish = publish
        with contextlib.suppress(SystemExit):
            relay.run_once()
        shop.pass_time()
    assert shop.rows() == []
    (poison,) = shop.rows("microorm_outbox_dead")
    assert (poison.attempts, '"001"' in poison.body) == (4, True)
    assert "it was claimed 3 times, and neither acknowledged nor refused" in poison.error
    assert {"000", "002", "003"} == set(shop.calls)


def test_relays_at_once_deliver_each_event_once(shop, backend) -> None:
    if backend == "sqlite-memory":
        pytest.skip("one at a time")
    lock = threading.Lock()

    @shop.receives()
    def charge(instance, **kwargs):
        with lock:
            shop.calls.append(instance.name)

    saved(shop, 120)
    relays = [shop.relay(batch=7, aliases=["default"]) for _ in range(4)]
    with ThreadPoolExecutor(len(relays)) as pool:
        list(pool.map(lambda relay: relay.drain(), relays))
    assert sorted(shop.calls) == [f"{number:03}" for number in range(120)]
    assert shop.rows() == []


def test_a_claim_does_not_wait_for_rows_that_others_have_locked(shop, backend) -> None:
    if backend.startswith("sqlite"):
        pytest.skip("it has one writer")
    shop.note()
    saved(shop, 3)
    first = shop.rows()[0].id
    with shop.databases.atomic():
        with shop.databases.connection() as connection:
            connection.exec_driver_sql(f"SELECT id FROM microorm_outbox WHERE id = {first} FOR UPDATE")
        found = claim(shop, shop.relay())
    assert len(found) == 2


def test_a_claim_does_not_see_events_before_their_commit(shop, backend) -> None:
    if backend.startswith("sqlite"):
        pytest.skip("it has one writer")
    shop.note()
    saved(shop, 1)
    with shop.databases.atomic():
        shop.Order(name="open").save()
        assert len(claim(shop, shop.relay())) == 1
    assert len(claim(shop, shop.relay())) == 1


def test_saves_do_not_wait_for_a_claim(shop, backend) -> None:
    if backend.startswith("sqlite"):
        pytest.skip("it has one writer")
    shop.note()
    saved(shop, 3)
    store = shop.relay().store("default")
    with store._transaction() as connection:
        connection.execute(store._due(10, lost=False, columns=[store.waiting.c.id])).fetchall()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: shop.Order(name="new").save()).result(5)
    assert len(shop.rows()) == 4


@pytest.mark.backends("mariadb")
@pytest.mark.parametrize("code", [1213, 1205, 1020])
def test_a_conflict_of_mariadb_is_tried_again(shop, code) -> None:
    shop.note()
    saved(shop, 1)
    store, failures = shop.relay().store("default"), []

    def once():
        if not failures:
            failures.append(1)
            with shop.databases.connection() as connection:
                connection.exec_driver_sql(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}")
        return "done"

    assert store._retried(once) == "done"


@pytest.mark.backends("mariadb")
def test_another_error_of_mariadb_is_not(shop) -> None:
    shop.note()
    saved(shop, 1)

    def fail():
        with shop.databases.connection() as connection:
            connection.exec_driver_sql("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1317")

    with pytest.raises(OperationalError) as raised:
        shop.relay().store("default")._retried(fail)
    assert not _is_conflict(raised.value)


def test_a_rolled_back_claim_leaves_the_event(shop, monkeypatch) -> None:
    shop.note()
    saved(shop, 1)

    def fail(self, row, token):
        raise ZeroDivisionError

    relay = shop.relay()
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_message", fail)
        with pytest.raises(ZeroDivisionError):
            relay.run_once()
    shop.pass_time()
    relay.drain()
    assert shop.calls == ["000"]


def test_the_events_of_a_batch_that_were_delivered_stay_claimed_until_it_ends(shop, monkeypatch) -> None:
    """Else another relay delivers them again, when the receivers of a batch together take longer than the lease."""
    seconds, taken = [0.0], []
    monkeypatch.setattr("microorm.outbox.relay.monotonic", lambda: seconds[0])

    @shop.receives()
    def charge(instance, **kwargs):
        if instance.name == "002":
            taken.extend(claim(shop, shop.relay(), lost=True))
        shop.calls.append(instance.name)
        shop.pass_time()
        seconds[0] += 40

    saved(shop, 3)
    assert shop.relay(lease=60).run_once() == 3
    assert (shop.calls, taken, shop.rows()) == (["000", "001", "002"], [], [])


def test_a_full_batch_is_settled_and_the_next_one_claimed_by_one_transaction(shop) -> None:
    shop.note()
    saved(shop, 6)
    relay = shop.relay(batch=2, aliases=["default"])
    store, transactions = relay.store("default"), []
    opened = store._transaction
    store._transaction = lambda: (transactions.append(1), opened())[1]
    assert relay.drain() == 6
    assert shop.calls == [f"{number:03}" for number in range(6)]
    assert shop.rows() == []
    assert len(transactions) == 6, (
        "a claim, three ends of batches with a claim, and looks for others and for lost ones"
    )


@pytest.mark.parametrize("stopping", ["stop", "error"])
def test_a_batch_that_was_claimed_ahead_is_released_when_the_relay_stops(shop, stopping) -> None:
    relay = shop.relay(batch=2, aliases=["default"])

    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append(instance.name)
        if instance.name == "002":
            relay.stop()
            if stopping == "error":
                raise KeyboardInterrupt

    saved(shop, 8)
    with contextlib.suppress(KeyboardInterrupt):
        relay.drain()
    assert shop.calls == ["000", "001", "002"]
    assert {(row.attempts, row.claim) for row in shop.rows()} <= {(0, 0), (1, 0)}
    assert len(shop.rows()) == (6 if stopping == "error" else 5)


def test_a_claim_ahead_that_fails_leaves_what_was_delivered_settled(shop, monkeypatch) -> None:
    shop.note()
    saved(shop, 4)
    relay = shop.relay(batch=2, aliases=["default"])
    claimed = Store._claimed
    fails = []

    def failing(self, connection, values, *, lost):
        if not fails and not lost and len(shop.calls) == 2:
            fails.append(1)
            connection.exec_driver_sql("SELECT * FROM no_such_table")
        return claimed(self, connection, values, lost=lost)

    monkeypatch.setattr(Store, "_claimed", failing)
    assert relay.drain() == 4
    assert (shop.calls, fails, shop.rows()) == (["000", "001", "002", "003"], [1], [])
