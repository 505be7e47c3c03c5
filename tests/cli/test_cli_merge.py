"""`microorm merge` says which file joins the heads."""

from pathlib import Path
from typing import Any


def test_it_names_the_file(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    migrations.answer = tmp_path / "migrations" / "4a00_merge.py"
    assert invoke("merge").stdout == "wrote migrations/4a00_merge.py\n"
    assert migrations.calls[-1] == ("merge", "merge")
    assert invoke("merge", "-m", "prices and names").exit_code == 0
    assert migrations.calls[-1] == ("merge", "prices and names")
