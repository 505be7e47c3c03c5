"""Columns: the annotation and the options of `field()` for the type of a column that exists.

Where microorm's own type for an annotation is the same in the database, the annotation says it all. Otherwise `type_=`
repeats the type that the database has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.types import TypeEngine

from microorm.fields import types
from microorm.fields.documents import json_type
from microorm.fields.types import ExactNumeric
from microorm.migrations.dialects import ddl_type

_DIALECTS = {"mysql": mysql, "postgresql": postgresql, "sqlite": sqlite}
UNKNOWN = "sa.types.NullType()"
_NOISE = re.compile(r"display_width=\d+(?:, )?|, display_width=\d+")
_OTHER_NAMES = {"mariadb": "mysql"}


@dataclass(slots=True)
class Described:
    """How a column is declared: *options* of `field()` as source, *own_type* for `type_=`; *note* is a comment."""

    annotation: str
    options: dict[str, str] = field(default_factory=dict)
    own_type: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An annotation, the options that go with it, and microorm's type for both."""

    annotation: str
    type: TypeEngine[Any]
    options: tuple[tuple[str, str], ...] = ()


def describe(type_: TypeEngine[Any], dialect: str, *, is_json: bool = False) -> Described:
    """Return how a column of *type_* is declared; an enum is described by `describe_enum`."""
    if is_json:
        return Described("Any", own_type="types.json_type()")
    if isinstance(type_, postgresql.DOMAIN):
        inner = describe(type_.data_type, dialect)
        return Described(inner.annotation, own_type=_domain(type_, dialect), note=inner.note)
    candidate = _candidate(type_, dialect)
    annotation = candidate.annotation if candidate is not None else _annotation(type_, dialect)
    if candidate is not None and same_ddl(candidate.type, type_, dialect):
        return Described(annotation, dict(candidate.options))
    if isinstance(type_, sa.JSON) and ddl_type(json_type(), dialect) == ddl_type(type_, dialect):
        return Described(annotation, own_type="types.json_type()")
    if (source := type_source(type_, dialect)) is not None:
        return Described(annotation, own_type=source)
    note = "of a type unknown to SQLAlchemy: values are as the driver returns them"
    return Described("Any", own_type=UNKNOWN, note=note)


def same_ddl(one: TypeEngine[Any], other: TypeEngine[Any], dialect: str) -> bool:
    """Return whether two types are the same in the database; DECIMAL is another word for NUMERIC."""
    first, second = (ddl_type(each, dialect).replace("DECIMAL", "NUMERIC") for each in (one, other))
    return first == second


def forced_type(described: Described, type_: TypeEngine[Any], dialect: str) -> Described:
    """Return *described* with a `type_=`, which a text or bytes without a length needs in a key or an index."""
    if described.own_type is None and described.annotation in ("str", "bytes") and not described.options:
        return Described(described.annotation, own_type=type_source(type_, dialect), note=described.note)
    return described


def type_source(type_: TypeEngine[Any], dialect: str) -> str | None:
    """Return an expression for *type_*, or None if SQLAlchemy itself has no such type."""
    if isinstance(type_, sa.ARRAY):
        inner = type_source(type_.item_type, dialect)
        return None if inner is None else f"postgresql.ARRAY({inner})"
    if isinstance(type_, sa.types.NullType):
        return None
    if isinstance(type_, sa.JSON):
        return (
            "sa.JSON(none_as_null=True)"
            if dialect != "postgresql"
            else f"postgresql.{type(type_).__name__}(none_as_null=True)"
        )
    if isinstance(type_, postgresql.DOMAIN):
        return _domain(type_, dialect)
    if isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float) and dialect == "sqlite":
        arguments = [repr(each) for each in (type_.precision, type_.scale) if each is not None]
        return f"sa.{type(type_).__name__}({', '.join([*arguments, 'asdecimal=False'])})"
    kind = type(type_)
    package, _, module = kind.__module__.removeprefix("sqlalchemy.").partition(".")
    if package == "dialects":
        name = module.partition(".")[0]
        name = _OTHER_NAMES.get(name, name)
        known = getattr(_DIALECTS.get(name), kind.__name__, None) is kind
        return f"{name}.{_shown(type_)}" if known else None
    return f"sa.{_shown(type_)}" if getattr(sa, kind.__name__, None) is kind else None


