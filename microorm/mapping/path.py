"""Paths along relations, such as `Book.author.country`, and the joins that their columns need.

The rows at the end of a path have an alias of their own in a statement, made when one of their columns is first used.
Each path exists once, so two uses of a path need one join.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from threading import Lock
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import BindParameter, ColumnClause, ColumnElement, Exists, FromClause, ScalarSelect, select
from sqlalchemy.sql import ClauseElement, visitors
from sqlalchemy.sql.selectable import Join, Select, SelectBase

from microorm.errors import FieldError, nearest

_alias_lock = Lock()

ALONG = "microorm_along"
"""The execution option of a SELECT of an aggregate along a path to many rows: the paths that the query around it joins."""

MAX_NESTING = 100
"""How deep an expression may be nested. SQLAlchemy's compiler needs some five calls for each level, of Python's 1000."""


class Step(NamedTuple):
    """One foreign key, followed forward or in *reverse*."""

    foreign_key: Any
    reverse: bool

    @property
    def schema(self) -> Any:
        """The schema of the rows at its end."""
        return (self.foreign_key.owner if self.reverse else self.foreign_key.target).__schema__

    @property
    def near(self) -> Any:
        """The joined field at its start."""
        return self.foreign_key.to if self.reverse else self.foreign_key.field

    @property
    def far(self) -> Any:
        """The joined field at its end."""
        return self.foreign_key.field if self.reverse else self.foreign_key.to

    @property
    def many(self) -> bool:
        """Whether it may lead to several rows."""
        return self.reverse and not self.foreign_key.unique

    @property
    def optional(self) -> bool:
        """Whether it may lead to no row."""
        return self.reverse or self.foreign_key.optional


class Path:
    """A path along relations; its attributes are the columns at its end, and longer paths."""

    __slots__ = (
        "__weakref__",
        "_alias",
        "_further",
        "_label",
        "_many",
        "_outer",
        "_parent",
        "_root",
        "_schema",
        "_step",
    )

    def __init__(self, schema: Any, label: str, parent: Path | None = None, step: Step | None = None) -> None:
        self._schema = schema
        self._parent = parent
        self._step = step
        self._root: Any = schema if parent is None else parent._root
        self._label = label
        self._alias: FromClause | None = None
        self._further: dict[Any, Path] = {}
        self._many: bool = parent is not None and step is not None and (parent._many or step.many)
        # An outer join makes all later joins of the path outer joins.
        self._outer: bool = parent is not None and step is not None and (parent._outer or step.optional)

    def __repr__(self) -> str:
        return f"<path {self._label}>"

    def __dir__(self) -> list[str]:
        """Return the names of the fields and relations at its end."""
        schema = self._schema
        return sorted({*schema.names, *schema.relations, *(["pk"] if len(schema.key) == 1 else [])})

    def __copy__(self) -> Path:
        return self  # there is one object for each path

    def __deepcopy__(self, memo: dict[int, Any]) -> Path:
        return self

    def __reduce__(self) -> Any:
        return (_path_of, (self._root.model, self._label.split(".")[1:]))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        schema = self._schema
        if (relation := schema.relations.get(name)) is not None:
            return follow(self, relation)
        if name == "pk" and len(schema.key) == 1:
            return column_at(self, schema.key[0])
        if (field := schema.by_name.get(name)) is None:
            known = (*schema.names, *schema.relations)
            raise FieldError(f"{self!r}: {schema.name} has no field {name!r}{nearest(name, known)}")
        return column_at(self, field)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise TypeError(f"{self!r} is a path to rows of {self._schema.name}, not the model")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Path):
            return self is other
        raise TypeError(
            f"{self!r} cannot be compared; compare a column, or use filter({self._label.partition('.')[2]}=…)"
        )

    __hash__ = object.__hash__

    is_clause_element = False  # SQLAlchemy asks for it, and a FieldError would be no answer

    def __clause_element__(self) -> NoReturn:
        """Raise `TypeError` where SQLAlchemy is given the path as a value, as in `func.count(Author.books)`."""
        key = self._schema.key[0].name
        raise TypeError(
            f"{self!r} is a path to rows, not a value; name a column at its end, such as {self._label}.{key}"
        )


def _path_of(model: Any, names: list[str]) -> Path:
    """Return the path along the relations *names* of *model*."""
    path: Path = reduce(getattr, names, model)
    return path


def root(schema: Any) -> Path:
    """Return the empty path of *schema*."""
    found: Path | None = schema.paths.get("")
    return schema.paths.setdefault("", Path(schema, schema.name)) if found is None else found


def follow(path: Path, relation: Any) -> Path:
    """Return *path* extended by *relation*."""
    label = f"{path._label}.{relation.name}"
    for step in relation.steps:
        known = path._further.get(step)
        path = known or path._further.setdefault(step, Path(step.schema, label, path, step))
    return path


def column_at(path: Path, field: Any) -> ColumnElement[Any]:
    """Return the column of *field* at the end of *path*, or the foreign key that is equal to it."""
    holder, field = _holder(path, field)
    column: ColumnElement[Any] = field.column
    return column if holder._step is None else alias_of(holder).c[field.column.key]


def alias_of(path: Path) -> FromClause:
    """Return the alias of the table at the end of *path*."""
    with _alias_lock:  # one alias for each path
        alias = path._alias
        if alias is None:
            alias = path._alias = path._schema.table.alias()
            path._root.registry.paths[alias] = path
        return alias


def joined(schema: Any, paths: Iterable[Path]) -> FromClause:
    """Return the table of *schema* joined to the tables along *paths*."""
    needed: dict[Path, None] = {}
    for path in sorted(paths, key=lambda path: (_depth(path), path._label)):
        _add_joins(path, needed)
    source: FromClause = schema.table
    for path in needed:
        source = source.join(alias_of(path), _met(path), isouter=path._outer)
    return source


def paths_in(schema: Any, given: ClauseElement, lists: list[Any] | None = None) -> frozenset[Path]:
    """Return the paths of *schema* whose columns the expression *given* contains, and add lists of values to *lists*.

    Raises `FieldError` for a column of another table, which would join every row of it, and change or delete too much,
    and for an expression that is nested too deep. A sub-select may contain other tables; its paths count if it does not
    join them itself.
    """
    known, own = schema.registry.paths, schema.table
    found: set[Path] = set()
    left: list[Any] = [given]
    deeper: list[Any] = []
    depth = 0
    while left or deeper:
        if not left:
            left, deeper, depth = deeper, [], depth + 1
            if depth > MAX_NESTING:
                raise too_deep(schema)
        element = left.pop()
        if isinstance(element, BindParameter):
            if element.expanding and lists is not None:
                lists.append(element)
            continue
        if isinstance(element, ColumnClause):
            table = element.table
            if table is own or table is None:
                continue
            path = known.get(table)
            if path is None:
                raise FieldError(f"{schema.name}: {element} is a column of another table")
            if path._root is not schema:
                raise FieldError(f"{schema.name}: {element.name!r} of {path!r} is a column of another table")
            found.add(path)
        elif isinstance(element, (SelectBase, ScalarSelect, Exists)):
            if (around := joined_around(element)) is not None:
                found.update(around)
                continue
            _refuse_deep(schema, element, depth)
            found.update(_unjoined(schema, element) if known else ())
        else:
            deeper += element.get_children()
    return frozenset(found)


def joined_around(element: Any) -> frozenset[Path] | None:
    """Return the paths that the query around *element* joins, if that is an aggregate along a path; else None."""
    selected = element.element if isinstance(element, ScalarSelect) else None
    found: frozenset[Path] | None
    found = selected.get_execution_options().get(ALONG) if isinstance(selected, Select) else None
    return found


def _refuse_deep(schema: Any, nested: ClauseElement, depth: int) -> None:
    """Raise `FieldError` if a sub-select, *depth* levels deep in an expression, makes that too deep."""
    level: list[Any] = [nested]
    while level:
        if depth > MAX_NESTING:
            raise too_deep(schema)
        level = [child for element in level for child in element.get_children()]
        depth += 1


def too_deep(schema: Any) -> FieldError:
    """Return the error for an expression that SQLAlchemy, which is recursive, may not be able to compile."""
    return FieldError(
        f"{schema.name}: the expression is nested more than {MAX_NESTING} levels deep; write and_(*conditions), "
        "or_(*conditions) or column.in_(values) for a long list"
    )


def refuse_foreign(schema: Any, given: ClauseElement) -> None:
    """Raise `FieldError` if *given*, an expression to write, contains a column of another table or path."""
    for path in paths_in(schema, given):
        raise FieldError(f"{schema.name}: an expression to write cannot contain a column of {path!r}")


def refuse_columns(schema: Any, names: Iterable[str], row: Iterable[Any]) -> None:
    """Raise `FieldError` if an expression in *row*, which is inserted, contains a column, which has no value yet.

    MariaDB would take the default of the column. A sub-select may contain columns.
    """
    for name, value in zip(names, row, strict=True):
        left: list[Any] = [value] if isinstance(value, ClauseElement) else []
        while left:
            element = left.pop()
            if isinstance(element, ColumnClause) and element.table is not None:
                raise FieldError(
                    f"{schema.name}.{name}: a row that is inserted has no {element.name} yet that an expression could use; "
                    "give a value, or change the row with update() afterwards"
                )
            if not isinstance(element, (SelectBase, ScalarSelect, Exists)):
                left += element.get_children()


def exists_along(schema: Any, condition: ColumnElement[bool], paths: Iterable[Path]) -> ColumnElement[bool]:
    """Return a condition that is true if *condition* is, for any of the rows along *paths*; it repeats no rows."""
    key = [field.column for field in schema.key]
    inner = select(*key).select_from(joined(schema, paths)).where(condition).correlate(None)
    in_key: ColumnElement[bool] = schema.key_in(inner)
    return in_key


def rows_along(schema: Any, method: str, paths: Iterable[Path]) -> Path:
    """Return the path, ending in a step to many rows, to the rows that an aggregate over columns at *paths* is made of.

    Raises `FieldError` for *paths* that part, whose rows would multiply each other.
    """
    rows = sorted(map(_many_part, paths), key=_depth)
    for path in rows:
        if path not in _lineage(rows[-1]):
            raise FieldError(
                f"{method}(): an aggregate of {schema.name} is of the rows along one path, not along both {path!r} and "
                f"{rows[-1]!r}"
            )
    return rows[-1]


def select_along(schema: Any, rows: Path, paths: Iterable[Path], selected: Any) -> Select[Any]:
    """Return a SELECT of *selected*, from the *rows* that belong to one row of *schema* and what else is at *paths*.

    It is correlated with the query around it, which has to join the paths to one row (`joined_around`).
    """
    needed: dict[Path, None] = {}
    for path in sorted({rows, *paths}, key=lambda path: (_depth(path), path._label)):
        _add_joins(path, needed)
    inside = [path for path in needed if path._many]
    around = frozenset(path for path in needed if not path._many)
    line = _lineage(rows)
    source = alias_of(inside[0])
    for path in inside[1:]:
        source = source.join(alias_of(path), _met(path), isouter=_may_miss(path, line))
    statement: Select[Any] = select(selected).select_from(source).where(_met(inside[0]))
    statement = statement.correlate(schema.table, *map(alias_of, around))
    return statement.execution_options(**{ALONG: around})


def _met(path: Path) -> ColumnElement[bool]:
    """Return the condition by which the rows at the end of *path* are joined."""
    step, parent = path._step, path._parent
    assert step is not None
    assert parent is not None
    met: ColumnElement[bool] = alias_of(path).c[step.far.column.key] == column_at(parent, step.near)
    return met


def _many_part(path: Path) -> Path:
    """Return *path*, which leads to many rows, up to its last step to many."""
    return next(each for each in _lineage(path) if each._step is not None and each._step.many)


def _may_miss(path: Path, line: Sequence[Path]) -> bool:
    """Return whether a row at the end of *line* may have none at *path*, which parts from *line* on its way."""
    parted = [each for each in _lineage(path) if each not in line]
    return any(each._step is not None and each._step.optional for each in parted)


def _lineage(path: Path | None) -> list[Path]:
    """Return *path* and all that it continues, the shortest last."""
    return [] if path is None else [path, *_lineage(path._parent)]


def _unjoined(schema: Any, nested: ClauseElement) -> Iterable[Path]:
    """Return the paths of *schema* in a sub-select that it does not join itself."""
    elements = list(visitors.iterate(nested))
    inside = {
        table
        for element in elements
        if isinstance(element, Select)
        for source in element.get_final_froms()
        if isinstance(source, Join)
        for table in visitors.iterate(source)
    }
    for element in elements:
        if isinstance(element, ColumnClause) and element.table is not None and element.table not in inside:
            path = schema.registry.paths.get(element.table)
            if path is not None and path._root is schema:
                yield path


def _holder(path: Path, field: Any) -> tuple[Path, Any]:
    """Return the shortest path with the value of *field*: the foreign key instead of the key it refers to."""
    step, parent = path._step, path._parent
    if step is None or parent is None or step.reverse or field is not step.far:
        return path, field
    return _holder(parent, step.near)


def _add_joins(path: Path, needed: dict[Path, None]) -> None:
    """Add *path* to *needed*, after the paths that it is joined to."""
    step, parent = path._step, path._parent
    if step is None or parent is None or path in needed:
        return
    _add_joins(_holder(parent, step.near)[0], needed)
    needed[path] = None


def _depth(path: Path) -> int:
    return 0 if path._parent is None else 1 + _depth(path._parent)
