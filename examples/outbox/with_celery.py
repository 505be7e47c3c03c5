"""The orders of `examples.outbox`, whose receivers are called by workers of Celery on RabbitMQ.

    python -m examples.outbox.with_celery

EXAMPLE_BROKER names another server than that of this machine. Writes shop.db and mails.txt into the working directory, and
prints:
    published: 6 events; left in the outbox: 0
    the first consumer ended with status 1
    charged: Ada 1200, Bob 300, Cyd 4500
    mailed: Ada, Bob, Cyd
    4 mails, 3 different ones
"""

from celery import Celery

import microorm
from examples.outbox.by_broker import BROKER, DATABASE, queue_name, run
from microorm.outbox.celery import CeleryTransport, register_task

app = Celery("shop", broker=BROKER)
app.conf.update(
    accept_content=["json"],
    task_default_queue=queue_name(),
    task_queues={
        queue_name(): {"queue_arguments": {"x-expires": 60_000}}
    },  # RabbitMQ removes it after the example
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
register_task(app)

if __name__ == "__main__":
    name = f"{queue_name()}@%h"  # no two workers may have the same
    run(
        CeleryTransport(app),
        *("celery", "-A", "examples.outbox.with_celery", "worker", "-n", name, "--pool", "solo"),
    )
else:
    microorm.configure(DATABASE)  # of the worker, which imports this module
