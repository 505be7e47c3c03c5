"""Relations seen from the rows that they lead to."""

from typing import Any

import pytest

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    ModelError,
    Related,
    RelatedOne,
    UnsavedError,
    field,
    foreign_key,
    many_to_many,
    related,
)

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def models(Base: Any, registry: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=20)
        novels: Related["Novel"] = related("author")
        desk: RelatedOne["Desk | None"] = related("author")
        chair: RelatedOne["Chair"] = related("author")

    class Novel(Base):
        title: Field[str] = field(max_length=20)
        author: ForeignKey[Author] = foreign_key()

    class Desk(Base):
        author: ForeignKey[Author] = foreign_key(unique=True)

    class Chair(Base):
        author: ForeignKey[Author] = foreign_key(unique=True)

    registry.create_all()
    return Author, Novel, Desk, Chair


def test_the_rows_that_refer_to_an_instance_are_a_query(models, wire):
    Author, Novel, _, _ = models
    a, b = (Author(name=name).save() for name in "ab")
    for title, author in (("x", a), ("y", b), ("z", a)):
        Novel(title=title, author=author).save()
    with wire.record() as sent:
        assert [novel.title for novel in a.novels.order_by("title")] == ["x", "z"]
        assert (a.novels.count(), b.novels.exists(), b.novels.filter(title="x").exists()) == (2, True, False)
    assert len(sent) == 4


def test_the_one_row_that_refers_to_an_instance_is_an_instance(models):
    Author, _, Desk, Chair = models
    author = Author(name="a").save()
    assert author.desk is None
    with pytest.raises(Chair.DoesNotExist, match=r"Author\.chair of Author\(id=1\): no Chair"):
        _ = author.chair
    desk, chair = Desk(author=author).save(), Chair(author=author).save()
    author = Author.objects.get(name="a")
    assert (author.desk, author.chair) == (desk, chair)


@MEMORY
def test_an_instance_without_a_key_has_no_rows_to_ask_for(models):
    Author = models[0]
    with pytest.raises(UnsavedError, match=r"Author\.novels: Author\(id=None\) has no key yet"):
        _ = Author(name="new").novels
    assert Author(name="new").desk is None


@MEMORY
def test_what_is_related_is_not_assigned(models):
    author = models[0](name="a").save()
    with pytest.raises(
        AttributeError, match=r"Author\.novels cannot be assigned; use its add\(\), remove\(\) or set\(\)"
    ):
        author.novels = []


@MEMORY
def test_a_relation_that_the_other_model_has_not_is_a_model_error_for_create_all_and_at_the_first_use(
    Base, registry, databases
):
    class Tag(Base):
        novels: Related["Novel"] = related("tag")
        authors: Related["Novel"] = related("title")
        foreign: Related["Novel"] = related("author")
        one: RelatedOne["Novel"] = related("tags")
        posts: Related["Novel"] = related("tags")

    class Author(Base):
        one: RelatedOne["Novel"] = related("author")

    class Novel(Base):
        title: Field[str] = field(max_length=20)
        author: ForeignKey[Author] = foreign_key()
        tags: ManyToMany[Tag] = many_to_many()

    with pytest.raises(ModelError, match="^Tag.novels: Novel has no foreign key "):
        registry.create_all()
    with databases.connection() as connection:
        registry.tables.create_all(connection)
    tag = Tag().save()
    for name, problem in (
        ("novels", "Novel has no foreign key or many-to-many relation 'tag'; nearest: 'tags'"),
        ("authors", "Novel has no foreign key or many-to-many relation 'title'"),
        ("foreign", "Novel.author leads to Author"),
        ("one", "Novel.tags is no unique foreign key"),
    ):
        with pytest.raises(ModelError) as raised:
            getattr(tag, name)
        assert str(raised.value).startswith(f"Tag.{name}: {problem}")
    with pytest.raises(ModelError, match=r"Author\.one: Novel\.author is no unique foreign key"):
        _ = Author().save().one
    # What is wrong with the others is not in the way of those that are right.
    tag.posts.add(Novel(title="n", author=Author().save()).save())
    assert tag.posts.count() == 1


@MEMORY
def test_related_wants_the_name_of_a_relation():
    with pytest.raises(TypeError, match="takes the name of a relation, not 3"):
        related(3)  # type: ignore[arg-type]


@MEMORY
def test_a_relation_to_a_model_that_is_nowhere_is_an_error_at_the_first_use(Base, registry):
    class Author(Base):
        name: Field[str] = field(max_length=20)
        novels: Related["Nowhere"] = related("author")

    registry.create_all()
    author = Author(name="U").save()
    for use in (
        lambda: Author.novels,
        lambda: author.novels,
        lambda: Author.objects.prefetch_related("novels"),
        lambda: Author.objects.filter(novels=1),
    ):
        with pytest.raises(ModelError, match=r"^Author.novels: name 'Nowhere' is not defined$"):
            use()


@MEMORY
@pytest.mark.parametrize("name", ["id", "writer_id"])
@pytest.mark.parametrize("kind", ["foreign key", "related", "many-to-many"])
def test_a_relation_is_not_called_as_a_key_is(Base, registry, name, kind):
    class Author(Base):
        name: Field[str] = field(max_length=20)

    annotation, declared = {
        "foreign key": (ForeignKey[Author], foreign_key()),
        "related": (Related["Novel"], related("writer")),
        "many-to-many": (ManyToMany[Author], many_to_many()),
    }[kind]
    body = {
        "__module__": __name__,
        "__qualname__": "Novel",
        "__annotations__": {"writer": ForeignKey[Author], name: annotation},
        "writer": foreign_key(),
        name: declared,
    }
    with pytest.raises(
        ModelError, match=f"^Novel.{name}: '{name}' is the name of a key, so a relation cannot have it$"
    ):
        type(Base)("Novel", (Base,), body)
    assert [model.__name__ for model in registry.models.values()] == ["Author"]
