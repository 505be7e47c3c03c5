"""Workloads: what is clocked, each in a few lines over the methods of a contestant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.contestant import Contestant
from benchmarks.table import Data

Given = Any
Result = Any
SENDS_PER_ROW = 5
BULK = 500
"""Rows of the bulk insert whose size does not follow the table's."""


def _nothing(contestant: Contestant, data: Data) -> Given:
    return None


def _all(data: Data) -> int:
    return data.size


@dataclass(frozen=True)
class Workload:
    """One thing to clock.

    *given* runs before the clock starts, *work* under it, *count_calls* after it: it disconnects the receiver and
    returns how often that was called. *returns* says what *work* returns. The time is divided by *operations*.
    *alone* says that each write is committed by itself, which is measured on a database in memory where there is one.
    """

    key: str
    title: str
    work: Callable[[Contestant, Data, Given], Result]
    alone: bool = False
    filled: bool = True
    writes: bool = False
    returns: Literal["nothing", "values", "instances", "groups"] = "nothing"
    given: Callable[[Contestant, Data], Given] = _nothing
    count_calls: Callable[[Given], int] | None = None
    operations: Callable[[Data], int] = _all
    unit: Literal["µs", "ns"] = "µs"


def _new(contestant: Contestant, data: Data) -> Sequence[Any]:
    return data.rows if contestant.takes == "rows" else data.records


def _insert(contestant: Contestant, data: Data, given: Given) -> Result:
    with contestant.transaction():
        return contestant.insert(_new(contestant, data))


