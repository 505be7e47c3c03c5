"""Programs that are forks of one process, which has imported what they need: each starts in a tenth of the time."""

import gc
import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.programs import ROOT, Program

PRELOADED = (
    "alembic.config",
    "microorm.cli",
    "microorm.migrations",
    "psycopg",
    "pymysql",
    "rich.live",
    "rich.progress",
    "rich.table",
    "sqlite3",
)
FILE = "file"


@dataclass
class ForkedProgram(Program):
    """A project in *folder*, and programs run on it as forks; a context manager, which ends their parent."""

    _server: "subprocess.Popen[str]" = field(init=False)

    def __enter__(self) -> "ForkedProgram":
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.forks"],
            cwd=self.folder,
            env=kept | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def python(self, *arguments: str, given: str = "", **environment: str) -> tuple[str, str, int]:
        """Run `python -m …`, `python -c …` or `python ….py`, which is run where it lies: output, errors, exit status."""
        assert not given, "a fork has no input"
        named = (FILE, *arguments) if arguments[0].endswith(".py") else arguments
        (result,) = self.at_once([named], **environment)
        return result

    def at_once(self, programs: Sequence[Sequence[str]], **environment: str) -> list[tuple[str, str, int]]:
        """Run *programs* at once; the exit status is that of a child, negative for a signal."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{json.dumps([programs, environment])}\n")
        self._server.stdin.flush()
        return [tuple(each) for each in json.loads(self._server.stdout.readline())]


def serve() -> None:
    """Run the programs that each line of the input names, and write how they ended."""
    sys.modules["tests.forks"] = sys.modules["__main__"]  # for a program that forks again
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        programs, environment = json.loads(line)
        folder = Path(tempfile.mkdtemp())  # a child leaves by an exception, which must not remove it
        files = [(folder / f"{number}.out", folder / f"{number}.err") for number in range(len(programs))]
        children = [start(*each, environment) for each in zip(programs, files, strict=True)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        results = [
            (out.read_text(), err.read_text(), status)
            for (out, err), status in zip(files, statuses, strict=True)
        ]
        shutil.rmtree(folder)
        sys.stdout.write(f"{json.dumps(results)}\n")
        sys.stdout.flush()


def start(arguments: list[str], files: tuple[Path, Path], environment: dict[str, str]) -> int:
    """Fork a child that runs Python with *arguments*, and writes its output and its errors to *files*."""
    assert sys.__stdout__ is not None
    sys.__stdout__.flush()
    child = os.fork()
    if child == 0:
        sys.stdout = sys.__stdout__
        for number, file in enumerate((os.devnull, *files)):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
        os.environ.update(environment)
        os._exit(
            run(*arguments)
        )  # to take all modules apart, as Python does at its end, costs more than the program
    return child


def run(option: str, program: str, *arguments: str) -> int:
    """Run a module, some code or a file as Python does; return the exit status."""
    sys.argv = [program, *arguments]
    status: Any = 0
    try:
        if option == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        elif option == FILE:
            os.chdir(Path(program).parent)
            sys.path[0] = os.getcwd()
            runpy.run_path(Path(program).name, run_name="__main__")
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        status = error.code or 0
    except BaseException:  # noqa: BLE001 as Python does with an error that is not caught
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve()
