"""Durable receivers: what a save costs with one, and how quickly a relay delivers: `python -m benchmarks.outbox`.

Commits wait for the disk, as the servers do by default. The rows of one table are one run: in each round every job is done
in ten parts, each in an order that begins with another job, so that what else the disk does slows all of them. A ratio is the
median of the ratios within the rounds. The rows of the driver say what its statements and commits alone cost, with the same
settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.table import Table as Grid
from sqlalchemy import NullPool, create_engine, text

import microorm
from microorm import Databases, Field, Model, Registry, field
from microorm.outbox import Relay
from microorm.signals import post_save
from tests.servers import open_server

RESULTS = Path(__file__).parent / "results" / "latest-outbox.json"
KINDS = ("sqlite", "postgresql", "mariadb")
BATCH = 100
DRAINED = 10 * BATCH
DRAIN = "drain"
PARTS = 10
"""How many parts a job has in a round, unless it is one of `WHOLE`."""
WHOLE = {
    DRAIN,
    "save, in a block",
    "save, durable, in a block",
    "driver: INSERT, in a block",
    "driver: 2 INSERT, in a block",
}
DURABILITY = {
    "sqlite": ("PRAGMA journal_mode", "PRAGMA synchronous"),
    "postgresql": ("SHOW fsync", "SHOW synchronous_commit"),
    "mariadb": ("SELECT @@innodb_flush_log_at_trx_commit", "SELECT @@log_bin"),
}
RATIOS = (
    ("durable save / save, a transaction each", "save, durable", "save, a transaction each"),
    ("durable save / save in autocommit", "save, durable", "save, autocommit"),
    ("durable save / save with an immediate receiver", "save, durable", "save, immediate receiver"),
    ("durable save / save, in a block of 100", "save, durable, in a block", "save, in a block"),
    (
        "driver: two INSERTs / one, a transaction each",
        "driver: BEGIN, 2 INSERT, COMMIT",
        "driver: BEGIN, INSERT, COMMIT",
    ),
    (
        "driver: two INSERTs in a transaction / one in autocommit",
        "driver: BEGIN, 2 INSERT, COMMIT",
        "driver: INSERT, autocommit",
    ),
    (
        "driver: INSERT twice / once, in a block of 100",
        "driver: 2 INSERT, in a block",
        "driver: INSERT, in a block",
    ),
    ("drain in batches of 100 / driver: INSERT, autocommit", "drain", "driver: INSERT, autocommit"),
    ("drain in batches of 100 / driver: BEGIN, INSERT, COMMIT", "drain", "driver: BEGIN, INSERT, COMMIT"),
    ("drain in batches of 100 / save in autocommit", "drain", "save, autocommit"),
    ("drain in batches of 100 / save, a transaction each", "drain", "save, a transaction each"),
)

Job = Callable[[int], None]
Times = dict[str, list[float]]


class Shop:
    """Orders of three models in an empty database: without a receiver, with an immediate one, and with a durable one."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.registry = registry = Registry(databases)

        class Base(Model, registry=registry, abstract=True):
            customer: Field[str] = field(max_length=100)
            amount: Field[int]
            note: Field[str | None] = field(default=None)

        class Plain(Base, registry=registry, table="plain"):
            pass

        class Immediate(Base, registry=registry, table="immediate"):
            pass

        class Durable(Base, registry=registry, table="durable"):
            pass

        self.plain: Any = Plain
        self.immediate: Any = Immediate
        self.durable: Any = Durable
        self.calls = 0
        post_save.connect(self.note, sender=Immediate)
        post_save.connect(self.note, sender=Durable, delivery="durable", dispatch_uid="benchmark.note")
        registry.create_all()
        self.relay = Relay(databases, batch=BATCH)

    def note(self, **kwargs: Any) -> None:
        """Do nothing, as a receiver."""
        self.calls += 1

    def close(self) -> None:
        """Disconnect the receivers, which belong to the process."""
        post_save.disconnect(self.note, self.immediate)
        post_save.disconnect(self.note, self.durable, "benchmark.note")

    def jobs(self, cursor: Any) -> dict[str, Job]:
        """Return what is clocked, by its name; each job takes how many rows to write or events to deliver.

        *cursor*: of the driver, in autocommit.
        """
        found: dict[str, Job] = {
            "save, autocommit": lambda count: _saves(self.plain, count),
            "save, a transaction each": self._in_transactions,
            "save, immediate receiver": lambda count: _saves(self.immediate, count),
            "save, durable": lambda count: _saves(self.durable, count),
            "save, in a block": lambda count: self._in_blocks(self.plain, count),
            "save, durable, in a block": lambda count: self._in_blocks(self.durable, count),
        }
        return found | driver_jobs(cursor, self.databases.database("default").dialect) | {DRAIN: self._drain}

    def empty(self) -> None:
        """Deliver what is left, outside the clock."""
        self.relay.drain()

    def fill(self, count: int) -> None:
        """Store *count* events, outside the clock."""
        with self.databases.atomic():
            _saves(self.durable, count)

    def _in_transactions(self, count: int) -> None:
        for number in range(count):
            with self.databases.atomic():
                self.plain(customer="Ada", amount=number).save()

    def _in_blocks(self, model: Any, count: int) -> None:
        for _ in range(count // BATCH):
            with self.databases.atomic():
                _saves(model, BATCH)

    def _drain(self, count: int) -> None:
        before = self.calls
        self.relay.drain()
        if self.calls - before != count:
            raise AssertionError(f"{self.calls - before} of {count} events were delivered")


def _saves(model: Any, count: int) -> None:
    for number in range(count):
        model(customer="Ada", amount=number).save()


def driver_jobs(cursor: Any, dialect: str) -> dict[str, Job]:
    """Return the same statements through the driver, without microorm."""
    sign, begin = ("?", "BEGIN IMMEDIATE") if dialect == "sqlite" else ("%s", "BEGIN")
    row = f"INSERT INTO plain (customer, amount, note) VALUES ({sign}, {sign}, {sign})"
    columns = "event, receiver, `signal`, label, order_key, body, attempts, created_at, due_at"
    columns = columns if dialect == "mariadb" else columns.replace("`", "")
    # due in a far future, so that no relay delivers them
    event = f"INSERT INTO microorm_outbox ({columns}) VALUES ({', '.join([sign] * 9)})"
    body = '{"created":true,"raw":false,"row":{"amount":1,"customer":"Ada","id":1,"note":null},"update_fields":null,"version":1}'
    stored = ("x" * 36, "benchmark.note", "post_save", "shop.Order", None, body, 0, 0, 1 << 52)

    def run(count: int, statements: int, block: int) -> None:
        for number in range(count):
            if block and number % block == 0:
                cursor.execute(begin)
            cursor.execute(row, ("Ada", number, None))
            if statements == 2:
                cursor.execute(event, stored)
            if block and number % block == block - 1:
                cursor.execute("COMMIT")

    return {
        "driver: INSERT, autocommit": lambda count: run(count, 1, 0),
        "driver: BEGIN, INSERT, COMMIT": lambda count: run(count, 1, 1),
        "driver: BEGIN, 2 INSERT, COMMIT": lambda count: run(count, 2, 1),
        "driver: INSERT, in a block": lambda count: run(count, 1, BATCH),
        "driver: 2 INSERT, in a block": lambda count: run(count, 2, BATCH),
    }


@contextmanager
def autocommit(databases: Databases) -> Iterator[Any]:
    """Open a cursor of the driver, on a connection of its own with the settings of those of *databases*."""
    database = databases.database("default")
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        driver = connection.connection
        cursor = driver.cursor()
        if database.is_sqlite:
            for pragma in ("journal_mode", "synchronous"):
                with databases.connection() as given:
                    value = given.execute(text(f"PRAGMA {pragma}")).scalar()
                cursor.execute(f"PRAGMA {pragma} = {value}")
        yield cursor
        cursor.close()


@contextmanager
def opened(kind: str, folder: Path | None) -> Iterator[Databases]:
    """Open an empty database of that *kind*, whose commits wait for the disk; drop it at the end."""
    if kind == "sqlite":
        with TemporaryDirectory(dir=folder) as directory, Databases(f"sqlite:///{directory}/shop.db") as made:
            yield made
        return
    server = open_server(kind)
    if isinstance(server, str):
        raise click.ClickException(server)
    name, _ = server.fresh()
    if kind == "postgresql":  # without the setting of the tests by which commits do not wait
        url = server.url.update_query_dict({"options": f"-csearch_path={name}"})
    else:
        url = server.inside(name)
    try:
        with Databases(url.render_as_string(hide_password=False)) as made:
            yield made
    finally:
        server.drop(name)
        server.close()


def measure(shop: Shop, cursor: Any, rows: int, rounds: int) -> Times:
    """Do every job *rounds* times after one that is not clocked; return the seconds of each row, by job."""
    jobs = shop.jobs(cursor)
    names = list(jobs)
    times: Times = {name: [] for name in jobs}
    for number in range(rounds + 1):
        seconds, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
        for part in range(PARTS):
            first = (number * PARTS + part) % len(names)
            for name in [*names[first:], *names[:first]]:
                if part and name in WHOLE:
                    continue
                count = DRAINED if name == DRAIN else rows if name in WHOLE else rows // PARTS
                shop.empty()
                if name == DRAIN:
                    shop.fill(count)
                began = time.perf_counter()
                jobs[name](count)
                seconds[name] += time.perf_counter() - began
                counts[name] += count
        if number:
            for name in names:
                times[name].append(seconds[name] / counts[name])
    return times


def ratio(times: Times, name: str, other: str) -> float:
    """Return how many times the rate of *other* that of *name* is: the median over the rounds."""
    return median(b / a for a, b in zip(times[name], times[other], strict=True))


def durability(databases: Databases, kind: str) -> str:
    """Return what the session says about how its commits wait for the disk."""
    with databases.connection() as connection:
        return ", ".join(f"{sql}: {connection.execute(text(sql)).scalar()}" for sql in DURABILITY[kind])


def show(console: Console, heading: str, times: Times) -> None:
    """Print the rates and the ratios of one database."""
    grid = Grid("", "a row, µs", "rows a second", title=heading, title_justify="left")
    for name, taken in times.items():
        grid.add_row(name, f"{median(taken) * 1e6:,.0f}", f"{1 / median(taken):,.0f}")
    grid.add_section()
    for title, name, other in RATIOS:
        grid.add_row(title, "", f"{ratio(times, name, other):.2f}")
    console.print(grid)


@click.command()
@click.option("--database", "kinds", multiple=True, type=click.Choice(KINDS), help="By default all.")
@click.option(
    "--rows",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Rows in a sample, in batches of 100.",
)
@click.option("--rounds", default=25, show_default=True, type=click.IntRange(1), help="Rounds that count.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the file of SQLite is made.")
@click.option("--json", "target", default=RESULTS, type=click.Path(path_type=Path), help="Where to keep it.")
def main(*, kinds: tuple[str, ...], rows: int, rounds: int, folder: Path | None, target: Path) -> None:
    """Time saves with durable receivers and their delivery, on each database."""
    rows = max(BATCH, rows - rows % BATCH)
    console, kept = Console(width=110), {}
    for kind in kinds or KINDS:
        with opened(kind, folder) as databases:
            shop = Shop(databases)
            try:
                with autocommit(databases) as cursor:
                    times = measure(shop, cursor, rows, rounds)
            finally:
                shop.close()
            settings = durability(databases, kind)
            show(console, f"{kind} ({settings}); microorm {microorm.__version__}", times)
            kept[kind] = {"durability": settings, "seconds": times}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
