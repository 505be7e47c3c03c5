"""Dependent rows of a delete: `on_delete`, their order and their signals."""

import asyncio
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Model,
    Related,
    RestrictedError,
    TransactionError,
    field,
    foreign_key,
    many_to_many,
    muted,
    related,
)
from microorm.signals import (
    m2m_changed,
    post_delete,
    post_save,
    post_update,
    pre_delete,
    pre_save,
    pre_update,
)

MEMORY = pytest.mark.backends("sqlite-memory")
DRIVER = pytest.mark.parametrize("way", ["driver"])  # many rows, which take time


class Broken(Exception):
    """The error of failing receivers."""


@pytest.fixture
def shop(Base, registry):
    """Authors, their books, and models that refer to these with each `on_delete`."""

    class Author(Base):
        name: Field[str]
        books: Related["Book"] = related("author")

    class Book(Base):
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        title: Field[str]
        sequel_of: ForeignKey["Book | None"] = foreign_key(on_delete="set_null", default=None)
        tags: ManyToMany["Tag"] = many_to_many()
        reviews: Related["Review"] = related("book")

    class Tag(Base):
        name: Field[str]

    class Review(Base):
        book: ForeignKey[Book] = foreign_key(on_delete="cascade")
        stars: Field[int] = field(default=0)

    class Note(Base):
        book: ForeignKey[Book | None] = foreign_key(on_delete="set_null", default=None)

    class Loan(Base):
        book: ForeignKey[Book] = foreign_key(on_delete="restrict")

    registry.create_all()
    through = Book.__schema__.relations["tags"].through
    return SimpleNamespace(
        Author=Author, Book=Book, Tag=Tag, Review=Review, Note=Note, Loan=Loan, Pair=through
    )


@pytest.fixture
def Node(Base, registry):
    """A row of a tree."""

    class Node(Base):
        parent: ForeignKey["Node | None"] = foreign_key(on_delete="cascade", default=None)
        children: Related["Node"] = related("parent")

    registry.create_all("default")
    return Node


@pytest.fixture
def library(shop):
    """An author with two books, tagged and reviewed, and another author with one."""
    ursula, stanislaw = shop.Author(name="Le Guin").save(), shop.Author(name="Lem").save()
    lathe = shop.Book(title="Lathe", author=ursula).save()
    tombs = shop.Book(title="Tombs", author=ursula, sequel_of=lathe).save()
    solaris = shop.Book(title="Solaris", author=stanislaw, sequel_of=tombs).save()
    tag = shop.Tag(name="novel").save()
    for book in (lathe, tombs, solaris):
        shop.Pair(book=book, tag=tag).save()
        shop.Review(book=book, stars=3).save()
    note = shop.Note(book=tombs).save()
    return SimpleNamespace(ursula=ursula, lathe=lathe, tombs=tombs, solaris=solaris, tag=tag, note=note)


def labels(counts: dict[Any, int]) -> dict[str, int]:
    return {model.__schema__.label: number for model, number in counts.items()}


def verbs(sent: list[str]) -> list[str]:
    """`"DELETE book"` for each statement."""
    found = []
    for text in sent:
        words = text.replace("`", "").replace('"', "").split()
        table = words[1] if words[0] == "UPDATE" else words[words.index("FROM") + 1]
        found.append(f"{words[0]} {table}")
    return found


@pytest.mark.parametrize("by_query", [False, True])
def test_what_goes_along_is_counted_and_takes_few_statements(shop, library, wire, stored, by_query):
    """Rows without receivers or dependants are deleted without being loaded; also through a relation.

    Of rows with dependants, keys are loaded.
    """
    authors = shop.Author.objects.filter(shop.Author.name == "Le Guin")
    delete = authors.delete if by_query else library.ursula.delete
    with wire.record() as sent:
        total, by_label = delete()
    assert (total, by_label) == (7, labels({shop.Author: 1, shop.Book: 2, shop.Review: 2, shop.Pair: 2}))
    expected = ["SELECT book", "SELECT loan", "DELETE book_tags", "DELETE review"]
    expected += ["UPDATE book", "UPDATE note", "DELETE book", "DELETE author"]
    found = verbs(sent)[by_query:]
    assert found[:2] + sorted(found[2:4]) + sorted(found[4:6]) + found[6:] == expected
    assert not [each for each in sent if "title" in each]
    assert stored(shop.Book, "title", "sequel_of_id") == [("Solaris", None)]
    assert stored(shop.Note, "book_id") == [None]
    assert (len(stored(shop.Review)), len(stored(shop.Pair)), len(stored(shop.Tag))) == (1, 1, 1)


