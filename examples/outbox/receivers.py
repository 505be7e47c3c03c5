"""What follows from an order: a charge, which is booked exactly once, and a mail, which may be sent twice."""

import os
from pathlib import Path
from typing import Any

from examples.outbox.models import Charge, Order
from microorm import receiver
from microorm.outbox import Event, Retry
from microorm.signals import post_save

MAILS = Path("mails.txt")
CRASH = "CRASH_AFTER_THE_MAIL_TO"


@receiver(post_save, sender=Order, delivery="durable", dispatch_uid="billing.charge", exactly_once=True)
def charge(instance: Order, created: bool, **kwargs: Any) -> None:
    """Book the charge in the same database: the row and the end of the event are committed together."""
    if created:
        Charge(order=instance, cents=instance.cents).save()


@receiver(
    post_save, sender=Order, delivery="durable", dispatch_uid="shop.mail", retry=Retry(max_attempts=5, base=0)
)
def mail(instance: Order, created: bool, event: Event, **kwargs: Any) -> None:
    """Send a mail; a mail server that knows the identifier of the event drops the second one."""
    if not created:
        return
    with MAILS.open("a") as file:
        file.write(f"to {instance.customer}, attempt {event.attempt}, {event.id}\n")
    if os.environ.get(CRASH) == instance.customer:
        os._exit(1)  # as if the power had failed: nothing is acknowledged, nothing is closed
