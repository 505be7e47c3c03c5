"""What the tests of reflection share: models made of a database, and what must hold of all of them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Generic
from unittest.mock import patch

import microorm
from microorm import Databases, Registry
from microorm.migrations import Migrations, write_environment
from microorm.model import K
from microorm.reflection import models_source
from tests import checkers

_numbers = count(1)


def source_of(databases: Databases, *tables: str, **options: Any) -> str:
    """The source of the models of the database `default`."""
    with databases.engine("default").connect() as connection:
        return models_source(connection, tables, **options)


@contextmanager
def models_of(source: str, databases: Databases) -> Iterator[Registry]:
    """A registry with the models that *source* defines."""
    registry = Registry(databases)

    class Base(microorm.Model[K], Generic[K], registry=registry, abstract=True):
        pass

    module = ModuleType(f"inspected{next(_numbers)}")
    sys.modules[module.__name__] = module
    try:
        with patch.object(microorm, "Model", Base):
            exec(compile(source, module.__name__, "exec"), vars(module))
        _ = registry.metadata
        yield registry
    finally:
        del sys.modules[module.__name__]


def differences(registry: Registry, folder: Path) -> list[str]:
    """What `microorm check` would say of the database `default`."""
    if not (folder / "migrations").exists():
        write_environment(folder / "migrations")
    found = Migrations(folder / "migrations", registry).compare()
    return [each.text for each in found if each.alias == "default"]


def read_and_write(registry: Registry) -> int:
    """Read each row of each model and all it has, and write one back, which must not change it; return how many."""
    read = 0
    for model in registry.models.values():
        rows = model.objects.all()
        read += len(rows)
        if not rows or model.__schema__.read_only:
            continue
        first = rows[0]
        before = {field.name: getattr(first, field.name) for field in model.__schema__.fields}
        first.save()
        after = model.objects.get(pk=first.pk)
        for name, value in before.items():
            assert getattr(after, name) == value, (model, name, value, getattr(after, name))
        for relation in model.__schema__.relations.values():
            found = getattr(first, relation.name, None)
            if found is not None and hasattr(found, "all"):
                found.all()
    return read


def type_errors(source: str, folder: Path) -> str:
    """What `mypy --strict` says of *source*, and ruff of its form; nothing if all is well."""
    path = folder / "inspected_models.py"
    path.write_text(source)
    said = [checkers.mypy("--no-error-summary", str(path), folder=folder)]
    for command in (
        ["ruff", "format", "--isolated", "--check", "--quiet", str(path)],
        ["ruff", "check", "--isolated", "--quiet", "--select", "E,F,I,UP", "--ignore", "E501", str(path)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, cwd=folder, check=False
        )
        if done.returncode:
            said.append(done.stdout + done.stderr)
    return "".join(said)


def run_script(databases: Databases, script: str) -> None:
    """Run the statements of *script* on the database `default`."""
    with databases.engine("default").begin() as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(
                    statement.replace("%", "%%") if connection.dialect.name != "sqlite" else statement
                )
