"""Foreign keys: declared, assigned, saved and reported."""

import copy
import pickle
import sys
from enum import Enum
from inspect import signature
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

import microorm
from microorm import (
    CrossDatabaseRelation,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    Model,
    Registry,
    Router,
    UnsavedError,
    field,
    foreign_key,
)
from microorm.mapping.state import kept_related
from microorm.signals import post_save, pre_init, pre_save


@pytest.fixture
def Author(Base: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=40)

    return Author


@pytest.fixture
def Novel(Author: Any, Base: Any, registry: Any) -> Any:
    class Novel(Base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        editor: ForeignKey[Author | None] = foreign_key(default=None, on_delete="set_null")

    registry.create_all()
    return Novel


def test_a_relation_and_its_key_are_two_views_of_one_column(Author, Novel, stored) -> None:
    ursula, terry = Author(name="U").save(), Author(name="T").save()
    lathe = Novel(title="Lathe", author=ursula).save()
    assert (lathe.author, lathe.author_id) == (ursula, ursula.id)
    lathe.author_id = terry.id
    assert lathe.author == terry
    lathe.editor = ursula
    assert lathe.editor_id == ursula.id
    lathe.editor = None
    assert (lathe.editor, lathe.editor_id) == (None, None)
    lathe.save()
    assert stored(Novel, "author_id", "editor_id") == [(terry.id, None)]
    assert Novel(title="x", author_id=ursula.id).save().author == ursula


def test_an_assigned_instance_is_kept_and_not_asked_for(Author, Novel, wire) -> None:
    ursula = Author(name="U").save()
    lathe = Novel(title="Lathe", author=ursula).save()
    with wire.record() as sent:
        assert lathe.author is ursula
    assert sent == []


def test_the_constructor_takes_the_relation_or_its_key(Author, Novel) -> None:
    ursula = Author(name="U").save()
    with pytest.raises(TypeError, match=r"Novel\(\) is missing 'author'"):
        Novel(title="x")
    with pytest.raises(TypeError, match=r"Novel\(\) takes 'author' or 'author_id', not both"):
        Novel(title="x", author=ursula, author_id=ursula.id)
    with pytest.raises(TypeError, match=r"no argument 'autor'; nearest: 'author'"):
        Novel(title="x", autor=ursula)
    assert Novel.objects.create(title="x", author=ursula).author is ursula
    assert str(signature(Novel)).startswith("(*, id: Optional[int] = None, title: str, author: ")


def test_listeners_of_pre_init_see_what_the_caller_gave(Author, Novel, listen) -> None:
    seen = []
    listen(pre_init, lambda kwargs, **_: seen.append(dict(kwargs)), sender=Novel)
    ursula = Author(name="U").save()
    lathe = Novel(title="x", author=ursula)
    assert seen == [{"title": "x", "author": ursula}]
    assert (lathe.author, lathe.editor_id) == (ursula, None)
    with pytest.raises(TypeError, match="not both"):
        Novel(title="x", author=ursula, author_id=1)


@pytest.mark.parametrize("how", ["constructor", "assignment"])
def test_what_cannot_be_referred_to_is_refused_and_nothing_changes(Author, Novel, how) -> None:
    ursula = Author(name="U").save()
    lathe = Novel(title="x", author=ursula).save()

    def relate(value: Any) -> None:
        if how == "constructor":
            Novel(title="y", author=value)
        lathe.author = value

    with pytest.raises(InvalidValue, match=r"Novel\.author must be Author, not Novel"):
        relate(lathe)
    with pytest.raises(InvalidValue, match=r"Novel\.author must be Author, not int 3"):
        relate(3)
    assert lathe.author is ursula
    assert lathe.changed_fields == frozenset()


def test_no_object_of_another_alias_is_referred_to(Author, Novel) -> None:
    here, there = Author(name="U").save(), Author(name="T").save(using="other")
    lathe = Novel(title="x", author=here).save()
    with pytest.raises(
        CrossDatabaseRelation, match=r"Novel\.author of 'default' cannot refer to Author\(id=1\) of 'other'"
    ):
        lathe.author = there
    with pytest.raises(CrossDatabaseRelation):
        lathe.editor = there
    assert lathe.author is here
    with pytest.raises(
        CrossDatabaseRelation, match=r"a query of Novel in 'default' uses Author\(id=1\) of 'other'"
    ):
        Novel.objects.filter(author=there).all()
    assert Novel.objects.using("other").filter(author=there).all() == []


def test_a_new_instance_goes_where_the_row_is_that_it_refers_to(Author, Novel, stored) -> None:
    there = Author(name="T").save(using="other")
    lathe = Novel(title="x", author=there)
    assert lathe._state.db == "other"
    lathe.save()
    assert stored(Novel, "title", alias="other") == ["x"]
    assert stored(Novel, "title") == []


def test_routers_decide_on_relations_between_aliases(url, other_url) -> None:
    class Anything(Router):
        def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
            return True

    with microorm.Databases({"default": url, "other": other_url}, routers=[Anything()]) as databases:
        registry = Registry(databases)

        class Author(Model, registry=registry):
            name: Field[str] = field(max_length=40)

        class Novel(Model, registry=registry):
            author: ForeignKey[Author] = foreign_key(constraint=False)

        registry.create_all()
        there = Author(name="T").save(using="other")
        novel = Novel(author_id=99).save(using="default")
        novel.author = there
        assert novel.save().author_id == there.id
        assert Novel.objects.filter(author=there).count() == 1


def test_a_relation_whose_row_has_lost_its_key_is_not_saved(Author, Novel, listen, undone) -> None:
    told: list[Any] = []
    listen(pre_save, lambda **kwargs: told.append(kwargs), sender=Novel)
    ursula = Author(name="U")
    with undone():
        ursula.save()
        lathe = Novel(title="x", author=ursula)
    assert ursula.id is None
    with pytest.raises(
        UnsavedError, match=r"Novel\.author: Author\(id=None\) has no key; save it before the Novel"
    ):
        lathe.save()
    assert told == []
    ursula.save()
    assert lathe.save().author_id == ursula.id
    assert len(told) == 1


def test_a_key_set_by_hand_counts_more_than_what_was_assigned_before(Author, Novel) -> None:
    ursula, terry = Author(name="U").save(), Author(name="T").save()
    lathe = Novel(title="x", author=ursula)
    lathe.author_id = terry.id
    ursula.delete()
    assert lathe.save().author == terry


def test_names_are_reported_as_they_are_declared(Author, Novel, listen) -> None:
    told: list[Any] = []
    ursula, terry = Author(name="U").save(), Author(name="T").save()
    lathe = Novel(title="x", author=ursula).save()
    listen(pre_save, lambda update_fields, **_: told.append(update_fields), sender=Novel)
    listen(post_save, lambda update_fields, **_: told.append(update_fields), sender=Novel)
    lathe.author = terry
    assert lathe.changed_fields == {"author"}
    assert lathe.changes() == {"author": (ursula.id, terry.id)}
    for spelled in (["author"], ["author_id"], [Novel.author_id], lathe.changed_fields):
        told.clear()
        lathe.save(update_fields=spelled)
        assert told == [frozenset({"author"})] * 2
    assert lathe.changes() == {}


def test_a_key_that_leads_nowhere_is_the_databases_error(Author, Novel, stored) -> None:
    lathe = Novel(title="x", author_id=99)
    with pytest.raises(IntegrityError):
        lathe.save()
    assert stored(Novel) == []
    assert lathe._state.adding


def test_copies_and_pickles_keep_what_is_related(Author, Novel, monkeypatch) -> None:
    ursula = Author(name="U").save()
    lathe = Novel(title="x", author=ursula).save()
    assert copy.copy(lathe).author is ursula
    deep = copy.deepcopy(lathe)
    assert deep.author == ursula
    assert deep.author is not ursula
    for model in (Author, Novel):
        model.__qualname__ = model.__name__
        monkeypatch.setattr(sys.modules[__name__], model.__name__, model, raising=False)
    back = pickle.loads(pickle.dumps(lathe))
    assert kept_related(back, "author")[1] == ursula
    assert back.changes() == {}


def test_updates_and_creates_take_instances(Author, Novel) -> None:
    ursula, terry = Author(name="U").save(), Author(name="T").save()
    Novel.objects.create(title="x", author=ursula)
    assert Novel.objects.update(author=terry, editor=ursula) == 1
    found = Novel.objects.get()
    assert (found.author, found.editor) == (terry, ursula)
    assert Novel.objects.update(editor=None) == 1
    with pytest.raises(UnsavedError):
        Novel.objects.update(author=Author(name="new"))
    with pytest.raises(InvalidValue, match=r"Novel\.author must be Author, not Novel"):
        Novel.objects.filter(author=found)


class Colour(Enum):
    RED = "red"


def test_a_foreign_key_is_of_the_type_of_the_key_it_refers_to(Base, registry) -> None:
    class Thing(Model[UUID], registry=registry):
        text: Field[str] = field(max_length=9)

    class Paint(Base):
        colour: Field[Colour] = field(primary_key=True)

    class City(Base):
        code: Field[str] = field(primary_key=True, max_length=5, column="kode")
        post: Field[int] = field(unique=True)

    class All(Base):
        thing: ForeignKey[Thing] = foreign_key()
        paint: ForeignKey[Paint] = foreign_key(column="farbe")
        city: ForeignKey[City | None] = foreign_key(default="abc", on_delete="set_default")
        post: ForeignKey[City] = foreign_key(to_field="post", unique=True)

    registry.create_all()
    thing, paint = Thing(text="x").save(), Paint(colour=Colour.RED).save()
    city = City(code="abc", post=12).save()
    made = All(thing=thing, paint=paint, post=city).save()
    found = All.objects.get(thing=thing, paint=Colour.RED, city="abc", post=12)
    assert (found.thing, found.paint, found.city, found.post) == (thing, paint, city, city)
    assert (found.thing_id, found.paint_id, found.city_id, found.post_id) == (thing.id, Colour.RED, "abc", 12)
    assert made == found
    assert All.objects.filter(All.post.code == "abc", All.post.post == 12).count() == 1
    columns = {each["name"] for each in inspect(registry.databases.engine()).get_columns("all")}
    assert columns == {"id", "thing_id", "farbe", "city_id", "post_id"}
    keys = inspect(registry.databases.engine()).get_foreign_keys("all")
    assert {(key["referred_table"], *key["referred_columns"]) for key in keys} == {
        ("thing", "id"),
        ("paint", "colour"),
        ("city", "kode"),
        ("city", "post"),
    }


def test_an_expression_for_a_key_is_known_once_it_is_saved(Author, Novel) -> None:
    ursula, terry = Author(name="U").save(), Author(name="T").save()
    lathe = Novel(title="x", author=ursula).save()
    lathe.author_id = Novel.author_id + 1
    with pytest.raises(FieldError, match=r"Novel\.author is an SQL expression; save the instance to read it"):
        _ = lathe.author
    assert lathe.save().author == terry


def test_models_that_refer_to_each_other_are_made_and_dropped(Base, registry, recwarn) -> None:
    class Hen(Base):
        name: Field[str] = field(max_length=9)
        egg: ForeignKey["Egg | None"] = foreign_key(default=None)

    class Egg(Base):
        hen: ForeignKey[Hen | None] = foreign_key(default=None)

    registry.create_all()
    hen = Hen(name="x").save()
    egg = Egg(hen=hen).save()
    hen.egg = egg
    hen.save()
    assert Hen.objects.get(Hen.egg.hen.name == "x").egg.hen == hen
    registry.drop_all()
    assert inspect(registry.databases.engine()).get_table_names() == []
    assert [str(each.message) for each in recwarn] == []


@pytest.mark.backends("sqlite-memory")
def test_a_path_is_no_field(Base, registry, wire):
    class Author(Base):
        name: Field[str] = field(max_length=20)

    class Novel(Base):
        title: Field[str] = field(max_length=20)
        author: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all()
    novel = Novel(title="a").save()
    with wire.everything() as sent:
        for use in (
            lambda: novel.save(update_fields=[Novel.author]),
            lambda: novel.refresh_from_db(fields=[Novel.author]),
            lambda: Novel.objects.bulk_update([novel], [Novel.author]),
        ):
            with pytest.raises(FieldError, match=r"^Novel has no field <path Novel.author>"):
                use()
    assert sent == []
