"""What mypy --strict and pyright accept, and the types they infer, with no plugin.

Never run, only checked. Where a promise is about a type, `assert_type` states it: both checkers fail on any other.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, assert_type
from uuid import UUID, uuid4

from sqlalchemy import URL, ColumnElement, Connection, Engine, Row, Select, String, UniqueConstraint, func
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import microorm
from microorm import (
    Databases,
    Field,
    Model,
    Registry,
    Router,
    Signal,
    atomic,
    connection,
    field,
    muted,
    on_commit,
    receiver,
    using,
    version_field,
)
from microorm.routers import PrimaryReplica, ReplicaStats, Shards, Tenants, current_tenant, tenant
from microorm.signals import post_save, pre_save
from microorm.testing import count_statements
from microorm.tracing import Step, trace


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Author(Model):
    name: Field[str] = field(max_length=100, unique=True)
    born: Field[date | None] = field(default=None)


class Book(Model, table="books", table_args=(UniqueConstraint("title", "published"),)):
    title: Field[str]
    published: Field[date | None] = field(default=None, index=True)
    price: Field[Decimal] = field(default=Decimal(0), max_digits=8, decimal_places=2)
    colour: Field[Colour] = field(default=Colour.RED)
    binding: Field[Literal["hard", "soft"]] = field(default="soft")
    tags: Field[list[str]] = field(default_factory=list)
    extra: Field[dict[str, Any]] = field(default_factory=dict)
    isbn: Field[str | None] = field(default=None, type_=String(13), column="isbn13")
    changed: Field[datetime] = field(on_update=datetime.now)
    created: Field[datetime] = field(server_default=func.now())


class Token(Model[UUID]):
    text: Field[str]


def not_negative(value: Decimal | int) -> None: ...


def not_blank(text: str) -> None: ...


class Article(Model):
    name: Field[str] = field(max_length=20, validate=[not_blank, not_blank])
    price: Field[Decimal] = field(max_digits=8, decimal_places=2, validate=not_negative)
    reduced: Field[Decimal | None] = field(
        default=None, max_digits=8, decimal_places=2, validate=not_negative
    )
    stock: Field[int] = field(default=0, validate=(not_negative,))
    made: Field[datetime] = field(on_update=datetime.now, validate=lambda moment: None)
    version: Field[int] = version_field()


class Own(Model[UUID]):
    id: Field[UUID] = field(primary_key=True, default_factory=uuid4)
    text: Field[str]


class Coded(Model[Any]):
    code: Field[str] = field(primary_key=True, max_length=10)
    number: Field[int] = field(primary_key=True, default=1)


class Timed(Model, abstract=True, database="archive", app="shop"):
    seen: Field[datetime]
    lasted: Field[timedelta] = field(default=timedelta())


class Visit(Timed):
    page: Field[str]


mine = Registry(Databases({"default": "sqlite://"}))


class Base(Model, registry=mine, abstract=True):
    pass


class Private(Base):
    text: Field[str]


def constructors(now: datetime) -> None:
    Author(name="Le Guin")
    Author(name="Le Guin", born=date(1929, 10, 21))
    Author(name="Le Guin", born=None)
    Book(title="The Lathe of Heaven", price=Decimal(9), colour=Colour.BLUE, binding="hard", tags=["sf"])
    Own(text="x", id=uuid4())
    Coded(code="x")
    Visit(seen=now, page="/")
    Private(text="x")


def attributes(book: Book, author: Author, visit: Visit, private: Private) -> None:
    assert_type(book.title, str)
    assert_type(book.published, date | None)
    assert_type(book.price, Decimal)
    assert_type(book.colour, Colour)
    assert_type(book.binding, Literal["hard", "soft"])
    assert_type(book.tags, list[str])
    assert_type(book.extra, dict[str, Any])
    assert_type(book.isbn, str | None)
    assert_type(book.changed, datetime)
    assert_type(book.created, datetime)
    assert_type(author.born, date | None)
    assert_type(visit.seen, datetime)
    assert_type(visit.lasted, timedelta)
    assert_type(private.text, str)


def columns() -> None:
    assert_type(Book.title, ColumnElement[str])
    assert_type(Book.published, ColumnElement[date | None])
    assert_type(Book.price, ColumnElement[Decimal])
    assert_type(Visit.seen, ColumnElement[datetime])


def keys(book: Book, token: Token, own: Own) -> None:
    assert_type(book.id, int)
    assert_type(Book.id, ColumnElement[int])
    assert_type(token.id, UUID)
    assert_type(Token.id, ColumnElement[UUID])
    assert_type(own.id, UUID)
    assert_type(Own.id, ColumnElement[UUID])
    Book.objects.filter(Book.id == 3)
    book.pk


def assignments(book: Book) -> None:
    book.title = "Lavinia"
    book.published = None
    book.price += 1
    book.price = Book.price + 1


def saving(book: Book, visit: Visit) -> None:
    assert_type(book.save(), Book)
    assert_type(book.to_dict(["title", Book.title]), dict[str, Any])
    assert_type(Book.from_dict({"title": "x"}, allow=["title", Book.title]), Book)
    assert_type(Book(title="x").save(), Book)
    assert_type(visit.save(using="archive", raw=True), Visit)
    book.save(update_fields=["title", "price"])
    book.save(update_fields=[Book.title, Book.price])
    book.save(update_fields=book.changed_fields)
    book.save(force_insert=True)
    book.save(force_update=True)
    assert_type(book.delete(using="archive"), tuple[int, dict[str, int]])
    book.refresh_from_db(using="archive", fields=["title"])
    assert_type(book.changed_fields, frozenset[str])
    assert_type(book.changes(), dict[str, tuple[Any, Any]])
    assert_type(book._state.adding, bool)
    assert_type(book._state.db, str | None)


def queries() -> None:
    cheap = Book.objects.filter(Book.price < 20, Book.title.startswith("L"), binding="soft")
    ordered = cheap.exclude(Book.published.is_(None)).order_by(Book.title.desc(), "price").limit(10).offset(5)
    assert_type(ordered.all(), list[Book])
    assert_type(ordered.first(), Book | None)
    assert_type(ordered.one_or_none(), Book | None)
    assert_type(ordered.get(Book.id == 3), Book)
    assert_type(ordered.get(pk=3), Book)
    assert_type(ordered[3], Book)
    assert_type(ordered[2:4].all(), list[Book])
    assert_type(ordered.count(), int)
    assert_type(ordered.exists(), bool)
    assert_type(ordered.update(price=Book.price * 2), int)
    assert_type(ordered.delete(), tuple[int, dict[str, int]])
    assert_type(iter(ordered), Iterator[Book])
    for book in ordered.using("archive"):
        assert_type(book, Book)
    statement: Select[Any] = ordered.statement
    assert_type(Book.objects.create(title="x"), Book)
    assert_type(Book.objects.bulk_create([Book(title="x")], batch_size=100), list[Book])
    assert_type(Book.objects.get(title="x").title, str)
    assert_type(Token.objects.all()[0].id, UUID)
    for found in Book.objects.raw("SELECT * FROM books WHERE price < :price", {"price": 20}):
        assert_type(found, Book)
    assert_type(Private.objects.all(), list[Private])
    print(statement)


def many(books: list[Book], conflict: Literal["ignore", "update"] | None) -> None:
    def progress(done: int, total: int) -> None: ...

    objects = Book.objects
    assert_type(objects.bulk_create((book for book in books), progress=progress, signals="each"), list[Book])
    assert_type(objects.bulk_create(books, on_conflict="ignore"), list[Book])
    assert_type(
        objects.bulk_create(books, on_conflict=conflict, progress=lambda *done: print(done)), list[Book]
    )
    assert_type(
        objects.bulk_create(
            books, on_conflict="update", unique_fields=["title", Book.published], update_fields=(Book.price,)
        ),
        list[Book],
    )
    assert_type(objects.bulk_update(books, ["title", Book.price], batch_size=100, progress=progress), int)
    assert_type(objects.bulk_update(set(books), books[0].changed_fields), int)
    assert_type(objects.get_or_create(title="x"), tuple[Book, bool])
    assert_type(objects.get_or_create({"price": Decimal}, title="x"), tuple[Book, bool])
    assert_type(objects.update_or_create(title="x", defaults={"price": Book.price + 1}), tuple[Book, bool])
    book, created = objects.update_or_create({}, {"price": Decimal(1)}, title="x")
    assert_type(book, Book)
    assert_type(created, bool)


def streams_and_keys() -> None:
    assert_type(Book.objects.last(), Book | None)
    assert_type(Book.objects.in_bulk(), dict[Any, Book])
    assert_type(Book.objects.in_bulk([1, 2]), dict[Any, Book])
    stream: Iterator[Book] = Book.objects.iterate(chunk=10)
    assert_type(next(stream), Book)
    locked = Book.objects.for_update(skip_locked=True, of=[Book, Book.title, "price"])
    assert_type(locked.get(pk=1), Book)
    assert_type(Book.objects.explain(format="json", analyze=True), str)


def rows() -> None:
    b = Book
    assert_type(b.objects.values(b.title), list[Row[str]])
    assert_type(b.objects.values(b.title, b.published), list[Row[str, date | None]])
    assert_type(b.objects.values(b.id, b.title, b.price), list[Row[int, str, Decimal]])
    assert_type(b.objects.values(b.id, b.title, b.price, b.isbn), list[Row[int, str, Decimal, str | None]])
    five = b.objects.values(b.id, b.title, b.price, b.isbn, b.colour)
    assert_type(five, list[Row[int, str, Decimal, str | None, Colour]])
    six = b.objects.values(b.id, b.title, b.price, b.isbn, b.colour, b.id)
    assert_type(six, list[Row[int, str, Decimal, str | None, Colour, int]])
    seven = b.objects.values(b.id, b.title, b.price, b.isbn, b.colour, b.id, b.title)
    assert_type(seven, list[Row[int, str, Decimal, str | None, Colour, int, str]])
    eight = b.objects.values(b.id, b.title, b.price, b.isbn, b.colour, b.id, b.title, b.created)
    assert_type(eight, list[Row[int, str, Decimal, str | None, Colour, int, str, datetime]])
    nine = b.objects.values(b.id, b.title, b.price, b.isbn, b.colour, b.id, b.title, b.created, b.id)
    assert_type(nine, list[Row[*tuple[Any, ...]]])
    assert_type(b.objects.values(), list[Row[*tuple[Any, ...]]])
    assert_type(b.objects.values("title", b.price), list[Row[*tuple[Any, ...]]])
    assert_type(b.objects.values(b.title, func.count()), list[Row[str, int]])
    assert_type(b.objects.values(b.price.label("cost"), func.max(b.price)), list[Row[Decimal, Decimal]])
    assert_type(b.objects.scalars(b.title), list[str])
    assert_type(b.objects.scalars(b.published), list[date | None])
    assert_type(b.objects.scalars(func.count()), list[int])
    assert_type(b.objects.scalars("title"), list[Any])
    totals = (
        b.objects.group_by(b.colour)
        .having(func.count() > 1)
        .aggregate(n=func.count(), most=func.max(b.price))
    )
    assert_type(totals, Row[*tuple[Any, ...]])
    for title, price in b.objects.order_by(b.title).distinct().values(b.title, b.price):
        assert_type(title, str)
        assert_type(price, Decimal)
    first = b.objects.values(b.title, b.price)[0]
    assert_type(first[0], str)
    assert_type(first[1], Decimal)


def own_errors() -> Book | None:
    try:
        return Book.objects.get(title="x")
    except (Book.DoesNotExist, Book.MultipleObjectsReturned, Book.NotUpdated, Book.StaleUpdate):
        return None


def article() -> None:
    made = Article(name="pen", price=Decimal(1))
    assert_type(made.price, Decimal)
    assert_type(made.reduced, Decimal | None)
    assert_type(made.stock, int)
    assert_type(made.version, int)
    try:
        made.save()
    except microorm.InvalidValue as error:
        assert_type(error.errors, dict[str, str])


def any_model(model: type[Model[Any]], instance: Model[Any]) -> list[Model[Any]]:
    instance.save()
    return model.objects.all()


@receiver(post_save, sender=Book)
def announce(sender: type[Book], instance: Book, created: bool, **kwargs: Any) -> int:
    return instance.id


@receiver([pre_save, post_save], sender="shop.Visit", dispatch_uid="seen", weak=False)
def seen(sender: type[Model[Any]], **kwargs: Any) -> None: ...


@receiver(post_save, sender=Timed, delivery="on_commit", subclasses=True, skip_raw=True)
async def tell(sender: type[Timed], instance: Timed, **kwargs: Any) -> str:
    return str(instance.seen)


paid = Signal()


@paid.connect
def count(sender: object, amount: int, **kwargs: Any) -> int:
    return amount


def receivers_keep_their_type(book: Book, visit: Visit) -> None:
    assert_type(announce(Book, book, True), int)
    assert_type(seen(Visit), None)
    assert_type(count(None, 3), int)
    with muted(post_save, sender=Book):
        paid.send(None, amount=3)
    assert_type(paid.has_listeners(), bool)
    assert_type(paid.disconnect(count), bool)


async def coroutines_keep_their_type(visit: Visit) -> None:
    assert_type(await tell(Visit, visit), str)


@atomic
def bare(book: Book, times: int = 1) -> str:
    return book.title * times


@atomic("archive", durable=True)
def called(book: Book, *, loud: bool = False) -> int:
    return book.id


@atomic(readonly=True)
async def coroutine(book: Book) -> int:
    return book.id


def transactions(book: Book) -> None:
    assert_type(bare(book, times=2), str)
    assert_type(called(book, loud=True), int)
    with atomic(), atomic(using="archive", savepoint=False), using("archive"):
        on_commit(lambda: print("done"))
        on_commit(print, using="archive", robust=True)


async def asynchronous(book: Book) -> None:
    assert_type(await coroutine(book), int)
    async with atomic(), atomic(using="archive", savepoint=False):
        on_commit(sent)
    on_commit(sent, robust=True)


async def sent() -> None: ...


async def awaited_instances(book: Book, visit: Visit) -> None:
    assert_type(await book.asave(), Book)
    assert_type(await visit.asave(using="archive", update_fields=["page"], raw=True), Visit)
    assert_type(await book.asave(update_fields=[Book.title], force_update=True), Book)
    assert_type(await book.adelete(using="archive"), tuple[int, dict[str, int]])
    assert_type(await book.arefresh_from_db(fields=[Book.title]), None)
    await book.aload("published")
    assert_type(book.published, date | None)


async def awaited_reads() -> None:
    books = Book.objects.filter(Book.price < 20)
    assert_type(await Book.objects.aget(Book.id == 1, title="x"), Book)
    assert_type(await books.aall(), list[Book])
    assert_type(await books.afirst(), Book | None)
    assert_type(await books.alast(), Book | None)
    assert_type(await books.aone_or_none(), Book | None)
    assert_type(await books.acount(), int)
    assert_type(await books.aexists(), bool)
    assert_type(await books.ain_bulk([1, 2]), dict[Any, Book])
    assert_type(await books.araw("SELECT * FROM books WHERE id = :id", {"id": 1}), list[Book])
    assert_type(await books.aexplain(analyze=True, format="json"), str)
    assert_type((await books.aaggregate(total=func.sum(Book.price))).total, Any)
    assert_type(await books.avalues(Book.title, Book.price), list[Row[str, Decimal]])
    assert_type(await books.ascalars(Book.published), list[date | None])
    assert_type(await books.ascalars("title"), list[Any])
    async for book in books:
        assert_type(book, Book)
    assert_type([book async for book in Book.objects], list[Book])
    async for book in books.iterate(10):
        assert_type(book, Book)
    stream = books.iterate()
    assert_type(await anext(aiter(stream)), Book)
    assert_type(await stream.aclose(), None)


async def awaited_writes(book: Book) -> None:
    assert_type(await Book.objects.acreate(title="x", price=Decimal(3)), Book)
    assert_type(await Book.objects.aget_or_create({"price": 3}, title="x"), tuple[Book, bool])
    assert_type(await Book.objects.aupdate_or_create(title="x", defaults={"price": 3}), tuple[Book, bool])
    assert_type(await Book.objects.abulk_create([book], batch_size=10, signals="each"), list[Book])
    assert_type(await Book.objects.abulk_update([book], [Book.title, "price"]), int)
    assert_type(await Book.objects.aupdate(price=Book.price + 1), int)
    assert_type(await Book.objects.filter(title="x").adelete(), tuple[int, dict[str, int]])


async def awaited_databases() -> None:
    async with Databases({"default": "sqlite://"}) as several:
        assert_type(several, Databases)
        assert_type(several.async_engine("default"), AsyncEngine)
        async with several.atomic("default"), several.aconnection("default") as raw:
            assert_type(raw, AsyncConnection)
    assert_type(await several.aclose(), None)
    assert_type(await mine.acreate_all(using="default"), None)
    assert_type(await mine.adrop_all(), None)


class Reading(Router):
    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        return "archive"


class Duck:
    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        return None


def databases(engine: Engine, url: URL) -> None:
    microorm.configure("sqlite:///shop.db")
    microorm.configure({"default": url, "archive": engine}, routers=[Reading(), Duck()])
    microorm.configure({"default": {"url": "sqlite://", "pool_size": 3}}, max_connections=10, idle_timeout=60)
    microorm.default_databases.add("tenant_42", {"url": "sqlite://", "pool_size": 3})
    microorm.default_databases.remove("tenant_42")
    with tenant("tenant_42"):
        assert_type(current_tenant(), str | None)
    microorm.configure(
        url, routers=[Tenants(shared=["accounts"]), Tenants(models=["shop"], other_aliases={"logs"})]
    )
    with Databases({"default": "sqlite://"}, routers=[Reading()]) as several:
        assert_type(several.engine("default"), Engine)
        with several.atomic("default"), several.using("default"), several.connection("default") as raw:
            assert_type(raw, Connection)
        with several.connection(using="default") as raw:
            assert_type(raw, Connection)
        assert_type(several.engine(using="default"), Engine)
    with connection("default") as raw:
        assert_type(raw, Connection)
    with count_statements(using="default") as sent:
        assert_type(sent.count, int)
    with trace(parameters=True, max_steps=10) as traced:
        assert_type(traced.steps, list[Step])
    assert_type(traced.to_json(indent=2), str)
    assert_type([step.seconds for step in traced.find("save", "statement")], list[float])
    microorm.create_all()
    mine.create_all(using="default")
    mine.drop_all()
    microorm.close()


async def routers(cookie: str | None) -> None:
    replicas = PrimaryReplica("default", {"near": 2, "far": 1.5}, sticky=1, choose="round_robin", causal=True)
    shards = Shards({"shop.Order": "customer_id"}, aliases=["east", "west"], pick={1: "east"})
    microorm.configure({"default": "sqlite://"}, routers=[replicas, shards])
    with replicas.session(cookie) as session:
        assert_type(session.token(), str)
        assert_type(await session.atoken(), str)
    assert_type(replicas.stats(), ReplicaStats)
    assert_type(replicas.stats().reads["near"], int)
    with shards.at(1) as alias:
        assert_type(alias, str)
    assert_type([*shards.each()], list[str])
    assert_type(shards.alias("x"), str)
