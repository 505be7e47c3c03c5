"""What stands for a value that is gone is of the type of its column."""

import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from microorm import types
from microorm.migrations.operations import zero_of


@pytest.mark.parametrize(
    ("type_", "zero"),
    [
        (types.integer_type(), 0),
        (types.text_type(9), ""),
        (types.UtcDateTime(), datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)),
        (types.ExactNumeric(8, 2), Decimal(0)),
        (types.uuid_type(), UUID(int=0)),
        (types.json_type(), {}),
        (sa.types.NullType(), None),
    ],
)
def test_a_zero_is_of_the_columns_type(type_: Any, zero: Any) -> None:
    assert zero_of(type_) == zero
