"""What is public is listed, documented and of one version; the tree of errors is the one that is drawn."""

import __future__

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import FunctionType, ModuleType
from typing import ParamSpec, TypeVar

import pytest

import microorm
import microorm.errors

ROOT = Path(__file__).parent.parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(microorm.__path__, "microorm."))
LISTED = ["microorm", *(name for name in MODULES if hasattr(importlib.import_module(name), "__all__"))]
NO_OFFERS = (ModuleType, TypeVar, ParamSpec, type(__future__.annotations))
BRANCH = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>\w+)(?: \((?P<also>[\w, ]+)\))?$")


def public_names(module: ModuleType) -> set[str]:
    """What a module offers: in the package all it binds but submodules, elsewhere all it defines."""
    found = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, NO_OFFERS)
    }
    if module is microorm:
        return set(found)
    return {
        name
        for name, value in found.items()
        if name in module.__all__ or getattr(value, "__module__", None) == module.__name__
    }


def as_ruff_sorts(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then the rest (ruff's RUF022)."""
    return not name.isupper(), not name[0].isupper(), name


def undocumented(name: str, value: object) -> list[str]:
    """The public functions, classes and methods at and below *value* that have no docstring of their own."""
    if isinstance(value, FunctionType | property):
        return [] if inspect.getdoc(value) else [name]
    if not isinstance(value, type):
        return []
    members = [
        missing
        for attribute, member in vars(value).items()
        if not attribute.startswith("_")
        for missing in undocumented(f"{name}.{attribute}", getattr(member, "__func__", member))
    ]
    return members if value.__doc__ else [name, *members]


def drawn_tree(text: str) -> dict[str, tuple[str, set[str]]]:
    """Read a drawn tree: each name with its parent, and with the other bases that stand in brackets."""
    tree: dict[str, tuple[str, set[str]]] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        branch = BRANCH.match(line)
        if branch is None or not line.startswith("    "):
            continue
        depth = len(branch["indent"])
        above = [(level, name) for level, name in above if level < depth]
        also = set(branch["also"].split(", ")) if branch["also"] else set()
        tree[branch["name"]] = (above[-1][1] if above else "Exception", also)
        above.append((depth, branch["name"]))
    return tree


@pytest.mark.parametrize("name", LISTED)
def test_all_is_sorted_and_is_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__), key=as_ruff_sorts)
    assert set(module.__all__) == public_names(module)


@pytest.mark.parametrize("name", LISTED)
def test_every_public_name_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    missing = [lost for public in module.__all__ for lost in undocumented(public, getattr(module, public))]
    assert missing == []


@pytest.mark.parametrize("name", ["microorm", *MODULES])
def test_every_module_says_what_it_is_for(name: str) -> None:
    """By a sentence on its first line."""
    first = (importlib.import_module(name).__doc__ or "").partition("\n")[0]
    assert re.match(r"\S.*[.:]( |$)", first), f"{name} begins with {first!r}"


def public_functions(name: str, value: object) -> Iterator[tuple[str, Callable[..., object]]]:
    """The public functions and methods at and below *value*, each with its name."""
    if isinstance(value, FunctionType):
        yield name, value
    if isinstance(value, type):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_"):
                yield from public_functions(f"{name}.{attribute}", getattr(member, "__func__", member))


def documented_functions(name: str, value: object) -> Iterator[tuple[str, FunctionType, str]]:
    """The public functions and methods at and below *value* of this package, inherited ones too, each with its docstring.

    A constructor is documented by its class, and a method by those that it overrides, too. What a method of another
    library's class does is said there.
    """
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, FunctionType):
        yield name, value, inspect.getdoc(value) or ""
    if not isinstance(value, type):
        return
    ours = [base for base in value.__mro__ if base.__module__.split(".")[0] == "microorm"]
    foreign = [base for base in value.__mro__ if base not in ours and base is not object]
    members = {attribute: member for base in reversed(ours) for attribute, member in vars(base).items()}
    for attribute, member in members.items():
        function = getattr(member, "__func__", member)
        if attribute == "__init__" and isinstance(function, FunctionType):
            yield name, function, f"{value.__doc__} {function.__doc__}"
        elif not attribute.startswith("_") and not any(attribute in vars(base) for base in foreign):
            overridden = [vars(base)[attribute].__doc__ or "" for base in ours if attribute in vars(base)][1:]
            for found, documented, docstring in documented_functions(f"{name}.{attribute}", function):
                yield found, documented, " ".join([docstring, *overridden])


