"""SQLAlchemy's ORM: one session for each job, flushed after each object so that each is written one by one.

What is to be committed by itself is committed through that session, each in a transaction as its documentation
shows; what is only read, outside a transaction, goes through an engine in autocommit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, BigInteger, Double, String, create_engine, event, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.contestant import SENDS, Contestant, counting
from benchmarks.table import Row, run_plainly

NO_SENDER = "its events live in its models only"


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    amount: Mapped[int] = mapped_column(BigInteger)
    score: Mapped[float] = mapped_column(Double)
    note: Mapped[str | None] = mapped_column(String(200))
    level: Mapped[int] = mapped_column(BigInteger, index=True)


class SQLAlchemyORM(Contestant):
    name = "sqlalchemy_orm"
    packages = ("sqlalchemy",)
    lacks = dict.fromkeys(SENDS, NO_SENDER)
    item: Any = Item
    sessions: Any = Session

    def open(self, url: URL) -> None:
        self.engine = create_engine(url)
        self.session = self.sessions(self.engine, expire_on_commit=False)
        # Python's sqlite3 begins no transaction for a read. Other drivers do, unless the engine is made for reading.
        self.on_sqlite = url.get_backend_name() == "sqlite"
        self.reading = self.engine if self.on_sqlite else create_engine(url, isolation_level="AUTOCOMMIT")
        self.reader = self.outside = self.sessions(self.reading, expire_on_commit=False)

    def close(self) -> None:
        for session in (self.session, self.outside):
            session.close()
        for engine in (self.engine, self.reading):
            engine.dispose()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        with self.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            found = run_plainly(raw, sql, rows)
            raw.commit()
            return found

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.on_sqlite:  # it would begin at the first write only
            self.session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        self.reader = self.session
        try:
            yield
        finally:
            self.reader = self.outside
        self.session.commit()
        self.session.close()

    def insert(self, records: Sequence[Any]) -> list[int]:
        session, keys = self.session, []
        for record in records:
            item = self.item(**record)
            session.add(item)
            session.flush()
            keys.append(item.id)
        return keys

    def insert_alone(self, records: Sequence[Any]) -> list[int]:
        keys = []
        with self.session as session:
            for record in records:
                item = self.item(**record)
                session.add(item)
                session.commit()
                keys.append(item.id)
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        # What its documentation advises for many rows; no object is made. Unless NULLs are rendered, each
        # change between rows with and without a note starts a statement of its own.
        self.session.execute(insert(self.item), records, execution_options={"render_nulls": True})

    def get(self, keys: Sequence[int]) -> list[Any]:
        with self.reader as session:
            return [session.get_one(self.item, key) for key in keys]

    def load(self) -> list[Any]:
        with self.reader as session:
            return list(session.scalars(select(self.item)))

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        with self.reader as session:
            return [list(session.scalars(select(self.item).filter_by(level=level))) for level in levels]

    def by_expression(self, levels: Sequence[int]) -> list[list[Any]]:
        with self.reader as session:
            return [
                list(session.scalars(select(self.item).where(self.item.level == level))) for level in levels
            ]

    def change(self, keys: Sequence[int]) -> None:
        session = self.session
        for key in keys:
            item = session.get_one(self.item, key)
            item.amount += 1
            session.flush()

    def change_alone(self, keys: Sequence[int]) -> None:
        with self.session as session:
            for key in keys:
                item = session.get_one(self.item, key)
                item.amount += 1
                session.commit()

    def delete(self, instances: Sequence[Any]) -> None:
        session = self.session
        for item in instances:
            session.delete(item)
            session.flush()

    def delete_alone(self, instances: Sequence[Any]) -> None:
        with self.session as session:
            for item in instances:
                session.delete(item)
                session.commit()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()
        event.listen(self.item, "after_insert", receiver)

        def stop() -> int:
            event.remove(self.item, "after_insert", receiver)
            return calls()

        return stop

    def listen_on_commit(self) -> Callable[[], int]:
        receiver, calls = counting()
        saved: list[Any] = []

        def note(mapper: Any, connection: Any, instance: Any) -> None:
            saved.append(instance)

        def tell(session: Any) -> None:
            for instance in saved:
                receiver(instance=instance, created=True)
            saved.clear()

        event.listen(self.item, "after_insert", note)
        event.listen(self.session, "after_commit", tell)

        def stop() -> int:
            event.remove(self.item, "after_insert", note)
            event.remove(self.session, "after_commit", tell)
            return calls()

        return stop
