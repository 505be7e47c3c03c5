"""A stream that a fork has copied: the child leaves it alone, and the parent reads on."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a process for each

PROGRAM = """
import gc, os, sys
from microorm import Databases, Field, Model, Registry

databases = Databases(sys.argv[1])
registry = Registry(databases)

class Note(Model, registry=registry):
    number: Field[int]

registry.create_all()
Note.objects.bulk_create([Note(number=number) for number in range(20)])
stream = Note.objects.iterate(chunk=2)
next(stream)
child = os.fork()
if not child:
    del stream
    gc.collect()
    print("child", Note.objects.count(), flush=True)
    databases.close()
    sys.exit()
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print("parent", len(list(stream)), Note.objects.count(), flush=True)
databases.close()
"""


@pytest.mark.backends("postgresql", "mariadb")
def test_a_child_does_not_close_the_stream_of_its_parent(url: str) -> None:
    """Nor does it say a word to the server that still serves the parent."""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, url],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["child 20", "child ended with 0", "parent 19 20"]
