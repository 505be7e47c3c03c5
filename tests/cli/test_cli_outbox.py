"""`microorm relay` delivers, and `microorm outbox` shows and repairs."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import pytest

from microorm.signals import post_save
from tests.programs import Program

MODELS = """from pathlib import Path

from clibase import Base
from microorm import Field, receiver
from microorm.outbox import Retry
from microorm.signals import post_save


class Order(Base):
    name: Field[str]


@receiver(post_save, sender=Order, delivery="durable", dispatch_uid="charge", retry=Retry(max_attempts=1))
def charge(instance, using, **kwargs):
    if instance.name == "bad":
        raise ValueError("secret")
    with Path("log").open("a") as file:
        file.write(f"{instance.name} of {using}\\n")
"""
SAVE = "from shop.models import Order; [Order(name=name).save(using='{using}') for name in {names}]"


@pytest.fixture
def orders(project: Program) -> Iterator[Program]:
    """A project whose orders have a durable receiver, which fails for bad ones."""
    databases = "databases = { default = 'sqlite:///shop.db', archive = 'sqlite:///archive.db' }"
    project.write(
        {"pyproject.toml": f"[tool.microorm]\n{databases}\napps = ['shop']\n", "shop/models.py": MODELS}
    )
    yield project
    for each in post_save.receivers:
        if each.stored:
            post_save.disconnect(None, each.sender, each.dispatch_uid)


@pytest.fixture
def run(orders: Program, invoke: Any) -> Any:
    """Runs a command, after making the tables."""

    def run(*arguments: str, **options: Any) -> Any:
        done = invoke(*arguments, **options)
        for each in post_save.receivers:
            if each.stored:
                post_save.disconnect(None, each.sender, each.dispatch_uid)
        return done

    run("shell", "-c", "import microorm; models['shop.Order'].__options__.registry.create_all()")
    return run


def save(run: Any, *names: str, using: str = "default") -> None:
    done = run("shell", "-c", SAVE.format(names=names, using=using))
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_relay_drains_all_databases(run: Any, orders: Program) -> None:
    save(run, "a", "bad")
    save(run, "b", using="archive")
    done = run("relay", "--drain")
    assert done.exit_code == 0
    assert done.stdout == "default: charge dead, attempt 1\n2 done, 0 failed, 1 dead\n"
    assert (orders.folder / "log").read_text() == "a of default\nb of archive\n"


def test_a_relay_of_some_databases_leaves_the_others(run: Any, orders: Program) -> None:
    save(run, "a")
    save(run, "b", using="archive")
    assert run("relay", "--drain", "--alias", "archive").stdout == "1 done, 0 failed, 0 dead\n"
    assert (orders.folder / "log").read_text() == "b of archive\n"


def test_the_status_counts_by_receiver(run: Any) -> None:
    save(run, "a", "b")
    save(run, "bad", using="archive")
    run("relay", "--drain", "--alias", "archive")
    done = run("outbox", "status", "--json")
    first, second = json.loads(done.stdout)
    assert first.pop("oldest") >= 0
    counts = {"waiting": 2, "retrying": 0, "claimed": 0, "dead": 0}
    assert first == {"alias": "default", "receiver": "charge"} | counts
    assert second == {"alias": "archive", "receiver": "charge", "oldest": None} | counts | {
        "waiting": 0,
        "dead": 1,
    }
    table = run("outbox", "status").stdout.splitlines()
    assert table[0] == "alias\treceiver\twaiting\tretrying\tclaimed\tdead\toldest"
    assert table[2] == "archive\tcharge\t0\t0\t0\t1\t-"
    assert run("outbox", "status", "--alias", "archive").stdout.splitlines()[1:] == table[2:]


def test_dead_events_are_listed_without_the_values_of_their_errors(run: Any) -> None:
    save(run, "bad")
    run("relay", "--drain")
    (dead,) = json.loads(run("outbox", "dead", "--json").stdout)
    assert (dead["alias"], dead["receiver"], dead["label"], dead["attempts"]) == (
        "default",
        "charge",
        "shop.Order",
        1,
    )
    assert "builtins.ValueError in" in dead["error"]
    assert "secret" not in dead["error"]
    assert (
        run("outbox", "dead").stdout.splitlines()[1].startswith("default\t1\tcharge\tpost_save\tshop.Order")
    )
    assert run("outbox", "dead", "--receiver", "other").stdout == "no dead events\n"


def test_dead_events_are_put_back(run: Any) -> None:
    save(run, "bad", "bad", "bad")
    run("relay", "--drain")
    assert run("outbox", "retry", "2").stdout == "1 events wait again\n"
    assert json.loads(run("outbox", "retry", "--receiver", "charge", "--json").stdout) == {"retried": 2}
    assert run("outbox", "retry", "--all").stdout == "0 events wait again\n"
    (status,) = json.loads(run("outbox", "status", "--json").stdout)
    assert (status["waiting"], status["retrying"], status["dead"]) == (3, 0, 0)


def test_retry_of_an_event_that_is_not_dead_says_so_and_puts_none_back(run: Any) -> None:
    save(run, "bad")
    run("relay", "--drain")
    done = run("outbox", "retry", "1", "17", "99999999999999999999", "--alias", "default")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert (
        "no dead event on 'default' has the number 17, 99999999999999999999, so none was put back"
        in done.stderr
    )
    assert run("outbox", "retry", "1", "--receiver", "other").exit_code == 1
    assert json.loads(run("outbox", "status", "--json").stdout)[0]["dead"] == 1


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *[(("relay", "--drain"), f"--batch={value}") for value in ("0", "-1", "1000000")],
        *[(("relay", "--drain"), f"--lease={value}") for value in ("0", "-1", "1e300", "inf", "nan")],
        *[(("outbox", "prune"), f"--days={value}") for value in ("-1", "1e300", "nan")],
        *[(("outbox", "dead"), f"--limit={value}") for value in ("-1", "0", "99999999999999999999")],
    ],
)
def test_numbers_that_make_no_sense_are_usage_errors(
    orders: Program, invoke: Any, command: tuple[str, ...], option: str
) -> None:
    """There are no tables, so any SQL would be another error."""
    done = invoke(*command, option)
    assert (done.stdout, done.exit_code) == ("", 2)
    assert f"invalid value for '{option.partition('=')[0]}'" in done.stderr


def test_old_dead_events_are_deleted(run: Any) -> None:
    save(run, "bad")
    run("relay", "--drain")
    assert run("outbox", "prune", "--days", "1").stdout == "0 rows deleted\n"
    assert json.loads(run("outbox", "prune", "--days", "0", "--json").stdout) == {"deleted": 1}
    assert run("outbox", "dead").stdout == "no dead events\n"
    assert run("outbox", "status").stdout == "no events\n"


BROKERS = """from pathlib import Path


