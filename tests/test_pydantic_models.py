"""Pydantic models of models: what they take can be saved, what they write is what `to_dict` returns, and FastAPI uses them."""

import asyncio
import enum
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, ValidationError
from sqlalchemy import String

from microorm import (
    Databases,
    Field,
    FieldError,
    ForeignKey,
    Model,
    Registry,
    field,
    foreign_key,
    version_field,
)
from microorm.pydantic_models import pydantic_model


class Shelf(enum.Enum):
    FRONT = "front"
    BACK = "back"


def not_negative(value: Decimal) -> None:
    if value < 0:
        raise ValueError("must not be negative")


@pytest.fixture
def registry(sqlite_url: str) -> Iterator[Registry]:
    with Databases({"default": sqlite_url}) as databases:
        yield Registry(databases)


@pytest.fixture
def Book(registry: Registry) -> Any:
    class Author(Model, registry=registry):
        name: Field[str] = field(max_length=20)

    class Book(Model, registry=registry):
        title: Field[str] = field(max_length=10)
        price: Field[Decimal] = field(
            default=Decimal(0), max_digits=5, decimal_places=2, validate=not_negative
        )
        published: Field[date | None] = field(default=None)
        seen: Field[datetime]
        opened: Field[time | None] = field(default=None)
        lent: Field[timedelta] = field(default=timedelta(seconds=1))
        cover: Field[bytes | None] = field(default=None, max_length=4)
        shelf: Field[Shelf] = field(default=Shelf.FRONT)
        binding: Field[Literal["hard", "soft"]] = field(default="soft")
        tags: Field[list[str]] = field(default_factory=list)
        extra: Field[dict[str, Any]] = field(default_factory=dict)
        code: Field[UUID | None] = field(default=None)
        weight: Field[float | None]
        author: ForeignKey[Author | None] = foreign_key(default=None)
        changed: Field[datetime] = field(on_update=lambda: datetime.now(UTC))
        edition: Field[int] = field(server_default="1")
        version: Field[int] = version_field()

    registry.create_all()
    Author(name="Ursula").save()
    return Book


SENT = {
    "title": "Lathe",
    "price": "1.50",
    "published": "1971-04-01",
    "seen": "2024-01-01T02:00:00+02:00",
    "opened": "12:30:00",
    "lent": 5_000_000,
    "cover": "YWI=",
    "shelf": "back",
    "binding": "hard",
    "tags": ["a"],
    "extra": {"b": [1, None]},
    "code": "12345678-1234-5678-1234-567812345678",
    "weight": 1,
    "author_id": 1,
}


def test_what_an_input_takes_can_be_saved_and_comes_out_as_to_dict_has_it(Book: Any) -> None:
    Input, Output = pydantic_model(Book, "input"), pydantic_model(Book, "output")
    given = Input.model_validate_json(json.dumps(SENT))
    assert given.model_dump() == {
        "title": "Lathe",
        "price": Decimal("1.50"),
        "published": date(1971, 4, 1),
        "seen": datetime(2024, 1, 1, tzinfo=UTC),
        "opened": time(12, 30),
        "lent": timedelta(seconds=5),
        "cover": b"ab",
        "shelf": Shelf.BACK,
        "binding": "hard",
        "tags": ["a"],
        "extra": {"b": [1, None]},
        "code": UUID("12345678-1234-5678-1234-567812345678"),
        "weight": 1.0,
        "author_id": 1,
    }
    book = Book(**given.model_dump()).save()
    loaded = Book.objects.get()
    shown = Output.model_validate(loaded)
    assert json.loads(shown.model_dump_json()) == shown.model_dump(mode="json") == loaded.to_dict()
    assert shown.model_dump() == {name: getattr(loaded, name) for name in Book.__schema__.names}
    sent = given.model_dump(mode="json")
    assert sent == {name: value for name, value in book.to_dict().items() if name in sent}
    again = Book.from_dict(sent, allow=Input.model_fields)
    assert again.to_dict() == {"id": None} | sent


def test_an_input_refuses_what_a_save_would(Book: Any) -> None:
    """In the words of the field, each problem with its place. No key, no version, and nothing unknown is taken."""
    wrong = {
        "title": "x\0",
        "price": "-1",
        "seen": "2024-01-01T00:00:00",
        "lent": "PT1S",
        "cover": "!",
        "weight": "inf",
        "binding": "none",
        "id": 3,
        "version": 3,
        "titel": "x",
    }
    with pytest.raises(ValidationError) as raised:
        pydantic_model(Book, "input").model_validate(wrong)
    found = {error["loc"][0]: error["msg"] for error in raised.value.errors()}
    assert found == {
        "title": "Value error, must be str of at most 10 characters, not str with a NUL character",
        "price": "Value error, must not be negative",
        "seen": "Value error, must be datetime with a time zone, not a naive one",
        "lent": "Value error, must be microseconds as int, not str 'PT1S'",
        "cover": "Value error, must be text in base64, not str '!'",
        "weight": "Value error, must be a finite float, not inf",
        "binding": "Input should be 'hard' or 'soft'",
        "id": "Extra inputs are not permitted",
        "version": "Extra inputs are not permitted",
        "titel": "Extra inputs are not permitted",
    }


