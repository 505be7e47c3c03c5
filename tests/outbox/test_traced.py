"""A trace shows what is stored for durable receivers, and their calls by a relay."""

from microorm.outbox import Relay
from microorm.tracing import trace


def test_what_is_stored_and_what_is_delivered_is_in_a_trace(shop) -> None:
    shop.note("charge")
    shop.registry.create_all()
    with trace() as t:
        shop.Order(name="a").save()
    (save,) = t.steps
    (signal,) = [step for step in save.children if step.kind == "signal"]
    (store,) = signal.children
    assert store.kind == "store"
    (stored,) = store.details["receivers"]
    assert stored["delivery"] == "durable"
    assert [step.details["sql"].split()[0] for step in store.children] == ["INSERT"]
    assert f"stored for {stored['receiver']} at " in str(t)
    with trace() as t:
        Relay(databases=shop.databases).drain()
    assert [step.details["delivery"] for step in t.find("receiver")] == ["durable"]
    assert len(shop.calls) == 1
