"""Replicas that lag behind: within the sticky time no thread reads an older row than it has written."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from tests.routers.cluster import Cluster


class Replication(threading.Thread):
    """Copies the rows of the primary to the replicas, each as it was *lag* seconds ago."""

    def __init__(self, cluster: Cluster, lag: float, *replicas: str) -> None:
        super().__init__()
        self._cluster, self._lag, self._replicas = cluster, lag, replicas
        self._stopping = threading.Event()
        self.copies = 0

    def run(self) -> None:
        table = self._cluster.Author.__table__
        databases = self._cluster.databases
        while not self._stopping.is_set():
            with databases.connection("default") as connection:
                rows = [dict(row._mapping) for row in connection.execute(table.select())]
            self._stopping.wait(self._lag)
            for alias in self._replicas:
                with (
                    suppress(SQLAlchemyError),
                    databases.atomic(alias),
                    databases.connection(alias) as connection,
                ):
                    connection.execute(table.delete())
                    connection.execute(table.insert(), rows)
            self.copies += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def observe(cluster: Cluster, sticky: float, threads: int, rounds: int, lag: float) -> dict[str, int]:
    """Let *threads* write and read their own rows, and return how many reads were old, in the sticky time and after it."""
    Author = cluster.Author
    Author.objects.bulk_create([Author(name="0") for _ in range(threads)])
    cluster.copy("one", "two")
    counts = {"early and old": 0, "early": 0, "late and old": 0}
    lock = threading.Lock()
    replication = Replication(cluster, lag, "one", "two")

    def work(number: int) -> None:
        author: Any = Author.objects.using("default").get(id=number + 1)
        for turn in range(rounds):
            author.name = str(turn)
            before = time.monotonic()
            author.save()
            for wait in (0.0, 0.0, sticky if turn % 4 == 0 else 0.0):
                time.sleep(wait)
                old = Author.objects.get(id=author.id).name != author.name
                early = time.monotonic() - before < sticky
                with lock:
                    counts["early"] += early
                    counts["early and old"] += early and old
                    counts["late and old"] += old and not early

    replication.start()
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    finally:
        replication.stop()
    return counts


@pytest.mark.slow
@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
@pytest.mark.parametrize("threads", [32])
def test_no_thread_reads_an_older_row_in_the_sticky_time(
    threads: int, make: Callable[..., Cluster], backend: str
) -> None:
    sticky = 0.2
    cluster = make(sticky=sticky, connect_timeout=30.0)
    counts = observe(cluster, sticky, threads, rounds=4, lag=0.5)
    assert counts["early and old"] == 0
    assert counts["early"] > 0
    stats = cluster.router.stats()
    assert stats.sticky > 0
    assert sum(stats.reads.values()) >= threads * 4 * 3


@pytest.mark.backends("postgresql")
def test_a_few_threads_do_not_either(make: Callable[..., Cluster]) -> None:
    cluster = make(sticky=0.1, connect_timeout=30.0)
    counts = observe(cluster, 0.1, threads=4, rounds=2, lag=0.3)
    assert (counts["early and old"], counts["early"] > 0) == (0, True)
