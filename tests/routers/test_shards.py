"""Shards: a row is on the shard of its key, and a query names its shard, or is refused."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from microorm import (
    CrossDatabaseRelation,
    Databases,
    Field,
    ForeignKey,
    Model,
    Registry,
    Related,
    field,
    foreign_key,
    related,
)
from microorm.errors import ConfigurationError, TransactionError
from microorm.routers import ShardError, Shards

ODD, EVEN = "odd", "even"


class Shop:
    """Customers, orders and lines on the shards `odd` and `even`, by the key of the customer; products are on `default`."""

    def __init__(self, url: Callable[[], str]) -> None:
        self.router = Shards(
            {
                "shop.Customer": "id",
                "shop.Order": "customer_id",
                "shop.Note": "customer",
                "shop.Line": "order",
            },
            [ODD, EVEN],
            pick=lambda key: ODD if key % 2 else EVEN,
            everywhere=["shop.Country"],
        )
        urls = {alias: url() for alias in ("default", ODD, EVEN)}
        self.databases = Databases(urls, routers=[self.router])
        registry = Registry(self.databases)

        class Base(Model, registry=registry, abstract=True, app="shop"):
            pass

        class Country(Base):
            name: Field[str]

        class Product(Base):
            name: Field[str]

        class Customer(Base):
            id: Field[int] = field(primary_key=True)
            name: Field[str] = field(default="")
            country: ForeignKey[Country | None] = foreign_key(default=None)
            orders: Related["Order"] = related("customer")

        class Order(Base):
            customer: ForeignKey[Customer] = foreign_key()
            total: Field[int] = field(default=0)
            product_id: Field[int | None] = field(default=None)
            lines: Related["Line"] = related("order")

        class Review(Base):
            order: ForeignKey[Order] = foreign_key(constraint=False)

        class Note(Base):
            customer: ForeignKey[Customer] = foreign_key()

        class Line(Base):
            order: ForeignKey[Order] = foreign_key()
            text: Field[str] = field(default="")

        self.Country: Any = Country
        self.Product: Any = Product
        self.Customer: Any = Customer
        self.Order: Any = Order
        self.Note: Any = Note
        self.Review: Any = Review
        self.Line: Any = Line
        registry.create_all()


@pytest.fixture
def shop(fresh_url: Callable[[], str]) -> Iterator[Shop]:
    """Customers 1 and 2, each with an order and a line."""
    shop = Shop(fresh_url)
    for number in (1, 2):
        customer = shop.Customer(id=number, name=f"c{number}").save()
        order = shop.Order(customer=customer, total=10 * number).save()
        shop.Line(order=order, text=f"l{number}").save()
    with shop.databases:
        yield shop


pytestmark = pytest.mark.backends("sqlite-file", "postgresql")


@pytest.mark.backends("sqlite-memory", "mariadb")
def test_each_row_is_on_the_shard_of_its_key(shop: Shop) -> None:
    """Also rows that take it from another row; the tables are where the rows can be."""
    for alias, number in ((ODD, 1), (EVEN, 2)):
        assert [each.id for each in shop.Customer.objects.using(alias).all()] == [number]
        assert [each.total for each in shop.Order.objects.using(alias).all()] == [10 * number]
        assert [each.text for each in shop.Line.objects.using(alias).all()] == [f"l{number}"]
    assert shop.Product(name="p").save()._state.db == "default"
    assert not shop.databases.allows_migration("default", "shop.Order")


def test_a_query_names_its_shard_by_an_equality(shop: Shop) -> None:
    """By keyword, by an instance, by an expression, and in `get`."""
    Order, Customer = shop.Order, shop.Customer
    customer = Customer.objects.get(id=2)
    for query in (
        Order.objects.filter(customer_id=2),
        Order.objects.filter(customer=customer),
        Order.objects.filter(Order.customer_id == 2),
        Order.objects.filter(Order.total > 1, Order.customer_id == 2),
        Order.objects.filter(customer_id=2).order_by("total").limit(3),
        Order.objects.using(EVEN),
        customer.orders,
    ):
        assert ([each.total for each in query.all()], query.count()) == ([20], 1)
    assert Order.objects.get(customer_id=1).total == 10
    assert Customer.objects.filter(id=1).values("name")[0].name == "c1"
    assert Order.objects.filter(customer_id=1).aggregate(total=Order.total).total == 10


def test_a_query_that_names_no_shard_is_refused_before_any_statement(shop: Shop) -> None:
    Order, Line = shop.Order, shop.Line
    for read in (
        lambda: Order.objects.all(),
        lambda: Order.objects.count(),
        lambda: Order.objects.get(id=1),
        lambda: Order.objects.filter(Order.customer_id > 1).first(),
        lambda: Order.objects.filter(Order.customer_id.in_([1, 2])).exists(),
        lambda: list(Order.objects.iterate()),
        lambda: Order.objects.filter(total=1).update(total=2),
        lambda: Order.objects.delete(),
        lambda: Order.objects.get_or_create(total=3),
    ):
        with pytest.raises(
            ShardError,
            match=r"(query|write) of Order does not say on which shard: name it by filter\(customer_id=…\)",
        ):
            read()
    with pytest.raises(ShardError, match="name it by the instance of Line.order"):
        Line.objects.filter(order_id=1).all()


def test_inside_at_it_goes_to_the_shard_of_the_key(shop: Shop) -> None:
    with shop.router.at(2) as alias:
        assert (alias, shop.Order.objects.get().total) == (EVEN, 20)
        with shop.router.at(1):
            assert shop.Order.objects.get().total == 10
        assert shop.Order.objects.get().total == 20
        assert shop.Order.objects.get(customer_id=1).total == 10  # which the query names itself
        assert shop.Order.objects.update(total=21) == 1
        with pytest.raises(ShardError, match="belongs to 'odd', and the at\\(\\) block is on 'even'"):
            shop.Order(customer_id=1).save()
    with pytest.raises(ShardError):
        shop.Order.objects.all()
    assert [shop.Order.objects.using(alias).count() for alias in shop.router.each()] == [1, 1]


def test_related_rows_are_read_on_the_shard_of_the_instance(shop: Shop) -> None:
    order = shop.Order.objects.get(customer_id=2)
    assert (order.customer.name, [each.text for each in order.lines.all()]) == ("c2", ["l2"])
    line = shop.Line.objects.filter(order=order).get()
    assert (line.order.total, line.order.customer.id) == (20, 2)
    found = shop.Customer.objects.filter(id=2).prefetch_related("orders.lines").get()
    assert [line.text for order in found.orders.all() for line in order.lines.all()] == ["l2"]
    assert shop.Order.objects.select_related("customer").get(customer_id=2).customer.name == "c2"
    order.lines.create(text="more")
    assert shop.Line.objects.using(EVEN).count() == 2
    order.total = 5
    order.refresh_from_db()
    assert order.total == 20


def test_what_is_loaded_is_written_where_it_is(shop: Shop) -> None:
    order = shop.Order.objects.get(customer_id=2)
    order.total = 21
    order.save()
    partial = shop.Order.objects.only("total").get(customer_id=2)
    partial.total += 1
    partial.save()
    assert shop.Order.objects.using(EVEN).get().total == 22
    shop.Line.objects.filter(order=order).get().delete()
    assert order.delete()[0] == 1
    assert (shop.Order.objects.using(EVEN).count(), shop.Order.objects.using(ODD).count()) == (0, 1)


def test_a_row_stays_on_its_shard(shop: Shop) -> None:
    order = shop.Order.objects.get(customer_id=2)
    order.customer_id = 4  # of the same shard, but nothing would move what depends on it
    with pytest.raises(
        ShardError, match="Order.customer_id of .* says on which shard it is, and cannot be changed to 4"
    ):
        order.save()
    with pytest.raises(ShardError, match="Order.customer_id says on which shard a row is"):
        shop.Order.objects.filter(customer_id=2).update(customer_id=4)
    with pytest.raises(ShardError, match="Line.order_id says on which shard a row is"):
        shop.Line.objects.using(EVEN)._with(_using=None)._with(_owner=order).update(order_id=4)
    assert shop.Order.objects.using(EVEN).get().customer_id == 2


def test_a_row_without_a_key_has_no_shard(shop: Shop) -> None:
    line = shop.Line(order_id=1)
    with pytest.raises(
        ShardError, match="does not say on which shard: name it by the instance of Line.order"
    ):
        line.save()
    assert (line.id, line._state.adding) == (None, True)
    with shop.router.at(1):
        assert line.save()._state.db == ODD


def test_rows_that_are_written_together_are_of_one_shard(shop: Shop) -> None:
    """All or nothing is not possible over two databases."""
    Order = shop.Order
    with pytest.raises(
        ShardError, match="to 'odd' and .* to 'even'; write those of each shard by a call of its own"
    ):
        Order.objects.bulk_create([Order(customer_id=1), Order(customer_id=2)])
    assert [each._state.db for each in Order.objects.bulk_create(Order(customer_id=2) for _ in range(3))] == [
        EVEN
    ] * 3
    assert Order.objects.bulk_create([]) == []  # which needs no shard
    orders = Order.objects.filter(customer_id=2).all()
    for each in orders:
        each.total = 7
    assert Order.objects.bulk_update(iter(orders), ["total"]) == 4
    with pytest.raises(ShardError, match="several shards"):
        Order.objects.bulk_update([*orders, Order.objects.get(customer_id=1)], ["total"])
    assert {each.total for each in Order.objects.filter(customer_id=2).all()} == {7}


def test_get_or_create_names_its_shard_by_what_is_asked_for(shop: Shop) -> None:
    made, created = shop.Order.objects.get_or_create(customer_id=2, total=99)
    assert (created, made._state.db) == (True, EVEN)
    assert shop.Order.objects.get_or_create(customer_id=2, total=99) == (made, False)
    changed, created = shop.Order.objects.update_or_create(
        customer_id=2, total=99, defaults={"product_id": 3}
    )
    assert (changed, created, changed.product_id) == (made, False, 3)
    assert shop.Order.objects.create(customer_id=1)._state.db == ODD


def test_get_or_create_writes_where_any_write_of_the_row_would_go(shop: Shop) -> None:
    """Not to the shard on which it has looked for the row, if the values in `defaults` name another."""
    Order = shop.Order
    with shop.router.at(2), pytest.raises(ShardError, match="belongs to 'odd', and the at"):
        Order.objects.get_or_create(total=7, defaults={"customer_id": 1})
    with shop.router.at(2):
        made, created = Order.objects.get_or_create(total=7, defaults={"customer_id": 2})
        assert (created, made._state.db) == (True, EVEN)
    with pytest.raises(
        ShardError, match="customer_id of .* says on which shard it is, and cannot be changed to 1"
    ):
        Order.objects.update_or_create(customer_id=2, total=20, defaults={"customer_id": 1})
    with pytest.raises(TransactionError, match="a write to the shard 'odd'"):
        Order.objects.update_or_create(customer_id=2, total=99, defaults={"customer_id": 1})
    same, created = Order.objects.update_or_create(customer_id=2, total=20, defaults={"customer_id": 2})
    assert (same.total, created) == (20, False)
    assert [each.customer_id for each in Order.objects.using(EVEN).all()] == [2, 2]
    assert [each.customer_id for each in Order.objects.using(ODD).all()] == [1]


def test_get_or_create_along_a_relation_stays_on_the_shard_of_the_instance(shop: Shop) -> None:
    order = shop.Order.objects.get(customer_id=2)
    for rows, values in ((order.lines, {}), (shop.Line.objects, {"order": order})):
        line, created = rows.get_or_create(text="more", **values)
        assert (line._state.db, created) == (EVEN, not values)
        changed, created = rows.update_or_create(text="more", **values, defaults={"text": "more"})
        assert (changed, created) == (line, False)
    assert shop.Line.objects.using(EVEN).count() == 2


def test_a_block_is_on_one_shard(shop: Shop) -> None:
    alias = shop.router.alias(2)
    with shop.databases.atomic(alias):
        shop.Order(customer_id=2, total=1).save()
        assert shop.Order.objects.filter(customer_id=1).count() == 1  # reads may be of another
        for write in (
            lambda: shop.Order(customer_id=1).save(),
            lambda: shop.Order.objects.create(customer_id=1),
            lambda: shop.Order.objects.filter(customer_id=1).delete(),
            lambda: shop.Order.objects.bulk_create([shop.Order(customer_id=1)]),
        ):
            with pytest.raises(
                TransactionError, match="a write to the shard 'odd' cannot be part of the block on"
            ):
                write()
        assert shop.Product(name="p").save()._state.db == "default"
    assert (shop.Order.objects.using(EVEN).count(), shop.Order.objects.using(ODD).count()) == (2, 1)


def test_relations_over_shards_are_refused(shop: Shop) -> None:
    one, two = shop.Customer.objects.get(id=1), shop.Customer.objects.get(id=2)
    order = shop.Order.objects.get(customer_id=2)
    with pytest.raises(CrossDatabaseRelation):
        order.customer = one
        order.save()
    with pytest.raises(CrossDatabaseRelation):
        two.orders.add(shop.Order.objects.get(customer_id=1))
    with pytest.raises(CrossDatabaseRelation):
        shop.Order.objects.using(EVEN).filter(customer=one).all()
    assert shop.Order.objects.using(EVEN).get().customer_id == 2


def test_joins_over_shards_are_refused(shop: Shop) -> None:
    """Those of rows that are on the same shard, or everywhere, are not."""
    Order, Customer, Product = shop.Order, shop.Customer, shop.Product
    assert Order.objects.filter(Order.customer.name == "c2", customer_id=2).count() == 1
    assert Customer.objects.filter(Customer.orders.total == 20, id=2).count() == 1
    assert Customer.objects.filter(Customer.country.name == "x", id=2).count() == 0
    for read in (
        lambda: Order.objects.filter(Order.total.in_(select(Product.id)), customer_id=2).all(),
        lambda: shop.Review.objects.filter(shop.Review.order.total == 20).all(),
        lambda: shop.Review.objects.select_related("order").all(),
        lambda: shop.Review.objects.order_by(shop.Review.order.total).first(),
        lambda: shop.Review.objects.values(shop.Review.order.total),
    ):
        with pytest.raises(
            ShardError, match="joins shop.(Product|Order), and only shop.Order is spread over shards"
        ):
            read()


def test_everything_that_a_statement_reads_has_to_be_on_the_shard(shop: Shop) -> None:
    """Whatever it is: a column, an order, a group, a new value."""
    Order, Product = shop.Order, shop.Product
    elsewhere: Any = select(func.count(Product.id)).scalar_subquery()
    orders = Order.objects.filter(customer_id=2)
    order = orders.get()
    order.total = elsewhere
    for use in (
        lambda: orders.annotate(number=elsewhere).all(),
        lambda: orders.order_by(elsewhere).first(),
        lambda: list(orders.order_by(elsewhere).iterate()),
        lambda: orders.values(elsewhere),
        lambda: orders.scalars(elsewhere),
        lambda: orders.aggregate(number=elsewhere),
        lambda: orders.group_by(elsewhere).values(func.count()),
        lambda: orders.group_by("total").having(func.count() > elsewhere).values("total"),
        lambda: orders.update(total=elsewhere),
        lambda: orders.filter(Order.total > elsewhere).delete(),
        lambda: order.save(),
        lambda: Order.objects.bulk_update([order], ["total"]),
    ):
        with pytest.raises(ShardError, match=r"shop.Order joins shop.Product, and only shop.Order is spread"):
            use()
    assert orders.get().total == 20


def test_a_statement_elsewhere_reads_nothing_of_a_shard(shop: Shop) -> None:
    Product, Review, Customer = shop.Product, shop.Review, shop.Customer
    name: Any = select(Customer.name).limit(1).scalar_subquery()
    for use in (
        lambda: Product.objects.update(name=name),
        lambda: Product.objects.create(name=name),
        lambda: Review.objects.annotate(total=Review.order.total).all(),
        lambda: Review.objects.scalars(Review.order.customer.name),
    ):
        with pytest.raises(ShardError, match=r"joins shop\.(Customer|Order), and only"):
            use()


def test_what_a_statement_reads_on_its_shard_is_not_refused(shop: Shop) -> None:
    """Nor what is everywhere."""
    Customer, Order = shop.Customer, shop.Order
    customers = Customer.objects.filter(id=2)
    customer = (
        customers.annotate(number=func.count(Customer.orders.lines.id)).order_by(Customer.country.name).get()
    )
    assert customer.number == 1
    assert customers.values(Customer.name, Customer.country.name) == [("c2", None)]
    most: Any = select(func.max(Customer.id)).scalar_subquery()
    assert Order.objects.filter(customer_id=2).update(product_id=most) == 1
    assert Order.objects.get(customer_id=2).product_id == 2


def test_an_instance_as_the_value_of_a_key_names_its_shard(shop: Shop) -> None:
    """As it does for the relation."""
    order = shop.Order.objects.get(customer_id=2)
    assert [each.text for each in shop.Line.objects.filter(order_id=order).all()] == ["l2"]
    with pytest.raises(CrossDatabaseRelation):
        shop.Line.objects.using(ODD).filter(order_id=order).all()


def test_awaited_calls_are_routed_as_well(shop: Shop) -> None:
    async def main() -> list[Any]:
        with shop.router.at(1):
            found = [
                await shop.Order.objects.acount(),
                await asyncio.create_task(shop.Order.objects.acount()),
            ]
        found.append((await shop.Order(customer_id=2).asave())._state.db)
        with pytest.raises(ShardError):
            await shop.Order.objects.aall()
        found.append((await shop.Order.objects.aget(customer_id=1)).total)
        await shop.databases.aclose()
        return found

    assert asyncio.run(main()) == [1, 1, EVEN, 10]


# The choice of a shard.


def shards(**options: Any) -> Shards:
    return Shards({"shop.Order": "id"}, ["a", "b", "c"], **options)


@pytest.mark.slow
def test_the_hash_is_the_same_in_each_process() -> None:
    """And in each version: these are the promise."""
    keys = [1, 2, 3, "1", "x", UUID(int=7), b"\0"]
    found = [shards().alias(key) for key in keys]
    code = (
        "from uuid import UUID\nfrom microorm.routers import Shards\n"
        f"print([Shards({{'shop.Order': 'id'}}, ['c', 'a', 'b']).alias(key) for key in {keys!r}])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == repr(found)
    assert found == ["c", "b", "b", "c", "a", "b", "c"]


def test_the_hash_spreads_keys_and_a_new_alias_takes_its_share_only() -> None:
    before = [shards().alias(key) for key in range(3000)]
    for alias in "abc":
        assert 850 < before.count(alias) < 1150
    more = Shards({"shop.Order": "id"}, ["a", "b", "c", "d"])
    moved = [(old, more.alias(key)) for key, old in enumerate(before) if more.alias(key) != old]
    assert {new for _, new in moved} == {"d"}
    assert 600 < len(moved) < 900


def test_a_function_or_a_directory_may_pick() -> None:
    assert shards(pick={7: "b"}).alias(7) == "b"
    assert shards(pick=lambda key: "c" if key > 100 else "a").alias(101) == "c"
    for router, key in (
        (shards(pick={7: "b"}), 8),
        (shards(pick=lambda key: "z"), 1),
        (shards(), 1.5),
        (shards(), True),
    ):
        with pytest.raises(
            ShardError, match="has no shard; shards: 'a', 'b', 'c'|must be an int, a str, a UUID or bytes"
        ):
            router.alias(key)


def test_options_that_cannot_be_are_refused() -> None:
    for aliases in ([], "ab", ["a", "a"]):
        with pytest.raises(ConfigurationError, match="a list of different aliases"):
            Shards({}, aliases)
    with pytest.raises(ConfigurationError, match="no database named 'b'; configured: 'a'"):
        Databases({"a": "sqlite://"}, routers=[Shards({}, ["a", "b"])])


@pytest.mark.parametrize(
    ("name", "message"),
    [("nmae", "no field or foreign key 'nmae'; nearest: 'name'"), ("other", "not among the keys")],
)
def test_a_key_that_is_no_field_is_refused_at_the_first_use(name: str, message: str) -> None:
    with Databases("sqlite://", routers=[Shards({"shop.Thing": name}, ["default"])]) as databases:
        registry = Registry(databases)

        class Other(Model, registry=registry, app="shop"):
            pass

        class Thing(Model, registry=registry, app="shop"):
            name: Field[str] = field(default="")
            other: ForeignKey[Other | None] = foreign_key(default=None)

        with pytest.raises(ConfigurationError, match=message):
            Thing.objects.all()
