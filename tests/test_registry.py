"""Models by label, what waits for them, and the tables they make."""

import gc
import types
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import inspect

import microorm
from microorm import (
    ConfigurationError,
    Databases,
    Field,
    ForeignKey,
    Model,
    ModelError,
    Registry,
    Related,
    UnknownAlias,
    foreign_key,
    related,
)
from microorm.registry import check_label, default_registry
from microorm.signals import ModelSignal, post_save


class Places:
    """Sends the model called `Audit` to `other`, and nothing else there."""

    asked: list[tuple[Any, ...]]

    def __init__(self) -> None:
        self.asked = []

    def allow_migrate(self, alias, label, model=None, **hints):
        self.asked.append((alias, label, model))
        return (label == "shop.Audit") is (alias == "other")


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture
def databases(places) -> Iterator[Databases]:
    """Two memory databases: which tables go where does not depend on their kind."""
    with Databases({"default": "sqlite://", "other": "sqlite://"}, routers=[places]) as databases:
        yield databases


def model_in(module: str, Base: type[Model], name: str = "Book", **keywords: Any) -> Any:
    """A model whose class statement stands in *module*."""
    body = {"__module__": module, "__qualname__": name, "__annotations__": {"title": Field[str]}}
    return types.new_class(name, (Base,), keywords, lambda namespace: namespace.update(body))


def tables(databases: Databases, alias: str) -> list[str]:
    with databases.connection(alias) as connection:
        return [name for name in inspect(connection).get_table_names() if not name.startswith("sqlite_")]


@pytest.mark.parametrize(
    ("module", "label"),
    [
        ("shop.models", "shop.Book"),
        ("company.shop.models", "shop.Book"),
        ("company.shop.models.books", "shop.Book"),
        ("company.models.shop.models", "company.Book"),
        ("shop.books", "books.Book"),
        ("books", "books.Book"),
        ("models", "models.Book"),
        ("models.books", "books.Book"),
        ("__main__", "main.Book"),
        ("__mp_main__", "main.Book"),
        ("store", "store.Book"),
        ("store.inner.things", "outlet.Book"),
        ("store.inner", "outlet.Book"),
        ("store.innermost", "till.Book"),
        ("store.models", "till.Book"),
    ],
)
def test_a_label_comes_from_the_application_or_the_module(Base, registry, module, label) -> None:
    """The configured package that holds the module, else that of `models`, else the module itself."""
    registry.apps.update({"store": "till", "store.inner": "outlet"} if module != "store" else {})
    model = model_in(module, Base)
    assert model.__schema__.label == label
    assert registry.models == {label: model}
    assert model_in(module, Base, "Paper", app="own").__schema__.label == "own.Paper"


def test_what_waits_for_a_label_gets_the_model_once_now_or_later(Base, registry) -> None:
    """In the order in which it came."""
    told: list[tuple[str, Any]] = []
    registry.when_defined("shop.Book", lambda model: told.append(("first", model)))
    registry.when_defined("shop.Book", lambda model: told.append(("second", model)))
    registry.when_defined("shop.Paper", lambda model: told.append(("never", model)))
    assert told == []
    Book = model_in("shop.models", Base)
    assert told == [("first", Book), ("second", Book)]
    registry.when_defined("shop.Book", lambda model: told.append(("at once", model)))
    assert told[2:] == [("at once", Book)]
    with pytest.warns(RuntimeWarning):
        model_in("shop.models", Base)
    assert len(told) == 3


def test_what_waits_can_be_taken_out_again(Base, registry) -> None:
    told: list[Any] = []
    registry.when_defined("shop.Book", told.append)
    assert registry.forget_waiting("shop.Book", print) is False
    assert registry.forget_waiting("shop.Paper", told.append) is False
    assert registry.forget_waiting("shop.Book", told.append) is True
    assert registry.forget_waiting("shop.Book", told.append) is False
    model_in("shop.models", Base)
    assert told == []


def test_a_model_that_waits_for_a_name_is_told_when_it_is_defined(Base, registry) -> None:
    told: list[Any] = []
    registry.when_defined("test_registry.Book", told.append)

    class Book(Base):
        pages: Field["Count"]

    assert told == []
    Count = int
    Book(pages=Count(1))
    assert told == [Book]


