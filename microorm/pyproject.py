"""Pyproject: one pyproject.toml, and the lines on which its keys stand.

`tomllib` tells what a file says, but not where, and an error that names no line is half an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microorm.errors import ConfigurationError

NAME = "pyproject.toml"

Keys = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r'[ \t]*("(?:\\.|[^"\\])*"|\'[^\']*\'|[A-Za-z0-9_-]+)[ \t]*')
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL
)
_PLAIN = re.compile(r"[^,\]}#\r\n]*")
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Pyproject:
    """One file, read: its *tables*, as `tomllib` gives them, and where each key stands.

    Raises `ConfigurationError` for a file that cannot be read or is no TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"{path} cannot be read: {reason}") from None
        try:
            self.tables: Mapping[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            line = (found and found[1]) or len(text.splitlines())
            reason = _AT_LINE.sub("", str(error))
            raise ConfigurationError(f"{path}:{line}: this is not TOML: {reason}") from None
        self._lines = key_lines(text)

    def section(self, *names: str) -> Any:
        """What stands under the table [*names*], or None where there is no such table."""
        found: Any = self.tables
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def place(self, *keys: str | int) -> str:
        """Where *keys* are set, as `file:line`; where they are not, the innermost table around them."""
        for length in range(len(keys), 0, -1):
            if (line := self._lines.get(keys[:length])) is not None:
                return f"{self.path}:{line}"
        return str(self.path)


def key_lines(text: str) -> dict[Keys, int]:
    """The line of each key and array item in *text*, which is TOML; of those met twice, the first."""
    return _Scanner(text).lines


class _Scanner:
    """Goes once through a text that `tomllib` has accepted already, so it need not find errors."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.lines: dict[Keys, int] = {}
        table: Keys = ()
        counts: dict[Keys, int] = {}
        self._skip()
        while self._at < len(text):
            if text.startswith("[[", self._at):
                self._at += 2
                name = self._key(())
                table = (*name, counts.setdefault(name, 0))
                counts[name] += 1
                self._note(table)
                self._at += 2
            elif text[self._at] == "[":
                self._at += 1
                table = self._key(())
                self._at += 1
            else:
                self._pair(table)
            self._skip()

    def _skip(self) -> None:
        if found := _SPACE.match(self._text, self._at):
            self._at = found.end()

    def _note(self, keys: Keys) -> None:
        self.lines.setdefault(keys, self._text.count("\n", 0, self._at) + 1)

    def _key(self, table: Keys) -> Keys:
        """The dotted key that begins here, below *table*; noted with each of its parts."""
        keys = table
        while found := _KEY.match(self._text, self._at):
            part = found[1]
            keys = (*keys, tomllib.loads(f"key = {part}")["key"] if part[0] in "\"'" else part)
            self._note(keys)
            self._at = found.end()
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return keys

    def _pair(self, table: Keys) -> None:
        keys = self._key(table)
        self._at += 1  # the equals sign
        self._skip()
        self._value(keys)

    def _value(self, keys: Keys) -> None:
        match self._text[self._at]:
            case "[" | "{" as opening:
                self._at += 1
                self._items(keys, "]" if opening == "[" else "}")
            case '"' | "'":
                self._pass(_STRING)
            case _:
                self._pass(_PLAIN)

    def _items(self, keys: Keys, closing: str) -> None:
        index = 0
        self._skip()
        while self._text[self._at] != closing:
            if closing == "}":
                self._pair(keys)
            else:
                self._note((*keys, index))
                self._value((*keys, index))
            index += 1
            self._skip()
            if self._text[self._at] == ",":
                self._at += 1
                self._skip()
        self._at += 1

    def _pass(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
