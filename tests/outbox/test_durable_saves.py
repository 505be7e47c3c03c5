"""A save stores the events of its durable receivers in its own transaction, or fails as a whole."""

import json
from uuid import UUID

import pytest
from sqlalchemy import PickleType, event, inspect

import microorm
from microorm import Field, Model, OutboxError
from microorm.signals import post_bulk_create, post_delete, post_save, post_update
from microorm.testing import count_statements


def test_a_save_stores_one_event_for_each_durable_receiver_and_calls_none(shop) -> None:
    shop.note("charge")
    shop.note("mail")
    shop.registry.create_all()
    order = shop.Order(name="a").save()
    rows = shop.rows()
    assert [(row.receiver, row.signal, row.attempts, row.claim) for row in rows] == [
        ("charge", "post_save", 0, 0),
        ("mail", "post_save", 0, 0),
    ]
    assert len({row.event for row in rows}) == 1
    assert UUID(rows[0].event).version == 7
    assert json.loads(rows[0].body)["row"] == {"id": order.id, "name": "a", "total": 0}
    assert shop.calls == []


def test_a_save_with_durable_receivers_sends_two_statements(shop) -> None:
    shop.note("charge")
    shop.note("mail", payload="key", ordered=True)
    shop.registry.create_all()
    with count_statements(databases=shop.databases) as counted:
        shop.Order(name="a").save()
    assert len(counted) == 2, counted
    order = shop.Order(name="b").save()
    with shop.databases.atomic(), count_statements(databases=shop.databases) as counted:
        order.save()
    assert len(counted) == 2, counted


def test_an_event_is_gone_with_its_rolled_back_transaction(shop) -> None:
    shop.note()
    shop.registry.create_all()
    with pytest.raises(ZeroDivisionError), shop.databases.atomic():
        shop.Order(name="a").save()
        assert len(shop.rows()) == 1
        raise ZeroDivisionError
    assert shop.rows() == []


def test_an_event_is_gone_with_its_rolled_back_savepoint(shop) -> None:
    shop.note()
    shop.registry.create_all()
    with shop.databases.atomic():
        shop.Order(name="a").save()
        with pytest.raises(ZeroDivisionError), shop.databases.atomic():
            shop.Order(name="b").save()
            raise ZeroDivisionError
        shop.Order(name="c").save()
    assert [json.loads(row.body)["row"]["name"] for row in shop.rows()] == ["a", "c"]


def test_an_event_is_gone_if_a_later_receiver_fails_the_save(shop) -> None:
    shop.note()
    shop.registry.create_all()

    @microorm.receiver(post_save, sender=shop.Order)
    def fail(**kwargs):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shop.Order(name="a").save()
    assert (shop.rows(), shop.Order.objects.count()) == ([], 0)


def test_the_event_has_the_row_as_it_was_saved_whatever_other_receivers_change(shop) -> None:
    @microorm.receiver(post_save, sender=shop.Order)
    def change(instance, **kwargs):
        instance.name = "changed"

    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save()
    assert json.loads(shop.rows()[0].body)["row"]["name"] == "a"


def test_the_event_of_a_save_of_some_fields_has_what_the_row_holds(shop) -> None:
    shop.note()
    shop.registry.create_all()
    order = shop.Order(name="a", total=1).save()
    order.name, order.total = "unsaved", 2
    order.save(update_fields=["total"])
    body = json.loads(shop.rows()[-1].body)
    assert (body["row"], body["update_fields"]) == ({"id": order.id, "name": "a", "total": 2}, ["total"])


def test_a_save_without_the_table_fails_as_a_whole_and_says_how_to_make_it(shop) -> None:
    shop.registry.create_all()
    shop.note()
    order = shop.Order(name="a")
    with pytest.raises(OutboxError, match="no table 'microorm_outbox'.*makemigrations.*create_all"):
        order.save()
    assert (order.pk, shop.Order.objects.count()) == (None, 0)


def test_a_save_without_the_table_dooms_the_open_block(shop) -> None:
    shop.registry.create_all()
    shop.note()
    with pytest.raises(microorm.TransactionError), shop.databases.atomic():
        with pytest.raises(OutboxError):
            shop.Order(name="a").save()
    assert shop.Order.objects.count() == 0


def test_a_save_whose_event_is_too_long_fails_as_a_whole(shop) -> None:
    shop.note()
    shop.registry.create_all()
    with pytest.raises(
        OutboxError, match="'charge' cannot be stored: the JSON has 70,0.. bytes, more than 65,536"
    ):
        shop.Order(name="a" * 70_000).save()
    assert (shop.rows(), shop.Order.objects.count()) == ([], 0)


