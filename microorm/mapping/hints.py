"""What to write instead of a name that is no field: of a descending order, a lookup of Django, a path."""

from __future__ import annotations

from typing import Any

from microorm.errors import nearest

_LOOKUPS = {
    "exact": "{} == …",
    "iexact": "func.lower({}) == …",
    "contains": "{}.contains(…)",
    "icontains": "{}.icontains(…)",
    "startswith": "{}.startswith(…)",
    "istartswith": "{}.istartswith(…)",
    "endswith": "{}.endswith(…)",
    "iendswith": "{}.iendswith(…)",
    "in": "{}.in_([…])",
    "gt": "{} > …",
    "gte": "{} >= …",
    "lt": "{} < …",
    "lte": "{} <= …",
    "ne": "{} != …",
    "range": "{}.between(…, …)",
    "isnull": "{}.is_(None)",
    "regex": "{}.regexp_match(…)",
}


def instead_of(schema: Any, name: str) -> str:
    """Return what to write instead of *name*, which is no field of *schema*, as the end of a message.

    That is an expression where *name* is one of Django's, else the nearest name.
    """
    plain = name.removeprefix("-")
    names = plain.split("__") if "__" in plain else plain.split(".")
    lookup = _LOOKUPS.get(names[-1]) if "__" in plain else None
    if lookup is not None:
        names = names[:-1]
    if (path := _path(schema, names)) is None or (plain == name and lookup is None and len(names) == 1):
        return nearest(name, schema.reported.values())
    if plain != name:
        return f"; write {path}.desc()"
    return f"; write {lookup.format(path)}" if lookup is not None else f"; write {path}"


def _path(schema: Any, names: list[str]) -> str | None:
    """Return the expression for a path of *names* from *schema* to a field; None if there is none."""
    *relations, last = names
    end = schema
    for name in relations:
        if (relation := end.relations.get(name)) is None:
            return None
        end = relation.target.__schema__
    if last in end.relations and end.relations[last].is_foreign_key:
        last = end.relations[last].field.name
    if last not in end.by_name and not (last == "pk" and len(end.key) == 1):
        return None
    return ".".join([schema.name, *relations, end.key[0].name if last == "pk" else last])
