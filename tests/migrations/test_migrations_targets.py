"""Two aliases of one database are one target, however their URLs are written."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import microorm
from microorm import ConfigurationError, Databases, Field, Registry, UnknownAlias
from microorm.migrations.targets import place, revisions, targets


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql+psycopg://app:pw@localhost/shop", "postgresql+psycopg://owner@127.0.0.1:5432/shop"),
        ("mysql+pymysql://a@LOCALHOST:3306/shop", "mariadb+pymysql://b@[::1]/shop"),
        ("sqlite:///shop.db", "sqlite:///./shop.db"),
        (
            "postgresql+psycopg://localhost/shop?application_name=reports",
            "postgresql+psycopg://localhost/shop",
        ),
        ("sqlite:///file:/x?vfs=memdb&uri=true", "sqlite:///file:/x?vfs=memdb&uri=true"),
    ],
)
def test_one_database_is_one_place(one: str, other: str) -> None:
    assert place(make_url(one)) == place(make_url(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql+psycopg://localhost/shop", "postgresql+psycopg://localhost/archive"),
        ("postgresql+psycopg://localhost/shop", "postgresql+psycopg://localhost:5433/shop"),
        (
            "postgresql+psycopg://localhost/shop?options=-csearch_path%3Da",
            "postgresql+psycopg://localhost/shop?options=-csearch_path%3Db",
        ),
        ("postgresql+psycopg://localhost/shop", "mariadb+pymysql://localhost/shop"),
        ("sqlite:///shop.db", "sqlite:///archive.db"),
    ],
)
def test_two_databases_are_two(one: str, other: str) -> None:
    assert place(make_url(one)) != place(make_url(other))


class Split:
    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool | None:
        return alias == "archive" if label == "shop.Old" else None


def test_what_a_target_holds_is_what_the_routers_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    other = f"sqlite:///{tmp_path / 'archive.db'}"
    with Databases({"default": url, "again": url, "archive": other}, routers=[Split()]) as databases:

        class Old(microorm.Model, registry=Registry(databases), app="shop"):
            text: Field[str]

        registry = Old.__schema__.registry
        shop, archive = targets(registry, {"gone": "shop.Gone"})
        assert (shop.aliases, archive.aliases) == (("default", "again"), ("archive",))
        assert (shop.allows("old"), archive.allows("old")) == (False, True)
        assert shop.allows("gone")
        assert shop.allows("nobody knows this one")
        assert shop.at(("0002",)) == "'default' is at '0002'"
        assert repr(shop) == "<Target 'default', 'again'>"
        assert [each.aliases for each in targets(registry, {}, "again")] == [("default", "again")]
        with pytest.raises(UnknownAlias):
            targets(registry, {}, "archiv")


def test_a_router_is_asked_by_label_for_a_model_that_is_gone() -> None:
    with Databases("sqlite://", routers=[Split()]) as databases:
        (target,) = targets(Registry(databases), {"old": "shop.Old"})
        assert not target.allows("old")


def test_without_a_database_there_is_no_target() -> None:
    with pytest.raises(ConfigurationError, match="no database is configured"):
        targets(Registry(Databases()), {})


def test_revisions_are_named() -> None:
    assert revisions(()) == "'base'"
    assert revisions(("b", "a")) == "'a' and 'b'"
