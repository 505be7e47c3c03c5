"""Routing: which alias a model is read from and written to, and in which order routers are asked."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy

from microorm import Databases, Field, Model, Registry, Router, UnknownAlias
from microorm.db.routing import DEFAULT_ALIAS, first_answer, migration_allowed, pick_alias, relation_allowed
from microorm.signals import post_save, pre_delete, pre_save

PRECEDENCE = ("asked", "block", "routed", "loaded", "home", "receiver", "default")


def where_and_who(hints: dict[str, Any]) -> dict[str, Any]:
    """The hints of each call, without those that say what is read or written."""
    return {name: hints[name] for name in ("in_atomic", "instance") if name in hints}


class Recorder(Router):
    """A router that returns given answers and records its calls."""

    def __init__(self, read: Any = None, write: Any = None) -> None:
        self.read, self.write = read, write
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    def db_for_read(self, model: type[Any], **hints: Any) -> Any:
        self.asked.append(("read", model, where_and_who(hints)))
        return self.read

    def db_for_write(self, model: type[Any], **hints: Any) -> Any:
        self.asked.append(("write", model, where_and_who(hints)))
        return self.write


class World:
    """Databases in memory, and two models with a table in each."""

    def __init__(self, aliases: tuple[str, ...], routers: list[object], home: str | None = None) -> None:
        self.databases = Databases(dict.fromkeys(aliases, "sqlite://"), routers=routers)
        self.registry = Registry(self.databases)

        class Book(Model, registry=self.registry, database=home):
            title: Field[str]

        class Trigger(Model, registry=self.registry):
            pass

        self.Book: Any = Book
        self.Trigger: Any = Trigger
        self.registry.create_all()

    def titles(self, alias: str) -> list[str]:
        with self.databases.connection(alias) as connection:
            return [row[0] for row in connection.exec_driver_sql("SELECT title FROM book ORDER BY id")]

    def where(self, title: str) -> list[str]:
        return [alias for alias in self.databases.aliases if title in self.titles(alias)]


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    """Return a function that makes a world from aliases and routers."""
    made: list[World] = []

    def world(*aliases: str, routers: list[object] | None = None, home: str | None = None) -> World:
        made.append(World(aliases, routers or [], home))
        return made[-1]

    yield world
    for each in made:
        each.databases.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., None]]:
    """Return a function that connects a receiver until the end of the test."""
    connected: list[tuple[Any, Any, Any]] = []

    def listen(signal: Any, sender: Any, function: Any) -> None:
        signal.connect(function, sender=sender, weak=False)
        connected.append((signal, sender, function))

    yield listen
    for signal, sender, function in connected:
        signal.disconnect(function, sender=sender)


@pytest.mark.parametrize("rank", range(len(PRECEDENCE)))
def test_each_rank_comes_before_the_next(rank: int) -> None:
    """`using=`, `using()` block, router, `_state.db`, home, receiver, default."""
    assert pick_alias(*[None] * rank, *PRECEDENCE[rank : len(PRECEDENCE) - 1]) == PRECEDENCE[rank]


def test_an_empty_alias_is_an_answer() -> None:
    """It is an unknown alias, and not skipped."""
    assert pick_alias(None, "", "x") == ""
    assert DEFAULT_ALIAS == "default"


@pytest.mark.parametrize(
    ("rank", "act"),
    [
        (rank, act)
        for rank, name in enumerate(PRECEDENCE)
        for act in ("save", "delete", "create", "bulk_create", "read")
        if name != "loaded" or act in ("save", "delete")  # the other operations have no loaded instance
    ],
)
def test_what_is_done_goes_where_the_highest_rank_says(
    rank: int, act: str, world: Callable[..., World], listen: Callable[..., None]
) -> None:
    """For each kind of write, and for reads, each rank comes before all lower ones."""
    ranks = PRECEDENCE[rank:]
    router = Recorder("routed", "routed")
    routers = [router] if "routed" in ranks else []
    here = world(*PRECEDENCE, routers=routers, home="home" if "home" in ranks else None)
    for alias in PRECEDENCE:
        here.Book.objects.using(alias).create(id=1, title=f"old in {alias}")
    router.asked.clear()
    before = {alias: here.titles(alias) for alias in PRECEDENCE}
    expected, found = ranks[0], []
    using = "asked" if "asked" in ranks else None

    def work(**kwargs: Any) -> None:
        query = here.Book.objects if using is None else here.Book.objects.using(using)
        block = here.databases.using("block") if "block" in ranks else nullcontext()
        book = here.Book(title="new")
        book.id = 1
        if "loaded" in ranks and act in ("save", "delete"):
            book._state.db = "loaded"
        with block:
            if act == "save":
                found.append(book.save(using=using)._state.db)
            elif act == "delete":
                book.delete(using=using)
            elif act == "create":
                found.append(query.create(id=2, title="new")._state.db)
            elif act == "bulk_create":
                found.append(query.bulk_create([here.Book(title="new")])[0]._state.db)
            else:
                found.append(query.get(id=1)._state.db)

    if "receiver" in ranks:
        listen(post_save, here.Trigger, work)
        here.Trigger().save(using="receiver")
    else:
        work()
    changed = [alias for alias in PRECEDENCE if here.titles(alias) != before[alias]]
    assert changed == ([] if act == "read" else [expected])
    assert found == ([] if act == "delete" else [expected])
    if using or "block" in ranks:
        assert [each for each in router.asked if each[1] is here.Book] == []


def test_the_first_answer_that_is_not_none_wins() -> None:
    """In order; a router without the method, or whose answer is None, is skipped."""

    class Partial:
        def allow_migrate(self, *arguments: Any, **hints: Any) -> bool:
            return False

    routers = [Partial(), Router(), Recorder(None, None), Recorder(write="first"), Recorder(write="second")]
    assert first_answer(routers, "db_for_write", object) == "first"
    assert first_answer(routers, "db_for_read", object) is None
    assert first_answer([], "db_for_read", object) is None
    assert first_answer([Recorder(read="")], "db_for_read", object) == ""


def test_a_router_hears_what_it_is_asked_about() -> None:
    """Arguments and hints are passed unchanged to each router that has the method."""
    heard: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class Hearing:
        def allow_relation(self, *arguments: Any, **hints: Any) -> None:
            heard.append((arguments, hints))

    assert first_answer([Hearing(), Hearing()], "allow_relation", 1, 2, hint=3) is None
    assert heard == [((1, 2), {"hint": 3})] * 2


def test_an_error_inside_a_router_is_not_hidden(world: Callable[..., World]) -> None:
    """An AttributeError in a method is not taken for a missing method; nothing is written."""

    class Broken:
        broken = True

        def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
            return self.no_such_thing if self.broken else None  # type: ignore[attr-defined]

    router = Broken()
    here = world("default", routers=[router])
    book = here.Book(title="Dune")
    with pytest.raises(AttributeError, match="no_such_thing"):
        book.save()
    assert (book.id, book._state.adding, book._state.db) == (None, True, None)
    router.broken = False
    assert book.save()._state.db == "default"


def test_a_router_leaves_it_all_to_the_next() -> None:
    """The methods of the base class return None."""
    router = Router()
    assert router.db_for_read(object, instance=1) is None
    assert router.db_for_write(object, instance=1) is None
    assert router.allow_relation(1, 2, hint=1) is None
    assert router.allow_migrate("default", "shop.Book", model=None, hint=1) is None


@pytest.mark.parametrize("answer", ["arcive", "", 5, ["archive"]])
def test_a_router_that_names_no_alias_is_an_error_before_any_signal(
    answer: Any, world: Callable[..., World], listen: Callable[..., None]
) -> None:
    """UnknownAlias, rather than the default; rows and instance are unchanged."""
    router = Recorder(answer, answer)
    here = world("default", "archive", routers=[router])
    sent: list[Any] = []
    listen(pre_save, here.Book, lambda **kwargs: sent.append(kwargs))
    book = here.Book(title="Dune")
    with pytest.raises(UnknownAlias) as caught:
        book.save()
    nearest = "; nearest: 'archive'" if answer == "arcive" else ""
    assert str(caught.value) == f"no database named {answer!r}; configured: 'archive', 'default'{nearest}"
    with pytest.raises(UnknownAlias):
        here.Book.objects.count()
    assert sent == []
    assert (book.id, book._state.adding, book._state.db) == (None, True, None)
    router.write = None
    assert book.save()._state.db == "default"


@pytest.mark.parametrize("answer", [False, 0])
def test_a_falsy_answer_is_final_where_a_truth_is_asked_for(answer: Any) -> None:
    """Without any answer, relations need equal aliases, and all tables are created."""

    class Says:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def allow_relation(self, left: Any, right: Any, **hints: Any) -> Any:
            return self.answer

        def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> Any:
            return self.answer

    no, yes, open_ = Says(answer), Says(True), Says(None)

    def related(*routers: object, left: str | None = "a", right: str | None = "a") -> bool:
        return relation_allowed(routers, object(), object(), left_alias=left, right_alias=right)

    assert related(open_, no, yes) is False
    assert related(yes, no, right="b") is True
    assert related(open_) is True
    assert related(open_, right="b") is False
    assert related(left=None, right="b") is True
    assert related(left="b", right=None) is True
    assert migration_allowed([open_, no, yes], "a", "shop.Book", None) is False
    assert migration_allowed([yes, no], "a", "shop.Book", None) is True
    assert migration_allowed([open_], "a", "shop.Book", None) is True


def test_relations_are_asked_about_by_instance(world: Callable[..., World]) -> None:
    """`allow_relation` is called with both instances; without an answer their aliases are compared."""
    asked: list[Any] = []

    class Asked:
        def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
            asked.append((left, right, hints))
            return answers.pop()

    here = world("default", "archive", routers=[Asked()])
    left, right = here.Book(title="a").save(), here.Book(title="b").save(using="archive")
    answers = [None, True, False]
    assert here.databases.allows_relation(left, left) is False
    assert here.databases.allows_relation(left, right) is True
    assert here.databases.allows_relation(left, right) is False
    assert asked == [(left, left, {}), (left, right, {}), (left, right, {})]
    answers = [None]
    assert here.databases.allows_relation(left, here.Book(title="c")) is True


def test_the_hints_are_the_instance_and_whether_a_block_is_open(world: Callable[..., World]) -> None:
    """`instance` for a save or delete of one, `in_atomic` always."""
    router = Recorder()
    here = world("default", "archive", routers=[router])
    book = here.Book(title="Dune")
    book.save()
    assert router.asked == [("write", here.Book, {"instance": book, "in_atomic": False})]
    assert router.asked[0][2]["instance"] is book
    router.asked.clear()
    with here.databases.atomic("archive"):
        book.save()
        book.delete()
    hints = {"instance": book, "in_atomic": True}
    assert router.asked == [("write", here.Book, hints), ("write", here.Book, hints)]
    router.asked.clear()
    book.save()
    assert router.asked == [("write", here.Book, {"instance": book, "in_atomic": False})]


def test_writes_of_a_query_have_no_instance_to_hint_at(world: Callable[..., World]) -> None:
    """create, bulk_create, update and delete ask for the database to write to, reads for the one to read from."""
    router = Recorder()
    here = world("default", routers=[router])
    query = here.Book.objects
    for write in (
        lambda: query.create(title="a"),
        lambda: query.bulk_create([here.Book(title="b")]),
        lambda: query.update(title="c"),
        lambda: query.delete(),
    ):
        router.asked.clear()
        write()
        assert router.asked == [("write", here.Book, {"in_atomic": False})]
    for read in (query.count, query.exists, query.all, query.first, lambda: query.filter(id=1).one_or_none()):
        router.asked.clear()
        read()
        assert router.asked == [("read", here.Book, {"in_atomic": False})]


def test_a_router_goes_before_the_alias_a_row_came_from(world: Callable[..., World]) -> None:
    """Without an answer of a router, `_state.db` counts."""
    router = Recorder()
    here = world("default", "archive", "log", routers=[router])
    here.Book(title="Dune").save(using="archive")
    book = here.Book.objects.using("archive").get()
    assert book.save()._state.db == "archive"
    router.write = "log"
    assert book.save()._state.db == "log"
    assert here.where("Dune") == ["archive", "log"]


def test_a_row_stays_where_it_was_loaded_or_saved(world: Callable[..., World]) -> None:
    """An instance is saved, refreshed and deleted in the alias it was loaded from."""
    here = world("default", "archive")
    book = here.Book(title="Dune").save(using="archive")
    book.title = "Emma"
    book.save()
    assert (book._state.db, here.titles("archive"), here.titles("default")) == ("archive", ["Emma"], [])
    loaded = here.Book.objects.using("archive").get(id=book.id)
    loaded.title = "Ulysses"
    loaded.save()
    book.refresh_from_db()
    assert book.title == "Ulysses"
    assert loaded.delete() == (1, {f"{here.Book.__schema__.label}": 1})
    assert here.titles("archive") == []


def test_a_save_to_another_alias_copies_the_row_and_moves_the_instance(world: Callable[..., World]) -> None:
    """The old row stays; the instance belongs to the other alias from now on; receivers get that alias."""
    here = world("default", "archive")
    told: list[str] = []

    def tell(*, using: str, **kwargs: Any) -> None:
        told.append(using)

    for signal in (pre_save, post_save):
        signal.connect(tell, sender=here.Book)
    book = here.Book(title="Dune").save()
    book.save(using="archive")
    assert here.where("Dune") == ["default", "archive"]
    assert told == ["default", "default", "archive", "archive"]
    book.title = "Emma"
    book.save()
    assert (here.titles("default"), here.titles("archive")) == (["Dune"], ["Emma"])


def test_a_refresh_reads_where_the_row_is(world: Callable[..., World]) -> None:
    """From `_state.db` by default, so that a stale replica does not matter."""
    router = Recorder(read="replica")
    here = world("default", "replica", routers=[router])
    book = here.Book(title="Dune").save()
    router.asked.clear()
    book.refresh_from_db()
    assert (book.title, router.asked) == ("Dune", [])
    with pytest.raises(here.Book.DoesNotExist):
        book.refresh_from_db(using="replica")


def test_a_loaded_instance_is_read_again_where_it_came_from_even_in_a_block_on_the_primary(
    world: Callable[..., World],
) -> None:
    """By a refresh and for a deferred field: in another database the row with its key may be another one."""
    here = world("primary", "replica", routers=[Recorder(read="replica", write="primary")])
    book = here.Book(title="Dune").save(using="replica")
    here.Book(id=book.id, title="Emma").save(using="primary")
    light = here.Book.objects.only("id").get(id=book.id)
    with here.databases.atomic("primary"):
        book.refresh_from_db()
        assert (book.title, light.title) == ("Dune", "Dune")
        assert here.Book.objects.get(id=book.id).title == "Emma"
        book.refresh_from_db(using="primary")
        assert (book.title, book._state.db) == ("Emma", "primary")


def test_a_read_in_a_block_goes_where_the_model_is_written(world: Callable[..., World]) -> None:
    """Only while a block is open on that alias; another alias can be read by its name."""
    router = Recorder(read="replica", write="primary")
    here = world("primary", "replica", "log", routers=[router])
    atomic, using = here.databases.atomic, here.databases.using
    query = here.Book.objects
    here.Book(title="Dune").save()
    assert query.count() == 0
    with atomic("primary"):
        here.Book(title="Emma").save()
        assert query.count() == 2
        assert query.filter(title="Emma").exists()
        assert query.using("replica").count() == 0
        with using("replica"):
            assert query.count() == 0
        with using("log"), atomic():
            assert query.count() == 0
        assert query.count() == 2
    assert query.count() == 0
    with atomic("replica"):
        assert query.count() == 0
    with atomic("log"):
        router.asked.clear()
        assert query.count() == 0
        assert router.asked == [
            ("write", here.Book, {"in_atomic": True}),
            ("read", here.Book, {"in_atomic": True}),
        ]


def test_a_read_outside_any_block_does_not_ask_where_to_write(
    world: Callable[..., World], listen: Callable[..., None]
) -> None:
    """A router may refuse writes; a running receiver is no block."""

    class ReadOnly:
        def db_for_write(self, model: type[Any], **hints: Any) -> str:
            raise PermissionError(model.__name__)

    here = world("default", routers=[ReadOnly()])
    counted: list[int] = []
    listen(pre_delete, here.Trigger, lambda **kwargs: counted.append(here.Book.objects.count()))
    assert here.Book.objects.count() == 0
    pre_delete.send(here.Trigger, instance=None, using="default", origin=None)
    with here.databases.using("default"):
        assert here.Book.objects.count() == 0
    assert counted == [0]


def test_an_unknown_home_is_an_error_at_the_first_use(world: Callable[..., World]) -> None:
    """An unknown alias is never replaced by another."""
    here = world("default", home="archive")
    with pytest.raises(UnknownAlias, match=r"^no database named 'archive'; configured: 'default'$"):
        here.Book(title="Dune").save()
    assert here.Book(title="Dune").save(using="default")._state.db == "default"


def test_default_is_needed_only_where_something_resolves_to_it(world: Callable[..., World]) -> None:
    """Without a `default`, operations with another alias work."""
    here = world("archive", "log", home="log")
    assert here.Book(title="Dune").save()._state.db == "log"
    assert here.Trigger().save(using="archive")._state.db == "archive"
    with pytest.raises(
        UnknownAlias, match=r"^no database named 'default'; configured: 'archive', 'log'$"
    ) as caught:
        here.Trigger().save()
    assert (caught.value.alias, caught.value.known) == ("default", ("archive", "log"))


def test_using_routes_what_is_in_it_and_nests(world: Callable[..., World]) -> None:
    """Reads, writes, `atomic()` and `on_commit()`; the innermost block counts; an error ends it as well."""
    here = world("default", "archive", "log")
    using = here.databases.using
    with using("archive"):
        assert here.Book(title="a").save()._state.db == "archive"
        with using("log"):
            assert here.Book(title="b").save()._state.db == "log"
            assert here.Book.objects.count() == 1
        with pytest.raises(LookupError), using("log"):
            raise LookupError
        assert here.Book(title="c").save()._state.db == "archive"
        assert [book.title for book in here.Book.objects.order_by("title")] == ["a", "c"]
    assert here.Book(title="d").save()._state.db == "default"
    with pytest.raises(UnknownAlias, match=r"^no database named 'lgo'; configured: .*; nearest: 'log'$"):
        using("lgo")


def test_using_can_be_kept_and_entered_again_and_in_itself(world: Callable[..., World]) -> None:
    """A second use must not silently mean another database."""
    here = world("default", "archive")
    archive = here.databases.using("archive")
    for _ in range(2):
        with archive, archive:
            assert here.Book(title="a").save()._state.db == "archive"
            with here.databases.using("default"):
                with archive:
                    assert here.Book(title="b").save()._state.db == "archive"
                assert here.Book(title="c").save()._state.db == "default"
        assert here.Book(title="d").save()._state.db == "default"


def test_using_counts_for_its_thread_alone(world: Callable[..., World]) -> None:
    """Other threads are not affected."""
    here = world("default", "archive")
    found: list[str] = []
    with here.databases.using("archive"):
        thread = threading.Thread(target=lambda: found.append(here.Book(title="a").save()._state.db))
        thread.start()
        thread.join()
        found.append(here.Book(title="b").save()._state.db)
    assert found == ["default", "archive"]


def test_using_counts_for_its_task_alone(world: Callable[..., World]) -> None:
    """Two tasks that take turns each keep their own."""
    here = world("default", "archive", "log")
    found: list[tuple[str, str]] = []

    async def work(alias: str) -> None:
        with here.databases.using(alias):
            for _ in range(2):
                await asyncio.sleep(0)
                found.append((alias, here.Book(title="a").save()._state.db))
        await asyncio.sleep(0)
        found.append(("default", here.Book(title="b").save()._state.db))

    async def main() -> None:
        await asyncio.gather(work("archive"), work("log"))

    asyncio.run(main())
    assert len(found) == 6
    assert all(wanted == alias for wanted, alias in found)


class Shelves(Router):
    """A router: books are in `default`, other models elsewhere, and `log` has no tables."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool | None:
        self.asked.append((alias, label, model, hints))
        if alias == "log":
            return False
        return (alias == "default") if label.endswith(".Book") else None


