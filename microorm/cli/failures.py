"""Failures: an error told in one line, with the place in the project that it comes from."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import walk_tb
from types import FrameType

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from microorm.errors import ConfigurationError, MicroormError, MigrationError
from microorm.project import Project

CODE = "<shell>"
_PACKAGE = Path(__file__).parent.parent


def failure_text(error: BaseException, project: Project | None) -> str:
    """What *error* says: where in *project* it was raised, if it was raised there, its class and its message.

    A `MigrationError` may have several lines; anything else has one.
    """
    if isinstance(error, MigrationError):
        return str(error)
    if isinstance(error, ConfigurationError):
        return _line(str(error))
    if isinstance(error, SyntaxError) and error.filename:
        text = f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
        return _line(f"{_module_of(Path(error.filename), project)}{text}")
    place = _place(error, project)
    if isinstance(error, DBAPIError) and error.orig is not None:
        text = str(error.orig)
    else:
        text = str(error)
    if not place:
        if isinstance(error, MicroormError):
            return _line(text)
        if not isinstance(error, (SQLAlchemyError, OSError)):  # what nobody has foreseen
            place = _last_line(error)
    return _line(
        f"{place}{type(error).__name__}: {text}" if text.strip() else f"{place}{type(error).__name__}"
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def _place(error: BaseException, project: Project | None) -> str:
    """The module and line of the project that raised *error* or called what did; nothing for one of no module.

    That env.py calls microorm is known; it counts only where it fails by itself.
    """
    frames = list(walk_tb(error.__traceback__))
    found = ""
    for number, (frame, line) in enumerate(frames, start=1):
        file = Path(frame.f_code.co_filename)
        if file.name == "env.py" and number < len(frames):
            continue
        if frame.f_code.co_filename == CODE or (project is not None and _is_of(file, project)):
            found = f"{_name_of(frame)}{file}:{line}: "
    return found


def _last_line(error: BaseException) -> str:
    frames = list(walk_tb(error.__traceback__))
    return f"{frames[-1][0].f_code.co_filename}:{frames[-1][1]}: " if frames else ""


def _name_of(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return f"{name}, " if isinstance(name, str) and frame.f_code.co_filename != CODE else ""


def _module_of(file: Path, project: Project | None) -> str:
    """The dotted name of a module of *project* that could not even be compiled."""
    if project is None or not _is_of(file, project):
        return ""
    return f"{'.'.join(file.relative_to(project.folder).with_suffix('').parts)}, "


def _is_of(file: Path, project: Project) -> bool:
    """Whether *file* is one of the project's own, not of an environment that happens to be in its folder."""
    if not file.is_relative_to(project.folder) or file.is_relative_to(_PACKAGE):
        return False
    inside = file.relative_to(project.folder).parts
    return not {"site-packages", "dist-packages"} & set(inside) and not file.is_relative_to(sys.prefix)
