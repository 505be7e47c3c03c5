"""Init: the command that writes the folder of the migrations and the sections of pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from microorm.cli.output import display_path
from microorm.cli.program import Invocation
from microorm.errors import ConfigurationError
from microorm.project import DEFAULT_MIGRATIONS, FILE_NAME, read_project, read_tool_table

_NO_APPS = {"tests", "test"}


@click.command()
@click.argument("folder", required=False)
@click.pass_obj
def init(invocation: Invocation, folder: str | None) -> None:
    """Start the migrations of a project.

    Creates FOLDER for the migrations, by default the one configured in [tool.microorm] or else "migrations". Adds the
    sections [tool.microorm] and [tool.alembic] to the pyproject.toml of the working directory, or of --project, unless
    they exist; creates the file if there is none. Packages next to it that have a module named models become its
    applications. Existing files and settings are kept; if a file is in the way, nothing is written.

    \b
    Examples:
      microorm init
      microorm init db/migrations

    \b
    Exit status:
      0  the files were created
      1  a file is in the way, or pyproject.toml cannot be read
    """
    from microorm.migrations import write_environment  # noqa: PLC0415 loads alembic, which `--help` does without

    start = invocation.start or Path.cwd()
    path = (start if start.is_file() else start / FILE_NAME).absolute()
    if not path.parent.is_dir():
        raise ConfigurationError(f"no such folder: {str(path.parent)!r}")
    tool = read_tool_table(path) if path.exists() else {}
    migrations = path.parent / (folder or DEFAULT_MIGRATIONS)
    if "microorm" in tool:
        configured = read_project(path).migrations
        if folder is not None and configured != migrations:
            raise ConfigurationError(
                f"{path}: tool.microorm.migrations: is {display_path(configured)!r}, not {folder!r}"
            )
        migrations = configured
    new = new_sections(path.parent, migrations)
    sections = {name: keys for name, keys in new.items() if name not in tool}
    text = with_sections(path, sections)
    for file in write_environment(migrations):
        click.echo(f"wrote {display_path(file)}")
    if sections:
        path.write_bytes(text)
    for name in ("microorm", "alembic"):
        change = "added [tool.{}] to {}" if name in sections else "kept [tool.{}] in {}"
        click.echo(change.format(name, display_path(path)))
    if apps := sections.get("microorm", {}).get("apps"):
        click.echo(f"applications: {', '.join(apps)}")
    elif "microorm" in sections:
        click.echo("applications: none found; add them to 'apps' in [tool.microorm]")
    click.echo("next: microorm makemigrations -m first")


def new_sections(folder: Path, migrations: Path) -> dict[str, dict[str, Any]]:
    """Return the sections of a new project in *folder*, by their names below `tool`."""
    import tomlkit  # noqa: PLC0415 only this command writes TOML

    apps = find_apps(folder)
    name = apps[0] if apps else "data"
    databases = tomlkit.value(f'{{ default = "sqlite:///{name}.db" }}')
    section = {"apps": apps, "databases": databases}
    location = Path(os.path.relpath(migrations, folder)).as_posix()
    if location != DEFAULT_MIGRATIONS:
        section["migrations"] = location.replace("$", "$$")
    script_location = f"%(here)s/{location.replace('%', '%%')}"
    return {
        "microorm": section,
        "alembic": {"script_location": script_location, "prepend_sys_path": ["%(here)s"]},
    }


def with_sections(path: Path, sections: dict[str, dict[str, Any]]) -> bytes:
    """Return the contents of the TOML file *path* with *sections* added to its table `tool`."""
    import tomlkit  # noqa: PLC0415 only this command writes TOML
    from tomlkit.items import Table  # noqa: PLC0415

    before = path.read_bytes() if path.exists() else b""
    text = before.decode().replace("\r\n", "\n")
    document = tomlkit.parse(text if text.endswith("\n") or not text else f"{text}\n")
    tool = document.setdefault("tool", tomlkit.table(is_super_table=True))
    for name, keys in sections.items():
        tool[name] = keys
        if isinstance(tool[name], Table):  # not if `tool` is an inline table
            tool[name].add(tomlkit.nl())
    text = f"{tomlkit.dumps(document).rstrip()}\n"
    return text.replace("\n", "\r\n" if b"\r\n" in before else "\n").encode()


def find_apps(folder: Path) -> list[str]:
    """Return the packages in *folder* that have a module or package named `models`."""
    return [
        package.name
        for package in sorted(folder.iterdir())
        if package.name.isidentifier() and package.name not in _NO_APPS
        if (package / "__init__.py").is_file()
        if (package / "models.py").is_file() or (package / "models" / "__init__.py").is_file()
    ]