def test_tables_are_made_and_dropped_where_the_routers_allow(world: Callable[..., World]) -> None:
    """`allow_migrate` is called for each alias and model; `using=` limits it to one alias."""
    router = Shelves()
    here = world("default", "archive", "log", routers=[router])
    label = here.Book.__schema__.label
    assert (("archive", label, here.Book, {})) in router.asked
    assert len(router.asked) == 6

    def tables(alias: str) -> list[str]:
        with here.databases.connection(alias) as connection:
            return sqlalchemy.inspect(connection).get_table_names()

    assert [tables(alias) for alias in here.databases.aliases] == [["book", "trigger"], ["trigger"], []]
    here.registry.drop_all("archive")
    assert [tables(alias) for alias in here.databases.aliases] == [["book", "trigger"], [], []]
    here.registry.create_all("archive")
    here.registry.create_all("archive")
    assert tables("archive") == ["trigger"]
    with here.databases.connection("archive") as connection:
        connection.exec_driver_sql("CREATE TABLE book (id INTEGER)")
    here.registry.drop_all()
    here.registry.drop_all()
    assert [tables(alias) for alias in here.databases.aliases] == [[], ["book"], []]
    for each in (here.registry.create_all, here.registry.drop_all):
        with pytest.raises(UnknownAlias, match=r"^no database named 'lgo'; configured: .*nearest: 'log'$"):
            each("lgo")
