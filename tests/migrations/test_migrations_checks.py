"""CHECKs and defaults are compared by what they say, in whatever words a database keeps them."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from sqlalchemy import CheckConstraint, func, text

from microorm import Databases, Field, Model, field
from microorm.migrations import Migrations
from microorm.migrations.compare import stored_checks

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
Anew = Callable[[], type[Model]]

HARD = (
    "pages BETWEEN 1 AND 9",
    "title LIKE 'a%' OR title = 'b :c'",
    "coalesce(pages, 0) + 1 > 0",
    "NOT (title IN ('x', 'y''z'))",
)


@pytest.mark.parametrize("check", HARD)
def test_a_check_that_is_kept_in_other_words_is_the_same(anew: Anew, migrations: Any, check: str) -> None:
    base: Any = anew()

    class Book(base, table_args=(CheckConstraint(text(check.replace(":", r"\:")), name="hard"),)):
        title: Field[str] = field(max_length=40)
        pages: Field[int | None] = field(default=None)

    history: Migrations = migrations(base)
    history.make("first")
    history.migrate()
    assert history.check() == []
    history.migrate("base")
    history.migrate()
    assert history.check() == []


def test_json_that_mariadb_checks_by_itself_is_nobodys_check(
    anew: Anew, migrations: Any, databases: Databases
) -> None:
    base: Any = anew()

    class Book(base):
        order: Field[Literal["a", "b"]] = field(default="a")
        tags: Field[list[str]] = field(default_factory=list)

    history: Migrations = migrations(base)
    history.make("first")
    history.migrate()
    with databases.connection() as connection:
        assert set(stored_checks(connection, "book")) == {"ck_book_order"}
    assert history.check() == []
    Book().save()


DEFAULTS: dict[str, Any] = {
    "text": (Field[str], field(server_default="plain")),
    "number": (Field[int], field(server_default="5")),
    "half": (Field[float], field(server_default=text("0.5"))),
    "digits": (Field[Decimal], field(server_default=text("1.50"), max_digits=8, decimal_places=2)),
    "flag": (Field[bool], field(server_default=text("true"))),
    "moment": (Field[datetime], field(server_default=func.now())),
    "naive": (Field[datetime], field(server_default=func.now(), timezone=False)),
    "small": (Field[str], field(server_default=func.lower("ABC"), max_length=9)),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_that_is_kept_in_other_words_is_the_same(anew: Anew, migrations: Any, name: str) -> None:
    base: Any = anew()
    annotation, declared = DEFAULTS[name]
    made = type(base)(
        "Book", (base,), {"__annotations__": {"value": annotation}, "value": declared, "__module__": __name__}
    )
    history: Migrations = migrations(base)
    history.make("first")
    history.migrate()
    assert history.check() == []
    stored = made().save()
    if name == "moment":
        assert abs((datetime.now(UTC) - stored.value).total_seconds()) < 3600
    assert made.objects.get().value == stored.value
