"""Names: Python's names for tables, columns and the values of enums, each free and valid where it is used."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Container

from microorm.mapping.definition import snake_case, taken_names
from microorm.model import Model

# What the written module imports or defines, and what its annotations mention: no field may have such a name.
_IN_CLASS_BODIES = frozenset(
    [
        "bool",
        "bytes",
        "dt",
        "enum",
        "enum_values",
        "field",
        "float",
        "foreign_key",
        "int",
        "list",
        "many_to_many",
        "mariadb",
        "mysql",
        "object",
        "postgresql",
        "related",
        "sa",
        "set",
        "sqlite",
        "str",
        "types",
    ]
)
_IMPORTED = frozenset(
    [
        "Any",
        "Decimal",
        "Field",
        "ForeignKey",
        "ManyToMany",
        "Model",
        "None",
        "Related",
        "RelatedOne",
        "True",
        "False",
        "UUID",
    ]
)
_LIKE_DIGITS = frozenset(["I", "O", "l"])  # ruff and others refuse names that look like 1 and 0
RESERVED_FIELDS = taken_names(Model) | _IN_CLASS_BODIES | _LIKE_DIGITS


def words_of(text: str) -> str:
    """Return *text* in NFKC with an underscore for each run of other characters, and none at its ends."""
    normal = unicodedata.normalize("NFKC", text)
    return re.sub(r"\W+", "_", normal).strip("_")


def field_name(column: str, taken: Container[str]) -> str:
    """Return a name for the field of *column*: in snake case, no keyword, and neither reserved nor *taken*."""
    name = snake_case(words_of(column))
    name = name.strip("_") or "column"
    if not name.isidentifier():
        name = f"column_{name}" if f"column_{name}".isidentifier() else "column"
    return free(name, taken)


def free(name: str, taken: Container[str]) -> str:
    """Return *name*, with an underscore or a number after it if it is a keyword, reserved or *taken*."""
    if keyword.iskeyword(name) or name in RESERVED_FIELDS:
        name = f"{name}_"
    return _numbered(name, taken)


def class_name(text: str, taken: Container[str]) -> str:
    """Return a name for the class of a table or an enum: `film_actor` is `FilmActor`."""
    parts = [part for part in words_of(text).split("_") if part]
    name = "".join(part[:1].upper() + (part[1:].lower() if part.isupper() else part[1:]) for part in parts)
    if not name.isidentifier():
        name = f"Table{name}" if f"Table{name}".isidentifier() else "Table"
    if name in _IMPORTED or keyword.iskeyword(name):
        name = f"{name}Row"
    return _numbered(name, taken)


def member_name(value: str, taken: Container[str]) -> str:
    """Return a name for the member of an enum with *value*."""
    name = words_of(value).upper() or "EMPTY"
    if not name.isidentifier() or keyword.iskeyword(name) or name in _LIKE_DIGITS:
        name = f"VALUE_{name}"
    return _numbered(name if name.isidentifier() else "VALUE", taken)


def quoted(value: object) -> str:
    """Return the source of *value*; a string is in double quotes where that needs no backslash."""
    plain = repr(value)
    return f'"{plain[1:-1]}"' if plain.startswith("'") and '"' not in plain else plain


def plural(word: str) -> str:
    """Return *word* in the plural, as it is if it seems to be one: `city` is `cities`, `books` stays."""
    if word.endswith(("ss", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("s"):
        return word
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}s"


def _numbered(name: str, taken: Container[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found
