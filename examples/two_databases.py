"""Two databases: one model with a table in each of them, and how a save picks its database.

    python examples/two_databases.py

Prints:
    saved in default
    copied to archive: raw True
    default 1, archive 1
    loaded from archive, saved to archive: Le Guin, Ursula K.
    default still says Le Guin
    inside using("archive"): 2
    log: a write to 'archive' inside a block on 'default' is not part of the block: it is committed separately
    after the rollback: default 1, archive 3
    no database named 'arcive'; configured: 'archive', 'default'; nearest: 'archive'
"""

import logging
import sys
from contextlib import suppress
from typing import Any

import microorm
from microorm import Field, Model, atomic, field, receiver, using
from microorm.errors import UnknownAlias
from microorm.signals import post_save


class Author(Model):
    name: Field[str] = field(max_length=100)


def counts() -> str:
    here, there = Author.objects.count(), Author.objects.using("archive").count()
    return f"default {here}, archive {there}"


logging.basicConfig(stream=sys.stdout, format="log: %(message)s")
microorm.configure({"default": "sqlite://", "archive": "sqlite://"})
microorm.create_all()

ursula = Author(name="Le Guin").save()
print(f"saved in {ursula._state.db}")


@receiver(post_save, sender=Author)
def show_copy(*, raw: bool, using: str, **kwargs: Any) -> None:
    print(f"copied to {using}: raw {raw}")


ursula.save(using="archive", raw=True)
post_save.disconnect(show_copy, sender=Author)
print(counts())

old = Author.objects.using("archive").get(name="Le Guin")
old.name = "Le Guin, Ursula K."
old.save()
print(f"loaded from archive, saved to {old._state.db}: {old.name}")
print(f"default still says {Author.objects.get(id=old.id).name}")

with using("archive"):
    Author(name="Lem").save()
    print(f'inside using("archive"): {Author.objects.count()}')

with suppress(LookupError), atomic():
    Author(name="Dick").save()
    Author(name="Butler").save(using="archive")
    raise LookupError
print(f"after the rollback: {counts()}")

try:
    Author.objects.using("arcive").count()
except UnknownAlias as error:
    print(error)
microorm.close()
