"""Producers and relays of the outbox are killed at random, on each database that answers.

No event may be lost, none may be delivered whose row was rolled back, and few may be delivered twice. The processes are
those of `tests/outbox/soak.py`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from tests.programs import ROOT, Program
from tests.servers import Server, open_server
from tools.soak.parts import Options, Outcome

SERVERS = ("postgresql", "mariadb")
TWICE = 0.02
"""The share of the events that may be delivered twice."""

BATCH = 10
"""How many of few events may be: those that one kill leaves without an acknowledgement."""


def run(options: Options) -> Outcome:
    """Kill *options.kills* processes, as many on each database."""
    outcome = Outcome(facts={"seed": f"{options.seed}"})
    kills = lost = phantom = twice = saved = 0
    with ExitStack() as stack:
        databases = {"sqlite": stack.enter_context(_file())}
        for kind in SERVERS:
            server = open_server(kind)
            if isinstance(server, Server):
                databases[kind] = stack.enter_context(_borrowed(server))
            else:
                outcome.facts[kind] = server
        each = -(-options.kills // len(databases))
        for kind, url in databases.items():
            found = _soaked(url, each, options.seed, outcome, kind)
            if found is None:
                continue
            outcome.facts[kind] = (
                f"{found['kills']} kills: {found['saved']:,} events, {len(found['lost'])} lost, "
                f"{len(found['phantom'])} phantom, {found['twice']} twice ({found['share']:.2%})"
            )
            outcome.require(found["kills"] == each, f"{kind}: {found['kills']} of {each} kills")
            outcome.require(not found["lost"], f"{kind}: lost {found['lost'][:5]}")
            outcome.require(not found["phantom"], f"{kind}: delivered, and not saved {found['phantom'][:5]}")
            allowed = max(TWICE * found["saved"], BATCH)
            outcome.require(found["twice"] <= allowed, f"{kind}: {found['share']:.2%} were delivered twice")
            kills, saved, twice = kills + found["kills"], saved + found["saved"], twice + found["twice"]
            lost, phantom = lost + len(found["lost"]), phantom + len(found["phantom"])
    outcome.summary = f"{kills} kills on {', '.join(databases)}: {saved:,} events, {lost} lost, {phantom} phantom, {twice} twice; seed {options.seed}"
    return outcome


def _soaked(url: str, kills: int, seed: int, outcome: Outcome, kind: str) -> dict[str, Any] | None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.outbox.soak", url, str(kills), str(seed)],
        cwd=ROOT,
        env=Program(ROOT).environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        outcome.failures.append(f"{kind}: the soak failed: {done.stderr.strip()[-2000:]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _file() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/soak.db?timeout=30"


@contextmanager
def _borrowed(server: Server) -> Iterator[str]:
    with closing(server):
        name, url = server.borrow()
        try:
            yield url
        finally:
            server.give_back([name])
