"""Errors: every exception microorm raises by itself.

    MicroormError
    ├── ConfigurationError
    │   └── UnknownAlias
    ├── ModelError
    ├── FieldError (ValueError)
    │   └── InvalidValue
    ├── ObjectDoesNotExist
    ├── MultipleObjectsReturned
    ├── NotUpdated
    ├── UnsavedError (ValueError)
    ├── LazyLoadError
    ├── RestrictedError
    ├── CrossDatabaseRelation (ValueError)
    ├── TransactionError
    │   ├── CommitOutcomeUnknown
    │   └── TransactionSharedError
    └── MigrationError

What a database itself refuses stays SQLAlchemy's (`IntegrityError`, `OperationalError`, …).
Wrong arguments are Python's `TypeError` and `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class MicroormError(Exception):
    """Anything that microorm refuses or finds wrong."""


class ConfigurationError(MicroormError):
    """The databases are configured wrongly, twice, or not at all."""


class UnknownAlias(ConfigurationError):
    """No database has this alias; *alias* is what was asked for, *known* are the configured ones."""

    def __init__(self, alias: object, known: Iterable[str]) -> None:
        self.alias = alias
        self.known = tuple(sorted(known))
        configured = ", ".join(map(repr, self.known)) or "none"
        super().__init__(f"no database named {alias!r}; configured: {configured}{nearest(alias, self.known)}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.alias, self.known))


class ModelError(MicroormError):
    """A model class is declared wrongly; raised at the class definition."""


class FieldError(MicroormError, ValueError):
    """A name is not a field, or a field cannot be used in this way."""


class InvalidValue(FieldError):
    """Values that a model's fields do not take; nothing was written.

    *problems* maps each bad field's name to what is wrong with its value.
    """

    def __init__(self, model: str, problems: Mapping[str, str]) -> None:
        self.model = model
        self.problems = dict(problems)
        super().__init__("; ".join(f"{model}.{name} {problem}" for name, problem in self.problems.items()))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.model, self.problems))


class ObjectDoesNotExist(MicroormError):
    """A query that should find one row found none; raised per model as `Model.DoesNotExist`."""


class MultipleObjectsReturned(MicroormError):
    """A query that should find one row found several; raised per model, too."""


class NotUpdated(MicroormError):
    """An UPDATE that had to find its row found none; raised per model as `Model.NotUpdated`."""


class UnsavedError(MicroormError, ValueError):
    """The instance has no key yet, and what was asked for needs one."""


class LazyLoadError(MicroormError):
    """A value was to be loaded by a statement of its own where `microorm.testing.no_lazy_loads()` forbids it."""


class RestrictedError(MicroormError):
    """A row cannot be deleted while others refer to it.

    *objects* are the instances of these others, loaded with their keys and foreign keys.
    """

    def __init__(self, message: str, objects: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.objects = tuple(objects)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.objects))


class CrossDatabaseRelation(MicroormError, ValueError):
    """Two instances of different aliases were to be related."""


class TransactionError(MicroormError):
    """The block cannot do this, or not any more; its cause is the error that doomed it, if one did."""


class CommitOutcomeUnknown(TransactionError):
    """The connection was lost while COMMIT ran: the rows may be stored or not.

    Hooks did not run. Instances keep what was written, so that their keys can be looked up.
    """


class TransactionSharedError(TransactionError):
    """A block that belongs to another running thread, task or process was used."""


class MigrationError(MicroormError):
    """Migrations cannot be read or made, or one of them failed.

    *at* maps the alias of each database to the revisions it is at now, as far as that is known.
    """

    def __init__(self, message: str, at: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.at = dict(at or {})
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.at))


def nearest(name: object, known: Iterable[str], *, prefix: str = "; nearest: ") -> str:
    """Name the known name that is most like *name*, as the end of a message, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 only an error wants it

    matches = get_close_matches(name, list(known), n=1) if isinstance(name, str) else []
    return f"{prefix}{matches[0]!r}" if matches else ""
