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
    ├── StaleUpdate
    ├── UnsavedError (ValueError)
    ├── LazyLoadError
    ├── RestrictedError
    ├── CrossDatabaseRelation (ValueError)
    ├── TenantError
    ├── TransactionError
    │   ├── CommitOutcomeUnknown
    │   └── TransactionSharedError
    ├── AfterCommitError
    ├── OutboxError
    │   ├── IncompatibleEvent
    │   ├── InvalidEvent
    │   ├── PublishError
    │   ├── RedeliveredError
    │   └── UnknownReceiver
    ├── FixtureError
    └── MigrationError

Errors of the database are SQLAlchemy's (`IntegrityError`, `OperationalError`, …), and invalid arguments are a `TypeError`
or `ValueError`.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping
from typing import Any

CONFIGURE_FIRST = "call configure() first"
_MAX_NAMED = 20
"""How many aliases an error names."""


class MicroormError(Exception):
    """The base class of microorm's errors."""


class ConfigurationError(MicroormError):
    """The configuration is invalid, missing, or given twice."""


class UnknownAlias(ConfigurationError):
    """No database has the alias; *alias* is the unknown one, *known* are the configured ones.

    *closed*: there are none, because the databases were closed. *removed*: there was one, which was removed. *remedy*: what to
    do if there are none.
    """

    def __init__(
        self,
        alias: object,
        known: Iterable[str],
        closed: bool = False,
        removed: bool = False,
        remedy: str = CONFIGURE_FIRST,
    ) -> None:
        self.alias = alias
        self.known = tuple(sorted(known))
        self.closed = closed
        self.removed = removed
        self.remedy = remedy
        near = self.known
        if len(near) > _MAX_NAMED:  # names that begin alike stand together
            place = bisect(near, alias) if isinstance(alias, str) else 0
            near = near[max(0, place - _MAX_NAMED // 2) :][:_MAX_NAMED]
        configured = ", ".join(map(repr, near))
        if not near:
            configured = f"none{', since the databases were closed' if closed else ''}; {remedy}"
        elif near is not self.known:
            configured += f" and {len(self.known) - len(near):,} more"
        gone = "; it was removed" if removed else ""
        super().__init__(f"no database named {alias!r}{gone}; configured: {configured}{nearest(alias, near)}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.alias, self.known, self.closed, self.removed, self.remedy))


class ModelError(MicroormError):
    """A model is declared incorrectly; raised when the class is defined."""


class FieldError(MicroormError, ValueError):
    """A field does not exist, or cannot be used in this way."""


class InvalidValue(FieldError):
    """The values of some fields are invalid, and nothing was written; or a row has a value that its field cannot hold.

    *model* is the name of the model. *problems* maps the name of each field to what is wrong with its value, as the message
    has it. *errors* is the same for a form: where a validator has refused the value, its own words alone.
    """

    def __init__(
        self, model: str, problems: Mapping[str, str], errors: Mapping[str, str] | None = None
    ) -> None:
        self.model = model
        self.problems = dict(problems)
        self.errors = self.problems | dict(errors or {})
        super().__init__("; ".join(f"{model}.{name} {problem}" for name, problem in self.problems.items()))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.model, self.problems, self.errors))


class ObjectDoesNotExist(MicroormError):
    """A query for one row found none; each model has its own subclass, `Model.DoesNotExist`."""


class MultipleObjectsReturned(MicroormError):
    """A query for one row found several; each model has its own subclass."""


class NotUpdated(MicroormError):
    """An UPDATE of one row found none; each model has its own subclass, `Model.NotUpdated`."""


class StaleUpdate(MicroormError):
    """A row has another version than was read, or is gone, so that it was neither updated nor deleted.

    *message* names them. *objects* are the stale instances. Each model has its own subclass, `Model.StaleUpdate`.
    """

    def __init__(self, message: str, objects: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.objects = tuple(objects)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.objects))


class UnsavedError(MicroormError, ValueError):
    """An operation needs a saved instance, and the instance has no key."""


class LazyLoadError(MicroormError):
    """A value would be loaded lazily inside `microorm.testing.no_lazy_loads()`, or in a coroutine."""


class RestrictedError(MicroormError):
    """A row cannot be deleted while others refer to it.

    *message* names them. *objects* are instances of these rows, loaded with their keys and foreign keys.
    """

    def __init__(self, message: str, objects: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.objects = tuple(objects)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (str(self), self.objects))


class CrossDatabaseRelation(MicroormError, ValueError):
    """Instances of different databases cannot be related."""


class TenantError(MicroormError):
    """A model of tenants is used while no tenant is current, or an instance of another tenant than the current one."""


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


def outcome_unknown(message: str, error: BaseException) -> BaseException:
    """Return the error that tells that *error* has left the outcome of a commit unknown.

    A cancellation stays what it is, since event loops compare its class; a note tells of the outcome.
    """
    unknown = CommitOutcomeUnknown(message)
    if isinstance(error, KeyboardInterrupt):
        unknown = _KeyboardInterrupt(message)
    elif isinstance(error, SystemExit):
        unknown = _SystemExit(message)
    elif not isinstance(error, Exception):
        error.add_note(message)
        return error
    unknown.__cause__ = error
    return unknown


class TransactionSharedError(TransactionError):
    """A block was used by a different thread, task or process."""


class AfterCommitError(MicroormError):
    """A function or receiver that ran after a commit has failed; the rows are stored.

    The cause is the error of the first that failed, *function* is its name, and *failure* says what it was; *alias* is
    where the commit was. The notes tell of further errors. What is raised is an instance of the cause's class as well,
    so that an `except` for that goes on to work.
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


class OutboxError(MicroormError):
    """An event for a durable receiver cannot be stored, so that the write that it belongs to has failed as a whole."""


class IncompatibleEvent(OutboxError):
    """A stored event does not fit the model, or the version of microorm, of this process; another process may deliver it."""


class InvalidEvent(OutboxError):
    """A stored event cannot be delivered, now or later: what is stored is not what a save has written."""


class PublishError(OutboxError):
    """A broker has not confirmed that it has an event, which stays in the outbox and is published again."""


class RedeliveredError(OutboxError):
    """A broker has delivered an event for the second time: the process that had it was killed, or took too long."""


class UnknownReceiver(OutboxError):
    """No durable receiver has the `dispatch_uid` of a stored event in this process."""


class FixtureError(MicroormError):
    """A file of rows cannot be read or loaded, and nothing was loaded; or rows cannot be dumped.

    *message* says what is wrong. *file* is its name, *number* that of the object in it, from 1; None where the error is
    not about one. *problems* maps the name of each invalid field to what is wrong with its value.
    """

    def __init__(
        self,
        message: str,
        file: str | None = None,
        number: int | None = None,
        problems: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message
        self.file = file
        self.number = number
        self.problems = dict(problems or {})
        where = [file, None if number is None else f"object {number}"]
        super().__init__(": ".join(filter(None, [", ".join(filter(None, where)), message])))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.file, self.number, self.problems))


class MigrationError(MicroormError):
    """Migrations cannot be read or written, or a migration failed.

    *message* says why. *at* maps the alias of each database to its current revisions, as far as they are known.
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
