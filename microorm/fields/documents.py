"""JSON columns, and the values inside them by key: `column["key"]`, `column["list", 3].as_integer()`.

Each function has the same result on every database: NULL where the key is missing, or where the value has another type.
The keys are parameters, never a part of a path or of the SQL.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any, NoReturn

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Dialect,
    Double,
    Numeric,
    String,
    and_,
    bindparam,
    literal_column,
    or_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import Null
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from microorm.errors import FieldError
from microorm.fields.checks import encodable, json_problem, json_text
from microorm.fields.columns import FieldFunction
from microorm.fields.types import COLLATION, MARIADB, ExactNumeric, text_type
from microorm.messages import brief

MAX_NUMERIC = 15
"""The digits that SQLite keeps of a number."""

MAX_LISTED = 1_000
"""How many values of a list are parameters of their own."""

_EQUALITY = {operators.eq: operators.in_op, operators.ne: operators.not_in_op}
_MEMBERSHIP = (operators.in_op, operators.not_in_op)
_DISTINCTION = {operators.is_distinct_from: and_, operators.is_not_distinct_from: or_}
_COMPARED = (*_EQUALITY, *_MEMBERSHIP, *_DISTINCTION)
_REFUSED = frozenset(
    {
        operators.add,
        operators.between_op,
        operators.concat_op,
        operators.contains_op,
        operators.endswith_op,
        operators.ge,
        operators.gt,
        operators.icontains_op,
        operators.iendswith_op,
        operators.ilike_op,
        operators.istartswith_op,
        operators.le,
        operators.like_op,
        operators.lt,
        operators.mod,
        operators.mul,
        operators.neg,
        operators.not_between_op,
        operators.not_ilike_op,
        operators.not_like_op,
        operators.startswith_op,
        operators.sub,
        operators.truediv,
    }
)


class DocumentKey(TypeDecorator[str]):
    """A key of a JSON object, escaped for a path expression, which SQLAlchemy does not do."""

    impl = JSON.JSONStrIndexType
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name == "postgresql":
            return value
        if '"' in value and dialect.name == "sqlite":
            raise ValueError(f"SQLite cannot address a JSON key with a double quote, such as {brief(value)}")
        if value.startswith("-") and dialect.name in MARIADB:
            raise ValueError(
                f"MariaDB cannot address a JSON key that begins with a minus, such as {brief(value)}"
            )
        # The stored text of the key is compared.
        return json.dumps(value)[1:-1]


class DocumentIndex(TypeDecorator[int]):
    """An index of a JSON list, as a path expression; a negative index counts from the end."""

    impl = JSON.JSONIntIndexType
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None:
            return value
        if dialect.name == "postgresql":
            return f"strict $[last - {-value - 1}]" if value < 0 else f"strict $[{value}]"
        return f"$[#{value}]" if value < 0 and dialect.name == "sqlite" else f"$[{value}]"


class Document(JSON[Any]):
    """JSON with access by keys that are never parsed as a path or as SQL."""

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        return self

    class Comparator(JSON.Comparator[Any]):
        """`column["key"]`, `column[3]` and, nested, `column["key", 3]`."""

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, (tuple, list)):
                return reduce(operator.getitem, index, self.expr)
            if isinstance(index, str):
                if "\0" in index or not encodable(index):
                    raise FieldError(f"not a possible key in JSON: {brief(index)}")
                kind: Any = DocumentKey()
            elif type(index) is int:
                kind = DocumentIndex()
            else:
                raise TypeError(f"a key or index in JSON must be str or int, not {brief(index)}")
            part = Part(self.expr, bindparam(None, index, type_=kind, unique=True))
            part.type = self.type
            return part

        def operate(self, op: Any, *other: Any, **options: Any) -> Any:
            """Compare values inside JSON in one form, and refuse operators that not every database has."""
            if op in _REFUSED:
                _refuse(f"JSON has no operator {op.__name__.removesuffix('_op')!r}")
            compares = isinstance(self.expr, Part) and op in _COMPARED
            if compares and other[0] is not None and not isinstance(other[0], Null):
                return _compared(self.expr, op, other[0])
            return super().operate(op, *other, **options)

        def as_string(self) -> Any:
            """Return a text as it is, other values as their JSON."""
            return self._read(AsString, text_type())

        def as_boolean(self) -> Any:
            """Return true or false; NULL for any other value."""
            return self._read(AsBoolean, Boolean())

        def as_integer(self) -> Any:
            """Return a number of up to 64 bits without its fraction; NULL for any other value."""
            return self._read(AsInteger, BigInteger())

        def as_float(self) -> Any:
            """Return a number as a float; NULL for any other value."""
            return self._read(AsFloat, Double())

        def as_numeric(self, precision: int, scale: int, asdecimal: bool = True) -> Any:
            """Return a number rounded to *scale* places; NULL for one with more digits, and for any other value.

            *precision*: how many digits it may have. It is a `Decimal`, or a `float` unless *asdecimal*.
            """
            exact = asdecimal and precision <= MAX_NUMERIC
            kind: Any = ExactNumeric(precision, scale) if exact else Numeric(precision, scale, asdecimal)
            limit: Any = literal_column(str(10 ** (int(precision) - int(scale))))
            return self._read(AsNumeric, kind, literal_column(str(int(scale))), limit)

        def _read(self, function: type[FunctionElement[Any]], kind: Any, *arguments: Any) -> Any:
            if not isinstance(self.expr, Part):
                raise FieldError(
                    'JSON as a whole has no other type; name a key, as in column["key"].as_string()'
                )
            found = function(*self.expr.clauses, *arguments)
            found.type = kind
            return found

    comparator_factory = Comparator


def json_type() -> TypeEngine[Any]:
    """Return JSON, on PostgreSQL JSONB; None is NULL rather than the JSON value null."""
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 importing it takes 50 ms

    return Document(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


class Part(FieldFunction):
    """The JSON value of a key or index in a JSON value; NULL if there is none."""

    inherit_cache = True
    name = "json_part"


class Compact(FieldFunction):
    """JSON as a text, which is equal for equal values."""

    inherit_cache = True
    name = "json_compact"


class AsString(FieldFunction):
    """The value of a key in a JSON value as text."""

    inherit_cache = True
    name = "json_string"


class AsBoolean(FieldFunction):
    """The value of a key in a JSON value as true or false."""

    inherit_cache = True
    name = "json_boolean"


class AsInteger(FieldFunction):
    """The value of a key in a JSON value as an integer."""

    inherit_cache = True
    name = "json_integer"


class AsFloat(FieldFunction):
    """The value of a key in a JSON value as a float."""

    inherit_cache = True
    name = "json_float"


class AsNumeric(FieldFunction):
    """The value of a key in a JSON value as a decimal; its scale and the limit of its size follow the key."""

    inherit_cache = True
    name = "json_numeric"


class InDocuments(FieldFunction):
    """An IN with many JSON values: the condition as it is elsewhere, and the texts of all values as one parameter."""

    inherit_cache = True
    name = "json_in"
    type = Boolean()


class NotInDocuments(InDocuments):
    """A NOT IN with many JSON values."""

    inherit_cache = True


def _compared(part: Any, op: Any, other: Any) -> Any:
    """Return the comparison of *part* with JSON values, in the form in which equal values are equal everywhere."""
    compact = _compact(part, part.type)
    if isinstance(other, ColumnElement):
        if not isinstance(other.type, JSON):
            _refuse(f"JSON cannot be compared with {other}")
        return op(compact, _compact(other, part.type))
    if op in _MEMBERSHIP:
        if isinstance(other, (str, bytes, dict)) or not isinstance(other, Iterable):
            raise FieldError(f"in_() of JSON takes a list of values, not {brief(other)}")
        wanted = [form for value in other for form in _forms(value)]
    else:
        wanted = _forms(other)
    values = [_compact(bindparam(None, each, part.type, unique=True), part.type) for each in wanted]
    if op in _EQUALITY and len(values) == 1:
        return op(compact, values[0])
    if op in _DISTINCTION:
        return _DISTINCTION[op](*[op(compact, value) for value in values])
    among: Any = _EQUALITY.get(op, op)
    condition = among(compact, values)
    if len(wanted) <= MAX_LISTED:
        return condition
    texts = bindparam(
        None, ["null" if each is JSON.NULL else json_text(each) for each in wanted], part.type, unique=True
    )
    return (InDocuments if among is operators.in_op else NotInDocuments)(condition, texts)


def _compact(value: Any, kind: TypeEngine[Any]) -> Compact:
    compact = Compact(value)
    compact.type = kind
    return compact


def _forms(value: Any) -> list[Any]:
    """Return *value*, and a number also as the equal number of the other type, since JSON may have either."""
    if value is JSON.NULL:
        return [value]
    if (found := json_problem(value)) is not None:
        raise FieldError(f"JSON cannot have the value {brief(value)}: it has {found}")
    if type(value) is int and abs(value) < 2**1023 and int(float(value)) == value:
        return [value, float(value)]
    return [value, int(value)] if type(value) is float and value.is_integer() else [value]


def _refuse(problem: str) -> NoReturn:
    raise FieldError(
        f"{problem}; say what it is, as in column['key'].as_string(), as_integer(), as_float() or as_boolean()"
    )


def _parts(element: FunctionElement[Any], compiler: SQLCompiler, options: Any) -> tuple[str, str]:
    """Return the SQL of the document and of the key of *element*."""
    document, key, *_ = element.clauses
    return compiler.process(document, **options), compiler.process(key, **options)


_PART = {"sqlite": "({0} -> {1})", "postgresql": "({0} -> {1})", "mariadb": "JSON_EXTRACT({0}, {1})"}
# PostgreSQL and MariaDB would find a value that is no list as its own first item.
_ITEM = {
    "sqlite": "({0} -> {1})",
    "postgresql": "jsonb_path_query_first({0}, CAST({1} AS jsonpath), '{{}}', true)",
    "mariadb": "JSON_EXTRACT(JSON_EXTRACT({0}, '$[*]'), {1})",
}
_COMPACT = {"sqlite": "json({0})", "postgresql": "({0})::text", "mariadb": "JSON_COMPACT({0})"}
_TEXT = {
    "sqlite": "CASE json_type({part}) WHEN 'text' THEN json_extract({part}, '$') WHEN 'null' THEN NULL ELSE {part} END",
    "postgresql": "({part} #>> '{{}}')",
    "mariadb": f"(CASE WHEN JSON_TYPE({{part}}) <> 'NULL' THEN JSON_UNQUOTE({{part}}) END COLLATE {COLLATION})",
}
_BOOLEAN = {
    "sqlite": "CASE {part} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END",
    "postgresql": "CASE {part}::text WHEN 'true' THEN true WHEN 'false' THEN false END",
    "mariadb": "CASE JSON_COMPACT({part}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END",
}
_NUMBER = {
    "sqlite": "CASE WHEN json_type({part}) IN ('integer', 'real') THEN json_extract({part}, '$') END",
    "postgresql": "CASE jsonb_typeof({part}) WHEN 'number' THEN ({part} #>> '{{}}')::numeric END",
    "mariadb": "CASE WHEN JSON_TYPE({part}) IN ('INTEGER', 'DOUBLE') THEN JSON_UNQUOTE({part}) END",
}
_FLOAT = {
    "sqlite": "CAST({number} AS REAL)",
    "postgresql": "({number})::double precision",
    "mariadb": "CAST({number} AS DOUBLE)",
}
_INTEGER = {
    "sqlite": "CAST({number} AS INTEGER)",
    "postgresql": "trunc({number})::bigint",
    "mariadb": "CAST(TRUNCATE(CAST({number} AS DECIMAL(65, 30)), 0) AS SIGNED)",
}
_NUMERIC = {
    "sqlite": "round({number}, {scale})",
    "postgresql": "round({number}, {scale})",
    "mariadb": "ROUND(CAST({number} AS DECIMAL(65, 30)), {scale})",
}
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


def _dialect(compiler: SQLCompiler) -> str:
    """Return the name in the templates; that of PostgreSQL for expressions that are only shown."""
    name = "mariadb" if compiler.dialect.name in MARIADB else compiler.dialect.name
    return name if name in _PART else "postgresql"


def _part_template(element: FunctionElement[Any]) -> dict[str, str]:
    key = list(element.clauses)[1]
    return _ITEM if isinstance(key.type, DocumentIndex) else _PART


def _sql(element: FunctionElement[Any], compiler: SQLCompiler, options: Any) -> dict[str, Any]:
    """Return the SQL of the parts of *element*, by the names that the templates have, and the dialect's name."""
    dialect = _dialect(compiler)
    document, key = _parts(element, compiler, options)
    part = _part_template(element)[dialect].format(document, key)
    number = _NUMBER[dialect].format(document, key, part=part)
    return {"dialect": dialect, "args": (document, key), "part": part, "number": number}


