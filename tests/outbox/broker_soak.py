"""Kills on the way through RabbitMQ: `python -m tests.outbox.broker_soak URL KILLS` prints what was lost, and what came twice."""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.outbox import broker_shop as shop
from tests.outbox.brokers import Queue
from tests.outbox.soak import ROLLED_BACK, Rollback, await_deliveries, fork

EACH = 100
"""How many deliveries there are at least for each kill."""


def produce() -> None:
    """Save orders, some of which are rolled back, until the process is killed."""
    chance, number, prefix = random.Random(), 0, os.urandom(4).hex()
    while True:
        number += 1
        try:
            with shop.databases.atomic():
                if chance.random() < ROLLED_BACK:
                    shop.Order(name=f"{prefix}-{number}-rolled-back").save()
                    raise Rollback
                shop.Order(name=f"{prefix}-{number}").save()
        except Rollback:
            pass
        time.sleep(0.005)


def soak(url: str, kills: int) -> dict[str, object]:
    """Kill a producer, a relay or a consumer *kills* times; deliver what is left, and count."""
    queue = Queue("rabbit")
    with tempfile.TemporaryDirectory() as folder:
        shop.open_shop(url, str(Path(folder, "log")))
        shop.registry.create_all()
        shop.databases.close()
        shop.databases.configure(url)
        works = [
            produce,
            lambda: shop.relay(queue),
            lambda: shop.consume(queue),
            lambda: shop.consume(queue),
        ]
        children = [fork(work) for work in works]
        for number in range(kills):
            await_deliveries(Path(folder, "log"), EACH)
            time.sleep(random.uniform(0, 0.5))
            index = 2 + number % 2 if number % 3 else number // 3 % 2  # six kills reach each of them
            os.kill(children[index], signal.SIGKILL)
            os.waitpid(children[index], 0)
            children[index] = fork(works[index])
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
        saved = {each.name for each in shop.Order.objects.all()}
        end = time.monotonic() + 120
        while set(shop.delivered()) != saved and time.monotonic() < end:
            time.sleep(0.2)
        for child in children[1:]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        lines = shop.delivered()
        shop.close_shop()
    queue.remove()
    return {
        "saved": len(saved),
        "kills": kills,
        "lost": sorted(saved - set(lines)),
        "phantom": sorted(set(lines) - saved),
        "twice": len(lines) - len(set(lines)),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(soak(sys.argv[1], int(sys.argv[2]))) + "\n")
