"""Many-to-many relations: changed from either side, and `m2m_changed`."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import (
    CrossDatabaseRelation,
    Field,
    ForeignKey,
    InvalidValue,
    ManyToMany,
    Related,
    Router,
    TransactionError,
    UnsavedError,
    field,
    foreign_key,
    many_to_many,
    muted,
    related,
    through,
)
from microorm.mapping.state import drop_related, keep_related, kept_related
from microorm.relations.through_rows import ThroughRows
from microorm.signals import (
    m2m_changed,
    post_bulk_create,
    post_delete,
    post_init,
    post_save,
    pre_delete,
    pre_save,
)

MEMORY = pytest.mark.backends("sqlite-memory")
THREADS = 8


class Broken(Exception):
    """What the failing receivers raise."""


@pytest.fixture(name="Post")
def post_model(Base: Any, registry: Any) -> Any:
    class Tag(Base):
        name: Field[str] = field(max_length=20, unique=True)
        posts: Related["Post"] = related("tags")

    class Post(Base):
        title: Field[str] = field(max_length=20)
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all()
    return Post


@pytest.fixture(name="Tag")
def tag_model(Post: Any) -> Any:
    return Post.__schema__.relations["tags"].target


@pytest.fixture
def post(Post: Any) -> Any:
    return Post(title="p").save()


@pytest.fixture
def tags(Tag: Any) -> list[Any]:
    return [Tag(name=name).save() for name in "abcd"]


@pytest.fixture(name="Group")
def group_model(Base: Any, registry: Any) -> Any:
    """A relation through a model of its own, which has a third foreign key and lets a pair be there twice."""

    class Person(Base):
        name: Field[str] = field(max_length=20)
        groups: Related["Group"] = related("members")

    class Group(Base):
        name: Field[str] = field(max_length=20)
        members: ManyToMany[Person] = many_to_many(through="Membership", through_fields=("group", "person"))

    class Membership(Base):
        group: ForeignKey[Group] = foreign_key(on_delete="cascade")
        person: ForeignKey[Person] = foreign_key(on_delete="cascade")
        sponsor: ForeignKey[Person | None] = foreign_key(default=None)
        role: Field[str] = field(max_length=20)

    registry.create_all()
    return Group


@pytest.fixture(name="Friend")
def friend_model(Base: Any, registry: Any) -> Any:
    class Friend(Base):
        name: Field[str] = field(max_length=20)
        friends: ManyToMany["Friend"] = many_to_many(symmetrical=True)
        idols: ManyToMany["Friend"] = many_to_many()
        fans: Related["Friend"] = related("idols")

    registry.create_all()
    return Friend


@pytest.fixture
def told(listen: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Returns a list of the signals of a relation, which grows with each: action, reverse, and the keys."""

    def told(relation: Any) -> list[Any]:
        heard: list[Any] = []

        def hear(action: str, *, reverse: bool, pk_set: Any, **kwargs: Any) -> None:
            heard.append((action, reverse, pk_set))

        listen(m2m_changed, hear, sender=through(relation))
        return heard

    return told


@pytest.fixture
def at_once() -> Iterator[Callable[..., None]]:
    """Runs a function in many threads that start together."""
    with ThreadPoolExecutor(THREADS) as pool:

        def at_once(function: Callable[[], Any]) -> None:
            barrier = Barrier(THREADS)

            def run(_: int) -> None:
                barrier.wait()
                function()

            list(pool.map(run, range(THREADS)))

        yield at_once


def pair(action: str, keys: Any, *, reverse: bool = False) -> list[Any]:
    """The two signals of one change."""
    return [(f"pre_{action}", reverse, keys), (f"post_{action}", reverse, keys)]


def verbs(sent: list[str]) -> list[str]:
    return [each.removeprefix("many ").split()[0] for each in sent]


def test_rows_are_added_by_one_statement_where_nobody_listens(Post, post, tags, wire, stored):
    """A pair that is stored already stays as it is."""
    with wire.record() as sent:
        post.tags.add(tags[0], tags[1].id, tags[0])
        post.tags.add(*tags[1:3])
    assert verbs(sent) == ["INSERT", "INSERT"]
    assert post.tags.order_by("name").all() == tags[:3]
    assert tags[2].posts.all() == [post]
    tags[3].posts.add(post, post.id)
    assert [tag.posts.all() for tag in tags] == [[post]] * 4
    assert stored(through(Post.tags), "post_id", "tag_id") == [(post.id, tag.id) for tag in tags]


