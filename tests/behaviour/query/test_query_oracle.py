"""Queries against an oracle in Python: whatever the condition and the rows, SQL and the oracle agree."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microorm import Field, field
from tests.behaviour.oracle import COMPARISONS, Condition, junction, negation
from tests.thorough import examples

NUMBERS = st.none() | st.integers(-2, 2)
NAMES = st.none() | st.sampled_from(["", "a", "A", "a ", "b", "é", "e", "中"])
FLAGS = st.none() | st.booleans()
PRICES = st.none() | st.sampled_from([Decimal("-1.5"), Decimal(0), Decimal("1.5"), Decimal("99.99")])
ROWS = st.fixed_dictionaries(
    {"number": NUMBERS, "other": NUMBERS, "name": NAMES, "flag": FLAGS, "price": PRICES}
)
VALUES = {"number": st.integers(-2, 2), "price": PRICES.filter(lambda price: price is not None)}


def comparison(column: str, sign: str, value: Any) -> Condition:
    compare = COMPARISONS[sign]
    return Condition(
        f"{column} {sign} {value!r}",
        lambda model: compare(getattr(model, column), value),
        lambda row: None if row[column] is None else compare(row[column], value),
    )


def columns_compared(sign: str) -> Condition:
    compare = COMPARISONS[sign]
    return Condition(
        f"number {sign} other",
        lambda model: compare(model.number, model.other),
        lambda row: None if None in (row["number"], row["other"]) else compare(row["number"], row["other"]),
    )


def membership(names: list[str]) -> Condition:
    return Condition(
        f"name in {names}",
        lambda model: model.name.in_(names),
        lambda row: False if not names else None if row["name"] is None else row["name"] in names,
    )


def nullness(column: str, is_null: bool) -> Condition:
    return Condition(
        f"{column} is {'' if is_null else 'not '}null",
        lambda model: getattr(model, column).is_(None) if is_null else getattr(model, column).is_not(None),
        lambda row: (row[column] is None) is is_null,
    )


LEAVES = st.one_of(
    st.builds(comparison, st.just("number"), st.sampled_from(list(COMPARISONS)), VALUES["number"]),
    st.builds(comparison, st.just("price"), st.sampled_from(list(COMPARISONS)), VALUES["price"]),
    st.builds(
        comparison,
        st.just("name"),
        st.sampled_from(["==", "!="]),
        NAMES.filter(lambda name: name is not None),
    ),
    st.builds(comparison, st.just("flag"), st.just("=="), st.booleans()),
    st.builds(columns_compared, st.sampled_from(list(COMPARISONS))),
    st.builds(membership, st.lists(NAMES.filter(lambda name: name is not None), max_size=3)),
    st.builds(nullness, st.sampled_from(["number", "name", "flag", "price"]), st.booleans()),
    st.just(Condition("flag", lambda model: model.flag, lambda row: row["flag"])),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(negation, inner)
        | st.builds(junction, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=6,
)
EQUALITIES = st.fixed_dictionaries(
    {}, optional={"number": NUMBERS, "name": NAMES, "flag": FLAGS, "price": PRICES}
)


@pytest.fixture
def Row(Base, registry):
    class Row(Base):
        number: Field[int | None] = field(default=None)
        other: Field[int | None] = field(default=None)
        name: Field[str | None] = field(default=None, max_length=9)
        flag: Field[bool | None] = field(default=None)
        price: Field[Decimal | None] = field(default=None, max_digits=6, decimal_places=2)

    registry.create_all("default")
    return Row


@settings(
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(ROWS, max_size=12), wanted=st.lists(CONDITIONS, max_size=3), equal=EQUALITIES)
def test_filter_and_exclude_agree_with_the_oracle_and_are_complements(Row, rows, wanted, equal):
    """NULLs included; count, exists and first agree, too."""
    Row.objects.delete()
    instances = Row.objects.bulk_create([Row(**row) for row in rows])

    def matches(row: dict[str, Any]) -> bool:
        return all(each.truth(row) is True for each in wanted) and all(
            row[name] is None if value is None else row[name] == value for name, value in equal.items()
        )

    inside = [each for each, row in zip(instances, rows, strict=True) if matches(row)]
    outside = [each for each in instances if each not in inside]
    expressions = [each.sql(Row) for each in wanted]
    chosen = Row.objects.filter(*expressions, **equal).order_by("id")
    assert chosen.all() == inside
    assert (chosen.count(), chosen.exists(), chosen.first()) == (
        len(inside),
        bool(inside),
        inside[0] if inside else None,
    )
    if wanted or equal:
        left = Row.objects.exclude(*expressions, **equal).order_by("id")
        assert left.all() == outside
        assert left.filter(*expressions, **equal).all() == []
        assert chosen.exclude(*expressions, **equal).count() == 0
    assert Row.objects.exclude(Row.id < 0).filter(*expressions).filter(**equal).count() == len(inside)


PARTS = st.builds(slice, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))


@settings(
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(parts=st.lists(PARTS, max_size=4), index=st.integers(0, 9))
def test_slices_of_slices_agree_with_lists(Row, parts, index):
    """Rows, count, exists, first and single rows."""
    if not Row.objects.exists():
        Row.objects.bulk_create([Row(number=number) for number in range(7)])
    query, expected = Row.objects.order_by(Row.id.desc()), list(range(6, -1, -1))
    for part in parts:
        query, expected = query[part], expected[part]
    assert [row.number for row in query] == expected
    assert (query.count(), query.exists()) == (len(expected), bool(expected))
    first = query.first()
    assert (None if first is None else first.number) == (expected[0] if expected else None)
    if index < len(expected):
        assert query[index].number == expected[index]
    else:
        with pytest.raises(IndexError):
            query[index]
