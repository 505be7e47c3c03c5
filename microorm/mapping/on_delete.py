"""The values of `foreign_key(on_delete=...)`: what happens to the rows that refer to a deleted row.

To add one, add its name to `OnDelete` and a row to `ACTIONS`, and a case to tests/behaviour/persistence/test_collecting.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

OnDelete = Literal["cascade", "restrict", "set_null", "set_default", "do_nothing"]


class Action(NamedTuple):
    """What a delete does with the rows that refer to a deleted row.

    *effect*: delete them as well, refuse the delete because of them, update their foreign key to *value(foreign_key)*,
    or ignore them, which leaves them to the database. *requires*: the option that the declaration needs, and whether it
    has it, given the foreign key and whether it is nullable.
    """

    effect: Literal["delete", "refuse", "update", "ignore"]
    value: Callable[[Any], Any] = lambda foreign_key: None
    requires: tuple[str, Callable[[Any, bool], bool]] = ("", lambda foreign_key, nullable: True)

    def keeps_reference(self, foreign_key: Any) -> bool:
        """Whether the rows may still refer to the deleted row when it is deleted."""
        return self.effect != "update" or self.value(foreign_key) is not None


ACTIONS: Final[dict[str, Action]] = {
    "cascade": Action("delete"),
    "restrict": Action("refuse"),
    "set_null": Action("update", requires=("ForeignKey[... | None]", lambda foreign_key, nullable: nullable)),
    "set_default": Action(
        "update",
        value=lambda foreign_key: foreign_key.field.default,
        requires=("default=", lambda foreign_key, nullable: "default" in foreign_key.options),
    ),
    "do_nothing": Action("ignore"),
}
