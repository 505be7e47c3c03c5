"""A relay while aliases come and go."""

import time
from typing import Any

import pytest

from microorm import UnknownAlias
from microorm.outbox import Relay

PATIENCE = 20  # seconds for what takes milliseconds


def wait_for(condition: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it has not happened"
        time.sleep(0.005)


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")  # a database in memory is lost
def test_a_running_relay_delivers_what_is_written_to_an_added_alias_until_it_is_removed(
    shop, fresh_url, caplog
) -> None:
    shop.note()
    shop.registry.create_all()
    url = fresh_url()
    shop.databases.add("new", url)
    shop.registry.create_all(using="new")  # before the relay looks for events in it
    shop.databases.remove("new")
    relay = shop.relay(idle=0.02)
    relay.start()
    try:
        shop.databases.add("new", url)
        shop.Order(name="a").save(using="new")
        wait_for(lambda: shop.calls == ["a"])
        wait_for(lambda: removed(shop.databases))
        shop.Order(name="b").save()
        wait_for(lambda: shop.calls == ["a", "b"])
    finally:
        assert relay.stop(PATIENCE)
    assert "new" not in relay.aliases
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def removed(databases: Any) -> bool:
    """Remove the alias, unless the relay is using it at this moment."""
    try:
        databases.remove("new")
    except Exception as error:
        if "cannot be removed while" not in str(error):
            raise
        return False
    return True


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")  # a database in memory is lost
def test_an_alias_that_is_removed_while_its_events_are_delivered_does_not_stop_the_others(
    shop, fresh_url
) -> None:
    """What has become of an event cannot be stored any more, so it is delivered again if the alias comes back."""

    @shop.receives("charge")
    def charge(instance: Any, **kwargs: Any) -> None:
        shop.calls.append(instance.name)
        if shop.calls == ["a"]:
            shop.databases.remove("new")

    url = fresh_url()
    shop.databases.add("new", url)
    shop.registry.create_all()
    shop.Order(name="a").save(using="new")
    relay = shop.relay(aliases=["new", "default"])
    shop.Order(name="b").save()
    relay.drain()
    assert shop.calls == ["a", "b"]
    shop.databases.add("new", url)
    shop.run("UPDATE microorm_outbox SET due_at = 0", alias="new")
    assert shop.relay(aliases=["new"]).drain() == 1
    assert shop.calls == ["a", "b", "a"]


def test_a_relay_of_named_aliases_leaves_out_one_that_was_removed(shop) -> None:
    shop.note()
    shop.registry.create_all()
    relay = shop.relay(aliases=["default", "other"])
    shop.Order(name="lost").save(using="other")
    shop.Order(name="a").save()
    shop.databases.remove("other")
    assert relay.drain() == 1
    assert shop.calls == ["a"]
    with pytest.raises(UnknownAlias):
        shop.relay(aliases=["other"])


@pytest.mark.backends("postgresql")
@pytest.mark.parametrize(("limit", "listening"), [(None, True), (4, False)])
def test_a_relay_listens_where_it_takes_no_connection_from_other_aliases(
    shop, url, limit: int | None, listening: bool
) -> None:
    shop.note()
    shop.databases.configure({"default": url}, max_connections=limit)
    shop.registry.create_all()
    relay: Relay = shop.relay(idle=0.02)
    relay.start()
    try:
        wait_for(lambda: "default" in relay._waiter._listening)
        if listening:  # which begins a moment later
            wait_for(lambda: relay._waiter._listening["default"] is not None)
        shop.Order(name="a").save()
        wait_for(lambda: shop.calls == ["a"])
        assert (relay._waiter._listening["default"] is not None) is listening
        wait_for(lambda: shop.databases.database("default").in_use() == 0)
    finally:
        assert relay.stop(PATIENCE)
