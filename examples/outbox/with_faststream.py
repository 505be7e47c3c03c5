"""The orders of `examples.outbox`, whose receivers are called by a subscriber of FastStream on RabbitMQ.

    python -m examples.outbox.with_faststream

EXAMPLE_BROKER names another server than that of this machine. Writes shop.db and mails.txt into the working directory, and
prints:
    published: 6 events; left in the outbox: 0
    the first consumer ended with status 1
    charged: Ada 1200, Bob 300, Cyd 4500
    mailed: Ada, Bob, Cyd
    4 mails, 3 different ones
"""

import asyncio
import sys

from faststream import FastStream
from faststream.rabbit import RabbitBroker, RabbitQueue

import microorm
from examples.outbox.by_broker import BROKER, DATABASE, queue_name, run
from microorm.outbox.faststream import FastStreamTransport, subscribe


def queue() -> RabbitQueue:
    """Return the queue, which RabbitMQ removes after the example."""
    return RabbitQueue(queue_name(), durable=True, arguments={"x-expires": 60_000})


def consume() -> None:
    """Call the receivers; in a project this is the module that `faststream run` names."""
    microorm.configure(DATABASE)
    broker = RabbitBroker(BROKER)
    subscribe(broker, queue())
    asyncio.run(FastStream(broker).run())


if __name__ == "__main__":
    if sys.argv[1:] == ["consume"]:
        consume()
    else:
        run(FastStreamTransport(RabbitBroker(BROKER), queue()), "examples.outbox.with_faststream", "consume")
