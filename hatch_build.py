"""The metadata that hatchling computes when it builds a package: the README for an index, and the addresses of the project.

A package index shows the README without the files beside it: microorm is installed by its name, and each link has to be
an absolute address. The addresses are made from one setting, `repository` in `[tool.hatch.metadata.hooks.custom]` of pyproject.toml. As long as
it is empty, a link to a file is shown as its text alone, and a picture is left out.
"""

import ast
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parent
PATH = r"\((?P<path>(?![a-z]+:|#)[^()\s]+)\)"
PICTURE = re.compile(r"!\[(?P<text>[^\[\]]*)\]" + PATH)
LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|!\[[^\[\]]*\])*)\]" + PATH)
INSTALLED = re.compile(r"(?<=pip install )\.(?=\n)|(?<=`)\.(?=\[)")
PAGES = {"Documentation": "docs", "Changelog": "CHANGELOG.md"}


def version() -> str:
    """Return `__version__` of the package, which is not imported: what it needs may not be installed."""
    for node in ast.parse((ROOT / "microorm" / "__init__.py").read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str() as found)):
                return found
    raise ValueError("microorm/__init__.py has no __version__")


def readme_for_index(text: str, repository: str, tag: str) -> str:
    """Return the README *text* as an index shows it.

    Its links lead to the files of *tag* in *repository*, or are text if that is empty. microorm is installed by its name.
    """
    base = repository.rstrip("/")
    text = INSTALLED.sub("microorm", text)
    if not base:
        return LINK.sub(r"\g<text>", PICTURE.sub("", text))
    text = PICTURE.sub(rf"![\g<text>]({base}/raw/{tag}/\g<path>)", text)
    return LINK.sub(rf"[\g<text>]({base}/blob/{tag}/\g<path>)", text)


def addresses(repository: str, tag: str) -> dict[str, str]:
    """Return the addresses of the project by their labels; none if *repository* is empty."""
    base = repository.rstrip("/")
    pages = {label: f"{base}/blob/{tag}/{path}" for label, path in PAGES.items()}
    return {"Repository": base, "Issues": f"{base}/issues", **pages} if base else {}


class CustomMetadataHook(MetadataHookInterface):
    """What hatchling calls; it looks for this name."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README and the addresses to *metadata*."""
        repository, tag = self.config["repository"], f"v{version()}"
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": readme_for_index(text, repository, tag),
        }
        metadata["urls"] = addresses(repository, tag)
