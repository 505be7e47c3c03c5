"""Kill -9 of producers, relays and consumers on the way through RabbitMQ loses no event and invents none."""

import json
import subprocess
import sys

import pytest

from tests.outbox.brokers import required
from tests.programs import ROOT, Program
from tests.thorough import size

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.backends("sqlite-file", "postgresql", "mariadb"),
]

KILLS, THOROUGH = 6, 20
REPEATED = 0.02


def test_kills_on_the_way_through_rabbitmq_lose_nothing_and_invent_nothing(url) -> None:
    """Producer, relay and both consumers are killed; more often in `make soak`."""
    required("rabbit")
    kills = size(KILLS, THOROUGH)
    done = subprocess.run(
        [sys.executable, "-m", "tests.outbox.broker_soak", url, str(kills)],
        cwd=ROOT,
        env=Program(ROOT).environment(),
        capture_output=True,
        text=True,
        timeout=350,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["lost"], result["phantom"], result["kills"]) == ([], [], kills)
    assert result["saved"] > 100
    assert result["twice"] <= REPEATED * result["saved"], result
