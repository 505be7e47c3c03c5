"""`Signal.receivers_for`: what a signal would reach, and in which order."""

import gc

import pytest

from microorm import Field, Model, Registry, Signal, muted, receiver
from microorm.signals import post_save


def test_a_signal_lists_what_it_would_reach_in_the_order_of_the_calls() -> None:
    ping, sender, called = Signal(), object(), []

    async def last(**kwargs: object) -> None:
        called.append("last")

    def first(**kwargs: object) -> None:
        called.append("first")

    def elsewhere(**kwargs: object) -> None:
        called.append("elsewhere")

    def second(**kwargs: object) -> None:
        called.append("second")

    ping.connect(last, sender=sender)
    ping.connect(first, sender=sender)
    ping.connect(elsewhere, sender=object())
    ping.connect(second)
    with muted(ping):
        found = ping.receivers_for(sender)
    assert [each.receiver for each in found] == [first, second, last]
    assert [each.qualname.rpartition(".")[2] for each in ping.receivers_for()] == ["second"]
    assert found[0].location.startswith(__file__)
    ping.send(sender)
    assert called == ["first", "second", "last"]
    del second, found
    gc.collect()
    assert [each.receiver for each in ping.receivers_for(sender)] == [first, last]


def test_a_model_signal_takes_labels_also_of_models_to_come() -> None:
    registry = Registry()

    @receiver(post_save, sender="shop.Book", registry=registry, delivery="on_commit")
    def note(**kwargs: object) -> None: ...

    @receiver(post_save)
    def every(**kwargs: object) -> None: ...

    def names(sender: object) -> list[str]:
        found = post_save.receivers_for(sender, registry=registry)
        return [each.qualname.rpartition(".")[2] for each in found]

    assert (names("shop.Book"), names("shop.Author")) == (["every", "note"], ["every"])

    class Book(Model, registry=registry, app="shop"):
        title: Field[str]

    assert names("shop.Book") == names(Book)
    assert sorted(names(Book)) == ["every", "note"]
    assert {each.options.get("delivery") for each in post_save.receivers_for(Book)} == {None, "on_commit"}
    with pytest.raises(TypeError, match="must be a model or its label"):
        post_save.receivers_for(5)
    assert post_save.disconnect(every)
    assert post_save.disconnect(note, sender="shop.Book", registry=registry)