def _rendered(
    templates: dict[str, str], element: FunctionElement[Any], compiler: SQLCompiler, options: Any
) -> str:
    sql = _sql(element, compiler, options)
    return templates[sql["dialect"]].format(*sql["args"], part=sql["part"], number=sql["number"])


@compiles(Part)
def _part(element: Part, compiler: SQLCompiler, **options: Any) -> str:
    return _rendered(_part_template(element), element, compiler, options)


@compiles(Compact)
def _compact_text(element: Compact, compiler: SQLCompiler, **options: Any) -> str:
    (value,) = element.clauses
    return _COMPACT[_dialect(compiler)].format(compiler.process(value, **options))


@compiles(InDocuments)
def _in_documents(element: InDocuments, compiler: SQLCompiler, **options: Any) -> str:
    condition: Any
    condition, texts = element.clauses
    if _dialect(compiler) == "mariadb":
        return f"({compiler.process(condition, **options)})"
    listed = compiler.process(texts, **options)
    values = {
        "sqlite": f"SELECT json(value) FROM json_each({listed})",
        "postgresql": f"SELECT CAST(value AS jsonb)::text FROM jsonb_array_elements_text({listed})",
    }[_dialect(compiler)]
    words = "NOT IN" if isinstance(element, NotInDocuments) else "IN"
    return f"({compiler.process(condition.left, **options)} {words} ({values}))"