@pytest.mark.parametrize(
    "label", ["", "Book", "shop.", ".Book", "a.b.Book", "shop Book", "shop.Bo ok", "1a.Book", "shop.Book\n"]
)
def test_a_label_has_the_form_app_model(registry, label) -> None:
    with pytest.raises(ValueError, match="^a label must have the form 'app.Model', not ") as caught:
        check_label(label)
    assert str(caught.value).endswith(repr(label))
    with pytest.raises(ValueError):
        registry.when_defined(label, print)
    check_label("shop.Book")
    check_label("café.Büch_2")


def test_create_all_makes_what_the_routers_allow_where_they_allow_it(
    Base, registry, databases, places
) -> None:
    """`allow_migrate` is asked with alias, label and model; again is no error."""
    Book = model_in("shop.models", Base)
    Audit = model_in("shop.models", Base, "Audit")
    registry.create_all()
    assert sorted(places.asked) == sorted(
        (alias, f"shop.{model.__name__}", model) for alias in ("default", "other") for model in (Book, Audit)
    )
    assert (tables(databases, "default"), tables(databases, "other")) == (["book"], ["audit"])
    registry.create_all()
    registry.drop_all(using="other")
    assert (tables(databases, "default"), tables(databases, "other")) == (["book"], [])
    registry.drop_all()
    registry.drop_all()
    assert (tables(databases, "default"), tables(databases, "other")) == ([], [])
    registry.create_all(using="default")
    assert (tables(databases, "default"), tables(databases, "other")) == (["book"], [])


def test_create_all_in_a_block_goes_with_it(Base, registry, databases) -> None:
    model_in("shop.models", Base)
    with pytest.raises(OSError, match="stopped"), databases.atomic():
        registry.create_all(using="default")
        assert tables(databases, "default") == ["book"]
        raise OSError("stopped")
    assert tables(databases, "default") == []


def test_an_unknown_alias_makes_nothing(Base, registry, databases) -> None:
    model_in("shop.models", Base)
    for act in (registry.create_all, registry.drop_all):
        with pytest.raises(UnknownAlias) as caught:
            act("othre")
        assert str(caught.value) == (
            "no database named 'othre'; configured: 'default', 'other'; nearest: 'other'"
        )
    assert tables(databases, "default") == []


def test_a_model_without_its_names_keeps_create_all_from_doing_half_the_work(
    Base, registry, databases
) -> None:
    model_in("shop.models", Base)

    class Late(Base):
        size: Field["Size"]

    for act in (registry.create_all, registry.drop_all, lambda: registry.metadata):
        with pytest.raises(ModelError) as caught:
            act()
        assert str(caught.value) == "Late: name 'Size' is not defined"
    assert tables(databases, "default") == []
    assert repr(registry) == "<Registry of 1 models>"
    Size = int
    registry.create_all()
    assert Late(size=Size(1)).save().id == 1


def test_without_databases_there_is_nothing_to_make_tables_in() -> None:
    for registry in (Registry(), Registry(Databases())):
        for act in (registry.create_all, registry.drop_all):
            with pytest.raises(ConfigurationError) as caught:
                act()
            assert str(caught.value) == f"no database is configured; {registry.databases.remedy}"
    with pytest.raises(ConfigurationError, match="^no database is configured; "):
        microorm.create_all()


def test_a_registry_of_its_own_is_a_world_of_its_own() -> None:
    """The same labels and tables in two registries know nothing of each other."""
    with Databases("sqlite://") as one, Databases("sqlite://") as two:
        worlds = []
        for databases in (one, two):
            registry = Registry(databases)
            Base = types.new_class("Base", (Model,), {"registry": registry, "abstract": True})
            worlds.append((registry, model_in("shop.models", Base)))
        (left, left_book), (right, right_book) = worlds
        left.create_all()
        left_book(title="t").save()
        assert (tables(one, "default"), tables(two, "default")) == (["book"], [])
        assert (left.models, right.models) == ({"shop.Book": left_book}, {"shop.Book": right_book})
        assert (left.databases, right.databases) == (one, two)
        assert left.metadata is not right.metadata
        assert left_book.__table__ is left.metadata.tables["book"]
    assert Registry().databases is microorm.default_databases
    assert default_registry is microorm.default_registry
    assert "shop.Book" not in default_registry.models


