"""Every signal that can be found, and who listens, in the order in which they run."""

import sys
from types import ModuleType
from typing import Any

import pytest

from microorm import Field, Registry, signals
from microorm.cli.audience import labels_known, listeners, named_signals
from microorm.dispatch import Signal
from microorm.signals import ModelSignal, post_save, pre_init, request_started

pytestmark = pytest.mark.backends("sqlite-memory")


def first(**kwargs: Any) -> None: ...
def second(**kwargs: Any) -> None: ...
async def later(**kwargs: Any) -> None: ...


@pytest.fixture
def Page(Base: Any) -> Any:
    class Page(Base, app="audience"):
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


def test_all_signals_of_microorm_come_first() -> None:
    known = [name for name in signals.__all__ if isinstance(getattr(signals, name), Signal)]
    assert set(list(named_signals())[: len(known)]) == set(known)


def test_signals_of_other_modules_are_found_once(module: Any) -> None:
    """By the name in a module called `signals`; a name that only looks like one is not asked."""

    class Trap:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

    paid, sent = Signal(), ModelSignal()
    module("audience_a.receivers", paid=paid, trap=Trap(), post_save=post_save)
    module("audience_z.signals", paid=paid, sent=sent)
    module("audience_b", sent_here=sent)
    found = {name: signal for name, signal in named_signals().items() if "audience_" in name}
    assert found == {"audience_z.signals.paid": paid, "audience_z.signals.sent": sent}


def test_listeners_stand_as_they_run(Page: Any, registry: Registry) -> None:
    """Sync before async, and in the order of connection; with all that was asked for."""
    post_save.connect(later, Page)
    post_save.connect(second, Page, delivery="on_commit", dispatch_uid="two", weak=False)
    post_save.connect(first, subclasses=False, skip_raw=True)
    try:
        found = listeners(registry, "audience.Page")
        assert [each.receiver.rpartition(".")[2] for each in found] == ["second", "first", "later"]
        assert [each.sender for each in found] == ["audience.Page", None, "audience.Page"]
        assert [each.delivery for each in found] == ["on_commit", "immediate", "immediate"]
        assert [each.is_async for each in found] == [False, False, True]
        assert [each.weak for each in found] == [False, True, True]
        assert [each.dispatch_uid for each in found] == ["two", None, None]
        assert [each.skip_raw for each in found] == [False, True, False]
        assert {each.signal for each in found} == {"post_save"}
        assert (found[0].file, found[0].line) == (__file__, second.__code__.co_firstlineno)
        assert set(found) <= set(listeners(registry))
    finally:
        post_save.disconnect(second, Page, dispatch_uid="two")
        post_save.disconnect(first)


def test_an_abstract_base_tells_of_its_models(Base: Any, Page: Any, registry: Registry) -> None:
    pre_init.connect(first, Base, subclasses=True)
    (found,) = listeners(registry, "audience.Page")
    assert (found.signal, found.subclasses, found.sender) == (
        "pre_init",
        True,
        f"{Base.__module__}.{Base.__qualname__}",
    )


def test_what_waits_is_there_and_marked(registry: Registry) -> None:
    post_save.connect(first, "audience.Later", registry=registry)
    try:
        (found,) = listeners(registry, "audience.Later")
        assert (found.sender, found.waiting, found.receiver) == ("audience.Later", True, f"{__name__}.first")
        assert found in listeners(registry)
        assert "audience.Later" in labels_known(registry)
    finally:
        assert post_save.disconnect(first, "audience.Later", registry=registry)
    with pytest.raises(LookupError, match="audience.Later"):
        listeners(registry, "audience.Later")


def test_senders_that_are_no_models_have_names(registry: Registry) -> None:
    request_started.connect(first, ModuleType)
    request_started.connect(first, "a string")
    try:
        found = [each.sender for each in listeners(registry) if each.signal == "request_started"]
        assert found == ["builtins.module", "'a string'"]
    finally:
        request_started.disconnect(first, ModuleType)
        request_started.disconnect(first, "a string")
