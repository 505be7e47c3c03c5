"""Many clients ask the FastAPI example, which runs on PostgreSQL, for some time.

They add books, list, read and update them, read the stream of all books, and sometimes go away in the middle of it. Each
answer has to be the right one; at the end the rows have to be what the answers said, and no connection may be left.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url, text

from tests.servers import Server, open_server
from tools.soak.parts import Options, Outcome, percentiles

ROOT = Path(__file__).parents[2]
NAME = "microorm_soak"
ALIASES = 2
POOL = 10
"""The size of each pool, which the example sets."""
WAIT = 60


@dataclass
class Tally:
    """What the clients have seen, by all of them."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    created: int = 0
    delivered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """One client, which keeps its connection as long as the server does."""

    def __init__(self, port: int, seed: int, tally: Tally) -> None:
        self.random = random.Random(seed)
        self.tally = tally
        self.connection = HTTPConnection("127.0.0.1", port, timeout=WAIT)
        self.actions: list[Callable[[], None]] = [self.read, self.browse, self.create, self.deliver]
        self.weights = [40, 20, 20, 15]
        self.actions += [self.stream, self.leave]
        self.weights += [3, 2]

    def work(self, until: float) -> None:
        """Do one thing after the other *until* then; count what goes wrong."""
        while time.monotonic() < until:
            [action] = self.random.choices(self.actions, self.weights)
            started = time.perf_counter()
            try:
                action()
            except Exception as error:  # noqa: BLE001 whatever it is, it is counted
                self.connection.close()
                with self.tally.lock:
                    self.tally.errors[f"{action.__name__}: {type(error).__name__}: {error}"[:200]] += 1
            with self.tally.lock:
                self.tally.seconds.setdefault(action.__name__, []).append(time.perf_counter() - started)
        self.connection.close()

    def ask(self, method: str, path: str, *wanted: int, body: Any = None) -> Any:
        """Return the answer, as JSON, or as text if it is a stream. Raise `ValueError` for a status that is not *wanted*."""
        self.connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        answer = response.read().decode()
        if response.status not in wanted:
            raise ValueError(f"{method} was answered by {response.status}: {answer}")
        return json.loads(answer) if response.getheader("Content-Type") == "application/json" else answer

    def some_key(self) -> int:
        return self.random.randint(1, max(1, self.tally.created))

    def read(self) -> None:
        self.ask("GET", f"/books/{self.some_key()}", 200, 404)

    def browse(self) -> None:
        books = self.ask("GET", "/books", 200)
        if [book["id"] for book in books] != sorted((book["id"] for book in books), reverse=True):
            raise ValueError("books in another order")

    def create(self) -> None:
        new = {"title": f"Book {self.random.random()}", "author": f"Author {self.random.randint(1, 50)}"}
        book = self.ask("POST", "/books", 201, body=new)
        if (book["title"], book["author"]["name"]) != (new["title"], new["author"]):
            raise ValueError("another book was created")
        with self.tally.lock:
            self.tally.created += 1

    def deliver(self) -> None:
        book = self.ask("PATCH", f"/books/{min(5, self.some_key())}", 200, 404, body={"copies": 1})
        with self.tally.lock:
            self.tally.delivered += "copies" in book

    def stream(self) -> None:
        before = self.tally.created
        if len(self.ask("GET", "/books/export", 200).splitlines()) < before:
            raise ValueError("the stream ended too early")

    def leave(self) -> None:
        """Go away in the middle of a stream; the next request needs a new connection."""
        self.connection.request("GET", "/books/export")
        self.connection.getresponse().read(10)
        self.connection.close()