@compiles(AsString)
def _as_string(element: AsString, compiler: SQLCompiler, **options: Any) -> str:
    return _rendered(_TEXT, element, compiler, options)


@compiles(AsBoolean)
def _as_boolean(element: AsBoolean, compiler: SQLCompiler, **options: Any) -> str:
    return f"({_rendered(_BOOLEAN, element, compiler, options)})"


@compiles(AsFloat)
def _as_float(element: AsFloat, compiler: SQLCompiler, **options: Any) -> str:
    return _rendered(_FLOAT, element, compiler, options)


@compiles(AsInteger)
def _as_integer(element: AsInteger, compiler: SQLCompiler, **options: Any) -> str:
    # MariaDB's number is a text; the others compare theirs exactly.
    number = _rendered({**_NUMBER, "mariadb": _FLOAT["mariadb"]}, element, compiler, options)
    integer = _rendered(_INTEGER, element, compiler, options)
    return f"(CASE WHEN ({number}) BETWEEN {MIN_INTEGER} AND {MAX_INTEGER} THEN {integer} END)"


@compiles(AsNumeric)
def _as_numeric(element: AsNumeric, compiler: SQLCompiler, **options: Any) -> str:
    *_, scale, limit = (compiler.process(each, **options) for each in element.clauses)
    sql = _sql(element, compiler, options)
    number = _NUMERIC[sql["dialect"]].format(number=sql["number"], scale=scale)
    made = f"(CASE WHEN abs({number}) < {limit} THEN {number} END)"
    # MariaDB's decimals have the places of their type, not those that they are rounded to.
    return f"CAST({made} AS DECIMAL(65, {scale}))" if sql["dialect"] == "mariadb" else made
