"""The undo log level by level, with objects that are no models, and by a property-based test."""

import gc
import weakref
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from microorm.db.snapshots import SnapshotLog, apply_generated, note_row, restore, take_snapshot


class Thing:
    """The attributes of an instance that the undo log uses."""

    _related = None

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)
        state[self] = ("new", None)

    @property
    def _row_state(self) -> Any:
        return state[self][0]

    @_row_state.setter
    def _row_state(self, row_state: Any) -> None:
        state[self] = (row_state, state[self][1])

    @property
    def _row(self) -> Any:
        return state[self][1]

    @_row.setter
    def _row(self, row: Any) -> None:
        state[self] = (state[self][0], row)


state: "weakref.WeakKeyDictionary[Thing, tuple[Any, Any]]" = weakref.WeakKeyDictionary()


def save(thing: Thing, log: SnapshotLog | None, **made: Any) -> Any:
    """Do what a save does to *thing*: set generated values, row and state, and record it in the log."""
    image = take_snapshot(thing)
    apply_generated(thing, image, made)
    row = dict(vars(thing))
    note_row(image, row)
    thing._row_state, thing._row = object(), row
    if log is not None:
        log.record(image)
    return image


def look(thing: Thing) -> Any:
    return dict(vars(thing)), thing._row_state, thing._row


def test_none_is_a_value_and_not_an_absence() -> None:
    """A key that was None is None again; a missing value is missing again."""
    thing = Thing(id=None)
    restore(save(thing, None, id=5, rank=None))
    assert vars(thing) == {"id": None}
    image = save(thing, None, rank=None)
    assert vars(thing) == {"id": None, "rank": None}
    restore(image)
    assert vars(thing) == {"id": None}


def test_a_user_value_that_replaced_a_made_one_is_not_taken_for_it() -> None:
    """Identity decides: an equal value that the user has set stays."""
    thing = Thing(text=None)
    image = save(thing, None, text="".join(["a", "b"]))
    thing.text = "".join(["a", "b"])
    restore(image)
    assert thing.text == "ab"


def test_a_deleted_attribute_stays_deleted() -> None:
    thing = Thing()
    image = save(thing, None, id=5, rank=None)
    del thing.id, thing.rank
    restore(image)
    assert vars(thing) == {}


def test_a_rollback_goes_back_over_all_saves_of_a_level() -> None:
    """One snapshot per instance and level: the oldest, with all values generated since."""
    log, thing = SnapshotLog(), Thing(stamp=0)
    before = look(thing)
    save(thing, log, id=5, stamp=1)
    save(thing, log, stamp=2)
    save(thing, log, stamp=3, rank=7)
    log.roll_back()
    assert look(thing) == before


def test_levels_go_back_one_by_one() -> None:
    log, thing = SnapshotLog(), Thing(n=0)
    looks = [look(thing)]
    for number in (1, 2, 3):
        save(thing, log, n=number)
        looks.append(look(thing))
        log.push()
    log.roll_back()
    assert look(thing) == looks[3]
    log.roll_back()
    assert look(thing) == looks[2]
    log.roll_back()
    assert look(thing) == looks[1]
    log.roll_back()
    assert look(thing) == looks[0]


def test_nothing_is_kept_alive_and_a_successor_is_not_confused() -> None:
    """A collected instance is skipped; a new one with its id has a snapshot of its own."""
    log = SnapshotLog()
    things = [Thing(n=0) for _ in range(20)]
    dead = [weakref.ref(thing) for thing in things]
    for thing in things:
        save(thing, log, n=1)
    log.push()
    save(things[0], log, n=2)
    del thing, things
    gc.collect()
    assert [reference() for reference in dead] == [None] * 20
    successors = [Thing(n=number) for number in range(20)]
    for successor in successors:
        save(successor, log, n="made")
    log.release()
    for successor in successors:
        save(successor, log, n="again")
    log.roll_back()
    assert [successor.n for successor in successors] == list(range(20))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.integers(0, 2), st.sampled_from("ab")),
        st.tuples(st.just("set"), st.integers(0, 2), st.sampled_from("ab")),
        st.tuples(st.sampled_from(["push", "release", "back"]), st.none(), st.none()),
    ),
    max_size=25,
)


@given(STEPS)
def test_whatever_happens_a_rollback_restores_what_was_made(steps: list[Any]) -> None:
    """State and row are those at the beginning of the level; a value is the last one of the user, or that before."""
    log, things = SnapshotLog(), [Thing(a=("user", 0)) for _ in range(3)]
    levels = [[(each._row_state, each._row) for each in things]]
    last = [dict(vars(each)) for each in things]
    for number, (step, which, name) in enumerate(steps, start=1):
        if step == "save":
            save(things[which], log, **{name: ("made", number)})
        elif step == "set":
            last[which][name] = ("user", number)
            setattr(things[which], name, last[which][name])
        elif step == "push":
            log.push()
            levels.append([(each._row_state, each._row) for each in things])
        elif step == "release" and len(levels) > 1:
            log.release()
            levels.pop()
        elif step == "back" and len(levels) > 1:
            log.roll_back()
            assert [(each._row_state, each._row) for each in things] == levels.pop()
    while levels:
        log.roll_back()
        assert [(each._row_state, each._row) for each in things] == levels.pop()
    assert [vars(each) for each in things] == last
