"""Schemas: what a client sends, and what it gets.

`from_attributes` lets pydantic read the attributes of a model's instance. So an endpoint returns instances, and FastAPI
makes the answer of them.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=100)]


class NewBook(BaseModel):
    """What a client sends for a new book."""

    title: Text
    author: Text
    copies: Annotated[int, Field(ge=0, le=10_000)] = 1


class Delivery(BaseModel):
    """What a client sends when copies of a book arrive or leave."""

    copies: Annotated[int, Field(ge=-10_000, le=10_000)]


class AuthorOut(BaseModel):
    """An author in an answer."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class BookOut(BaseModel):
    """A book in an answer, with its author, who has to be loaded."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    copies: int
    author: AuthorOut
