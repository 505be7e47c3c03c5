"""Signals are sent around each migration, models can be used inside it, and a project's own options count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import microorm
from microorm import Databases, Field, Registry, field
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from microorm.signals import post_migrate, post_save, pre_migrate

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


@pytest.fixture
def shop(databases: Databases, folder: Path) -> Any:
    """A model `Book` on two aliases, at the first revision."""

    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    class Book(Base):
        title: Field[str] = field(max_length=40)

    migrations = Migrations(folder, Base.__options__.registry)
    migrations.make("first")
    return Book, migrations


def revise(migrations: Migrations, body: Callable[[], None] | str) -> None:
    made = migrations.make("by hand", empty=True)
    assert made is not None
    head = made.read_text().partition("def upgrade()")[0]
    made.write_text(f"{head}def upgrade() -> None:\n    {body}\n\n\ndef downgrade() -> None:\n    pass\n")


@pytest.fixture
def heard() -> Any:
    """What `pre_migrate` and `post_migrate` told."""
    told: list[tuple[str, Any, str, Any]] = []

    def before(sender: Any, using: str, plan: Any, **kwargs: Any) -> None:
        told.append(("pre", sender, using, plan))

    def after(sender: Any, using: str, plan: Any, **kwargs: Any) -> None:
        told.append(("post", sender, using, plan))

    pre_migrate.connect(before, weak=False)
    post_migrate.connect(after, weak=False)
    yield told
    pre_migrate.disconnect(before)
    post_migrate.disconnect(after)


def test_each_database_is_told_of_before_and_after(shop: Any, heard: list[Any]) -> None:
    _, migrations = shop
    migrations.migrate()
    sender = migrations.registry
    assert heard == [
        ("pre", sender, "default", [("0001", False)]),
        ("post", sender, "default", [("0001", False)]),
        ("pre", sender, "other", [("0001", False)]),
        ("post", sender, "other", [("0001", False)]),
    ]


def test_an_empty_plan_is_told_too(shop: Any, heard: list[Any]) -> None:
    _, migrations = shop
    migrations.migrate()
    heard.clear()
    migrations.migrate(using="other")
    assert [(when, plan) for when, _, _, plan in heard] == [("pre", []), ("post", [])]
    heard.clear()
    migrations.migrate("base", using="other")
    assert [plan for _, _, _, plan in heard if plan] == [[("0001", True)]] * 2


def test_looking_tells_nobody(shop: Any, heard: list[Any]) -> None:
    _, migrations = shop
    migrations.plan()
    migrations.show()
    migrations.check()
    migrations.sql()
    migrations.make("nothing", empty=True)
    assert heard == []


def test_a_receiver_that_refuses_stops_the_migration(shop: Any) -> None:
    _, migrations = shop

    def refuse(**kwargs: Any) -> None:
        raise LookupError("not today")

    pre_migrate.connect(refuse)
    try:
        with pytest.raises(LookupError, match="not today"):
            migrations.migrate()
    finally:
        pre_migrate.disconnect(refuse)
    assert migrations.show()[0].applied == {"default": False, "other": False}


def test_models_go_over_the_connection_that_migrates(shop: Any) -> None:
    Book, migrations = shop
    saved: list[tuple[str, str]] = []

    def note(instance: Any, using: str, **kwargs: Any) -> None:
        saved.append((instance.title, using))

    post_save.connect(note, sender=Book)
    revise(migrations, "from tests.migrations.test_migrations_environment import SHELF; SHELF()")
    try:
        SHELF.model = Book
        migrations.migrate()
    finally:
        post_save.disconnect(note, sender=Book)
    assert saved == [("Dune", "default"), ("Dune", "other")]
    for alias in ("default", "other"):
        assert [book.title for book in Book.objects.using(alias)] == ["Dune"]


@pytest.mark.backends("sqlite-file", "postgresql")
def test_what_models_wrote_goes_with_a_revision_that_fails(shop: Any) -> None:
    Book, migrations = shop
    migrations.migrate()
    revise(migrations, "from tests.migrations.test_migrations_environment import SHELF; SHELF(); 1 / 0")
    SHELF.model = Book
    with pytest.raises(MigrationError, match="ZeroDivisionError"):
        migrations.migrate()
    assert Book.objects.using("default").count() == 0
    assert SHELF.book.pk is None


class Shelf:
    """Called by revisions: puts a book of *model* on the shelf, in a block of its own."""

    model: Any = None
    book: Any = None

    def __call__(self) -> None:
        databases = self.model.__schema__.registry.databases
        with databases.atomic():
            self.book = self.model(title="Dune").save()
        assert self.model.objects.count() == 1


SHELF = Shelf()


@pytest.mark.backends("sqlite-file")
def test_a_project_can_ask_for_other_options(shop: Any, folder: Path) -> None:
    _, migrations = shop
    (folder / "env.py").write_text(
        "from microorm import migrations\n\nmigrations.run(version_table='my_versions')\n"
    )
    migrations.migrate()
    with migrations.registry.databases.connection() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM my_versions").scalar() == "0001"


@pytest.mark.backends("sqlite-memory")
def test_a_database_in_memory_is_migrated_where_it_is(shop: Any) -> None:
    Book, migrations = shop
    migrations.migrate()
    Book(title="Dune").save()
    assert migrations.check() == []
