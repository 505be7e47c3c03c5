"""Many aliases in one process: `python -m benchmarks.tenants [URL] [--aliases N] [--max-connections N] [--go]`.

Adds N aliases, saves a row on each, and prints what that took: seconds, memory, and open files or sessions. Each alias is a
file of SQLite in a temporary folder. With the URL of a server, each is a schema of PostgreSQL or a database of MariaDB,
which is dropped at the end. With `--go` each alias is removed after its save, and the memory is printed ten times.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

from microorm import Databases, Field, Model, Registry, field

PREFIX = "microorm_tenant_"

databases = Databases()
registry = Registry(databases)


class Book(Model, registry=registry):
    title: Field[str] = field(max_length=100)
    pages: Field[int]


def memory() -> float:
    """The resident size, in megabytes; what is garbage is collected before."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def files() -> int:
    """The open files and sockets of this process."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def places(url: str | None, count: int) -> Iterator[list[URL]]:
    """The URLs of *count* databases, each with the table."""
    if url is None:
        with tempfile.TemporaryDirectory() as folder:
            made = [URL.create("sqlite", database=f"{folder}/{number}.db") for number in range(count)]
            create(made[0])
            for each in made[1:]:
                shutil.copy(str(made[0].database), str(each.database))
            yield made
        return
    server = make_url(url)
    schemas = server.get_backend_name() == "postgresql"
    names = [f"{PREFIX}{number}" for number in range(count)]
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for name in names:
                connection.execute(text(f"CREATE {'SCHEMA' if schemas else 'DATABASE'} {name}"))
        made = [
            server.update_query_dict({"options": f"-csearch_path={name}"})
            if schemas
            else server.set(database=name)
            for name in names
        ]
        for each in made:
            create(each)
        yield made
    finally:
        with engine.connect() as connection:
            for name in names:
                drop = f"SCHEMA IF EXISTS {name} CASCADE" if schemas else f"DATABASE IF EXISTS {name}"
                connection.execute(text(f"DROP {drop}"))
        engine.dispose()


def create(url: URL) -> None:
    """Create the table at *url*."""
    engine = create_engine(url)
    registry.metadata.create_all(engine)
    engine.dispose()


def report(what: str, seconds: list[float], before: float) -> None:
    """Print a line."""
    middle, most = statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=100)[-1] * 1e3
    kept = memory() - before
    print(
        f"{what}: {sum(seconds):.2f} s, {middle:.3f} ms each (99 %: {most:.3f}); "
        f"{kept:.1f} MB, {kept * 1024 / len(seconds):.1f} kB each; {files()} files"
    )


def timed(function: object, *arguments: object, **named: object) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    function(*arguments, **named)  # type: ignore[operator]
    return time.perf_counter() - began


def come_and_go(urls: list[URL]) -> None:
    """Add, use and remove an alias for each of *urls*."""
    for number, url in enumerate(urls):
        databases.add(f"tenant_{number}", url)
        Book(title="Lathe", pages=number).save(using=f"tenant_{number}")
        databases.remove(f"tenant_{number}")
        if (number + 1) % max(1, len(urls) // 10) == 0:
            print(f"{number + 1} aliases have come and gone: {memory():.1f} MB, {files()} files")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--aliases", type=int, default=5000)
    parser.add_argument("--max-connections", type=int)
    parser.add_argument("--go", action="store_true")
    options = parser.parse_args()
    with places(options.url, options.aliases) as urls:
        databases.configure("sqlite://", max_connections=options.max_connections)
        registry.create_all()
        Book(title="first", pages=0).save()
        if options.go:
            come_and_go(urls)
        else:
            before = memory()
            aliases = [f"tenant_{number}" for number in range(len(urls))]
            pairs = list(zip(aliases, urls, strict=True))
            report("add", [timed(databases.add, *pair) for pair in pairs], before)
            for turn in ("first save", "second save"):
                times = [timed(Book(title=turn, pages=1).save, using=alias) for alias in aliases]
                report(turn, times, before)
        databases.close()
        print(f"closed: {memory():.1f} MB, {files()} files")


if __name__ == "__main__":
    main()
