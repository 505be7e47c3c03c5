"""JSON values come back as they were, or are refused; equal values are one text."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microorm.fields.checks import (
    MAX_JSON_DEPTH,
    MAX_JSON_INT,
    InvalidFieldValue,
    json_check,
    json_problem,
    json_text,
)

DICT, LIST = json_check(dict), json_check(list)
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED = [
    (DICT, [], "must be dict, not list []"),
    (LIST, (1,), "must be list, not tuple (1,)"),
    (DICT, "{}", "must be dict, not str '{}'"),
    (DICT, type("Own", (dict,), {})(), "must be dict, not Own {}"),
    (LIST, [1, (2,)], "must be list that JSON can represent, not one with tuple (2,)"),
    (LIST, [math.nan], "must be list that JSON can represent, not one with nan"),
    (LIST, [[-math.inf]], "must be list that JSON can represent, not one with -inf"),
    (LIST, ["\0"], "must be list that JSON can represent, not one with a NUL character"),
    (LIST, ["\ud800"], "must be list that JSON can represent, not one with a lone surrogate"),
    (LIST, [b"x"], "must be list that JSON can represent, not one with bytes b'x'"),
    (LIST, [MAX_JSON_INT], "must be list that JSON can represent, not one with an int of too many digits"),
    (LIST, [-MAX_JSON_INT], "must be list that JSON can represent, not one with an int of too many digits"),
    (
        LIST,
        nested(MAX_JSON_DEPTH + 1),
        "must be list that JSON can represent, not one with more than 31 levels",
    ),
    (LIST, CIRCLE, "must be list that JSON can represent, not one with more than 31 levels"),
    (DICT, {1: 2}, "must be dict that JSON can represent, not one with the key int 1"),
    (DICT, {None: 2}, "must be dict that JSON can represent, not one with the key None"),
    (DICT, {"a": {"\0": 2}}, "must be dict that JSON can represent, not one with a NUL character"),
]


@pytest.mark.parametrize(
    ("check", "value", "message"), REFUSED, ids=[message[6:70] for _, _, message in REFUSED]
)
def test_what_json_or_a_database_would_change_is_refused(check, value, message) -> None:
    with pytest.raises(InvalidFieldValue) as refused:
        check.clean(value)
    assert str(refused.value) == message


def test_what_json_holds_is_taken_as_it_is() -> None:
    value = {
        "": [None, True, 1, 1.5, "é🎉", {"k": []}],
        "deep": nested(MAX_JSON_DEPTH - 1),
        "big": MAX_JSON_INT - 1,
    }
    assert DICT.clean(value) is value
    assert LIST.clean(nested(MAX_JSON_DEPTH)) == nested(MAX_JSON_DEPTH)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def shuffled(value: Any) -> Any:
    """The same with its keys the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in reversed(value.items())}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def positive(value: Any) -> Any:
    """The same with 0.0 for each -0.0."""
    if isinstance(value, dict):
        return {key: positive(item) for key, item in value.items()}
    if isinstance(value, list):
        return [positive(item) for item in value]
    return 0.0 if isinstance(value, float) and not value else value


@given(VALUES)
def test_the_text_is_json_and_the_same_whatever_the_order_of_keys(value) -> None:
    text = json_text(value)
    assert repr(json.loads(text)) == repr(positive(json.loads(json.dumps(value, sort_keys=True))))
    assert json_text(shuffled(value)) == text


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_a_large_float_is_spelled_out(numbers) -> None:
    """JSONB keeps digits, not exponents: an integer's digits would come back as an int."""
    assert "e+" not in json_text(numbers)
    assert repr(json.loads(json_text(numbers))) == repr(positive(numbers))


def test_a_text_that_looks_like_an_exponent_is_left_alone() -> None:
    assert (
        json_text({"e+": ["1e+5", 1e300, (1e16,)]})
        == f'{{"e+": ["1e+5", 1{"0" * 300}.0, [10000000000000000.0]]}}'
    )


def test_a_problem_is_found_wherever_it_is() -> None:
    assert json_problem({"a": [{"b": [1, {"c": {1, 2}}]}]}) == "set {1, 2}"
    assert json_problem({"a": [{"b": [1, {"c": None}]}]}) is None


def test_the_zero_below_zero_is_zero() -> None:
    """JSONB knows no -0.0: alike on every database, and what looks like it is left alone."""
    assert json_text({"-0.0": [-0.0, -0.05, 0.0, 0, "-0.0"]}) == '{"-0.0": [0.0, -0.05, 0.0, 0, "-0.0"]}'
