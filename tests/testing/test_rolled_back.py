"""The transaction of a test: what it holds, what it lets through, and what it leaves behind."""

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from microorm import (
    AfterCommitError,
    Databases,
    Field,
    ForeignKey,
    TransactionError,
    UnknownAlias,
    field,
    foreign_key,
    receiver,
)
from microorm.errors import ConfigurationError
from microorm.outbox import Relay
from microorm.signals import post_save
from microorm.testing import AliasNotAllowed, Commits, allowed_aliases, arolled_back, rolled_back
from microorm.testing.databases import empty


@pytest.fixture
def Book(Base, registry):
    class Book(Base):
        title: Field[str] = field(max_length=50, unique=True)

    registry.create_all()
    return Book


def titles(Book, alias="default"):
    return sorted(book.title for book in Book.objects.using(alias))


def test_all_aliases_are_rolled_back_with_the_instances(databases, Book) -> None:
    kept = Book(title="kept").save()
    with rolled_back(databases):
        kept.title = "changed"
        kept.save()
        new = Book(title="new").save()
        Book(title="there").save(using="other")
        assert (titles(Book), titles(Book, "other")) == (["changed", "new"], ["there"])
    assert (titles(Book), titles(Book, "other")) == (["kept"], [])
    assert new.id is None


def test_savepoints_still_nest(databases, Book) -> None:
    with rolled_back(databases):
        with databases.atomic():
            Book(title="a").save()
            with pytest.raises(ZeroDivisionError), databases.atomic():
                Book(title="b").save()
                raise ZeroDivisionError
        with pytest.raises(IntegrityError), databases.atomic():
            Book(title="a").save()
        assert titles(Book) == ["a"]
    assert titles(Book) == []


def test_a_durable_block_begins_as_if_no_test_was_there(databases, Book) -> None:
    with rolled_back(databases):
        with databases.atomic(durable=True):
            Book(title="a").save()
            with pytest.raises(TransactionError, match="durable"), databases.atomic(durable=True):
                pass


def test_a_lock_needs_a_block_of_the_code_under_test(databases, Book) -> None:
    """Without the test there would be none, and the program would fail."""
    with rolled_back(databases):
        with pytest.raises(TransactionError, match="needs an open block"):
            Book.objects.for_update().first()
        with databases.atomic():
            assert Book.objects.for_update().first() is None
        assert Book.objects.update_or_create(title="a")[1]


def test_what_has_no_alias_goes_where_it_goes_without_the_test(databases, Book) -> None:
    """The blocks that a test opens on several aliases do not route: the last one would take what is meant for `default`."""
    with rolled_back(databases), Commits(databases) as hooks:
        with databases.connection() as connection:
            assert connection.engine is databases.engine("default")
        databases.on_commit(lambda: None)
        assert (len(Commits(databases, "default").__enter__()), len(hooks)) == (0, 1)
        assert databases.transaction(databases.database("default")).hooks
        assert not databases.transaction(databases.database("other")).hooks


def test_the_databases_cannot_be_closed_meanwhile(databases, Book) -> None:
    with rolled_back(databases), pytest.raises(TransactionError, match="while a block is open"):
        databases.close()


@pytest.mark.backends("sqlite-file")
def test_an_open_block_and_two_aliases_of_one_file_are_refused(databases, sqlite_url) -> None:
    with databases.atomic(), pytest.raises(TransactionError, match="open on 'default' already"):
        with rolled_back(databases):
            pass
    with Databases({"a": sqlite_url, "b": sqlite_url}) as same:
        with pytest.raises(ConfigurationError, match="'a' and 'b' are one SQLite file"), rolled_back(same):
            pass
    with pytest.raises(UnknownAlias), rolled_back(databases, ["othr"]):
        pass
    assert databases.transaction(databases.database("default")) is None


def test_hooks_wait_until_they_are_run(databases, Book) -> None:
    ran: list[str] = []
    with rolled_back(databases), Commits(databases) as hooks:
        databases.on_commit(lambda: ran.append("before"))
        with pytest.raises(ZeroDivisionError), databases.atomic():
            databases.on_commit(lambda: ran.append("undone"))
            raise ZeroDivisionError
        with databases.atomic():
            databases.on_commit(lambda: ran.append("kept"))
            with pytest.raises(TransactionError, match="still open"):
                hooks.run()
        assert (len(hooks), ran) == (2, [])
        assert hooks.run() == 2
        assert ran == ["before", "kept"]
        assert (len(hooks), hooks.run()) == (0, 0)


def test_receivers_on_commit_run_and_write_to_another_alias(databases, Book) -> None:
    @receiver(post_save, sender=Book, delivery="on_commit")
    def copy(instance, using, **kwargs):
        if using == "default":
            Book(title=instance.title).save(using="other")

    with rolled_back(databases):
        with Commits(databases, execute=True):
            Book(title="a").save()
            assert titles(Book, "other") == []
        assert titles(Book, "other") == ["a"]
    assert titles(Book, "other") == []


