"""The house rules that a linter does not know: sizes, where imports stand, nothing private of another library.

That imports point down only is import-linter's contract in pyproject.toml, checked by `make layers`.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "microorm"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES: dict[Path, ast.Module] = {}
NODES: dict[Path, list[ast.AST]] = {}
LINES_PER_FILE = 500
LINES_PER_FUNCTION = 40
MODULES_PER_FOLDER = 14

INDENTED_IMPORT = re.compile(r"^[ \t].*\bimport\b", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef

# "file.py:function": why this one imports when it runs.
LATE_IMPORTS: dict[str, str] = {
    "__init__.py:configure_project": "only a program that has a pyproject.toml reads it",
    "__init__.py:setup": "only a program that has applications loads them",
    "cli/fixtures.py:_bar": "rich is for tables and bars; other commands print plain lines",
    "cli/fixtures.py:dump": "the codec is for the commands that read and write rows; `--help` does without",
    "cli/fixtures.py:load": "the codec is for the commands that read and write rows; `--help` does without",
    "cli/init.py:init": "alembic is for the commands that migrate; `--help` does without",
    "cli/init.py:new_sections": "tomlkit is for the one command that writes TOML",
    "cli/init.py:with_sections": "tomlkit is for the one command that writes TOML",
    "cli/inspect.py:inspect": "alembic is for the commands that migrate; `--help` does without",
    "cli/migrate.py:_migrate": "rich is for tables and bars; other commands print plain lines",
    "cli/migrate.py:_rename_note": "difflib is for the one command that guesses renames",
    "cli/output.py:console": "rich is for tables and bars; other commands print plain lines",
    "cli/output.py:print_table": "rich is for tables and bars; other commands print plain lines",
    "cli/outbox.py:_outbox": "the outbox is for programs with durable receivers; `--help` does without",
    "cli/relay.py:_reporting": "rich is for tables and bars; other commands print plain lines",
    "cli/relay.py:relay": "the outbox is for programs with durable receivers; `--help` does without",
    "cli/program.py:migrations": "alembic is for the commands that migrate; `--help` does without",
    "mapping/declarations.py:declared": "annotationlib is new in Python 3.14",
    "dispatch/receivers.py:_nearest": "difflib is for misspelt names only",
    "dispatch/signal.py:_runner_module": "asyncio costs more than the dispatcher, which can be used without it",
    "db/engines/engine.py:_make_engine": "the driver of a database that is not used is not loaded",
    "errors.py:nearest": "difflib is for errors only",
    "fields/documents.py:json_type": "PostgreSQL's dialect is a third of all that is imported, and this its one type",
    "sql/batches.py:_library_limit": "other databases do not need SQLite's driver",
    "sql/long_lists.py:load_dialect_impl": "PostgreSQL's dialect is a third of all that is imported, and only long lists need its arrays",
    "fields/types.py:load_dialect_impl": "PostgreSQL's dialect is loaded with an engine of its, or never",
    "outbox/faststream.py:__init__": "each broker has a client of its own, and a program needs one of them",
    "outbox/faststream.py:prepare": "each broker has a client of its own, and a program needs one of them",
    "outbox/faststream.py:publish": "each broker has a client of its own, and a program needs one of them",
    "outbox/faststream.py:subscribers": "each broker has a client of its own, and a program needs one of them",
    "routers/bounded.py:within": "asyncio is slow to load, and a synchronous program does without",
    "routers/bounded.py:pause": "asyncio is slow to load, and a synchronous program does without",
    "query/query.py:get_or_create": "not every program needs it",
    "query/query.py:update_or_create": "not every program needs it",
    "query/query.py:bulk_create": "not every program needs it",
    "query/query.py:bulk_update": "not every program needs it",
    "query/query.py:update": "not every program needs it",
    "relations/reverse.py:rows_of": "not every program needs it",
    "relations/many_to_many.py:through": "not every program needs it",
    "tracing/tracer.py:__rich__": "rich is for traces that are printed",
    "tracing/tracer.py:__str__": "rich is for traces that are printed",
    "tracing/tracer.py:print": "rich is for traces that are printed",
    "db/routing.py:awaited": "SQLAlchemy's asyncio wants greenlet, which only the extra `async` brings",
    "db/aio/twins.py:_calls": "SQLAlchemy's asyncio wants greenlet, which only the extra `async` brings",
}
# Underscored names that other libraries document as public.
PUBLIC_ALL_THE_SAME = {"_getframe", "_get_running_loop", "_asdict", "_fields", "_mapping", "_replace"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    """The file as it parses, which is done once."""
    return TREES[path] if path in TREES else TREES.setdefault(path, ast.parse(path.read_text()))


def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of the file, in which these rules look, found once."""
    return NODES[path] if path in NODES else NODES.setdefault(path, list(ast.walk(tree_of(path))))


