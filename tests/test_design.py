"""docs/design.md speaks of the code as it is: whatever it names can be found."""

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "microorm"
PAGE = (ROOT / "docs" / "design.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
SPANS = sorted(set(re.findall(r"`([^`\n]+)`", PROSE)))
FILES = [span for span in SPANS if re.fullmatch(r"[\w/]+(\.py|/)", span)]
DOTTED = [
    span for span in SPANS if re.fullmatch(r"\w+(\.\w+)+", span) and not span.endswith((".py", ".toml"))
]
NAMES = [found[1] for span in SPANS if (found := re.match(r"([A-Za-z_]\w*)(?:\(\)|=.*)?$", span))]
MAX_CORE_LINES = 4_500


def names_in(source: str) -> Iterator[str]:
    """Whatever *source* defines, imports, sets, or takes as an argument."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name


def unknown(names: Iterable[str]) -> set[str]:
    """Those of *names* that nothing in the package or in the example is called, each looked for where its letters are."""
    missing = {*names} - {"microorm"}
    sources = [block for block in BLOCKS if "import" in block]
    sources += [path.read_text() for path in sorted(PACKAGE.rglob("*.py"))]
    for source in sources:
        if any(name in source for name in missing):
            missing.difference_update(names_in(source))
    return missing


def test_the_page_names_enough_to_be_checked() -> None:
    assert (len(FILES) > 20, len(DOTTED) > 40, len(NAMES) > 10) == (True, True, True)


@pytest.mark.parametrize("name", [*FILES, "persistence/save.py"])
def test_a_file_is_there(name: str) -> None:
    assert (PACKAGE / name).exists() or (ROOT / name).exists()


@pytest.mark.parametrize("name", DOTTED)
def test_a_dotted_name_is_found_in_its_module(name: str) -> None:
    parts = name.split(".")
    depth = len(parts)
    while not PACKAGE.joinpath(*parts[:depth]).with_suffix(".py").exists():
        depth -= 1
        assert depth, f"no module of {name}"
    found: object = importlib.import_module(".".join(["microorm", *parts[:depth]]))
    for part in parts[depth:]:
        found = getattr(found, part)


def test_a_single_name_is_one_of_the_package_or_of_the_example() -> None:
    assert unknown([*NAMES, "not_a_name_of_anything"]) == {"not_a_name_of_anything"}


def test_every_room_is_named() -> None:
    rooms = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py", "types.py"}
    rooms |= {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert {room for room in rooms if f"`{room}`" not in PAGE} == set()


def test_the_core_is_an_afternoon() -> None:
    """13 files, in the order in which they are to be read."""
    section = PAGE.partition("## The core\n")[2].partition("\n## ")[0]
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)
    lines = sum(len((PACKAGE / name).read_text().splitlines()) for name in files)
    assert (len(files), lines < MAX_CORE_LINES) == (13, True)
