"""The rows related to one instance, as a query."""

from typing import Any

import pytest

from microorm import (
    Field,
    ForeignKey,
    LazyLoadError,
    ManyToMany,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)
from microorm.mapping.state import keep_related
from microorm.testing import no_lazy_loads

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def models(Base: Any, registry: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=20)
        novels: Related["Novel"] = related("author")
        desk: RelatedOne["Desk | None"] = related("author")

    class Genre(Base):
        name: Field[str] = field(max_length=20)
        rank: Field[int] = field(default=0)

    class Novel(Base):
        title: Field[str] = field(max_length=20)
        pages: Field[int] = field(default=0)
        author: ForeignKey[Author | None] = foreign_key(default=None)
        genres: ManyToMany[Genre] = many_to_many()

    class Desk(Base):
        author: ForeignKey[Author] = foreign_key(unique=True)

    registry.create_all()
    return Author, Novel, Genre, Desk


@MEMORY
def test_a_query_that_was_refined_reads_and_creates_and_changes_nothing_else(models, wire):
    Author, Novel, Genre, _ = models
    author = Author(name="U").save()
    novel = Novel(title="a", author=author).save()
    genre = Genre(name="g").save()
    novel.genres.add(genre)
    with wire.everything() as sent:
        for rows, row in ((author.novels, novel), (novel.genres, genre)):
            for refined in (
                rows.filter(id=1),
                rows.exclude(id=2),
                rows.order_by("id"),
                rows.limit(3),
                rows[1:],
            ):
                for method, given in (("add", [row]), ("remove", [row]), ("set", [[row]]), ("clear", [])):
                    with pytest.raises(
                        TypeError, match=rf"^{method}\(\) changes all of .*, and this query is refined$"
                    ):
                        getattr(refined, method)(*given)
            with pytest.raises(TypeError, match=r"^bulk_create\(\) does not relate rows"):
                rows.bulk_create([row])
    assert sent == []
    assert author.novels.filter(title="b").create(title="c").author is author
    assert novel.genres.filter(name="h").create(name="i") in novel.genres.all()


@MEMORY
def test_an_alias_may_be_asked_for(models, stored):
    Author, Novel, _, _ = models
    author = Author(name="U").save(using="other")
    novel = Novel(title="a").save(using="other")
    author.novels.using("other").add(novel)
    assert stored(Novel, "author_id", alias="other") == [author.id]


def test_rows_know_the_one_that_they_were_asked_of(models, wire):
    """Or a loop over them would send a statement for each."""
    Author, Novel, *_ = models
    author, other = Author(name="U").save(), Author(name="K").save()
    for title in "abc":
        author.novels.create(title=title)
    Novel(title="d", author=other).save()
    for found, statements in (
        (lambda: author.novels, 1),
        (lambda: author.novels.filter(Novel.title < "c").order_by("title"), 1),
        (lambda: [author.novels.get(title="a"), author.novels.order_by("title").first()], 2),
        (lambda: author.novels.prefetch_related("author", "genres"), 2),
    ):
        with wire.record() as sent:
            assert {id(each.author) for each in found()} == {id(author)}
        assert len(sent) == statements
    assert all(each.author is author for each in author.novels.iterate(chunk=2))
    assert author.novels.defer("author").get(title="a").author == author
    assert author.novels.select_related("author").get(title="a").author is not author
    one = author.novels.get(title="b")
    one.author = other
    one.save()
    assert one.author is other


def test_rows_in_another_database_do_not_know_the_one_that_they_were_asked_of(models, stored):
    Author, Novel, _, _ = models
    author = Author(name="U").save()
    Author(name="U").save(using="other")
    Novel(title="a", author_id=author.id).save(using="other")
    (novel,) = author.novels.using("other").all()
    assert novel.author is not author
    assert novel.author._state.db == "other"