def _shown(type_: TypeEngine[Any]) -> str:
    text = repr(type_)
    if isinstance(type_, sa.Float) and type_.asdecimal:
        text = text.replace("asdecimal=True", "asdecimal=False")
    return text if "zerofill" in text else _NOISE.sub("", text)


def _domain(type_: postgresql.DOMAIN, dialect: str) -> str | None:
    inner = type_source(type_.data_type, dialect)
    return None if inner is None else f"postgresql.DOMAIN({type_.name!r}, {inner}, create_type=False)"


def _annotation(type_: TypeEngine[Any], dialect: str) -> str:
    """Return the annotation for a type that microorm has no type of its own for."""
    if isinstance(type_, mysql.SET):
        return "set[str]"
    if isinstance(type_, mysql.YEAR | mysql.BIT | postgresql.OID):
        return "int"
    if isinstance(type_, sa.ARRAY):
        inner = describe(type_.item_type, dialect).annotation
        return f"list[{inner}]" if getattr(type_, "dimensions", None) in (None, 1) else "list[Any]"
    if isinstance(type_, sa.Numeric):
        return "float" if dialect == "sqlite" or not type_.asdecimal else "Decimal"
    return "Any"


def _candidate(type_: TypeEngine[Any], dialect: str) -> Candidate | None:
    if isinstance(type_, sa.JSON | postgresql.OID | mysql.BIT) or (
        isinstance(type_, sa.Time) and type_.timezone
    ):
        return None
    if isinstance(type_, mysql.TINYINT) and type_.display_width == 1:
        return Candidate("bool", type_)
    return next((make(type_, dialect) for kind, make in _MAKERS if isinstance(type_, kind)), None)


def _text(type_: Any, dialect: str) -> Candidate:
    options = () if type_.length is None else (("max_length", str(type_.length)),)
    return Candidate("str", types.text_type(type_.length), options)


def _bytes(type_: Any, dialect: str) -> Candidate:
    length = type_.length
    options = () if length is None else (("max_length", str(length)),)
    return Candidate("bytes", types.bytes_type(length), options)


def _moment(type_: Any, dialect: str) -> Candidate:
    if type_.timezone:
        return Candidate("dt.datetime", types.datetime_type(aware=True))
    naive = types.datetime_type(aware=False)
    return Candidate("dt.datetime", naive, (("timezone", "False"),))


def _decimal(type_: Any, dialect: str) -> Candidate | None:
    precision, scale = type_.precision, type_.scale
    if precision is None or (dialect == "sqlite" and precision > 15) or (scale or 0) > precision:
        return None
    options = (("max_digits", str(precision)), ("decimal_places", str(scale or 0)))
    return Candidate("Decimal", ExactNumeric(precision, scale or 0), options)


def _float(type_: Any, dialect: str) -> Candidate:
    return Candidate("float", types.float_type())


_MAKERS: tuple[tuple[type, Callable[[Any, str], Candidate | None]], ...] = (
    (sa.Boolean, lambda type_, dialect: Candidate("bool", sa.Boolean())),
    (sa.Integer, lambda type_, dialect: Candidate("int", types.integer_type())),
    (sa.Float, _float),
    (sa.Numeric, _decimal),
    (sa.DateTime, _moment),
    (sa.Date, lambda type_, dialect: Candidate("dt.date", types.date_type())),
    (sa.Time, lambda type_, dialect: Candidate("dt.time", types.time_type())),
    (sa.Interval, lambda type_, dialect: Candidate("dt.timedelta", types.Duration())),
    (postgresql.INTERVAL, lambda type_, dialect: Candidate("dt.timedelta", types.Duration())),
    (sa.Uuid, lambda type_, dialect: Candidate("UUID", types.uuid_type())),
    (sa.LargeBinary, _bytes),
    (sa.BINARY, _bytes),
    (sa.VARBINARY, _bytes),
    (mysql.TINYBLOB, _bytes),
    (mysql.MEDIUMBLOB, _bytes),
    (mysql.LONGBLOB, _bytes),
    (mysql.SET, lambda type_, dialect: None),
    (sa.String, _text),
)
