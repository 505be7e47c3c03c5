"""`validate=`: functions of the user that check each value on its way to the database, beside the checks of its type."""

import json
import pickle
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import case, func

from microorm import Field, FixtureError, InvalidValue, ModelError, field, fixtures
from microorm.signals import post_save, pre_save

MEMORY = pytest.mark.backends("sqlite-memory")


def not_negative(value: Any) -> None:
    if value < 0:
        raise ValueError("must not be negative")


def starts_with_capital(text: str) -> None:
    if not text[0].isupper():  # an IndexError for an empty text, which `not_blank` refuses before
        raise ValueError("must start with a capital")


def not_blank(text: str) -> None:
    if not text.strip():
        raise ValueError("must not be blank")


@pytest.fixture
def seen() -> list[Any]:
    """The values that the validators of `Item.price` have seen."""
    return []


@pytest.fixture
def Item(Base, registry, seen) -> Any:
    class Item(Base):
        name: Field[str] = field(max_length=10, validate=[not_blank, starts_with_capital])
        price: Field[Decimal | None] = field(
            default=None, max_digits=6, decimal_places=2, validate=[seen.append, not_negative]
        )
        stock: Field[int] = field(default=0, validate=not_negative)

    registry.create_all()
    return Item


REFUSED = (
    "Item.name must start with a capital (str 'pen'); Item.price must not be negative (Decimal('-1')); "
    "Item.stock must not be negative (int -2)"
)


@pytest.mark.parametrize("force", [{}, {"force_insert": True}, {"raw": True}])
def test_one_error_names_all_fields_that_are_refused(Item, wire, force):
    """Before any SQL, and the instance is as it was. `errors` has the words of the validators, as for a form."""
    item = Item(name="pen", price=Decimal(-1), stock=-2)
    with wire.record() as sent, pytest.raises(InvalidValue) as raised:
        item.save(**force)
    assert sent == []
    assert str(raised.value) == REFUSED
    assert raised.value.errors == {
        "name": "must start with a capital",
        "price": "must not be negative",
        "stock": "must not be negative",
    }
    assert raised.value.problems["stock"] == "must not be negative (int -2)"
    assert (item.id, item.price, item.changes()["stock"]) == (None, Decimal(-1), (None, -2))


def test_problems_of_types_and_of_validators_are_in_one_error(Item):
    with pytest.raises(InvalidValue) as raised:
        Item(name=3, price=Decimal(-1), stock=-2).save()
    assert raised.value.errors == {
        "name": "must be str of at most 10 characters, not int 3",
        "price": "must not be negative",
        "stock": "must not be negative",
    }
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.errors) == (str(raised.value), raised.value.errors)


def test_the_first_validator_that_refuses_a_value_is_the_last_that_sees_it(Item):
    with pytest.raises(InvalidValue, match=r"^Item\.name must not be blank \(str ''\)$"):
        Item(name="").save()


def test_a_validator_sees_each_written_value_once_as_it_is_written(Item, seen, stored):
    item = Item(name="Pen", price=3).save()
    assert seen == [Decimal(3)]
    assert type(seen[0]) is Decimal
    item.price = None
    item.save()
    item.save(update_fields=["name"])
    assert len(seen) == 1  # None is not shown, nor a field that is not written
    assert stored(Item, "name", "price") == [("Pen", None)]


WRITES: dict[str, Any] = {
    "save": lambda Item, item: item.save(),
    "update_fields": lambda Item, item: item.save(update_fields=["stock"]),
    "bulk_update": lambda Item, item: Item.objects.bulk_update([item], ["stock"]),
    "bulk_create": lambda Item, item: Item.objects.bulk_create([Item(name="A", stock=-1)]),
    "bulk_create-converted": lambda Item, item: Item.objects.bulk_create([Item(name="A", stock=-1, price=1)]),
    "upsert": lambda Item, item: Item.objects.bulk_create([item], on_conflict="update", unique_fields=["id"]),
    "update": lambda Item, item: Item.objects.update(stock=-1),
    "update-case": lambda Item, item: Item.objects.update(stock=case((Item.stock > 3, -1), else_=2)),
    "update-coalesce": lambda Item, item: Item.objects.update(stock=func.coalesce(Item.stock, -1)),
    "create": lambda Item, item: Item.objects.create(name="A", stock=-1),
    "get_or_create": lambda Item, item: Item.objects.get_or_create(name="A", defaults={"stock": -1}),
    "update_or_create": lambda Item, item: Item.objects.update_or_create(name="Pen", defaults={"stock": -1}),
    "from_dict": lambda Item, item: Item.from_dict({"name": "A", "stock": -1}, allow=["name", "stock"]),
}


def test_a_value_is_refused_wherever_it_is_written(Item, stored, subtests):
    item = Item(name="Pen", stock=1).save()
    item.stock = -1
    for name, write in WRITES.items():
        with subtests.test(name):
            with pytest.raises(InvalidValue) as raised:
                write(Item, item)
            assert raised.value.errors == {"stock": "must not be negative"}
            assert str(raised.value) == "Item.stock must not be negative (int -1)"
            assert stored(Item, "name", "stock") == [("Pen", 1)]
            assert item.changes() == {"stock": (1, -1)}


@MEMORY
def test_explain_shows_where_the_validators_are_called(Item):
    Item(name="Pen").save()
    assert "the row to write of name, price, stock" in Item.__schema__.explain()
    assert "return validated((v0, v1, v2, ))" in Item.__schema__.explain()


