"""The quick tests by each Python that microorm supports; `make matrix` runs this.

python tools/matrix.py [ARGUMENT ...]: the arguments are for pytest. Each interpreter gets a virtual environment of its own in
`.matrix`. Exits with 1 if the tests fail by one of them, or if none is found.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".matrix"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
QUICK = ("-q", "-m", "not slow", "--hypothesis-profile", "quick", "-n", "auto", "--dist", "worksteal")


def newest(version: str, folder: Path) -> Path | None:
    """Return the Python of pyenv's *folder* that is the newest of *version*, such as 3.12; None if there is none."""
    found = [each for each in folder.glob(f"{version}.*") if (each / "bin" / "python").exists()]
    return max(found, key=patch_level) / "bin" / "python" if found else None


def patch_level(folder: Path) -> tuple[int, ...]:
    """Return the numbers in the name of *folder*, to compare by; 3.14.0rc1 comes after 3.14.0b2."""
    return tuple(map(int, re.findall(r"\d+", folder.name)))


def interpreters(path: str, pyenv: Path) -> dict[str, Path | None]:
    """Return the Python of each version: from the folders of *path*, else from *pyenv*; None if it is not found."""
    found: dict[str, Path | None] = {}
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}", path=path)
        found[version] = (
            Path(on_path) if on_path and works(Path(on_path)) else newest(version, pyenv / "versions")
        )
    return found


def works(python: Path) -> bool:
    """Return whether *python* runs; pyenv has a command for each version, which fails for those that are not chosen."""
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0


def environment(version: str, python: Path) -> Path:
    """Return the Python of the virtual environment for *version*; make it, and install what the tests need, if that is new."""
    folder = FOLDER / version
    own, stamp = folder / "bin" / "python", folder / "installed"
    wanted = (ROOT / "pyproject.toml").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing what the tests need into {folder.relative_to(ROOT)} ...", flush=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", ".[dev]")
        subprocess.run([str(own), *install], cwd=ROOT, check=True)
        stamp.write_text(wanted)
    return own


def main(arguments: list[str]) -> int:
    """Run the tests by each interpreter, and print how they ended."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = interpreters(os.environ.get("PATH", ""), pyenv)
    results: dict[str, str] = {}
    for version, python in found.items():
        if python is None:
            results[version] = "not found"
            continue
        print(f"== Python {version}: {python}", flush=True)
        try:
            own = environment(version, python)
        except subprocess.CalledProcessError:
            results[version] = "not installed"
            continue
        ended = subprocess.run(
            [str(own), "-m", "pytest", *QUICK, *arguments], cwd=ROOT, check=False
        ).returncode
        results[version] = f"failed ({ended})" if ended else "passed"
    print("== matrix")
    for version, result in results.items():
        print(f"Python {version}: {result}")
    return 0 if {"passed"} <= set(results.values()) <= {"passed", "not found"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