def test_rows_are_removed_and_cleared_by_one_statement(Post, post, tags, wire):
    post.tags.add(*tags)
    with wire.record() as sent:
        post.tags.remove(tags[0], tags[1].id)
    assert verbs(sent) == ["DELETE"]
    assert post.tags.order_by("name").all() == tags[2:]
    with wire.record() as sent:
        tags[2].posts.clear()
    assert verbs(sent) == ["DELETE"]
    assert post.tags.all() == tags[3:]
    tags[3].posts.remove(post)
    assert post.tags.all() == []


def test_m2m_changed_has_exactly_these_arguments(Post, Tag, post, tags, listen):
    heard: list[dict[str, Any]] = []
    listen(m2m_changed, lambda **kwargs: heard.append(kwargs), sender=through(Post.tags))
    post.tags.add(*tags[:2])
    tags[0].posts.remove(post)
    post.tags.clear()
    always = {"signal": m2m_changed, "sender": through(Post.tags), "using": "default", "raw": False}
    near = always | {"instance": post, "reverse": False, "model": Tag}
    far = always | {"instance": tags[0], "reverse": True, "model": Post}
    both = {tags[0].id, tags[1].id}
    assert heard == [
        near | {"action": "pre_add", "pk_set": both},
        near | {"action": "post_add", "pk_set": both},
        far | {"action": "pre_remove", "pk_set": {post.id}},
        far | {"action": "post_remove", "pk_set": {post.id}},
        near | {"action": "pre_clear", "pk_set": None},
        near | {"action": "post_clear", "pk_set": None},
    ]
    assert all(type(each["pk_set"]) is set for each in heard[:4])


def test_the_keys_told_are_those_added_and_those_asked_to_be_removed(Post, post, tags, told):
    heard = told(Post.tags)
    a, b, c, d = (tag.id for tag in tags)
    post.tags.add()
    post.tags.remove()
    assert heard == []
    post.tags.add(a, b)
    post.tags.add(b, c)
    post.tags.add(a)
    post.tags.remove(c, d)
    post.tags.remove(d)
    post.tags.clear()
    post.tags.clear()
    tags[0].posts.add(post)
    assert heard == [
        *pair("add", {a, b}),
        *pair("add", {c}),
        *pair("add", set()),
        *pair("remove", {c, d}),
        *pair("remove", {d}),
        *pair("clear", None) * 2,
        *pair("add", {post.id}, reverse=True),
    ]


def test_set_removes_then_adds_each_with_its_own_pair(Post, post, tags, told, wire):
    heard = told(Post.tags)
    a, b, c, d = (tag.id for tag in tags)
    post.tags.set([a, tags[1], a])
    post.tags.set([b, c])
    post.tags.set(post.tags)
    post.tags.set({c, d}, clear=True)
    post.tags.set([])
    post.tags.set([])
    post.tags.set([], clear=True)
    assert heard == [
        *pair("add", {a, b}),
        *pair("remove", {a}),
        *pair("add", {c}),
        *pair("clear", None),
        *pair("add", {c, d}),
        *pair("remove", {c, d}),
        *pair("clear", None),
    ]
    tags[1].posts.set([post])
    assert heard[-2:] == pair("add", {post.id}, reverse=True)
    with wire.record() as sent:
        post.tags.set([tags[1]])
    assert verbs(sent) == ["SELECT"]


def test_a_row_is_created_and_related_in_one_transaction(Post, Tag, post, told, listen, stored):
    heard = told(Post.tags)
    tag = post.tags.create(name="new")
    assert (post.tags.all(), heard) == ([tag], pair("add", {tag.id}))
    assert post.tags.get_or_create(name="new") == (tag, False)
    newer, made = post.tags.get_or_create(name="newer")
    assert (made, post.tags.count()) == (True, 2)
    assert newer.posts.create(title="q").tags.all() == [newer]

    def fail(**kwargs: Any) -> None:
        raise Broken

    listen(m2m_changed, fail, sender=through(Post.tags))
    with pytest.raises(Broken):
        post.tags.create(name="newest")
    assert stored(Tag, "name") == ["new", "newer"]