def test_max_bytes_allows_a_longer_event(shop) -> None:
    shop.note(max_bytes=100_000)
    shop.registry.create_all()
    shop.Order(name="a" * 70_000).save()
    assert shop.relay().drain() == 1
    assert shop.calls == ["a" * 70_000]


def test_a_save_with_a_value_that_json_cannot_hold_fails_as_a_whole(shop, Base) -> None:
    class Odd(Base):
        value: Field[object] = microorm.field(type_=PickleType())

    shop.note(sender=Odd)
    shop.registry.create_all()
    with pytest.raises(OutboxError, match="Odd.value must be a value that JSON can represent, not set"):
        Odd(value={1}).save()
    assert (shop.rows(), Odd.objects.count()) == ([], 0)


@pytest.mark.servers_only
def test_a_save_on_a_connection_in_autocommit_fails_before_it_writes(url, backend) -> None:
    with microorm.Databases({"default": {"url": url, "isolation_level": "AUTOCOMMIT"}}) as databases:
        registry = microorm.Registry(databases)

        class Order(Model, registry=registry):
            name: Field[str]

        def charge(**kwargs):
            raise AssertionError

        post_save.connect(charge, sender=Order, delivery="durable", dispatch_uid="charge")
        registry.create_all()
        with pytest.raises(microorm.ConfigurationError, match="autocommit"):
            Order(name="a").save()
        assert Order.objects.count() == 0
        post_save.disconnect(charge, Order, "charge")


def test_bulk_writes_store_events_only_if_each_row_is_to_send_signals(shop) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order.objects.bulk_create([shop.Order(name="a"), shop.Order(name="b")])
    shop.Order.objects.update(total=1)
    assert shop.rows() == []
    shop.Order.objects.bulk_create([shop.Order(name="c"), shop.Order(name="d")], signals="each")
    assert [json.loads(row.body)["row"]["name"] for row in shop.rows()] == ["c", "d"]


def test_a_bulk_create_that_sends_signals_stores_all_its_events_by_one_statement(shop, backend) -> None:
    shop.note("charge")
    shop.note("mail", ordered=True)
    shop.registry.create_all()
    objects = [shop.Order(name=f"{number}") for number in range(20)]
    with count_statements(databases=shop.databases) as counted:
        shop.Order.objects.bulk_create(objects, signals="each")
    assert sum("microorm_outbox" in sql for sql in counted.statements) == 1, counted
    rows = shop.rows()
    assert [(json.loads(row.body)["row"]["name"], row.receiver) for row in rows] == [
        (each.name, uid) for each in objects for uid in ("charge", "mail")
    ]
    assert len({row.event for row in rows}) == 20


def test_more_events_of_a_bulk_create_than_a_statement_takes_are_all_stored(shop, monkeypatch) -> None:
    monkeypatch.setattr("microorm.outbox.delivery.AT_ONCE", 8)
    shop.note()
    shop.registry.create_all()
    shop.Order.objects.bulk_create([shop.Order(name=f"{n}") for n in range(20)], signals="each")
    shop.relay().drain()
    assert shop.calls == [f"{number}" for number in range(20)]


def test_the_events_of_a_bulk_create_come_before_those_of_what_its_receivers_save(shop) -> None:
    shop.note("charge", ordered=True)
    seen = []

    @microorm.receiver(post_save, sender=shop.Order)
    def change(instance, created, **kwargs):
        seen.append(instance.name)
        if created:
            last.total = instance.total + 1
            last.save()

    shop.registry.create_all()
    first, last = shop.Order(name="a"), shop.Order(name="b")
    shop.Order.objects.bulk_create([first, last], signals="each")
    bodies = [json.loads(row.body) for row in shop.rows()]
    assert [(each["row"]["name"], each["created"]) for each in bodies] == [
        ("a", True),
        ("b", True),
        ("b", False),
        ("b", False),
    ]
    assert seen == ["a", "b", "b", "b"]


def test_a_muted_bulk_create_stores_nothing_and_a_failed_one_leaves_nothing(shop) -> None:
    shop.note()
    shop.registry.create_all()
    with microorm.muted(post_save, sender=shop.Order):
        shop.Order.objects.bulk_create([shop.Order(name="a")], signals="each")
    objects = [shop.Order(name="b"), shop.Order(name="c" * 70_000)]
    with pytest.raises(OutboxError, match="more than 65,536"):
        shop.Order.objects.bulk_create(objects, signals="each")
    assert (shop.rows(), shop.Order.objects.count(), objects[0].pk) == ([], 1, None)


def test_muted_receivers_and_raw_saves_that_are_skipped_store_nothing(shop) -> None:
    shop.note(skip_raw=True)
    shop.registry.create_all()
    shop.Order(name="a").save(raw=True)
    with microorm.muted(post_save, sender=shop.Order):
        shop.Order(name="b").save()
    assert shop.rows() == []


