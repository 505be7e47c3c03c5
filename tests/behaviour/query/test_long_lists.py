"""IN with more values than a statement has parameters, and expressions that are nested too deep."""

import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import and_, not_, or_, select, tuple_

from microorm import Field, FieldError, field
from microorm.mapping.path import MAX_NESTING
from microorm.sql.batches import MAX_PARAMETERS
from microorm.sql.long_lists import MAX_LISTED
from tests.behaviour.wire import ONE_WAY, Wire, parameters

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
Size = enum.Enum("Size", {f"S{number}": number for number in range(MAX_LISTED + 5)})
LISTS: dict[str, list[Any]] = {
    "number": [n - 3 for n in range(MAX_LISTED + 5)],
    "text": [f"n'\\é\"{n}" for n in range(MAX_LISTED + 5)],
    "blob": [b"\0%d" % n for n in range(MAX_LISTED + 5)],
    "ratio": [n / 7 for n in range(MAX_LISTED + 5)],
    "cost": [Decimal(n) / 100 for n in range(MAX_LISTED + 5)],
    "day": [date(2000, 1, 1) + timedelta(n) for n in range(MAX_LISTED + 5)],
    "at": [NOON + timedelta(microseconds=n) for n in range(MAX_LISTED + 5)],
    "took": [timedelta(microseconds=n) for n in range(MAX_LISTED + 5)],
    "code": [UUID(int=n) for n in range(MAX_LISTED + 5)],
    "size": list(Size),
}


@pytest.fixture
def Thing(Base: Any, registry: Any) -> Any:
    class Thing(Base):
        number: Field[int]
        text: Field[str] = field(max_length=20)
        blob: Field[bytes] = field(max_length=20)
        ratio: Field[float]
        cost: Field[Decimal] = field(max_digits=9, decimal_places=2)
        day: Field[date]
        at: Field[datetime]
        took: Field[timedelta]
        code: Field[UUID]
        size: Field[Size]

    registry.create_all("default")
    values = {name: [listed[0], listed[-1], listed[7]] for name, listed in LISTS.items()}
    Thing.objects.bulk_create([Thing(**{name: values[name][n] for name in values}) for n in range(3)])
    return Thing


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@ONE_WAY
def test_values_of_each_type_are_found_in_a_long_list(Thing, subtests):
    found = Thing.objects.order_by("id")
    for name, listed in LISTS.items():
        column = getattr(Thing, name)
        with subtests.test(name=name):
            assert found.filter(column.in_(listed[1:])).scalars("id") == [2, 3]
            assert found.filter(column.not_in(listed[1:])).scalars("id") == [1]
            assert found.exclude(column.in_(listed[1:])).scalars("id") == [1]
            assert found.filter(or_(column.in_(listed[1:]), Thing.id == 1)).count() == 3


@ONE_WAY
@pytest.mark.backends("sqlite-memory", "postgresql")
def test_there_may_be_more_values_than_parameters(Thing, databases, wire: Wire):
    condition = Thing.number.in_(range(MAX_PARAMETERS[databases.database("default").dialect] + 1))
    assert Thing.objects.filter(condition).count() == 2
    many = range(MAX_LISTED + 1)
    condition = Thing.number.in_(many)
    with wire.record() as sent:
        assert Thing.objects.filter(condition, ~condition).count() == 0
        assert sorted(Thing.objects.scalars(condition)) == [False, False, True]
        assert Thing.objects.filter(Thing.number.in_({*many})).count() == 1
        assert Thing.objects.filter(condition).update(ratio=0.5) == 1
        assert Thing.objects.filter(condition).delete()[0] == 1
    assert all(0 < parameters(text) < 5 for text in sent)


@ONE_WAY
@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_there_may_be_many_rows_of_values(Thing):
    pairs = [(number, f"n'\\é\"{number + 3}") for number in LISTS["number"]]
    both = tuple_(Thing.number, Thing.text)
    assert Thing.objects.filter(both.in_(pairs)).count() == 3
    assert Thing.objects.filter(both.in_(pairs[1:])).scalars("id") == [2, 3]
    assert Thing.objects.filter(both.not_in(pairs[1:])).scalars("id") == [1]


def nested(Thing: Any, levels: int) -> Any:
    condition = Thing.number == 0
    for level in range(levels // 3):
        condition = and_(or_(condition, Thing.number == level), Thing.number != -1)
    return condition


@ONE_WAY
@pytest.mark.backends("sqlite-memory")
def test_an_expression_that_is_nested_too_deep_is_refused(Thing, wire: Wire):
    """Instead of a RecursionError somewhere in SQLAlchemy; a long list of conditions is not deep."""
    assert Thing.objects.filter(nested(Thing, MAX_NESTING - 4)).count() == 1
    sums = Thing.number
    for _ in range(10_000):
        sums = sums - 1
    with wire.record() as sent:
        for deep in (
            nested(Thing, MAX_NESTING * 2),
            nested(Thing, 10_000),
            not_(nested(Thing, 500)),
            sums > 1,
        ):
            for method in (Thing.objects.filter, Thing.objects.exclude, Thing.objects.get):
                with pytest.raises(FieldError, match=r"nested more than .* write and_\(\*conditions\)"):
                    method(deep)
        with pytest.raises(FieldError, match="nested more than"):
            Thing.objects.order_by(sums)
        with pytest.raises(FieldError, match="nested more than"):
            Thing.objects.update(number=sums)
        within = Thing.number == 0
        for _ in range(MAX_NESTING):
            within = Thing.id.in_(select(Thing.id).where(within))
        with pytest.raises(FieldError, match="nested more than"):
            Thing.objects.filter(within)
    assert not sent
    assert Thing.objects.filter(or_(*[Thing.number == n for n in range(500)])).count() == 1