@MEMORY
def test_a_dependant_that_somebody_listens_to_is_fetched_and_another_is_not(shop, library, listen, wire):
    """Also for a receiver that waits for the commit."""
    told = []
    listen(post_delete, lambda instance, **_: told.append(instance.stars), shop.Review, delivery="on_commit")
    with wire.record() as sent:
        library.lathe.delete()
    assert "SELECT review" in verbs(sent)
    assert "SELECT book_tags" not in verbs(sent)
    assert told == [3]


@MEMORY
def test_without_dependants_that_refer_a_delete_stays_one_statement(Base, registry, wire):
    """With `do_nothing` no dependants are looked for."""

    class Left(Base):
        pass

    class Right(Base):
        left: ForeignKey[Left | None] = foreign_key(on_delete="do_nothing", default=None)

    registry.create_all("default")
    left, right = Left().save(), Right().save()
    with wire.everything() as sent:
        left.delete()
        right.delete()
        Left.objects.delete()
        Right.objects.filter(id=5).delete()
    assert [text.split()[0] for text in sent] == ["DELETE"] * 4


def test_signals_come_before_all_sql_dependants_first_and_after_each_models_rows(shop, library, listen, wire):
    """With exactly these arguments; the keys are still set; `origin` is the object of the delete."""
    events: list[Any] = []
    keys = set()

    def note(**kwargs):
        events.append((kwargs["signal"], kwargs["sender"], kwargs["instance"].pk, len(wire.texts)))
        keys.add(frozenset(kwargs))
        assert kwargs["origin"] is library.ursula
        assert kwargs["using"] == "default"

    for signal in (pre_delete, post_delete):
        for model in (shop.Author, shop.Book, shop.Review):
            listen(signal, note, sender=model)
    author, books = library.ursula.pk, [library.lathe.pk, library.tombs.pk]
    library.ursula.delete()
    assert keys == {frozenset({"signal", "sender", "instance", "using", "origin"})}
    order = [shop.Review, shop.Review, shop.Book, shop.Book, shop.Author]
    assert [sender for _, sender, _, _ in events] == order * 2
    assert [signal for signal, *_ in events] == [pre_delete] * 5 + [post_delete] * 5
    assert sorted(pk for _, sender, pk, _ in events[:5] if sender is shop.Book) == books
    assert events[4][2] == author
    sent = [" ".join(text.split()) for text in wire.texts]
    before, after = events[0][3], {sender: number for _, sender, _, number in events[5:]}
    assert {number for *_, number in events[:5]} == {before}
    last = {model: verbs([sent[after[model] - 1]])[0] for model in order}
    assert last == {shop.Review: "DELETE review", shop.Book: "DELETE book", shop.Author: "DELETE author"}


def test_a_key_that_is_set_to_null_or_to_its_default_tells_nobody(Base, registry, listen, stored):
    """No save or bulk signals are sent; other instances of the caller are unchanged."""

    class Shelf(Base):
        id: Field[int] = field(primary_key=True)

    class Book(Base):
        shelf: ForeignKey[Shelf | None] = foreign_key(on_delete="set_null", default=None)
        spare: ForeignKey[Shelf] = foreign_key(on_delete="set_default", default=1)

    registry.create_all("default")
    told: list[Any] = []
    for signal in (pre_save, post_save, pre_delete, post_delete, pre_update, post_update):
        listen(signal, lambda **kwargs: told.append(kwargs), sender=Book)
    first, second = Shelf(id=1).save(force_insert=True), Shelf(id=2).save(force_insert=True)
    with muted([pre_save, post_save]):
        book = Book(shelf=second, spare=second).save()
    assert second.delete() == (1, labels({Shelf: 1}))
    assert stored(Book, "shelf_id", "spare_id") == [(None, 1)]
    assert (told, book.shelf_id, book.changes()) == ([], 2, {})
    with pytest.raises(IntegrityError):
        first.delete()
    assert stored(Book, "spare_id") == [1]


