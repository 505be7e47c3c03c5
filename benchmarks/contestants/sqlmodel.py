"""SQLModel: SQLAlchemy's ORM below models of pydantic; `exec` where it has a way of its own."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger
from sqlmodel import Field, Session, select
from sqlmodel import SQLModel as Model

from benchmarks.contestants.sqlalchemy_orm import SQLAlchemyORM


class Item(Model, table=True):
    __tablename__ = "item"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100)
    amount: int = Field(sa_type=BigInteger)
    score: float
    note: str | None = Field(default=None, max_length=200)
    level: int = Field(sa_type=BigInteger, index=True)


class SQLModel(SQLAlchemyORM):
    name = "sqlmodel"
    packages = ("sqlmodel", "sqlalchemy", "pydantic")
    item = Item
    sessions = Session

    def bulk(self, records: Sequence[Any]) -> None:
        # Its documentation makes objects and adds them to the session; SQLAlchemy's own bulk insert knows no models.
        self.session.add_all([Item(**record) for record in records])
        self.session.flush()

    def load(self) -> list[Any]:
        with self.reader as session:
            return list(session.exec(select(Item)))

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        with self.reader as session:
            return [list(session.exec(select(Item).where(Item.level == level))) for level in levels]

    by_expression = by_level
