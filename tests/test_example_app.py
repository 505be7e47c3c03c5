"""The example of an application runs, prints what it says it prints, and is found by either of its names."""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a process for each

ROOT = Path(__file__).parent.parent


def run(folder: Path, *arguments: str) -> tuple[str, str, int]:
    """Run Python in *folder*, where `microorm` and `examples` can be imported: output, errors, exit status."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    return done.stdout, done.stderr, done.returncode


def test_the_application_prints_what_it_states(tmp_path: Path) -> None:
    """P1, L5: its receivers are connected to labels, by `ready()`; nothing is left behind."""
    program = (ROOT / "examples" / "app" / "__main__.py").read_text()
    _, _, stated = (ast.get_docstring(ast.parse(program), clean=False) or "").partition("Prints:\n")
    assert run(tmp_path, "-m", "examples.app") == (textwrap.dedent(stated), "", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", ["examples.app", "examples.app.apps.LibraryConfig"])
def test_the_application_is_found_by_either_name(entry: str, tmp_path: Path) -> None:
    """P4: by its package and by its configuration."""
    program = f"""
        import microorm
        from microorm.apps import default_apps
        from microorm.signals import post_delete, post_save

        microorm.setup([{entry!r}])
        print(default_apps.configs)
        print(*(connection.qualname for connection in post_save.receivers + post_delete.receivers))
    """
    stated = "ready: app\n{'app': <LibraryConfig 'app'>}\ntake_a_copy remind bring_it_back\n"
    assert run(tmp_path, "-c", textwrap.dedent(program)) == (stated, "", 0)
