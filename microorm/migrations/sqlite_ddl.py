"""SQLite's DDL: what a CREATE TABLE statement says that reflection does not report, read token by token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


class Unique(NamedTuple):
    """A UNIQUE constraint: its name, and its columns."""

    name: str | None
    columns: tuple[str, ...]


class ForeignKey(NamedTuple):
    """A foreign key; without *referred* columns it refers to the key of *table*."""

    name: str | None
    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]
    options: dict[str, Any]


@dataclass(slots=True)
class TableDDL:
    """The parts of a CREATE TABLE statement that reflection loses or reads by pattern."""

    checks: list[Check] = field(default_factory=list)
    uniques: list[Unique] = field(default_factory=list)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
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
        _Definition(sql, item, found).read()
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


class _Definition:
    """The definition of a column or of a constraint, which is read into *found*."""

    def __init__(self, sql: str, item: Sequence[Token], found: TableDDL) -> None:
        self._sql = sql
        self._item = item
        self._found = found
        self._column = None if item[0].keyword in _TABLE_CONSTRAINTS else item[0].name
        self._index = 0 if self._column is None else 1
        self._name: str | None = None

    def read(self) -> None:
        while (token := self._next()) is not None:
            if token.text == "(":
                self._index -= 1
                self._group()
            elif token.keyword == "CONSTRAINT":
                following = self._next()
                self._name = None if following is None else following.name
            elif token.keyword in _READERS:
                _READERS[token.keyword](self)
                self._name = None

    def _next(self) -> Token | None:
        """Return the next token, and go on to the one after it."""
        self._index += 1
        return self._item[self._index - 1] if self._index <= len(self._item) else None

    def _accept(self, *keywords: str) -> str:
        """Go on if the next token is one of *keywords*, and return it."""
        found = self._item[self._index].keyword if self._index < len(self._item) else ""
        if found not in keywords:
            return ""
        self._index += 1
        return found

    def _group(self) -> Sequence[Token]:
        """Return the tokens between the brackets that follow, if they do, and go on after them."""
        if self._index >= len(self._item) or self._item[self._index].text != "(":
            return ()
        opening, self._index = self._index, _closing(self._item, self._index) + 1
        return self._item[opening + 1 : self._index - 1]

    def _inner(self) -> str:
        """Return the text between the brackets that follow."""
        tokens = self._group()
        return self._sql[tokens[0].start : tokens[-1].end] if tokens else ""

    def _names(self) -> tuple[str, ...]:
        """Return the columns between the brackets that follow."""
        return tuple(each[0].name for each in _items(self._group()) if each)

    def check(self) -> None:
        self._found.checks.append(Check(self._name, self._inner(), self._column))

    def collate(self) -> None:
        collation = self._next()
        if self._column is not None and collation is not None:
            self._found.collations[self._column] = collation.name

    def generated(self) -> None:
        if self._column is not None:
            self._found.generated[self._column] = self._inner()

    def autoincrement(self) -> None:
        self._found.autoincrement = True

    def unique(self) -> None:
        columns = self._names() if self._column is None else (self._column,)
        self._found.uniques.append(Unique(self._name, columns))

    def foreign_key(self) -> None:
        self._accept("KEY")
        columns = self._names()
        if self._accept("REFERENCES"):
            self.references(columns)

    def references(self, columns: tuple[str, ...] = ()) -> None:
        table = self._next()
        referred, options = self._names(), dict[str, Any]()
        while keyword := self._accept("ON", "MATCH", "DEFERRABLE"):
            if keyword == "DEFERRABLE":
                options["deferrable"] = True
                if self._accept("INITIALLY"):
                    options["initially"] = self._accept("DEFERRED", "IMMEDIATE")
            elif keyword == "ON" and (event := self._accept("DELETE", "UPDATE")):
                words = (
                    self._accept("SET", "NO", "CASCADE", "RESTRICT"),
                    self._accept("NULL", "DEFAULT", "ACTION"),
                )
                options[f"on{event.lower()}"] = " ".join(filter(None, words))
            else:
                self._next()
        if table is not None:
            local = columns or ((self._column,) if self._column is not None else ())
            self._found.foreign_keys.append(ForeignKey(self._name, local, table.name, referred, options))

    def other(self) -> None:
        """Read a constraint that reflection knows, such as NOT NULL, whose name is not kept."""


_READERS: dict[str, Callable[[_Definition], None]] = {
    "CHECK": _Definition.check,
    "COLLATE": _Definition.collate,
    "AS": _Definition.generated,
    "AUTOINCREMENT": _Definition.autoincrement,
    "UNIQUE": _Definition.unique,
    "FOREIGN": _Definition.foreign_key,
    "REFERENCES": _Definition.references,
    "PRIMARY": _Definition.other,
    "NOT": _Definition.other,
    "NULL": _Definition.other,
    "DEFAULT": _Definition.other,
}