def test_rows_in_the_way_are_named_before_anybody_is_told(shop, library, listen, databases, stored, wire):
    """Nothing has been written, so the open block stays usable."""
    told: list[Any] = []
    for model in (shop.Author, shop.Book, shop.Review):
        listen(pre_delete, lambda **kwargs: told.append(kwargs), sender=model)
    loans = [shop.Loan(book=library.tombs).save() for _ in range(4)]
    keys = ", ".join(str(loan.pk) for loan in loans[:3])
    label = shop.Loan.__schema__.label
    message = f"Author cannot be deleted while 4 rows of {label} (keys {keys}, …) refer to Book by 'book'"
    with databases.atomic():
        for delete in (library.ursula.delete, shop.Author.objects.delete):
            with pytest.raises(RestrictedError) as raised:
                delete()
            assert str(raised.value) == message
        assert shop.Author.objects.count() == 2
    with wire.record() as sent, pytest.raises(RestrictedError):
        library.ursula.delete()
    assert {text.split()[0] for text in sent} == {"SELECT"}
    assert list(raised.value.objects) == loans
    assert raised.value.objects[0].book_id == library.tombs.pk
    assert (told, library.ursula.pk is None, len(stored(shop.Book))) == ([], False, 3)


@MEMORY
def test_a_restricted_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(RestrictedError("in the way", [1, 2])))
    assert (str(error), error.objects) == ("in the way", (1, 2))


@pytest.mark.parametrize("told", [False, True])
def test_a_row_that_goes_as_well_is_not_in_the_way(Base, registry, listen, stored, told):
    """As in Django's RESTRICT; also for rows that are deleted without being loaded."""

    class Artist(Base):
        pass

    class Album(Base):
        artist: ForeignKey[Artist] = foreign_key(on_delete="cascade")

    class Song(Base):
        artist: ForeignKey[Artist] = foreign_key(on_delete="cascade")
        album: ForeignKey[Album] = foreign_key(on_delete="restrict")

    registry.create_all("default")
    if told:
        listen(pre_delete, lambda **kwargs: None, sender=Song)
    one, other = Artist().save(), Artist().save()
    album = Album(artist=one).save()
    Song(artist=one, album=album).save()
    guest = Song(artist=other, album=album).save()
    with pytest.raises(
        RestrictedError, match=rf"1 row of .*Song \(key {guest.pk}\) refers to Album by 'album'$"
    ):
        one.delete()
    with pytest.raises(RestrictedError):
        album.delete()
    guest.delete()
    assert one.delete() == (3, labels({Artist: 1, Album: 1, Song: 1}))
    assert stored(Artist, "id") == [other.pk]


def test_the_rows_of_a_tree_go_leaves_first_and_each_once(Node, listen, stored):
    """Dependants first, also in cycles of rows; a row may refer to itself."""
    root, alone = Node().save(), Node().save()
    left, right = Node(parent=root).save(), Node(parent=root).save()
    leaf = Node(parent=left).save()
    told = []
    listen(pre_delete, lambda instance, **_: told.append(instance.pk), sender=Node)
    keys = [row.pk for row in (root, left, right, leaf)]
    root.parent = root
    root.save()
    assert root.delete() == (4, labels({Node: 4}))
    assert sorted(told) == sorted(keys)
    assert (told[-1], told.index(leaf.pk) < told.index(left.pk)) == (keys[0], True)
    assert stored(Node, "id") == [alone.pk]


@pytest.mark.parametrize("told", [False, True])
def test_rows_that_refer_to_each_other_in_a_circle_go(Base, registry, listen, stored, told):
    """Within a model and across models: nullable keys of the cycle are set to NULL; other rows stay."""

    class Team(Base):
        lead: ForeignKey["Person | None"] = foreign_key(on_delete="cascade", default=None)

    class Person(Base):
        team: ForeignKey[Team] = foreign_key(on_delete="cascade")
        friend: ForeignKey["Person | None"] = foreign_key(on_delete="cascade", default=None)

    registry.create_all("default")
    if told:
        listen(post_delete, lambda **kwargs: None, sender=Person)
    team, other = Team().save(), Team().save()
    people = [Person(team=team).save() for _ in range(3)]
    for person, friend in zip(people, [*people[1:], people[0]], strict=True):
        person.friend = friend
        person.save()
    team.lead = people[0]
    team.save()
    rest = Person(team=other).save()
    assert people[1].delete() == (4, labels({Team: 1, Person: 3}))
    assert (stored(Team, "id"), stored(Person, "id")) == ([other.pk], [rest.pk])