DOCUMENTED = {
    function: (f"{module}: {name}", docstring)
    for module in LISTED
    for public in importlib.import_module(module).__all__
    for value in [getattr(importlib.import_module(module), public)]
    for name, function, docstring in documented_functions(public, getattr(value, "__func__", value))
    if function.__module__.startswith("microorm")
}


def raised(function: FunctionType) -> set[str]:
    """The names of the classes of errors that *function* itself raises."""
    try:
        tree = ast.parse(dedent(inspect.getsource(function)))
    except (OSError, IndentationError):  # it was generated
        return set()
    errors = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    classes = (error.func if isinstance(error, ast.Call) else error for error in errors)
    names = (each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in classes)
    return {name for name in names if name[:1].isupper()}


def test_every_public_function_is_documented() -> None:
    """Also a method that a public class inherits from one that is not public."""
    assert [name for name, docstring in DOCUMENTED.values() if not docstring.strip()] == []


def test_a_docstring_names_each_parameter() -> None:
    assert len(DOCUMENTED) > 290
    silent = [
        (name, parameter)
        for function, (name, docstring) in DOCUMENTED.items()
        for parameter in inspect.signature(function).parameters
        if parameter not in ("self", "cls") and not parameter.startswith("_")
        if not re.search(rf"\b{parameter}\b", docstring)
    ]
    assert silent == []


def test_a_docstring_names_the_errors_that_its_function_raises() -> None:
    silent = [
        (name, error)
        for function, (name, docstring) in DOCUMENTED.items()
        for error in raised(function)
        if error not in docstring
    ]
    assert silent == []


def test_an_argument_that_names_an_alias_is_called_using() -> None:
    """Where an alias is the subject and not the target, as in `on(alias="archive")`, it may be called `alias`."""
    subjects = {"on", "Databases.allows_migration", "Databases.receiving"}
    subjects |= {f"{router}.allow_migrate" for router in ("Router", "PrimaryReplica", "Shards", "Tenants")}
    modules = map(importlib.import_module, LISTED)
    functions = [
        found
        for module in modules
        for name in module.__all__
        for found in public_functions(name, getattr(module, name))
    ]
    assert len(functions) > 100
    astray = [
        name
        for name, function in functions
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name == "alias" and parameter.kind is not parameter.POSITIONAL_ONLY
    ]
    assert set(astray) - subjects == set()


@pytest.mark.parametrize("method", ["save", "delete", "refresh_from_db"])
def test_the_methods_of_an_instance_that_reach_its_row_take_keywords_only(method: str) -> None:
    _, *parameters = inspect.signature(getattr(microorm.Model, method)).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_page_of_migrations_lists_the_types_that_revisions_name() -> None:
    page = (ROOT / "docs" / "migrations.md").read_text()
    named = set(re.findall(r"`types\.(\w+)", page))
    assert named == set(importlib.import_module("microorm.types").__all__)


def test_the_tree_of_errors_is_the_one_drawn() -> None:
    classes = {
        name: value
        for name, value in vars(microorm.errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    }
    bases = {name: [base.__name__ for base in value.__bases__] for name, value in classes.items()}
    real = {name: (first, set(others)) for name, (first, *others) in bases.items()}
    assert drawn_tree(microorm.errors.__doc__ or "") == real


def test_the_changelog_ends_in_the_version_of_the_package() -> None:
    newest = re.search(r"^## \[?(\d[\w.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == microorm.__version__


def test_the_version_stands_in_one_place() -> None:
    package = ast.parse((ROOT / "microorm" / "__init__.py").read_text())
    literals = [node.value for node in ast.walk(package) if isinstance(node, ast.Constant)]
    assert microorm.__version__ in literals
    assert "\nversion =" not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
def test_an_import_loads_nothing_that_only_some_programs_need() -> None:
    """No driver, nothing of the command line or of asyncio's engines, no dialect."""
    script = (
        "import sys, microorm\n"
        "class Book(microorm.Model):\n"
        "    title: microorm.Field[str]\n"
        "    pages: microorm.Field[int]\n"
        "print(*sys.modules)"
    )
    # Nor does whoever measures coverage in processes of their own load anything for it.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=plain
    )
    loaded = set(done.stdout.split())
    unwanted = {
        "alembic",
        "click",
        "greenlet",
        "psycopg",
        "pymysql",
        "rich",
        "sqlite3",
        "difflib",
        "sqlalchemy.dialects.mysql",
        "sqlalchemy.dialects.postgresql",
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.ext.asyncio",
        "microorm.apps",
        "microorm.http",
        "microorm.testing",
        "microorm.dispatch.runner",
        "microorm.persistence.bulk",
        "microorm.relations.related_query",
    }
    assert loaded & unwanted == set()
