"""Unsaved instances may be related first and saved in order afterwards; what needs their key refuses before any SQL."""

import copy
import pickle
import sys
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from microorm import (
    CrossDatabaseRelation,
    Field,
    ForeignKey,
    InvalidValue,
    ManyToMany,
    Model,
    Related,
    UnsavedError,
    field,
    foreign_key,
    many_to_many,
    prefetch,
    related,
)
from microorm.signals import m2m_changed, post_save, pre_bulk_create, pre_save

MEMORY = pytest.mark.backends("sqlite-memory")
REFUSED = r"^Novel\.author: Author\(id=None\) has no key; save it before the Novel that refers to it"
NO_KEY = r"^Novel\.author: Author\(id=None\) has no key; save it first$"


class Broken(Exception):
    """What the failing receivers raise."""


def held(instance: Any) -> tuple[Any, Any]:
    """The values that *instance* holds, and its related instances."""
    return dict(vars(instance)), dict(instance._related or {})


@pytest.fixture(name="Author")
def author_model(Base: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=40)
        novels: Related["Novel"] = related("author")
        edited: Related["Novel"] = related("editor")

    return Author


@pytest.fixture(name="Novel")  # a global of this name would be taken for the model
def novel_model(Author: Any, Base: Any, registry: Any) -> Any:
    class Tag(Base):
        name: Field[str] = field(max_length=9)

    class Novel(Base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[Author] = foreign_key()
        editor: ForeignKey[Author | None] = foreign_key(default=None)
        tags: ManyToMany[Tag] = many_to_many(through="Tagging", through_fields=("novel", "tag"))

    class Tagging(Base):
        novel: ForeignKey[Novel] = foreign_key()
        tag: ForeignKey[Tag] = foreign_key()
        by: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all()
    return Novel


@pytest.fixture
def told(listen, Novel) -> list[Any]:
    """The signals of saves of novels, in order."""
    told: list[Any] = []
    for signal in (pre_save, post_save, pre_bulk_create):
        listen(signal, lambda signal, **kwargs: told.append(signal), sender=Novel)
    return told


def test_a_graph_is_built_first_and_saved_in_order(Author, Novel, stored, wire) -> None:
    author = Author(name="U")
    check_graph(author, Novel(title="x", author=author, editor=author), stored, wire)
    Novel.objects.delete()
    author, novel = Author(name="V"), Novel(title="x", author_id=99)
    novel.author = novel.editor = author
    check_graph(author, novel, stored, wire)


def check_graph(author: Any, novel: Any, stored: Any, wire: Any) -> None:
    with wire.record() as sent:
        assert (novel.author, novel.author_id, novel.editor) == (author, None, author)
    assert (sent, novel._state.adding) == ([], True)
    author.save()
    assert novel.author is author
    novel.save()
    assert (novel.author, novel.author_id, novel.editor_id) == (author, author.id, author.id)
    assert (novel.changes(), stored(type(novel), "author_id", "editor_id")) == ({}, [(author.id, author.id)])


def test_a_save_is_refused_before_any_signal_and_any_sql(Author, Novel, wire, told) -> None:
    for options in ({}, {"using": "default"}, {"force_insert": True}, {"update_fields": ["title"]}):
        novel = Novel(title="x", author=Author(name="U"))
        if "update_fields" in options:
            novel.id = 1
        before = held(novel)
        with wire.record() as sent, pytest.raises(UnsavedError, match=REFUSED):
            novel.save(**options)
        assert (sent, told, held(novel), novel._state.adding) == ([], [], before, True)


def test_a_relation_that_may_be_none_is_refused_too(Author, Novel, stored, databases) -> None:
    novel = Novel(title="x", author=Author(name="U").save()).save()
    novel.editor = Author(name="E")
    with databases.atomic():
        with pytest.raises(UnsavedError, match=r"^Novel\.editor: Author\(id=None\) has no key"):
            novel.save()
        novel.editor.save()
        novel.save()
    assert stored(Novel, "editor_id") == [novel.editor.id]
    with pytest.raises(UnsavedError):
        Novel.objects.create(title="y", author=novel.author, editor=Author(name="F"))
    assert stored(Novel, "title") == ["x"]


def test_a_save_that_fails_gives_the_key_back(Author, Novel, listen) -> None:
    author = Author(name="U")
    novel = Novel(title="x", author=author)
    author.save()

    def fail(**kwargs: Any) -> None:
        raise Broken

    listen(post_save, fail, sender=Novel)
    with pytest.raises(Broken):
        novel.save()
    assert (novel.id, novel.author_id, novel.author) == (None, None, author)
    post_save.disconnect(fail, sender=Novel)
    assert novel.save().author_id == author.id


def test_a_rollback_takes_the_keys_of_the_whole_graph_back(Author, Novel, undone, stored) -> None:
    author = Author(name="U")
    novel, more = Novel(title="x", author=author), [Novel(title=title, author=author) for title in "yz"]
    with undone():
        author.save()
        novel.save()
        Novel.objects.bulk_create(more)
        assert {each.author_id for each in (novel, *more)} == {author.id}
    assert [each.author_id for each in (novel, *more)] == [None] * 3
    assert all(each.id is None and each.author is author for each in (novel, *more))
    with pytest.raises(UnsavedError):
        novel.save()
    author.save()
    novel.save()
    Novel.objects.bulk_create(more)
    assert stored(Novel, "author_id") == [author.id] * 3


def test_what_has_changed_is_the_key_that_a_save_would_write(Author, Novel, stored, listen) -> None:
    novel = Novel(title="x", author=Author(name="U").save()).save()
    novel.editor = Author(name="E")
    editor = novel.editor.save()
    assert novel.changes() == {"editor": (None, editor.id)}
    heard: list[Any] = []
    listen(pre_save, lambda instance, **kwargs: heard.append(instance.changes()), sender=Novel)
    novel.save(update_fields=novel.changed_fields)
    assert heard == [{"editor": (None, editor.id)}]
    assert (novel.changes(), stored(Novel, "editor_id")) == ({}, [editor.id])


def test_the_database_is_that_of_the_instance_by_the_time_of_the_save(Author, Novel, stored) -> None:
    author = Author(name="U")
    novel, more = Novel(title="x", author=author), [Novel(title="y", author=author)]
    author.save(using="other")
    novel.save()
    Novel.objects.using("other").bulk_create(more)
    assert (novel._state.db, stored(Novel, "title"), stored(Novel, "title", alias="other")) == (
        "other",
        [],
        ["x", "y"],
    )
    here = Novel(title="z", author=Author(name="H").save()).save()
    here.author = Author(name="V")
    here.author.save(using="other")
    before = held(here)
    with pytest.raises(
        CrossDatabaseRelation, match=r"^Novel\.author of 'default' cannot refer to Author\(id=2\) of 'other'$"
    ):
        here.save()
    assert (held(here), here._state.db) == (before, "default")


def test_a_row_refers_to_no_instance_of_another_alias_wherever_it_is_written(
    Author, Novel, databases, listen, wire, stored
) -> None:
    """The alias may be chosen after the assignment, by `using=`, a block, or a query; nothing is sent."""
    here = Author(id=5, name="U").save()
    moved, loaded = Author(id=6, name="M"), Novel(title="l", author=here).save()
    loaded.author = moved
    moved.save(using="other")
    other = Novel.objects.using("other")

    def in_block() -> None:
        novel = Novel(title="x", author=here)
        with databases.using("other"):
            novel.save()

    def late() -> None:
        novel = Novel(title="x", author_id=5)
        listen(pre_save, lambda instance, **kwargs: setattr(instance, "author", here), sender=Novel)
        novel.save(using="other")

    writes = {
        "using=": lambda: Novel(title="x", author=here).save(using="other"),
        "block": in_block,
        "bulk_create": lambda: other.bulk_create([Novel(title="x", author=here)]),
        "bulk_update": lambda: Novel.objects.using("default").bulk_update([loaded], ["author"]),
        "moved after the assignment": loaded.save,
        "assigned by a receiver": late,
    }
    for way, write in writes.items():
        with (
            wire.record() as sent,
            pytest.raises(
                CrossDatabaseRelation, match=r"of '\w+' cannot refer to Author\(id=[56]\) of '\w+'"
            ),
        ):
            write()
        assert [each for each in sent if "novel" in each.lower()] == [], way
    assert (stored(Novel, "author_id"), stored(Novel, alias="other")) == ([5], [])


def test_a_row_refers_to_another_alias_where_a_router_allows_it_or_the_save_is_raw(
    Author, Novel, databases, stored
) -> None:
    here = Author(id=5, name="U").save()
    Author(id=5, name="V").save(using="other")
    Novel(title="raw", author=here).save(using="other", raw=True)

    class Copies:
        def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool:
            return {left._state.db, right._state.db} <= {"default", "other"}

    databases.routers = (Copies(),)
    Novel(title="x", author=here).save(using="other")
    Novel.objects.using("other").bulk_create([Novel(title="y", author=here)])
    assert stored(Novel, "title", alias="other") == ["raw", "x", "y"]


def test_a_copy_of_a_row_keeps_the_key_of_the_related_instance_it_was_loaded_with(
    Author, Novel, stored
) -> None:
    Novel(id=3, title="x", author=Author(id=5, name="U").save()).save()
    Author(id=5, name="V").save(using="other")
    novel = Novel.objects.get(id=3)
    assert novel.author.name == "U"
    novel.save(using="other")
    assert stored(Novel, "id", "author_id", alias="other") == [(3, 5)]


def test_a_raw_save_looks_at_no_related_instance(Author, Novel, stored) -> None:
    novel = Novel(title="x", author=Author(name="U").save(), editor=Author(name="E"))
    novel.save(raw=True)
    assert stored(Novel, "editor_id") == [None]
    with pytest.raises(InvalidValue, match=r"Novel\.author"):
        Novel(title="x", author=Author(name="U")).save(raw=True)


def test_what_a_receiver_assigns_is_looked_at_too(Author, Novel, listen, stored) -> None:
    author = Author(name="U").save()
    editor = Author(name="E")
    saves: list[bool] = [False]

    def edit(instance: Any, **kwargs: Any) -> None:
        instance.editor = editor
        if saves[0]:
            editor.save()

    listen(pre_save, edit, sender=Novel)
    novel = Novel(title="x", author=author)
    for write in (novel.save, lambda: Novel.objects.bulk_create([novel], signals="each")):
        with pytest.raises(UnsavedError, match=r"^Novel\.editor: Author\(id=None\) has no key"):
            write()
    assert (novel.id, stored(Novel)) == (None, [])
    saves[0] = True
    Novel(title="x", author=author).save()
    assert stored(Novel, "editor_id") == [editor.id]
    pre_save.disconnect(edit, sender=Novel)
    listen(pre_bulk_create, lambda objects, **kwargs: edit(objects[0]), sender=Novel)
    editor = Author(name="F")
    Novel.objects.bulk_create([Novel(title="y", author=author)])
    assert stored(Novel, "editor_id")[1] == editor.id


def test_many_are_all_refused_where_one_is(Author, Novel, wire, told, stored, subtests) -> None:
    for options in ({}, {"signals": "each"}, {"on_conflict": "ignore"}):
        Novel.objects.delete()
        told.clear()
        with subtests.test(options=options):
            check_many_refused(Author, Novel, wire, told, stored, options)


def check_many_refused(Author: Any, Novel: Any, wire: Any, told: Any, stored: Any, options: Any) -> None:
    saved, unsaved = Author(name="U"), Author(name="V")
    novels = [Novel(title=title, author=author) for title, author in (("x", saved), ("y", unsaved))]
    saved.save()
    before = [held(each) for each in novels]
    with wire.record() as sent, pytest.raises(UnsavedError, match=REFUSED) as raised:
        Novel.objects.bulk_create(novels, **options)
    assert raised.value.__notes__ == ["in object 1 of bulk_create()"]
    assert (sent, told, [held(each) for each in novels]) == ([], [], before)
    unsaved.save()
    Novel.objects.bulk_create(novels, **options)
    assert stored(Novel, "author_id") == [saved.id, unsaved.id]
    novels = list(Novel.objects.order_by("id"))
    novels[0].author, novels[1].author = unsaved, Author(name="W")
    with pytest.raises(UnsavedError, match=REFUSED) as raised:
        Novel.objects.bulk_update(novels, ["author"])
    assert raised.value.__notes__ == ["in object 1 of bulk_update()"]
    novels[1].author.save()
    assert Novel.objects.bulk_update(novels, ["author"]) == 2
    assert stored(Novel, "author_id") == [unsaved.id, novels[1].author.id]


def test_a_query_and_its_ends_refuse_an_instance_without_a_key(Author, Novel, wire, told) -> None:
    author, objects = Author(name="U"), Novel.objects
    with wire.record() as sent:
        for ask in (
            lambda: objects.filter(author=author),
            lambda: objects.exclude(author=author),
            lambda: objects.get(author=author),
            lambda: objects.update(author=author),
            lambda: objects.get_or_create(author=author, title="x"),
            lambda: objects.get_or_create({"author": author}, title="x"),
            lambda: objects.update_or_create(author=author, title="x"),
            lambda: objects.update_or_create({"author": author}, title="x"),
            lambda: objects.update_or_create({}, {"author": author}, title="x"),
        ):
            with pytest.raises(UnsavedError, match=NO_KEY):
                ask()
        with pytest.raises(UnsavedError, match=REFUSED):
            objects.create(author=author, title="x")
        with pytest.raises(
            UnsavedError, match=r"^Author\.novels: Novel\(id=None\) has no key; save it first$"
        ):
            Author.objects.filter(novels=Novel(title="x", author=author))
        with pytest.raises(UnsavedError, match=r"^Author\.novels: Author\(id=None\) has no key yet; save it"):
            author.novels.all()
    assert (sent, told) == ([], [])


def test_changes_of_what_is_related_refuse_before_any_sql(
    Author, Novel, registry, wire, told, listen
) -> None:
    author, unsaved = Author(name="U").save(), Author(name="V")
    novel = Novel(title="x", author=author).save()
    Tag = registry.known()["test_unsaved.Tag"]
    tag = Tag(name="t").save()
    told.clear()
    listen(
        m2m_changed,
        lambda signal, **kwargs: told.append(signal),
        sender=registry.known()["test_unsaved.Tagging"],
    )
    other = Novel(title="y", author=unsaved)
    before = held(novel)
    with wire.record() as sent:
        for relate in (
            lambda: author.edited.add(novel, other, bulk=False),
            lambda: author.edited.set([novel, other], bulk=False),
            lambda: author.edited.add(novel, other),
            lambda: author.edited.create(title="y", author=unsaved),
            lambda: author.novels.create(title="y", editor=unsaved),
            lambda: novel.tags.add(tag, Tag(name="n")),
            lambda: novel.tags.set([tag, Tag(name="n")]),
            lambda: novel.tags.remove(Tag(name="n")),
            lambda: novel.tags.add(tag, through_defaults={"by": unsaved}),
            lambda: novel.tags.create(name="n", through_defaults={"by": lambda: unsaved}),
            lambda: other.tags.add(tag),
        ):
            with pytest.raises(UnsavedError):
                relate()
    assert (sent, told, held(novel)) == ([], [], before)
    unsaved.save()
    author.edited.add(novel, other, bulk=False)
    novel.tags.add(tag, through_defaults={"by": unsaved})
    assert (other.author_id, author.edited.count(), novel.tags.all()) == (unsaved.id, 2, [tag])


def test_a_key_that_is_set_later_counts_instead(Author, Novel) -> None:
    author = Author(name="U").save()
    novel = Novel(title="x", author=Author(name="V"))
    novel.author_id = author.id
    assert novel.author == author
    novel.editor = Author(name="E")
    novel.editor = None
    assert novel.save().author == author


@MEMORY
def test_copies_and_pickles_keep_the_unsaved_instance(Author, Novel, monkeypatch) -> None:
    author = Author(name="U")
    novel = Novel(title="x", author=author)
    assert copy.copy(novel).author is author
    for model in (Author, Novel):
        model.__qualname__ = model.__name__
        monkeypatch.setattr(sys.modules[__name__], model.__name__, model, raising=False)
    for twin in (copy.deepcopy(novel), pickle.loads(pickle.dumps(novel))):
        assert twin.author is not author
        twin.author.save()
        assert twin.save().author_id == twin.author.id
    assert author.id is None


@MEMORY
def test_a_prefetch_leaves_the_unsaved_instance(Author, Novel, wire) -> None:
    author = Author(name="U")
    novel = Novel(title="x", author=author, editor=Author(name="E").save())
    twin = copy.copy(novel)
    prefetch([novel, twin], "author.novels", "editor")
    assert novel.author is twin.author is author
    with wire.record() as sent:
        assert novel.editor.name == "E"
    assert sent == []


def test_an_instance_may_wait_for_itself_and_for_a_key_of_its_own(Base, registry, stored) -> None:
    class Node(Base):
        name: Field[str] = field(max_length=9, unique=True)
        parent: ForeignKey["Node | None"] = foreign_key(default=None)
        twin: ForeignKey["Node | None"] = foreign_key(default=None, to_field="name")

    class Token(Model[UUID], registry=registry):
        text: Field[str] = field(max_length=9)

    class Use(Base):
        token: ForeignKey[Token] = foreign_key()

    registry.create_all("default")
    node = Node(name="a")
    node.parent = node
    with pytest.raises(
        UnsavedError, match=r"^Node\.parent: Node\(id=None\) has no key; save it before the Node"
    ):
        node.save()
    node.parent = None
    node.save()
    node.parent = node
    assert node.save().parent_id == node.id
    child = Node(name="b", parent=node, twin=Node(name="c"))
    assert child.twin_id == "c"  # which the other has already
    child.twin.save()
    child.save()
    assert stored(Node, "twin_id") == [None, None, "c"]
    use = Use(token=Token(text="x"))
    assert use.token_id == use.token.id
    with pytest.raises(IntegrityError):
        use.save()
    use.token.save()
    assert use.save().token_id == use.token.id
