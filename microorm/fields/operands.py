"""Values inside of SQL expressions: each is checked, and bound, as the field would that it is compared with or written to.

SQLAlchemy gives a value in an expression the type of its operand, or guesses one where it has none, as in `case()`. What
the database then makes of a wrong value differs: MariaDB takes every text for 0. So every expression that a query or a
save is given goes through `check`, which finds the field for each value: the operand of a comparison, the other branches
of a `case()` or a `coalesce()`, or the field that is written.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping, OperatorExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase

from microorm.errors import FieldError
from microorm.fields.arithmetic import ARITHMETIC, text_of
from microorm.fields.checks import shown
from microorm.fields.columns import FieldExpression
from microorm.fields.computed import (
    Elapsed,
    FloorDivided,
    Rounded,
    Shifted,
    ShiftedDate,
    WholeMicroseconds,
)
from microorm.fields.elements import (
    KeyParameter,
    check_comparison,
    keys_of,
    operands_of,
    refuse_rows,
    results_of,
    value_of,
    values_of,
)
from microorm.fields.families import (
    BITWISE,
    COMPARISONS,
    NUMBER_FUNCTIONS,
    NUMBERS,
    SAME_NUMBER,
    SAME_TYPE,
    TEXT_FUNCTIONS,
    TEXT_OPERATORS,
    Term,
    comparable,
    default_type,
    family_in,
    family_of,
    family_of_type,
    field_of,
    of_field,
    places_of,
    result_of,
    stands_for,
)
from microorm.fields.field import Field
from microorm.fields.literals import Literals
from microorm.fields.rebuilt import CLOCKS, Rebuilt, aggregated, become, rebuilt, set_cast, set_clock, set_sum
from microorm.fields.types import Choice, ExactNumeric, UtcDateTime, UtcNow


def check(expression: Any, target: Field[Any] | None = None) -> Sequence[Any]:
    """Check the values in *expression*, which is written to *target* where one is given, and give them their types.

    Return the instances that the expression uses, which must be of the alias that it is sent to. Raises `InvalidValue`, and `FieldError` for an operation whose result differs between databases or is undefined.
    """
    if target is None:
        if isinstance(expression, sa.Column):
            return ()
        plain = expression.__class__ in (FieldExpression, sa.BinaryExpression)
        if plain and check_comparison(expression.left, expression.operator, expression.right):
            return expression.right.instances if isinstance(expression.right, KeyParameter) else ()
    walk = _Walk(target)
    if target is not None:
        walk.assign(expression, target)
    found = walk.term(expression)
    if target is None:
        walk.settle(found)
    else:
        walk.set_clocks(found, target)
        walk.refuse_unwritable(target, found, expression)
    return walk.instances


class _Walk(Literals):
    """Walks through one expression."""

    def __init__(self, target: Field[Any] | None) -> None:
        super().__init__()
        self.target = target
        self.found: dict[int, Term] = {}
        self.keys: set[int] = set()  # of the queries that stand for their keys

    def term(self, element: Any) -> Term:
        """Return what is known of *element*, after checking what is in it."""
        found = self.found.get(id(element))
        if found is None:
            found = self.found[id(element)] = self._term(element)
        return found

    def _term(self, element: Any) -> Term:
        if isinstance(element, (sa.BindParameter, sa.True_, sa.False_)):
            if isinstance(element, KeyParameter):
                self.instances += element.instances
            return Term(literals=(element,))
        if isinstance(element, sa.ColumnClause):
            field = field_of(element)
            if field is None:
                return Term(family_of_type(element.type), type=element.type)
            return of_field(field)._replace(type=element.type)
        if isinstance(element, Rebuilt):
            return self.term(element.left)
        if isinstance(element, (OperatorExpression, sa.UnaryExpression)):
            return self._operation(element)
        if isinstance(element, (sa.Label, Grouping)):
            term = self.term(element.element)
            kind = getattr(element.element, "type", element.type)
            if element.type is not kind:
                element.type = kind
            return term._replace(followers=(*term.followers, element)) if term.literals else term
        if isinstance(element, sa.Case):
            return self._case(element)
        if isinstance(element, CLOCKS):
            set_clock(element, UtcDateTime())
            return Term(literals=(element,))
        if isinstance(element, (sa.Cast, sa.TypeCoerce)):
            return self._cast(element)
        if isinstance(element, FunctionElement):
            return self._function(element)
        if isinstance(element, (sa.Over, sa.FunctionFilter, sa.WithinGroup)):
            inner = aggregated(element)
            self.visit(each for each in element.get_children() if each is not inner)
            return self.term(inner)
        if isinstance(element, (SelectBase, sa.ScalarSelect)):
            return self._select(element)
        children = list(element.get_children())
        self.visit(children)
        kind = getattr(element, "type", None)
        return Term(family_of_type(kind), self.origin(children), type=kind)

    def visit(self, elements: Iterable[Any]) -> None:
        """Check what is in each of *elements*."""
        left = list(elements)
        while left:
            element = left.pop()
            if isinstance(element, (sa.ColumnElement, SelectBase)):
                self.term(element)
            elif not isinstance(element, sa.TableClause):
                left += element.get_children()

    def origin(self, elements: Iterable[Any]) -> Field[Any] | None:
        """Return the first field that *elements* are made of, which messages name."""
        for each in elements:
            field: Field[Any] | None = self.term(each).field if isinstance(each, sa.ColumnElement) else None
            if field is not None:
                return field
        return None

    def same(self, elements: Sequence[Any], follower: Any = None) -> Term:
        """Return what is known of all *elements*, which are of one type, and of *follower*, whose type that is."""
        terms = [self.term(each) for each in elements]
        known = next((each for each in terms if each.exact), None) or next(
            (each for each in terms if each.known), Term()
        )
        literals = tuple(each for term in terms for each in term.literals)
        followers = tuple(each for term in terms for each in term.followers)
        if follower is not None:
            followers += (follower,)
        if not known.known:
            field = next((each.field for each in terms if each.field is not None), None)
            return Term(field=field, literals=literals, followers=followers)
        for term in terms:
            if not comparable(known.family, term.family):
                self.refuse_families(known, term)
        for each in literals:
            self.bind(each, known, branch=bool(followers))
        for each in followers:
            if known.type is not None and each.type is not known.type:
                each.type = known.type
        return known

    def settle(self, term: Term) -> None:
        """Give values that nothing decides about the types that fields with such values have."""
        if not term.known:
            refuse_rows(term.literals)
        literals = [each for each in term.literals if not isinstance(each, UtcNow)]
        values = [value for each in literals for value in values_of(each) if value is not None]
        # The decimal with most places, if there are decimals.
        sample = max(values, key=places_of, default=None)
        if term.known or (kind := default_type(sample)) is None:
            return
        known = Term(None if isinstance(kind, Choice) else family_of(type(sample)), type=kind)
        for literal in term.literals:
            self.bind(literal, known, branch=True)
            if isinstance(kind, ExactNumeric):
                literal.type = kind
        for each in term.followers:
            each.type = kind

    def _cast(self, element: Any) -> Term:
        self.visit([element.clause])
        source = self.term(element.clause)
        if isinstance(element, sa.Cast) and (made := set_cast(element, source)).known:
            if isinstance(element.clause, sa.BindParameter):
                self.clean(value_of(element.clause), made)
            self.settle(source)
            return made
        return Term(family_of_type(element.type), self.origin([element.clause]), type=element.type)

    def _case(self, element: sa.Case[Any]) -> Term:
        if element.value is None:
            self.visit(condition for condition, _ in element.whens)
        else:
            self.same([element.value, *(condition for condition, _ in element.whens)])
        return self.same(results_of(element), element)

    def _function(self, element: Any) -> Term:
        arguments = list(element.clauses)
        if isinstance(element, Elapsed):
            self.same(arguments)
            return Term("timedelta", self.origin(arguments), type=element.type)
        if isinstance(element, Shifted) and (moved := self.term(arguments[0])).literals:
            self.visit(arguments[1:])
            return moved._replace(followers=(*moved.followers, element))
        if isinstance(element, (Shifted, ShiftedDate, Rounded, WholeMicroseconds)):
            self.visit(arguments)
            return Term(self.term(arguments[0]).family, self.origin(arguments), type=element.type)
        if isinstance(element, FloorDivided):
            return self._arithmetic(element, operators.floordiv, arguments)
        name = str(getattr(element, "name", "")).lower()
        if name in SAME_TYPE:
            first, last = SAME_TYPE[name]
            self.visit(arguments)
            return self.same(arguments[first:last], element)
        if name in ("lag", "lead"):
            self.visit(arguments)
            return self.same([*arguments[:1], *arguments[2:]], element)
        self.visit(arguments)
        refuse_rows(literal for each in arguments for literal in self.term(each).literals)
        field = self.origin(arguments)
        if name in ("sum", "avg") and arguments:
            return self._total(element, name, arguments[0], field)
        if name in TEXT_FUNCTIONS:
            if "bytes" in map(self._family, arguments):
                raise FieldError(f"{text_of(element)} has no defined result for bytes; compute it in Python")
            return Term("str", field, type=sa.String())
        if name in ("pow", "power"):
            return self._power(element, arguments, field)
        if name in NUMBER_FUNCTIONS:
            return Term(NUMBER_FUNCTIONS[name], field)
        if name in SAME_NUMBER and all(self._family(each) == "int" for each in arguments):
            return Term("int", field)
        return Term(family_of_type(element.type), field, type=element.type)

    def _total(self, element: Any, name: str, argument: Any, field: Field[Any] | None) -> Term:
        """Return what is known of a sum or an average."""
        of = self.term(argument)
        self.settle(of)
        if of.family is not None and of.family not in (*NUMBERS, "timedelta"):
            raise FieldError(
                f"{text_of(element)} has no defined result; {name}() needs numbers, not {of.family}"
            )
        if name == "avg":
            return Term("number" if of.family in NUMBERS else None, field)
        if isinstance(of.type, Choice):
            element.type = of.type.value_type
        set_sum(element, argument)
        return Term(of.family, field, type=element.type)

    def _has_mask(self, parts: Sequence[Any]) -> bool:
        """Return whether one of *parts* is a value without a sign; MariaDB's integers of bits have none."""
        values = [value for part in parts for each in self.term(part).literals for value in values_of(each)]
        return any(type(value) is int and value >= 0 for value in values)

    def _family(self, argument: Any) -> str | None:
        return family_in(self.term(argument))

    def _power(self, element: Any, arguments: list[Any], field: Field[Any] | None) -> Term:
        """Return what is known of a power, which is a float everywhere only if an operand is."""
        if not any(self._family(each) == "float" for each in arguments):
            raise FieldError(
                f"{text_of(element)} has other digits on each database; write cast(…, Double) ** …"
            )
        return Term("float", field)

    def _operation(self, element: Any) -> Term:
        operator = (
            element.operator or element.modifier
            if isinstance(element, sa.UnaryExpression)
            else element.operator
        )
        parts = operands_of(element)
        if operator in COMPARISONS:
            self._compare(operator, parts)
            return Term("bool", type=element.type)
        if operator in TEXT_OPERATORS:
            self._match(parts)
            return Term("bool", type=element.type)
        if operator in ARITHMETIC or operator is operators.concat_op:
            floating = self.target is not None and family_of(self.target.python_type) == "float"
            terms = [self.term(each) for each in parts]
            if (made := rebuilt(element, operator, terms, floating=floating)) is not None:
                become(element, made)
                return self.term(made)
            return self._arithmetic(element, operator, parts)
        if operator in (operators.any_op, operators.all_op):
            inner = parts[0].element if isinstance(parts[0], Grouping) else parts[0]
            found = self.term(inner)
            return found if isinstance(inner, (SelectBase, sa.ScalarSelect)) else Term()
        if operator in (operators.and_, operators.or_, operators.inv):
            self.visit(parts)
            return Term("bool", type=element.type)
        if operator in BITWISE and not (operator is operators.bitwise_and_op and self._has_mask(parts)):
            raise FieldError(f"{text_of(element)} has no defined result; compute it in Python")
        if operator is operators.neg:
            return self._negative(element, parts)
        if operator in (operators.distinct_op, operators.asc_op, operators.desc_op) or operator in (
            operators.nulls_first_op,
            operators.nulls_last_op,
            operators.collate,
        ):
            self.visit(parts)
            return self.term(parts[0])
        self.visit(parts)
        return Term(family_of_type(element.type), self.origin(parts), type=element.type)

    def _compare(self, operator: Any, parts: list[Any]) -> None:
        left, *others = parts
        for each in others if operator in (operators.in_op, operators.not_in_op) else ():
            self._keys_for(left, each)
        if isinstance(left, sa.Tuple):
            self._compare_rows(left, others)
        else:
            self.settle(self.same([left, *others]))

    def _compare_rows(self, left: Any, others: list[Any]) -> None:
        """Check the rows that a tuple of columns is compared with."""
        terms = [self.term(each) for each in left.clauses]
        for other in others:
            self.visit([other])
            if not isinstance(other, sa.BindParameter):
                continue
            if isinstance(other.value, (list, tuple)) and other.expanding:
                self.keep_instances(other, chain.from_iterable(other.value))
                other.value = [
                    tuple(self.clean(value, term) for value, term in zip(row, terms, strict=True))
                    for row in other.value
                ]

    def _keys_for(self, left: Any, right: Any) -> None:
        """Allow the keys of a query as *right* of IN.

        Raises `FieldError` where *left* is not as many columns as the key or refers to another field, `InvalidValue` where
        it does not refer to the model of the query.
        """
        while isinstance(right, (Grouping, sa.ScalarSelect)):
            right = right.element
        if (found := keys_of(right)) is None:
            return
        model = found.model
        self.keys.add(id(right))
        self.instances += found.instances
        columns, key = list(left.clauses) if isinstance(left, sa.Tuple) else [left], model.__schema__.key
        if len(columns) != len(key):
            names = ", ".join(f"{model.__name__}.{each.name}" for each in key)
            raise FieldError(
                f"{text_of(left)} cannot be one of the keys of {model.__name__}: {names}; use "
                + (f"tuple_(…).in_() with {len(key)} columns" if len(key) > 1 else "one column")
            )
        for column, part in zip(columns, key, strict=True):
            self._refers(column, model, part)

    def _refers(self, left: Any, model: Any, part: Field[Any]) -> None:
        """Raise an error unless *left* may have the values of *part* of the key of *model*."""
        term = self.term(left)
        relation = getattr(term.field, "relation", None)
        if len(model.__schema__.key) == 1 and not stands_for(term, model):
            self.refuse(term.field, f"does not refer to {model.__name__}, whose keys the query stands for")
        if not comparable(term.family, of_field(part).family):
            self.refuse_families(term, of_field(part))
        if (
            relation is not None
            and relation.target is model
            and part.primary_key
            and not relation.to.primary_key
        ):
            raise FieldError(
                f"{text_of(left)} refers to {relation.to.label}, not to the key that a query stands for; "
                f"use in_(query.statement.with_only_columns({relation.to.label}))"
            )

    def _match(self, parts: list[Any]) -> None:
        self.visit(parts)
        field, family = self.origin(parts), self.term(parts[0]).family
        if family not in (None, "str", "bytes"):
            self.refuse(field, f"is {family}, which has no pattern; cast() it to String")
        wanted = bytes if family == "bytes" else str
        for part in parts[1:]:
            for each in self.term(part).literals:
                if not isinstance(value_of(each), wanted):
                    self.refuse(
                        field, f"must be compared with {wanted.__name__} here, not {shown(value_of(each))}"
                    )

    def _negative(self, element: Any, parts: list[Any]) -> Term:
        of = self.term(parts[0])
        if of.family is not None and of.family not in (*NUMBERS, "timedelta"):
            raise FieldError(
                f"{text_of(element)} has no defined result; only numbers and durations can be negative"
            )
        return of._replace(exact=False)

    def _arithmetic(self, element: Any, operator: Any, parts: list[Any]) -> Term:
        terms = [self.term(each) for each in parts]
        field = self.origin(parts)
        families = []
        for term in terms:
            families.append(term.family)
            for each in term.literals:
                families[-1] = self._operand(each, field, [t.family for t in terms])
        family = families[0]
        for each in families[1:]:
            family = result_of(element, operator, family, each, written=self.target is not None)
        return Term(family, field, type=element.type)

    def _operand(self, literal: Any, field: Field[Any] | None, families: list[str | None]) -> str | None:
        """Check a value in arithmetic, and return its family."""
        value = value_of(literal)
        if value is None:
            return None
        if isinstance(value, (int, str)) and isinstance(value, enum.Enum):
            literal.value = value = value.value
        kind = next((family for family in families if family is not None), None)
        found = None if isinstance(value, enum.Enum) else family_of(type(value))
        if kind == "str":
            self.clean(value, Term(kind, field))
        elif found in NUMBERS:
            self.clean(value, Term("number", field))
        elif kind in NUMBERS or (kind is not None and found is None):
            self.refuse(field, f"is {kind}, and cannot be computed with {shown(value)}")
        elif kind is None and found == "timedelta":
            self.refuse(field, "of an unknown type is moved; name it: type_coerce(…, Model.field.type)")
        return found

    def _select(self, element: Any) -> Term:
        """Check a sub-select, and return what is known of its column. Raises `FieldError` for a query that is no list."""
        if isinstance(element, sa.ScalarSelect):
            element = element.element
        if id(element) not in self.keys and (found := keys_of(element)) is not None:
            raise FieldError(f"a query of {found.model.__name__} is used as one value; use it with in_()")
        self.visit(element.get_children())
        columns = list(element.selected_columns)
        return self.term(columns[0])._replace(literals=(), followers=()) if len(columns) == 1 else Term()

    def assign(self, element: Any, target: Field[Any]) -> None:
        """Give the values in *element* that are written to *target* its type, and check them as a save does."""
        known = of_field(target)
        left = [element]
        while left:
            each = left.pop()
            if isinstance(each, sa.BindParameter):
                self.bind(each, known, written=True)
                self.found[id(each)] = known
            elif isinstance(each, (sa.True_, sa.False_)):
                self.clean(value_of(each), known, written=True)
                self.found[id(each)] = known
            elif isinstance(each, (sa.Label, Grouping)):
                left.append(each.element)
            elif isinstance(each, sa.Case):
                left += results_of(each)
            elif (
                isinstance(each, FunctionElement) and (name := getattr(each, "name", "").lower()) in SAME_TYPE
            ):
                left += list(each.clauses)[slice(*SAME_TYPE[name])]

    def set_clocks(self, term: Term, target: Field[Any]) -> None:
        """Make SQL's present moments in *term* those of *target*."""
        if any(isinstance(each, UtcNow) for each in term.literals):
            known = of_field(target)
            for each in term.literals:
                self.bind(each, known, written=True)
            for each in term.followers:
                each.type = known.type

    def refuse_unwritable(self, target: Field[Any], term: Term, expression: Any) -> None:
        """Raise `InvalidValue` for an expression whose values the column would change, or not hold."""
        wanted = of_field(target).family
        if not comparable(wanted, term.family) or (wanted == "int" and term.family in ("Decimal", "float")):
            self.refuse(
                target, f"must be {wanted}, not {term.family}, which {text_of(expression)} is; cast() it"
            )
