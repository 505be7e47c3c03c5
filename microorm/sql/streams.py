"""Streams: the rows of a statement chunk by chunk, so that a million of them take the memory of a few.

Outside a block a stream has a connection of its own, and whoever reads it may write meanwhile. Inside a block it
has the block's: PostgreSQL keeps the rows under a cursor, SQLite and MariaDB give them all at once, since the one
would show writes that the reader makes meanwhile, and the other could run no other statement.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from sqlalchemy import Connection, CursorResult, Select, column, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

from microorm.db.connection import lone_connection
from microorm.db.context import process
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.db.transaction import Block, Transaction
from microorm.errors import TransactionError
from microorm.fields.types import MARIADB

Rows = Sequence[Any]
Stream = Generator[Rows, None, None]

PATIENCE = 24 * 60 * 60  # seconds

_numbers = count(1)
_inherited: list[Any] = []


class Declared(Executable, ClauseElement):
    """A SELECT whose rows PostgreSQL keeps until they are fetched, or the transaction ends."""

    inherit_cache = False

    def __init__(self, name: str, statement: Select[Any]) -> None:
        self.name = name
        self.statement = statement


@compiles(Declared)
def _declare(element: Declared, compiler: SQLCompiler, **options: Any) -> str:
    selected = compiler.process(element.statement, **options)
    return f"DECLARE {element.name} NO SCROLL CURSOR FOR {selected}"


def chunks(databases: Databases, database: Database, statement: Select[Any], size: int) -> Stream:
    """The rows of *statement* in lists of *size*; to be closed where it is not read to its end.

    Raises what the database raises, and `TransactionError` where the block has ended in which it was begun.
    """
    transaction = databases.transaction(database)
    if transaction is None:
        return _alone(database, statement, size)
    # Asked in the way of any other statement, which checks the block.
    databases.channel(database, writes=False)
    return (_declared if database.dialect == "postgresql" else _at_once)(transaction, statement, size)


def _alone(database: Database, statement: Select[Any], size: int) -> Stream:
    """Outside a block: by a connection that nothing else uses until the stream is closed."""
    here, connection = process(), _own_connection(database)
    result, done = None, False
    try:
        # Where a reader would keep the loop's own writes waiting, it takes all rows at once.
        if database.is_sqlite and connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            rows = connection.execute(statement).fetchall()
            connection.close()
            yield from _parts(rows, size)
            return
        if database.dialect in MARIADB:  # whose server hangs up on who reads slowly
            connection.exec_driver_sql(f"SET SESSION net_write_timeout = {PATIENCE}")
        result = connection.execute(statement, execution_options={"yield_per": size})
        yield from result.partitions()
        done = True
        if database.dialect in MARIADB:
            connection.exec_driver_sql("SET SESSION net_write_timeout = DEFAULT")
    finally:
        if here is not process():
            # The server still serves the parent of this fork.
            _inherited.append((connection, result))
            with suppress(SQLAlchemyError):
                connection.detach()
        else:
            if result is not None and not done:
                _cut_short(database, connection, result)
            connection.close()


def _own_connection(database: Database) -> Connection:
    if database.is_sqlite:
        return lone_connection(database, committing=False)
    connection = database.spares.connect(database.engine)
    if database.dialect == "postgresql" and database.commits_by_itself(connection.connection):
        # A cursor lives in a transaction.
        connection.execution_options(isolation_level="READ COMMITTED")
    return connection


def _cut_short(database: Database, connection: Connection, result: CursorResult[Any]) -> None:
    """End *result* before its end."""
    driver: Any = None if connection.invalidated else connection.connection.dbapi_connection
    if database.dialect in ("sqlite", "postgresql") or not hasattr(driver, "thread_id"):
        result.close()
        return
    # MariaDB's driver would read all the rest before it lets go, were the server not told to stop.
    with suppress(SQLAlchemyError), database.spares.connect(database.engine) as other:
        other.exec_driver_sql(f"KILL QUERY {driver.thread_id():d}")
    cursor: Any = result.cursor
    with suppress(database.engine.dialect.loaded_dbapi.Error):
        while cursor.fetchmany(1000):
            pass
    result.close()
    connection.invalidate()  # the order to stop may have come after the last row, and stop the next query


def _declared(transaction: Transaction, statement: Select[Any], size: int) -> Stream:
    """In a block on PostgreSQL: what nobody fetches goes with the block, and nothing is sent to close it."""
    block = transaction.blocks[-1]
    name = f"microorm_rows_{next(_numbers)}"
    kinds = [column(f"c{index}", each.type) for index, each in enumerate(statement.selected_columns)]
    fetch = text(f"FETCH FORWARD {size:d} FROM {name}").columns(*kinds)
    with transaction as channel:
        channel.execute(Declared(name, statement))
    full = True
    while full:
        _refuse_ended(transaction, block)
        with transaction as channel:
            rows = channel.execute(fetch).fetchall()
            if not (full := len(rows) == size):
                channel.execute(text(f"CLOSE {name}"))
        yield rows


def _at_once(transaction: Transaction, statement: Select[Any], size: int) -> Stream:
    """In a block on the others: the rows at once, instances of them chunk by chunk."""
    block = transaction.blocks[-1]
    with transaction as channel:
        rows = channel.execute(statement).fetchall()
    for part in _parts(rows, size):
        _refuse_ended(transaction, block)
        yield part


def _parts(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _refuse_ended(transaction: Transaction, block: Block) -> None:
    if block.closed:
        raise TransactionError(
            f"the block on {transaction.database.alias!r} has ended in which the rows were asked for"
        )