def test_values_that_are_compared_are_not_validated(Item, seen):
    """Nor are the operands of arithmetic, and what an expression results in."""
    item = Item(name="Pen", stock=1).save()
    assert Item.objects.filter(Item.price < -1, stock=-1, name="").count() == 0
    assert Item.objects.filter(name="x").one_or_none() is None
    assert Item.objects.filter(Item.stock > case((Item.name == "", -5), else_=0)).count() == 1
    assert Item.objects.update(stock=Item.stock - 3) == 1
    item.refresh_from_db()
    assert item.stock == -2
    item.stock = Item.stock - 1
    item.save()
    assert item.stock == -3
    assert item.delete()[0] == 1
    assert seen == []


def test_bulk_create_and_bulk_update_name_the_object(Item):
    pens = [Item(name="A"), Item(name="B"), Item(name="c")]
    with pytest.raises(InvalidValue) as raised:
        Item.objects.bulk_create(pens)
    assert raised.value.__notes__ == ["in object 2 of bulk_create()"]
    assert [pen.id for pen in pens] == [None] * 3
    pens[2].name = "C"
    Item.objects.bulk_create(pens)
    pens[1].stock = -1
    with pytest.raises(InvalidValue) as raised:
        Item.objects.bulk_update(pens, ["stock"])
    assert raised.value.__notes__ == ["in object 1 of bulk_update()"]


def test_a_row_that_is_there_can_be_read_and_deleted_whatever_the_validators_say(Item, databases):
    with databases.connection() as connection:
        connection.execute(Item.__table__.insert().values(name="pen", stock=-1))
    item = Item.objects.get()
    assert item.to_dict()["stock"] == -1
    with pytest.raises(InvalidValue, match="must start with a capital"):
        item.save()
    assert item.save(update_fields=["price"]).delete()[0] == 1


def test_receivers_of_pre_save_may_mend_a_value(Item, listen, stored):
    """Validators come after them. Those of `post_save` do not see what is refused."""
    listen(pre_save, lambda instance, **_: setattr(instance, "name", instance.name.title()), sender=Item)
    sent: list[Any] = []
    listen(post_save, lambda **_: sent.append(1), sender=Item)
    Item(name="pen").save()
    with pytest.raises(InvalidValue):
        Item(name="ink", stock=-1).save()
    assert (stored(Item, "name"), sent) == (["Pen"], [1])


def test_a_fixture_is_validated_before_anything_is_loaded(Item, registry, tmp_path, stored):
    file = tmp_path / "items.json"
    label = Item.__schema__.label
    rows = [{"name": "Pen", "stock": 1}, {"name": "Ink", "stock": -1}]
    file.write_text(json.dumps([{"model": label, "fields": row | {"price": None}} for row in rows]))
    with pytest.raises(FixtureError) as raised:
        fixtures.load(file, registry=registry)
    assert raised.value.number == 2
    assert raised.value.problems == {"stock": "must not be negative (int -1)"}
    assert stored(Item) == []


@MEMORY
def test_other_exceptions_of_a_validator_pass(Base, registry):
    class Broken(Exception):
        pass

    def breaks(value: object) -> None:
        raise Broken

    class Item(Base):
        name: Field[str] = field(validate=breaks)

    registry.create_all()
    item = Item(name="x")
    with pytest.raises(Broken):
        item.save()
    assert item.id is None


@MEMORY
def test_a_validator_may_raise_an_error_of_its_own_kind_or_none_with_words(Base, registry):
    class NoISBN(ValueError):
        pass

    def is_isbn(value: str) -> None:
        raise NoISBN("is no ISBN") if value else ValueError

    class Item(Base):
        isbn: Field[str] = field(validate=is_isbn)

    registry.create_all()
    with pytest.raises(InvalidValue, match=r"^Item\.isbn is no ISBN \(str 'x'\)$"):
        Item(isbn="x").save()
    with pytest.raises(InvalidValue, match=r"^Item\.isbn is invalid \(str ''\)$"):
        Item(isbn="").save()


@MEMORY
def test_a_validator_that_returns_a_value_is_a_mistake(Base, registry):
    """As a predicate would: nothing would be refused by it."""

    class Item(Base):
        stock: Field[int] = field(validate=lambda value: value >= 0)

    registry.create_all()
    with pytest.raises(TypeError) as raised:
        Item(stock=1).save()
    assert str(raised.value) == (
        "a validator of Item.stock returned True; it must return None, or raise ValueError"
    )


async def wait(value: object) -> None:
    pass


@MEMORY
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("text", "validate= must be a function or a list of them, not str 'text'"),
        ([not_blank, 3], "validate= must be a function or a list of them, not int 3"),
        (wait, "validate= must be a function that is not async, not function"),
        (partial(wait), "validate= must be a function that is not async, not functools.partial("),
    ],
)
def test_what_is_no_validator_is_refused_when_the_class_is_defined(Base, given, problem):
    with pytest.raises(ModelError) as raised:

        class Item(Base):
            name: Field[str] = field(validate=given)

    assert str(raised.value).startswith(f"Item.name: {problem}")


@MEMORY
def test_a_validator_of_a_key_and_of_a_list_is_called_as_any_other(Base, registry):
    def few(values: list[str]) -> None:
        if len(values) > 2:
            raise ValueError("must be two at most")

    class Item(Base):
        code: Field[str] = field(primary_key=True, max_length=5, validate=not_blank)
        tags: Field[list[str]] = field(default_factory=list, validate=few)

    registry.create_all()
    with pytest.raises(InvalidValue) as raised:
        Item(code=" ", tags=["a", "b", "c"]).save()
    assert raised.value.errors == {"code": "must not be blank", "tags": "must be two at most"}
    item = Item(code="x", tags=["a"]).save()
    item.tags += ["b", "c"]
    with pytest.raises(InvalidValue, match="must be two at most"):
        item.save()
    assert Item.objects.get(pk="x").tags == ["a"]
