"""Shapes: equal for expressions that are one SQL with other values, and only for these."""

from typing import Any

import pytest
from sqlalchemy import and_, bindparam, false, func, literal, not_, or_, true

from microorm import Field, Model, Registry, field
from microorm.sql.cache_key import Shaped, both, shape_of, shaped


class Shop(Model, registry=Registry()):
    name: Field[str | None] = field(max_length=9)
    size: Field[int]
    open: Field[bool]


SCHEMA = Shop.__schema__
SHAPED = [
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
UNSHAPED = [
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


@pytest.mark.parametrize("make", SHAPED)
def test_another_value_is_the_same_shape_and_the_same_sql(make: Any) -> None:
    first, second = make(1, "a"), make(2, "b")
    one, other = shape_of(SCHEMA, first), shape_of(SCHEMA, second)
    assert one is not None
    assert other is not None
    assert one.key == other.key
    assert text_of(first) == text_of(second)
    compiled = second.compile()
    assert [bind.value for bind in other.binds] == [
        compiled.params[compiled.bind_names[bind]] for bind in other.binds
    ]
    assert len(other.binds) == len(compiled.params)


def test_another_sql_is_another_shape() -> None:
    keys = [shape.key for make in SHAPED if (shape := shape_of(SCHEMA, make(1, "a"))) is not None]
    assert len(keys) == len(set(keys)) == len(SHAPED)
    assert shape_of(SCHEMA, Shop.open == true()) != shape_of(SCHEMA, Shop.open == false())


@pytest.mark.parametrize("given", UNSHAPED)
def test_what_is_out_of_the_ordinary_has_no_shape(given: Any) -> None:
    if given is UNSHAPED[3]:  # a parameter of a type of its own
        assert given.left.type is not Shop.name.type
    assert shape_of(SCHEMA, given) is None


def test_expressions_are_shaped_together_or_not_at_all() -> None:
    small, odd = Shop.size < 3, Shop.size + 1 == 2
    known = shaped(SCHEMA, (small,))
    assert isinstance(known, Shaped)
    assert tuple(known) == (small,)
    assert not isinstance(shaped(SCHEMA, (small, odd)), Shaped)
    twice = both(known, known)
    assert isinstance(twice, Shaped)
    assert len(twice) == len(twice.shapes) == 2
    assert not isinstance(both(known, (odd,)), Shaped)
    assert not isinstance(both((odd,), known), Shaped)
    assert both((), known) is known