def test_a_receiver_sees_the_rows_of_its_time(Post, post, tags, listen):
    seen = []
    keep_related(post, "tags", (post.id, []))

    def see(action: str, instance: Any, **kwargs: Any) -> None:
        seen.append((action, instance.tags.count()))

    listen(m2m_changed, see, sender=through(Post.tags))
    post.tags.add(*tags)
    post.tags.remove(tags[0])
    assert seen == [("pre_add", 0), ("post_add", 4), ("pre_remove", 4), ("post_remove", 3)]


@MEMORY
def test_what_a_receiver_does_to_its_keys_changes_nothing(Post, post, tags, listen):
    heard = []

    def change(pk_set: Any, **kwargs: Any) -> None:
        heard.append(set(pk_set))
        pk_set.clear()

    listen(m2m_changed, change, sender=through(Post.tags))
    post.tags.add(tags[0])
    assert (heard, post.tags.all()) == ([{tags[0].id}] * 2, tags[:1])


@MEMORY
def test_muted_says_nothing_and_changes_all_the_same(Post, post, tags, told):
    heard = told(Post.tags)
    with muted(m2m_changed, sender=through(Post.tags)):
        post.tags.set(tags)
    assert (heard, post.tags.count()) == ([], 4)


@pytest.mark.parametrize(
    "action", ["pre_add", "post_add", "pre_remove", "post_remove", "pre_clear", "post_clear"]
)
@MEMORY
def test_a_change_is_all_or_nothing(Post, post, tags, listen, databases, action):
    """An error in a receiver undoes all of it, and dooms the caller's block."""
    post.tags.set(tags[:2])
    keep_related(post, "tags", (post.id, tags[:2]))

    def fail(**kwargs: Any) -> None:
        if kwargs["action"] == action:
            raise Broken

    listen(m2m_changed, fail, sender=through(Post.tags))

    def change() -> None:
        post.tags.set(tags[1:3], clear="clear" in action)

    with pytest.raises(Broken):
        change()
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(Broken):
        change()
    assert kept_related(post, "tags") == (post.id, tags[:2])
    drop_related(post, "tags")
    assert post.tags.order_by("name").all() == tags[:2]


@MEMORY
def test_a_receiver_that_hides_an_error_changes_nothing(Post, post, tags, listen, databases):
    told = []

    def hide(action: str, **kwargs: Any) -> None:
        told.append(action)
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    listen(m2m_changed, hide, sender=through(Post.tags))
    with pytest.raises(TransactionError, match="is doomed"):
        post.tags.add(tags[0])
    assert (told, post.tags.all()) == (["pre_add"], [])


def test_what_is_related_comes_back_with_a_rollback(Post, post, tags, undone):
    post.tags.add(tags[0])
    keep_related(post, "tags", (post.id, [tags[0]]))
    keep_related(tags[1], "posts", (tags[1].id, []))
    with undone():
        post.tags.add(tags[1])
        assert kept_related(post, "tags") is None
        assert tags[1].posts.all() == [post]
    assert post.tags.all() == [tags[0]]
    assert tags[1].posts.all() == []
    assert kept_related(post, "tags") is not None
    post.tags.set(tags[2:])
    assert post.tags.order_by("name").all() == tags[2:]


def test_threads_that_add_the_same_pair_leave_one_row(Post, post, tags, at_once, listen, stored):
    at_once(lambda: post.tags.add(tags[0]))
    at_once(lambda: tags[1].posts.add(post))
    listen(m2m_changed, lambda **kwargs: None, sender=through(Post.tags))
    at_once(lambda: Post.objects.get(id=post.id).tags.add(tags[2]))
    assert stored(through(Post.tags), "tag_id") == [tag.id for tag in tags[:3]]


