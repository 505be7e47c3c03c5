"""`microorm signals` finds every signal, and lists its receivers in the order in which they run."""

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from microorm import Field, Registry, signals
from microorm.cli.signals import find_receivers, find_signals
from microorm.dispatch import Signal
from microorm.signals import ModelSignal, post_save, pre_init, request_started
from tests.programs import Program

pytestmark = pytest.mark.backends("sqlite-memory")

SIGNALS = """
from microorm import Signal, receiver
from microorm.signals import post_save

paid = Signal()


@receiver(post_save, sender="shop.Book", delivery="on_commit")
def tell(**kwargs): ...


@receiver(post_save, sender="shop.Bok", weak=False, dispatch_uid="late")
async def wait(**kwargs): ...


@receiver(paid)
def thank(**kwargs): ...
"""
APPS = """
from microorm.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        from shop import signals
"""
LINES = [
    "signal\treceiver\tsender\twhere\tdelivery\tweak\tdispatch_uid\tasync\toptions",
    "post_save\tshop.signals.tell\tshop.Book\tshop/signals.py:8\ton_commit\tweak\t-\tsync\t-",
    "post_save\tshop.signals.wait\tshop.Bok (waiting)\tshop/signals.py:12\timmediate\tstrong\tlate\tasync\t-",
    "shop.signals.paid\tshop.signals.thank\t*\tshop/signals.py:16\timmediate\tweak\t-\tsync\t-",
]


def first(**kwargs: Any) -> None: ...
def second(**kwargs: Any) -> None: ...
async def later(**kwargs: Any) -> None: ...


@pytest.fixture
def Page(Base: Any) -> Any:
    class Page(Base, app="signals"):
        title: Field[str]

    return Page


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a module with names in it, as if it had been imported."""

    def module(name: str, **names: Any) -> None:
        made = ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)

    return module


def test_the_signals_of_microorm_come_first() -> None:
    known = [name for name in signals.__all__ if isinstance(getattr(signals, name), Signal)]
    assert set(list(find_signals())[: len(known)]) == set(known)


def test_signals_of_other_modules_are_found_once(module: Any) -> None:
    """By the name in a module called `signals`; reading the class of an object that is no signal does nothing."""

    class Trap:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

    paid, sent = Signal(), ModelSignal()
    module("clisignals_a.receivers", paid=paid, trap=Trap(), post_save=post_save)
    module("clisignals_z.signals", paid=paid, sent=sent)
    module("clisignals_b", sent_here=sent)
    found = {name: signal for name, signal in find_signals().items() if "clisignals_" in name}
    assert found == {"clisignals_z.signals.paid": paid, "clisignals_z.signals.sent": sent}


def test_receivers_are_listed_as_they_run(Page: Any, registry: Registry) -> None:
    """Sync before async, and in the order of connection; with all their options."""
    post_save.connect(later, Page)
    post_save.connect(second, Page, delivery="on_commit", dispatch_uid="two", weak=False)
    post_save.connect(first, subclasses=False, skip_raw=True)
    try:
        found = list(find_receivers(registry, "signals.Page"))
        assert [each.receiver.rpartition(".")[2] for each in found] == ["second", "first", "later"]
        assert [each.sender for each in found] == ["signals.Page", None, "signals.Page"]
        assert [each.delivery for each in found] == ["on_commit", "immediate", "immediate"]
        assert [each.is_async for each in found] == [False, False, True]
        assert [each.weak for each in found] == [False, True, True]
        assert [each.dispatch_uid for each in found] == ["two", None, None]
        assert [each.skip_raw for each in found] == [False, True, False]
        assert {each.signal for each in found} == {"post_save"}
        assert (found[0].file, found[0].line) == (__file__, second.__code__.co_firstlineno)
        assert set(found) <= set(find_receivers(registry))
    finally:
        post_save.disconnect(second, Page, dispatch_uid="two")
        post_save.disconnect(first)


def test_receivers_of_an_abstract_base_are_those_of_its_models(
    Base: Any, Page: Any, registry: Registry
) -> None:
    pre_init.connect(first, Base, subclasses=True)
    (found,) = find_receivers(registry, "signals.Page")
    assert (found.signal, found.subclasses, found.sender) == (
        "pre_init",
        True,
        f"{Base.__module__}.{Base.__qualname__}",
    )


def test_receivers_that_wait_for_a_model_are_marked(registry: Registry) -> None:
    post_save.connect(first, "signals.Later", registry=registry)
    try:
        (found,) = find_receivers(registry, "signals.Later")
        assert (found.sender, found.waiting, found.receiver) == ("signals.Later", True, f"{__name__}.first")
        assert found in find_receivers(registry)
    finally:
        assert post_save.disconnect(first, "signals.Later", registry=registry)
    assert list(find_receivers(registry, "signals.Later")) == []


def test_senders_that_are_no_models_have_names(registry: Registry) -> None:
    request_started.connect(first, ModuleType)
    request_started.connect(first, "a string")
    try:
        found = [each.sender for each in find_receivers(registry) if each.signal == "request_started"]
        assert found == ["builtins.module", "'a string'"]
    finally:
        request_started.disconnect(first, ModuleType)
        request_started.disconnect(first, "a string")


@pytest.mark.slow
def test_the_receivers_of_a_project(program: Program) -> None:
    program.write({"shop/signals.py": SIGNALS, "shop/apps.py": APPS})
    command = ("-W", "ignore:no model is labelled 'shop.Bok':RuntimeWarning", "-m", "microorm", "signals")
    assert program.python(*command) == ("\n".join(LINES) + "\n", "", 0)
    out, _, status = program.python(*command, "--model", "shop.Bok", "--json")
    (found,) = json.loads(out)
    assert (found["sender"], found["waiting"], found["dispatch_uid"], status) == ("shop.Bok", True, "late", 0)
    assert found["file"] == str(program.folder / "shop" / "signals.py")


def test_an_unknown_label_is_an_error(invoke: Any, shop: Program) -> None:
    done = invoke("signals", "--model", "shop.Boook")
    line = "microorm: no model is labelled 'shop.Boook'; nearest: 'shop.Book'\n"
    assert (done.stdout, done.stderr, done.exit_code) == ("", line, 1)
    done = invoke("signals", "--model", "shop.Book")
    assert (done.stdout, done.stderr, done.exit_code) == ("no receivers\n", "", 0)


def test_a_label_that_receivers_wait_for_is_suggested(invoke: Any, registry: Registry) -> None:
    post_save.connect(first, "signals.Later", registry=registry)
    try:
        assert invoke("signals", "--model", "signals.Latr").stderr.endswith("; nearest: 'signals.Later'\n")
    finally:
        assert post_save.disconnect(first, "signals.Later", registry=registry)
