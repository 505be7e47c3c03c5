"""Ordered receivers get the events of one row in the order of their commits."""

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from microorm.outbox import Retry
from tests.thorough import size


def inversions(seen: dict[int, list[int]]) -> list[int]:
    return [key for key, totals in seen.items() if totals != sorted(totals)]


def test_a_later_event_waits_for_an_earlier_one_that_is_claimed(shop) -> None:
    shop.note(ordered=True)
    shop.registry.create_all()
    order = shop.Order(name="a").save()
    order.save()
    shop.Order(name="b").save()
    one, two = shop.relay().store("default"), shop.relay().store("default")
    first = one.claim(1, 60, 65_536)
    assert [each.row for each in two.claim(10, 60, 65_536)] == [shop.rows()[2].id]
    assert first[0].row == shop.rows()[0].id


def test_a_later_event_waits_for_an_earlier_one_that_has_failed(shop) -> None:
    @shop.receives(ordered=True, retry=Retry(base=1000))
    def charge(instance, **kwargs):
        shop.calls.append(instance.total)
        if len(shop.calls) == 1:
            raise ValueError

    shop.registry.create_all()
    order = shop.Order(name="a").save()
    order.total = 1
    order.save()
    relay = shop.relay()
    assert relay.drain() == 1
    shop.pass_time()
    assert relay.drain() == 2
    assert shop.calls == [0, 0, 1]


def test_a_later_event_goes_on_once_an_earlier_one_is_dead(shop) -> None:
    @shop.receives(ordered=True, retry=Retry(max_attempts=1))
    def charge(instance, **kwargs):
        if not instance.total:
            raise ValueError
        shop.calls.append(instance.total)

    shop.registry.create_all()
    order = shop.Order(name="a").save()
    order.total = 1
    order.save()
    shop.relay().drain()
    assert shop.calls == [1]


def test_receivers_do_not_wait_for_each_other(shop) -> None:
    @shop.receives("stuck", ordered=True, retry=Retry(base=1000))
    def stuck(**kwargs):
        raise ValueError

    shop.note("free", ordered=True)
    shop.registry.create_all()
    order = shop.Order(name="a").save()
    order.save()
    shop.relay().drain()
    assert shop.calls == ["a", "a"]


def test_an_order_key_that_is_none_waits_for_nothing(shop) -> None:
    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append(instance.total)
        if shop.calls == [0]:
            raise ValueError

    shop.registry.create_all()
    order = shop.Order(name="a").save()
    order.total = 1
    order.save()
    shop.relay().drain()
    assert shop.calls == [0, 1, 0]


def deliver(shop, *, keys: int, saves: int, workers: int) -> dict[int, list[int]]:
    """Save *keys* orders *saves* times each while *workers* relays deliver them, 5 % of the time in vain."""
    seen: dict[int, list[int]] = defaultdict(list)
    chance, lock = random.Random(5), threading.Lock()
    over = threading.Event()

    @shop.receives(ordered=True, retry=Retry(max_attempts=50, base=0.001))
    def charge(instance, **kwargs):
        with lock:
            if chance.random() < 0.05:
                raise ValueError
            seen[instance.pk].append(instance.total)

    shop.registry.create_all()

    def produce(numbers: range) -> None:
        orders = [shop.Order(name=f"{number}").save() for number in numbers]
        for total in range(1, saves):
            for order in orders:
                order.total = total
                order.save()

    def relay() -> None:
        mine = shop.relay(batch=10, aliases=["default"])
        while not over.is_set() or shop.rows():
            mine.run_once()

    half = keys // 2
    with ThreadPoolExecutor(workers + 2) as pool:
        relays = [pool.submit(relay) for _ in range(workers)]
        producers = [pool.submit(produce, each) for each in (range(half), range(half, keys))]
        try:
            for each in producers:
                each.result()
        finally:
            over.set()
        for each in relays:
            each.result()
    return seen


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_many_workers_and_failures_do_not_invert_the_order(shop) -> None:
    seen = deliver(shop, keys=20, saves=4, workers=3)
    assert inversions(seen) == []
    assert [totals for totals in seen.values() if totals != [0, 1, 2, 3]] == []
    assert len(seen) == 20


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_8_workers_and_failures_do_not_invert_the_order(shop) -> None:
    """Of 500 rows in `make soak`."""
    keys = size(60, 500)
    seen = deliver(shop, keys=keys, saves=4, workers=8)
    assert inversions(seen) == []
    assert [key for key, totals in seen.items() if totals != [0, 1, 2, 3]] == []
    assert len(seen) == keys
