"""Applications: how they are found, in which order they are set up, and what their labels do."""

import importlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from microorm import Databases, Field, Model, Registry
from microorm.apps import AppConfig, Apps
from microorm.errors import ConfigurationError, ModelError
from microorm.signals import class_prepared, post_save

CONFIG = """
import world
from microorm.apps import AppConfig

class {cls}(AppConfig):
    name = "{name}"
    {more}

    def ready(self):
        world.log.append("ready {name}")
        {ready}
"""
MODELS = """
import world
from microorm import Field

world.log.append("models " + __package__)

class {model}(world.Base{keywords}):
    title: Field[str]

{more}
"""


@pytest.fixture
def registry() -> Registry:
    """An empty registry whose databases are never used."""
    return Registry(Databases())


@pytest.fixture
def apps(registry: Registry) -> Apps:
    """No application is set up."""
    return Apps(registry)


@pytest.fixture
def world(registry: Registry, apps: Apps, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that the packages of a test import: their base class, and a log of what happened."""

    class Base(Model, registry=registry, abstract=True):
        pass

    world: Any = ModuleType("world")
    world.Base, world.log, world.apps = Base, [], apps
    monkeypatch.setitem(sys.modules, "world", world)
    return world


@pytest.fixture
def write(tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes modules that can be imported, by their dotted names; each folder on the way becomes a package."""
    root = tmp_path / "packages"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is written twice is read twice

    def write(files: dict[str, str]) -> None:
        for name, source in files.items():
            file = root.joinpath(*name.split(".")).with_suffix(".py")
            for folder in reversed(file.relative_to(root).parents[:-1]):
                (root / folder).mkdir(exist_ok=True)
                (root / folder / "__init__.py").touch()
            file.write_text(source)
        importlib.invalidate_caches()

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(root)):
            del sys.modules[name]


def config(name: str, cls: str = "Config", more: str = "", ready: str = "") -> str:
    """An apps.py with one configuration."""
    return CONFIG.format(name=name, cls=cls, more=more, ready=ready)


def models(model: str, more: str = "", keywords: str = "") -> str:
    """A models.py with one model."""
    return MODELS.format(model=model, more=more, keywords=keywords)


@pytest.fixture
def shop(write: Any) -> None:
    """Two applications: `shop` with a configuration and models, `blog` with models alone."""
    write({"shop.apps": config("shop"), "shop.models": models("Book"), "blog.models": models("Post")})


def test_the_phases_follow_each_other(write: Any, world: Any, apps: Apps) -> None:
    """All configurations in order, then all models, then every ready(); the flags turn between the phases."""
    note = "world.log.append((world.apps.apps_ready, world.apps.models_ready, world.apps.ready))"
    for name in ("zoo", "ark"):
        write(
            {
                f"{name}.apps": config(name, ready=note),
                f"{name}.models": models(f"{name.title()}Animal", more=note),
            }
        )
    world.log.append((apps.apps_ready, apps.models_ready, apps.ready))
    apps.setup(["zoo.apps.Config", "ark"])
    world.log.append((apps.apps_ready, apps.models_ready, apps.ready))
    assert world.log == [
        (False, False, False),
        "models zoo",
        (True, False, False),
        "models ark",
        (True, False, False),
        "ready zoo",
        (True, True, False),
        "ready ark",
        (True, True, False),
        (True, True, True),
    ]
    assert list(apps.configs) == ["zoo", "ark"]
    assert repr(apps) == "<Apps 'zoo', 'ark'>"


def test_ready_sees_all_models_and_configurations(write: Any, shop: None, world: Any, apps: Apps) -> None:
    """Those of the applications that come later, too."""
    seen = "world.log.append((list(world.apps.registry.models), list(world.apps.configs)))"
    write({"first.apps": config("first", ready=seen)})
    apps.setup(["first", "shop", "blog"])
    assert world.log[2:4] == ["ready first", (["shop.Book", "blog.Post"], ["first", "shop", "blog"])]


