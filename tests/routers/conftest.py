"""A primary with two replicas for each test that asks for one, and a clock that a test can put forward."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.routers.cluster import Cluster


class Clock:
    """The time of sessions, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of sessions, which stands still until a test puts it forward."""
    clock = Clock()
    monkeypatch.setattr("microorm.routers.sessions.monotonic", clock)
    return clock


@pytest.fixture
def make(fresh_url: Callable[[], str]) -> Iterator[Callable[..., Cluster]]:
    """Make a cluster with the replicas `one` and `two`; options are those of the router."""
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        cluster = Cluster({alias: fresh_url() for alias in ("default", "one", "two")}, **options)
        made.append(cluster)
        return cluster.create_all("one", "two")

    yield make
    for each in made:
        each.databases.close()


@pytest.fixture
def cluster(make: Callable[..., Cluster], clock: Clock) -> Cluster:
    """A cluster whose replicas have an author and a book, called "stale", and the primary has them, called "fresh"."""
    cluster = make()
    author = cluster.Author(name="stale").save()
    cluster.Book(title="stale", author=author).save()
    cluster.copy("one", "two")
    for model in (cluster.Author, cluster.Book):
        model.objects.using("default").update(**{"name" if model is cluster.Author else "title": "fresh"})
    cluster.forget()
    return cluster
