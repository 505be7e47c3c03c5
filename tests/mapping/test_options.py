"""What a table asks of a dialect is there when the dialect is, and loads none before that."""

import subprocess
import sys

import pytest
from sqlalchemy import MetaData
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateTable

from microorm import Field, Model, Registry, field
from microorm.mapping.table import LazyDialectOptions


class Book(Model, registry=Registry(), table="book"):
    title: Field[str] = field(max_length=9)


class Plain(Model, registry=Registry(), table="plain", table_args=({"mysql_charset": "latin1"},)):
    title: Field[str]


def test_the_ddl_of_each_dialect_has_its_options() -> None:
    """Whoever compiles it, also where no engine was made."""
    made = {
        module.__name__: str(CreateTable(Book.__table__).compile(dialect=module.dialect()))
        for module in (sqlite, mysql, postgresql)
    }
    assert "AUTOINCREMENT" in made["sqlalchemy.dialects.sqlite"]
    assert "CHARSET=utf8mb4" in made["sqlalchemy.dialects.mysql"]
    assert "CHARSET" not in made["sqlalchemy.dialects.postgresql"]


def test_what_the_class_says_of_a_dialect_wins() -> None:
    assert Plain.__table__.dialect_options["mysql"]["charset"] == "latin1"
    assert Plain.__table__.kwargs["mariadb_charset"] == "utf8mb4"


def test_a_look_at_all_sees_all() -> None:
    wanted = {"sqlite_autoincrement": True, "mysql_charset": "utf8mb4", "mariadb_charset": "utf8mb4"}
    copied = Book.__table__.to_metadata(MetaData())
    assert dict(Book.__table__.dialect_kwargs) == dict(copied.kwargs) == wanted


def test_options_are_told_once_and_by_dialect() -> None:
    known: dict[str, dict[str, int]] = {"a": {"x": 1, "y": 2}, "b": {}}
    late = LazyDialectOptions(known, {"a_x": 3, "b_z": 4})
    assert (len(late), known) == (2, {"a": {"x": 1, "y": 2}, "b": {}})
    assert late["a"] == {"x": 3, "y": 2}
    assert list(late) == ["a", "b"]
    assert [*late.values()] == [{"x": 3, "y": 2}, {"z": 4}]
    assert [name for name, _ in late.items()] == ["a", "b"]


@pytest.mark.slow
def test_a_model_alone_loads_no_dialect() -> None:
    script = (
        "import sys, microorm\n"
        "class Book(microorm.Model):\n"
        "    title: microorm.Field[str]\n"
        "print(*[name for name in sys.modules if name.startswith('sqlalchemy.dialects.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