@MEMORY
def test_a_wrong_argument_is_an_error_before_anything_is_sent(Post, Tag, post, tags, wire, told):
    heard = told(Post.tags)
    label = r"Post\.tags"
    with wire.everything() as sent:
        for change in (post.tags.add, post.tags.remove, lambda *given: post.tags.set(given, clear=True)):
            for wrong in (post, None, Tag.id, Tag.name == "a"):
                with pytest.raises(
                    TypeError, match=rf"\(\) of {label} takes instances of Tag, or keys, not "
                ):
                    change(tags[0], wrong)
            for wrong in ("1", True, 1.5, 2**63, [tags[0]], Tag):
                with pytest.raises(InvalidValue, match="Tag"):
                    change(tags[0], wrong)
            with pytest.raises(
                UnsavedError, match=rf"\(\) of {label} needs saved instances; Tag\(id=None\) is not saved"
            ):
                change(tags[0], Tag(name="new"))
        with pytest.raises(TypeError, match="list of instances or keys"):
            post.tags.set("12")
        with pytest.raises(TypeError, match="takes no bulk=: it is a many-to-many relation"):
            post.tags.add(tags[0], bulk=False)
        with pytest.raises(TypeError, match="must be a dictionary of values"):
            post.tags.add(tags[0], through_defaults=[1])
        for name in ("post", "post_id", "tag", "tag_id"):
            with pytest.raises(TypeError, match=rf"through_defaults= of {label} takes no '{name}'"):
                post.tags.add(tags[0], through_defaults={name: 1})
        with pytest.raises(UnsavedError, match="has no key yet"):
            Post(title="x").tags.add(tags[0])
    assert (sent, heard) == ([], [])


def test_a_key_that_no_row_has_is_the_databases_error(Post, post, tags, databases):
    with pytest.raises(IntegrityError):
        post.tags.add(tags[0], 999)
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(IntegrityError):
        post.tags.add(999)
    assert post.tags.all() == []


@MEMORY
def test_a_block_for_reading_changes_nothing(Post, post, tags, databases, told):
    heard = told(Post.tags)
    with databases.atomic(readonly=True), pytest.raises(TransactionError, match="read-only"):
        post.tags.add(tags[0])
    assert heard == []


def test_a_row_of_another_alias_is_refused(Post, Tag, post, tags, stored):
    """The error names both aliases."""
    far = Tag(name="far").save(using="other")
    for change in (
        lambda: post.tags.add(tags[0], far),
        lambda: post.tags.set([far]),
        lambda: far.posts.add(post),
    ):
        with pytest.raises(CrossDatabaseRelation) as raised:
            change()
        assert "'other'" in str(raised.value)
        assert "'default'" in str(raised.value)
    assert stored(through(Post.tags)) == []
    copy = Post(title="copy").save(using="other")
    copy.tags.add(far)
    copy.tags.create(name="further")
    assert stored(Tag, "name", alias="other") == ["far", "further"]
    assert (copy.tags.count(), stored(through(Post.tags))) == (2, [])


def test_the_alias_is_the_write_alias_of_the_through_model(Post, Tag, post, tags, databases, listen, stored):
    """With the instance as a hint; for an alias that was passed no router is asked."""
    for each in (post, *tags):
        each.save(using="other")
        each._state.db = "default"
    asked, heard = [], []

    class Writes(Router):
        def db_for_write(self, model: Any, **hints: Any) -> str:
            asked.append((model, hints.get("instance")))
            return "other"

    listen(m2m_changed, lambda using, **kwargs: heard.append(using), sender=through(Post.tags))
    databases.routers = (Writes(),)
    try:
        post.tags.add(tags[0])
        assert (asked[0], heard) == ((through(Post.tags), post), ["other"] * 2)
    finally:
        databases.routers = ()
    post.tags.using("other").add(tags[1])
    assert stored(through(Post.tags), "tag_id", alias="other") == [tags[0].id, tags[1].id]
    assert stored(through(Post.tags)) == []