def test_what_a_hook_hands_on_runs_right_after_it(databases) -> None:
    ran: list[str] = []

    def first() -> None:
        with databases.atomic():
            databases.on_commit(lambda: ran.append("inner"))
        ran.append("first")

    with rolled_back(databases), Commits(databases) as hooks:
        databases.on_commit(first)
        databases.on_commit(lambda: ran.append("second"))
        hooks.run()
    assert ran == ["first", "inner", "second"]


def test_a_hook_that_fails_leaves_the_transaction_usable(databases, Book) -> None:
    ran: list[str] = []
    with rolled_back(databases):
        Book(title="a").save()
        with Commits(databases) as hooks:
            databases.on_commit(lambda: Book(title="a").save())
            databases.on_commit(lambda: ran.append("next"))
        with pytest.raises(AfterCommitError) as caught:
            hooks.run()
        assert isinstance(caught.value.__cause__, IntegrityError)
        assert (ran, titles(Book)) == (["next"], ["a"])


def test_hooks_that_are_rolled_back_after_the_end_of_the_block_do_not_run(databases) -> None:
    ran: list[str] = []
    with rolled_back(databases):
        with pytest.raises(ZeroDivisionError), databases.atomic():
            with Commits(databases) as hooks:
                databases.on_commit(lambda: ran.append("undone"))
            assert len(hooks) == 1
            raise ZeroDivisionError
        assert (len(hooks), hooks.run(), ran) == (0, 0, [])


def test_an_error_in_the_block_runs_nothing(databases) -> None:
    ran: list[str] = []
    with rolled_back(databases), pytest.raises(ZeroDivisionError), Commits(databases, execute=True):
        databases.on_commit(lambda: ran.append("ran"))
        raise ZeroDivisionError
    assert ran == []


def test_without_a_transaction_nothing_waits(databases) -> None:
    with pytest.raises(TransactionError, match="no transaction is open on any alias.*microorm_db"):
        Commits(databases).__enter__()


def test_coroutines_are_rolled_back_on_their_loop(databases, Book) -> None:
    ran: list[str] = []

    async def hook() -> None:
        await Book(title="hook").asave(using="other")
        ran.append("hook")

    async def main() -> None:
        async with arolled_back(databases):
            async with Commits(databases) as hooks:
                await Book(title="a").asave()
                async with databases.atomic(durable=True):
                    databases.on_commit(hook)
                with pytest.raises(ZeroDivisionError):
                    async with databases.atomic():
                        await Book(title="b").asave()
                        raise ZeroDivisionError
            async with databases.aconnection():
                pass
            assert await hooks.arun() == 1
            assert await Book.objects.acount() == 1
            assert await Book.objects.using("other").acount() == 1

    asyncio.run(main())
    assert ran == ["hook"]
    assert (titles(Book), titles(Book, "other")) == ([], [])


def test_a_statement_to_another_alias_is_refused(databases, Book) -> None:
    """Also inside a block on that alias that was open before, and in a coroutine."""

    async def main() -> None:
        await Book(title="b").asave(using="other")

    with allowed_aliases(databases, ["default"]):
        Book(title="a").save()
        with pytest.raises(AliasNotAllowed, match="may touch 'default'.*to 'other': INSERT INTO .*book"):
            Book(title="b").save(using="other")
        with pytest.raises(AliasNotAllowed, match="SELECT"), databases.atomic("other"):
            Book.objects.using("other").count()
        with pytest.raises(AliasNotAllowed, match="INSERT"):
            asyncio.run(main())
    Book(title="b").save(using="other")
    assert (titles(Book), titles(Book, "other")) == (["a"], ["b"])
    with pytest.raises(AliasNotAllowed), databases.atomic("other"), allowed_aliases(databases, []):
        Book.objects.using("other").count()


def test_durable_receivers_are_delivered_in_the_transaction(databases, Book) -> None:
    delivered: list[str] = []

    @receiver(post_save, sender=Book, delivery="durable", dispatch_uid="tests.note")
    def note(instance, event, **kwargs):
        delivered.append(instance.title)

    Book.__schema__.registry.create_all()
    with rolled_back(databases):
        with pytest.raises(ZeroDivisionError), databases.atomic():
            Book(title="undone").save()
            raise ZeroDivisionError
        Book(title="a").save()
        assert delivered == []
        assert Relay(databases).drain() == 1
        assert delivered == ["a"]
        with databases.atomic(), pytest.raises(TransactionError, match="inside the open block"):
            Relay(databases).run_once()
    assert Relay(databases).drain() == 0


def test_tables_are_emptied_however_they_refer_to_each_other(databases, Base, registry) -> None:
    class Chicken(Base):
        egg: ForeignKey["Egg | None"] = foreign_key(default=None)

    class Egg(Base):
        chicken: ForeignKey[Chicken | None] = foreign_key(default=None)

    registry.create_all()
    for alias in databases.aliases:
        chicken = Chicken().save(using=alias)
        egg = Egg(chicken=chicken).save(using=alias)
        chicken.egg = egg
        chicken.save()
    empty(registry, ["default"])
    assert (Chicken.objects.count(), Egg.objects.count()) == (0, 0)
    assert Egg.objects.using("other").count() == 1
    with pytest.raises(IntegrityError):
        Egg(chicken_id=77).save()  # the checks are on again
