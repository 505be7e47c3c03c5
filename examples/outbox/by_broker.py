"""What the examples with a broker share: orders are saved, a consumer crashes after a mail, and a second one finishes."""

import os
import subprocess
import sys
import time

import microorm
from examples.outbox.models import Charge, Order
from examples.outbox.receivers import CRASH, MAILS
from microorm.outbox import Outbox, Relay, Transport

DATABASE = "sqlite:///shop.db"
QUEUE = "EXAMPLE_QUEUE"
BROKER = os.environ.get("EXAMPLE_BROKER", "amqp://guest:guest@127.0.0.1:5672/")
PATIENCE = 60  # seconds


def queue_name() -> str:
    """Return the queue of this run, which the consumers get from the process that starts them."""
    return os.environ.setdefault(QUEUE, f"examples.outbox.{os.getpid()}")


def start_consumer(*command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `python -m` with *command*."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-m", *command], env=os.environ | environment, stdout=quiet, stderr=quiet
    )


def is_done() -> bool:
    """Return whether each order is charged and mailed, the one of the crash twice, and no event is left."""
    mails = MAILS.read_text().splitlines() if MAILS.exists() else []
    left = Outbox(microorm.default_databases).status()
    return len(mails) > 3 and len(Charge.objects.all()) == 3 and not left


def run(transport: Transport, *command: str) -> None:
    """Save orders, publish their events by *transport*, and start the consumers by *command*."""
    microorm.configure(DATABASE)
    microorm.create_all()
    with microorm.atomic():
        for customer, cents in (("Ada", 1200), ("Bob", 300), ("Cyd", 4500)):
            Order(customer=customer, cents=cents).save()
    relay = Relay(transport=transport, idle=0.1)
    print(f"published: {relay.drain()} events; left in the outbox: {len(Outbox(relay.databases).status())}")
    relay.start()
    first = start_consumer(*command, **{CRASH: "Bob"})
    print(f"the first consumer ended with status {first.wait(PATIENCE)}")
    second = start_consumer(*command)
    end = time.monotonic() + PATIENCE
    while not is_done() and time.monotonic() < end:
        time.sleep(0.1)
    second.terminate()
    second.wait(PATIENCE)
    relay.stop()

    charged = sorted(f"{each.order.customer} {each.cents}" for each in Charge.objects.all())
    print(f"charged: {', '.join(charged)}")
    mails = MAILS.read_text().splitlines()
    print(f"mailed: {', '.join(sorted({line.split(',')[0].removeprefix('to ') for line in mails}))}")
    print(f"{len(mails)} mails, {len({line.rpartition(' ')[2] for line in mails})} different ones")
    microorm.close()