def test_rows_between_of_a_model_of_ones_own_are_inserted_and_deleted_as_rows(Group, listen, wire, stored):
    """No signals of a save; those of a delete if there are receivers; other values by through_defaults."""
    Membership, Person = through(Group.members), Group.__schema__.relations["members"].target
    people = [Person(name=name).save() for name in "abc"]
    group = Group(name="g").save()
    heard: list[Any] = []
    for signal in (pre_save, post_save):
        listen(signal, lambda **kwargs: heard.append("save"), sender=Membership)
    listen(post_bulk_create, lambda objects, **kwargs: heard.append(len(objects)), sender=Membership)
    with wire.record() as sent:
        with pytest.raises(TypeError, match="is missing 'role'"):
            group.members.add(people[0])
        with pytest.raises(TypeError, match="no argument 'rolle'"):
            group.members.add(people[0], through_defaults={"rolle": "guest"})
    assert "INSERT" not in verbs(sent)
    group.members.add(*people[:2], through_defaults={"role": lambda: "guest", "sponsor": people[2]})
    people[2].groups.add(group, through_defaults={"role": "owner"})
    group.members.add(*people, through_defaults={"role": "none"})
    assert stored(Membership, "person_id", "role", "sponsor_id") == [
        (people[0].id, "guest", people[2].id),
        (people[1].id, "guest", people[2].id),
        (people[2].id, "owner", None),
    ]
    assert heard == [2, 1]
    for signal in (pre_delete, post_delete):
        listen(signal, lambda instance, **kwargs: heard.append(instance.person_id), sender=Membership)
    group.members.remove(people[0])
    people[1].groups.clear()
    assert heard[2:] == [people[0].id] * 2 + [people[1].id] * 2
    group.members.set(people[:1], through_defaults={"role": "last"})
    assert stored(Membership, "role") == ["last"]
    new = group.members.create(name="d", through_defaults={"role": "new"})
    assert (set(group.members), stored(Membership, "role")) == ({people[0], new}, ["last", "new"])


@MEMORY
def test_a_wrong_default_is_found_before_anything_is_removed(Group, told, databases):
    Person = Group.__schema__.relations["members"].target
    people = [Person(name=name).save() for name in "ab"]
    group = Group(name="g").save()
    group.members.add(people[0], through_defaults={"role": "guest"})
    heard = told(Group.members)
    with databases.atomic():
        for clear in (True, False):
            with pytest.raises(TypeError):
                group.members.set(people[1:], clear=clear)
        with pytest.raises(TypeError, match="is missing 'role'"):
            group.members.create(name="c")
        assert (group.members.all(), Person.objects.count()) == (people[:1], 2)
    assert heard == []


def test_a_symmetrical_relation_goes_both_ways_and_is_told_once(Friend, told, wire, stored):
    a, b, c = (Friend(name=name).save() for name in "abc")
    with wire.record() as sent:
        a.friends.add(b, c, a)
        b.friends.add(a)
    assert verbs(sent) == ["INSERT", "INSERT"]
    assert [set(each.friends.all()) for each in (a, b, c)] == [{a, b, c}, {a}, {a}]
    assert len(stored(through(Friend.friends))) == 5
    heard = told(Friend.friends)
    b.friends.remove(a)
    assert heard == pair("remove", {a.id})
    assert [set(each.friends.all()) for each in (a, b, c)] == [{a, c}, set(), {a}]
    b.friends.set([c])
    assert heard[2:] == pair("add", {c.id})
    assert c.friends.count() == 2
    c.friends.clear()
    assert heard[4:] == pair("clear", None)
    assert stored(through(Friend.friends), "from_friend_id", "to_friend_id") == [(a.id, a.id)]


def test_a_relation_of_a_model_to_itself_has_two_ends(Friend, told):
    """Without symmetrical= the other direction is a relation of its own."""
    heard = told(Friend.idols)
    a, b = (Friend(name=name).save() for name in "ab")
    a.idols.add(b)
    assert ([*a.idols], [*b.idols], [*b.fans], [*a.fans]) == ([b], [], [a], [])
    b.fans.remove(a)
    assert heard == [*pair("add", {b.id}), *pair("remove", {a.id}, reverse=True)]
    assert a.idols.all() == []