def test_the_event_is_written_on_the_connection_of_the_save(shop) -> None:
    """Not on another one, which would commit it even if the save is rolled back."""
    shop.note()
    shop.registry.create_all()
    with shop.databases.atomic():
        with shop.databases.connection() as connection:
            sent = []
            event.listen(connection, "before_cursor_execute", lambda c, cursor, sql, *_: sent.append(sql))
            shop.Order(name="a").save()
            assert len(shop.rows()) == 1
    assert len(shop.rows()) == 1


def test_the_events_of_another_alias_are_in_that_database(shop) -> None:
    shop.note()
    shop.registry.create_all()
    shop.Order(name="a").save(using="other")
    assert (len(shop.rows()), len(shop.rows(alias="other"))) == (0, 1)


@pytest.mark.parametrize("uid", [None, "", 5, "a" * 201, "a\n"])
def test_a_dispatch_uid_is_required(shop, uid) -> None:
    with pytest.raises(ValueError, match="dispatch_uid="):
        shop.note(uid)


def test_a_dispatch_uid_belongs_to_one_receiver(shop) -> None:
    @shop.receives("charge")
    def one(**kwargs):
        pass

    with pytest.raises(ValueError, match=r"dispatch_uid='charge' belongs to .*one"):

        @shop.receives("charge", signal=post_delete)
        def another(**kwargs):
            pass

    shop.receives("charge", signal=post_delete)(one)


def test_the_dispatch_uid_of_a_receiver_that_waits_for_its_model_is_taken(shop, registry) -> None:
    def one(**kwargs):
        pass

    def two(**kwargs):
        pass

    options = {"sender": "shop.Later", "registry": registry}
    shop.receives("charge", **options)(one)
    with pytest.raises(ValueError, match="belongs to"):
        shop.receives("charge", **options)(two)
    post_save.disconnect(one, "shop.Later", "charge", registry=registry)


@pytest.mark.parametrize("signal", [post_bulk_create, post_update, microorm.signals.pre_save])
def test_only_signals_of_a_written_row_can_be_durable(shop, signal) -> None:
    with pytest.raises(ValueError, match="post_save and post_delete.*signals='each'"):
        shop.note(signal=signal)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"payload": "all"}, "payload= must be 'row' or 'key'"),
        ({"ordered": 1}, "ordered= must be a bool"),
        ({"retry": 3}, "retry= must be a Retry"),
        ({"timeout": 0}, "timeout= must be a positive number"),
        ({"max_bytes": 0}, "max_bytes= must be a positive int"),
        ({"timeout": 1e300}, "timeout= must be a positive number of seconds, at most"),
    ],
)
def test_an_invalid_option_is_refused_when_it_connects(shop, options, error) -> None:
    with pytest.raises(ValueError, match=error):
        shop.note(**options)


def test_an_unknown_option_names_the_nearest_one(shop) -> None:
    with pytest.raises(TypeError, match="no option 'orderd'; nearest: 'ordered'"):
        shop.note(orderd=True)


def test_options_of_durable_receivers_need_the_delivery() -> None:
    with pytest.raises(TypeError, match="ordered= needs delivery='durable'"):
        post_save.connect(lambda **kwargs: None, ordered=True)


def test_a_receiver_that_needs_an_unknown_argument_is_refused(shop) -> None:
    with pytest.raises(ValueError, match="needs the argument 'evnt'.*nearest: 'event'"):

        @shop.receives()
        def charge(evnt, **kwargs):
            pass


def test_the_key_of_a_deleted_row_is_no_payload(shop) -> None:
    with pytest.raises(ValueError, match="payload='key' loads the row"):
        shop.note(signal=post_delete, payload="key")


def test_aliases_without_durable_senders_have_no_outbox(shop) -> None:
    class Router:
        def allow_migrate(self, alias, label, model=None, **hints):
            return (alias == "other") == (label.endswith(".Note"))

    class Note(Model, registry=shop.registry):
        name: Field[str]

    urls = {alias: shop.databases.database(alias).url for alias in shop.databases.aliases}
    if any(shop.databases.database(alias).is_memory for alias in urls):
        urls = dict.fromkeys(urls, "sqlite://")
    shop.databases.close()
    shop.databases.configure(urls, routers=[Router()])
    shop.note()
    shop.registry.create_all()
    tables = {alias: set(inspect(shop.databases.engine(alias)).get_table_names()) for alias in urls}
    assert {"microorm_outbox", "microorm_outbox_dead", "microorm_outbox_done"} <= tables["default"]
    assert tables["other"] == {"note"}


def test_no_model_has_an_outbox_without_durable_receivers(shop) -> None:
    shop.registry.create_all()
    assert not any(label.startswith("microorm.") for label in shop.registry.models)
