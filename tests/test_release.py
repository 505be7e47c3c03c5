"""What is released: the content of both packages, their metadata, the promise of what is public, and what the CI runs."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

import hatch_build
import microorm
from tests.pages import DOCS, blocks
from tests.test_docs import PAGES, TARGETS, program
from tests.test_public_api import LISTED

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
INFO = f"microorm-{microorm.__version__}.dist-info"


def names_in_repository() -> set[str]:
    """The files that git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages, built as `make package` builds them, without the index."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def wheel(dist: Path) -> Path:
    return dist / f"microorm-{microorm.__version__}-py3-none-any.whl"


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"{INFO}/METADATA"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("release")
class TestPackages:
    """One process builds them, once."""

    def test_an_index_takes_both(self, dist: Path) -> None:
        files = sorted(dist.iterdir())
        assert [file.name for file in files] == [
            f"microorm-{microorm.__version__}-py3-none-any.whl",
            f"microorm-{microorm.__version__}.tar.gz",
        ]
        command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"}
        )
        assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout

    def test_the_wheel_has_the_package_and_nothing_else(self, wheel: Path) -> None:
        """`py.typed` and the plugin of pytest; no test, no tool, no example."""
        modules = {name for name in names_in_repository() if name.startswith("microorm/")}
        about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
        with zipfile.ZipFile(wheel) as archive:
            found = set(archive.namelist())
        assert found == modules | {"pytest_microorm.py"} | {f"{INFO}/{name}" for name in about}
        assert "microorm/py.typed" in found
        assert {Path(name).suffix for name in modules} == {".py", ".typed"}

    def test_the_wheel_names_its_command_and_its_plugin(self, wheel: Path) -> None:
        entries = ConfigParser()
        with zipfile.ZipFile(wheel) as archive:
            entries.read_string(archive.read(f"{INFO}/entry_points.txt").decode())
        assert {name: dict(entries[name]) for name in entries.sections()} == {
            "console_scripts": {"microorm": "microorm.cli:main"},
            "pytest11": {"microorm": "pytest_microorm"},
        }

    def test_the_source_distribution_has_the_files_of_the_repository(self, dist: Path) -> None:
        with tarfile.open(dist / f"microorm-{microorm.__version__}.tar.gz") as archive:
            found = {name.partition("/")[2] for name in archive.getnames()}
        assert found - {"PKG-INFO"} == names_in_repository()

    def test_the_readme_of_an_index_has_no_link_that_leads_nowhere(self, wheel: Path) -> None:
        text = metadata(wheel).get_payload()
        assert isinstance(text, str)
        assert "# microorm" in text
        assert "pip install microorm\n" in text
        assert "`microorm[postgres]`" in text
        assert not re.search(r"pip install \.|`\.\[", text)
        assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link] == []

    def test_the_metadata_say_what_pyproject_says(self, wheel: Path) -> None:
        found = metadata(wheel)
        project = PROJECT["project"]
        assert found["Version"] == microorm.__version__
        assert (found["License-Expression"], found["Requires-Python"]) == ("MIT", ">=3.11")
        assert found.get_all("Classifier") == project["classifiers"]
        assert set(found["Keywords"].split(",")) == set(project["keywords"])
        assert set(found.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])

    def test_the_program_of_the_readme_runs_from_the_wheel(self, wheel: Path, tmp_path: Path) -> None:
        """Not from this folder; what microorm needs is that of this Python."""
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / "site")
        script = tmp_path / "readme.py"
        script.write_text(f"{program(ROOT / 'README.md')}\n\nprint(microorm.__file__)\n")
        settings = {"PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(
            [sys.executable, "-W", "error", script.name],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert Path(done.stdout.splitlines()[-1]).is_relative_to(tmp_path / "site")


def test_the_repository_has_no_file_that_was_built() -> None:
    built = {".whl", ".egg", ".pyc", ".so", ".db", ".sqlite3", ".log"}
    assert [name for name in names_in_repository() if Path(name).suffix in built] == []


README = """[![picture](docs/a.svg)](docs/b.md) and [c](docs/c.md#part) and [out](https://example.org/) and [here](#top)"""


def test_links_of_the_readme_lead_to_the_release_once_there_is_a_repository() -> None:
    made = hatch_build.readme_for_index(README, "https://code.example/us/microorm/", "v1.2.3")
    base = "https://code.example/us/microorm"
    assert made == (
        f"[![picture]({base}/raw/v1.2.3/docs/a.svg)]({base}/blob/v1.2.3/docs/b.md) and"
        f" [c]({base}/blob/v1.2.3/docs/c.md#part) and [out](https://example.org/) and [here](#top)"
    )


def test_links_of_the_readme_are_text_as_long_as_there_is_no_repository() -> None:
    made = hatch_build.readme_for_index(README, "", "v1.2.3")
    assert made.split(" and ") == ["", "c", "[out](https://example.org/)", "[here](#top)"]


def test_the_readme_of_an_index_installs_by_the_name() -> None:
    text = "$ python3 -m pip install .\n`.[postgres]`, as in `.[async,postgres]`.\n\nA sentence.\n"
    assert hatch_build.readme_for_index(text, "", "v1.2.3") == (
        "$ python3 -m pip install microorm\n`microorm[postgres]`, as in `microorm[async,postgres]`.\n\nA sentence.\n"
    )


def test_the_addresses_of_the_project_follow_from_the_one_setting() -> None:
    assert hatch_build.addresses("", "v1") == {}
    made = hatch_build.addresses("https://code.example/microorm", "v1")
    assert made.keys() == {"Repository", "Issues", "Documentation", "Changelog"}
    assert made["Changelog"] == "https://code.example/microorm/blob/v1/CHANGELOG.md"
    assert [path for path in hatch_build.PAGES.values() if not (ROOT / path).exists()] == []
    assert set(PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]) == {"repository"}