def test_a_circle_that_cannot_be_cut_is_the_databases_affair(Base, registry, databases, stored, backend):
    """MariaDB checks row by row, the others at the end of the statement."""

    class Hen(Base):
        id: Field[int] = field(primary_key=True)
        mother: ForeignKey["Hen"] = foreign_key(on_delete="cascade")

    registry.create_all("default")
    hen = Hen(id=1, mother_id=1).save(force_insert=True)
    Hen(id=2, mother_id=1).save(force_insert=True)
    hen.mother_id = 2
    hen.save()
    if backend == "mariadb":
        with pytest.raises(IntegrityError):
            hen.delete()
        assert stored(Hen, "id") == [1, 2]
    else:
        assert hen.delete() == (2, labels({Hen: 2}))


def test_what_is_left_to_the_database_it_may_refuse(Base, registry, stored):
    """With `do_nothing`, an error of the database undoes the whole delete."""

    class Hen(Base):
        pass

    class Egg(Base):
        hen: ForeignKey[Hen] = foreign_key(on_delete="cascade")

    class Nest(Base):
        egg: ForeignKey[Egg] = foreign_key(on_delete="do_nothing")

    registry.create_all("default")
    hen = Hen().save()
    nest = Nest(egg=Egg(hen=hen).save()).save()
    with pytest.raises(IntegrityError):
        hen.delete()
    assert (len(stored(Hen)), len(stored(Egg)), hen.pk is None) == (1, 1, False)
    nest.delete()
    assert hen.delete() == (2, labels({Hen: 1, Egg: 1}))


@DRIVER
def test_a_chain_is_longer_than_the_stack_is_deep(Node, databases, stored, backend):
    """Level by level, without recursion."""
    length = sys.getrecursionlimit() + 100 if backend == "sqlite-memory" else 30
    table = Node.__table__
    with databases.engine().begin() as connection:
        connection.execute(
            insert(table),
            [
                {"id": number, "parent_id": number - 1 if number > 1 else None}
                for number in range(1, length + 1)
            ],
        )
    assert Node.objects.get(id=1).delete() == (length, labels({Node: length}))
    assert stored(Node) == []


@DRIVER
def test_many_rows_go_in_batches(shop, databases, listen, stored, wire, monkeypatch):
    """More rows than go into one statement: loaded, set to NULL, and deleted unloaded."""
    monkeypatch.setattr("microorm.sql.batches.MAX_ROWS", 50)
    number = 130
    author = shop.Author(name="Simenon").save()
    told = []
    listen(post_delete, lambda instance, **_: told.append(instance.pk), sender=shop.Book)
    keys = range(1, number + 1)
    with databases.engine().begin() as connection:
        connection.execute(
            insert(shop.Book.__table__), [{"id": key, "title": "x", "author_id": author.pk} for key in keys]
        )
        connection.execute(insert(shop.Review.__table__), [{"book_id": key, "stars": 1} for key in keys])
        connection.execute(insert(shop.Note.__table__), [{"book_id": key} for key in keys])
    counts = labels({shop.Author: 1, shop.Book: number, shop.Review: number})
    with wire.record() as sent:
        assert author.delete() == (2 * number + 1, counts)
    assert [verbs(sent).count(each) for each in ("UPDATE note", "DELETE review", "DELETE book")] == [3] * 3
    assert sorted(told) == list(keys)
    assert set(stored(shop.Note, "book_id")) == {None}


@pytest.mark.parametrize("told", [False, True])
def test_a_key_to_another_field_follows_the_row_not_the_instance(Base, registry, listen, stored, told):
    """With `to_field`, the value in the database counts, not an unsaved one; NULL refers to nothing."""

    class Country(Base):
        code: Field[str | None] = field(max_length=2, unique=True, default=None)

    class City(Base):
        country: ForeignKey[Country | None] = foreign_key(on_delete="cascade", to_field="code", default=None)

    class Street(Base):
        city: ForeignKey[City] = foreign_key(on_delete="cascade")

    registry.create_all("default")
    if told:
        listen(pre_delete, lambda **kwargs: None, sender=City)
    chile, peru, nowhere = Country(code="cl").save(), Country(code="pe").save(), Country().save()
    for country in (chile, peru, None):
        Street(city=City(country=country).save()).save()
    chile.code = "pe"
    assert nowhere.delete() == (1, labels({Country: 1}))
    assert chile.delete() == (3, labels({Country: 1, City: 1, Street: 1}))
    assert stored(City, "country_id") == ["pe", None]
    assert Country.objects.delete() == (3, labels({Country: 1, City: 1, Street: 1}))


