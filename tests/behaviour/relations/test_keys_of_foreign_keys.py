"""Keys that foreign keys are part of: the tables between two that exist already."""

from typing import Any

import pytest
from sqlalchemy import Integer

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    ModelError,
    Related,
    field,
    foreign_key,
    many_to_many,
    related,
)


@pytest.fixture
def Post(Base: Any, registry: Any) -> Any:
    class Tag(Base):
        name: Field[str] = field(max_length=9)

    class Post(Base):
        tags: ManyToMany[Tag] = many_to_many(through="Tagging")

    class Tagging(Base):
        post_id: Field[int] = field(primary_key=True)
        tag_id: Field[int] = field(primary_key=True, column="label")
        post: ForeignKey[Post] = foreign_key(on_delete="cascade")
        tag: ForeignKey[Tag] = foreign_key(on_delete="cascade")

    registry.create_all()
    Post.Tag, Post.Tagging = Tag, Tagging
    return Post


def test_declared_beside_it_the_column_of_a_foreign_key_is_part_of_the_key(Post):
    Tagging = Post.Tagging
    assert Tagging.__table__.primary_key.columns.keys() == ["post_id", "label"]
    assert Tagging.__table__.columns.keys() == ["post_id", "label"]
    post, tag = Post().save(), Post.Tag(name="t").save()
    row = Tagging(post=post, tag=tag).save()
    assert row.pk == (post.id, tag.id)
    assert Tagging.objects.get(pk=(post.id, tag.id)).tag == tag
    assert [each.name for each in post.tags] == ["t"]
    post.tags.add(Post.Tag(name="u").save())
    assert sorted(post.tags.scalars("name")) == ["t", "u"]
    post.tags.add(tag)
    assert Tagging.objects.count() == 2
    post.tags.remove(tag)
    assert Tagging.objects.count() == 1
    assert post.delete()[0] == 2


@pytest.mark.backends("sqlite-memory")
def test_options_of_one_column_may_be_stated_twice_but_not_differ(Base):
    class Land(Base):
        code: Field[str] = field(max_length=2, primary_key=True)

    class Town(Base):
        land_code: Field[int]
        land_id: Field[str] = field(max_length=2, column="land", unique=True)
        land: ForeignKey[Land] = foreign_key()

    assert Town.__table__.columns.keys() == ["id", "land_code", "land"]
    assert Town.__table__.c.land.unique
    assert Town.__schema__.relations["land"].unique
    for option in ({"max_length": 3}, {"column": "other"}, {"index": False}):
        with pytest.raises(ModelError, match=rf"^City.land_id: {next(iter(option))}= contradicts City.land"):

            class City(Base):
                land_id: Field[str] = field(**option)
                land: ForeignKey[Land] = foreign_key(column="land", index=True)


def test_a_key_that_is_a_foreign_key_can_be_referred_to(Base, registry):
    """One row for each of the other table; in whatever order the models are defined."""

    class User(Base):
        name: Field[str] = field(max_length=9)

    class Profile(Base):
        user_id: Field[int] = field(primary_key=True)
        user: ForeignKey[User] = foreign_key(column="uid")
        images: Related["Image"] = related("profile")

    class Image(Base):
        profile: ForeignKey[Profile] = foreign_key()

    registry.create_all()
    user = User(name="a").save()
    profile = Profile(user=user).save()
    image = Image(profile=profile).save()
    assert (profile.pk, image.profile_id) == (user.id, user.id)
    assert Image.objects.select_related("profile.user").get().profile.user.name == "a"
    assert Profile.objects.get(user=user).images.all() == [image]


def test_a_key_of_a_model_that_still_waits_for_a_name_has_its_type(Base, registry):
    """A foreign key to it would have the column of another type, which MariaDB does not accept."""

    class Order(Base):
        id: Field[int] = field(primary_key=True, type_=Integer())

    class Profile(Base):
        order: ForeignKey[Order] = foreign_key()
        order_id: Field[int] = field(primary_key=True)
        things: ManyToMany["Thing"] = many_to_many(through="Loose")

    class Friend(Base):
        profile: ForeignKey[Profile] = foreign_key()
        profile_id: Field[int] = field(primary_key=True)

    class Thing(Base):
        friends: Related["Loose"] = related("thing")

    class Loose(Base):
        profile: ForeignKey[Profile] = foreign_key()
        thing: ForeignKey[Thing] = foreign_key()

    columns = [Profile.__table__.c.order_id, Friend.__table__.c.profile_id, Loose.__table__.c.profile_id]
    assert [type(each.type) for each in columns] == [Integer] * 3
    registry.create_all()
