"""Chains: which relations a path goes along, where several lead the same way."""

from types import SimpleNamespace
from typing import Any

import pytest

from microorm import Field, ForeignKey, ManyToMany, Related, field, foreign_key, many_to_many, related
from microorm.query.joins import chain_of, dotted, other_side
from tests.behaviour.library import library

pytestmark = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def posts(Base) -> SimpleNamespace:
    """Posts with tags by way of taggings, which are related rows as well."""

    class Tag(Base):
        name: Field[str] = field(max_length=20)
        posts: Related["Post"] = related("tags")

    class Post(Base):
        tags: ManyToMany[Tag] = many_to_many(through="Tagging")
        taggings: Related["Tagging"] = related("post")
        marks: Related["Tagging"] = related("post")

    class Tagging(Base):
        post: ForeignKey[Post] = foreign_key()
        tag: ForeignKey[Tag] = foreign_key()

    return SimpleNamespace(Tag=Tag, Post=Post, Tagging=Tagging)


def names(model: Any, path: Any) -> str:
    return dotted(chain_of(model.__schema__, "prefetch_related", path))


def test_a_path_and_its_name_are_the_same(Base):
    models = library(Base)
    Author, Book, Tag = models.Author, models.Book, models.Tag
    for model, path, name in (
        (Book, Book.author, "author"),
        (Book, Book.author.country, "author.country"),
        (Book, Book.tags.books.author.profile, "tags.books.author.profile"),
        (Author, Author.edited.tags, "edited.tags"),
        (Author, Author.books.editor.books, "books.editor.books"),
        (Tag, Tag.books, "books"),
    ):
        assert names(model, path) == names(model, name) == name


def test_the_rows_between_are_told_from_what_lies_behind_them(posts):
    """By name always; of a path along both, the many-to-many relation is meant."""
    Post = posts.Post
    for name in ("tags", "taggings", "marks", "taggings.tag", "tags.posts.taggings.post"):
        assert names(Post, name) == name
    assert names(Post, Post.tags) == "tags"
    assert names(Post, Post.taggings) in ("taggings", "marks")  # which are the same path
    assert names(Post, Post.taggings.tag) == "tags"
    assert names(Post, Post.tags.posts.tags) == "tags.posts.tags"


def test_the_other_side_of_a_foreign_key_is_that_of_one_row(Base):
    models = library(Base)
    assert other_side(models.Profile.__schema__.relations["author"]) == "profile"
    assert other_side(models.Book.__schema__.relations["author"]) is None
