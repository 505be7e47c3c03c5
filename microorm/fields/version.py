"""The version of a row, by which a save notices that another has changed it since it was read."""

from __future__ import annotations

from typing import Any, Literal

from microorm.fields.field import Field


def version_field(
    *, start: int = 1, init: Literal[False] = False, column: str | None = None, comment: str | None = None
) -> Any:
    """Declare the version of each row of a model, an int: it counts the updates, and a stale instance is not saved.

    *start*: the version of a new row, and of the rows that are there when a migration adds the column. *column*, *comment*:
    as of `field()`. *init* is for type checkers: the constructor has no argument for it.

    Raises `TypeError` for a *start* that is no int. A second version, and one of another type, are a `ModelError`.
    """
    if type(start) is not int or init is not False:
        raise TypeError("version_field(start=…) takes an int, and no init=True")
    return Field(version=start, server_default=str(start), column=column, comment=comment)
