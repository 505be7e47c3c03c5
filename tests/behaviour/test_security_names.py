"""Security: names that a class body chooses, of tables, columns and constraints, are quoted wherever they are used."""

from enum import Enum
from types import new_class
from typing import Any, Literal

import pytest
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func
from sqlalchemy.exc import DBAPIError

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    ModelError,
    field,
    foreign_key,
    many_to_many,
)
from tests.behaviour.hostile import IDENTIFIERS, MARK, SHAPES
from tests.behaviour.wire import ONE_WAY

APART = pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")  # a file holds what memory does
ODD = [
    "\0",
    f"{MARK}\0",
    f"{MARK}\ud800",
    f"{MARK}\n",
    f"\t{MARK}",
    f"{MARK}\x7f",
    f"{MARK}\x85",
    f"{MARK}\u2028",
    f"{MARK}\xa0",
]


def unknown_to(dialect: str, name: str) -> bool:
    """Whether *dialect* has no identifiers like *name*: an error of the database, or ours."""
    if dialect == "mariadb":
        return name != name.rstrip() or max(name) > "\uffff"
    return False


@pytest.fixture
def dialect(databases: Any) -> str:
    return databases.engine("default").dialect.name


def made(Base: Any, name: str, annotations: dict[str, Any], **options: Any) -> Any:
    """A model with the class name *name*."""
    fields = {each: value for each, (_, value) in annotations.items()}
    kinds = {each: kind for each, (kind, _) in annotations.items()}
    body = {**fields, "__annotations__": kinds, "__module__": __name__}
    return new_class(name, (Base,), options, lambda namespace: namespace.update(body))


@APART
@ONE_WAY
def test_hostile_tables_and_columns_are_quoted(Base, registry, dialect, wire):
    """Made, written, read, joined, updated and deleted through, with the name of each as it is."""
    chosen = [name for name in IDENTIFIERS if not unknown_to(dialect, name)]
    models = []
    for number, name in enumerate(chosen):
        writer = made(
            Base,
            f"Writer{number}",
            {"name": (Field[str | None], field(column=f"{name}1", default=None, max_length=40, index=True))},
            table=f"{name}{number}w",
        )
        book = made(
            Base,
            f"Book{number}",
            {
                "title": (Field[str], field(column=name, max_length=40, unique=True)),
                "pages": (Field[int], field(column=f"{name}2", default=0)),
                "writer": (ForeignKey[writer], foreign_key(column=f"{name}3", on_delete="cascade")),
            },
            table=f"{name}{number}b",
        )
        models.append((writer, book))
    registry.create_all("default")
    for number, (writer, book) in enumerate(models):
        assert_usable(number, writer, book, registry.databases)
    with wire.everything() as sent:
        registry.drop_all("default")
    assert len(sent) >= 2 * len(chosen)


def assert_usable(number: int, writer: Any, book: Any, databases: Any) -> None:
    """Written, read, joined, grouped and deleted; and a third of the other uses, whose SQL is quoted alike."""
    ursula, terry = writer(name="U").save(), writer(name="T").save()
    one = book(title="one", writer=ursula).save()
    two, three = book.objects.bulk_create(
        [book(title="two", writer=terry), book(title="three", pages=3, writer=ursula)]
    )
    one.pages = 1
    one.save()
    assert book.objects.filter(book.writer.name == "U").order_by(book.writer.name, "title").all() == [
        one,
        three,
    ]
    assert book.objects.filter(writer=terry).update(pages=book.pages + 7) == 1
    assert [tuple(row) for row in book.objects.order_by("id").values("title", "pages", book.writer.name)] == [
        ("one", 1, "U"),
        ("two", 7, "T"),
        ("three", 3, "U"),
    ]
    groups = book.objects.group_by(book.writer.name).values(book.writer.name, func.count())
    assert {tuple(group) for group in groups} == {("U", 2), ("T", 1)}
    (read, written_again, locked)[number % 3](book, terry, one, two, three, databases)
    two.delete()
    ursula.delete()
    assert book.objects.filter(book.writer.name == "T").delete()[0] == 0
    assert book.objects.exists() is False


def read(book: Any, terry: Any, one: Any, two: Any, three: Any, databases: Any) -> None:
    one.refresh_from_db()
    assert book.objects.get(title="one") == one
    assert book.objects.exclude(book.writer.name == "U").select_related("writer").get().writer == terry
    assert book.objects.order_by("pages").scalars("pages") == [1, 3, 7]
    assert book.objects.aggregate(total=func.sum(book.pages)).total == 11
    assert book.objects.in_bulk([one.pk]) == {one.pk: one}
    assert list(book.objects.only("title").iterate())


def written_again(book: Any, terry: Any, one: Any, two: Any, three: Any, databases: Any) -> None:
    three.pages = 4
    book.objects.bulk_update([three], ["pages"])
    upsert = book(title="one", pages=9, writer=one.writer)
    book.objects.bulk_create([upsert], on_conflict="update", unique_fields=["title"])
    assert (upsert.pk, book.objects.get(pk=one.pk).pages) == (one.pk, 9)
    assert book.objects.get_or_create({"writer": terry}, title="one") == (one, False)


