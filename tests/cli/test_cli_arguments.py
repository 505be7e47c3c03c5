"""A revision may be a number of steps; an option that is not there is no revision."""

from typing import Any

import pytest


@pytest.mark.parametrize("revision", ["-1", "+2", "-12", "head", "base", "3f2a"])
def test_a_revision_goes_through(invoke: Any, migrations: Any, revision: str) -> None:
    migrations.answer = []
    assert invoke("migrate", revision).exit_code == 0
    assert migrations.calls[-1] == ("migrate", revision, None, False)


@pytest.mark.parametrize("option", ["--fakee", "-x", "-1x", "--1"])
def test_an_option_that_is_not_there_is_refused(invoke: Any, migrations: Any, option: str) -> None:
    done = invoke("migrate", option)
    assert done.exit_code == 2
    assert done.stderr.startswith("microorm: no such option")
    assert option in done.stderr
    assert done.stderr.endswith("; 'microorm migrate --help' tells more\n")
    assert migrations.calls == ()
