"""SQLite's DDL: what a CREATE TABLE statement says that reflection does not report, read token by token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, text

_TOKENS = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string> '(?:[^']|'')*' )
    | (?P<quoted> "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<other> \d[\w.]* | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_TABLE_CONSTRAINTS = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")
_COLUMN_CONSTRAINTS = (
    "PRIMARY",
    "NOT",
    "NULL",
    "UNIQUE",
    "DEFAULT",
    "REFERENCES",
    "COLLATE",
    "GENERATED",
    "AS",
)


class Token(NamedTuple):
    """A word, a string, a quoted name or another character, and where it begins and ends."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def keyword(self) -> str:
        """The word in capitals; nothing for a name in quotation marks or a string."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """The name without its quotation marks."""
        if self.kind not in ("quoted", "string"):
            return self.text
        closing = self.text[-1]
        inner = self.text[1:-1]
        return inner if closing == "]" else inner.replace(closing * 2, closing)


class Check(NamedTuple):
    """A CHECK: its name, its condition, and the column whose definition contains it, if one does."""

    name: str | None
    condition: str
    column: str | None


@dataclass(slots=True)
class TableDDL:
    """The parts of a CREATE TABLE statement that reflection loses or reads by pattern."""

    checks: list[Check] = field(default_factory=list)
    collations: dict[str, str] = field(default_factory=dict)  # by column
    generated: dict[str, str] = field(default_factory=dict)  # column → expression
    autoincrement: bool = False
    without_rowid: bool = False
    strict: bool = False


def table_ddl(connection: Connection, table: str) -> TableDDL:
    """Read the statement that SQLite keeps of *table*; an empty description if there is no such table."""
    query = text(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table COLLATE NOCASE"
        " UNION ALL SELECT sql FROM sqlite_temp_master WHERE type = 'table' AND name = :table COLLATE NOCASE"
    )
    return read_table_ddl(connection.execute(query, {"table": table}).scalar() or "")


def read_table_ddl(sql: str) -> TableDDL:
    """Read a CREATE TABLE statement."""
    tokens = list(tokenize(sql))
    found = TableDDL()
    opening = next((index for index, token in enumerate(tokens) if token.text == "("), None)
    if opening is None:
        return found
    closing = _closing(tokens, opening)
    for item in _items(tokens[opening + 1 : closing]):
        _read_item(sql, item, found)
    options = [token.keyword for token in tokens[closing + 1 :]]
    found.without_rowid = "ROWID" in options
    found.strict = "STRICT" in options
    return found


def tokenize(sql: str) -> Iterator[Token]:
    """Yield the tokens of *sql*, without white space and comments."""
    for match in _TOKENS.finditer(sql):
        if match.lastgroup != "space":
            yield Token(str(match.lastgroup), match[0], match.start(), match.end())


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """Return the index of the bracket that closes the one at *opening*."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index].text, 0)
        if depth == 0:
            return index
    return len(tokens)


def _items(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Yield the definitions of columns and constraints, which commas outside of brackets separate."""
    item: list[Token] = []
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            yield item
            item = []
        else:
            item.append(token)
    if item:
        yield item


def _read_item(sql: str, item: Sequence[Token], found: TableDDL) -> None:
    """Add to *found* what one definition says."""
    column = None if item[0].keyword in _TABLE_CONSTRAINTS else item[0].name
    index = 0 if column is None else 1
    name: str | None = None
    while index < len(item):
        keyword = item[index].keyword
        following = item[index + 1] if index + 1 < len(item) else None
        if item[index].text == "(":
            index = _closing(item, index)
        elif following is not None and keyword == "CONSTRAINT":
            name = following.name
            index += 1
        elif following is not None and keyword == "COLLATE" and column is not None:
            found.collations[column] = following.name
            index += 1
        elif following is not None and keyword in ("CHECK", "AS") and following.text == "(":
            closing = _closing(item, index + 1)
            inner = sql[following.end : item[closing].start].strip()
            if keyword == "CHECK":
                found.checks.append(Check(name, inner, column))
            elif column is not None:
                found.generated[column] = inner
            index = closing
            name = None
        elif keyword == "AUTOINCREMENT":
            found.autoincrement = True
        elif keyword in _COLUMN_CONSTRAINTS:
            name = None
        index += 1
