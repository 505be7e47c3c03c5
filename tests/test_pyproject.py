"""Where the keys of a pyproject.toml stand, however it is written."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microorm.errors import ConfigurationError
from microorm.pyproject import Pyproject, key_lines

ROOT = Path(__file__).parent.parent

TEXT = '''\
# [not.a.table]
title = "a # no comment ] ="
"quoted \\u00e9" . 'b' = 1

[tool.microorm]   # a comment
apps = [ "one",  # first
  "two",

  'three' ]
text = """
[tool.inside]
apps = 3 \\""" still
"""
raw = \'\'\'
x = 1\'\'\'\'
databases = { default = "sqlite://", "other" = { url = "x", list = [1,
  2] } }
routers.first = 1979-05-27T07:32:00Z

[[tool.many]]
a = 1
[[ tool . many ]]
a = 2
[tool.many.below]
b = -inf
'''


def test_each_key_and_item_has_its_line() -> None:
    lines = key_lines(TEXT)
    assert lines[("title",)] == 2
    assert lines[("quoted é", "b")] == 3
    assert lines[("tool", "microorm")] == 5
    apps = [lines[("tool", "microorm", "apps", *item)] for item in ((), (0,), (1,), (2,))]
    assert apps == [6, 6, 7, 9]
    assert ("tool", "inside") not in lines
    assert lines[("tool", "microorm", "raw")] == 14
    assert lines[("tool", "microorm", "databases", "other", "url")] == 16
    assert lines[("tool", "microorm", "databases", "other", "list", 1)] == 17
    assert lines[("tool", "microorm", "routers", "first")] == 18
    assert lines[("tool", "many", 1, "a")] == 23


def paths(value: Any, above: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """The keys of all that is in *value*."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return {(*above, key) for key, _ in items} | {
        path for key, item in items for path in paths(item, (*above, key))
    }


@pytest.mark.parametrize("name", ["pyproject.toml"])
def test_the_keys_are_those_that_tomllib_finds(name: str) -> None:
    text = (ROOT / name).read_text()
    found = {
        path
        for path in paths(tomllib.loads(text))
        if "post_write_hooks" not in path and "contracts" not in path
    }
    lines = key_lines(text)
    assert len(found) > 100
    assert found - set(lines) == set()
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in text.splitlines()[line - 1]


@given(st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=9), max_size=3), max_size=4))
def test_no_string_leads_the_scanner_astray(tables: dict[str, list[str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'

    text = "\n".join(
        f"{quoted(name)} = [{', '.join(quoted(item) for item in items)}]" for name, items in tables.items()
    )
    lines = key_lines(text)
    assert [lines[(name,)] for name in tables] == list(range(1, len(tables) + 1))
    assert set(lines) == paths(tomllib.loads(text))


def test_a_place_is_that_of_the_innermost_key_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_bytes(b"x = 1\r\n\r\n[tool.microorm]\r\napps = []\r\n")
    pyproject = Pyproject(file)
    assert pyproject.place("tool", "microorm", "apps", 0) == f"{file}:4"
    assert pyproject.place("tool", "microorm", "databases") == f"{file}:3"
    assert pyproject.place("project") == str(file)
    assert pyproject.section("tool", "microorm") == {"apps": []}
    assert pyproject.section("tool", "alembic") is None
    assert pyproject.section("x", "y") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb =\n", r":2: this is not TOML: \w"),
        (b"a = 1\n\nb = [1,\n", r":3: this is not TOML: \w"),
        (b"a = '\xff'\n", r" cannot be read: it is not UTF-8$"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Pyproject(file)
    assert str(caught.value).startswith(str(file))
    with pytest.raises(ConfigurationError, match=r" cannot be read: Is a directory$"):
        Pyproject(tmp_path)