def test_the_same_applications_again_do_nothing(shop: None, world: Any, apps: Apps) -> None:
    """Ready() is called once; other applications than the first time are an error."""
    apps.setup(["shop", "blog"])
    before, configs = list(world.log), dict(apps.configs)
    assert before == ["models shop", "models blog", "ready shop"]
    apps.setup(("shop", "blog"))
    with pytest.raises(ConfigurationError) as caught:
        apps.setup(["shop"])
    assert str(caught.value) == "other applications are set up already: ('shop', 'blog')"
    assert (world.log, apps.configs, apps.ready) == (before, configs, True)


def test_no_application_is_a_set_of_applications(apps: Apps) -> None:
    """A script may have none; it says so once."""
    assert repr(apps) == "<Apps not set up>"
    apps.setup([])
    assert (apps.configs, apps.ready) == ({}, True)


def test_threads_wait_for_the_one_that_sets_up(write: Any, world: Any, apps: Apps) -> None:
    """Each comes back when all is ready, and ready() was called once."""
    world.begun, world.go_on = threading.Event(), threading.Event()
    wait = "world.begun.set(); assert world.go_on.wait(200)".replace("; ", "\n")
    write({"slow.apps": config("slow"), "slow.models": models("Snail", more=wait)})
    errors: list[BaseException] = []

    def set_up() -> None:
        try:
            apps.setup(["slow"])
            world.log.append(f"back, ready: {apps.ready}")
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    threads = [threading.Thread(target=set_up) for _ in range(4)]
    threads[0].start()
    assert world.begun.wait(200)
    for thread in threads[1:]:
        thread.start()
    world.go_on.set()
    for thread in threads:
        thread.join(200)
    assert errors == []
    assert world.log == ["models slow", "ready slow", *["back, ready: True"] * 4]


@pytest.mark.parametrize("place", ["models", "ready"])
def test_setup_inside_setup_is_an_error(write: Any, world: Any, apps: Apps, place: str) -> None:
    """RuntimeError, from wherever an application calls it."""
    call = {"more" if place == "models" else "ready": "world.apps.setup(['loop'])"}
    write(
        {"loop.models": models("Ring", **call)}
        if place == "models"
        else {"loop.apps": config("loop", **call)}
    )
    with pytest.raises(RuntimeError, match=r"^setup\(\) was called by an application that is being set up$"):
        apps.setup(["loop"])
    assert (apps.ready, apps.configs) == (False, {})


def test_a_label_or_a_name_given_twice_is_an_error(write: Any, world: Any, apps: Apps) -> None:
    """Nothing is set up then."""
    write(
        {
            "shop.apps": config("shop", "First") + config("shop", "Second", 'label = "second"'),
            "old.shop.models": models("Book"),
        }
    )
    with pytest.raises(ConfigurationError) as caught:
        apps.setup(["shop.apps.First", "old.shop"])
    assert str(caught.value) == "two applications are labelled 'shop': 'shop' and 'old.shop'"
    with pytest.raises(ConfigurationError) as caught:
        apps.setup(["shop.apps.First", "shop.apps.Second"])
    assert str(caught.value) == "the application 'shop' is listed twice"
    assert (world.log, apps.configs, apps.apps_ready) == ([], {}, False)
    apps.setup(["shop.apps.Second", "old.shop"])
    assert list(apps.configs) == ["second", "shop"]


def test_applications_of_one_registry_do_not_clash_either(write: Any, shop: None, apps: Apps) -> None:
    """Where two sets of applications share their registry, and so their labels."""
    write({"old.shop.models": models("Old")})
    apps.setup(["shop"])
    others = Apps(apps.registry)
    with pytest.raises(ConfigurationError, match=r"^the application 'shop' is listed twice$"):
        others.setup(["shop"])
    with pytest.raises(
        ConfigurationError, match="^two applications are labelled 'shop': 'shop' and 'old.shop'$"
    ):
        others.setup(["old.shop"])
    assert apps.registry.apps == {"shop": "shop"}