def test_what_several_keys_refer_to_is_asked_for_once(Base, registry, wire):
    """The value of the row that `to_field` names is read once for all keys."""

    class Country(Base):
        code: Field[str] = field(max_length=2, unique=True)

    class City(Base):
        country: ForeignKey[Country] = foreign_key(on_delete="cascade", to_field="code")

    class River(Base):
        source: ForeignKey[Country] = foreign_key(on_delete="cascade", to_field="code")
        mouth: ForeignKey[Country] = foreign_key(on_delete="restrict", to_field="code")

    registry.create_all("default")
    country = Country(code="cl").save()
    City(country=country).save()
    River(source=country, mouth=country).save()
    with wire.record() as sent:
        assert country.delete()[0] == 3
    assert [each.split()[0] for each in sent] == ["SELECT"] * 2 + ["DELETE"] * 3


def test_keys_that_the_database_does_not_check_are_followed_too(Base, registry, stored):
    """With `constraint=False`; also if the row itself is already gone."""

    class Job(Base):
        pass

    class Log(Base):
        job: ForeignKey[Job] = foreign_key(on_delete="cascade", constraint=False)

    registry.create_all("default")
    job = Job().save()
    Log(job=job).save()
    Log(job_id=job.pk + 1).save()
    assert Job.objects.filter(id=job.pk).delete() == (2, labels({Job: 1, Log: 1}))
    gone = Job().save()
    assert len(stored(Log)) == 1
    Log.objects.update(job_id=gone.pk)
    assert Job.objects.get(id=gone.pk).delete() == (2, labels({Job: 1, Log: 1}))
    Log(job_id=gone.pk).save()
    assert gone.delete() == (1, labels({Log: 1}))
    assert gone.pk is None


def test_instances_that_receivers_kept_lose_their_keys_until_a_rollback(Base, registry, listen, undone):
    """Generated keys; others stay."""

    class Owner(Base):
        pass

    class Dog(Base):
        owner: ForeignKey[Owner] = foreign_key(on_delete="cascade")

    class Car(Base):
        plate: Field[str] = field(primary_key=True, max_length=9)
        owner: ForeignKey[Owner] = foreign_key(on_delete="cascade")

    registry.create_all("default")
    kept: list[Any] = []
    for model in (Dog, Car):
        listen(post_delete, lambda instance, **_: kept.append((instance, instance.pk)), sender=model)
    owner = Owner().save()
    dog = Dog(owner=owner).save()
    Car(plate="x", owner=owner).save(force_insert=True)
    before = owner.pk
    with undone():
        owner.delete()
        assert {type(each): each.pk for each, _ in kept} == {Dog: None, Car: "x"}
        assert owner.pk is None
    assert (owner.pk, {each.pk for each, _ in kept}) == (before, {dog.pk, "x"})
    kept.clear()
    owner.delete()
    assert {type(each): (each.pk, was, each._state.adding) for each, was in kept} == {
        Dog: (None, dog.pk, False),
        Car: ("x", "x", False),
    }
    assert (dog.pk is None, owner.pk, owner._state.db) == (False, None, "default")


@pytest.mark.parametrize("when", [pre_delete, post_delete])
def test_an_error_on_the_way_takes_all_back(shop, library, listen, databases, stored, when):
    """Outside a block nothing is written; an open block is doomed."""

    def fail(instance, **kwargs):
        raise Broken

    kept: list[Any] = []
    listen(pre_delete, lambda instance, **_: kept.append((instance, instance.pk)), sender=shop.Book)
    listen(when, fail, sender=shop.Author)
    everything = [stored(model) for model in vars(shop).values()]
    author = library.ursula.pk
    for inside in (False, True):
        kept.clear()
        if inside:
            with pytest.raises(TransactionError, match="was rolled back"), databases.atomic():
                with pytest.raises(Broken):
                    library.ursula.delete()
        else:
            with pytest.raises(Broken):
                library.ursula.delete()
        assert [stored(model) for model in vars(shop).values()] == everything
        assert (library.ursula.pk, len(kept)) == (author, 2)
        assert all(instance.pk == key for instance, key in kept)