def functions(nodes: Iterable[ast.AST]) -> Iterator[Function]:
    return (node for node in nodes if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from `def` to the end, the docstring not counted."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def late_imports(path: Path) -> set[str]:
    if not INDENTED_IMPORT.search(path.read_text()):  # which saves reading most files
        return set()
    return {
        f"{name_of(path)}:{function.name}"
        for function in functions(nodes_of(path))
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@cache
def defined_here() -> set[str]:
    """Every name that the package itself defines, assigns or takes as a parameter, attributes included."""
    names: set[str] = set()
    for path in FILES:
        for node in nodes_of(path):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Constant(value=str() as name):  # __slots__, and names that generated code uses
                    names.add(name)
    return names


def foreign_privates(name_of_file: str, nodes: Iterable[ast.AST], ours: set[str]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Attribute(attr=name, lineno=line) if private(name):
                if name not in ours and name not in PUBLIC_ALL_THE_SAME:
                    yield f"{name_of_file}:{line}: {name}"
            case ast.ImportFrom(module=str() as module, names=aliases, lineno=line, level=0):
                imported = [*module.split("."), *(alias.name for alias in aliases)]
                if not module.startswith("microorm") and any(map(private, imported)):
                    yield f"{name_of_file}:{line}: {module}"


DOCUMENTED = {"_unregister_task"}
"""Names that look private, and are a part of the interface that the library documents (asyncio: Extending)."""


def test_a_file_fits_in_a_reader() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_PER_FILE} == {}


def test_a_folder_has_few_modules() -> None:
    folders = Counter(path.parent for path in FILES if path.name != "__init__.py" and path.parent != PACKAGE)
    assert {folder.name: number for folder, number in folders.items() if number > MODULES_PER_FOLDER} == {}
    assert len(folders) > 12


def test_a_function_fits_on_a_screen() -> None:
    lengths = {
        f"{name_of(path)}:{function.lineno}: {function.name}": length(function)
        for path in FILES
        for function in functions(nodes_of(path))
    }
    assert {name: lines for name, lines in lengths.items() if lines > LINES_PER_FUNCTION} == {}


def test_imports_stand_at_the_top_of_a_file() -> None:
    """Each exception has a reason beside it, and each reason an exception."""
    assert {where for path in FILES for where in late_imports(path)} == set(LATE_IMPORTS)


def test_nothing_private_of_another_library_is_used() -> None:
    ours = defined_here() | DOCUMENTED
    found = (foreign_privates(name_of(path), nodes_of(path), ours) for path in FILES)
    assert list(chain.from_iterable(found)) == []


def test_the_rules_see_what_they_forbid() -> None:
    """The checks above find an offender, so that their silence means something."""
    source = 'def f(x):\n    """Long.\n\n    Longer.\n    """\n    import os\n    return x._secret'
    tree = ast.parse(source)
    assert [length(node) for node in functions(ast.walk(tree))] == [3]
    assert private("_secret")
    assert not private("__table__")
    assert list(foreign_privates("x.py", ast.walk(tree), {"f"})) == ["x.py:7: _secret"]
    assert INDENTED_IMPORT.search(source)