@pytest.mark.parametrize("label", ["my shop", "my-shop", "1shop", "shop.books", 7])
def test_a_wrong_label_is_an_error(write: Any, world: Any, apps: Apps, label: object) -> None:
    """A label is an identifier."""
    write({"shop.apps": config("shop", more=f"label = {label!r}")})
    with pytest.raises(ConfigurationError) as caught:
        apps.setup(["shop"])
    assert str(caught.value) == f"the label of 'shop' must be an identifier, not {label!r}"


@pytest.mark.parametrize("name", ["", "my shop", "shop.", ".shop", "shop..books", 7])
def test_a_wrong_name_is_an_error(write: Any, world: Any, apps: Apps, name: object) -> None:
    """A configuration names its package, and does not forget to."""
    write({"shop.apps": config("shop", "Shop", more=f"name = {name!r}")})
    with pytest.raises(ConfigurationError) as caught:
        apps.setup(["shop"])
    assert str(caught.value) == f"the name of Shop must be the dotted path of its package, not {name!r}"


def test_the_label_is_the_last_component_of_the_name_unless_given() -> None:
    """And a plain configuration does nothing when it is ready."""

    class Store(AppConfig):
        name = "company.shop"
        label = "store"

    assert (AppConfig("company.shop").label, Store().label, Store().name) == ("shop", "store", "company.shop")
    assert (repr(AppConfig("company.shop")), repr(Store())) == ("<AppConfig 'shop'>", "<Store 'store'>")
    AppConfig("company.shop").ready()


def test_an_entry_is_a_configuration_or_a_package(write: Any, world: Any, apps: Apps) -> None:
    """A package without apps.py gets a plain configuration; one with it, the one that is defined there."""
    write(
        {
            "elsewhere": config("nowhere", "Imported"),
            "shop.apps": f"from elsewhere import Imported\n{config('shop')}\nAgain = Config\n",
            "two.apps": config("two", "One") + config("two", "Two"),
            "company.blog.models": models("Post"),
            "script": config("script") + models("Note"),
        }
    )
    apps.setup(["shop", "two.apps.Two", "company.blog", "script.Config"])
    assert [(type(each).__name__, each.name) for each in apps.configs.values()] == [
        ("Config", "shop"),
        ("Two", "two"),
        ("AppConfig", "company.blog"),
        ("Config", "script"),
    ]
    assert list(apps.registry.models) == ["script.Note", "blog.Post"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("none", "'none.apps' must define exactly one AppConfig; found: none"),
        ("two", "'two.apps' must define exactly one AppConfig; found: 'One', 'Two'"),
        ("two.apps", "'two.apps' is neither an AppConfig nor a package, but a module"),
        ("script", "'script' is neither an AppConfig nor a package, but a module"),
        ("two.apps.Tow", "'two.apps' has no AppConfig 'Tow'; nearest: 'Two'"),
        ("two.apps.Zebra", "'two.apps' has no AppConfig 'Zebra'"),
        ("none.apps.Thing", "'none.apps.Thing' is a class, but not an AppConfig"),
        ("", "an application must be a dotted path, not ''"),
        (".two", "an application must be a dotted path, not '.two'"),
        ("two/apps", "an application must be a dotted path, not 'two/apps'"),
    ],
)
def test_a_wrong_entry_is_an_error(write: Any, world: Any, apps: Apps, entry: str, message: str) -> None:
    """With what was found instead."""
    two = config("two", "One") + config("two", "Two")
    write({"none.apps": "class Thing: ...", "two.apps": two, "script": ""})
    with pytest.raises(ConfigurationError) as caught:
        apps.setup([entry])
    assert str(caught.value) == message
    assert apps.ready is False