class Printed:
    def publish(self, events):
        with Path("log").open("a") as file:
            return [each.id for each in events if file.write(f"published {each.receiver}\\n")]

    def close(self):
        with Path("log").open("a") as file:
            file.write("closed\\n")


transport = Printed()
"""


def test_a_relay_publishes_by_the_transport_that_is_named_and_closes_it(run: Any, orders: Program) -> None:
    orders.write({"shop/brokers.py": BROKERS})
    save(run, "a")
    assert (
        run("relay", "--drain", "--transport", "shop.brokers:transport").stdout
        == "1 done, 0 failed, 0 dead\n"
    )
    assert (orders.folder / "log").read_text() == "published charge\nclosed\n"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("shop.brokers", 2, "--transport must be like 'shop.brokers:transport', not 'shop.brokers'"),
        ("os;system:x", 2, "--transport must be like 'shop.brokers:transport', not 'os;system:x'"),
        (
            "shop.broker:transport",
            1,
            "no transport 'shop.broker:transport': there is no module 'shop.broker'",
        ),
        ("shop.brokers:transprt", 1, "'shop.brokers' has no 'transprt'; nearest: 'transport'"),
        ("shop.brokers:Printed", 1, "not a transport such as FastStreamTransport(broker)"),
        ("os:system", 1, "not a transport such as FastStreamTransport(broker)"),
    ],
)
def test_a_transport_that_is_not_there_is_an_error(
    run: Any, orders: Program, path: str, status: int, message: str
) -> None:
    orders.write({"shop/brokers.py": BROKERS})
    done = run("relay", "--drain", "--transport", path)
    assert (done.stdout, done.exit_code) == ("", status)
    assert message in done.stderr


@pytest.mark.parametrize("command", [("relay",), ("outbox", "status"), ("outbox", "prune", "--days", "1")])
def test_an_unknown_alias_is_an_error(run: Any, command: tuple[str, ...]) -> None:
    done = run(*command, "--alias", "archve")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert "no database named 'archve'" in done.stderr


@pytest.mark.parametrize("command", [("relay",), ("outbox", "dead"), ("outbox", "retry", "1")])
def test_without_the_tables_the_error_says_how_to_make_them(
    orders: Program, invoke: Any, command: tuple[str, ...]
) -> None:
    done = invoke(*command)
    assert (done.stdout, done.exit_code) == ("", 1)
    assert "'default' has no tables of the outbox; make them by `microorm makemigrations`" in done.stderr


def test_without_durable_receivers_the_error_says_so(shop: Program, invoke: Any) -> None:
    done = invoke("relay")
    assert (done.stderr, done.exit_code) == (
        "microorm: no model has a durable receiver, so there is no outbox\n",
        1,
    )


def test_retry_needs_to_know_which_events(run: Any) -> None:
    done = run("outbox", "retry")
    assert (done.exit_code, "name the events: IDS, --receiver or --all" in done.stderr) == (2, True)


def test_the_tables_come_with_a_migration_where_they_are_needed(orders: Program, invoke: Any) -> None:
    assert invoke("init").exit_code == 0
    made = invoke("makemigrations", "-m", "first")
    created = {line.split()[-1] for line in made.stdout.splitlines() if "create_table" in line}
    assert created == {"microorm_outbox", "microorm_outbox_dead", "microorm_outbox_done", "order"}
    assert invoke("migrate").exit_code == 0
    assert invoke("check").stdout == "models and databases agree\n"
    assert invoke("makemigrations", "-m", "again").stdout == "no changes\n"


@contextmanager
def relay_of(orders: Program, models: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a relay as a program, with a receiver of its own, until it has called it; what is in the outbox was put there before."""
    (orders.folder / "shop/models.py").write_text(
        models.replace("from clibase import Base", "from microorm import Model as Base")
    )
    relay = subprocess.Popen(
        [sys.executable, "-m", "microorm", "relay", *options],
        cwd=orders.folder,
        env=orders.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = orders.folder / "log"
    try:
        while not log.exists() or not log.read_text():
            assert relay.poll() is None
            sleep(0.01)
        yield relay
    finally:
        relay.kill()
        relay.communicate()
    (orders.folder / "shop/models.py").write_text(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_that_gets_a_signal_finishes_and_says_what_it_did(
    run: Any, orders: Program, stop: int
) -> None:
    save(run, "slow", "a", "b")
    slow = f"{MODELS}    if instance.name == 'slow':\n        import time\n        time.sleep(1)\n"
    with relay_of(orders, slow) as relay:
        relay.send_signal(stop)
        out, err = relay.communicate(timeout=60)
    assert (out, err, relay.returncode) == ("1 done, 0 failed, 0 dead\n", "", 0)
    status = json.loads(run("outbox", "status", "--json").stdout)
    assert [(each["waiting"], each["claimed"], each["retrying"]) for each in status] == [(2, 0, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coroutine", "function"])
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_relay_whose_receiver_hangs(
    run: Any, orders: Program, stop: int, kind: str
) -> None:
    """Its events are free again when the lease is over."""
    save(run, "a", "b")
    models, _, body = MODELS.partition("    if instance")
    if kind == "coroutine":
        models = models.replace("def charge", "async def charge")
        body += "    import asyncio\n    await asyncio.Event().wait()\n"
    else:
        body += "    import threading\n    threading.Event().wait()\n"
    with relay_of(orders, f"{models}    if instance{body}", "--lease", "1") as relay:
        relay.send_signal(stop)
        with pytest.raises(subprocess.TimeoutExpired):
            relay.wait(0.5)
        relay.send_signal(stop)
        assert (relay.communicate(timeout=60)[1], relay.returncode) == ("", -stop)
    (status,) = json.loads(run("outbox", "status", "--alias", "default", "--json").stdout)
    assert (status["waiting"], status["claimed"]) == (0, 2)


def test_what_the_last_receiver_has_left_is_shown_and_no_relay_runs_for_it(
    run: Any, orders: Program, invoke: Any
) -> None:
    save(run, "bad")
    run("relay", "--drain")
    orders.write({"shop/models.py": MODELS.partition("@receiver")[0]})
    for name in ("shop.models", "shop"):
        sys.modules.pop(name, None)
    assert [each["dead"] for each in json.loads(invoke("outbox", "status", "--json").stdout)] == [1]
    done = invoke("relay", "--drain")
    assert (done.exit_code, "no model of these databases has a durable receiver" in done.stderr) == (1, True)