def test_the_version_of_the_links_is_that_of_the_package() -> None:
    assert hatch_build.version() == microorm.__version__


def table(page: str, heading: str) -> list[str]:
    """The first cells of the table under a heading of a page, without back-quotes."""
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_the_page_of_what_stays_lists_the_public_modules() -> None:
    """All with an `__all__`, but the command line, which is public by its commands, and the files of a listed package."""
    listed = table("docs/stability.md", "What is public")
    rooms = {name for name in LISTED if name.count(".") <= 1} - {"microorm.cli"}
    assert listed == sorted(rooms)


def public_names() -> set[tuple[str, str]]:
    """What the page of what stays promises: modules with names, and the attributes of an instance without `_state`."""
    page = (ROOT / "docs" / "stability.md").read_text()
    beside = page.partition("\n## Public names beside them\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", beside, re.MULTILINE)
    extra = {(of.strip("`"), name) for names, of in rows for name in re.findall(r"`([\w.]+)`", names)}
    modules = table("docs/stability.md", "What is public")
    return extra | {(name, public) for name in modules for public in importlib.import_module(name).__all__}


def used_names(page: Path) -> Iterator[tuple[str, str]]:
    """What the Python of a page imports from the package, and what it reads that begins with `_`."""
    for block in (block for block in blocks(page) if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "microorm":
                yield from ((str(node.module), alias.name) for alias in node.names)
            if isinstance(node, ast.Attribute) and (private := re.search(r"\._[^_].*", ast.unparse(node))):
                yield "each instance", private[0].removeprefix(".")


def test_the_pages_for_users_name_nothing_that_is_not_public() -> None:
    inside = {DOCS / "design.md", DOCS / "generated-code.md", *(DOCS / "decisions").glob("*.md")}
    used = {name for page in PAGES if page not in inside for name in used_names(page)}
    assert ("each instance", "_state.db") in used
    modules = {("microorm", name.partition(".")[2]) for name in table("docs/stability.md", "What is public")}
    assert used - modules - public_names() - {("each instance", "_state")} == set()


def deprecations() -> list[str]:
    """The files of the package that warn of a deprecation."""
    files = (ROOT / "microorm").rglob("*.py")
    return [path.name for path in files if "DeprecationWarning" in path.read_text()]


def test_what_is_deprecated_is_in_the_changelog() -> None:
    page = (ROOT / "docs" / "stability.md").read_text()
    assert ("Nothing is deprecated today." in page) == (not deprecations())
    assert ("### Deprecated" in (ROOT / "CHANGELOG.md").read_text()) == bool(deprecations())


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return loaded


def test_a_workflow_runs_targets_of_the_makefile_and_nothing_else(workflow: dict[str, Any]) -> None:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands
    assert [line for line in commands if not re.fullmatch(r"make [a-z-]+ PYTHON=python", line)] == []
    assert {line.split()[1] for line in commands} - TARGETS == set()
    assert [
        step for step in steps if "run" not in step and not re.fullmatch(r"[\w/-]+@v\d+", step["uses"])
    ] == []


def test_the_ci_checks_each_python_that_is_supported_on_all_databases() -> None:
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"]["check"]
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert check["strategy"]["matrix"]["python"] == named
    assert check["services"].keys() >= {"postgresql", "mariadb"}
    ports = {name: service["ports"] for name, service in check["services"].items()}
    assert ports["postgresql"] == ["5432:5432"]
    assert ports["mariadb"] == ["3306:3306"]
    assert "make check PYTHON=python" in [step.get("run") for step in check["steps"]]


@pytest.mark.parametrize(
    "name", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "CHANGELOG.md"]
)
def test_what_a_host_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_a_template_of_an_issue_has_a_name_and_says_what_it_is_for() -> None:
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
    assert [path.stem for path in templates] == ["bug", "idea"]
    for path in templates:
        _, front, body = path.read_text().split("---\n", 2)
        assert yaml.safe_load(front).keys() == {"name", "about", "labels"}
        assert body.strip()
