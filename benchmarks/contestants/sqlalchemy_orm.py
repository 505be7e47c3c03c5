"""SQLAlchemy's ORM: one session for each job, flushed after each object so that each is written one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Double, String, create_engine, event, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.contestant import SENDS, Contestant
from benchmarks.receivers import counting
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

    def open(self, path: Path | None) -> None:
        self.engine = create_engine(f"sqlite:///{path}" if path else "sqlite://")
        self.session = Session(self.engine, expire_on_commit=False)

    def close(self) -> None:
        self.session.close()
        self.engine.dispose()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        with self.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            found = run_plainly(raw, sql, rows)
            raw.commit()
            return found

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # Python's sqlite3 would begin at the first write only.
        self.session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield
        self.session.commit()
        self.session.close()

    def insert(self, records: Sequence[Any]) -> list[int]:
        session, keys = self.session, []
        for record in records:
            item = Item(**record)
            session.add(item)
            session.flush()
            keys.append(item.id)
        return keys

    def insert_alone(self, records: Sequence[Any]) -> list[int]:
        keys = []
        with self.session as session:
            for record in records:
                item = Item(**record)
                session.add(item)
                session.commit()
                keys.append(item.id)
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        # What its documentation advises for many rows; no object is made. Unless NULLs are rendered, each
        # change between rows with and without a note starts a statement of its own.
        self.session.execute(insert(Item), records, execution_options={"render_nulls": True})

    def get(self, keys: Sequence[int]) -> list[Any]:
        with self.session as session:
            return [session.get_one(Item, key) for key in keys]

    def load(self) -> list[Any]:
        with self.session as session:
            return list(session.scalars(select(Item)))

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        with self.session as session:
            return [list(session.scalars(select(Item).filter_by(level=level))) for level in levels]

    def by_expression(self, levels: Sequence[int]) -> list[list[Any]]:
        with self.session as session:
            return [list(session.scalars(select(Item).where(Item.level == level))) for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        session = self.session
        for key in keys:
            item = session.get_one(Item, key)
            item.amount += 1
            session.flush()

    def delete(self, instances: Sequence[Any]) -> None:
        session = self.session
        for item in instances:
            session.delete(item)
            session.flush()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()
        event.listen(Item, "after_insert", receiver)

        def stop() -> int:
            event.remove(Item, "after_insert", receiver)
            return calls()

        return stop
