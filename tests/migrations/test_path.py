"""The path of a new user, by whole programs: models, a revision, rows, another revision; and as the README writes it."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forks import ForkedProgram
from tests.programs import ROOT, Program

pytestmark = pytest.mark.slow

FIRST = """
from microorm import Field, ForeignKey, Model, field, foreign_key


class Author(Model):
    name: Field[str] = field(max_length=40)


class Book(Model):
    title: Field[str] = field(max_length=40)
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")


class Event(Model):
    text: Field[str]
"""
SECOND = """
from datetime import date
from decimal import Decimal

from microorm import Field, ForeignKey, Model, field, foreign_key


class Author(Model):
    name: Field[str] = field(max_length=80, index=True)
    born: Field[date | None] = field(default=None)


class Book(Model):
    title: Field[str] = field(max_length=40)
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
    price: Field[Decimal] = field(default=Decimal("9.50"), max_digits=8, decimal_places=2)


class Event(Model):
    text: Field[str]
    level: Field[int] = field(default=1)


class Review(Model):
    book: ForeignKey[Book] = foreign_key(on_delete="cascade")
    text: Field[str]
"""
ROUTERS = """
class Archive:
    def db_for_read(self, model, **hints):
        return "archive" if model.__name__ == "Event" else None

    db_for_write = db_for_read

    def allow_migrate(self, alias, label, model=None, **hints):
        return (alias == "archive") == (label == "shop.Event")
"""
FILL = """
import microorm

microorm.configure_project()

from shop.models import Author, Book, Event

with microorm.atomic():
    ursula = Author(name="Ursula").save()
    for title in ("The Lathe of Heaven", "The Dispossessed"):
        Book(title=title, author=ursula).save()
Event(text="opened").save()
"""
READ = """
import json

import microorm
from sqlalchemy import inspect

project = microorm.configure_project()

from shop.models import Author, Book, Event, Review

tables = {}
for alias in project.databases:
    with microorm.connection(alias) as connection:
        tables[alias] = sorted(inspect(connection).get_table_names())
Review(book=Book.objects.first(), text="good").save()
print(json.dumps({
    "tables": tables,
    "authors": [[author.name, author.born] for author in Author.objects],
    "books": [[book.title, book.author.name, str(book.price)] for book in Book.objects.order_by(Book.id)],
    "events": [[event.text, event.level] for event in Event.objects],
    "reviews": Review.objects.count(),
}))
"""
PYPROJECT = """
[tool.microorm]
apps = ["shop"]
databases = { default = "${SHOP}", archive = "${ARCHIVE}" }
routers = ["shop.routers.Archive"]
"""
FOUND = {
    "tables": {
        "default": ["alembic_version", "author", "book", "review"],
        "archive": ["alembic_version", "event"],
    },
    "authors": [["Ursula", None]],
    "books": [["The Lathe of Heaven", "Ursula", "9.50"], ["The Dispossessed", "Ursula", "9.50"]],
    "events": [["opened", 1]],
    "reviews": 1,
}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """An empty folder."""
    with ForkedProgram(tmp_path) as program:
        yield program


@pytest.mark.backends("postgresql")
def test_two_databases_and_a_router_keep_their_rows_from_revision_to_revision(
    program: Program, url: str, other_url: str
) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        out, err, done = program.run(*arguments, SHOP=url, ARCHIVE=other_url)
        assert (err, done) == ("", status), f"{arguments}: {out}{err}"
        return out

    def python(source: str) -> str:
        out, err, status = program.python("-c", source, SHOP=url, ARCHIVE=other_url)
        assert (err, status) == ("", 0)
        return out

    program.write({"shop/models.py": FIRST, "shop/routers.py": ROUTERS, "pyproject.toml": PYPROJECT})
    run("init")
    assert "wrote" in run("makemigrations", "-m", "first")
    run("migrate")
    python(FILL)
    program.write({"shop/models.py": SECOND})
    assert "the table 'review' is missing" in run("check", status=1)
    run("makemigrations", "-m", "second")
    run("migrate")
    assert run("check") == "models and databases agree\n"
    assert json.loads(python(READ)) == FOUND


def test_the_path_in_the_readme_works_as_it_is_written(program: Program) -> None:
    """Its models, its commands, and the output that the README shows."""
    readme = (ROOT / "README.md").read_text()
    models = re.search(r"^class Author.*?(?=\n\nmicroorm\.)", readme, re.MULTILINE | re.DOTALL)
    section = readme.partition("\n## A project\n")[2].partition("\n## ")[0]
    toml = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    console = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert models
    assert toml
    assert console
    imports = (
        "from datetime import date\nfrom decimal import Decimal\n\n"
        "from microorm import Field, ForeignKey, Model, Related, field, foreign_key, related\n\n\n"
    )
    program.write({"shop/models.py": imports + models[0], "pyproject.toml": '[project]\nname = "shop"\n'})
    commands = [each.partition("\n") for each in console[1].removeprefix("$ ").split("\n$ ")]
    assert len(commands) > 3
    for command, _, shown in commands:
        name, *arguments = shlex.split(command)
        assert name == "microorm"
        out, err, status = program.run(*arguments)
        assert (err, status) == ("", 0), command
        assert shown.strip() in out
    assert toml[1] in (program.folder / "pyproject.toml").read_text()
