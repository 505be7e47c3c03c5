"""Questions: random rows of related models, and random conditions and values that an oracle is asked about."""

import operator
from functools import cache
from itertools import product
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import case, func

from tests.behaviour.oracle import (
    COMPARISONS,
    NUMBERS,
    TEXTS,
    TO_MANY,
    TO_ONE,
    Condition,
    Path,
    Rows,
    Value,
    World,
    column,
    comparison,
    containment,
    junction,
    made,
    membership,
    negation,
    nullness,
)

SMALL = st.integers(-3, 3)
EDGES = st.sampled_from([-(2**63), -(2**31) - 1, -1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1])
WORDS = st.sampled_from(
    [
        "",
        " ",
        "a",
        "A",
        "a ",
        "ab",
        "é",
        "e\u0301",
        "ß",
        "ss",
        "中",
        "🦉",
        "%",
        "_",
        "\\",
        "a%b",
        "'",
        '"',
        ":a",
        "\n",
    ]
)
NEEDLES = st.sampled_from(["", " ", "é", "中", "🦉", "%", "_", "\\", "'", '"', ":", "\n", "\\%"])


def paths_from(model: str, *, many: bool, depth: int = 2) -> list[tuple[Path, str]]:
    """The paths from *model*, each with where it leads to: those to one row, or all."""
    found: list[tuple[Path, str]] = [((), model)]
    for path, end in found:
        if len(path) < depth:
            further = {**TO_ONE[end], **(TO_MANY[end] if many else {})}
            found += [((*path, name), there) for name, there in further.items()]
    return found


def spread(wanted: list[Condition]) -> int:
    """How many steps to several rows there are in what is *wanted* at once: each multiplies what a join finds."""
    paths = frozenset().union(*(each.paths for each in wanted))
    steps = {path[:length] for path in paths for length in range(1, len(path) + 1)}
    return sum(any(step[-1] in relations for relations in TO_MANY.values()) for step in steps)


@cache
def numbers(model: str, *, many: bool = False) -> st.SearchStrategy[Value]:
    """Small numbers at the end of paths from *model*, and what is counted from them."""
    plain = [
        column(path, name)
        for path, end in paths_from(model, many=many)
        for name in NUMBERS[end]
        if name != "size"
    ]
    one = st.sampled_from(plain)
    return one | st.one_of(
        st.builds(lambda a, b: made("sum", operator.add, operator.add, a, b), one, one),
        st.builds(lambda a: made("abs", func.abs, abs, a), one),
        st.builds(_less, one, SMALL),
        st.builds(_coalesced, one, SMALL),
        st.builds(_sign, one),
    )


@cache
def texts(model: str, *, many: bool = False) -> st.SearchStrategy[Value]:
    """Texts at the end of paths from *model*, and what is made of them."""
    one = st.sampled_from([column(path, TEXTS[end]) for path, end in paths_from(model, many=many)])
    return one | st.one_of(
        st.builds(lambda a, b: made("both", operator.add, operator.add, a, b), one, one),
        st.builds(lambda a: made("head", lambda sql: func.substr(sql, 1, 1), lambda text: text[:1], a), one),
        st.builds(
            lambda a: made(
                "swap", lambda sql: func.replace(sql, "a", "中"), lambda t: t.replace("a", "中"), a
            ),
            one,
        ),
    )


