"""Reference: the parts of pages that repeat what the command line, and the tests of migrations, say of themselves.

`make docs` runs it; it writes between the two markers of docs/command-line.md and of docs/migrations.md, and nothing else.
"""

import re
from inspect import cleandoc
from pathlib import Path

import click

from microorm.cli import main
from tests.migrations.changes import ALL, CHANGES

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"
BLOCK = "\b\n"
STATUS = re.compile(r" *(\d+)  +(.*)")


def reference() -> str:
    """What each command says in its `--help`, as Markdown."""
    program = click.Context(main, info_name="microorm")
    pages = [section(main, program)]
    for name in main.list_commands(program):
        command = main.get_command(program, name)
        assert command is not None
        pages.append(section(command, click.Context(command, info_name=name, parent=program)))
    return "\n\n".join(pages)


def section(command: click.Command, context: click.Context) -> str:
    """One command: its usage, its text, its options."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## `{context.command_path}`", f"```text\n{usage}\n```", *paragraphs(command.help or "")]
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [record for each in options if (record := each.get_help_record(context))]
    rows = "\n".join(f"| `{names}` | {text} |" for names, text in records)
    return "\n\n".join([*parts, f"| option | meaning |\n|---|---|\n{rows}"])


def paragraphs(text: str) -> list[str]:
    """The text of a `--help`: prose as it is, examples as a console, exit statuses as a table."""
    found = []
    for paragraph in cleandoc(text).split("\n\n"):
        if not paragraph.startswith(BLOCK):
            found.append(paragraph)
            continue
        title, *lines = paragraph.removeprefix(BLOCK).splitlines()
        if title.startswith("Examples"):
            shown = "\n".join(f"$ {line.strip()}" for line in lines)
            found.append(f"```console\n{shown}\n```")
        else:
            statuses = [known for line in lines if (known := STATUS.fullmatch(line))]
            rows = "\n".join(f"| {known[1]} | {known[2]} |" for known in statuses)
            found.append(f"| {title.rstrip(':').lower()} | when |\n|--:|---|\n{rows}")
    return found


def changes() -> str:
    """What becomes of each kind of change, as tests/migrations/test_migrations_changes.py tries it on the databases."""
    rows = [
        [change.title, *("yes" if name in change.seen else "no" for name in ALL), change.note]
        for change in CHANGES
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["| change | SQLite | PostgreSQL | MariaDB | remark |", "|---|---|---|---|---|", *lines])


PAGES = {DOCS / "command-line.md": reference, DOCS / "migrations.md": changes}


def page(path: Path) -> str:
    """The text of the page *path* with its part between the markers as it should be."""
    before, _, rest = path.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{PAGES[path]()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path))
