"""Names of models in annotations: which model each means where several applications have one of that name."""

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from microorm import Databases, Model, ModelError, Registry

HEAD = """
from microorm import Field, ForeignKey, ManyToMany, Related, field, foreign_key, many_to_many, related
"""
USER = """
class User(Base):
    name: Field[str] = field(max_length=20)
"""
POST = """
class Post(Base):
    author: ForeignKey["User"] = foreign_key()
"""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Databases("sqlite://") as databases:
        yield Registry(databases)


@pytest.fixture
def load(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Return a function that runs source as a module of an application, whose tables are called after it."""

    def load(app: str, source: str, name: str = "models", *, future: bool = False) -> Any:
        module = ModuleType(f"{app}.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)

        class Base(Model, registry=registry, abstract=True):
            pass

        vars(module).update(Base=Base)
        source = re.sub(r"class (\w+)\(Base", rf'class \1(Base, table="{app}_\1"', source)
        exec("from __future__ import annotations\n" * future + HEAD + textwrap.dedent(source), vars(module))
        return module

    return load


def target(module: Any) -> Any:
    return module.Post.__schema__.relations["author"].target


def test_a_later_class_of_the_module_comes_before_those_of_other_applications(load: Any) -> None:
    accounts = load("accounts", USER)
    blog = load("blog", POST + USER)
    assert target(blog) is blog.User is not accounts.User


def test_a_model_of_the_same_application_comes_before_those_of_others(load: Any) -> None:
    load("accounts", USER)
    blog = load("blog", POST)
    people = load("blog", USER, "models.people")
    load("other", USER)
    assert people.User.__schema__.label == "blog.User"
    assert target(blog) is people.User


def test_a_name_that_one_application_has_is_found(load: Any) -> None:
    accounts = load("accounts", USER)
    assert target(load("blog", POST)) is accounts.User
    assert target(load("news", POST.replace('"', ""), future=True)) is accounts.User


def test_a_name_of_two_other_applications_is_refused_with_their_labels(load: Any, registry: Registry) -> None:
    blog = load("blog", POST)
    load("accounts", USER)
    load("staff", USER)
    message = r"^Post\.author: .* 'User' is the name of several models: accounts\.User, staff\.User; write the label"
    with pytest.raises(ModelError, match=message):
        _ = blog.Post.__schema__
    with pytest.raises(ModelError, match=message):
        _ = registry.metadata


def test_a_name_that_was_used_before_its_own_model_was_defined_warns(load: Any) -> None:
    accounts = load("accounts", USER)
    blog = load("blog", POST)
    assert target(blog) is accounts.User
    told = r"^the model 'blog\.User' is defined after the first use of its name: blog\.Post takes it for accounts\.User"
    with pytest.warns(RuntimeWarning, match=told):
        load("blog", USER, "models.people")
    assert target(blog) is accounts.User


def test_a_label_names_one_model_of_several(load: Any) -> None:
    accounts, _ = load("accounts", USER), load("staff", USER)
    assert target(load("blog", POST.replace("User", "accounts.User"))) is accounts.User
    optional = POST.replace('"User"', '"staff.User | None"')
    news = load("news", optional)
    assert target(news).__schema__.label == "staff.User"
    assert news.Post.author_id.nullable


def test_a_label_may_be_of_a_model_that_is_defined_later(load: Any) -> None:
    blog = load("blog", POST.replace("User", "accounts.User"))
    with pytest.raises(ModelError, match="Post: name 'accounts' is not defined"):
        _ = blog.Post.__schema__
    load("accounts", USER.replace("User", "Usher"))
    with pytest.raises(ModelError, match="name 'accounts.User' is not defined; nearest: 'accounts.Usher'"):
        _ = blog.Post.__schema__
    users = load("accounts", USER, "models.users")
    assert target(blog) is users.User


def test_a_label_is_found_where_a_module_has_the_name_of_the_application(load: Any) -> None:
    accounts, _ = load("accounts", USER), load("staff", USER)
    module = ModuleType("accounts")
    vars(module)["Special"] = accounts.User
    sys.modules["staff.models"].accounts = module
    for name, table in (("accounts.User", "one"), ("accounts.Special", "two")):
        source = POST.replace("User", name)
        blog = load(table, "import sys\naccounts = sys.modules['staff.models'].accounts\n" + source)
        assert target(blog) is accounts.User
    with pytest.raises(ModelError, match="module 'sys' has no attribute 'User'"):
        load("three", "import sys\n" + POST.replace("User", "sys.User"))


def test_both_sides_of_a_relation_take_labels(load: Any) -> None:
    load("staff", USER)
    tags = """
    class Tag(Base):
        posts: Related["blog.Post"] = related("tags")
    """
    tag = load("tags", tags).Tag
    load("news", "class Post(Base):\n    text: Field[str]")
    blog = load("blog", 'class Post(Base):\n    tags: ManyToMany["tags.Tag"] = many_to_many()')
    assert blog.Post.__schema__.relations["tags"].target is tag
    assert tag.__schema__.relations["posts"].target is blog.Post


def test_the_other_side_of_an_ambiguous_name_says_which_there_are(load: Any) -> None:
    author = load("blog", 'class Author(Base):\n    posts: Related["Post"] = related("author")').Author
    for app in ("news", "notes"):
        load(app, 'class Post(Base):\n    author: ForeignKey["blog.Author"] = foreign_key()')
    with pytest.raises(ModelError, match=r"^Author\.posts: 'Post' is the name of several models: news\.Post"):
        _ = author.posts


def test_a_through_model_is_named_by_the_same_rules(load: Any) -> None:
    models = """
    class Tag(Base):
        name: Field[str] = field(max_length=20)

    class Post(Base):
        tags: ManyToMany[Tag] = many_to_many(through="{}")

    class Pair(Base):
        post: ForeignKey[Post] = foreign_key()
        tag: ForeignKey[Tag] = foreign_key()
    """
    first = load("first", models.format("Pair"))
    second = load("second", models.format("Pair"))
    third = load("third", models.format("third.Pair"))
    for module in (first, second, third):
        assert module.Post.__schema__.relations["tags"].through is module.Pair
    for name, message in (
        ("Pear", r"Post\.tags: no model is called 'Pear'; nearest: 'Pair'"),
        ("first.Pear", r"Post\.tags: no model is called 'first\.Pear'; nearest: 'first\.Pair'"),
    ):
        wrong = load(f"w{len(name)}", models.format(name))
        with pytest.raises(ModelError, match=message):
            _ = wrong.Post.__schema__.relations["tags"].through
    ambiguous = load("fourth", models[: models.index("class Pair")].format("Pair"))
    with pytest.raises(ModelError, match=r"^Post\.tags: 'Pair' is the name of several models: "):
        _ = ambiguous.Post.__schema__.relations["tags"].through
