"""Streams: the rows of a statement chunk by chunk, so that a million of them take the memory of a few.

Outside a block, a stream has a connection of its own, and the program may write meanwhile. Inside a block, it uses that of the
block: PostgreSQL keeps the rows in a cursor on the server. SQLite and MariaDB return all rows at once: a cursor on SQLite would
show later writes of the block, and MariaDB could not run another statement meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from sqlalchemy import Connection, CursorResult, Select, column, text
from sqlalchemy.exc import SQLAlchemyError

from microorm.db.autocommit import autocommit_connection, close_committed
from microorm.db.blocks import AtomicBlock
from microorm.db.engines.engine import Database
from microorm.db.engines.pool import close_connection, close_cursor
from microorm.db.owners import process
from microorm.db.transaction import Transaction
from microorm.errors import TransactionError
from microorm.fields.types import MARIADB
from microorm.sql.batches import sliced
from microorm.sql.statements import Prefixed

Rows = Sequence[Any]
Stream = Generator[Rows, None, None]

NET_WRITE_TIMEOUT = 24 * 60 * 60
"""For how many seconds MariaDB waits for a slow reader before it closes the connection."""

_numbers = count(1)
_inherited: list[Any] = []


def chunks(database: Database, transaction: Transaction | None, statement: Select[Any], size: int) -> Stream:
    """Yield the rows of *statement* in lists of *size*; close the generator if it is not read to the end.

    Raises what the database raises, and `TransactionError` once the block in which it was started has ended.
    """
    if transaction is None:
        return _outside_block(database, statement, size)
    return (_by_cursor if database.dialect == "postgresql" else _at_once)(transaction, statement, size)


def _outside_block(database: Database, statement: Select[Any], size: int) -> Stream:
    """Stream outside a block, by a connection that nothing else uses until the stream is closed."""
    here = process()
    database, connection = _own_connection(database)
    result, done = None, False
    try:
        # Without WAL, an open reader would block writes of the loop, so all rows are read at once.
        if database.is_sqlite and connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            rows = database.stoppable(
                connection.connection, lambda: connection.execute(statement).fetchall(), reads=True
            )
            close_committed(connection, failed=False)
            yield from sliced(rows, size)
            return
        if database.dialect in MARIADB:
            connection.exec_driver_sql(f"SET SESSION net_write_timeout = {NET_WRITE_TIMEOUT}")
        result = _result(database, connection, statement, size)
        parts = result.partitions()
        while rows := database.stoppable(connection.connection, lambda: next(parts, ()), reads=True):
            yield rows
        done = True
        if database.dialect in MARIADB:
            connection.exec_driver_sql("SET SESSION net_write_timeout = DEFAULT")
        elif database.is_sqlite:  # PostgreSQL reads in a transaction
            close_committed(connection, failed=False)
    finally:
        if here is not process():
            # This is a forked process: the parent still uses the connection.
            _inherited.append((connection, result))
            with suppress(SQLAlchemyError):
                connection.detach()
        else:
            # A cancelled task would be cancelled at each further await, and the connection be lost.
            database.complete(partial(_close, database, connection, None if done else result))


def _result(
    database: Database, connection: Connection, statement: Select[Any], size: int
) -> CursorResult[Any]:
    """Return the rows of *statement*, which the driver holds back until they are read."""
    return database.stoppable(
        connection.connection,
        lambda: connection.execute(statement, execution_options={"yield_per": size}),
        reads=True,
        undo=lambda late: _abort(database, connection, late),
    )


def _close(database: Database, connection: Connection, unread: CursorResult[Any] | None) -> None:
    """Close *connection*, and before that a result of which rows are *unread*."""
    try:
        if unread is not None:
            _abort(database, connection, unread)
    except BaseException:
        connection.invalidate()
        raise
    finally:
        close_connection(connection)


def _own_connection(database: Database) -> tuple[Database, Connection]:
    """Return a connection for one stream, and the database that it leads to: *database*, or where to read instead."""
    while True:
        try:
            connection = (
                autocommit_connection(database, committing=False)
                if database.is_sqlite
                else database.connect()
            )
            break
        except Exception as error:
            instead = database.instead(error)
            if instead is None:
                raise
            database = instead
    if database.dialect == "postgresql" and database.commits_by_itself(connection.connection):
        # A cursor lives in a transaction.
        connection.execution_options(isolation_level="READ COMMITTED")
    return database, connection


def _abort(database: Database, connection: Connection, result: CursorResult[Any]) -> None:
    """Close *result* before all its rows are read."""
    driver: Any = None if connection.invalidated else connection.connection.driver_connection
    if database.dialect in ("sqlite", "postgresql") or not hasattr(driver, "thread_id"):
        if driver is not None:
            close_cursor(connection.connection, result.cursor)  # SQLAlchemy would ignore an error
        result.close()
        return
    # Otherwise MariaDB's driver would read all rows that are left before it closes.
    _kill(database, driver.thread_id())
    cursor: Any = result.cursor
    with suppress(database.engine.dialect.loaded_dbapi.Error):
        while cursor.fetchmany(1000):
            pass
    result.close()
    connection.invalidate()  # KILL may have come after the last row, and would stop the next query


def _kill(database: Database, thread_id: int) -> None:
    """Stop the query of another connection to MariaDB, as far as possible.

    The pool is not asked for a connection: the stream may have its last one, and would wait for itself.
    """
    engine = database.engine
    pool = engine.pool.recreate()
    try:
        with (
            suppress(SQLAlchemyError, engine.dialect.loaded_dbapi.Error),
            Connection(engine, pool.connect()) as connection,
        ):
            connection.exec_driver_sql(f"KILL QUERY {thread_id:d}")
    finally:
        pool.dispose()


def _by_cursor(transaction: Transaction, statement: Select[Any], size: int) -> Stream:
    """Stream in a block on PostgreSQL. A cursor that is not read to the end is closed by the end of the block."""
    block = transaction.blocks[-1]
    name = f"microorm_rows_{next(_numbers)}"
    columns = [column(f"c{index}", each.type) for index, each in enumerate(statement.selected_columns)]
    fetch = text(f"FETCH FORWARD {size:d} FROM {name}").columns(*columns)
    with transaction as channel:
        channel.execute(Prefixed(f"DECLARE {name} NO SCROLL CURSOR FOR", statement))
    full = True
    while full:
        _refuse_ended(transaction, block)
        with transaction as channel:
            rows = channel.fetch(fetch)
            if not (full := len(rows) == size):
                channel.execute(text(f"CLOSE {name}"))
        yield rows


def _at_once(transaction: Transaction, statement: Select[Any], size: int) -> Stream:
    """Read all rows at once, in a block on the other databases, and yield them chunk by chunk."""
    block = transaction.blocks[-1]
    with transaction as channel:
        rows = channel.fetch(statement)
    for part in sliced(rows, size):
        _refuse_ended(transaction, block)
        yield part


def _refuse_ended(transaction: Transaction, block: AtomicBlock) -> None:
    if block.closed:
        raise TransactionError(
            f"the block on {transaction.database.alias!r} in which iterate() was started has ended"
        )
