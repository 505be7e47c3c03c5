"""`microorm sql` prints SQL, and SQL alone."""

from typing import Any


def test_it_prints_sql_alone(invoke: Any, migrations: Any) -> None:
    migrations.answer = "CREATE TABLE a (id INTEGER);\n\n"
    done = invoke("sql", "base:head", "--alias", "archive", FORCE_COLOR="1")
    assert (done.stdout, done.stderr, done.exit_code) == ("CREATE TABLE a (id INTEGER);\n", "", 0)
    assert migrations.calls[-1] == ("sql", "base:head", "archive")
