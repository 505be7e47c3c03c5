"""What class bodies declare becomes fields and relations of one model, forward references and all."""

from typing import Any

import pytest
from sqlalchemy import Index

import microorm
from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Model,
    ModelError,
    Registry,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)
from microorm.mapping.definition import table_key, table_name


@pytest.fixture
def registry() -> Registry:
    return Registry(microorm.Databases())


@pytest.fixture
def Base(registry: Registry) -> Any:
    class Base(Model, registry=registry, abstract=True):
        pass

    return Base


@pytest.fixture
def Author(Base: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=40)
        code: Field[int] = field(unique=True)

    return Author


def test_a_foreign_key_makes_an_indexed_column_of_its_name_with_id(Author, Base) -> None:
    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()
        single: ForeignKey[Author] = foreign_key(unique=True)
        loose: ForeignKey[Author | None] = foreign_key(constraint=False, index=False, column="l")

    table = Novel.__table__
    assert list(table.c.keys()) == ["id", "author_id", "single_id", "l"]
    assert [column.nullable for column in table.c] == [False, False, False, True]
    assert {index.name for index in table.indexes} == {"ix_novel_author_id"}
    assert {key.target_fullname for key in table.foreign_keys} == {"author.id"}
    assert {key.parent.name for key in table.foreign_keys} == {"author_id", "single_id"}
    assert [key.constraint.name for key in table.c.author_id.foreign_keys] == ["fk_novel_author_id"]
    assert Novel.__schema__.names == ("id", "author_id", "single_id", "loose_id")


def test_a_column_may_be_declared_for_the_checkers_too(Author, Base) -> None:
    class Novel(Base):
        author_id: Field[int] = field(init=False)
        title: Field[str]
        author: ForeignKey[Author] = foreign_key()

    assert Novel.__schema__.names == ("id", "title", "author_id")
    assert Novel(title="x", author_id=3).author_id == 3
    with pytest.raises(
        ModelError, match=r"Wrong\.author_id: its type differs from the key that Wrong\.author refers to"
    ):

        class Wrong(Base):
            author_id: Field[str] = field(init=False)
            author: ForeignKey[Author] = foreign_key()


def test_a_relation_is_handed_down_by_an_abstract_base(Author, Base) -> None:
    class Owned(Base, abstract=True):
        author: ForeignKey[Author] = foreign_key()

    class Novel(Owned):
        pass

    class Poem(Owned):
        pass

    assert Novel.__schema__.relations["author"].label == "Novel.author"
    assert Poem.__schema__.relations["author"].owner is Poem
    assert Novel.author_id is not Poem.author_id


def test_a_model_may_refer_to_one_that_is_defined_later(Base, registry) -> None:
    class Novel(Base):
        author: ForeignKey["Writer"] = foreign_key()

    assert registry.models == {}
    with pytest.raises(ModelError, match="Novel: name 'Writer' is not defined"):
        _ = Novel.author_id

    class Writer(Base):
        novels: Related["Novel"] = related("author")

    assert repr(Writer.novels) == "<path Writer.novels>"
    assert Novel.author_id.name == "author_id"
    assert {key.column.table.name for key in Novel.__table__.foreign_keys} == {"writer"}


def test_a_model_may_refer_to_itself(Base) -> None:
    class Node(Base):
        parent: ForeignKey["Node | None"] = foreign_key(default=None)
        children: Related["Node"] = related("parent")

    assert Node.__schema__.relations["parent"].target is Node
    assert Node.__schema__.relations["children"].target is Node
    assert repr(Node.parent.parent.children) == "<path Node.parent.parent.children>"


def test_a_table_in_a_schema_of_the_database_is_referred_to_there(Base) -> None:
    class Author(Base, table="authors", table_args=({"schema": "people"},)):
        pass

    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()

    assert (table_name(Author), table_key(Author)) == ("authors", "people.authors")
    assert [key.target_fullname for key in Novel.__table__.foreign_keys] == ["people.authors.id"]


def test_the_registry_knows_what_refers_to_a_model(Author, Base, registry) -> None:
    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()
        second: ForeignKey[Author | None] = foreign_key(default=None)

    assert [key.label for key in registry.referring(Author)] == ["Novel.author", "Novel.second"]

    class Poem(Base):
        author: ForeignKey[Author] = foreign_key()

    assert [key.label for key in registry.referring(Author)][2:] == ["Poem.author"]
    assert registry.referring(Poem) == ()


