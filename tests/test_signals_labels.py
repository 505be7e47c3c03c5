"""Labels as senders: asked, muted, and taken over by a model that is defined again."""

import gc
import warnings
import weakref
from typing import Any

import pytest

from microorm import Field, field, muted
from microorm.dispatch import Signal
from microorm.registry import default_registry
from microorm.signals import post_save, pre_save

pytestmark = pytest.mark.backends("sqlite-memory")


class Log:
    """A receiver that keeps the senders it heard."""

    def __init__(self) -> None:
        self.senders: list[Any] = []

    def __call__(self, sender: Any, **kwargs: Any) -> None:
        self.senders.append(sender)


def define(Base: Any, registry: Any) -> Any:
    """The model `shop.Page`, again where it is there already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)

        class Page(Base, app="shop"):
            title: Field[str]

    registry.create_all("default")
    return Page


def test_listeners_are_asked_for_by_label(Base: Any, registry: Any) -> None:
    """Of the model that has the label, or of what waits for it, in that registry."""
    log = Log()
    assert not post_save.has_listeners("shop.Page", registry=registry)
    post_save.connect(log, "shop.Page", registry=registry)
    assert post_save.has_listeners("shop.Page", registry=registry)
    assert not post_save.has_listeners("shop.Pages", registry=registry)
    assert not post_save.has_listeners("shop.Page")
    define(Base, registry)
    assert post_save.has_listeners("shop.Page", registry=registry)
    assert not pre_save.has_listeners("shop.Page", registry=registry)
    assert post_save.disconnect(log, "shop.Page", registry=registry)
    assert not post_save.has_listeners("shop.Page", registry=registry)
    post_save.connect(log)
    assert post_save.has_listeners("shop.Page", registry=registry)
    assert post_save.has_listeners("shop.Nowhere")
    assert post_save.disconnect(log)
    with pytest.raises(ValueError, match="^a label must have the form 'app.Model', not 'Page'$"):
        post_save.has_listeners("Page")


def test_a_label_mutes_its_model(Base: Any, registry: Any) -> None:
    """Also one that is defined in the block only; other models are heard."""
    log = Log()
    post_save.connect(log)
    with muted(post_save, sender="shop.Page"):
        Page = define(Base, registry)

        class Other(Base, app="shop"):
            pass

        registry.create_all("default")
        Page(title="a").save()
        Other().save()
    assert log.senders == [Other]
    Page(title="b").save()
    assert log.senders == [Other, Page]
    assert post_save.disconnect(log)


def test_what_cannot_be_a_sender_is_not_muted_silently(Base: Any, registry: Any) -> None:
    """As `connect` refuses it; a plain signal takes anything."""
    page = define(Base, registry)(title="a")
    with (
        pytest.raises(ValueError, match="^a label must have the form 'app.Model', not 'Page'$"),
        muted(post_save, "Page"),
    ):
        raise AssertionError
    with (
        pytest.raises(TypeError, match="^the sender of a model signal must be a model"),
        muted(post_save, page),
    ):
        raise AssertionError
    plain, log = Signal(), Log()
    plain.connect(log)
    with muted(plain, sender=page):
        plain.send(page)
        plain.send("Page")
    assert log.senders == ["Page"]


@pytest.mark.parametrize("early", [True, False])
def test_a_model_defined_again_keeps_the_receivers_of_its_label(
    Base: Any, registry: Any, early: bool
) -> None:
    """Whether connected before the first definition or after it; disconnected by label, from all of them."""
    log, uid = Log(), Log()
    first = None if early else define(Base, registry)
    post_save.connect(log, "shop.Page", registry=registry, skip_raw=True)
    post_save.connect(uid, "shop.Page", registry=registry, dispatch_uid="uid")
    first = first or define(Base, registry)
    second = define(Base, registry)
    third = define(Base, registry)
    third(title="a").save()
    third(title="b").save(raw=True)
    assert log.senders == [third]
    assert uid.senders == [third, third]
    assert post_save.disconnect(log, "shop.Page", registry=registry) is True
    assert post_save.disconnect(log, "shop.Page", registry=registry) is False
    assert post_save.disconnect(sender="shop.Page", dispatch_uid="uid", registry=registry) is True
    assert not any(post_save.has_listeners(each) for each in (first, second, third))
    assert not post_save.has_listeners(define(Base, registry))


def test_a_connection_ended_by_class_does_not_come_back(Base: Any, registry: Any) -> None:
    """One to the class itself stays with that class; to all senders is another connection."""
    log, to_class = Log(), Log()
    post_save.connect(log, "shop.Page", registry=registry)
    assert post_save.disconnect(log) is False
    first = define(Base, registry)
    post_save.connect(to_class, first)
    assert post_save.has_listeners(first)
    assert post_save.disconnect(log, first) is True
    second = define(Base, registry)
    assert not post_save.has_listeners(second)
    assert post_save.connect(log, "shop.Page", registry=registry) is log
    assert post_save.has_listeners(second)
    assert post_save.disconnect(to_class, first)
    assert post_save.disconnect(log, "shop.Page", registry=registry)


def test_a_label_keeps_no_receiver_alive(Base: Any, registry: Any) -> None:
    """One that ran dies without a warning, and is not connected again."""
    heard: list[Any] = []

    def connect() -> Any:
        def nested(sender: Any, **kwargs: Any) -> None:
            heard.append(sender)

        return post_save.connect(nested, "shop.Page", registry=registry)

    held = connect()
    first = define(Base, registry)
    first(title="a").save()
    del held
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not post_save.has_listeners("shop.Page", registry=registry)
        assert not post_save.has_listeners(first)
    assert not post_save.has_listeners(define(Base, registry))
    assert heard == [first]
    assert "shop.Page" not in default_registry.models


def test_what_waits_for_a_label_can_be_seen(Base: Any, registry: Any) -> None:
    """In order of connection, with all that was asked for, until the label has a model or the receiver is gone."""
    first, second = Log(), Log()
    post_save.connect(
        first, "shop.Page", registry=registry, delivery="on_commit", dispatch_uid="one", skip_raw=True
    )
    post_save.connect(second, "shop.Nowhere", registry=registry, weak=False)
    seen = [(label, known.receiver, known.weak, known.dispatch_uid) for label, known in post_save.waiting]
    assert seen == [("shop.Page", first, True, "one"), ("shop.Nowhere", second, False, None)]
    assert dict(post_save.waiting[0][1].options) == {"delivery": "on_commit", "skip_raw": True}
    assert pre_save.waiting == ()
    page = define(Base, registry)
    assert [label for label, _ in post_save.waiting] == ["shop.Nowhere"]
    assert [known.receiver for known in post_save.receivers if known.sender is page] == [first]
    assert post_save.disconnect(second, "shop.Nowhere", registry=registry)
    post_save.connect(first, "shop.Nowhere", registry=registry)
    del first, seen
    gc.collect()
    assert post_save.waiting == ()


class Shelf:
    """An object whose method is a receiver."""

    def put(self, **kwargs: Any) -> None: ...


def test_dead_receivers_of_a_label_are_dropped(Base: Any, registry: Any) -> None:
    """At the next use of the signal, whether there is such a model or not."""
    define(Base, registry)
    for label in ("shop.Page", "shop.Later"):
        gc.collect()  # else garbage of other tests may have had the same ids
        known = set(post_save._labelled)
        shelves = [Shelf() for _ in range(3)]
        for shelf in shelves:
            post_save.connect(shelf.put, label, registry=registry)
        held = [weakref.ref(each) for key, each in post_save._labelled.items() if key not in known]
        assert len(held) == 3
        del shelves, shelf
        post_save.has_listeners("shop.Page", registry=registry)
        gc.collect()
        assert [each() for each in held] == [None] * 3
        assert all(each.alive for each in post_save._connections.values())
        assert registry._waiting == {}


def test_a_receiver_of_a_label_that_is_defined_again_under_its_uid_wins(Base: Any, registry: Any) -> None:
    """For the model that is there, and for one that replaces it."""
    heard: list[int] = []
    cell = "def note(**kwargs):\n    heard.append(run)"
    names: dict[str, Any] = {"heard": heard, "__name__": "notebook"}
    for run in (1, 2):
        Page = define(Base, registry)
        names["run"] = run
        exec(cell, names)
        post_save.connect(names["note"], "shop.Page", dispatch_uid="uid", registry=registry)
        Page(title="a").save()
    define(Base, registry)(title="b").save()
    assert heard == [1, 2, 2]


def test_the_label_of_an_abstract_model_stands_for_its_models(Base: Any, registry: Any) -> None:
    """Whether it is defined before or after the connection; it is warned of without `subclasses`, as by the class."""
    heard: list[tuple[str, Any]] = []

    def early(sender: Any, **kwargs: Any) -> None:
        heard.append(("early", sender))

    def late(sender: Any, **kwargs: Any) -> None:
        heard.append(("late", sender))

    def exact(sender: Any, **kwargs: Any) -> None:
        heard.append(("exact", sender))

    post_save.connect(early, sender="shop.Dated", subclasses=True, registry=registry)
    assert [label for label, _ in post_save.waiting] == ["shop.Dated"]

    class Dated(Base, abstract=True, app="shop"):
        note: Field[str] = field(default="")

    class Page(Dated):
        pass

    class Other(Base, app="shop"):
        pass

    registry.create_all("default")
    post_save.connect(late, sender="shop.Dated", subclasses=True, registry=registry)
    with pytest.warns(RuntimeWarning, match="will not be called: Dated is abstract and sends no signals"):
        post_save.connect(exact, sender="shop.Dated", registry=registry)
    assert (post_save.waiting, list(post_save.all_waiting(registry))) == ((), [])
    for model in (Page, Other):
        model().save()
    assert heard == [("early", Page), ("late", Page)]
    assert post_save.has_listeners("shop.Dated", registry=registry)
    assert post_save.disconnect(early, sender="shop.Dated", registry=registry)
    assert post_save.disconnect(late, sender=Dated)
    Page().save()
    assert heard[2:] == []
    post_save.disconnect(exact, sender="shop.Dated", registry=registry)