def _insert_alone(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.insert_alone(_new(contestant, data))


def _insert_alone_heard(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.insert_alone_heard(_new(contestant, data))


def _insert_alone_on_commit(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.insert_alone_on_commit(_new(contestant, data))


def _listen(contestant: Contestant, data: Data) -> Given:
    return contestant.listen()


def _listen_on_commit(contestant: Contestant, data: Data) -> Given:
    return contestant.listen_on_commit()


def _stop(stop: Callable[[], int]) -> int:
    return stop()


def _bulk(contestant: Contestant, data: Data, given: Given) -> None:
    with contestant.transaction():
        contestant.bulk(_new(contestant, data))


def _chunks(contestant: Contestant, data: Data) -> Given:
    new = _new(contestant, data)
    return [new[start : start + BULK] for start in range(0, len(new), BULK)]


def _bulk_500(contestant: Contestant, data: Data, given: Given) -> None:
    for chunk in given:
        with contestant.transaction():
            contestant.bulk(chunk)


def _get(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.get(data.keys)


def _get_inside(contestant: Contestant, data: Data, given: Given) -> Result:
    with contestant.transaction():
        return contestant.get(data.keys)


def _get_pk(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.get_pk(data.keys)


def _get_pk_inside(contestant: Contestant, data: Data, given: Given) -> Result:
    with contestant.transaction():
        return contestant.get_pk(data.keys)


def _load(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.load()


def _by_level(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.by_level(data.levels)


def _by_level_inside(contestant: Contestant, data: Data, given: Given) -> Result:
    with contestant.transaction():
        return contestant.by_level(data.levels)


def _by_expression(contestant: Contestant, data: Data, given: Given) -> Result:
    return contestant.by_expression(data.levels)


def _change(contestant: Contestant, data: Data, given: Given) -> None:
    with contestant.transaction():
        contestant.change(data.keys)


def _change_alone(contestant: Contestant, data: Data, given: Given) -> None:
    contestant.change_alone(data.keys)


def _delete(contestant: Contestant, data: Data, given: Given) -> None:
    with contestant.transaction():
        contestant.delete(given)


def _delete_alone(contestant: Contestant, data: Data, given: Given) -> None:
    contestant.delete_alone(given)


def _doomed(contestant: Contestant, data: Data) -> Given:
    return contestant.fetch(data.doomed)


def _send(contestant: Contestant, data: Data, send: Callable[[], Any]) -> None:
    for _ in range(data.size * SENDS_PER_ROW):
        send()


def _sends(data: Data) -> int:
    return data.size * SENDS_PER_ROW


WORKLOADS: Sequence[Workload] = (
    Workload("insert", "insert one (save)", _insert, filled=False, writes=True, returns="values"),
    Workload(
        "insert_heard",
        "the same with one post_save receiver",
        _insert,
        filled=False,
        writes=True,
        returns="values",
        given=_listen,
        count_calls=_stop,
    ),
    Workload(
        "insert_alone",
        "insert one, autocommit",
        _insert_alone,
        alone=True,
        filled=False,
        writes=True,
        returns="values",
    ),
    Workload(
        "insert_alone_heard",
        "insert one, autocommit, with one post_save receiver",
        _insert_alone_heard,
        alone=True,
        filled=False,
        writes=True,
        returns="values",
        given=_listen,
        count_calls=_stop,
    ),
    Workload(
        "insert_alone_on_commit",
        "insert one, autocommit, with one on_commit receiver",
        _insert_alone_on_commit,
        alone=True,
        filled=False,
        writes=True,
        returns="values",
        given=_listen_on_commit,
        count_calls=_stop,
    ),
    Workload("bulk", "bulk insert of all rows, per row", _bulk, filled=False, writes=True),
    Workload(
        "bulk_500",
        f"bulk insert of {BULK} rows, per row",
        _bulk_500,
        filled=False,
        writes=True,
        given=_chunks,
    ),
    Workload("get", "get by id=…", _get, returns="instances"),
    Workload("get_inside", "get by id=…, in a transaction", _get_inside, returns="instances"),
    Workload("get_pk", "get by pk=…", _get_pk, returns="instances"),
    Workload("get_pk_inside", "get by pk=…, in a transaction", _get_pk_inside, returns="instances"),
    Workload("load", "load many, per row", _load, returns="instances"),
    Workload(
        "filter",
        "20 rows by filter(level=…)",
        _by_level,
        returns="groups",
        operations=lambda data: len(data.levels),
    ),
    Workload(
        "filter_inside",
        "20 rows by filter(level=…), in a transaction",
        _by_level_inside,
        returns="groups",
        operations=lambda data: len(data.levels),
    ),
    Workload(
        "filter_expression",
        "20 rows by an expression",
        _by_expression,
        returns="groups",
        operations=lambda data: len(data.levels),
    ),
    Workload("change", "load, change, save one", _change, writes=True),
    Workload("change_alone", "load, change, save one, autocommit", _change_alone, alone=True, writes=True),
    Workload(
        "delete",
        "delete one",
        _delete,
        writes=True,
        given=_doomed,
        operations=lambda data: len(data.doomed),
    ),
    Workload(
        "delete_alone",
        "delete one, autocommit",
        _delete_alone,
        alone=True,
        writes=True,
        given=_doomed,
        operations=lambda data: len(data.doomed),
    ),
    Workload(
        "send_1",
        "send to 1 receiver",
        _send,
        given=lambda contestant, data: contestant.sender(1),
        operations=_sends,
        unit="ns",
    ),
    Workload(
        "send_10",
        "send to 10 receivers",
        _send,
        given=lambda contestant, data: contestant.sender(10),
        operations=_sends,
        unit="ns",
    ),
)
KEYS = tuple(workload.key for workload in WORKLOADS)


def lacking(kind: type[Contestant], workload: Workload, *, in_memory: bool) -> str | None:
    """Return why *kind* cannot do *workload*; None where it can.

    *in_memory* says that rows committed one by one are measured on a database in memory.
    """
    if workload.alone and in_memory and kind.lacks_in_memory:
        return kind.lacks_in_memory
    return kind.lacks.get(workload.key)


def chosen(only: str | None, workloads: Sequence[Workload] = WORKLOADS) -> list[Workload]:
    """Pick of *workloads* by key, or by the word that their keys begin with; all where *only* is None.

    Raises ValueError, with the known keys, for a word that names no workload.
    """
    if only is None:
        return list(workloads)
    keys, picked = [workload.key for workload in workloads], set()
    for word in only.split(","):
        found = {key for key in keys if key == word or key.startswith(f"{word}_")}
        if not found:
            raise ValueError(f"no workload named {word!r}; known: {', '.join(keys)}")
        picked |= found
    return [workload for workload in workloads if workload.key in picked]