def locked(book: Any, terry: Any, one: Any, two: Any, three: Any, databases: Any) -> None:
    with databases.atomic():
        assert book.objects.for_update().get(title="two") == two
    two.save(update_fields=["pages"])
    assert book.objects.explain()
    late = book(title="late", writer=terry).save()
    assert book.objects.filter(book.writer.name == "T", title="late").delete()[0] == 1
    assert book.objects.filter(pk=late.pk).count() == 0


@pytest.mark.backends("sqlite-memory")
@pytest.mark.parametrize("name", ODD, ids=repr)
def test_names_that_quotes_do_not_help_are_refused_at_the_definition(Base, registry, name):
    """Control characters, white space other than the plain space, lone surrogates."""
    with pytest.raises(ModelError, match="contains the character"):
        made(Base, "Odd", {"name": (Field[int], field(default=0))}, table=name)
    with pytest.raises(ModelError, match=r"Odd\.name: the name of the column, .* contains the character"):
        made(Base, "Odd", {"name": (Field[int], field(default=0, column=name))})
    assert list(registry.models) == []


@APART
@ONE_WAY
def test_a_hostile_class_name_is_a_label_and_never_sql(Base, registry, dialect):
    """Of a table that is named after it, it is quoted as any; in messages it is as it is."""
    chosen = [name for name in IDENTIFIERS if not unknown_to(dialect, name)]
    models = [made(Base, name, {"number": (Field[int], field(default=0))}) for name in chosen]
    registry.create_all("default")
    for model in models:
        saved = model(number=1).save()
        assert model.objects.get(number=1) == saved
        with pytest.raises(model.DoesNotExist):
            model.objects.get(number=2)
        assert model.objects.delete() == (1, {model.__schema__.label: 1})


@APART
@ONE_WAY
def test_members_of_an_enum_and_literals_are_quoted_in_checks(Base, registry, stored):
    """A CHECK that the database understands, and values that come back as they were."""
    values = [each for each in SHAPES if len(each) < 60]
    kinds = Enum("kinds", {f"m{number}": value for number, value in enumerate(values)})
    literals = Literal[tuple(values)]
    Item = made(Base, "Item", {"kind": (Field[kinds], field()), "word": (Field[literals], field())})
    registry.create_all("default")
    made_of = [Item(kind=kinds(value), word=value).save() for value in values]
    assert stored(Item, "kind", "word") == [(kinds(value), value) for value in values]
    assert [(each.kind, each.word) for each in Item.objects.order_by("id")] == [(kinds(v), v) for v in values]
    for instance, value in zip(made_of, values, strict=True):
        assert Item.objects.get(kind=kinds(value), word=value) == instance


@APART
@ONE_WAY
def test_names_of_constraints_and_indexes_are_quoted(Base, registry, dialect):
    """In `table_args`, where the class body names them."""
    chosen = [name for name in IDENTIFIERS if not unknown_to(dialect, name)]
    models = [
        made(
            Base,
            f"Thing{number}",
            {"one": (Field[int], field(default=0)), "two": (Field[int], field(default=0))},
            table_args=(
                UniqueConstraint("one", name=f"{name}{number}u"),
                CheckConstraint("two < 9", name=f"{name}{number}c"),
                Index(f"{name}{number}i", "two"),
            ),
        )
        for number, name in enumerate(chosen)
    ]
    registry.create_all("default")
    for model in models:
        thing = model(one=1).save()
        with pytest.raises(DBAPIError):
            model(one=1).save()
        with pytest.raises(DBAPIError):
            model.objects.update(two=9)
        upsert = model(one=1, two=3)
        model.objects.bulk_create([upsert], on_conflict="update", unique_fields=["one"])
        assert upsert == thing


@APART
@ONE_WAY
def test_many_to_many_relations_of_hostile_tables(Base, registry, dialect):
    """The table between two is named after the model and the relation; a name in any script will do."""
    chosen = [name for name in IDENTIFIERS if not unknown_to(dialect, name)]
    models = []
    for number, name in enumerate(chosen):
        tag = made(Base, f"Tag{number}", {"name": (Field[int], field(column=name))}, table=f"{name}{number}t")
        fields = {"título": (ManyToMany[tag], many_to_many())}
        models.append((tag, made(Base, f"Post{number}", fields, table=f"{name}{number}p")))
    registry.create_all("default")
    for tag, post in models:
        one, two = tag(name=1).save(), tag(name=2).save()
        written = post().save()
        written.título.add(one, two)
        assert written.título.order_by("name").all() == [one, two]
        assert post.objects.filter(post.título.name == 2).all() == [written]
        assert post.objects.prefetch_related("título").get().título.count() == 2
        written.título.remove(one)
        assert written.título.all() == [two]
        assert written.delete()[0] >= 1
