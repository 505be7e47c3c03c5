"""Values of expressions, which are checked and bound with the type of what they are compared with or written to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.types import NullType

from microorm.errors import FieldError
from microorm.fields import checks
from microorm.fields.arithmetic import is_moment
from microorm.fields.checks import InvalidFieldValue
from microorm.fields.computed import Branch
from microorm.fields.elements import is_guessed, is_instance, keep_instance, kept, value_of, values_of
from microorm.fields.families import CHECKS, NUMBERS, TEMPORAL, Term, comparable, family_of_type
from microorm.fields.field import Field
from microorm.fields.rebuilt import set_clock
from microorm.fields.types import UtcDateTime, UtcNow


class Literals:
    """Checks and binds the values of an expression; *instances*: those that it uses, or whose keys."""

    def __init__(self) -> None:
        self.instances: list[Any] = []

    def bind(self, literal: Any, known: Term, *, written: bool = False, branch: bool = False) -> None:
        """Check the value of *literal* as one of *known*, and bind it with its type; *branch*: it is among others of it."""
        if isinstance(literal, UtcNow):
            if not comparable(known.family, "datetime"):
                self.refuse_families(known, Term("datetime"))
            if known.type is not None and is_moment(known.type):
                set_clock(literal, known.type)
            return
        if not isinstance(literal, sa.BindParameter):
            self.clean(value_of(literal), known, written=written)
            return
        if literal.callable is not None or literal.required:
            return
        values = values_of(literal)
        if isinstance(literal.type, Branch):
            return
        if literal.type is not known.type and not is_guessed(literal, values):
            kind = family_of_type(literal.type)
            if not comparable(kind, known.family):
                self.refuse_families(known, Term(kind))
            return
        self.keep_instances(literal, values)
        cleaned = [kept(value, self.clean(value, known, written=written)) for value in values]
        literal.value = cleaned if literal.expanding else cleaned[0]
        if known.type is not None and (known.exact or known.family not in NUMBERS):
            literal.type = Branch(known.type) if branch and known.family in TEMPORAL else known.type
        elif isinstance(literal.type, NullType) and cleaned and cleaned[0] is not None:
            literal.type = sa.literal(cleaned[0]).type

    def keep_instances(self, literal: Any, values: Iterable[Any]) -> None:
        """Remember the instances among *values* of *literal*, which are replaced by their keys."""
        for value in filter(is_instance, values):
            keep_instance(literal, value)
            self.instances.append(value)

    def clean(self, value: Any, known: Term, *, written: bool = False) -> Any:
        """Return *value* as one of *known*, checked; None is NULL. Raises `InvalidValue`."""
        field = known.field
        if value is None or (not known.exact and known.family not in CHECKS):
            return value
        if known.exact and field is not None and not written:
            return field.comparable(value)
        try:
            if known.exact and field is not None:
                return field.validated(field.clean(field.key_of(value)))
            if known.family == "datetime" and not isinstance(known.type, UtcDateTime):
                return checks.NAIVE.clean(value)
            return CHECKS[known.family](value)
        except InvalidFieldValue as refused:
            return self.refuse(field, refused)

    def refuse_families(self, one: Term, other: Term) -> NoReturn:
        """Raise an error for two operands of different kinds."""
        there = f"{other.field.label}, which is {other.family}" if other.field is not None else other.family
        self.refuse(one.field, f"is {one.family} and cannot be compared with {there}; cast() one of them")

    def refuse(self, field: Field[Any] | None, problem: str | InvalidFieldValue) -> NoReturn:
        """Raise `InvalidValue` for *field*, or `FieldError` where none is known."""
        raise FieldError(f"an expression {problem}") if field is None else field.invalid(problem)