@MEMORY
def test_rows_that_are_known_are_known_until_they_change(models, wire):
    Author, Novel, _, _ = models
    author = Author(name="U").save()
    novel = Novel(title="a", author=author).save()
    rows = author.novels
    keep_related(author, "novels", (author.id, [novel]))
    with wire.record() as sent:
        assert (rows.all(), rows.count(), rows.exists(), [*rows]) == ([novel], 1, True, [novel])
    assert sent == []
    for change in (
        lambda: author.novels.create(title="b"),
        lambda: author.novels.add(Novel(title="c").save()),
        lambda: author.novels.filter(title="c").update(title="d"),
        lambda: author.novels.filter(title="d").delete(),
        lambda: author.novels.clear(),
        lambda: author.novels.set([novel]),
    ):
        keep_related(author, "novels", (author.id, []))
        change()
        assert rows.all() == list(Novel.objects.filter(author=author))


@MEMORY
def test_those_that_were_known_learn_that_they_were_parted(models):
    Author, Novel, _, _ = models
    author = Author(name="U").save()
    novels = [Novel(title=title, author=author).save() for title in "ab"]
    for part in (
        lambda: author.novels.clear(),
        lambda: author.novels.clear(bulk=False),
        lambda: author.novels.set([]),
    ):
        author.novels.set(novels)
        keep_related(author, "novels", (author.id, novels))
        part()
        assert [(novel.author, novel.changes()) for novel in novels] == [(None, {})] * 2


@MEMORY
def test_rows_of_another_key_are_not_the_known_ones(models):
    Author, Novel, _, _ = models
    author = Author(name="U").save()
    keep_related(author, "novels", (author.id + 1, [Novel(title="a")]))
    assert author.novels.all() == []


@MEMORY
def test_a_query_for_all_rows_is_lazy_and_one_that_was_refined_is_asked_for(models):
    Author, Novel, _, _ = models
    author = Author(name="U").save()
    novel = Novel(title="a").save()
    with no_lazy_loads():
        for read in (author.novels.all, author.novels.count, author.novels.exists):
            with pytest.raises(LazyLoadError):
                read()
        author.novels.add(novel)
        author.novels.remove(novel)
        author.novels.set([novel])
        assert author.novels.filter(title="a").all() == [novel]
        assert author.novels.using("default").all() == [novel]


@MEMORY
def test_the_one_row_of_a_unique_foreign_key_is_no_query(models):
    Author, _, _, Desk = models
    author = Author(name="U").save()
    assert author.desk is None
    with pytest.raises(AttributeError, match=r"Author\.desk cannot be assigned; assign Desk\.author"):
        author.desk = Desk(author=author)
    for relation in ("novels", "desk"):
        assert not hasattr(getattr(author, relation), "save")


def test_a_row_is_got_or_created_among_the_related_ones(models, stored):
    Author, Novel, Genre, _ = models
    author = Author(name="U").save()
    Novel(title="a").save()
    novel, made = author.novels.get_or_create(title="a")
    assert (made, novel.author, author.novels.get_or_create(title="a")) == (True, author, (novel, False))
    assert author.novels.update_or_create(title="a", defaults={"pages": 3}) == (novel, False)
    assert stored(Novel, "pages", "author_id") == [(0, None), (3, author.id)]
    genre, made = novel.genres.update_or_create(name="g", defaults={"rank": 1})
    assert (made, genre.rank, novel.genres.all()) == (True, 1, [genre])
    assert novel.genres.update_or_create(name="g", defaults={"rank": 2}) == (genre, False)
    assert stored(Genre, "rank") == [2]


def test_prefetched_rows_are_forgotten_when_they_change(models, wire):
    Author, Novel, Genre, _ = models
    author = Author(name="U").save()
    novels = [Novel(title=title, author=author).save() for title in "ab"]
    genre = Genre(name="g").save()
    novels[0].genres.add(genre)
    (author,) = Author.objects.prefetch_related("novels.genres")
    novel = next(each for each in author.novels if each.title == "a")
    with wire.record() as sent:
        assert (novel.genres.all(), author.novels.count()) == ([genre], 2)
    assert sent == []
    novel.genres.clear()
    author.novels.remove(novel)
    assert (novel.genres.all(), author.novels.all()) == ([], novels[1:])
