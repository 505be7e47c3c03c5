"""Compiled statements: the driver's cursor and `Connection` get the same SQL, and return the same."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.types import String, TypeDecorator

from microorm import Databases, Field, InvalidValue, Model, Registry, TransactionError, field
from microorm.sql.statements import MAX_STATEMENTS, plans_of
from tests.behaviour.wire import Wire


@pytest.fixture
def wires(databases):
    """What is sent to each alias; to `other` by way of `Connection`, since somebody listens there."""
    wires = {}
    for alias in databases.aliases:
        wires[alias] = Wire()
        wires[alias].attach(databases.engine(alias))
    return wires


@pytest.fixture
def has_receivers(databases):
    """What the listener on `other` hears: statement and parameters."""
    has_receivers: list[tuple[str, Any]] = []
    event.listen(
        databases.engine("other"),
        "before_cursor_execute",
        lambda connection, cursor, statement, parameters, *_: has_receivers.append((statement, parameters)),
    )
    return has_receivers


@pytest.fixture
def Book(Base, registry, wires, has_receivers):
    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)
        pages: Field[int] = field(default=0)
        price: Field[Decimal | None] = field(default=None, max_digits=8, decimal_places=2)
        tags: Field[list[str]] = field(default_factory=list)
        rank: Field[int] = field(server_default="7")

    class Link(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)

    registry.create_all()
    Book.Link = Link
    return Book


def everything(Book: Any, databases: Any, alias: str) -> list[Any]:
    """All that is prepared, on *alias*; gives what came of it."""
    Link, objects = Book.Link, Book.objects.using(alias)
    seen: list[Any] = []
    book = Book(title="a", price=Decimal("1.5"), tags=["t"]).save(using=alias)
    seen.append(dict(vars(book)))
    book.pages = 5
    book.save()
    book.save(update_fields=["pages", "tags"])
    keyed = Book(title="keyed")
    keyed.id, keyed.rank = 40, 3
    keyed.save(using=alias)
    with databases.atomic(alias):
        Book(title="b").save(using=alias)
        with databases.atomic(alias):
            Book(title="c").save(using=alias)
    seen += [vars(each) for each in (objects.get(title="a"), objects.get(pk=keyed.id))]
    seen += [vars(each) for each in objects.filter(Book.pages < 9).order_by("id")]
    seen.append(len(objects.all()))
    Link(left=1, right=2).save(using=alias)
    Link(left=1, right=2).save(using=alias)
    seen.append(objects.filter(title="nobody", pages=3).one_or_none())
    keyed.rank = 8
    keyed.refresh_from_db()
    seen.append(keyed.rank)
    seen.append(book.delete()[0])
    return seen


def test_both_ways_send_the_same_sql_and_give_the_same(Book, databases, wires, has_receivers):
    """Statement for statement; the listener hears all of them."""
    with wires["default"].record() as direct:
        given = everything(Book, databases, "default")
    has_receivers.clear()
    with wires["other"].record() as through:
        assert everything(Book, databases, "other") == given
    assert direct == through
    assert [
        statement.split()
        for statement, _ in has_receivers
        if statement.startswith(("INS", "UP", "DEL", "SEL"))
    ] == [statement.split() for statement in through]


@pytest.mark.parametrize("alias", ["default", "other"])
def test_each_operation_costs_this_many_statements(Book, wires, alias):
    """Pinned; what SQLAlchemy, or a pool, may add between them is not about rows."""
    objects, wire = Book.objects.using(alias), wires[alias]
    book, keyed = Book(title="x"), Book(title="y")
    keyed.id = 5000
    for verbs, operation in (
        (["INSERT"], lambda: book.save(using=alias)),
        (["UPDATE"], lambda: book.save()),
        (["UPDATE", "INSERT"], lambda: keyed.save(using=alias)),
        (["SELECT"], lambda: objects.get(id=book.id)),
        (["SELECT"], lambda: objects.get(title="x")),
        (["SELECT"], lambda: objects.all()),
        (["SELECT"], lambda: objects.first()),
        (["SELECT"], lambda: book.refresh_from_db()),
        (["DELETE"], lambda: book.delete()),
    ):
        with wire.record() as sent:
            operation()
        assert [each.split()[0] for each in sent] == verbs
    with wire.record() as sent:
        objects.bulk_create([Book(title=f"many {number}") for number in range(300)])
    assert len(sent) <= 3


@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_bulk_write_grows_by_whole_batches(Book, wires, databases, alias):
    """Rows / size statements, and none for each row."""
    objects = Book.objects.using(alias)
    for count, size in ((1, 1), (9, 3), (10, 3), (40, 40)):
        with databases.atomic(alias), wires[alias].record() as sent:
            objects.bulk_create(
                [Book(title=f"{number} of {count}") for number in range(count)], batch_size=size
            )
        written = [each for each in sent if "INSERT" in each]
        assert len(written) == -(-count // size)
        assert len(sent) <= 3 * len(written)


@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_block_inside_costs_two_statements(Book, wires, databases, alias):
    """A savepoint and its release, whatever was done in it."""
    with databases.atomic(alias), wires[alias].everything() as sent, databases.atomic(alias):
        for number in range(3):
            Book(title=f"{number}").save(using=alias)
    verbs = [each.split()[0] for each in sent]
    assert verbs == ["SAVEPOINT", "INSERT", "INSERT", "INSERT", "RELEASE"]


def failures(Book: Any, alias: str) -> list[Any]:
    """Operations that the database of *alias* refuses."""
    Book(title="taken").save(using=alias)
    twin = Book(title="other").save(using=alias)
    twin.title = "taken"
    with_key = Book(title="third")
    with_key.id = twin.id
    return [
        lambda: Book(title="taken").save(using=alias),
        lambda: twin.save(),
        lambda: twin.save(update_fields=["title"]),
        lambda: with_key.save(using=alias, force_insert=True),
        lambda: Book.Link.objects.using(alias).get(left=1),
        lambda: Book.Link(left=1, right=2).save(using=alias, force_insert=True),
        lambda: Book.Link(left=1, right=2).delete(using=alias),
    ]


def described(error: DBAPIError) -> dict[str, Any]:
    """All that a user can see of an error."""
    return {
        "class": type(error),
        "text": str(error).replace("microorm_test_", ""),
        "statement": error.statement,
        "orig": type(error.orig),
        "hidden": error.hide_parameters,
        "invalidated": error.connection_invalidated,
        "code": error.code,
        "ismulti": error.ismulti,
        "cause": type(error.__cause__),
        "is cause": error.__cause__ is error.orig,
        "parameters": error.params,
    }


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("inside", [False, True])
def test_errors_are_the_same_on_both_ways(fresh_url, hidden, inside):
    """Class, text, statement, parameters, cause; with parameters hidden and shown."""
    with Databases({"default": {"url": fresh_url(), "hide_parameters": hidden}}) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=40, unique=True)

        class Link(Model, registry=registry):
            left: Field[int] = field(primary_key=True)
            right: Field[int] = field(primary_key=True)

        registry.create_all()
        Book.Link = Link
        with databases.connection() as connection:
            connection.execute(text("DROP TABLE link"))
        operations, told = failures(Book, "default"), []
        for _ in ("driver", "listened"):
            for operation in operations:
                with pytest.raises(DBAPIError) as raised:
                    run(databases, operation, inside=inside)
                told.append(described(raised.value))
            event.listen(databases.engine(), "before_cursor_execute", lambda *_: None)
        direct, through = told[: len(operations)], told[len(operations) :]
        assert [each["class"] for each in direct[:4]] == [IntegrityError] * 4
        for one, other in zip(direct, through, strict=True):
            assert one == other
        assert ("taken" in direct[0]["text"].split("[SQL")[1]) is not hidden
        assert Book.objects.count() == 2


def run(databases: Databases, operation: Any, *, inside: bool) -> None:
    if inside:
        with databases.atomic():
            operation()
    else:
        operation()


@pytest.mark.backends("sqlite-memory", "postgresql")
def test_an_error_of_many_rows_is_the_same_on_both_ways(Book, databases, wires, backend):
    """Of `executemany`, which the error says; the rows that went before are gone. On PostgreSQL it is one statement of many
    rows, which has a text of its own on each way."""
    told = []
    for alias in databases.aliases:
        links = [Book.Link(left=number % 3, right=1) for number in range(5)]
        with pytest.raises(IntegrityError) as raised:
            Book.Link.objects.using(alias).bulk_create(links)
        told.append(described(raised.value))
        assert Book.Link.objects.using(alias).count() == 0
        assert all(link._state.adding for link in links)
    of_the_text = ("text", "statement", "ismulti") if backend == "postgresql" else ()
    assert told[0]["ismulti"] is not bool(of_the_text)
    for each in told:
        assert each["hidden"] is True
        for name in ("parameters", *of_the_text):
            each.pop(name)
    assert told[0] == told[1]


@pytest.mark.backends("sqlite-memory")
def test_who_listens_is_asked_once_for_a_transaction(Book, databases):
    """A listener that comes hears the next one, and one that goes is not asked again."""
    has_receivers = []

    def listen(connection, cursor, statement, *_):
        has_receivers.append(statement.split()[0])

    engine = databases.engine()
    with databases.atomic():
        Book(title="before").save()
        event.listen(engine, "before_cursor_execute", listen)
        Book(title="inside").save()
    assert has_receivers == []
    Book(title="after").save()
    with databases.atomic():
        Book(title="later").save()
    assert has_receivers == ["INSERT", "BEGIN", "INSERT"]
    event.remove(engine, "before_cursor_execute", listen)
    Book(title="gone").save()
    assert len(has_receivers) == 3
    assert Book.objects.count() == 5


@pytest.mark.backends("sqlite-memory")
def test_where_nobody_listens_a_lone_statement_needs_no_connection_object(Book, databases, monkeypatch):
    """Save, get, refresh and delete go to the driver's cursor; where somebody does, none."""
    opened: list[Any] = []
    connect = Engine.connect

    def noted(engine: Engine) -> Any:
        opened.append(engine)
        return connect(engine)

    monkeypatch.setattr(Engine, "connect", noted)
    for alias in databases.aliases:
        book = Book(title="x").save(using=alias)
        book.save()
        Book.objects.using(alias).get(id=book.id).refresh_from_db()
        book.delete()
    assert opened == [databases.engine("other")] * 5


