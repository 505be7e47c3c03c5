"""Awaited saves store the same events, in the same transaction."""

import asyncio
import json

import pytest

from microorm import OutboxError
from microorm.testing import count_statements


def test_awaited_saves_store_their_events_in_their_transaction(shop) -> None:
    shop.note()
    shop.registry.create_all()

    async def save() -> None:
        await shop.Order(name="a").asave()
        async with shop.databases.atomic():
            await shop.Order(name="b").asave()
        with pytest.raises(ZeroDivisionError):
            async with shop.databases.atomic():
                await shop.Order(name="c").asave()
                raise ZeroDivisionError

    asyncio.run(save())
    assert [json.loads(row.body)["row"]["name"] for row in shop.rows()] == ["a", "b"]
    shop.relay().drain()
    assert shop.calls == ["a", "b"]


def test_an_awaited_save_sends_two_statements(shop) -> None:
    shop.note()
    shop.registry.create_all()

    async def save() -> int:
        await shop.Order(name="a").asave()
        with count_statements(databases=shop.databases) as counted:
            await shop.Order(name="b").asave()
        return len(counted)

    assert asyncio.run(save()) == 2


def test_an_awaited_save_without_the_table_fails_as_a_whole(shop) -> None:
    shop.registry.create_all()
    shop.note()
    order = shop.Order(name="a")

    async def save() -> None:
        with pytest.raises(OutboxError, match="no table 'microorm_outbox'"):
            await order.asave()

    asyncio.run(save())
    assert (order.pk, shop.Order.objects.count()) == (None, 0)


def test_an_async_receiver_may_save_in_an_awaited_call(shop) -> None:
    @shop.receives()
    async def change(instance, created, **kwargs):
        if created:
            instance.total = 7
            await instance.asave()

    shop.registry.create_all()
    shop.Order(name="a").save()
    shop.relay().drain()
    assert [each.total for each in shop.Order.objects.all()] == [7]


@pytest.mark.parametrize("method", ["drain", "run_once", "run"])
def test_a_relay_on_an_event_loop_refuses_async_receivers_before_any_claim(shop, method) -> None:
    @shop.receives()
    async def charge(instance, **kwargs):
        shop.calls.append(instance.name)

    shop.registry.create_all()
    relay = shop.relay()

    async def main() -> None:
        await shop.Order(name="a").asave()
        with pytest.raises(RuntimeError, match=r"'charge'.*await asyncio.to_thread\(relay.drain\)"):
            getattr(relay, method)()
        assert [(row.attempts, row.claim) for row in shop.rows()] == [(0, 0)]
        await asyncio.to_thread(relay.drain)

    asyncio.run(main())
    assert (shop.calls, shop.rows()) == (["a"], [])


def test_a_relay_on_an_event_loop_calls_receivers_that_are_not_async(shop) -> None:
    shop.note()
    shop.registry.create_all()

    async def main() -> None:
        await shop.Order(name="a").asave()
        assert shop.relay().drain() == 1

    asyncio.run(main())
    assert shop.calls == ["a"]
