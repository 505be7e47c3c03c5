"""Producers and relays that are killed: `python -m tests.outbox.soak URL KILLS [SEED]` counts what was lost, and what came twice.

Everything is a fork of this process, which has imported what they need. Receivers append a line to a file, by one
write, so that what they did before a kill is known.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from microorm import Databases, Field, Model, Registry, field
from microorm.db.transaction import Transaction
from microorm.outbox import Relay, Retry
from microorm.outbox.delivery import DurableDelivery
from microorm.outbox.store import Store
from microorm.outbox.transport import LocalTransport
from microorm.persistence import save
from microorm.signals import post_save

BATCH, LEASE, PAUSE = 10, 1.0, 0.5
ROLLED_BACK = 0.2
EACH, LINE, PATIENCE = 40, 12, 30
"""How many deliveries there are at least for each kill, how many bytes the log has for one, and how many seconds to wait."""

POINTS: dict[str, tuple[Any, str]] = {
    "write": (save, "write_row"),
    "enqueue": (DurableDelivery, "store"),
    "commit": (Transaction, "commit"),
    "claim": (Store, "claim"),
    "receiver": (LocalTransport, "deliver"),
    "acknowledge": (Store, "settle"),
}
"""The points at which a process can be killed, before or after the function."""
PRODUCED = ("write", "enqueue", "commit")
"""Those at which no receiver has been called yet: whether it is a coroutine does not matter."""

databases = Databases()
registry = Registry(databases)
log: Path


class Order(Model, registry=registry, app="soak"):
    """What is saved; its name is in the log once it was delivered."""

    name: Field[str] = field(max_length=60, unique=True)


class Counted(NamedTuple):
    """What was saved and delivered, and what went wrong."""

    saved: int
    delivered: int
    kills: int
    lost: list[str]
    phantom: list[str]
    twice: int

    @property
    def share(self) -> float:
        """How much of what was delivered came once more."""
        return self.twice / max(1, self.saved)


def note(instance: Order) -> None:
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "wb", buffering=0) as file:
        file.write(f"{instance.name}\n".encode())


def deliver(instance: Any, **kwargs: Any) -> None:
    note(instance)


async def adeliver(instance: Any, **kwargs: Any) -> None:
    note(instance)


def open_databases(url: str, file: Path, *, asynchronous: bool = False) -> None:
    """Configure *url*, make its tables, and connect the receiver; leave no connection open for a fork."""
    global log  # forks have it
    log = file
    databases.configure(url)
    retry = Retry(max_attempts=1000, base=0.01)
    receiver = adeliver if asynchronous else deliver
    post_save.connect(receiver, sender=Order, delivery="durable", dispatch_uid="deliver", retry=retry)
    registry.create_all()
    databases.close()
    databases.configure(url)


def fork(work: Callable[[], object]) -> int:
    """Run *work* in a child; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:  # noqa: BLE001 the parent sees that the child has failed
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


def kill_at(point: str, when: str, number: int = 1) -> None:
    """Kill this process at a *point*, "before" or "after" its *number*th call."""
    owner, name = POINTS[point]
    function, calls = getattr(owner, name), 0

    def killing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if when == "after" and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)


class Rollback(Exception):
    """Rolls a save back on purpose."""


def produce(count: int | None = None) -> None:
    """Save orders, some of which are rolled back; *count* of them, or until the process is killed."""
    chance, number, prefix = random.Random(), 0, os.urandom(4).hex()
    while count is None or number < count:
        number += 1
        name = f"{prefix}-{number}"
        try:
            with databases.atomic():
                if count is None and chance.random() < ROLLED_BACK:
                    Order(name=f"{name}-rolled-back").save()
                    raise Rollback
                Order(name=name).save()
        except Rollback:
            pass
        if count is None:
            time.sleep(0.001)  # so that the relays are not left behind


def relay() -> None:
    """Deliver until the process is killed."""
    Relay(databases, batch=BATCH, lease=LEASE, idle=0.01).run()


def drain() -> None:
    """Deliver all that is left, claimed or not."""
    store = Relay(databases).store("default")
    while True:
        with databases.connection() as connection:
            connection.execute(store.waiting.update().values(due_at=0))
        if not Relay(databases, batch=BATCH, lease=60).drain():
            return


def counted(kills: int) -> Counted:
    """Compare the saved rows with the log."""
    saved = {each.name for each in Order.objects.all()}
    lines = Counter(log.read_text().splitlines() if log.exists() else [])
    return Counted(
        saved=len(saved),
        delivered=lines.total(),
        kills=kills,
        lost=sorted(saved - lines.keys()),
        phantom=sorted(lines.keys() - saved),
        twice=sum(number - 1 for number in lines.values()),
    )