def test_what_cannot_be_declared_says_so_at_the_class_statement(Author, Base) -> None:
    class Composite(Base):
        x: Field[int] = field(primary_key=True)
        y: Field[int] = field(primary_key=True)

    other = Registry(microorm.Databases())

    class Elsewhere(Model, registry=other):
        pass

    class Abstract(Base, abstract=True):
        pass

    cases: list[tuple[Any, Any, str]] = [
        (ForeignKey[int], foreign_key(), "Novel.author: int is not a model with a table"),
        (ForeignKey[Abstract], foreign_key(), "Novel.author: Abstract is not a model with a table"),
        (ForeignKey[Elsewhere], foreign_key(), "Novel.author: Elsewhere belongs to another registry"),
        (
            ForeignKey[Composite],
            foreign_key(),
            "Novel.author: Composite has a composite key, and a foreign key to several columns is not supported; "
            "name a unique field as to_field=, or give Composite a key of one field",
        ),
        (
            ForeignKey[Author],
            foreign_key(to_field="cod"),
            "Novel.author: to_field='cod' is not a unique field of Author; nearest: 'code'",
        ),
        (
            ForeignKey[Author],
            foreign_key(to_field="name"),
            "Novel.author: to_field='name' is not a unique field of Author",
        ),
        (
            ForeignKey[Author],
            foreign_key(on_delete="set_null"),
            "Novel.author: on_delete='set_null' needs ForeignKey[... | None]",
        ),
        (
            ForeignKey[Author],
            foreign_key(on_delete="set_default"),
            "Novel.author: on_delete='set_default' needs default=",
        ),
        (
            ForeignKey[Author],
            foreign_key(unique=1),
            "Novel.author: unique= must be a bool, or its name, not 1",
        ),  # type: ignore[arg-type]
        (
            ForeignKey[Author],
            foreign_key(on_delete="cascad"),  # type: ignore[arg-type]
            "Novel.author: on_delete= must be one of cascade, restrict, set_null, set_default, do_nothing, not 'cascad'; "
            "nearest: 'cascade'",
        ),
        (ForeignKey[Author], foreign_key(default=None), "Novel.author_id: the default must be int, not None"),
        (
            Field[int],
            foreign_key(),
            "Novel.author: annotate it as ForeignKey[...], not 'Field[int]'",
        ),
        (ForeignKey[Author], field(), None),
        (Related[Author], many_to_many(), None),
    ]
    for annotation, declared, message in cases:
        with pytest.raises(ModelError) as caught:
            type(Base)("Novel", (Base,), {"__annotations__": {"author": annotation}, "author": declared})
        assert message is None or str(caught.value) == message
    assert "test_binding.Novel" not in Base.__options__.registry.known()


def test_a_relation_without_an_annotation_says_which_it_wants(Base) -> None:
    for declared, wanted in (
        (foreign_key(), "a foreign_key() without an annotation; annotate it as ForeignKey[...]"),
        (related("x"), "a related() without an annotation; annotate it as Related[...]"),
        (many_to_many(), "a many_to_many() without an annotation; annotate it as ManyToMany[...]"),
    ):
        with pytest.raises(ModelError) as caught:
            type(Base)("Novel", (Base,), {"author": declared})
        assert str(caught.value) == f"Novel.author: {wanted}"


def test_the_other_side_says_at_its_first_use_what_is_wrong_with_it(Author, Base) -> None:
    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()

    class Reader(Base):
        novels: Related[Novel] = related("autor")
        wrong: Related[Novel] = related("author")
        one: RelatedOne[Novel] = related("author")

    with pytest.raises(
        ModelError,
        match=r"Reader\.novels: Novel has no foreign key or many-to-many relation 'autor'; nearest: 'author'",
    ):
        _ = Reader.novels
    with pytest.raises(ModelError, match=r"Reader\.wrong: Novel\.author leads to Author"):
        _ = Reader.wrong
    with pytest.raises(TypeError, match="related\\(\\) takes the name of a relation, not 3"):
        related(3)  # type: ignore[arg-type]


def test_one_row_may_only_be_on_the_other_side_of_a_unique_key(Base) -> None:
    class Author(Base):
        novel: RelatedOne["Novel"] = related("author")

    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()

    with pytest.raises(ModelError, match=r"Author\.novel: Novel\.author is no unique foreign key"):
        _ = Author.novel


def test_a_many_to_many_relation_makes_the_model_between(Author, Base, registry) -> None:
    class Tag(Base):
        name: Field[str]

    class Novel(Base, table="novels", app="shop"):
        tags: ManyToMany[Tag] = many_to_many()

    through = registry.models["shop.Novel_tags"]
    assert through.__table__.name == "novels_tags"
    assert [key.label for key in through.__schema__.foreign_keys] == ["Novel_tags.novel", "Novel_tags.tag"]
    assert list(registry.models)[-2:] == ["shop.Novel_tags", "shop.Novel"]
    assert Novel.__schema__.names == ("id",)


def test_a_model_that_cannot_be_made_leaves_no_model_between(Base, registry) -> None:
    class Tag(Base):
        name: Field[str]

    with pytest.raises(ModelError):

        class Novel(Base, table_args=(Index("x", "nothing"),)):
            tags: ManyToMany[Tag] = many_to_many()

    assert [model.__name__ for model in registry.models.values()] == ["Tag"]
    assert set(registry.metadata.tables) == {"tag"}
