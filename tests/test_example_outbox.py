"""The example of durable receivers prints what it says it prints, although a process of it crashes."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.outbox.brokers import required
from tests.programs import ROOT, Program


@pytest.mark.slow
@pytest.mark.parametrize("name", ["__main__", "with_faststream", "with_celery"])
def test_the_orders_are_charged_once_and_mailed_in_spite_of_a_crash(tmp_path: Path, name: str) -> None:
    settings = {} if name == "__main__" else {"EXAMPLE_BROKER": required("rabbit"), "C_FORCE_ROOT": "1"}
    program = (ROOT / "examples" / "outbox" / f"{name}.py").read_text()
    _, _, stated = (ast.get_docstring(ast.parse(program), clean=False) or "").partition("prints:\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.outbox.{name}"],
        cwd=tmp_path,
        env=Program(tmp_path).environment() | settings,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (done.stdout, done.stderr, done.returncode) == (textwrap.dedent(stated), "", 0)
