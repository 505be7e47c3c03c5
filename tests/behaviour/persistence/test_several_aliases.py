"""One instance that is written to two databases: a rollback undoes what was done on its own database, and nothing else."""

import contextlib
import copy
from functools import partial
from typing import Any

import pytest

from microorm import Field, field
from microorm.signals import post_bulk_create, post_delete, post_save, pre_delete, pre_save


class Broken(Exception):
    """The error of failing receivers."""


@pytest.fixture
def Event(Base: Any, registry: Any) -> Any:
    """A model with a generated key and an `on_update` field, in both databases."""
    ticks = iter(range(1000, 2000))

    class Event(Base):
        name: Field[str] = field(max_length=40)
        stamp: Field[int] = field(on_update=lambda: next(ticks))

    registry.create_all()
    return Event


def look(instance: Any) -> Any:
    return instance.id, instance._state.adding, instance._state.db, instance.changes()


def names(model: Any, alias: str) -> list[str]:
    return [each.name for each in model.objects.using(alias).order_by("id")]


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_committed_elsewhere_outlives_the_rollback(Event, undone, databases, alone):
    """In a block inside the block, or by itself; a save afterwards updates the row instead of adding one."""
    event = Event(name="a")
    with undone():
        event.save(using="default")
        with contextlib.nullcontext() if alone else databases.atomic("other"):
            event.save(using="other")
    assert look(event) == (event.id, False, "other", {})
    event.save()
    assert (names(Event, "default"), names(Event, "other")) == ([], ["a"])


def test_a_rollback_elsewhere_restores_the_state_of_this_block(Event, undone, databases):
    event = Event(name="a")
    with databases.atomic():
        event.save()
        saved = look(event)
        with undone("other"):
            event.save(using="other")
        assert look(event) == saved
    assert (names(Event, "default"), names(Event, "other")) == (["a"], [])


@pytest.mark.parametrize("loaded", [False, True])
def test_both_blocks_are_undone_in_any_order(Event, undone, loaded):
    """The instance is as it was before both, even if the block whose save came first ends first."""
    event = Event(name="a")
    if loaded:
        event.save(using="other")
        event.name = "b"
    before = (look(event), event.stamp if loaded else None)
    for outer, inner in (("default", "other"), ("other", "default")):
        with undone(outer), undone(inner):
            event.save(using="default")
            event.save(using="other")
            event.save(using="other")
        assert (look(event), event.stamp if loaded else None) == before


def test_saves_that_take_turns_are_undone_each_by_its_own_block(Event, undone):
    event = Event(name="a")
    with undone():
        event.save(using="default")
        event.save(using="other")
        event.name = "b"
        event.save(using="default")
    assert look(event) == (event.id, False, "other", {"name": ("a", "b")})
    assert (names(Event, "default"), names(Event, "other")) == ([], ["a"])


def test_saves_that_take_turns_leave_those_of_the_block_that_is_committed(Event, undone, databases):
    event = Event(name="a")
    with databases.atomic("other"):
        with undone():
            event.save(using="default")
            event.save(using="other")
            event.save(using="default")
            event.save(using="other")
        assert look(event) == (event.id, False, "other", {})
    assert (names(Event, "default"), names(Event, "other")) == ([], ["a"])


def test_a_savepoint_undoes_only_its_own_saves(Event, undone, databases):
    event = Event(name="a")
    with databases.atomic():
        event.save(using="default")
        with undone():
            event.name = "b"
            event.save(using="default")
            event.save(using="other")
        assert look(event) == (event.id, False, "other", {})
    assert (names(Event, "default"), names(Event, "other")) == (["a"], ["b"])


def test_many_new_instances_keep_what_was_committed_elsewhere(Event, undone):
    events = [Event(name=str(number)) for number in range(3)]
    with undone():
        Event.objects.using("default").bulk_create(events)
        Event.objects.using("other").bulk_create(events[:1])
        events[1].save(using="other")
    states = [(event._state.adding, event._state.db) for event in events]
    assert states == [(False, "other"), (False, "other"), (True, None)]
    assert events[2].id is None
    assert names(Event, "other") == ["0", "1"]


@pytest.mark.parametrize("bulk", [False, True])
def test_a_failed_write_leaves_nothing_to_undo(Event, undone, listen, bulk):
    """A receiver has failed, and the instance is saved elsewhere before the block is rolled back."""
    event = Event(name="a")

    def fail(using: str, **kwargs: Any) -> None:
        if using == "default":
            raise Broken

    listen(post_bulk_create if bulk else post_save, fail, sender=Event)
    write = (lambda: Event.objects.using("default").bulk_create([event])) if bulk else event.save
    with undone():
        with pytest.raises(Broken):
            write()
        assert look(event)[:3] == (None, True, None)
        event.save(using="other")
    assert look(event) == (event.id, False, "other", {})
    event.save()
    assert names(Event, "other") == ["a"]


