"""Where queries begin: `Model.objects`, and the same for query classes of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

from microorm.messages import brief
from microorm.query.results import Results
from microorm.sql.cache_key import cacheable

if TYPE_CHECKING:
    from microorm.query.query import Query

M = TypeVar("M", bound="Any")
Q = TypeVar("Q", bound="Begun[Any]")
Q_co = TypeVar("Q_co", bound="Begun[Any]", covariant=True)


class Begun(Results[M]):
    """A query that begins with the default filter of its class."""

    __slots__ = ()

    @classmethod
    def as_objects(cls: type[Q]) -> ObjectsOf[Q]:
        """Return a class attribute for models, with which queries of this class begin: `objects = BookQuery.as_objects()`.

        A model may have several, of any names. The class of `objects` is also that of queries of related rows. Abstract models
        hand them down.
        """
        return ObjectsOf(cls)

    def default_filter(self) -> Self:
        """Return the query with the conditions with which queries of this class begin: none, unless a class overrides this.

        It is called each time that a query begins, so the conditions may depend on the moment. They apply to what the query
        reads, updates and deletes. Instances that are there are saved, deleted and refreshed without them, and a foreign
        key is followed without them.
        """
        return self

    def unfiltered(self) -> Self:
        """Return the query without the conditions of `default_filter`; all that was added later stays.

        Raises `TypeError` after a condition on a window function, which has chosen among the rows of the default filter.
        """
        if (default := self._default) is None:
            return self
        if default.chosen:
            raise TypeError(
                "unfiltered() must be called before a condition on a window function, which chooses among the rows so far"
            )
        names, values = self._equal
        instances = list(self._instances)
        del instances[default.instances]
        return self._with(
            _where=cacheable(self._schema, _without(self._where, default.where)),
            _equal=(_without(names, default.equal), _without(values, default.equal)),
            _instances=tuple(instances),
            _default=None,
        )

    def _begun(self) -> Self:
        """Return the query with the conditions of `default_filter`. Raises `TypeError` unless that returns such a query."""
        found = self.default_filter()
        if found is self:
            return self
        if not isinstance(found, type(self)):
            raise TypeError(
                f"{type(self).__name__}.default_filter() must return a query of its class, not {brief(found)}"
            )
        if found._limited or found._grouped or found._lock is not None:
            raise TypeError(
                f"{type(self).__name__}.default_filter() cannot limit, group or lock rows, only filter them"
            )
        default = DefaultFilter(
            slice(len(self._where), len(found._where)),
            slice(len(self._equal[0]), len(found._equal[0])),
            slice(len(self._instances), len(found._instances)),
        )
        return found._with(_default=default)

    @property
    def _has_conditions(self) -> bool:
        """Whether there are conditions besides those of the default filter."""
        default, names = self._default, self._equal[0]
        if default is None:
            return bool(self._where or names)
        return len(self._where) + len(names) > len(self._where[default.where]) + len(names[default.equal])


class DefaultFilter(NamedTuple):
    """Which of the conditions of a query are those of its default filter.

    *chosen*: others are in them as well, since a window function was computed of the rows that they had found.
    """

    where: slice
    equal: slice
    instances: slice
    chosen: bool = False


def _without(given: tuple[Any, ...], part: slice) -> tuple[Any, ...]:
    return given[: part.start] + given[part.stop :]


class Objects:
    """`Model.objects`: a query of the rows of the model, made by the class *kind*."""

    _filters = False  # whether queries begin with a default filter

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self._name = ""
        self._slot = ""

    def __set_name__(self, owner: Any, name: str) -> None:
        self._name, self._slot = name, f"__query_{name}__"

    def __get__(self, instance: None, owner: type[M]) -> Query[M]:
        if instance is not None:
            raise AttributeError(f"{self._name} belongs to the model, not to an instance")
        query: Query[M] | None = owner.__dict__.get(self._slot)
        if query is None:
            query = self._kept(owner)
        return query._begun() if self._filters else query

    def _kept(self, owner: Any) -> Query[Any]:
        """Make the query of *owner* from which all others come, and keep it. Raises `AttributeError` for an abstract model."""
        if owner.__options__.abstract:
            raise AttributeError(f"{owner.__name__} is abstract and has no rows")
        query: Query[Any] = self.kind(owner)
        type.__setattr__(owner, self._slot, query)
        return query


class ObjectsOf(Objects, Generic[Q_co]):
    """What `as_objects()` returns: a class attribute with which queries of one's own class begin."""

    def __init__(self, kind: type[Q_co]) -> None:
        super().__init__(kind)
        self._filters = kind.default_filter is not Begun.default_filter

    if TYPE_CHECKING:

        def __get__(  # type: ignore[override]  # another class than that of Model.objects
            self, instance: None, owner: Any
        ) -> Q_co: ...  # pyright: ignore[reportIncompatibleMethodOverride]


def query_class_of(model: Any) -> type[Any]:
    """Return the class of the queries that `objects` of *model* makes."""
    objects = next(vars(each)["objects"] for each in model.__mro__ if "objects" in vars(each))
    kind: type[Any] = objects.kind
    return kind