@contextmanager
def served(url: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run the example on the database *url* in a process of its own; gives its port and the process."""
    arguments = ["-m", "uvicorn", "tools.soak.web_app:app", "--port", "0", "--no-access-log"]
    with tempfile.NamedTemporaryFile("w+") as log:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | {"DATABASE_URL": url, "PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", Path(log.name).read_text())):
                if process.poll() is not None:
                    raise RuntimeError(f"the server has ended:\n{Path(log.name).read_text()}")
                time.sleep(0.05)
            yield int(found[1]), process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(WAIT)
            told = Counter(Path(log.name).read_text().splitlines())
            for line, times in told.items():
                if not line.startswith("INFO"):
                    print(f"server, {times} times: {line}", file=sys.stderr)


class Watch(threading.Thread):
    """Asks the server of the database and the pools, again and again, how many connections there are."""

    def __init__(self, port: int, connection: Connection) -> None:
        super().__init__()
        self.port, self.connection = port, connection
        self.done = threading.Event()
        self.most_in_database = 0
        self.states: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.done.wait(0.2):
                found = sessions(self.connection)
                if len(found) > self.most_in_database:
                    self.most_in_database, self.states = len(found), Counter(found)
                for alias, counts in self.pools().items():
                    for name, number in counts.items():
                        key = f"{alias} {name}"
                        self.most[key] = max(self.most[key], number)
        except Exception as error:  # noqa: BLE001 told at the end
            self.error = error

    def pools(self) -> dict[str, dict[str, int]]:
        """Return what the pools count now."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT)) as connection:
            connection.request("GET", "/pools")
            answer: dict[str, dict[str, int]] = json.loads(connection.getresponse().read())
            return answer


def sessions(connection: Connection) -> list[str]:
    """Return the states of the sessions that the example has open on the server."""
    found = connection.execute(
        text("SELECT state FROM pg_stat_activity WHERE application_name = :name"), {"name": NAME}
    )
    return [row.state or "" for row in found]


def run(options: Options) -> Outcome:
    """Let the clients work, and return what was measured."""
    server = open_server("postgresql")
    if not isinstance(server, Server):
        return Outcome(failures=[server])
    with closing(server):
        schema, borrowed = server.borrow()
        try:
            url = make_url(borrowed).update_query_dict({"application_name": NAME})
            return load(options, url.render_as_string(hide_password=False), server.connection)
        finally:
            server.give_back([schema])


def load(options: Options, url: str, connection: Connection) -> Outcome:
    """Let the clients work on the database *url*; *connection* sees its server."""
    outcome, tally = Outcome(), Tally()
    with served(url) as (port, process):
        watch = Watch(port, connection)
        watch.start()
        until = time.monotonic() + options.seconds
        clients = [Client(port, options.seed * 1000 + number, tally) for number in range(options.clients)]
        threads = [threading.Thread(target=client.work, args=(until,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        watch.done.set()
        watch.join()
        wait_for_rest(connection, outcome)
        judge(outcome, tally, watch, options)
        check_rows(outcome, tally, port, process)
    outcome.require(process.returncode == 0, f"the server has ended with status {process.returncode}")
    left = sessions(connection)
    outcome.require(not left, f"{len(left)} sessions were left when the server had ended: {left}")
    return outcome


def wait_for_rest(connection: Connection, outcome: Outcome) -> None:
    """Wait until nothing runs any more; streams whose clients went away may take a moment to end."""
    until = time.monotonic() + WAIT
    while busy := [state for state in sessions(connection) if state != "idle"]:
        if time.monotonic() > until:
            outcome.failures.append(f"sessions that are not idle were left: {busy}")
            return
        time.sleep(0.1)


def judge(outcome: Outcome, tally: Tally, watch: Watch, options: Options) -> None:
    """Note what the clients and the watch have seen, and what of it must not be."""
    done = [each for times in tally.seconds.values() for each in times]
    errors = tally.errors.total()
    outcome.facts["requests"] = f"{len(done):,}, {len(done) / options.seconds:,.0f} per second"
    outcome.facts["errors"] = f"{errors:,}"
    outcome.summary = f"{len(done):,} requests, {errors:,} errors"
    outcome.facts["time of an answer"] = percentiles(done)
    for name in sorted(tally.seconds):
        outcome.facts[f"  {name}"] = f"{len(tally.seconds[name]):,}: {percentiles(tally.seconds[name])}"
    outcome.facts["sessions on the server"] = f"at most {watch.most_in_database} of {ALIASES * POOL}"
    for alias in sorted({name.split()[0] for name in watch.most}):
        most = {name: watch.most[f"{alias} {name}"] for name in ("size", "open", "in use", "overflow")}
        outcome.facts[f"pool of {alias}"] = (
            "at most {open} open of {size}, {in use} in use, {overflow} above the size".format_map(most)
        )
    outcome.require(bool(done), "no request was made")
    outcome.require(errors == 0, f"errors: {dict(tally.errors.most_common(5))}")
    outcome.require(watch.error is None, f"the pools could not be watched: {watch.error!r}")
    outcome.require(
        0 < watch.most_in_database <= ALIASES * POOL,
        f"{watch.most_in_database} sessions on the server: {dict(watch.states)}",
    )
    over = {name: number for name, number in watch.most.items() if number > POOL}
    outcome.require(not over, f"a pool was exceeded: {over}")
    overflow = {name: number for name, number in watch.most.items() if number and name.endswith("overflow")}
    outcome.require(not overflow, f"a pool has overflown: {overflow}")


def check_rows(outcome: Outcome, tally: Tally, port: int, process: "subprocess.Popen[bytes]") -> None:
    """Compare the rows with what the answers have said."""
    if process.poll() is not None:
        outcome.failures.append("the server has ended before it was asked to")
        return
    client = Client(port, 0, tally)
    books = [json.loads(line) for line in client.ask("GET", "/books/export", 200).splitlines()]
    news = client.ask("GET", "/news", 200)
    client.connection.close()
    copies = sum(book["copies"] for book in books) - len(books)
    outcome.facts["rows"] = f"{len(books):,} books, {len(news):,} news, {copies:,} deliveries"
    wanted, found = (tally.created, tally.created, tally.delivered), (len(books), len(news), copies)
    outcome.require(wanted == found, f"books, news and deliveries: {wanted} answered, {found} stored")
