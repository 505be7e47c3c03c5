"""Source: the text of a module with the models of a database."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import textwrap
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from microorm.migrations.dialects import dialect_name
from microorm.reflection.models import Entry, ModelPlan, Plan
from microorm.reflection.names import quoted
from microorm.reflection.tables import read_tables

WIDTH = 88
_INDENT = "    "
_MICROORM = ("Field", "ForeignKey", "ManyToMany", "Model", "Related", "RelatedOne")
_FUNCTIONS = ("field", "foreign_key", "many_to_many", "related", "types")
_KEYWORDS = ("table", "managed", "read_only")
_HEADER = '''"""The models of an existing database, written by `microorm inspect`. Read and change them as you like."""

from __future__ import annotations
'''
_ENUM_VALUES = '''

def enum_values(members: type[enum.Enum]) -> list[str]:
    """Return what the database stores for the members of an enum."""
    return [str(member.value) for member in members]
'''


def models_source(connection: sa.Connection, tables: Sequence[str] = (), *, managed: bool = True) -> str:
    """Return the source of typed models for *tables* and those that they refer to; for all without *tables*.

    *connection*: to the database. Unless *managed*, the models have `managed=False`, so that migrations leave their
    tables alone. The text is formatted by ruff if that is installed. Raises `ConfigurationError` for a table that the
    database does not have.
    """
    plan = Plan(read_tables(connection, tables), dialect_name(connection.dialect.name), managed=managed)
    blocks = [_enum(enum.name, enum.members) for enum in plan.enums.values()]
    blocks += [_model(model) for model in plan.models.values()]
    body = "".join(f"\n\n{block}" for block in blocks)
    if plan.enums:
        body = _ENUM_VALUES + body
    skipped = "".join(f"\n{_comment(each, '')}" for each in plan.skipped)
    return formatted(f"{_HEADER}{_imports(body)}{skipped}{body}")


def formatted(source: str) -> str:
    """Return *source* as ruff formats it, or as it is if ruff is not installed, in this environment or on the path."""
    if (program := shutil.which("ruff", path=sysconfig.get_path("scripts")) or shutil.which("ruff")) is None:
        return source
    done = subprocess.run(
        [program, "format", "--isolated", "--quiet", "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else source


def _imports(body: str) -> str:
    """Return the import statements for what *body* mentions."""
    standard = []
    if "dt." in body:
        standard.append("import datetime as dt")
    if "enum." in body:
        standard.append("import enum")
    for name, module in (("Decimal", "decimal"), ("Any", "typing"), ("UUID", "uuid")):
        if f"[{name}" in body:
            standard.append(f"from {module} import {name}")
    used = [
        name
        for name in _MICROORM
        if any(each in body for each in (f" {name}[", f"({name}", f"{_INDENT}{name},"))
    ]
    used += [name for name in _FUNCTIONS if f" {name}(" in body or f"={name}." in body]
    ours = f"from microorm import {', '.join(used)}"
    if len(ours) > WIDTH:
        ours = "from microorm import (\n" + "".join(f"{_INDENT}{name},\n" for name in used) + ")"
    others = ["import sqlalchemy as sa"] if "sa." in body else []
    others += [ours] if used else []
    dialects = [name for name in ("mysql", "postgresql", "sqlite") if f"{name}." in body]
    if dialects:
        others.append(f"from sqlalchemy.dialects import {', '.join(dialects)}")
    if "conv(" in body:
        others.append("from sqlalchemy.schema import conv")
    groups = ["\n".join(standard), "\n".join(others)]
    return "".join(f"\n{group}\n" for group in groups if group)


def _enum(name: str, members: Iterable[tuple[str, str]]) -> str:
    lines = [f"{_INDENT}{member} = {quoted(value)}\n" for member, value in members]
    return f"class {name}(enum.Enum):\n" + "".join(lines)


def _model(model: ModelPlan) -> str:
    keywords = [f"{name}={model.keywords[name]}" for name in _KEYWORDS if name in model.keywords]
    base = "Model" if model.id_type in (None, "int") else f"Model[{model.id_type}]"
    head = f"class {model.name}({', '.join([base, *keywords])}):\n"
    if model.arguments or len(head) > WIDTH:
        arguments = "".join(f"{_INDENT * 2}{each},\n" for each in model.arguments)
        extra = [f"table_args=(\n{arguments}{_INDENT})"] if model.arguments else []
        items = "".join(f"{_INDENT}{each},\n" for each in (base, *keywords, *extra))
        head = f"class {model.name}(\n{items}):\n"
    notes = "".join(f"{_comment(each, _INDENT)}\n" for each in model.notes)
    body = "".join(map(_entry, model.entries))
    related = "".join(map(_entry, model.related))
    if not (body or related):
        body = f"{_INDENT}pass\n"
    return head + notes + body + related


def _entry(entry: Entry) -> str:
    note = f"{_comment(entry.note, _INDENT)}\n" if entry.note else ""
    left = f"{_INDENT}{entry.name}: {entry.annotation}"
    arguments = [
        *filter(None, [entry.positional]),
        *(f"{name}={value}" for name, value in entry.options.items()),
    ]
    if not arguments and entry.call == "field":
        return f"{note}{left}\n"
    line = f"{left} = {entry.call}({', '.join(arguments)})\n"
    if len(line) <= WIDTH + 1:
        return note + line
    inner = "".join(f"{_INDENT * 2}{argument},\n" for argument in arguments)
    return f"{note}{left} = {entry.call}(\n{inner}{_INDENT})\n"


def _comment(text: str, indent: str) -> str:
    return "\n".join(
        textwrap.wrap(
            " ".join(text.split()), WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
    )