@pytest.mark.backends("sqlite-memory")
def test_statements_are_prepared_once_and_their_number_is_bounded(Book, databases):
    """By the shapes that a program uses, never by its values."""
    plans = plans_of(Book.__schema__, databases.database("default"))
    assert plans_of(Book.__schema__, databases.database("default")) is plans
    assert plans_of(Book.__schema__, databases.database("other")) is not plans
    for number in range(20):
        Book(title=f"{number}", pages=number).save()
        Book.objects.filter(pages=number).get(title=f"{number}").delete()
    assert plans.insert(("title",)) is plans.insert(("title",))
    assert len(plans.statements) < 10
    for number in range(MAX_STATEMENTS + 5):
        plans.cached(number, object)
    assert 0 < len(plans.statements) <= MAX_STATEMENTS
    assert Book.objects.count() == 0


@pytest.mark.backends("sqlite-memory")
def test_what_a_type_cannot_bind_is_an_error_like_any_other(registry, databases):
    """A column type of the user's own may raise; the row is not written, and the instance as before."""

    class Picky(TypeDecorator[str]):
        impl = String(9)
        cache_ok = True

        def process_bind_param(self, value, dialect):
            if value == "bad":
                raise LookupError("picky")
            return value

    class Thing(Model, registry=registry):
        text: Field[str] = field(type_=Picky())

    registry.create_all()
    thing = Thing(text="bad")
    with pytest.raises((LookupError, StatementError)) as raised:
        thing.save()
    assert raised.value.__cause__ is not raised.value
    assert (thing.id, thing._state.adding, Thing.objects.count()) == (None, True, 0)
    with pytest.raises(InvalidValue):
        Thing(text=3).save()
    assert Thing(text="good").save().id


@pytest.mark.backends("sqlite-memory")
def test_an_error_while_rows_are_fetched_is_the_same_on_both_ways(Book, databases):
    """SQLite decodes text then, and somebody else may have stored what is none; the block is doomed.

    The statement is in the text of the driver's way only: SQLAlchemy does not know it any more when it fetches.
    """
    told = []
    for alias in databases.aliases:
        with databases.connection(alias) as connection:
            connection.execute(
                text("INSERT INTO book (title, pages, tags) VALUES (CAST(x'ff' AS TEXT), 1, '[]')")
            )
        with pytest.raises(TransactionError), databases.atomic(alias):
            with pytest.raises(OperationalError) as raised:
                Book.objects.using(alias).get(pages=1)
            with pytest.raises(TransactionError) as refused:
                Book.objects.using(alias).count()
            assert refused.value.__cause__ is raised.value
        told.append(described(raised.value))
        assert "Could not decode to UTF-8" in str(raised.value)
        assert raised.value.__cause__ is raised.value.orig
    for each in told:
        for different in ("text", "statement", "parameters"):
            each.pop(different)
    assert told[0] == told[1]
