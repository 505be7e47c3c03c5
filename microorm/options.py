"""Options: what a table asks of each dialect, told when a dialect is there to be asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class LateOptions(dict[str, Any]):
    """The `dialect_options` of a table, with those *late* ones that are told a dialect when it is asked for.

    SQLAlchemy loads a dialect to check an option of its, and a program that declares models needs one of them, or none.
    """

    def __init__(self, known: Mapping[str, Any], late: Mapping[str, Any]) -> None:
        super().__init__()
        self._known = known
        self._late = late

    def __missing__(self, dialect: str) -> Any:
        options = self[dialect] = self._known[dialect]
        for name, value in self._late.items():
            if name.startswith(f"{dialect}_"):
                options[name.removeprefix(f"{dialect}_")] = value
        return options

    def __iter__(self) -> Iterator[str]:
        """All dialects of which something is said."""
        for dialect in (*self._known, *(name.split("_")[0] for name in self._late)):
            self[dialect]
        return super().__iter__()

    def items(self) -> Any:
        """The options of all dialects of which something is said."""
        return [(dialect, self[dialect]) for dialect in self]

    def values(self) -> Any:
        """The same without the names of the dialects."""
        return [self[dialect] for dialect in self]
