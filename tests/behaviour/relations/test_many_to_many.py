"""Many-to-many relations as they are declared, and the models between."""

import pytest
from sqlalchemy import inspect

from microorm import (
    Field,
    FieldError,
    ForeignKey,
    ManyToMany,
    ModelError,
    Related,
    field,
    foreign_key,
    many_to_many,
    related,
    through,
)
from microorm.signals import m2m_changed

MEMORY = pytest.mark.backends("sqlite-memory")


def test_a_model_is_made_between_two(Base, registry, databases):
    class Tag(Base):
        name: Field[str] = field(max_length=20)
        posts: Related["Post"] = related("tags")

    class Post(Base, app="blog"):
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all()
    between = through(Post.tags)
    assert between is through(Tag.posts)
    assert between.__schema__.label == "blog.Post_tags"
    assert [key.name for key in between.__schema__.foreign_keys] == ["post", "tag"]
    (unique,) = inspect(databases.engine("default")).get_unique_constraints("post_tags")
    assert unique["column_names"] == ["post_id", "tag_id"]
    assert between.objects.filter(between.post.id == 3).count() == 0


@MEMORY
def test_the_model_between_is_a_sender_by_its_label(Base, registry, listen):
    heard = []
    listen(
        m2m_changed, lambda action, **kwargs: heard.append(action), sender="blog.Post_tags", registry=registry
    )

    class Tag(Base):
        name: Field[str] = field(max_length=20)

    class Post(Base, app="blog"):
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all()
    Post().save().tags.add(Tag(name="t").save())
    assert heard == ["pre_add", "post_add"]


@MEMORY
def test_through_is_for_many_to_many_relations_of_a_model(Base, registry):
    class Country(Base):
        authors: Related["Author"] = related("country")

    class Author(Base):
        country: ForeignKey[Country | None] = foreign_key(default=None)
        novels: Related["Novel"] = related("author")

    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()
        sequels: ManyToMany["Novel"] = many_to_many()
        prequels: Related["Novel"] = related("sequels")

    registry.create_all()
    _ = Author.novels.author, Novel.author.novels, Novel.author
    author = Author().save()
    for wrong in (
        Novel,
        Novel.author,
        Author.novels,
        Author.novels.sequels.author,
        Novel.author.country,
        Country.authors.novels,
        author.novels,
        "Novel.sequels",
        None,
    ):
        with pytest.raises(TypeError, match=r"^through\(\) takes a many-to-many relation of a model, not "):
            through(wrong)
    assert through(Novel.sequels) is through(Novel.prequels)
    assert through(Novel.sequels) is through(Author.novels.sequels)
    with pytest.raises(FieldError):
        _ = Novel.sequels.through


@MEMORY
def test_a_relation_is_changed_by_its_methods_only(Base, registry):
    class Tag(Base):
        name: Field[str] = field(max_length=20)

    class Post(Base):
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all()
    with pytest.raises(
        AttributeError, match=r"Post\.tags cannot be assigned; use its add\(\), remove\(\) or set\(\)"
    ):
        Post().save().tags = []
    with pytest.raises(TypeError, match="tags"):
        Post(tags=[])


@MEMORY
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"through": 3}, "through= must be a model or its name, not 3"),
        ({"symmetrical": 1}, "symmetrical= must be a bool, not 1"),
        ({"symmetrical": True}, "symmetrical=True is for relations of a model to itself"),
        ({"through_fields": ("a", "b")}, "through_fields= needs through="),
        (
            {"through": "Bond", "through_fields": ["a", "b"]},
            r"through_fields= must be two names, not \['a', 'b'\]",
        ),
        ({"through": "Bond", "through_fields": ("a",)}, r"through_fields= must be two names, not \('a',\)"),
        ({"through": "Bond", "through_fields": "ab"}, "through_fields= must be two names, not 'ab'"),
    ],
)
def test_what_contradicts_itself_is_a_model_error(Base, options, problem):
    class Tag(Base):
        name: Field[str] = field(max_length=20)

    with pytest.raises(ModelError, match=rf"^Post\.tags: {problem}"):

        class Post(Base):
            tags: ManyToMany[Tag] = many_to_many(**options)


