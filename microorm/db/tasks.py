"""Tasks of one event loop that would wait for each other's blocks.

The functions of microorm are synchronous: while one waits, no task of its thread runs. If a task holds a block over an
`await`, and the database is locked by it, another task that needs the lock would wait until the database gives up.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from microorm.db.context import held_by_tasks, running_task
from microorm.errors import TransactionSharedError

if TYPE_CHECKING:
    from microorm.db.engine import Database
    from microorm.db.transaction import Transaction


def note_task(transaction: Transaction) -> None:
    """Note that *transaction*, which has begun, belongs to a task, until `context.forget` is called for it."""
    held_by_tasks[id(transaction)] = weakref.ref(transaction)


def refuse_to_wait(database: Database) -> None:
    """Raise `TransactionSharedError` if a task that cannot run now, since this thread would wait, has locked *database*.

    That is so on SQLite, where a block locks the whole database as it begins. The servers lock rows, which only they know.
    """
    for reference in list(held_by_tasks.values()):
        transaction = reference()
        if (
            transaction is None
            or not transaction.database.is_sqlite
            or transaction.database.url != database.url
        ):
            continue
        task = transaction.owner.waiting_task()
        if task is None or task is running_task() or transaction.blocks[0].readonly:
            continue
        raise TransactionSharedError(
            f"{database.alias!r} is locked by the block that the task {task.get_name()!r} has open while it awaits "
            "something; to wait for it here would stop the event loop, and so that task. Await nothing in a block: "
            "write a function that is decorated with @atomic, and `await asyncio.to_thread(function)`"
        )