def test_a_row_that_a_receiver_adds_is_in_the_way_like_any_other(shop, library, listen, stored):
    """Nothing is deleted then."""

    def lend(instance, **kwargs):
        shop.Loan(book=instance).save()

    listen(pre_delete, lend, sender=shop.Book)
    with pytest.raises(RestrictedError):
        library.lathe.delete()
    assert (stored(shop.Loan), len(stored(shop.Book))) == ([], 3)
    assert library.lathe.pk is not None


def test_rows_that_a_receiver_moves_away_stay(shop, library, listen, stored):
    """With all that refers to them, whether the receiver of the parent or of the row itself has moved them."""
    deleted = []
    listen(post_delete, lambda instance, **kwargs: deleted.append(instance), sender=shop.Book)

    def move(instance, **kwargs):
        instance.books.filter(title="Lathe").update(author_id=library.solaris.author_id)

    def move_itself(instance, **kwargs):
        if instance.title == "Tombs":
            shop.Book.objects.filter(id=instance.id).update(author_id=library.solaris.author_id)

    listen(pre_delete, move, sender=shop.Author)
    listen(pre_delete, move_itself, sender=shop.Book)
    total, counts = library.ursula.delete()
    assert (total, counts) == (1, labels({shop.Author: 1}))
    assert deleted == []
    assert stored(shop.Book, "title", "author_id") == [
        (title, library.solaris.author_id) for title in ("Lathe", "Tombs", "Solaris")
    ]
    assert (len(stored(shop.Review)), stored(shop.Note, "book_id")) == (3, [library.tombs.id])


def test_rows_that_a_receiver_adds_are_deleted_as_well(shop, library, listen, stored):
    """With their own signals, and with the same instances before and after."""
    before, after = [], []

    def add(instance, **kwargs):
        if instance.title == "Lathe":
            shop.Book(title="new", author=library.ursula).save()

    listen(pre_delete, add, sender=shop.Book)
    listen(pre_delete, lambda instance, **kwargs: before.append(instance), sender=shop.Book)
    listen(post_delete, lambda instance, **kwargs: after.append(instance), sender=shop.Book)
    library.ursula.delete()
    assert sorted(book.title for book in before) == ["Lathe", "Tombs", "new"]
    assert {id(book) for book in after} == {id(book) for book in before}
    assert stored(shop.Book, "title") == ["Solaris"]


def test_receivers_that_never_stop_adding_rows_are_an_error(Node, listen, stored, monkeypatch):
    """Nothing is deleted, and nothing of what they have added remains."""
    monkeypatch.setattr("microorm.persistence.delete.MAX_ROUNDS", 10)
    root = Node().save()
    listen(pre_delete, lambda instance, **kwargs: Node(parent=root).save(), sender=Node)
    with pytest.raises(RuntimeError, match=r"^pre_delete was sent 10 times"):
        root.delete()
    assert (len(stored(Node)), root.pk is None) == (1, False)


@MEMORY
def test_a_receiver_that_changes_nothing_costs_no_second_search_where_no_table_refers(
    shop, library, listen, wire
):
    listen(pre_delete, lambda **kwargs: None, sender=shop.Review)
    review = shop.Review.objects.first()
    with wire.record() as sent:
        review.delete()
    assert len([each for each in sent if each.startswith("SELECT")]) == 0


def test_a_query_along_relations_deletes_its_rows_and_what_goes_along(shop, library, listen, stored):
    """By a path, to-one and to-many relations, related rows, and with receivers."""
    Author, Book = shop.Author, shop.Book
    assert Book.objects.filter(Book.author.name == "Lem", Book.tags.name == "novel").delete() == (
        3,
        labels({Book: 1, shop.Review: 1, shop.Pair: 1}),
    )
    listen(pre_delete, lambda **kwargs: None, sender=Book)
    assert library.ursula.books.filter(title="Tombs").delete()[1][Book.__schema__.label] == 1
    assert library.lathe.reviews.delete() == (1, labels({shop.Review: 1}))
    assert Author.objects.filter(Author.books.title == "Lathe").delete() == (
        3,
        labels({Author: 1, Book: 1, shop.Pair: 1}),
    )
    assert (stored(Author, "name"), stored(Book)) == (["Lem"], [])
    assert Author.objects.only("id").order_by("name").delete() == (1, labels({Author: 1}))
    assert Author.objects.delete() == (0, {})