def test_constraints_have_names_by_one_convention(Base, registry) -> None:
    model_in("shop.models", Base)
    assert {"pk", "uq", "ix", "ck", "fk"} <= registry.metadata.naming_convention.keys()
    assert registry.metadata.tables["book"].primary_key.name == "pk_book"


def test_a_label_as_sender_means_the_model_that_comes_by_that_name(Base, registry) -> None:
    """`registry=` says of which models; a class goes by no label."""
    told: list[Any] = []

    def hear(sender, instance, **kwargs):
        told.append((sender, instance.title))

    assert post_save.connect(hear, sender="shop.Book", registry=registry) is hear
    Book = model_in("shop.models", Base)
    Paper = model_in("shop.models", Base, "Paper")
    registry.create_all()
    Book(title="a").save()
    Paper(title="b").save()
    assert told == [(Book, "a")]
    assert post_save.has_listeners(Book)
    assert not post_save.has_listeners(Paper)
    assert post_save.disconnect(hear, sender="shop.Book", registry=registry) is True
    assert post_save.disconnect(hear, sender="shop.Book", registry=registry) is False
    assert not post_save.has_listeners(Book)
    post_save.connect(hear, sender=Paper)
    assert post_save.disconnect(hear, sender="shop.Paper", registry=registry) is True


def test_a_connection_to_a_label_can_be_ended_before_the_model_comes(Base, registry) -> None:
    """Connect, then disconnect, leaves nothing connected; the answer is a bool."""

    def hear(**kwargs):
        raise AssertionError

    post_save.connect(hear, sender="shop.Book", registry=registry)
    post_save.connect(hear, sender="shop.Book", registry=registry)
    assert post_save.disconnect(hear, sender="shop.Paper", registry=registry) is False
    assert post_save.disconnect(hear, sender="shop.Book", registry=registry) is True
    assert post_save.disconnect(hear, sender="shop.Book", registry=registry) is False
    assert not post_save.has_listeners(model_in("shop.models", Base))


def test_a_receiver_that_died_waiting_is_not_connected(Base, registry) -> None:
    """A queued connection is as weak as any."""

    class Owner:
        def hear(self, **kwargs):
            raise AssertionError

    owner = Owner()
    post_save.connect(owner.hear, sender="shop.Book", registry=registry)
    del owner
    gc.collect()
    assert not post_save.has_listeners(model_in("shop.models", Base))


def test_a_relation_without_another_side_is_an_error_before_tables_are_made(
    registry: Registry, Base: Any
) -> None:
    """One whose model is not defined is not, since it may be in a module that is imported later."""

    class Review(Base):
        product: ForeignKey["Product"] = foreign_key()

    class Product(Base):
        name: Field[str]
        later: Related["Later"] = related("product")
        reviews: Related["Review"] = related("prodct")

    with pytest.raises(
        ModelError, match="^Product.reviews: Review has no foreign key .*'prodct'; nearest: 'product'$"
    ):
        registry.create_all()


def test_a_relation_to_a_model_that_is_not_defined_yet_does_not_keep_tables_from_being_made(
    registry: Registry, Base: Any
) -> None:
    class Product(Base):
        name: Field[str]
        later: Related["Later"] = related("product")

    registry.create_all()
    assert Product(name="a").save().id == 1


def test_a_misspelt_label_of_a_sender_is_warned_of_when_tables_are_made(
    registry: Registry, Base: Any
) -> None:
    """Not one that is unlike all labels, whose model may be defined later."""

    class Book(Base, app="shop"):
        title: Field[str]

    def count(**kwargs: Any) -> None:
        """Do nothing."""

    signal = ModelSignal()
    for label in ("shop.Bok", "people.Author", "shop.Book"):
        signal.connect(count, sender=label, registry=registry)
    with pytest.warns(RuntimeWarning) as caught:
        registry.create_all()
    assert len(caught) == 1
    assert str(caught[0].message).startswith("no model is labelled 'shop.Bok', to which ")
    assert str(caught[0].message).endswith("; nearest: 'shop.Book'")
    assert caught[0].filename == __file__
