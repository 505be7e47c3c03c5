"""The exceptions of microorm.

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
    ├── AfterCommitError
    └── MigrationError

Errors of the database are SQLAlchemy's (`IntegrityError`, `OperationalError`, …), and invalid arguments are a `TypeError`
or `ValueError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class MicroormError(Exception):
    """The base class of microorm's errors."""


class ConfigurationError(MicroormError):
    """The configuration is invalid, missing, or given twice."""


class UnknownAlias(ConfigurationError):
    """No database has the alias; *alias* is the unknown one, *known* are the configured ones."""

    def __init__(self, alias: object, known: Iterable[str]) -> None:
        self.alias = alias
        self.known = tuple(sorted(known))
        configured = ", ".join(map(repr, self.known)) or "none; call configure() first"
        super().__init__(f"no database named {alias!r}; configured: {configured}{nearest(alias, self.known)}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.alias, self.known))


class ModelError(MicroormError):
    """A model is declared incorrectly; raised when the class is defined."""


class FieldError(MicroormError, ValueError):
    """A field does not exist, or cannot be used in this way."""


class InvalidValue(FieldError):
    """The values of some fields are invalid, and nothing was written; or a row has a value that its field cannot hold.

    *problems* maps the name of each field to what is wrong with its value.
    """

    def __init__(self, model: str, problems: Mapping[str, str]) -> None:
        self.model = model
        self.problems = dict(problems)
        super().__init__("; ".join(f"{model}.{name} {problem}" for name, problem in self.problems.items()))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.model, self.problems))


class ObjectDoesNotExist(MicroormError):
    """A query for one row found none; each model has its own subclass, `Model.DoesNotExist`."""


class MultipleObjectsReturned(MicroormError):
    """A query for one row found several; each model has its own subclass."""


class NotUpdated(MicroormError):
    """An UPDATE of one row found none; each model has its own subclass, `Model.NotUpdated`."""


class UnsavedError(MicroormError, ValueError):
    """An operation needs a saved instance, and the instance has no key."""


class LazyLoadError(MicroormError):
    """A value would be loaded lazily inside `microorm.testing.no_lazy_loads()`."""


class RestrictedError(MicroormError):
    """A row cannot be deleted while others refer to it.

    *objects* are instances of these rows, loaded with their keys and foreign keys.
    """

    def __init__(self, message: str, objects: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.objects = tuple(objects)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.objects))


class CrossDatabaseRelation(MicroormError, ValueError):
    """Instances of different databases cannot be related."""


class TransactionError(MicroormError):
    """The block does not allow the operation; the cause is the error that doomed the block, if there is one."""


class CommitOutcomeUnknown(TransactionError):
    """The connection was lost, the program interrupted, or the driver failed, during COMMIT or while the answer was read.

    The rows may or may not be stored.

    Functions passed to `on_commit` did not run. Instances keep the written values, so that their keys can be looked up.
    After Ctrl-C or `sys.exit()` the error is also a `KeyboardInterrupt` or `SystemExit`, and stops the program as they do.
    """


class _KeyboardInterrupt(CommitOutcomeUnknown, KeyboardInterrupt):
    pass


class _SystemExit(CommitOutcomeUnknown, SystemExit):
    pass


def is_interrupt(error: BaseException) -> bool:
    """Return whether *error* is to stop the program, such as `KeyboardInterrupt`."""
    return not isinstance(error, Exception) or isinstance(error, (KeyboardInterrupt, SystemExit))


def outcome_unknown(message: str, error: BaseException) -> CommitOutcomeUnknown:
    """Return the error that tells that *error* has left the outcome of a commit unknown."""
    if isinstance(error, KeyboardInterrupt):
        return _KeyboardInterrupt(message)
    if isinstance(error, SystemExit):
        return _SystemExit(message)
    return CommitOutcomeUnknown(message)


class TransactionSharedError(TransactionError):
    """A block was used by a different thread, task or process."""


class AfterCommitError(MicroormError):
    """A function or receiver that ran after a commit has failed; the rows are stored.

    The cause is the error of the first that failed, and *function* is its name; *alias* is where the commit was. The notes
    tell of further errors. What is raised is an instance of the cause's class as well, so that an `except` for that goes on
    to work.
    """

    def __init__(self, alias: str, function: str, failure: str) -> None:
        self.alias = alias
        self.function = function
        self.failure = failure
        # Not by `super()`, which may be the class of the cause, with arguments of its own.
        self.args = (
            f"the rows in {alias!r} are committed, but the on_commit function {function} failed: {failure}",
        )

    def __str__(self) -> str:
        return str(self.args[0])  # the class of the cause may have its own

    def __reduce__(self) -> tuple[object, ...]:
        return (AfterCommitError, (self.alias, self.function, self.failure))


def after_commit(alias: str, function: str, error: BaseException, failure: str) -> AfterCommitError:
    """Return the `AfterCommitError` for *error*, which *failure* describes; it is of the class of *error*, too."""
    kind = type(error)
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    try:
        both: Any = type(kind.__name__, (AfterCommitError, kind), names)
        made: AfterCommitError = both.__new__(both)
        AfterCommitError.__init__(made, alias, function, failure)
    except Exception:  # noqa: BLE001 a class that cannot be derived from, or needs arguments to be made
        return AfterCommitError(alias, function, failure)
    for name, value in vars(error).items():
        vars(made).setdefault(name, value)
    return made


class MigrationError(MicroormError):
    """Migrations cannot be read or written, or a migration failed.

    *at* maps the alias of each database to its current revisions, as far as they are known.
    """

    def __init__(self, message: str, at: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.at = dict(at or {})
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.at))


def nearest(name: object, known: Iterable[str], *, prefix: str = "; nearest: ") -> str:
    """Return the known name most similar to *name* as the end of a message; an empty string if there is none."""
    from difflib import get_close_matches  # noqa: PLC0415 only errors need it

    matches = get_close_matches(name, list(known), n=1) if isinstance(name, str) else []
    return f"{prefix}{matches[0]!r}" if matches else ""
