"""`RoutedDatabases`: the database of an operation, with and without routers and scopes."""

from typing import Any

import pytest

from microorm import Databases, UnknownAlias
from microorm.db.context import ReceiverScope


class Elsewhere:
    """A router that reads from `other`."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"


@pytest.fixture
def databases() -> Any:
    with Databases({"default": "sqlite://", "other": "sqlite://"}) as databases:
        yield databases


def test_where_nothing_has_a_say_the_home_is_read_and_written(databases: Databases) -> None:
    for pick in (databases.for_read, databases.for_write):
        assert pick(object, None, None).alias == "default"
        assert pick(object, "other", None).alias == "other"
        with databases.atomic("other"):
            assert pick(object, None, None).alias == "default"
        with pytest.raises(UnknownAlias):
            pick(object, "nowhere", None)


def test_what_has_a_say_is_asked_at_once(databases: Databases) -> None:
    """A router, a `using()` block and a running receiver take effect at once, and end with their scope."""
    with databases.atomic(), databases.using("other"):
        assert databases.for_write(object, None, None).alias == "other"
    with ReceiverScope(databases, "other"):
        assert databases.for_write(object, None, None).alias == "other"
        assert databases.for_write(object, "default", None).alias == "default"
    assert databases.for_read(object, None, None).alias == "default"
    databases.routers = (Elsewhere(),)
    assert databases.for_read(object, None, None).alias == "other"
    with databases.atomic():
        assert databases.for_read(object, None, None).alias == "default"


def test_a_block_of_other_databases_has_no_say(databases: Databases) -> None:
    with Databases("sqlite://") as others, others.using("default"):
        assert databases.for_write(object, "other", None).alias == "other"