@pytest.mark.parametrize("entries", ["shop", b"shop", None, {"shop"}, iter(["shop"]), [AppConfig], [None]])
def test_entries_are_a_list_of_strings(apps: Apps, entries: Any) -> None:
    """TypeError for a string that is no list, for what has no order, and for what is no string."""
    with pytest.raises(TypeError, match=r"setup\(\) takes a list|must be a dotted path"):
        apps.setup(entries)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, "shop"),
        ({"shop.apps": "import not_there"}, "not_there"),
        ({"shop.models": "import not_there"}, "not_there"),
        ({"shop.models": "from shop import not_there"}, "not_there"),
        ({"shop.models": "import shop.models.not_there"}, "shop.models.not_there"),
        ({"shop.apps": config("not_there")}, "not_there"),
        ({"shop.apps": config("shop", ready="import shop.not_there")}, "shop.not_there"),
        ({"shop.__init__": "import not_there"}, "not_there"),
    ],
    ids=["entry", "apps", "models", "models from", "models in", "name", "ready", "package"],
)
def test_an_import_error_is_not_masked(write: Any, apps: Apps, files: dict[str, str], missing: str) -> None:
    """It is never taken for a module that is not there, wherever it comes from."""
    write(files)
    with pytest.raises(ImportError, match=missing) as caught:
        apps.setup(["shop"])
    assert caught.value.name in (missing, "shop")
    assert caught.value.__cause__ is None


def test_an_error_in_ready_comes_out_and_setup_may_be_called_again(
    write: Any, shop: None, world: Any, apps: Apps
) -> None:
    """As it was before, but for what was imported; the next attempt is a whole one."""
    error = world.error = LookupError("not yet")
    late = config("late", more='label = "last"', ready="if world.error: raise world.error")
    write({"late.apps": late, "late.models": models("Visit")})
    with pytest.raises(LookupError) as caught:
        apps.setup(["shop", "late"])
    assert caught.value is error
    assert (apps.configs, apps.registry.apps) == ({}, {})
    assert (apps.apps_ready, apps.models_ready, apps.ready) == (False, False, False)
    world.error = None
    world.log.clear()
    apps.setup(["shop", "late"])
    assert world.log == ["ready shop", "ready late"]
    assert list(apps.registry.models) == ["shop.Book", "last.Visit"]


def test_a_model_defined_again_in_its_module_takes_the_place(shop: None, apps: Apps) -> None:
    """A reload, with a warning."""
    apps.setup(["shop"])
    module: Any = sys.modules["shop.models"]
    before = module.Book
    with pytest.warns(RuntimeWarning, match="^the model 'shop.Book' is defined again$"):
        importlib.reload(module)
    assert module.Book is not before
    assert apps.registry.models == {"shop.Book": module.Book}


def test_a_model_of_one_label_in_two_modules_is_an_error(write: Any, apps: Apps) -> None:
    """With both modules."""
    write({"shop.models": models("Book", more="import shop.more"), "shop.more": models("Book")})
    with pytest.raises(ModelError) as caught:
        apps.setup(["shop"])
    assert str(caught.value) == "two models are labelled 'shop.Book': in shop.models and in shop.more"


def test_what_waits_for_models_runs_when_they_are_all_there(
    write: Any, shop: None, world: Any, apps: Apps
) -> None:
    """Once, at once if they are there already, and for several models by waiting in turn."""
    registry, seen = apps.registry, world.log

    def both(post: Any) -> None:
        registry.when_defined("shop.Book", lambda book: seen.append((post.__name__, book.__name__)))

    registry.when_defined("blog.Post", both)
    registry.when_defined("shop.Book", lambda book: seen.append(book.__name__))
    apps.setup(["shop", "blog"])
    assert seen == ["models shop", "Book", "models blog", ("Post", "Book"), "ready shop"]
    registry.when_defined("shop.Book", lambda book: seen.append("at once"))
    assert seen[5:] == ["at once"]


def test_a_model_has_the_label_of_the_application_that_holds_it(write: Any, apps: Apps) -> None:
    """The innermost package that is one, unless the class says otherwise."""
    other = "import company.shop.parts.more\nclass Other(world.Base, app='other'):\n    title: Field[str]"
    write(
        {
            "company.shop.apps": config("company.shop", more='label = "store"'),
            "company.shop.models": models("Book", more=other),
            "company.shop.parts.more": models("Part"),
            "company.shop.blog.models": models("Post"),
            "company.shopping.models": models("Bag"),
        }
    )
    apps.setup(["company.shop", "company.shop.blog", "company.shopping"])
    assert apps.registry.apps == {
        "company.shop": "store",
        "company.shop.blog": "blog",
        "company.shopping": "shopping",
    }
    assert sorted(apps.registry.models) == [
        "blog.Post",
        "other.Other",
        "shopping.Bag",
        "store.Book",
        "store.Part",
    ]


