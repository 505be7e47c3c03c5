"""The test module of docs/testing.md, as a user would copy it: it passes alone and under xdist, and fails where the code is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODULE = (ROOT / "docs" / "testing.md").read_text().partition("```python\n")[2].partition("```")[0]
APPLICATION = (
    (ROOT / "docs" / "testing.md")
    .read_text()
    .partition('```python title="test_app.py"\n')[2]
    .partition("```")[0]
)
TESTS = MODULE.count("\ndef test_") + MODULE.count("\nasync def test_")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def run(folder: Path, module: str, *arguments: str) -> tuple[str, list[str]]:
    """Return the output of pytest for *module* in an empty folder, and the names of the tests that have failed."""
    (folder / "test_shop.py").write_text(module)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "microorm.testing.plugin",
        "-rf",
        "--tb=short",
        *arguments,
    ]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=100)
    failed = [
        line.split("::")[1].split()[0] for line in done.stdout.splitlines() if line.startswith("FAILED")
    ]
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout, sorted(failed)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_it_passes_and_touches_no_configured_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert MODULE.startswith("# test_shop.py\n")
    output, failed = run(tmp_path, MODULE, *arguments)
    assert failed == []
    assert f"{TESTS} passed" in output
    assert list(tmp_path.glob("*.db")) == []


def test_the_application_with_a_lifespan_is_tested_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(APPLICATION)
    output, failed = run(tmp_path, MODULE)
    assert failed == []
    assert f"{TESTS + 1} passed" in output
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize(
    ("right", "wrong", "failing", "line"),
    [
        (  # the receiver no longer waits for the commit
            ', delivery="on_commit")',
            ")",
            [
                "test_a_refused_order_leaves_nothing",
                "test_an_order_alone_needs_one_database",
                "test_an_order_is_noted_after_the_commit",
            ],
            "assert entries() == []",
        ),
        (  # a refused order stays
            "    with atomic():\n",
            "    if True:\n",
            ["test_a_refused_order_leaves_nothing"],
            "assert not Order.objects.exists()",
        ),
        (  # an order is saved again
            "        return order\n",
            "        return order.save()\n",
            [
                "test_an_order_is_noted_after_the_commit",
                "test_an_order_is_saved_once",
                "test_the_real_commit_does_the_same",
            ],
            "post_save of Order was sent twice, not once",
        ),
    ],
    ids=["at once", "no block", "twice"],
)
def test_broken_code_fails_in_the_tests_of_it_alone(
    tmp_path: Path, right: str, wrong: str, failing: list[str], line: str
) -> None:
    assert MODULE.count(right) == 1
    output, failed = run(tmp_path, MODULE.replace(right, wrong))
    assert failed == failing
    assert line in output
    assert f"{len(failing)} failed, {TESTS - len(failing)} passed" in output