def test_the_json_schema_has_types_lengths_defaults_and_what_is_required(Book: Any) -> None:
    Input, Output = pydantic_model(Book, "input"), pydantic_model(Book, "output")
    taken = Input.model_json_schema()
    assert taken["title"] == "BookInput"
    assert taken["required"] == ["title", "seen", "weight"]
    assert taken["additionalProperties"] is False
    properties = taken["properties"]
    assert list(properties) == list(SENT)
    assert properties["title"] == {"maxLength": 10, "title": "Title", "type": "string"}
    assert properties["lent"]["type"] == "integer"
    assert properties["lent"]["default"] == 1_000_000
    assert properties["seen"]["format"] == "date-time"
    assert properties["binding"]["enum"] == ["hard", "soft"]
    assert properties["published"]["anyOf"] == [{"format": "date", "type": "string"}, {"type": "null"}]
    assert properties["cover"]["anyOf"][0] == {"contentEncoding": "base64", "type": "string"}
    written = Output.model_json_schema(mode="serialization")
    assert written["title"] == "Book"
    assert written["required"] == list(written["properties"]) == list(Book.__schema__.names)
    assert written["properties"]["price"]["type"] == "string"


def test_fields_are_chosen_by_name_or_column(Book: Any) -> None:
    assert [*pydantic_model(Book, "input", include=["title", Book.id]).model_fields] == ["title", "id"]
    rest = pydantic_model(Book, "output", exclude=[Book.cover, "author"], name="Short")
    assert rest.__name__ == "Short"
    assert {"cover", "author_id"}.isdisjoint(rest.model_fields)
    with pytest.raises(FieldError, match="Book has no field 'titel'; nearest: 'title'"):
        pydantic_model(Book, "input", include=["titel"])
    with pytest.raises(TypeError, match=r"^exclude= must be a list of names or columns, not 'title'$"):
        pydantic_model(Book, "input", exclude="title")
    for wrong in (int, Book(title="a", seen=datetime.now(UTC), weight=None)):
        with pytest.raises(TypeError, match=r"^pydantic_model\(\) takes a model, not "):
            pydantic_model(wrong, "input")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^mode must be 'input' or 'output', not 'in'$"):
        pydantic_model(Book, "in")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_keys_of_ones_own_and_types_of_ones_own(registry: Registry) -> None:
    class Odd:
        pass

    class Thing(Model, registry=registry):
        code: Field[str] = field(primary_key=True, max_length=3)
        number: Field[int] = field(primary_key=True, default=1)
        odd: Field[Odd | None] = field(default=None, type_=String(3))
        model_year: Field[int] = field(default=2000)
        local: Field[datetime | None] = field(default=None, timezone=False)
        mark: Field[bytes] = field(default=b"\xff\xfe")  # no UTF-8, as which pydantic would write it

    Input = pydantic_model(Thing, "input")
    assert [*Input.model_fields] == ["code", "odd", "model_year", "local", "mark"]
    some = pydantic_model(Thing, "input", exclude=["odd"])
    assert some.model_json_schema()["properties"]["mark"]["default"] == "//4="
    naive = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    made = Input(code="abc", local=naive)
    assert Thing(**made.model_dump()).local == naive
    with pytest.raises(ValidationError, match="without a time zone"):
        Input(code="abc", local=datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))))


def test_names_that_pydantic_uses_itself_are_refused(registry: Registry) -> None:
    """It would drop `model_config` without a word, and a `model_dump` that is text cannot be called."""

    class Thing(Model, registry=registry):
        model_config: Field[str] = field(default="")
        model_dump: Field[str] = field(default="")

    for name in ("model_config", "model_dump"):
        with pytest.raises(FieldError, match=f"^Thing.{name} has a name that pydantic uses itself"):
            pydantic_model(Thing, "output", include=[name])
    rest = pydantic_model(Thing, "output", exclude=["model_config", "model_dump"])
    assert [*rest.model_fields] == ["id"]


def test_fastapi_reads_requests_and_writes_answers_by_them(Book: Any) -> None:
    app = FastAPI()
    Input: Any = pydantic_model(Book, "input", include=["title", "seen", "weight", "lent"])
    Output: Any = pydantic_model(Book, "output", exclude=["cover"])

    @app.post("/books", response_model=Output)
    def create(book: Input) -> Any:
        Book(**book.model_dump()).save()
        return Book.objects.get()

    async def asked() -> tuple[Any, Any, Any]:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            return (
                await client.post("/books", json=sent),
                await client.post("/books", json=sent | {"title": "x" * 11}),
                await client.get("/openapi.json"),
            )

    sent = {"title": "x", "seen": "2024-01-01T00:00Z", "weight": 2, "lent": 7}
    answer, refused, described = asyncio.run(asked())
    expected = Book.objects.get().to_dict()
    del expected["cover"]
    assert (answer.status_code, answer.json()) == (200, expected)
    assert refused.status_code == 422
    assert [error["loc"] for error in refused.json()["detail"]] == [["body", "title"]]
    shown = described.json()["components"]["schemas"]
    assert shown["BookInput"]["properties"]["lent"]["type"] == "integer"
    assert "cover" not in shown["Book"]["properties"]
    assert issubclass(Output, BaseModel)


@pytest.mark.slow
def test_pydantic_is_loaded_by_those_who_use_it() -> None:
    program = "import sys, microorm, microorm.fixtures, microorm.outbox; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
