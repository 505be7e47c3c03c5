"""Library: models that are related in every way, and a few rows of them."""

from types import SimpleNamespace
from typing import Any

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)


def library(Base: Any) -> SimpleNamespace:
    """Countries have authors, an author has books and perhaps a profile, a book has tags and perhaps an editor."""

    class Country(Base):
        code: Field[str] = field(max_length=2, unique=True)
        authors: Related["Author"] = related("country")

    class Author(Base):
        name: Field[str] = field(max_length=40)
        country: ForeignKey[Country | None] = foreign_key(to_field="code", default=None)
        books: Related["Book"] = related("author")
        edited: Related["Book"] = related("editor")
        profile: RelatedOne["Profile | None"] = related("author")

    class Profile(Base):
        author: ForeignKey[Author] = foreign_key(unique=True, on_delete="cascade")
        text: Field[str] = field(default="")

    class Tag(Base):
        name: Field[str] = field(max_length=20)
        books: Related["Book"] = related("tags")

    class Book(Base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        editor: ForeignKey[Author | None] = foreign_key(default=None)
        tags: ManyToMany[Tag] = many_to_many()
        log: Field[list[str]] = field(default_factory=list)

    return SimpleNamespace(Country=Country, Author=Author, Profile=Profile, Tag=Tag, Book=Book)


def fill(models: Any, alias: str = "default") -> None:
    """Two countries; three authors, of whom one has a profile, one no country; five books, four tags."""
    with models.Book.__schema__.registry.databases.atomic(alias):  # one commit for all
        _fill(models, alias)


def _fill(models: Any, alias: str) -> None:
    made = SimpleNamespace()
    made.chile, made.peru = (models.Country(code=code).save(using=alias) for code in ("cl", "pe"))
    isabel = models.Author(name="isabel", country=made.chile).save(using=alias)
    mario = models.Author(name="mario", country=made.peru).save(using=alias)
    models.Author(name="nobody").save(using=alias)
    models.Profile(author=isabel, text="born in Lima").save(using=alias)
    books = [
        models.Book(title=title, author=author, editor=editor).save(using=alias)
        for title, author, editor in (
            ("a", isabel, None),
            ("b", isabel, mario),
            ("c", isabel, isabel),
            ("d", mario, None),
            ("e", mario, isabel),
        )
    ]
    tags = [models.Tag(name=name).save(using=alias) for name in ("new", "old", "red", "unused")]
    pair = models.Book.__schema__.relations["tags"].through
    for book, tag in ((0, 0), (0, 1), (1, 1), (3, 2), (4, 0), (4, 2)):
        pair(book=books[book], tag=tags[tag]).save(using=alias)