def test_a_rollback_after_a_failed_save_undoes_the_saves_before_it(Event, undone, listen):
    """Values that both saves have generated go back to what they were before the first."""
    event = Event(name="a").save()
    before = (look(event), event.stamp)

    def fail(**kwargs: Any) -> None:
        raise Broken

    with undone():
        event.save()
        stamp = event.stamp
        listen(post_save, fail, sender=Event)
        with pytest.raises(Broken):
            event.save()
        assert event.stamp == stamp
    assert (look(event), event.stamp) == before


@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_a_failed_save_does_not_undo_what_its_receiver_has_saved_elsewhere(Event, listen, signal):
    def save_elsewhere(instance: Any, using: str, **kwargs: Any) -> None:
        if using == "default":
            instance.save(using="other")
            raise Broken

    listen(signal, save_elsewhere, sender=Event)
    event = Event(name="a")
    with pytest.raises(Broken):
        event.save(using="default")
    assert look(event)[1:3] == (False, "other")
    event.save(using="other")
    assert (names(Event, "default"), names(Event, "other")) == ([], ["a"])


@pytest.mark.parametrize("receivers", [None, "immediate", "on_commit"])
def test_a_delete_elsewhere_leaves_the_key(Event, listen, databases, receivers):
    """The row of the instance is still there, and the next save updates it."""
    if receivers is not None:
        listen(post_delete, lambda **kwargs: None, sender=Event, delivery=receivers)
    if receivers == "immediate":
        listen(pre_delete, lambda **kwargs: None, sender=Event)
    event = Event(name="a").save(using="default")
    for block in (contextlib.nullcontext, partial(databases.atomic, "other")):
        copy.copy(event).save(using="other")
        before = look(event)
        with block():
            assert event.delete(using="other")[0] == 1
        assert look(event) == before
        event.save()
        assert (names(Event, "default"), names(Event, "other")) == (["a"], [])


def test_a_row_that_was_moved_stays_where_it_is_after_the_rollback(Event, undone):
    event = Event(name="a").save(using="default")
    with undone():
        event.delete()
        event.save(using="other")
    assert look(event) == (event.id, False, "other", {})
    assert (names(Event, "default"), names(Event, "other")) == (["a"], ["a"])


def test_an_update_of_many_changes_no_row_of_another_alias(Event, databases, wire):
    """The objects of another alias are refused, alone or among others, unless the alias to write to was named."""
    here = Event.objects.using("default").create(id=500, name="here")
    there = Event.objects.using("other").create(id=500, name="there")
    more = Event.objects.using("default").create(id=501, name="more")
    there.name = more.name = "changed"
    for objects, index in (([there], 0), ([more, there], 1), ([here, there], 1)):
        with (
            wire.record() as sent,
            pytest.raises(
                ValueError,
                match=rf"^object {index} of bulk_update\(\) is of 'other', .* than in 'default'; "
                rf"write Event\.objects\.using\('other'\)\.bulk_update\(",
            ),
        ):
            Event.objects.bulk_update(objects, ["name"])
        assert sent == []
        assert look(there) == (500, False, "other", {"name": ("there", "changed")})
    assert (names(Event, "default"), names(Event, "other")) == (["here", "more"], ["there"])
    assert Event.objects.using("other").bulk_update([there], ["name"]) == 1
    assert (names(Event, "default"), names(Event, "other")) == (["here", "more"], ["changed"])
    there.name = "copied"
    assert Event.objects.using("default").bulk_update([there, more], ["name"]) == 2
    assert look(there)[2] == "default"
    assert (names(Event, "default"), names(Event, "other")) == (["copied", "changed"], ["changed"])
    here.name = "block"
    with databases.using("other"):
        assert Event.objects.bulk_update([here], ["name"]) == 1
    assert names(Event, "other") == ["block"]


def test_an_update_of_many_writes_where_the_router_sends_the_saves_of_its_objects(Event, databases):
    class Primary:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            return "other"

        def db_for_write(self, model: Any, **hints: Any) -> str:
            return "default"

    Event.objects.using("default").create(id=1, name="a")
    Event.objects.using("other").create(id=1, name="a")
    databases.routers = (Primary(),)
    event = Event.objects.get(id=1)
    event.name = "b"
    assert (event._state.db, Event.objects.bulk_update([event], ["name"])) == ("other", 1)
    assert (names(Event, "default"), names(Event, "other")) == (["b"], ["a"])
