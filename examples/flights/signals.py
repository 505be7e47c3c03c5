"""Receivers: turn 'NA' into None, write the audit trail, and count flights after each commit."""

from collections import Counter
from typing import Any

from examples.flights.models import Airline, Airport, Audit, Flight, Plane, Weather
from microorm import Model, receiver
from microorm.signals import post_save, pre_bulk_create, pre_save

OPTIONAL: dict[type[Model[Any]], list[str]] = {
    model: [field.name for field in model.__schema__.fields if field.nullable]
    for model in (Airport, Plane, Flight, Weather)
}

sent: Counter[str] = Counter()
committed: Counter[str] = Counter()


@receiver(pre_save, sender=Airport)
@receiver(pre_save, sender=Plane)
@receiver(pre_save, sender=Flight)
def none_for_na(sender: type[Model[Any]], instance: Model[Any], **kwargs: Any) -> None:
    """Replace 'NA' by None in the fields that may be None."""
    for name in OPTIONAL[sender]:
        if getattr(instance, name) == "NA":
            setattr(instance, name, None)


@receiver(pre_bulk_create, sender=Weather)
def none_for_na_in_all(sender: type[Weather], objects: list[Weather], **kwargs: Any) -> None:
    """Do the same for a bulk insert, which sends one signal for all objects instead of `pre_save`."""
    for instance in objects:
        none_for_na(sender, instance)


@receiver(post_save, sender=Airline)
@receiver(post_save, sender=Airport)
@receiver(post_save, sender=Plane)
@receiver(post_save, sender=Flight)
def write_audit(sender: type[Model[Any]], instance: Model[Any], *, created: bool, **kwargs: Any) -> None:
    """Save an audit row. The router sends it to the other database."""
    Audit(
        table=sender.__table__.name, key=str(instance.pk), action="created" if created else "changed"
    ).save()


@receiver(post_save, sender=Flight)
def count_sent(instance: Flight, **kwargs: Any) -> None:
    """Count saves. This runs inside the transaction, so a rollback undoes the row, but not this count."""
    sent[instance.carrier_id] += 1


@receiver(post_save, sender=Flight, delivery="on_commit")
def count_committed(instance: Flight, **kwargs: Any) -> None:
    """Count committed flights. This runs after the commit, so a flight that is rolled back is never counted."""
    committed[instance.carrier_id] += 1
