"""A save and a delete happen completely or not at all, and the instance always agrees with its row."""

from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

import microorm
from microorm import Field, TransactionError, field
from microorm.db.snapshots import SnapshotLog
from microorm.signals import post_save


@pytest.fixture
def Note(Base: Any, registry: Any) -> Any:
    """A model with plain values."""

    class Note(Base):
        text: Field[str] = field(max_length=20, unique=True)
        rank: Field[int] = field(default=0)

    registry.create_all()
    return Note


def looks(instance: Any) -> tuple[Any, ...]:
    return dict(vars(instance)), instance._row, instance._state.adding, instance._state.db, instance.changes()


@pytest.mark.parametrize("inside", [True, False])
def test_row_and_instance_are_the_same_whatever_has_a_say(
    Note: Any, databases: Any, stored: Any, listen: Any, inside: bool
) -> None:
    """An INSERT, an UPDATE, an UPDATE of a missing row, and a delete: plain, and with a router and a receiver."""

    def run(alias: str) -> list[Any]:
        seen = []
        note = Note(text="a", rank=1)
        note._state.db = alias
        for step in (note.save, note.save, note.save, note.delete):
            if len(seen) == 2:
                Note.objects.using(alias).delete()
            seen.append(step() if step == note.delete else step() and None)
            seen.append(looks(note))
        return [str(each).replace(alias, "") for each in seen]

    def either(alias: str) -> list[Any]:
        if not inside:
            return run(alias)
        with databases.atomic(alias):
            return run(alias)

    plain = either("default")
    databases.routers = (microorm.Router(),)
    listen(post_save, lambda **kwargs: None, Note)
    assert either("other") == plain
    assert stored(Note, "text") == stored(Note, "text", alias="other")


def test_a_rollback_puts_back_what_was_saved_and_deleted(Note: Any, undone: Any) -> None:
    old, gone = Note(text="old").save(), Note(text="gone").save()
    new, key = Note(text="new"), gone.id
    before = looks(old), looks(new), looks(gone)
    with undone():
        new.save()
        old.rank = 5
        old.save()
        gone.delete()
        assert (new.id is None, gone.id, old.changes()) == (False, None, {})
    assert old.changes() == {"rank": (0, 5)}
    old.rank = 0
    assert (looks(old), looks(new), looks(gone)) == before
    assert gone.id == key


def test_an_error_dooms_the_block_and_leaves_the_instance(Note: Any, databases: Any) -> None:
    Note(text="taken").save()
    twin = Note(text="taken")
    before = looks(twin)
    with pytest.raises(TransactionError), databases.atomic():
        with pytest.raises(IntegrityError):
            twin.save()
        assert looks(twin) == before
        with pytest.raises(TransactionError, match="doomed"):
            Note(text="later").save()
    with pytest.raises(IntegrityError):
        twin.save()
    assert looks(twin) == before
    assert Note.objects.count() == 1


def test_a_receiver_that_raises_undoes_the_save(Note: Any, databases: Any, listen: Any) -> None:
    def fail(**kwargs: Any) -> None:
        raise LookupError("no")

    listen(post_save, fail, Note)
    note = Note(text="a")
    before = looks(note)
    with pytest.raises(TransactionError), databases.atomic():
        with pytest.raises(LookupError):
            note.save()
        assert looks(note) == before
    assert Note.objects.count() == 0


def test_an_interrupt_after_the_sql_leaves_the_instance(
    Note: Any, databases: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is changed before the block has recorded how to restore it."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    note = Note(text="a")
    before = looks(note)
    with pytest.raises(KeyboardInterrupt), databases.atomic():
        monkeypatch.setattr(SnapshotLog, "record", interrupted)
        note.save()
    assert looks(note) == before


def test_the_cursor_is_used_with_no_listener_and_unused_with_one(
    Note: Any, databases: Any, wire: Any, way: str
) -> None:
    """A listener sees every statement; without one, statements skip SQLAlchemy's `Connection`."""
    heard: list[str] = []
    engine = databases.engine()
    if way == "listened":
        event.listen(
            engine, "before_cursor_execute", lambda c, cursor, statement, *_: heard.append(statement)
        )
    with databases.atomic(), wire.record() as sent:
        executed = databases.transaction(databases.database("default")).cursor is None
        note = Note(text="a").save()
        note.save()
        assert Note.objects.get(id=note.id) == note
        assert Note.objects.filter(Note.text == "a").all() == [note]
        note.delete()
    assert executed == (way == "listened")
    assert [each.split()[0] for each in sent] == ["INSERT", "UPDATE", "SELECT", "SELECT", "DELETE"]
    rows = [each for each in heard if each.split()[0] in ("INSERT", "UPDATE", "SELECT", "DELETE")]
    assert len(rows) == (5 if way == "listened" else 0)


def test_what_is_sent_by_hand_is_seen_by_the_next_save(Note: Any, databases: Any) -> None:
    """A block that was ended through its connection refuses further saves."""
    with pytest.raises(TransactionError), databases.atomic():
        with databases.connection() as connection:
            connection.execute(text("SELECT 1"))
            connection.rollback()
        Note(text="late").save()
    assert Note.objects.count() == 0
