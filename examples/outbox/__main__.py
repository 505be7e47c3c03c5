"""Orders are saved, the first relay crashes between a mail and its acknowledgement, and the second one finishes.

    python -m examples.outbox

Writes shop.db and mails.txt into the working directory, and prints:
    rolled back: the card was refused
    billing.charge: 3 events wait
    shop.mail: 3 events wait
    the first relay ended with status 1
    the second relay ended with status 0
    charged: Ada 1200, Bob 300, Cyd 4500
    mailed: Ada, Bob, Cyd
    5 mails, 3 different ones
    events left: 0
"""

import os
import subprocess
import sys
import time

import microorm
from examples.outbox.models import Charge, Order
from examples.outbox.receivers import CRASH, MAILS
from microorm.outbox import Outbox, Relay

DATABASE = "sqlite:///shop.db"


def relay(lease: float = 1.0) -> None:
    """Deliver what is due, also what a relay that has crashed has claimed."""
    worker = Relay(lease=lease)
    store = worker.store("default")
    worker.drain()
    while (wait := store.next_due()) is not None:
        time.sleep(wait)
        worker.drain()


def start_relay(**environment: str) -> int:
    """Run a relay as a process of its own; return its exit status."""
    command = [sys.executable, "-m", "examples.outbox", "relay"]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


def main(*arguments: str) -> None:
    """Run the example, or the relay of it."""
    microorm.configure(DATABASE)
    if arguments == ("relay",):
        relay()
        return
    microorm.create_all()
    with microorm.atomic():
        for customer, cents in (("Ada", 1200), ("Bob", 300), ("Cyd", 4500)):
            Order(customer=customer, cents=cents).save()
    try:
        with microorm.atomic():
            Order(customer="nobody", cents=1).save()
            raise ValueError("the card was refused")
    except ValueError as error:
        print(f"rolled back: {error}")
    for status in Outbox(microorm.default_databases).status():
        print(f"{status.receiver}: {status.waiting} events wait")

    print(f"the first relay ended with status {start_relay(**{CRASH: 'Bob'})}")
    print(f"the second relay ended with status {start_relay()}")

    print(
        f"charged: {', '.join(sorted(f'{each.order.customer} {each.cents}' for each in Charge.objects.all()))}"
    )
    mails = MAILS.read_text().splitlines()
    print(f"mailed: {', '.join(sorted({line.split(',')[0].removeprefix('to ') for line in mails}))}")
    print(f"{len(mails)} mails, {len({line.rpartition(' ')[2] for line in mails})} different ones")
    print(
        f"events left: {sum(each.waiting + each.claimed for each in Outbox(microorm.default_databases).status())}"
    )
    microorm.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
