"""Rows as typed JSON, without loss: an instance becomes a dictionary that JSON can hold, and an instance again.

How a value is written depends on the type of its field, never on the value: a date as ISO 8601, a `Decimal` as its
digits, a `timedelta` in microseconds, `bytes` in base64, a member of an `Enum` as its value. What is read is checked as
a save checks it. Nothing that a row names is imported or called.
"""

from __future__ import annotations

import binascii
import enum
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple, get_origin
from uuid import UUID

from sqlalchemy.sql import ClauseElement

from microorm.errors import FieldError, InvalidValue, nearest
from microorm.fields.checks import InvalidFieldValue, json_problem, shown
from microorm.fields.field import MISSING, Field
from microorm.mapping.constructor import create_instance
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowLayout
from microorm.messages import brief
from microorm.sql.hydration import hydrate

MAX_BYTES = 65_536
"""How long a text of JSON may be by default, in bytes of UTF-8."""

MAX_DEPTH = 40
"""How deep lists and objects of JSON may be nested: the levels of a JSON field, and some around it."""


def refuse_constant(name: str) -> Any:
    """Raise `ValueError` for *name*, such as NaN: Python's parser would accept it."""
    raise ValueError(f"it is not JSON: {name}")


_MICROSECOND = timedelta(microseconds=1)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=refuse_constant)
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class Form(NamedTuple):
    """How values of one type are written: *dump* makes a JSON value, and *load*, which takes a *kind* of them, reads it."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    kind: type
    expected: str


def _same(value: Any) -> Any:
    return value


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _text(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _decimal(text: str) -> Decimal:
    if "_" in text or not text.isascii() or text != text.strip():  # `Decimal()` accepts these
        raise ValueError(text)
    return Decimal(text)


def _canonical_uuid(text: str) -> UUID:
    made = UUID(text)
    if str(made) != text.lower():  # `UUID()` accepts braces and other forms
        raise ValueError(text)
    return made


FORMS: dict[Any, Form] = {
    int: Form(_same, _same, int, "int"),
    float: Form(_same, float, float, "float"),
    bool: Form(_same, _same, bool, "bool"),
    str: Form(_same, _same, str, "str"),
    bytes: Form(_text, _bytes, str, "text in base64"),
    Decimal: Form(str, _decimal, str, "the digits of a Decimal as text"),
    datetime: Form(datetime.isoformat, datetime.fromisoformat, str, "a datetime in ISO 8601"),
    date: Form(date.isoformat, date.fromisoformat, str, "a date in ISO 8601"),
    time: Form(time.isoformat, time.fromisoformat, str, "a time in ISO 8601"),
    timedelta: Form(
        lambda value: value // _MICROSECOND, lambda number: number * _MICROSECOND, int, "microseconds as int"
    ),
    UUID: Form(str, _canonical_uuid, str, "a UUID as text"),
    dict: Form(_same, _same, dict, "an object"),
    list: Form(_same, _same, list, "a list"),
}
"""The forms of all Python types of fields but `Enum` and `Literal`, which are those of their values."""


def dump_row(instance: Any) -> dict[str, Any]:
    """Return the row of *instance* as it was loaded or saved last, by field; that of a new instance as it is.

    Fields that are not loaded are left out. Raises `InvalidValue` for a value that has no JSON form, such as an SQL
    expression, or one of a field with a `type_=` of another Python type.
    """
    return _dumped(instance.__schema__, instance, instance.__schema__.fields)


def to_dict(instance: Any, fields: Iterable[Any] | None = None) -> dict[str, Any]:
    """Return the values that *instance* has now, as `Model.to_dict` says."""
    schema: Schema = instance.__schema__
    chosen = schema.fields if fields is None else _fields(schema, "fields", fields)
    values, dumped, problems = instance.__dict__, dict[str, Any](), dict[str, str]()
    for field in chosen:
        if field.name not in values:
            if fields is None:
                continue
            getattr(instance, field.name)  # loads a deferred value
        try:
            value = values.get(field.name)
            dumped[field.name] = dump_value(
                schema, field.name, None if value is None else field.check.clean(value)
            )
        except InvalidFieldValue as error:
            problems[field.name] = str(error)
    if problems:
        raise InvalidValue(schema.name, problems)
    return dumped


def from_dict(schema: Schema, data: Any, allow: Iterable[Any]) -> Any:
    """Return a new instance of *data*, as `Model.from_dict` says."""
    allowed = [field.name for field in _fields(schema, "allow", allow)]
    schema.refuse_computed(allowed)
    if not isinstance(data, Mapping):
        raise TypeError(f"from_dict() takes a mapping of fields to values, not {shown(data)}")
    values, problems, errors = dict[str, Any](), dict[str, str](), dict[str, str]()
    for name in data:
        if name not in schema.by_name:
            raise FieldError(f"{schema.name} has no field {brief(name)}{nearest(name, allowed)}")
        if name not in allowed:
            raise FieldError(
                f"{schema.name}.{name} may not be set here; allow= has {', '.join(allowed) or 'none'}"
            )
        try:
            values[name] = schema.by_name[name].validated(load_value(schema, name, data[name]))
        except InvalidFieldValue as error:
            problems[name], errors[name] = str(error), error.problem
    for field in schema.fields:
        if field.required and field.name not in data:
            problems[field.name] = "is missing"
    if problems:
        raise InvalidValue(schema.name, problems, errors)
    return create_instance(schema, values)


def _fields(schema: Schema, argument: str, given: Iterable[Any]) -> list[Field[Any]]:
    """Return the fields *given* by name or column. Raises `TypeError` for a single one, and `FieldError`."""
    if isinstance(given, (str, bytes, ClauseElement)) or not isinstance(given, Iterable):
        raise TypeError(f"{argument}= must be a list of names or columns, not {brief(given)}")
    return list(dict.fromkeys(schema.field(name) for name in given))


def dump_key(instance: Any) -> dict[str, Any]:
    """Return the key of *instance* as `dump_row` does."""
    return _dumped(instance.__schema__, instance, instance.__schema__.key)


def encode_row(instance: Any) -> str:
    """Return the JSON of `dump_row(instance)`, of any length. A whole row is encoded by what is made once for its layout.

    Raises as `dump_row` and `encode` do.
    """
    schema: Schema = instance.__schema__
    row, layout = instance._row, instance._row_state.layout
    if row is None or len(layout.names) < len(schema.fields):
        return _ENCODER.encode(dump_row(instance))
    as_json = layout.as_json
    if as_json is None:
        as_json = layout.as_json = _row_encoder(schema, layout)
    try:
        text: str = as_json(row)
    except InvalidFieldValue:
        return _ENCODER.encode(dump_row(instance))  # raises an error that names all such fields
    return text


def load_row(
    schema: Schema, data: Any, alias: str, *, unknown: Literal["refuse", "ignore"] = "refuse"
) -> Any:
    """Return the instance that `dump_row` has made *data* of, as if it had been loaded from *alias*.

    A field that *data* does not have is deferred: it is loaded when it is read. *unknown*: what to do with a field that
    the model does not have. Raises `InvalidValue` for invalid values, a missing key and other than a mapping, and
    `FieldError` for an unknown field.
    """
    values = _loaded(schema, data, schema.names, unknown)
    wanted = None if len(values) == len(schema.names) else tuple(values)  # in the order of the fields
    instance: Any
    (instance,) = hydrate(schema, [tuple(values.values())], alias, wanted)
    return instance


def load_key(schema: Schema, data: Any) -> dict[str, Any]:
    """Return the values of the key that `dump_key` has made *data* of. Raises as `load_row` does."""
    return _loaded(schema, data, schema.key_names, "refuse")


def encode(value: Any, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the JSON of *value*, in one form for equal values. Raises `ValueError` if it is longer than *max_bytes*.

    Raises `TypeError` and `ValueError` for what JSON cannot hold, such as NaN.
    """
    return within(_ENCODER.encode(value), max_bytes)


