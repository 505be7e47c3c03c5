"""The generated loop calls receivers as the plain one does, whatever the names."""

from typing import Any

import pytest

from microorm import Signal
from microorm.dispatch import signal as calls


@pytest.fixture
def heard() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def signal(heard: list[dict[str, Any]]) -> Signal:
    signal = Signal()
    signal.connect(lambda **named: heard.append(named), weak=False)
    return signal


def test_a_loop_is_made_once_for_its_names_and_kept_by_the_signal(signal: Signal, heard: list[Any]) -> None:
    signal.send(str, left=1, right=2)
    loop = calls.loops["left", "right"]
    assert signal._loop is loop
    other = Signal()
    other.connect(lambda **named: heard.append(named), weak=False)
    other.send(str, left=3, right=4)
    assert other._loop is loop
    assert [(named["left"], named["right"]) for named in heard] == [(1, 2), (3, 4)]


@pytest.mark.parametrize("names", [{}, {"left": 1}, {"right": 2, "left": 1}, {"left": 1, "other": 3}])
def test_other_names_than_those_of_the_last_send_are_seen(
    signal: Signal, heard: list[Any], names: dict[str, int]
) -> None:
    signal.send(str, left=1, right=2)
    signal.send(str, **names)
    assert heard[1] == {"signal": signal, "sender": str, **names}


def test_names_that_cannot_be_spelled_out_are_sent_all_the_same(signal: Signal, heard: list[Any]) -> None:
    signal.send(str, **{"not a name": 1, "class": 2})
    assert heard == [{"signal": signal, "sender": str, "not a name": 1, "class": 2}]
    assert ("not a name", "class") not in calls.loops
