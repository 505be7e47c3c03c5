"""`microorm shell` has the models by name, runs code, and asks for some at a prompt."""

from typing import Any

import pytest

from microorm import Field, Registry
from microorm.cli.shell import names_for

pytestmark = pytest.mark.backends("sqlite-memory")


def test_models_have_their_names_and_clashes_are_told(Base: Any, registry: Registry) -> None:
    class Page(Base, app="shop"):
        title: Field[str]

    first = Page

    class Page(Base, app="blog", table="blog_page"):  # type: ignore[no-redef]
        title: Field[str]

    class models(Base, app="shop"):
        title: Field[str]

    names, clashes = names_for(registry)
    assert names["Page"] is first
    assert names["models"] == {"shop.Page": first, "blog.Page": Page, "shop.models": models}
    assert clashes == [
        "Page is shop.Page; the model blog.Page is models['blog.Page']",
        "models is something else; the model shop.models is models['shop.models']",
    ]
    assert names["atomic"] == registry.databases.atomic
    assert set(names) == {"Page", "microorm", "models", "atomic", "connection", "on_commit", "using"}


def test_code_runs_in_this_process_too(invoke: Any, capsys: Any) -> None:
    done = invoke("shell", "-c", "print(microorm.__version__, models)")
    assert done.exit_code == 0
    assert done.stdout.startswith("0.")
    done = invoke("shell", "-c", "x = 1\n1 / 0")
    assert (done.stderr, done.exit_code) == ("microorm: <shell>:2: ZeroDivisionError: division by zero\n", 1)
    done = invoke("shell", "-c", "x = = 1")
    assert (done.stderr, done.exit_code) == ("microorm: <shell>:1: SyntaxError: invalid syntax\n", 1)


@pytest.mark.slow
def test_code_has_the_models_and_the_databases(program: Any) -> None:
    code = """
microorm.create_all()
with atomic():
    author = Author(name="Le Guin").save()
    Book(title="Lathe", author=author).save()
print(Book.objects.count(), models["shop.Book"] is Book)
"""
    assert program.run("shell", "-c", code) == ("1 True\n", "", 0)
    assert program.run("shell", "-c", "import sys; sys.exit(3)") == ("", "", 3)


@pytest.mark.slow
def test_a_prompt_says_what_there_is(program: Any) -> None:
    out, err, status = program.run("shell", given="print('found', Book.__schema__.label)\n")
    assert "found shop.Book" in out
    greeting = "databases: default, archive\nmodels: Author, Book\nand: microorm, models, atomic, connection, on_commit, using\n"
    assert greeting in err + out
    assert status == 0


@pytest.mark.slow
def test_ipython_is_used_where_it_is_installed(program: Any) -> None:
    """One that only tells what it was given."""
    program.write({"IPython.py": "def start_ipython(argv, user_ns):\n    print(argv, sorted(user_ns)[:2])\n"})
    out, err, status = program.run("shell")
    assert (err, status) == ("", 0)
    assert out.endswith("on_commit, using\n['--no-banner'] ['Author', 'Book']\n")
