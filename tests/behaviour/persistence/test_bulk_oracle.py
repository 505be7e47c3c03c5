"""Random bulk writes, compared with a simple implementation in Python."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from microorm import Field, field
from tests.thorough import examples

names = st.sampled_from([None, "a", "b", "c", "é", "É", "a "])
numbers = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
rows = st.lists(st.tuples(names, numbers, numbers), max_size=5)
writes = st.lists(
    st.tuples(
        st.sampled_from(["create", "ignore", "update", "update one", "bulk_update"]),
        rows,
        st.sampled_from([None, 1, 2]),
    ),
    max_size=5,
)


@pytest.fixture
def Row(Base, registry):
    """A model with a generated key, a nullable unique field, and two numbers."""

    class Row(Base):
        name: Field[str | None] = field(default=None, max_length=3, unique=True)
        first: Field[int | None] = field(default=None)
        second: Field[int | None] = field(default=None)

    registry.create_all("default")
    return Row


def expected(kept: list[list[Any]], kind: str, given: list[tuple[Any, ...]]) -> list[list[Any]] | None:
    """Return the rows after a write of *kind*, or None for an error, which changes nothing."""
    after = [list(row) for row in kept]
    taken = {row[0]: row for row in after if row[0] is not None}
    told = [row[0] for row in given if row[0] is not None]
    if kind.startswith("update") and len(set(told)) < len(told):
        return None
    for row in given:
        if (met := taken.get(row[0])) is None:
            after.append(list(row))
            if row[0] is not None:
                taken[row[0]] = after[-1]
        elif kind == "create":
            return None
        elif kind == "update":
            met[1:] = row[1:]
        elif kind == "update one":
            met[2] = row[2]
    return after


def state(instance: Any) -> Any:
    """Return everything that an error must not change."""
    return dict(vars(instance)), instance.changes(), instance._state.adding


def sorting(row: Any) -> list[tuple[bool, Any]]:
    """A sort key for rows that hold None."""
    return [(value is not None, value) for value in row]


@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes)
def test_many_rows_are_written_as_plain_python_would(Row, stored, writes):
    """Rows, keys and loaded state are equal; an error changes nothing."""
    Row.objects.delete()
    kept: list[list[Any]] = []
    known: list[Any] = []
    for kind, given_rows, size in writes:
        if kind == "bulk_update":
            for row, values in zip(known, given_rows, strict=False):
                row.first, row.second = values[1:]
            count = Row.objects.bulk_update(known, ["first"], batch_size=size)
            assert count == len(known)
            by_key = {row.id: row for row in known}
            for place, key in enumerate(stored(Row, "id")):
                if key in by_key:
                    kept[place][1] = by_key[key].first
            known = []
            continue
        objects = [Row(name=name, first=first, second=second) for name, first, second in given_rows]
        before = [state(each) for each in objects]
        after = expected(kept, kind, given_rows)
        options: dict[str, Any] = {"batch_size": size}
        if kind != "create":
            options["on_conflict"] = kind.split()[0]
        if kind == "update one":
            options["update_fields"] = ["second"]
        if after is None:
            with pytest.raises((IntegrityError, ValueError)):
                Row.objects.bulk_create(objects, **options)
            assert [state(each) for each in objects] == before
        else:
            kept = after
            Row.objects.bulk_create(objects, **options)
            if kind == "ignore":
                assert [state(each) for each in objects] == before
            else:
                loaded = Row.objects.order_by("id").all()
                by_key = {each.id: each for each in loaded}
                assert [state(each) for each in objects] == [state(by_key[each.id]) for each in objects]
                known = objects
        found = stored(Row, "name", "first", "second")
        assert sorted(found, key=sorting) == sorted(map(tuple, kept), key=sorting)
        kept = [list(row) for row in found]