@MEMORY
@pytest.mark.parametrize(
    ("fields", "wants"),
    [
        (None, "one foreign key to each side"),
        (("group", "nobody"), r"the foreign keys \('group', 'nobody'\)"),
        (("person", "group"), r"the foreign keys \('person', 'group'\)"),
        (("group", "group"), r"the foreign keys \('group', 'group'\)"),
    ],
)
def test_a_model_between_that_is_ambiguous_is_a_model_error_at_the_first_use(Base, registry, fields, wants):
    class Person(Base):
        name: Field[str] = field(max_length=20)

    class Group(Base):
        members: ManyToMany[Person] = many_to_many(through="Membership", through_fields=fields)

    class Membership(Base):
        group: ForeignKey[Group] = foreign_key()
        person: ForeignKey[Person] = foreign_key()
        sponsor: ForeignKey[Person] = foreign_key()

    registry.create_all()
    with pytest.raises(ModelError) as raised:
        Group().save().members.all()
    assert str(raised.value).startswith("Group.members: Membership needs ")
    assert "it has group to Group, person to Person, sponsor to Person" in str(raised.value)
    with pytest.raises(ModelError, match=wants):
        _ = Group.members.name


@MEMORY
def test_a_model_between_that_is_not_there_is_a_model_error_at_the_first_use(Base, registry):
    class Person(Base):
        name: Field[str] = field(max_length=20)

    class Group(Base):
        members: ManyToMany[Person] = many_to_many(through="Membershp")

    class Membership(Base):
        group: ForeignKey[Group] = foreign_key()

    registry.create_all()
    with pytest.raises(ModelError, match=r"no model is called 'Membershp'; nearest: 'Membership'"):
        Group().save().members.all()


@MEMORY
def test_through_fields_may_turn_a_relation_of_a_model_to_itself_around(Base, registry):
    class Person(Base):
        name: Field[str] = field(max_length=20)
        likes: ManyToMany["Person"] = many_to_many(through="Like", through_fields=("who", "whom"))
        liked_by: Related["Person"] = related("likes")

    class Like(Base):
        whom: ForeignKey[Person] = foreign_key()
        who: ForeignKey[Person] = foreign_key()

    registry.create_all()
    a, b = (Person(name=name).save() for name in "ab")
    a.likes.add(b)
    assert [(like.who, like.whom) for like in Like.objects] == [(a, b)]
    assert (b.liked_by.all(), a.liked_by.all()) == ([a], [])


@MEMORY
@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("Class", "Student"), ["from_student", "to_class"]),  # `class` is no name
        (("Save", "Objects"), ["from_objects", "to_save"]),  # taken by Model
        (("Id", "Card"), ["from_card", "to_id"]),
        (("Foo", "Foo_id"), ["from_foo_id", "to_foo"]),  # `foo_id` is the column of `foo`
        (("Order", "Group"), ["group", "order"]),
    ],
)
def test_models_may_be_called_as_no_foreign_key_can_be(Base, registry, names, keys):
    def model(name, **declared):
        annotations = {"n": Field[int]} | dict.fromkeys(declared, ManyToMany[There])
        body = {"__module__": __name__, "__qualname__": name, "__annotations__": annotations}
        return type(Base)(name, (Base,), body | declared)

    There = None
    There = model(names[0])
    Here = model(names[1], others=many_to_many())
    assert [key.name for key in through(Here.others).__schema__.foreign_keys] == keys
    registry.create_all()
    one = Here(n=1).save().others.create(n=2)
    assert Here.objects.get(others=one).others.all() == [one]


@MEMORY
def test_a_many_to_many_relation_leads_to_one_model(Base):
    class Tag(Base):
        name: Field[str] = field(max_length=20)

    with pytest.raises(ModelError, match=r"^Post.tags: ManyToMany\[\.\.\.\] must name a model, not .*Tag"):

        class Post(Base):
            tags: ManyToMany[Tag | None] = many_to_many()
