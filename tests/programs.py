"""Programs: a project in a folder of its own, and whole programs run on it, as a user would."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass
class Program:
    """A project in *folder*, and the command line run on it as a whole program."""

    folder: Path

    def write(self, files: dict[str, str]) -> None:
        """Write files, each with the packages that it lies in."""
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.parent != self.folder:
                (file.parent / "__init__.py").touch()
            file.write_text(text)

    def run(self, *arguments: str, given: str = "", **environment: str) -> tuple[str, str, int]:
        """Run `microorm` with *arguments*: output, errors, exit status."""
        return self.python("-m", "microorm", *arguments, given=given, **environment)

    def python(self, *arguments: str, given: str = "", **environment: str) -> tuple[str, str, int]:
        """Run Python with *arguments*, where a warning is an error: output, errors, exit status."""
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.folder,
            env=self.environment() | environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=250,
        )
        return done.stdout, done.stderr, done.returncode

    def environment(self) -> dict[str, str]:
        """The environment of the programs, which find the package and may keep its bytecode."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return kept | {"PYTHONPATH": path}

    def files(self) -> dict[str, bytes]:
        """What is there, but for what Python leaves behind."""
        files = [
            file for file in self.folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
        ]
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}
