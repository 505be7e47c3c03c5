"""Workloads that are awaited: what is clocked of libraries for asyncio, each as one coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.awaited import AsyncContestant
from benchmarks.contestant import Contestant
from benchmarks.table import Data
from benchmarks.workloads import Given, Result, Workload

TASKS = 20
"""How many tasks load rows at once."""

Job = Callable[[Any, Data, Given], Awaitable[Result]]


def _awaited(job: Job) -> Callable[[Contestant, Data, Given], Result]:
    """Return the work of a contestant that awaits *job* on its event loop."""

    def work(contestant: Contestant, data: Data, given: Given) -> Result:
        assert isinstance(contestant, AsyncContestant)

        async def awaited() -> Result:
            return await job(contestant, data, given)

        return contestant.run(awaited())

    return work


def _new(contestant: AsyncContestant, data: Data) -> Sequence[Any]:
    return data.rows if contestant.takes == "rows" else data.records


async def _insert(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    async with contestant.atransaction():
        return await contestant.ainsert(_new(contestant, data))


async def _insert_alone(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    return await contestant.ainsert_alone(_new(contestant, data))


async def _bulk(contestant: AsyncContestant, data: Data, given: Given) -> None:
    async with contestant.atransaction():
        await contestant.abulk(_new(contestant, data))


async def _get(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    return await contestant.aget(data.keys)


async def _get_inside(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    async with contestant.atransaction():
        return await contestant.aget(data.keys)


async def _get_at_once(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    return await asyncio.gather(*(contestant.aserve(data.keys[start::TASKS]) for start in range(TASKS)))


async def _load(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    return await contestant.aload()


async def _filter(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    return await contestant.aby_level(data.levels)


async def _filter_inside(contestant: AsyncContestant, data: Data, given: Given) -> Result:
    async with contestant.atransaction():
        return await contestant.aby_level(data.levels)


async def _change(contestant: AsyncContestant, data: Data, given: Given) -> None:
    async with contestant.atransaction():
        await contestant.achange(data.keys)


async def _delete(contestant: AsyncContestant, data: Data, given: Given) -> None:
    async with contestant.atransaction():
        await contestant.adelete(given)


def _listen(contestant: Any, data: Data) -> Given:
    return contestant.listen()


def _listen_async(contestant: Any, data: Data) -> Given:
    return contestant.listen_async()


def _doomed(contestant: Contestant, data: Data) -> Given:
    return contestant.fetch(data.doomed)


def _insertion(key: str, title: str, job: Job = _insert, **more: Any) -> Workload:
    return Workload(key, title, _awaited(job), filled=False, writes=True, returns="values", **more)


def _heard(key: str, title: str, given: Callable[[Any, Data], Given]) -> Workload:
    return _insertion(key, title, given=given, count_calls=lambda stop: stop())


def _levels(data: Data) -> int:
    return len(data.levels)


ASYNC_WORKLOADS: Sequence[Workload] = (
    _insertion("insert", "insert one (asave)"),
    _heard("insert_receiver", "the same with one post_save receiver", _listen),
    _heard("insert_async_receiver", "the same with one async post_save receiver", _listen_async),
    _insertion("insert_alone", "insert one, autocommit", _insert_alone, alone=True),
    Workload("bulk", "bulk insert of all rows, per row", _awaited(_bulk), filled=False, writes=True),
    Workload("get", "get by id=…", _awaited(_get), returns="instances"),
    Workload("get_inside", "get by id=…, in a transaction", _awaited(_get_inside), returns="instances"),
    Workload("get_at_once", f"get by id=…, {TASKS} tasks at once", _awaited(_get_at_once), returns="groups"),
    Workload("load", "load many, per row", _awaited(_load), returns="instances"),
    Workload("filter", "20 rows by filter(level=…)", _awaited(_filter), returns="groups", operations=_levels),
    Workload(
        "filter_inside",
        "20 rows by filter(level=…), in a transaction",
        _awaited(_filter_inside),
        returns="groups",
        operations=_levels,
    ),
    Workload("change", "load, change, save one", _awaited(_change), writes=True),
    Workload(
        "delete",
        "delete one",
        _awaited(_delete),
        writes=True,
        given=_doomed,
        operations=lambda data: len(data.doomed),
    ),
)
