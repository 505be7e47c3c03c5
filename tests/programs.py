"""Programs: a project in a folder of its own, and whole programs run on it, as a user would."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def server(self, *arguments: str, **environment: str) -> Iterator[int]:
        """Run Python with *arguments*, a web server on a free port, which it prints; gives the port.

        It is stopped by Ctrl-C at the end of the block, and has to end without a traceback or a warning.
        """
        log = self.folder / "server.log"
        with log.open("wb") as file:
            server = subprocess.Popen(
                [sys.executable, "-W", "error::ResourceWarning", "-X", "dev", "-u", *arguments],
                cwd=self.folder,
                env=self.environment() | environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
                assert server.poll() is None, log.read_text()
                time.sleep(0.02)
            yield int(found[1])
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
        text = log.read_text()
        assert not re.search("Traceback|Warning|never awaited|destroyed", text), text

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
