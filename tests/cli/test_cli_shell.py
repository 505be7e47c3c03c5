"""`microorm shell` has the models by name, runs code, and opens a prompt."""

from typing import Any

import pytest

from microorm import Field, Registry
from microorm.cli.shell import shell_names
from tests.programs import Program

pytestmark = pytest.mark.backends("sqlite-memory")


def test_models_have_their_names_and_clashes_are_reported(Base: Any, registry: Registry) -> None:
    class Page(Base, app="shop"):
        title: Field[str]

    first = Page

    class Page(Base, app="blog", table="blog_page"):  # type: ignore[no-redef]
        title: Field[str]

    class models(Base, app="shop"):
        title: Field[str]

    names, clashes = shell_names(registry)
    assert names["Page"] is first
    assert names["models"] == {"shop.Page": first, "blog.Page": Page, "shop.models": models}
    assert clashes == [
        "Page is shop.Page; the model blog.Page is models['blog.Page']",
        "models is something else; the model shop.models is models['shop.models']",
    ]
    assert names["atomic"] == registry.databases.atomic
    assert set(names) == {"Page", "microorm", "models", "atomic", "connection", "on_commit", "using"}


@pytest.mark.parametrize(
    ("code", "out", "err", "status"),
    [
        ("print(microorm.__name__, models)", "microorm {}\n", "", 0),
        ("x = 1\n1 / 0", "", "microorm: <shell>:2: ZeroDivisionError: division by zero\n", 1),
        ("x = = 1", "", "microorm: <shell>:1: SyntaxError: invalid syntax\n", 1),
        ("import sys; sys.exit(3)", "", "", 3),
    ],
)
def test_code_runs_and_ends_the_program(invoke: Any, code: str, out: str, err: str, status: int) -> None:
    done = invoke("shell", "-c", code)
    assert (done.stdout, done.stderr, done.exit_code) == (out, err, status)


def test_code_has_the_models_and_the_databases(invoke: Any, shop: Program) -> None:
    code = """
for model in models.values():
    with connection() as raw:
        model.__table__.create(raw)
with atomic():
    author = Author(name="Le Guin").save()
    Book(title="Lathe", author=author).save()
print(Book.objects.count(), models["shop.Book"] is Book)
"""
    done = invoke("shell", "-c", code)
    assert (done.stdout, done.stderr, done.exit_code) == ("1 True\n", "", 0)


def test_a_prompt_lists_its_names(invoke: Any, shop: Program) -> None:
    done = invoke("shell", given="print('found', Book.__schema__.label)\n")
    assert "found shop.Book" in done.stdout
    assert done.exit_code == 0
    assert (
        "databases: default, archive\n"
        "models: Author, Book\n"
        "other names: microorm, models, atomic, connection, on_commit, using\n"
    ) in done.output


def test_ipython_is_used_if_it_is_installed(invoke: Any, shop: Program) -> None:
    """A module that only prints its arguments takes its place."""
    shop.write({"IPython.py": "def start_ipython(argv, user_ns):\n    print(argv, sorted(user_ns)[:2])\n"})
    done = invoke("shell")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout.endswith("on_commit, using\n['--no-banner'] ['Author', 'Book']\n")
