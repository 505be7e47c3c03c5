"""Errors: their tree, their words, and that they travel between processes."""

import pickle

import pytest
from sqlalchemy.exc import SQLAlchemyError

from microorm import errors
from microorm.errors import FieldError, InvalidValue, MicroormError, UnknownAlias, UnsavedError, nearest

ALL = [
    each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, Exception) and not name.startswith("_")
]


def test_every_error_is_microorms_and_none_is_the_databases() -> None:
    """What the database itself refuses stays SQLAlchemy's."""
    assert len(ALL) == 27
    assert all(issubclass(each, MicroormError) for each in ALL)
    assert not any(issubclass(each, SQLAlchemyError) for each in ALL)


def test_wrong_values_are_value_errors_too() -> None:
    assert issubclass(FieldError, ValueError)
    assert issubclass(UnsavedError, ValueError)
    assert issubclass(InvalidValue, FieldError)
    assert issubclass(UnknownAlias, errors.ConfigurationError)
    assert issubclass(errors.CommitOutcomeUnknown, errors.TransactionError)
    assert issubclass(errors.TransactionSharedError, errors.TransactionError)


@pytest.mark.parametrize(
    ("alias", "known", "words"),
    [
        ("arcive", ["default", "archive"], "'archive', 'default'; nearest: 'archive'"),
        ("zzz", ["default"], "'default'"),
        (5, ["default"], "'default'"),
        ("default", [], "none; call configure() first"),
    ],
)
def test_an_unknown_alias_names_what_is_known(alias: object, known: list[str], words: str) -> None:
    error = UnknownAlias(alias, known)
    assert str(error) == f"no database named {alias!r}; configured: {words}"
    assert (error.alias, error.known) == (alias, tuple(sorted(known)))


def test_an_unknown_alias_says_that_the_databases_were_closed() -> None:
    error = pickle.loads(pickle.dumps(UnknownAlias("default", [], closed=True)))
    assert str(error) == (
        "no database named 'default'; configured: none, since the databases were closed; call configure() first"
    )


def test_an_invalid_value_names_every_field() -> None:
    error = InvalidValue("Book", {"title": "must be str, not int 3", "pages": "must be int, not None"})
    assert str(error) == "Book.title must be str, not int 3; Book.pages must be int, not None"
    assert error.model == "Book"
    assert error.problems == {"title": "must be str, not int 3", "pages": "must be int, not None"}


@pytest.mark.parametrize(
    "error",
    [
        UnknownAlias("x", ["default"]),
        InvalidValue("Book", {"title": "must be str, not None"}),
        UnsavedError("no key"),
    ],
)
def test_an_error_pickles(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_the_nearest_name_is_named_only_where_there_is_one() -> None:
    assert nearest("titel", ["title", "pages"]) == "; nearest: 'title'"
    assert nearest("titel", ["title"], prefix=", say ") == ", say 'title'"
    assert nearest("zzz", ["title"]) == ""
    assert nearest(3, ["title"]) == ""
