"""`managed=False`, `read_only=True`, and options with the names that an existing table has."""

import pytest
from sqlalchemy import Integer, SmallInteger, inspect

from microorm import Field, ForeignKey, ModelError, Related, RelatedOne, field, foreign_key, related
from microorm.migrations import Migrations
from microorm.signals import pre_save
from tests.reflection.inspected import differences


def test_a_model_that_is_not_managed_is_in_no_revision_and_not_created(Base, registry, databases, tmp_path):
    class Legacy(Base, managed=False):
        name: Field[str]

    class Own(Base):
        legacy: ForeignKey[Legacy] = foreign_key(constraint=False)

    assert all("'own'" in difference for difference in differences(registry, tmp_path))
    made = Migrations(tmp_path / "migrations", registry).make("first")
    assert made is not None
    assert "'own'" in made.read_text()
    assert "create_table('legacy'" not in made.read_text()
    registry.create_all("default")
    assert inspect(databases.engine("default")).get_table_names() == ["own"]


def test_a_table_that_is_no_longer_managed_is_left_alone(Base, registry, databases, tmp_path):
    class Book(Base):
        name: Field[str]

    registry.create_all("default")
    assert differences(registry, tmp_path) == []
    with pytest.warns(RuntimeWarning, match="defined again"):

        class Book(Base, managed=False):
            other: Field[int]

    assert differences(registry, tmp_path) == []
    registry.drop_all("default")
    assert inspect(databases.engine("default")).has_table("book")


@pytest.mark.backends("sqlite-memory")
def test_abstract_models_pass_both_options_on(Base):
    class Legacy(Base, abstract=True, managed=False, read_only=True):
        pass

    class Old(Legacy):
        name: Field[str]

    class Mine(Legacy, managed=True, read_only=False):
        name: Field[str]

    assert (Old.__schema__.managed, Old.__schema__.read_only) == (False, True)
    assert (Mine.__schema__.managed, Mine.__schema__.read_only) == (True, False)


@pytest.mark.backends("sqlite-memory")
def test_a_read_only_model_refuses_a_save_before_any_signal(Base, registry):
    class Sale(Base, read_only=True):
        name: Field[str]

    class Own(Base):
        sale: ForeignKey[Sale | None] = foreign_key(default=None)

    class Other(Base):
        name: Field[str]

    registry.create_all("default")
    seen: list[object] = []
    pre_save.connect(lambda instance, **_: seen.append(instance), sender=Sale, weak=False)
    for write in (
        Sale(name="a").save,
        lambda: Sale.objects.create(name="a"),
        lambda: Sale.objects.update(name="a"),
        Sale.objects.delete,
        lambda: Sale.objects.bulk_create([Sale(name="a")]),
        lambda: Sale.objects.bulk_update([], ["name"]),
    ):
        with pytest.raises(ModelError, match="Sale is read-only"):
            write()
    assert seen == []
    assert Sale.objects.count() == 0


def test_constraints_indexes_and_columns_have_the_names_and_comments_that_are_given(
    Base, registry, databases, tmp_path
):
    class Author(Base):
        code: Field[str] = field(max_length=9, unique="author_code_key", comment="it's unique: 100 %")
        name: Field[str] = field(max_length=9, index="names")
        both: Field[int] = field(unique=True, index="both_once")
        book: RelatedOne["Book | None"] = related("author")
        titles: Related["Title"] = related("author")

    class Book(Base):
        author: ForeignKey[Author] = foreign_key(
            to_field="code", unique="one_book", constraint={"ondelete": "CASCADE", "onupdate": "CASCADE"}
        )

    class Title(Base):
        author: ForeignKey[Author] = foreign_key(
            index="titles_of", constraint={"name": "title_author"}, on_delete="cascade"
        )

    registry.create_all("default")
    assert differences(registry, tmp_path) == []
    found = inspect(databases.engine("default"))
    uniques = {each["name"] for each in found.get_unique_constraints("author")}
    indexes = {each["name"]: bool(each["unique"]) for each in found.get_indexes("author")}
    assert "author_code_key" in uniques
    assert (indexes["names"], indexes["both_once"]) == (False, True)
    assert [each["name"] for each in found.get_unique_constraints("book")] == ["one_book"]
    assert found.get_foreign_keys("book")[0]["options"] == {"ondelete": "CASCADE", "onupdate": "CASCADE"}
    assert found.get_foreign_keys("title")[0]["name"] == "title_author"
    author = Author(code="a", name="n", both=1).save()
    book = Book(author=author).save()
    assert author.book == book
    comments = {each["name"]: each.get("comment") for each in found.get_columns("author")}
    assert comments["code"] == (None if found.dialect.name == "sqlite" else "it's unique: 100 %")


def test_a_foreign_key_may_have_a_type_of_its_own_beside_the_key(Base, registry, tmp_path):
    class Land(Base):
        number: Field[int] = field(primary_key=True, type_=Integer())

    class Town(Base):
        land: ForeignKey[Land] = foreign_key(default=..., constraint=False)
        land_id: Field[int] = field(default=..., type_=SmallInteger())

    registry.create_all("default")
    assert isinstance(Town.__table__.c.land_id.type, SmallInteger)
    assert differences(registry, tmp_path) == []
    land = Land(number=3).save()
    assert Town(land=land).save().land == land


@pytest.mark.backends("sqlite-memory")
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unique": ""}, "unique= must be a bool, or its name, not str ''"),
        ({"index": 1}, "index= must be a bool, or its name, not int 1"),
        ({"comment": 3}, "comment= must be a str, not int 3"),
        ({"unique": "u", "index": True}, "unique= cannot be a name beside index="),
    ],
)
def test_wrong_names_are_a_model_error(Base, options, problem):
    with pytest.raises(ModelError, match=problem):

        class Book(Base):
            number: Field[int] = field(**options)


@pytest.mark.backends("sqlite-memory")
def test_wrong_options_of_a_constraint_are_a_model_error(Base):
    class Author(Base):
        name: Field[str]

    for given, problem in (
        ({"ondelte": "x"}, "no option 'ondelte'.*nearest: 'ondelete'"),
        ("no", "a bool or a dict"),
    ):
        with pytest.raises(ModelError, match=problem):

            class Book(Base):
                author: ForeignKey[Author] = foreign_key(constraint=given)