@MEMORY
def test_a_part_of_a_query_and_groups_cannot_be_deleted(shop, wire):
    for query in (shop.Author.objects[:3], shop.Author.objects.distinct()):
        with wire.record() as sent, pytest.raises(TypeError, match=r"^delete\(\) cannot be used on a query"):
            query.delete()
    grouped = shop.Author.objects.group_by("name")
    with wire.record() as sent, pytest.raises(TypeError, match=r"^delete\(\) needs rows"):
        grouped.delete()
    assert sent == []


@MEMORY
@pytest.mark.sync_only("calls without await, on a loop of its own")
def test_an_async_receiver_of_what_goes_along_is_refused_before_anybody_is_told(
    shop, library, listen, databases
):
    """On a running loop; the block stays usable."""
    ran = []

    async def receive(**kwargs):
        ran.append("async")

    listen(pre_delete, lambda **kwargs: ran.append("sync"), sender=shop.Review)
    listen(post_delete, receive, sender=shop.Book)

    async def main():
        with databases.atomic():
            with pytest.raises(RuntimeError, match="on a running event loop"):
                library.ursula.delete()
            assert shop.Book.objects.count() == 3
        with pytest.raises(RuntimeError, match="on a running event loop"):
            library.ursula.delete()

    asyncio.run(main())
    assert ran == []
    library.ursula.delete()
    assert sorted(ran) == ["async"] * 2 + ["sync"] * 2


@MEMORY
def test_all_happens_on_the_alias_of_the_delete(shop, library, databases, stored, listen):
    """Whatever routers or blocks say of the dependants; it is the current alias in receivers."""

    class Elsewhere:
        def db_for_write(self, model, **hints):
            return "default" if model in (shop.Book, shop.Review) else None

        db_for_read = db_for_write

    told = []
    author = shop.Author(name="x").save(using="other")
    book = shop.Book(title="y", author_id=author.pk).save(using="other")
    shop.Review(book_id=book.pk).save(using="other")
    databases.routers = (Elsewhere(),)
    listen(pre_delete, lambda using, **_: told.append((using, shop.Author.objects.count())), sender=shop.Book)
    assert author.delete(using="other")[0] == 3
    assert told == [("other", 1)]
    assert (stored(shop.Book, alias="other"), len(stored(shop.Book))) == ([], 3)


@MEMORY
def test_a_table_that_the_alias_does_not_have_is_not_asked(registry, databases, stored):
    """The rows of such a model are in another alias, and stay."""

    class Apart:
        def allow_migrate(self, alias, label, model=None, **hints):
            return alias == "other" if label.endswith(".Log") else None

    class Job(Model, registry=registry):
        pass

    class Log(Model, registry=registry, database="other"):
        job: ForeignKey[Job] = foreign_key(on_delete="cascade", constraint=False)

    databases.routers = (Apart(),)
    registry.create_all()
    job = Job().save(using="default")
    log = Log(job_id=job.pk).save()
    assert job.delete() == (1, labels({Job: 1}))
    assert stored(Log, "id", alias="other") == [log.pk]


def test_endpoints_of_many_to_many_relations_take_their_pairs_along(shop, library, listen, stored):
    """They are counted, with delete signals if these have receivers, and without `m2m_changed`."""
    changed, told = [], []
    listen(m2m_changed, lambda **kwargs: changed.append(kwargs))
    assert library.tag.delete() == (4, labels({shop.Tag: 1, shop.Pair: 3}))
    tag = shop.Tag(name="t").save()
    shop.Pair(book=library.lathe, tag=tag).save()
    listen(post_delete, lambda instance, **_: told.append(instance.book_id), sender=shop.Pair)
    key = library.lathe.pk
    assert library.lathe.delete()[1][shop.Pair.__schema__.label] == 1
    assert (changed, told, stored(shop.Pair)) == ([], [key], [])


