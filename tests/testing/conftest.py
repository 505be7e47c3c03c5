"""Runs of pytest inside this one, with models on two aliases."""

from collections.abc import Callable, Iterator

import pytest

import microorm
from microorm import Registry

MODELS = """
import microorm
from microorm import Field, Model, field, receiver
from microorm.signals import post_save


class Order(Model, app="shop"):
    name: Field[str] = field(max_length=50, unique=True)


class Entry(Model, app="shop"):
    text: Field[str]


@receiver(post_save, sender=Order, delivery="on_commit")
def note(instance, **kwargs):
    Entry(text=instance.name).save(using="archive")
"""
CONFIGURED = 'import microorm\nmicroorm.configure({"default": "sqlite:///shop.db", "archive": "sqlite:///archive.db"})\n'
HEAD = """
import microorm
import pytest
from microorm import atomic
from microorm.signals import post_save
from models import Entry, Order


def rows():
    return Order.objects.count(), Entry.objects.using("archive").count()
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a test module, in order, with the models above, as in a process that has defined no other models."""
    registry = microorm.default_registry
    before = dict(vars(registry))
    vars(registry).clear()
    Registry.__init__(registry)
    pytester.makeini(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:randomly -p no:cacheprovider\n"
    )
    pytester.makepyfile(models=MODELS)

    def run(tests: str, conftest: str = CONFIGURED, *arguments: str) -> pytest.RunResult:
        pytester.makeconftest(conftest)
        pytester.makepyfile(test_shop=HEAD + tests)
        return pytester.runpytest_inprocess("-p", "microorm.testing.plugin", "--strict-markers", *arguments)

    yield run
    microorm.close()
    vars(registry).clear()
    vars(registry).update(before)