def finished(kills: int) -> Counted:
    """Return what was counted, and remove what `open_databases` has made."""
    result = counted(kills)
    registry.drop_all()
    databases.close()
    post_save.disconnect(sender=Order, dispatch_uid="deliver")
    return result


def await_deliveries(file: Path, count: int) -> None:
    """Wait until *file* has about *count* lines more, so that what a kill repeats is compared with as much on a slow machine."""

    def size() -> int:
        return file.stat().st_size if file.exists() else 0

    end, wanted = time.monotonic() + PATIENCE, size() + count * LINE
    while size() < wanted and time.monotonic() < end:
        time.sleep(0.01)


def soak(url: str, kills: int, seed: int, seconds: float = 0.1) -> Counted:
    """Run two producers and two relays, and kill one of them *kills* times, about each *seconds*; *seed* chooses which and when."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        open_databases(url, Path(folder, "log"))
        works = [produce, produce, relay, relay]
        children = [fork(work) for work in works]
        for _ in range(kills):
            await_deliveries(log, EACH)
            time.sleep(chance.uniform(0, 2 * seconds))
            index = chance.randrange(len(works))
            os.kill(children[index], signal.SIGKILL)
            os.waitpid(children[index], 0)
            children[index] = fork(works[index])
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        drain()
        return finished(kills)


def killed_at(url: str, point: str, when: str, *, asynchronous: bool = False) -> Counted:
    """Kill a producer or a relay at its second call of a point, and deliver what is left."""
    with tempfile.TemporaryDirectory() as folder:
        open_databases(url, Path(folder, "log"), asynchronous=asynchronous)
        producing = point in PRODUCED

        def dies() -> None:
            kill_at(point, when, 2 if producing or point == "receiver" else 1)
            produce(3) if producing else Relay(databases, batch=BATCH, lease=LEASE).drain()

        if not producing:
            os.waitpid(fork(lambda: produce(3)), 0)
        _, status = os.waitpid(fork(dies), 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, (point, when, status)
        os.waitpid(fork(lambda: produce(2)), 0)
        drain()
        return finished(1)


def paused(url: str) -> dict[str, Any]:
    """Stop a relay in a receiver (SIGSTOP) until another has claimed its events, then let it go on.

    Return how often the first relay has called a receiver, and whether the claims of the second are as they were.
    """
    with tempfile.TemporaryDirectory() as folder:
        open_databases(url, Path(folder, "log"))
        os.waitpid(fork(lambda: produce(3)), 0)
        (started, starts), (goes, go) = os.pipe(), os.pipe()
        deliver_once = LocalTransport.deliver

        def waiting(self: Any, message: Any, known: Any = None) -> None:
            deliver_once(self, message, known)
            os.write(starts, b"x")
            os.read(goes, 1)

        LocalTransport.deliver = waiting  # type: ignore[method-assign]
        child = fork(lambda: Relay(databases, batch=BATCH, lease=PAUSE).run_once())
        LocalTransport.deliver = deliver_once  # type: ignore[method-assign]
        os.read(started, 1)
        os.kill(child, signal.SIGSTOP)
        time.sleep(PAUSE)
        store, claims = Relay(databases).store("default"), []
        while len(claims) < 3:  # the clock of the database decides
            claims += store.claim(1, 60, 65_536, lost=True)
        os.write(go, b"xxx")
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        with databases.connection() as connection:
            kept = {row.id: row.claim for row in connection.execute(store.waiting.select())}
        result = finished(0)
        untouched = kept == {each.row: each.claim for each in claims}
        return {"called": result.delivered, "untouched": untouched, "status": status}


def main(url: str, kills: str, seed: str = "") -> None:
    """Print the results as lines of JSON: of a soak with a number of *kills*, a kill at each of the "points", or a "pause".

    A soak without a *seed* takes another one each time, and prints it.
    """
    if kills == "pause":
        sys.stdout.write(json.dumps(paused(url)) + "\n")
        return
    if kills != "points":
        chosen = int(seed or random.SystemRandom().randrange(10**6))
        result = soak(url, int(kills), chosen)
        sys.stdout.write(json.dumps(result._asdict() | {"share": result.share, "seed": chosen}) + "\n")
        return
    for point in POINTS:
        for when in ("before", "after"):
            for asynchronous in (False,) if point in PRODUCED else (False, True):
                result = killed_at(url, point, when, asynchronous=asynchronous)
                named = {"point": point, "when": when, "async": asynchronous}
                sys.stdout.write(json.dumps(result._asdict() | named) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
