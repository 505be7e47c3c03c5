"""Durable receivers: side effects that survive the process that has caused them.

`@receiver(post_save, sender=Order, delivery="durable", dispatch_uid="billing.charge")` stores each call in the table
`microorm_outbox`, in the transaction of the save. A `Relay` calls the receivers, again and again until they succeed; so a
receiver may be called twice, and never not at all. Its options:

- *payload*: `"row"` stores the row as it was saved, `"key"` its key alone, by which the row is loaded at the delivery.
- *ordered*: the events of one row are delivered in the order of their commits.
- *retry*: a `Retry`; by default 10 attempts.
- *timeout*: how many seconds the receiver may take. An async receiver is cancelled then; for others the events are claimed
  for so much longer.
- *exactly_once*: the receiver writes to the same alias only; what it does is committed together with the end of its event.
- *max_bytes*: how long the JSON of an event may be, by default 64 KiB.

The receiver gets the arguments of the signal as they were at the save, and `event`, an `Event`.
"""

from microorm.outbox.event import Delivered, Event, Message
from microorm.outbox.operations import DeadEvent, Outbox, QueueStatus
from microorm.outbox.options import Retry
from microorm.outbox.relay import Relay
from microorm.outbox.transport import LocalTransport, Transport

__all__ = [
    "DeadEvent",
    "Delivered",
    "Event",
    "LocalTransport",
    "Message",
    "Outbox",
    "QueueStatus",
    "Relay",
    "Retry",
    "Transport",
]