def within(text: str, max_bytes: int) -> str:
    """Return *text*, JSON in ASCII. Raises `ValueError` if it is longer than *max_bytes*."""
    if len(text) > max_bytes:
        raise ValueError(f"the JSON has {len(text):,} bytes, more than {max_bytes:,}")
    return text


def decode(text: Any, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of the JSON *text*. Raises `ValueError` for anything else, and beyond the limits.

    The limits are checked before the text is parsed.
    """
    if not isinstance(text, str):
        raise ValueError(f"JSON must be str, not {shown(text)}")
    check_limits(text, max_bytes=max_bytes, max_depth=max_depth)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos}") from None


def check_limits(text: str, *, max_bytes: int, max_depth: int) -> None:
    """Raise `ValueError` if *text* has more bytes in UTF-8, or its brackets more levels."""
    if len(text) > max_bytes or (
        not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > max_bytes
    ):
        raise ValueError(f"the JSON has more than {max_bytes:,} bytes")
    if _deeper(text, max_depth):
        raise ValueError(f"the JSON has more than {max_depth} levels")


def _deeper(text: str, limit: int) -> bool:
    """Return whether the brackets of *text* are nested deeper than *limit*, outside its strings."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    for found in _TOKENS.finditer(text):
        first = found[0][0]
        if first in "[{":
            depth += 1
            if depth > limit:
                return True
        elif first in "]}":
            depth -= 1
    return False


def dump_value(schema: Schema, name: str, value: Any) -> Any:
    """Return the JSON value for *value* of the field *name*. Raises `InvalidFieldValue`."""
    return _codecs(schema)[name].dump(value)


def load_value(schema: Schema, name: str, value: Any) -> Any:
    """Return the value that the JSON *value* of the field *name* stands for, checked. Raises `InvalidFieldValue`."""
    return _codecs(schema)[name].load(value)


def _dumped(schema: Schema, instance: Any, fields: Iterable[Field[Any]]) -> dict[str, Any]:
    state, values = instance._row_state, instance.__dict__
    row: Any = instance._row
    layout = None if row is None else state.layout
    indexes: Mapping[str, int] = {} if layout is None else layout.indexes
    decoders = None if layout is None else layout.decoders
    codecs = _codecs(schema)
    dumped: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in fields:
        name = field.name
        try:
            if row is not None and (index := indexes.get(name)) is not None:
                value = row[index]
                if decoders is not None and (decode := decoders[index]) is not None:
                    value = decode(value)
            elif (value := values.get(name, MISSING)) is MISSING:
                continue
            elif value is not None:
                value = field.check.clean(value)  # nothing has checked it yet
            codec = codecs[name]
            dumped[name] = value if value.__class__ is codec.kept else codec.dump(value)
        except InvalidFieldValue as error:
            problems[name] = str(error)
    if problems:
        raise InvalidValue(schema.name, problems)
    return dumped


def _row_encoder(schema: Schema, layout: RowLayout) -> Callable[[tuple[Any, ...]], str]:
    """Return a function from a row of *layout* to its JSON. It raises `InvalidFieldValue`."""
    codecs, decoders = _codecs(schema), layout.decoders
    parts = [
        (index, None if decoders is None else decoders[index], codecs[name].encode)
        for name, index in sorted(layout.indexes.items())
    ]
    template = "{" + ",".join(f"{_ENCODER.encode(name)}:%s" for name in sorted(layout.names)) + "}"

    def plain(row: tuple[Any, ...]) -> str:
        return template % tuple([encode(row[index]) for index, _, encode in parts])

    def decoded(row: tuple[Any, ...]) -> str:
        return template % tuple(
            [encode(row[index] if decode is None else decode(row[index])) for index, decode, encode in parts]
        )

    return plain if decoders is None else decoded


class _Codec:
    """How the values of *field* are written and read, with what depends on its type alone looked up once.

    *kept*: the class whose values are in JSON as they are, None for no class; *quick* is how these are encoded.
    """

    __slots__ = ("enum", "field", "form", "kept", "kinds", "quick")

    def __init__(self, field: Field[Any]) -> None:
        self.field = field
        self.form = FORMS.get(_plain_type(field))
        kind = field.python_type
        self.enum: Any = kind if isinstance(kind, type) and issubclass(kind, enum.Enum) else None
        form = self.form
        kept = form is not None and self.enum is None and form.kind in (int, str, bool) and form.dump is _same
        self.kept = form.kind if kept and form is not None else None
        self.quick: Callable[[Any], str] = int.__repr__ if self.kept is int else _ENCODER.encode
        kinds = () if form is None else (form.kind,)
        self.kinds: tuple[type, ...] = (int, float) if kinds == (float,) else kinds

    def dump(self, value: Any) -> Any:
        """Return the JSON value for *value*. Raises `InvalidFieldValue`."""
        if value is None:
            return None
        if self.form is None:
            if json_problem(value) is not None:
                raise InvalidFieldValue("a value that JSON can represent", shown(value))
            return value
        try:
            return self.form.dump(value.value if isinstance(value, enum.Enum) else value)
        except (TypeError, ValueError, AttributeError):
            raise InvalidFieldValue(self.field.check.expected, shown(value)) from None

    def encode(self, value: Any) -> str:
        """Return the JSON of `dump(value)`. Raises as `dump` and `encode` do."""
        return self.quick(value) if value.__class__ is self.kept else _ENCODER.encode(self.dump(value))

    def load(self, value: Any) -> Any:
        """Return the value that the JSON *value* stands for, checked. Raises `InvalidFieldValue`."""
        field, form = self.field, self.form
        if value is None or form is None:
            return field.clean(value)
        if value.__class__ not in self.kinds:
            raise InvalidFieldValue(form.expected, shown(value))
        try:
            made = form.load(value)
            if self.enum is not None:
                made = self.enum(made)
        except (ValueError, OverflowError, InvalidOperation, binascii.Error):
            expected = form.expected if form.kind is str and form.load is not _same else field.check.expected
            raise InvalidFieldValue(expected, shown(value)) from None
        return field.clean(made)


def _codecs(schema: Schema) -> dict[str, _Codec]:
    """Return the codecs of the fields of *schema*, which are made at the first call."""
    if not schema.codecs:
        schema.codecs.update({field.name: _Codec(field) for field in schema.fields})
    return schema.codecs


def _plain_type(field: Field[Any]) -> Any:
    """Return the key in `FORMS` of the values of *field*."""
    kind = field.python_type
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return type(next(iter(kind)).value)
    origin = get_origin(kind)
    if origin is Literal:
        return type(kind.__args__[0])
    return kind if origin is None else origin


def _loaded(schema: Schema, data: Any, names: tuple[str, ...], unknown: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise InvalidValue(schema.name, {"pk": f"must be in an object with the fields, not {shown(data)}"})
    if unknown == "refuse":
        for name in data:
            if name not in names:
                raise FieldError(f"{schema.name} has no field {name!r}{nearest(name, names)}")
    values: dict[str, Any] = {}
    problems: dict[str, str] = {
        name: "is missing, and part of the key" for name in schema.key_names if data.get(name) is None
    }
    codecs = _codecs(schema)
    for name in names:
        if (value := data.get(name, MISSING)) is MISSING or name in problems:
            continue
        try:
            codec = codecs[name]
            values[name] = codec.field.clean(value) if value.__class__ is codec.kept else codec.load(value)
        except InvalidFieldValue as error:
            problems[name] = str(error)
    if problems:
        raise InvalidValue(schema.name, problems)
    return values
