"""`microorm signals` on a whole project: the receivers as lines, or as JSON."""

import json
from typing import Any

import pytest

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
    "post_save\tshop.signals.wait\tshop.Bok (waits)\tshop/signals.py:12\timmediate\tstrong\tlate\tasync\t-",
    "shop.signals.paid\tshop.signals.thank\t*\tshop/signals.py:16\timmediate\tweak\t-\tsync\t-",
]


@pytest.fixture
def listening(program: Any) -> Any:
    program.write({"shop/signals.py": SIGNALS, "shop/apps.py": APPS})
    return program


@pytest.mark.slow
def test_the_receivers_of_a_project(listening: Any) -> None:
    assert listening.run("signals") == ("\n".join(LINES) + "\n", "", 0)
    assert listening.run("signals", "--model", "shop.Book")[0].splitlines() == LINES[:2]
    out, _, status = listening.run("signals", "--model", "shop.Bok", "--json")
    (found,) = json.loads(out)
    assert (found["sender"], found["waiting"], found["dispatch_uid"], status) == ("shop.Bok", True, "late", 0)
    assert found["file"] == str(listening.folder / "shop" / "signals.py")


@pytest.mark.slow
def test_a_label_that_nobody_knows_is_told(program: Any) -> None:
    line = "microorm: no model is labelled 'shop.Boook'; nearest: 'shop.Book'\n"
    assert program.run("signals", "--model", "shop.Boook") == ("", line, 1)
    assert program.run("signals") == ("no receivers\n", "", 0)


@pytest.mark.slow
def test_a_models_module_that_raises_is_one_line(program: Any) -> None:
    """Whatever the command; nothing has changed then."""
    program.write({"shop/models.py": "import json\n\njson.loads('[')\n", "migrations/env.py": ""})
    before = program.files()
    place = f"shop.models, {program.folder}/shop/models.py:3"
    for command in (["signals"], ["migrate"], ["makemigrations", "-m", "x"], ["check"], ["shell", "-c", "1"]):
        out, err, status = program.run(*command)
        assert err == f"microorm: {place}: JSONDecodeError: Expecting value: line 1 column 2 (char 1)\n"
        assert (out, status) == ("", 1)
    assert program.files() == before