def test_a_model_that_came_before_its_label_is_an_error(write: Any, world: Any, apps: Apps) -> None:
    """It could not be found by the label that others use; not so one whose class says its label."""
    for name in ("shop", "blog", "news"):
        write({f"{name}.__init__": f"import {name}.models"})
    write(
        {
            "shop.apps": config("shop", more='label = "store"'),
            "shop.models": models("Book"),
            "blog.models": models("Post"),
            "news.apps": config("news", more='label = "press"'),
            "news.models": models("Item", keywords=', app="own"'),
        }
    )
    with pytest.raises(ConfigurationError) as caught:
        apps.setup(["shop"])
    assert str(caught.value) == "the model 'store.Book' was defined as 'shop.Book', before setup()"
    assert (apps.registry.apps, apps.configs) == ({}, {})
    apps.setup(["blog", "news"])
    assert sorted(apps.registry.models) == ["blog.Post", "own.Item", "shop.Book"]


SIGNALS = """
import world
from microorm import receiver
from microorm.signals import post_save

@receiver(post_save, sender="shop.Book", registry=world.apps.registry)
def count(sender, **kwargs):
    world.log.append(__name__)
"""


def test_receivers_of_a_label_are_connected_by_ready_or_before(
    write: Any, world: Any, apps: Apps, sqlite_url: str
) -> None:
    """At once where the model is there, else when it is defined."""
    write(
        {
            "blog.__init__": "import blog.signals",
            "blog.signals": SIGNALS,
            "shop.apps": config("shop", ready="import shop.signals"),
            "shop.models": models("Book"),
            "shop.signals": SIGNALS,
        }
    )
    others = post_save.receivers  # of models of other tests, which are not collected yet
    apps.setup(["blog", "shop"])
    book: Any = apps.registry.models["shop.Book"]
    connected = [each for each in post_save.receivers if each not in others]
    assert [each.module for each in connected] == ["blog.signals", "shop.signals"]
    assert all(each.sender is book for each in connected)
    apps.registry.databases.configure(sqlite_url)
    apps.registry.create_all()
    world.log.clear()
    book(title="Dune").save()
    apps.registry.databases.close()
    assert world.log == ["blog.signals", "shop.signals"]


@pytest.mark.parametrize("label", ["Book", "shop.", ".Book", "shop.old.Book", "shop Book", ""])
def test_a_sender_that_is_no_label_is_an_error(registry: Registry, label: str) -> None:
    """ValueError, from signals and from the registry."""
    with pytest.raises(ValueError, match="^a label must have the form 'app.Model', not "):
        post_save.connect(print, sender=label, registry=registry)
    with pytest.raises(ValueError, match="^a label must have the form 'app.Model', not "):
        registry.when_defined(label, print)


def test_a_receiver_that_waits_for_a_label_can_be_disconnected(shop: None, world: Any, apps: Apps) -> None:
    """True where it was, then nothing is connected; afterwards as for any model."""
    registry = apps.registry

    def receiver(**kwargs: Any) -> None: ...

    post_save.connect(receiver, sender="shop.Book", registry=registry)
    assert post_save.disconnect(receiver, sender="shop.Book", registry=registry) is True
    assert post_save.disconnect(receiver, sender="shop.Book", registry=registry) is False
    apps.setup(["shop"])
    assert not post_save.has_listeners(registry.models["shop.Book"])
    post_save.connect(receiver, sender="shop.Book", registry=registry)
    assert post_save.has_listeners(registry.models["shop.Book"])
    assert post_save.disconnect(receiver, sender="shop.Book", registry=registry) is True
    assert not post_save.has_listeners(registry.models["shop.Book"])


