"""An oracle for queries: conditions said twice, once as SQL and once in Python, and rows that both are asked about.

A row is a dict of its columns. What a condition says of several rows, at the ends of paths, it says of a dict of
these rows by path, `{(): book, ("author",): author}`, where None stands for a row that is not there.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, collate, not_, or_

Path = tuple[str, ...]
Rows = dict[Path, dict[str, Any] | None]
Truth = bool | None  # SQL's three values

COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt}
TO_ONE = {
    "book": {"author": "author", "editor": "author", "prequel": "book"},
    "author": {"country": "country", "mentor": "author"},
    "country": {},
    "tag": {},
}
TO_MANY = {
    "book": {"tags": "tag"},
    "author": {"books": "book", "edited": "book", "pupils": "author"},
    "country": {"people": "author"},
    "tag": {"tagged": "book"},
}
NUMBERS = {"book": ("pages", "size"), "author": ("age",), "country": ("age", "size"), "tag": ("weight",)}
TEXTS = {"book": "title", "author": "name", "country": "name", "tag": "name"}


class Condition:
    """One condition, once as a function of a model, which gives SQL, and once as one of rows."""

    def __init__(self, text: str, sql: Any, truth: Any, paths: Iterable[Path] = ()) -> None:
        self.text = text
        self.sql = sql
        self.truth = truth
        self.paths = frozenset(paths)

    def __repr__(self) -> str:
        return self.text


class Value(NamedTuple):
    """A column at the end of a path, or what is made of one."""

    text: str
    sql: Any
    of: Any
    paths: frozenset[Path]
    is_text: bool = False

    def __repr__(self) -> str:
        return self.text


class World:
    """The rows of each model, and to which rows of others each is related."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]], tagged: set[tuple[int, int]]) -> None:
        self.rows = rows
        self.tagged = tagged
        self._by_id = {name: {row["id"]: row for row in found} for name, found in rows.items()}

    def related(self, row: dict[str, Any] | None, relation: str) -> list[dict[str, Any]]:
        """The rows that *relation* leads to from *row*, of whatever model that is."""
        if row is None:
            return []
        if relation == "tags":
            return [self._by_id["tag"][tag] for book, tag in sorted(self.tagged) if book == row["id"]]
        if relation == "tagged":
            return [self._by_id["book"][book] for book, tag in sorted(self.tagged) if tag == row["id"]]
        for models in TO_ONE.values():
            if relation in models:
                key = row[f"{relation}_id"]
                return [] if key is None else [self._by_id[models[relation]][key]]
        model, key = {
            "books": ("book", "author_id"),
            "edited": ("book", "editor_id"),
            "pupils": ("author", "mentor_id"),
            "people": ("author", "country_id"),
        }[relation]
        return [each for each in self.rows[model] if each[key] == row["id"]]

    def combinations(self, row: dict[str, Any], paths: Iterable[Path]) -> Iterator[Rows]:
        """Each combination of rows that a LEFT JOIN along *paths* finds for *row*."""
        steps = sorted({path[:length] for path in paths for length in range(1, len(path) + 1)}, key=len)
        found: list[Rows] = [{(): row}]
        for path in steps:
            found = [
                {**each, path: there}
                for each in found
                for there in self.related(each[path[:-1]], path[-1]) or [None]
            ]
        yield from found

    def matches(self, row: dict[str, Any], wanted: Sequence[Condition]) -> bool:
        """Whether one combination of related rows makes all that is *wanted* true."""
        paths = frozenset().union(*(each.paths for each in wanted))
        return any(all(each.truth(rows) is True for each in wanted) for rows in self.combinations(row, paths))

    def value(self, row: dict[str, Any], value: Value) -> Any:
        """*value* of *row*, whose paths lead to one row each."""
        (rows,) = self.combinations(row, value.paths)
        return value.of(rows)


def negation(inner: Condition) -> Condition:
    """NOT, which leaves NULL what it is."""

    def truth(rows: Any) -> Truth:
        found = inner.truth(rows)
        return None if found is None else not found

    return Condition(f"not({inner})", lambda model: not_(inner.sql(model)), truth, inner.paths)


def junction(kind: str, inner: list[Condition]) -> Condition:
    """AND and OR of three values."""
    decides = kind == "or"

    def truth(rows: Any) -> Truth:
        found = [each.truth(rows) for each in inner]
        return decides if decides in found else None if None in found else not decides

    join = or_ if decides else and_
    paths = frozenset().union(*(each.paths for each in inner))
    return Condition(f"{kind}{inner}", lambda model: join(*[each.sql(model) for each in inner]), truth, paths)


def column(path: Path, name: str) -> Value:
    """The column *name* of the row at the end of *path*, NULL where there is none."""

    def sql(model: Any) -> Any:
        for relation in path:
            model = getattr(model, relation)
        return getattr(model, name)

    def of(rows: Rows) -> Any:
        row = rows[path]
        return None if row is None else row[name]

    return Value(".".join((*path, name)), sql, of, frozenset([path]), name in TEXTS.values())


def made(text: str, make: Any, plain: Any, *values: Value) -> Value:
    """What *make* does to the SQL of *values*, and *plain* to what they are; NULL where one is."""

    def of(rows: Rows) -> Any:
        found = [each.of(rows) for each in values]
        return None if None in found else plain(*found)

    paths = frozenset().union(*(each.paths for each in values))
    shown = f"{text}({', '.join(each.text for each in values)})"

    def sql(model: Any) -> Any:
        return make(*[each.sql(model) for each in values])

    return Value(shown, sql, of, paths, values[0].is_text)


def comparison(left: Value, sign: str, right: Any) -> Condition:
    """Of two values, or of one and a constant."""
    compare = COMPARISONS[sign]
    other = (
        right
        if isinstance(right, Value)
        else Value(repr(right), lambda _: right, lambda _: right, frozenset())
    )

    def truth(rows: Rows) -> Truth:
        found = (left.of(rows), other.of(rows))
        return None if None in found else compare(*found)

    paths = left.paths | other.paths
    return Condition(f"{left} {sign} {other}", lambda m: compare(left.sql(m), other.sql(m)), truth, paths)


def nullness(value: Value, is_null: bool) -> Condition:
    """IS NULL and IS NOT NULL, which are never NULL themselves."""
    return Condition(
        f"{value} is {'' if is_null else 'not '}null",
        lambda model: value.sql(model).is_(None) if is_null else value.sql(model).is_not(None),
        lambda rows: (value.of(rows) is None) is is_null,
        value.paths,
    )


def membership(value: Value, among: list[Any]) -> Condition:
    """IN, which is false of nothing at all, even of NULL."""

    def truth(rows: Rows) -> Truth:
        found = value.of(rows)
        return False if not among else None if found is None else found in among

    return Condition(f"{value} in {among}", lambda model: value.sql(model).in_(among), truth, value.paths)


def containment(value: Value, way: str, needle: str) -> Condition:
    """`contains` and its like, without letters, whose case SQLite does not see there."""
    plain = {"contains": str.__contains__, "startswith": str.startswith, "endswith": str.endswith}[way]

    def truth(rows: Rows) -> Truth:
        found = value.of(rows)
        return None if found is None else plain(found, needle)

    return Condition(
        f"{value}.{way}({needle!r})",
        lambda model: getattr(value.sql(model), way)(needle, autoescape=True),
        truth,
        value.paths,
    )


def binary(value: Value, dialect: str) -> Value:
    """*value*, text in the order of its characters, which on PostgreSQL alone has to be asked for."""
    if dialect != "postgresql" or not value.is_text:
        return value
    return value._replace(sql=lambda model: collate(value.sql(model), "C"))
