"""Cache keys: equal for expressions that differ only in their values, and different for any other SQL."""

from typing import Any

import pytest
from sqlalchemy import and_, bindparam, false, func, literal, not_, or_, true

from microorm import Field, Model, Registry, field
from microorm.sql.cache_key import CacheableExpressions, cacheable, concatenated


class Shop(Model, registry=Registry()):
    name: Field[str | None] = field(max_length=9)
    size: Field[int]
    open: Field[bool]


SCHEMA = Shop.__schema__
CACHEABLE = [
    lambda value, text: Shop.size == value,
    lambda value, text: Shop.size != value,
    lambda value, text: value < Shop.size,
    lambda value, text: Shop.name.like(text),
    lambda value, text: Shop.name.like(text, escape="/"),
    lambda value, text: Shop.name.startswith(text),
    lambda value, text: Shop.name.is_(None),
    lambda value, text: Shop.open,
    lambda value, text: Shop.open == true(),
    lambda value, text: and_(Shop.size > value, Shop.name == text),
    lambda value, text: or_(Shop.size > value, and_(Shop.name == text, Shop.size == value)),
    lambda value, text: not_(or_(Shop.size > value, Shop.name == text)),
    lambda value, text: (Shop.size > value).is_not(true()),
    lambda value, text: Shop.size.desc(),
    lambda value, text: Shop.name.asc().nulls_last(),
]
UNCACHEABLE = [
    Shop.size + 1 == 2,
    Shop.size.in_([1, 2]),
    func.lower(Shop.name) == "a",
    literal("x") == Shop.name,
    Shop.size == bindparam("named", 1),
    Shop.size == bindparam(None, callable_=lambda: 1, unique=True),
    "size = 1",
    None,
    SCHEMA.table.alias().c.size == 1,
]


def text_of(expression: Any) -> str:
    return str(expression.compile())


def key_of(expression: Any) -> Any:
    found = cacheable(SCHEMA, (expression,))
    return found.key if isinstance(found, CacheableExpressions) else None


@pytest.mark.parametrize("make", CACHEABLE)
def test_other_values_have_the_same_key_and_the_same_sql(make: Any) -> None:
    first, second = make(1, "a"), make(2, "b")
    one, other = cacheable(SCHEMA, (first,)), cacheable(SCHEMA, (second,))
    assert isinstance(one, CacheableExpressions)
    assert isinstance(other, CacheableExpressions)
    assert one.key == other.key
    assert text_of(first) == text_of(second)
    compiled = second.compile()
    assert [each.value for each in other.parameters] == [
        compiled.params[compiled.bind_names[each]] for each in other.parameters
    ]
    assert len(other.parameters) == len(compiled.params)


def test_other_sql_has_another_key() -> None:
    keys = [key_of(make(1, "a")) for make in CACHEABLE]
    assert None not in keys
    assert len(keys) == len(set(keys))
    assert key_of(Shop.open == true()) != key_of(Shop.open == false())


@pytest.mark.parametrize("given", UNCACHEABLE)
def test_anything_out_of_the_ordinary_has_no_key(given: Any) -> None:
    if given is UNCACHEABLE[3]:  # a parameter of a type of its own
        assert given.left.type is not Shop.name.type
    assert key_of(given) is None


def test_expressions_have_a_key_together_or_not_at_all() -> None:
    small, odd = Shop.size < 3, Shop.size + 1 == 2
    known = cacheable(SCHEMA, (small,))
    assert isinstance(known, CacheableExpressions)
    assert tuple(known) == (small,)
    assert not isinstance(cacheable(SCHEMA, (small, odd)), CacheableExpressions)
    twice = concatenated(known, known)
    assert isinstance(twice, CacheableExpressions)
    assert (len(twice), len(twice.parameters), twice.key) == (2, 2, known.key * 2)
    assert not isinstance(concatenated(known, (odd,)), CacheableExpressions)
    assert not isinstance(concatenated((odd,), known), CacheableExpressions)
    assert concatenated((), known) is known