def test_a_label_means_a_model_of_one_registry(shop: None, apps: Apps) -> None:
    """The default one unless `registry=` says otherwise; a class needs none."""
    other = Registry(Databases())

    class Book(Model, registry=other, app="shop"):
        title: Field[str]

    def receiver(**kwargs: Any) -> None: ...

    apps.setup(["shop"])
    ours: Any = apps.registry.models["shop.Book"]
    post_save.connect(receiver, sender="shop.Book", registry=other)
    assert (post_save.has_listeners(Book), post_save.has_listeners(ours)) == (True, False)
    assert post_save.disconnect(receiver, sender=Book)
    post_save.connect(receiver, sender=ours)
    assert (post_save.has_listeners(Book), post_save.has_listeners(ours)) == (False, True)
    assert post_save.disconnect(receiver, sender="shop.Book", registry=apps.registry)


def test_models_are_prepared_in_the_second_phase(shop: None, world: Any, apps: Apps) -> None:
    """`class_prepared` tells of each, with its label known already."""

    def prepared(sender: Any, **kwargs: Any) -> None:
        world.log.append((sender.__schema__.label, apps.apps_ready, apps.models_ready))

    class_prepared.connect(prepared)
    apps.setup(["shop"])
    assert class_prepared.disconnect(prepared)
    assert world.log == ["models shop", ("shop.Book", True, False), "ready shop"]


POST = """
import world
from microorm import ForeignKey, foreign_key

class Post(world.Base):
    author: ForeignKey["{name}"] = foreign_key()
"""


def test_models_that_wait_for_another_application_are_prepared_before_ready(
    write: Any, world: Any, apps: Apps
) -> None:
    ready = "world.log.append(sorted(world.apps.registry.models))"
    write({"blog.models": POST.format(name="User"), "blog.apps": config("blog", ready=ready)})
    write(
        {
            "accounts.models": models("User"),
            "late.models": POST.replace("Post", "Other").format(name="Nobody"),
        }
    )
    apps.setup(["blog", "accounts", "late"])
    assert world.log == ["models accounts", "ready blog", ["accounts.User", "blog.Post"]]


def test_a_name_that_two_applications_have_is_an_error_of_the_setup(
    write: Any, world: Any, apps: Apps
) -> None:
    write({"blog.models": POST.format(name="User")})
    for name in ("accounts", "staff"):
        write({f"{name}.models": models("User", keywords=f', table="{name}"')})
    with pytest.raises(ModelError, match=r"^Post\.author: .*several models: accounts\.User, staff\.User"):
        apps.setup(["blog", "accounts", "staff"])
    assert not apps.ready


@pytest.mark.slow
def test_the_package_sets_up_the_default_applications(tmp_path: Path) -> None:
    """P: `microorm.setup` is that of the default applications; the module is loaded by its first call."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "models.py").write_text(
        "from microorm import Field, Model\nclass Book(Model):\n    title: Field[str]\n"
    )
    program = """
        import sys
        import microorm

        assert not {"microorm.apps", "microorm.http"} & set(sys.modules)
        microorm.setup(["shop"])
        from microorm.apps import default_apps, setup

        assert default_apps.registry is microorm.default_registry
        assert list(default_apps.configs) == ["shop"]
        assert list(microorm.default_registry.models) == ["shop.Book"]
        setup(["shop"])
    """
    path = os.pathsep.join([str(Path(__file__).parent.parent), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_receiver_of_a_label_that_no_model_has_is_warned_of(write: Any, shop: None, apps: Apps) -> None:
    """When all models are there."""
    write(
        {
            "blog.__init__": "import blog.signals",
            "blog.signals": SIGNALS.replace("shop.Book", "shop.Bok"),
        }
    )
    with pytest.warns(RuntimeWarning) as caught:
        apps.setup(["shop", "blog"])
    assert apps.ready
    [warning] = caught
    text = str(warning.message)
    assert text.startswith("no model is labelled 'shop.Bok', to which blog.signals.count (")
    assert text.endswith(") is connected; nearest: 'shop.Book'")
    assert warning.filename == __file__
