"""Annotations: the attributes for numbers and other expressions that `Query.annotate` loads beside the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, Self, TypeVar, overload

from microorm.errors import FieldError

T = TypeVar("T")


class Annotation(Generic[T]):
    """The declared attribute of instances that a query annotates: a T that is read, never assigned nor saved."""

    name = ""

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> T: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: object, value: Never) -> None: ...

    else:

        def __get__(self, instance, owner):
            if instance is None:
                return self
            try:
                return instance.__dict__[self.name]
            except KeyError:
                raise AttributeError(
                    f"{owner.__name__}.{self.name} was not loaded; the query needs annotate({self.name}=…)"
                ) from None

        def __set__(self, instance, value):
            raise AttributeError(
                f"{type(instance).__name__}.{self.name} is an annotation, which is only read"
            )

    def __repr__(self) -> str:
        return f"<annotation {self.name}>"


def annotation(*, init: Literal[False] = False) -> Any:
    """Declare an attribute that `annotate()` loads: `book_count: Annotation[int] = annotation()`.

    Type checkers know it then. *init* is for them: the constructor takes no such argument.
    """
    return Annotation()


def refuse_clash(schema: Any, name: str) -> None:
    """Raise `FieldError` if instances cannot have an annotation called *name*."""
    taken = None
    if name in schema.by_name or name in schema.relations:
        taken = f"{schema.name} has a {'field' if name in schema.by_name else 'relation'} of this name"
    elif name.startswith("_") or not name.isidentifier():
        taken = "it must be an identifier without a leading underscore"
    elif not isinstance(getattr(schema.model, name, _FREE), Annotation):
        taken = f"it is the name of {schema.name}.{name}"
    if taken is not None:
        raise FieldError(f"annotate(): {name!r} cannot be the name of an annotation: {taken}")


_FREE: Annotation[Any] = Annotation()


def set_annotations(instances: Sequence[Any], names: Sequence[str], rows: Sequence[Any]) -> None:
    """Set in each of *instances* the values of the annotations *names*, with which its row ends."""
    count = len(names)
    for instance, row in zip(instances, rows, strict=True):
        instance.__dict__.update(zip(names, row[-count:], strict=True))
