"""Zeros: what stands in a column for a value that is gone."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from microorm.fields.types import Duration, ExactNumeric, UtcDateTime


def zero_of(type_: sa.types.TypeEngine[Any]) -> Any:
    """What stands for no value in a column that wants one; None where nothing can."""
    for kind, zero in _ZEROS.items():
        if isinstance(type_, kind):
            return zero
    return None


# The kinds that derive from others come before these.
_ZEROS: dict[type[sa.types.TypeEngine[Any]], Any] = {
    UtcDateTime: datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    ExactNumeric: Decimal(0),
    Duration: datetime.timedelta(),
    sa.Boolean: False,
    sa.Integer: 0,
    sa.Float: 0.0,
    sa.Numeric: Decimal(0),
    sa.String: "",
    sa.LargeBinary: b"",
    sa.DateTime: datetime.datetime(1970, 1, 1),  # noqa: DTZ001 of a column without a zone
    sa.Date: datetime.date(1970, 1, 1),
    sa.Time: datetime.time(),
    sa.Uuid: UUID(int=0),
    sa.JSON: {},
}