def test_a_symmetrical_relation_through_a_model_of_ones_own(Base, registry, stored):
    class Peer(Base):
        name: Field[str] = field(max_length=20)
        peers: ManyToMany["Peer"] = many_to_many(through="Bond", symmetrical=True)

    class Bond(Base):
        left: ForeignKey[Peer] = foreign_key(on_delete="cascade")
        right: ForeignKey[Peer] = foreign_key(on_delete="cascade")
        since: Field[int] = field(default=0)

    registry.create_all()
    a, b, c = (Peer(name=name).save() for name in "abc")
    Bond(left=a, right=b, since=1).save()
    a.peers.add(b, c, a, through_defaults={"since": 2})
    assert sorted(stored(Bond, "left_id", "right_id", "since")) == [
        (a.id, a.id, 2),
        (a.id, b.id, 1),
        (a.id, c.id, 2),
        (b.id, a.id, 2),
        (c.id, a.id, 2),
    ]
    a.peers.set([b])
    assert sorted(stored(Bond, "left_id", "right_id")) == [(a.id, b.id), (b.id, a.id)]


@MEMORY
def test_the_deletion_of_an_end_tells_nothing_of_pairs(Post, post, tags, told):
    post.tags.add(*tags)
    heard = told(Post.tags)
    tags[0].delete()
    post.delete()
    assert heard == []


@MEMORY
@pytest.mark.sync_only("calls without await, on a loop of its own")
def test_an_async_receiver_runs_in_the_same_transaction(Post, post, tags, listen):
    heard = []

    async def hear(action: str, **kwargs: Any) -> None:
        heard.append(action)

    listen(m2m_changed, hear, sender=through(Post.tags))
    post.tags.add(tags[0])
    assert heard == ["pre_add", "post_add"]

    async def on_a_loop() -> None:
        for change in (post.tags.add, post.tags.remove, lambda tag: post.tags.set([tag])):
            with pytest.raises(RuntimeError):
                change(tags[1])

    asyncio.run(on_a_loop())
    assert (heard[2:], post.tags.all()) == ([], tags[:1])


@MEMORY
def test_fixtures_say_that_they_write_raw(Post, post, tags, listen):
    heard = []
    listen(m2m_changed, lambda raw, **kwargs: heard.append(raw), sender=through(Post.tags))
    ThroughRows(post.tags, raw=True).set(tags, clear=False)
    listen(m2m_changed, lambda **kwargs: heard.append("skip"), sender=through(Post.tags), skip_raw=True)
    ThroughRows(post.tags, raw=True).set([], clear=True)
    assert heard == [True] * 4


@pytest.mark.backends("sqlite-file")
@pytest.mark.parametrize("way", ["driver"])  # many rows, which take time
def test_many_keys_go_over_in_parts(Post, Tag, post, told, wire, monkeypatch):
    monkeypatch.setattr("microorm.relations.through_rows.MAX_VALUES", 50)
    number = 130
    tags = Tag.objects.bulk_create([Tag(name=f"t{number}") for number in range(number)])
    heard = told(Post.tags)
    post.tags.add(*tags)
    assert (len(heard), post.tags.count()) == (2, number)
    post.tags.remove(*(tag.id for tag in tags))
    assert (len(heard), post.tags.count()) == (4, 0)


def test_keys_that_are_no_numbers_and_other_fields_referred_to(Base, registry, stored):
    class Code(Base):
        code: Field[str] = field(max_length=10, unique=True)

    class Item(Base):
        name: Field[str] = field(max_length=10, primary_key=True)
        codes: ManyToMany[Code] = many_to_many(through="Coding")

    class Coding(Base):
        item: ForeignKey[Item] = foreign_key(on_delete="cascade")
        code: ForeignKey[Code] = foreign_key(to_field="code", on_delete="cascade")

    registry.create_all()
    item, code = Item(name="i").save(force_insert=True), Code(code="c").save()
    Code(code="d").save()
    item.codes.add(code, "d")
    assert stored(Coding, "item_id", "code_id") == [("i", "c"), ("i", "d")]
    item.codes.remove("d")
    assert item.codes.all() == [code]
    listened: list[Any] = []
    post_init.connect(lambda **kwargs: listened.append(1), sender=Coding, weak=False, dispatch_uid="made")
    item.codes.set([code])
    post_init.disconnect(sender=Coding, dispatch_uid="made")
    assert listened == []