@cache
def conditions(model: str, *, many: bool) -> st.SearchStrategy[Condition]:
    """Conditions about rows of *model*, and about rows that paths lead to; with *many*, to several."""
    number, text = numbers(model, many=many), texts(model, many=many)
    sign, flags = st.sampled_from(list(COMPARISONS)), st.booleans()
    ends = [
        column(path, name)
        for path, end in paths_from(model, many=many)
        for name in ("id", *(f"{each}_id" for each in TO_ONE[end]))
    ]
    keys = st.sampled_from(ends)
    edges = st.sampled_from(
        [column(path, "size") for path, end in paths_from(model, many=many) if "size" in NUMBERS[end]] or ends
    )
    leaves = st.one_of(
        st.builds(comparison, number, sign, SMALL | number),
        st.builds(comparison, edges, sign, EDGES),
        st.builds(comparison, text, st.sampled_from(["==", "!="]), WORDS | text),
        st.builds(comparison, keys, st.sampled_from(["==", "!="]), st.integers(1, 3) | keys),
        st.builds(nullness, st.one_of(number, text, keys), flags),
        st.builds(membership, number, st.lists(SMALL, max_size=3)),
        st.builds(membership, text, st.lists(WORDS, max_size=3)),
        st.builds(containment, text, st.sampled_from(["contains", "startswith", "endswith"]), NEEDLES),
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(negation, inner)
            | st.builds(junction, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3))
        ),
        max_leaves=4,
    )


def _less(value: Value, number: int) -> Value:
    return made(f"minus{number}", lambda sql: sql - number, lambda there: there - number, value)


def _coalesced(value: Value, instead: int) -> Value:
    def of(rows: Rows) -> Any:
        found = value.of(rows)
        return instead if found is None else found

    text = f"coalesce({value}, {instead})"
    return Value(text, lambda model: func.coalesce(value.sql(model), instead), of, value.paths)


def _sign(value: Value) -> Value:
    def of(rows: Rows) -> Any:
        found = value.of(rows)
        return 1 if found is not None and found > 0 else 2

    return Value(f"sign({value})", lambda model: case((value.sql(model) > 0, 1), else_=2), of, value.paths)


@cache
def worlds() -> st.SearchStrategy[World]:
    """Few rows of each model, related at random; a mentor, and a prequel, is the row itself or an earlier one."""
    number, word = st.none() | SMALL, st.none() | WORDS
    chance = st.integers(0, 11)  # of which of the rows there are
    authors = st.fixed_dictionaries(
        {"name": word, "age": number, "country_id": st.none() | chance, "mentor_id": st.none() | chance}
    )
    books = st.fixed_dictionaries(
        {
            "title": word,
            "pages": number,
            "size": st.none() | EDGES,
            "author_id": chance,
            "editor_id": st.none() | chance,
            "prequel_id": st.none() | chance,
        }
    )
    countries = st.fixed_dictionaries({"name": word, "age": number, "size": st.none() | EDGES})
    return st.builds(
        _world,
        st.lists(countries, max_size=2),
        st.lists(authors, max_size=1) | st.lists(authors, min_size=2, max_size=4),
        st.lists(books, max_size=2) | st.lists(books, min_size=3, max_size=6),
        st.lists(st.fixed_dictionaries({"name": word, "weight": number}), max_size=3),
        st.sets(st.tuples(chance, chance), max_size=8),
    )


def _world(countries: Any, authors: Any, books: Any, tags: Any, pairs: Any) -> World:
    found = {"country": countries, "author": authors, "book": books if authors else [], "tag": tags}
    rows = {
        name: [{"id": number, **row} for number, row in enumerate(given, 1)] for name, given in found.items()
    }

    def key(number: int | None, count: int) -> int | None:
        return None if number is None or not count else number % count + 1

    for author in rows["author"]:
        author["country_id"] = key(author["country_id"], len(countries))
        author["mentor_id"] = key(author["mentor_id"], author["id"])
    for book in rows["book"]:
        for relation in ("author_id", "editor_id"):
            book[relation] = key(book[relation], len(authors))
        book["prequel_id"] = key(book["prequel_id"], book["id"])
    tagged = product(rows["book"], rows["tag"]) if rows["book"] and tags else ()
    wanted = {(key(book, len(rows["book"])), key(tag, len(tags))) for book, tag in pairs}
    return World(rows, {(book["id"], tag["id"]) for book, tag in tagged if (book["id"], tag["id"]) in wanted})
