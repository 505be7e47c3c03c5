"""What a consumer does with a message: the same for all brokers."""

import asyncio
import json
import pickle
import sys
from dataclasses import replace

import pytest

from microorm.errors import InvalidEvent, UnknownAlias, UnknownReceiver
from microorm.outbox import Retry
from microorm.outbox.consumer import ON_THE_WIRE, Consumer, dump_message, load_message, message_id
from microorm.outbox.event import Message

MAX = ON_THE_WIRE


class Carried:
    """A transport that keeps the messages in a list."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def publish(self, events):
        found = list(events)
        self.messages += [dump_message(message) for message in found]
        return [message.id for message in found]

    def close(self) -> None:
        pass


@pytest.fixture
def carried() -> Carried:
    return Carried()


@pytest.fixture
def publish(shop, carried):
    """Save an order, publish its event, and return the message."""

    def publish(**values) -> str:
        shop.Order(**({"name": "a"} | values)).save()
        assert shop.relay(transport=carried).drain() >= 1
        assert shop.rows() == []
        return carried.messages[-1]

    return publish


def a_message(**changes) -> str:
    message = Message(
        row=0,
        event="01a22f3b-838b-7808-9067-1eefb69bfc3e",
        receiver="charge",
        signal="post_save",
        label="main.Order",
        body="{}",
        attempt=1,
        created_at=1,
        alias="default",
        claim=0,
        claimed_at=2,
    )
    return dump_message(replace(message, **changes))


def test_a_message_calls_the_receiver_and_leaves_nothing_behind(shop, publish) -> None:
    shop.note()
    shop.registry.create_all()
    Consumer(shop.databases).receive(publish())
    assert (shop.calls, shop.rows(), shop.rows("microorm_outbox_dead")) == (["a"], [], [])


def test_a_message_is_the_event_when_it_is_read_again(shop, publish) -> None:
    shop.note(ordered=True)
    shop.registry.create_all()
    text = publish()
    again = load_message(text.encode(), MAX)
    assert (again.receiver, again.attempt, again.row, again.claim) == ("charge", 1, 0, 0)
    assert again.order_key is not None
    assert dump_message(again) == text


def test_an_event_whose_receiver_fails_waits_in_the_outbox_and_is_published_again(
    shop, publish, carried
) -> None:
    failures = [ValueError("secret"), None]
    attempts = []

    @shop.receives(retry=Retry(base=60))
    def charge(event, **kwargs):
        attempts.append(event)
        if (error := failures.pop(0)) is not None:
            raise error

    shop.registry.create_all()
    consumer = Consumer(shop.databases)
    consumer.receive(publish())
    (row,) = shop.rows()
    assert (row.attempts, row.claim, row.due_at > row.created_at + 20_000) == (1, 0, True)
    assert shop.relay(transport=carried).drain() == 0, "it waits"
    shop.pass_time()
    assert shop.relay(transport=carried).drain() == 1
    consumer.receive(carried.messages[-1])
    assert [event.attempt for event in attempts] == [1, 2]
    assert attempts[0].id == attempts[1].id
    assert attempts[0].created_at == attempts[1].created_at
    assert shop.rows() == []


def test_an_event_that_fails_too_often_is_dead_and_can_be_retried(shop, publish, carried) -> None:
    @shop.receives(retry=Retry(max_attempts=1))
    def charge(**kwargs):
        raise ValueError("secret")

    shop.registry.create_all()
    consumer, text = Consumer(shop.databases), publish()
    consumer.receive(text)
    consumer.receive(text)  # a duplicate dies beside it
    dead = shop.rows("microorm_outbox_dead")
    assert shop.rows() == []
    assert [row.attempts for row in dead] == [1, 1]
    assert all(row.error.startswith("builtins.ValueError in ") and "secret" not in row.error for row in dead)


def test_an_event_whose_receiver_is_not_there_waits_and_dies_when_it_has_waited_too_long(
    shop, publish
) -> None:
    shop.note()
    shop.registry.create_all()
    text = publish()
    shop.disconnect()
    shop.note("another")
    Consumer(shop.databases).receive(text)
    (row,) = shop.rows()
    assert (row.attempts, row.receiver) == (0, "charge"), "the attempt does not count"
    Consumer(shop.databases, unknown_for=0).receive(text)
    (dead,) = shop.rows("microorm_outbox_dead")
    assert dead.error.startswith("UnknownReceiver: ")
    assert shop.calls == []


def test_a_message_that_comes_again_is_not_delivered_but_put_back_as_a_failed_attempt(shop, publish) -> None:
    """So that an event that kills its consumer is not tried for ever."""
    shop.note(retry=Retry(max_attempts=2))
    shop.registry.create_all()
    text = publish()
    Consumer(shop.databases).receive(text, redelivered=True)
    assert (shop.calls, [row.attempts for row in shop.rows()]) == ([], [1])
    last = json.loads(text) | {"attempt": 2}
    Consumer(shop.databases).receive(json.dumps(last), redelivered=True)
    (dead,) = shop.rows("microorm_outbox_dead")
    assert "RedeliveredError" in dead.error


def test_duplicates_have_one_effect_where_the_receiver_is_exactly_once(shop, publish) -> None:
    @shop.receives(exactly_once=True)
    def charge(instance, **kwargs):
        shop.Order.objects.filter(pk=instance.pk).update(total=instance.total + 1)
        shop.calls.append(instance.name)

    shop.registry.create_all()
    consumer, text = Consumer(shop.databases), publish()
    for _ in range(3):
        consumer.receive(text)
    assert shop.calls == ["a"]
    assert shop.Order.objects.get().total == 1
    assert len(shop.rows("microorm_outbox_done")) == 1
    assert shop.rows() == []


def test_an_effect_is_rolled_back_with_its_note_if_the_receiver_fails(shop, publish) -> None:
    @shop.receives(exactly_once=True)
    def charge(instance, **kwargs):
        shop.Order.objects.filter(pk=instance.pk).update(total=7)
        raise ValueError

    shop.registry.create_all()
    Consumer(shop.databases).receive(publish())
    assert shop.Order.objects.get().total == 0
    assert shop.rows("microorm_outbox_done") == []
    assert [row.attempts for row in shop.rows()] == [1]


def test_an_event_that_cannot_be_put_back_stays_with_the_broker(shop, publish) -> None:
    @shop.receives()
    def charge(**kwargs):
        raise ValueError

    shop.registry.create_all()
    text = publish()
    shop.run("DROP TABLE microorm_outbox")
    consumer = Consumer(shop.databases)
    assert consumer.take(text) == "keep"
    with pytest.raises(Exception, match="microorm_outbox"):
        consumer.receive(text)


def test_an_event_of_a_database_that_the_process_does_not_have_stays_with_the_broker(shop) -> None:
    shop.note()
    shop.registry.create_all()
    consumer = Consumer(shop.databases)
    with pytest.raises(UnknownAlias):
        consumer.receive(a_message(alias="archive"))
    assert consumer.take(a_message(alias="archive")) == "keep"


def test_a_process_without_durable_receivers_leaves_events_with_the_broker(databases) -> None:
    assert Consumer(databases).take(a_message()) == "keep"


class Boom:
    def __reduce__(self):
        return (print, ("called",))


VALID = json.loads(a_message())
HOSTILE = {
    "a pickle": pickle.dumps(Boom()),
    "a pickle in ASCII": pickle.dumps(Boom(), 0),
    "no JSON": b"{",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "10 MB": b"[" + b"0," * 5_000_000 + b"0]",
    "10,000 levels": b"[" * 10_000 + b"]" * 10_000,
    "a list": b"[]",
    "a number": b"1",
    "NaN": json.dumps(VALID | {"attempt": float("nan")}),
    "another version": json.dumps(VALID | {"version": 2}),
    "a field more": json.dumps(VALID | {"__class__": "os.system"}),
    "a field less": json.dumps({name: VALID[name] for name in VALID if name != "alias"}),
    "an alias that is a list": json.dumps(VALID | {"alias": ["default"]}),
    "a long name": json.dumps(VALID | {"receiver": "x" * 201}),
    "a null character": json.dumps(VALID | {"receiver": "a\0b"}),
    "a null character in the body": json.dumps(VALID | {"body": "a\0b"}),
    "half a character": json.dumps(VALID | {"body": "\ud800"}),
    "half a character in a name": json.dumps(VALID | {"label": "\ud800"}),
    "a long body": json.dumps(VALID | {"body": "x" * (MAX + 1)}),
    "an attempt that is true": json.dumps(VALID | {"attempt": True}),
    "a negative moment": json.dumps(VALID | {"created_at": -1}),
    "a large attempt": json.dumps(VALID | {"attempt": 2**31}),
    "a number of 10,000 digits": json.dumps(VALID).replace('"attempt": 1', '"attempt": ' + "9" * 10_000),
}


@pytest.mark.backends("sqlite-memory")  # which is not asked
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_event_is_discarded(databases, data) -> None:
    modules = set(sys.modules)
    with pytest.raises(InvalidEvent):
        Consumer(databases).receive(data)
    assert Consumer(databases).take(data) == "discard"
    assert not {"os.system", "posix.system"} & (set(sys.modules) - modules)


@pytest.mark.parametrize(
    "changes",
    [
        {"body": "[" * 10_000 + "]" * 10_000},
        {"body": "os.system"},
        {"body": pickle.dumps(Boom(), 0).decode()},
        {"signal": "os.system"},
        {"signal": "pre_save"},
        {"event": "x" * 36},
    ],
    ids=repr,
)
def test_an_event_that_can_never_be_delivered_is_dead_at_once(shop, publish, changes) -> None:
    shop.note(retry=Retry(max_attempts=5))
    shop.registry.create_all()
    Consumer(shop.databases).receive(json.dumps(json.loads(publish()) | changes))
    (dead,) = shop.rows("microorm_outbox_dead")
    assert dead.error.startswith("InvalidEvent: ")
    assert (shop.calls, shop.rows()) == ([], [])


@pytest.mark.parametrize(
    "changes", [{"receiver": "os.system"}, {"label": "os.system"}, {"label": "main.Nobody"}]
)
def test_a_message_that_names_a_function_calls_none(shop, publish, changes) -> None:
    shop.note()
    shop.registry.create_all()
    Consumer(shop.databases, unknown_for=0).receive(json.dumps(json.loads(publish()) | changes))
    (dead,) = shop.rows("microorm_outbox_dead")
    assert dead.error.startswith("UnknownReceiver: ")
    assert (shop.calls, shop.rows()) == ([], [])


def test_an_identifier_is_ascii_and_short_whatever_the_receiver_is_called() -> None:
    short, long = (
        load_message(a_message(receiver="büro:a b"), MAX),
        load_message(a_message(receiver="ü" * 200), MAX),
    )
    assert message_id(short) == f"{short.event}:b%C3%BCro:a%20b"
    assert len(message_id(long)) == 36
    assert message_id(long) != message_id(replace(long, event="another"))


def test_a_row_that_no_save_has_written_is_not_published() -> None:
    with pytest.raises(InvalidEvent, match="cannot be published: 'body'"):
        a_message(body=5)


def test_observers_are_called_with_what_became_of_a_message(shop, publish) -> None:
    shop.note()
    shop.registry.create_all()
    seen = []
    consumer = Consumer(shop.databases, observe=seen.append)
    text = publish()
    consumer.receive(text)
    consumer.receive(text, redelivered=True)
    assert [(each.receiver, each.outcome, each.attempt) for each in seen] == [
        ("charge", "done", 1),
        ("charge", "failed", 1),
    ]


@pytest.mark.parametrize("length", [100_000, 1_500_000])
def test_a_long_message_whose_receiver_the_consumer_does_not_have_goes_back_to_the_outbox(
    shop, publish, length
) -> None:
    shop.note(max_bytes=2_000_000)
    shop.registry.create_all()
    text = publish(name="a" * length)
    shop.disconnect()
    assert Consumer(shop.databases).take(text) == "done"
    (row,) = shop.rows()
    assert (row.attempts, row.claim, len(row.body) > length) == (0, 0, True)


def test_a_relay_publishes_no_event_that_it_can_neither_read_nor_find_the_receiver_of(shop, carried) -> None:
    shop.note(max_bytes=2_000_000)
    shop.registry.create_all()
    shop.Order(name="a" * 1_500_000).save()
    shop.disconnect()
    with pytest.raises(UnknownReceiver):
        shop.relay(aliases=["default"], transport=carried).drain()
    assert (len(shop.rows()), shop.rows("microorm_outbox_dead"), carried.messages) == (1, [], [])


def test_an_observer_that_raises_does_not_keep_a_message_with_its_broker(shop, publish) -> None:
    def observe(delivered):
        raise ValueError("metrics are down")

    shop.note()
    shop.registry.create_all()
    assert Consumer(shop.databases, observe=observe).take(publish()) == "done"
    assert shop.calls == ["a"]


def test_a_cancellation_that_leaks_from_a_receiver_puts_its_event_back(shop, publish) -> None:
    @shop.receives()
    async def charge(**kwargs):
        raise asyncio.CancelledError

    shop.registry.create_all()
    assert Consumer(shop.databases).take(publish()) == "done"
    assert [(row.attempts, row.claim) for row in shop.rows()] == [(1, 0)]
