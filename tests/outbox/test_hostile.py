"""Whatever is written into the outbox: nothing is called or imported, and the relay goes on."""

import json
import os
import pickle
import sys

import pytest

from microorm import Field
from microorm.outbox import Retry
from microorm.outbox.event import SIGNALS


class Boom:
    def __reduce__(self):
        return (os.system, ("touch /nonexistent/boom",))


def insert(shop, **values) -> None:
    row = {
        "event": "01a22f3b-838b-7808-9067-1eefb69bfc3e",
        "receiver": "charge",
        "signal": "post_save",
        "label": shop.Order.__schema__.label,
        "attempts": 0,
        "body": body(),
    } | values
    names = {"signal": '"signal"', "body": '"body"'}
    if shop.databases.database("default").dialect == "mariadb":
        names = {"signal": "`signal`", "body": "`body`"}
    columns = ", ".join(names.get(name, name) for name in row)
    parameters = ", ".join(f":{name}" for name in row)
    shop.run(f"INSERT INTO microorm_outbox ({columns}) VALUES ({parameters})", **row)


def body(**changes) -> str:
    row = {"id": 1, "name": "a", "total": 0}
    return json.dumps(
        {"version": 1, "created": True, "raw": False, "update_fields": None, "row": row} | changes
    )


HOSTILE = {
    "a pickle": {"body": pickle.dumps(Boom(), 0).decode("latin-1")},
    "10 MB": {"body": "[" + "0," * 5_000_000 + "0]"},
    "10,000 levels": {"body": "[" * 10_000 + "]" * 10_000},
    "10,000 levels of a row": {"body": '{"version":1,"row":' + '{"a":' * 10_000 + "1" + "}" * 10_001},
    "a number of 10,000 digits": {"body": body().replace('"total": 0', '"total": ' + "9" * 10_000)},
    "no JSON": {"body": "{"},
    "NaN": {"body": body().replace('"total": 0', '"total": NaN')},
    "another version": {"body": body(version=2)},
    "a list": {"body": "[]"},
    "no row": {"body": '{"version":1}'},
    "a row that is a text": {"body": body(row="os.system")},
    "a row without a key": {"body": body(row={"name": "a"})},
    "a value of another type": {"body": body(row={"id": 1, "name": {"__class__": "os.system"}})},
    "a flag that is no flag": {"body": body(created="yes")},
    "fields that are no names": {"body": body(update_fields=[1])},
    "a signal that is a module": {"signal": "os.system"},
    "a signal without an end": {"signal": "pre_save"},
    "an identifier that is none": {"event": "x" * 36},
}


def test_a_hostile_row_dies_at_once_and_the_others_are_delivered(shop, subtests) -> None:
    shop.note(retry=Retry(max_attempts=5, base=0))
    shop.registry.create_all()
    for name, values in HOSTILE.items():
        with subtests.test(name):
            shop.forget()
            modules = set(sys.modules)
            insert(shop, **values)
            shop.Order(name="good").save()
            delivered = shop.relay(unknown_for=0).drain()
            assert delivered == 2, "what another version might read would wait for a week"
            assert shop.calls == ["good"]
            assert shop.rows() == []
            (dead,) = shop.rows("microorm_outbox_dead")
            assert dead.attempts == 1
            assert dead.error.startswith(("InvalidEvent: ", "IncompatibleEvent: "))
            assert len(dead.error) < 1000
            assert not {"os.system", "posix.system"} & (set(sys.modules) - modules)


def test_a_row_that_names_a_function_calls_none_and_dies_in_the_end(shop, subtests, monkeypatch) -> None:
    monkeypatch.setattr(os, "system", lambda *arguments, **named: shop.calls.append("called"))
    shop.note()
    shop.registry.create_all()
    for values in ({"receiver": "os.system"}, {"label": "os.system"}, {"label": "unknown"}):
        with subtests.test(str(values)):
            shop.forget()
            insert(shop, **values)
            assert shop.relay().run_once() == 1
            assert len(shop.rows()) == 1, "a receiver of this name may come with a deploy"
            shop.pass_time()
            shop.relay(unknown_for=0).run_once()
            assert (shop.calls, shop.rows()) == ([], [])
            assert shop.rows("microorm_outbox_dead")[0].error.startswith("UnknownReceiver: ")


@pytest.mark.backends("sqlite-file", "sqlite-memory")
def test_bytes_in_any_column_do_not_stop_the_relay(shop, subtests) -> None:
    """SQLite stores them wherever they are written."""
    shop.note()
    shop.registry.create_all()
    for column in ("event", "receiver", "signal", "label", "body", "created_at", "attempts"):
        with subtests.test(column):
            shop.forget()
            insert(shop, **{column: pickle.dumps(Boom())})
            shop.Order(name="good").save()
            shop.relay(unknown_for=0).drain()
            assert "good" in shop.calls
            shop.pass_time()
            shop.relay(unknown_for=0).drain()
            assert [row.body for row in shop.rows()] == []


def test_an_event_of_another_model_does_not_reach_its_receiver(shop, Base) -> None:
    class Other(Base):
        name: Field[str]

    shop.note()
    shop.registry.create_all()
    insert(shop, label=Other.__schema__.label)
    shop.relay(unknown_for=0).drain()
    assert shop.calls == []


def test_a_field_that_the_model_has_lost_is_ignored_and_one_that_it_has_got_is_loaded(shop) -> None:
    @shop.receives()
    def charge(instance, **kwargs):
        shop.calls.append((instance.name, instance.total))

    shop.registry.create_all()
    order = shop.Order(name="stored", total=5).save()
    shop.relay().drain()
    insert(shop, body=body(row={"id": order.pk, "name": "then", "gone": 1}))
    shop.relay().drain()
    assert shop.calls == [("stored", 5), ("then", 5)]


def test_the_signals_of_rows_are_a_fixed_list() -> None:
    assert set(SIGNALS) == {"post_save", "post_delete"}
