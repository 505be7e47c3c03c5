"""`microorm show`: a line for each revision, a column for each database."""

from pathlib import Path
from typing import Any

from microorm.migrations import Revision

REVISIONS = [
    Revision("3f00", "first", (), Path("a.py"), {"default": True, "archive": True}),
    Revision("3f2a", "second", ("3f00",), Path("b.py"), {"default": False, "archive": True}),
]


def test_it_marks_what_is_applied(invoke: Any, migrations: Any) -> None:
    migrations.answer = [*REVISIONS, Revision("4a00", "third", ("3f2a",), Path("c.py"), {"default": False})]
    assert invoke("show").stdout == (
        "revision\tmessage\tdefault\tarchive\n"
        "3f00\tfirst\t[x]\t[x]\n"
        "3f2a\tsecond\t[ ]\t[x]\n"
        "4a00\tthird\t[ ]\t\n"
    )


def test_no_revisions_are_no_error(invoke: Any, migrations: Any) -> None:
    migrations.answer = []
    done = invoke("show")
    assert (done.stdout, done.exit_code) == ("no revisions yet\n", 0)