def test_rows_with_keys_of_several_columns_go_along(Base, registry, listen, stored):
    """In one statement."""

    class Club(Base):
        pass

    class Member(Base):
        number: Field[int] = field(primary_key=True)
        name: Field[str] = field(primary_key=True, max_length=9)
        club: ForeignKey[Club] = foreign_key(on_delete="cascade")

    registry.create_all("default")
    told = []
    listen(pre_delete, lambda instance, **_: told.append(instance.pk), sender=Member)
    club, other = Club().save(), Club().save()
    for number, name, of in ((1, "a", club), (1, "b", club), (2, "a", other)):
        Member(number=number, name=name, club=of).save(force_insert=True)
    assert club.delete() == (3, labels({Club: 1, Member: 2}))
    assert sorted(told) == [(1, "a"), (1, "b")]
    assert stored(Member, "number") == [2]


@MEMORY
def test_models_that_wait_for_a_name_count_as_soon_as_it_is_there(Base, registry):
    """A model whose target is never defined has no rows."""

    class Root(Base):
        pass

    class Leaf(Base):
        root: ForeignKey[Root] = foreign_key(on_delete="cascade")
        twig: ForeignKey["Twig | None"] = foreign_key(on_delete="cascade", default=None)

    class Lost(Base):
        root: ForeignKey[Root] = foreign_key(on_delete="cascade")
        never: ForeignKey["Never"] = foreign_key()

    Root.__table__.create(registry.databases.engine())
    assert Root().save().delete() == (1, labels({Root: 1}))

    class Twig(Base):
        pass

    Twig.__table__.create(registry.databases.engine())
    Leaf.__table__.create(registry.databases.engine())
    root = Root().save()
    Leaf(root=root).save()
    assert root.delete() == (2, labels({Root: 1, Leaf: 1}))


@MEMORY
def test_a_delete_of_what_others_refer_to_is_refused_in_a_readonly_block(shop, library, databases, wire):
    """Before any SQL."""
    with wire.record() as sent, databases.atomic(readonly=True):
        for delete in (library.ursula.delete, shop.Author.objects.delete):
            with pytest.raises(TransactionError, match="^the block on 'default' is read-only$"):
                delete()
    assert sent == []


@MEMORY
def test_a_delete_inside_a_doomed_block_asks_nothing(shop, library, databases):
    with pytest.raises(TransactionError), databases.atomic():
        with pytest.raises(IntegrityError), databases.connection() as connection:
            connection.execute(update(shop.Book.__table__).values(author_id=4711))
        with pytest.raises(TransactionError):
            library.ursula.delete()
    with databases.engine().connect() as connection:
        assert len(connection.execute(select(shop.Author.__table__)).all()) == 2


def test_post_delete_is_sent_for_the_rows_that_this_delete_has_deleted(
    shop, library, listen, databases, stored
):
    """Not for rows that a receiver of `pre_delete`, or another process, has deleted meanwhile."""
    reviews = [shop.Review(book=library.lathe, stars=n).save() for n in range(4)]
    gone = [reviews[0].pk, reviews[2].pk]
    heard = []

    def delete_others(instance, **kwargs):
        if instance.pk == reviews[1].pk:
            with databases.connection() as connection:
                table = shop.Review.__table__
                connection.execute(table.delete().where(table.c.id.in_(gone)))
        if instance.pk == reviews[3].pk:
            shop.Review.objects.get(id=library.tombs.reviews.get().pk).delete()

    listen(pre_delete, delete_others, sender=shop.Review)
    listen(post_delete, lambda instance, **kwargs: heard.append(instance.pk), sender=shop.Review)
    expected = {each for each in stored(shop.Review, "id") if each not in gone}
    expected -= {library.solaris.reviews.get().pk}
    _, counts = library.ursula.delete()
    assert (len(heard), set(heard)) == (len(expected), expected)
    assert counts[shop.Review.__schema__.label] == len(expected) - 1  # one by a receiver
    assert stored(shop.Review, "id") == [library.solaris.reviews.get().pk]


@MEMORY
def test_after_the_commit_the_origin_of_dependent_rows_has_its_key(shop, library, listen):
    origins = []
    listen(
        post_delete,
        lambda instance, origin, **kwargs: origins.append((origin.pk, origin.name)),
        sender=shop.Review,
        delivery="on_commit",
    )
    key = library.ursula.pk
    library.ursula.delete()
    assert origins == [(key, "Le Guin")] * 2
