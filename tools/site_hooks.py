"""Hooks of MkDocs: links to files outside docs/ work in the site as they do in the repository, and folders in the navigation.

A file of the repository that a page links to gets a page below `project/`: Markdown as it is, a program as a block of code.
A folder gets its README; without one, what its `__init__.py` says, and each of its files.
"""

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(\]\()([^)#\s]+)(?=[)#])")
FOLDER = "project"
SHIM = re.compile(r"https://[^\"']+/iframe-worker/shim")
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md")  # the navigation has them
EXAMPLES = "examples"
SHOWN = {".py", ".txt", ".toml"}  # other files of a folder are only named


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace each folder in the navigation by its pages."""
    config.nav = _expanded(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside docs/ that a page links to."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    waiting = [root / name for name in ALWAYS] + list(docs.rglob("*.md"))
    known = set(waiting)
    while waiting:
        source = waiting.pop()
        if docs not in source.parents:
            files.append(File.generated(config, _page_of(source, root), content=_content(source, root)))
        if source.suffix == ".md":
            new = {target for target in _targets(source) if _is_outside(target, root, docs)} - known
            known |= new
            waiting += new
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links that leave docs/, and those of the pages from outside, to where their targets are in the site."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    path = page.file.src_uri
    is_outside = path.startswith(f"{FOLDER}/")
    if is_outside or path.startswith("decisions/"):
        page.meta["search"] = {"boost": 0.3}  # what is for users comes first
    source = root / path.removeprefix(f"{FOLDER}/") if is_outside else docs / path

    def replaced(found: re.Match[str]) -> str:
        target = _shown(source.parent / found[2])
        if ":" in found[2] or not (is_outside or _is_outside(target, root, docs)) or not target.exists():
            return found[0]
        new = target.relative_to(docs).as_posix() if docs in target.parents else _page_of(target, root)
        return found[1] + os.path.relpath(new, Path(path).parent)

    return LINK.sub(replaced, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Mend what the theme has written, in a page."""
    return _mended(output, "../" * page.file.dest_uri.count("/"))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Mend what the theme has written, in the page for an address that does not exist."""
    return _mended(output_content, "/")


def _expanded(nav: Any, docs: Path) -> Any:
    match nav:
        case list():
            return [_expanded(each, docs) for each in nav]
        case dict():
            return {title: _expanded(each, docs) for title, each in nav.items()}
        case str() if nav.endswith("/"):
            return [path.relative_to(docs).as_posix() for path in sorted((docs / nav).glob("*.md"))]
        case _:
            return nav


def _targets(source: Path) -> list[Path]:
    links = [found[2] for found in LINK.finditer(source.read_text())]
    return [_shown(source.parent / link) for link in links if ":" not in link]


def _shown(target: Path) -> Path:
    """Return the file or folder whose page is shown for a link to *target*: for a folder with a README, this."""
    target = Path(os.path.normpath(target))
    readme = target / "README.md"
    return readme if readme.is_file() else target


def _is_outside(target: Path, root: Path, docs: Path) -> bool:
    return target.exists() and root in target.parents and target != docs and docs not in target.parents


def _page_of(source: Path, root: Path) -> str:
    path = f"{FOLDER}/{source.relative_to(root).as_posix()}"
    return f"{path}/index.md" if source.is_dir() else path if source.suffix == ".md" else f"{path}.md"


def _content(source: Path, root: Path) -> str:
    if source.is_dir():
        return _content_of_folder(source)
    if source.suffix == ".md":
        return source.read_text()
    where = f"One of the files of [{source.parent.name}](.).\n\n" if root / EXAMPLES in source.parents else ""
    return f"# `{source.name}`\n\n{where}{_code(source)}"


def _content_of_folder(folder: Path) -> str:
    """What its `__init__.py` says, each file as a block of code, and the names of the others."""
    files = sorted(each for each in folder.iterdir() if not each.name.startswith((".", "__pycache__")))
    about = ""
    if _is_package(folder):
        module = ast.parse((folder / "__init__.py").read_text())
        about = f"{ast.get_docstring(module)}\n\n"
        files = [each for each in files if each.name != "__init__.py" or len(module.body) > 1]
    shown = [each for each in files if each.suffix in SHOWN]
    named = [f"- `{each.name}`\n" for each in files if each not in shown]
    blocks = [f"## `{each.name}`\n\n{_code(each)}\n" for each in shown]
    return f"# {folder.name}\n\n{about}{''.join(blocks)}{''.join(named)}"


def _is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def _code(source: Path) -> str:
    return f"````{source.suffix.removeprefix('.')}\n{source.read_text()}````\n"


def _mended(output: str, up: str) -> str:
    """Take the worker of the search from the site and not from a network, and name the dialog of the search."""
    output = SHIM.sub(f"{up}javascripts/iframe-worker.js", output)
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
