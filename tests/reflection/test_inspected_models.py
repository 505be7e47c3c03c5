"""Models of an existing database type-check, read every row, write one back unchanged, and show no drift."""

import subprocess
import sys

import pytest
from sqlalchemy import inspect

from microorm import ConfigurationError, Databases, ModelError
from tests.reflection.inspected import (
    differences,
    models_of,
    read_and_write,
    run_script,
    source_of,
    type_errors,
)
from tests.reflection.odd import ODD

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
ROWS = {"sqlite-file": 13, "postgresql": 16, "mariadb": 14}


@pytest.fixture
def odd(databases: Databases, backend: str) -> Databases:
    """A database with odd types and names."""
    run_script(databases, ODD[backend.removesuffix("-file")])
    return databases


def test_odd_tables_become_models_that_read_each_row_write_it_back_and_show_no_drift(odd, backend, tmp_path):
    with models_of(source_of(odd), odd) as registry:
        assert differences(registry, tmp_path) == []
        assert read_and_write(registry) == ROWS[backend]


def test_models_of_others_tables_are_never_compared_and_read_as_well(odd, backend, tmp_path):
    with models_of(source_of(odd, managed=False), odd) as registry:
        assert not any(model.__schema__.managed for model in registry.models.values())
        with odd.engine("default").begin() as connection:
            connection.exec_driver_sql("DROP TABLE keyless")
            connection.exec_driver_sql("ALTER TABLE pair ADD COLUMN later INTEGER")
        assert differences(registry, tmp_path) == []
        registry.create_all("default")
        registry.drop_all("default")
        names = inspect(odd.engine("default")).get_table_names()
        assert "keyless" not in names
        assert "pair" in names


def test_what_changes_after_the_models_were_written_is_found(odd, tmp_path):
    with models_of(source_of(odd), odd) as registry:
        with odd.engine("default").begin() as connection:
            connection.exec_driver_sql("ALTER TABLE pair ADD COLUMN later INTEGER")
            connection.exec_driver_sql("DROP TABLE friends")
            connection.exec_driver_sql("CREATE INDEX added ON profile (text)")
        found = {each for each in differences(registry, tmp_path) if "of 'friends'" not in each}
        assert found == {
            "the column 'pair.later' is not in the models",
            "the index 'added' of 'profile' is not in the models",
            "the table 'friends' is missing",
        }


def test_relations_lead_from_both_sides(odd):
    with models_of(source_of(odd), odd) as registry:
        models = {model.__name__: model for model in registry.models.values()}
        used = models["UsesPair"].objects.get()
        assert used.parent == used
        assert used.uses_pairs.all() == [used]
        assert used.thing.uses_pair == used  # by a unique foreign key
        profile = models["Profile"].objects.get()
        assert profile.order.profile == profile  # by a key that is a foreign key
        assert profile.profiles.all() == profile.profiles_of.all() == [profile]  # through a table of pairs
        assert models["UsesPair"].objects.filter(models["UsesPair"].parent.first == 1).count() == 1
        assert profile.things.all() == [used.thing]  # through a table of pairs without a key
        assert [each.note for each in profile.noteds] == [
            "n"
        ]  # of a table without a key, in which it is one of many


def test_a_computed_column_is_read_whole(odd):
    """With a colon, and on SQLite as it is written, in the words `AS` and `GENERATED ALWAYS AS`."""
    with models_of(source_of(odd), odd) as registry:
        computed = next(model for model in registry.models.values() if model.__name__ == "Computed")
        row = computed(id=2, a=5).save()
        assert (row.b, row.c) == (10, "x:y5")
        row.a = 6
        assert (row.save().b, computed.objects.get(id=2).c) == (12, "x:y6")


@pytest.mark.backends("postgresql", "mariadb")
def test_a_table_with_a_foreign_key_to_another_schema_is_left_alone(databases, tmp_path):
    """A revision would drop the foreign key, which the model does not have."""
    kind = databases.database("default").dialect
    function = "current_schema()" if kind == "postgresql" else "database()"
    with databases.connection("other") as connection:
        there = connection.exec_driver_sql(f"SELECT {function}").scalar()
        connection.exec_driver_sql("CREATE TABLE far (id INT PRIMARY KEY)")
    with databases.connection() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE near (id INT PRIMARY KEY, far_id INT, FOREIGN KEY (far_id) REFERENCES {there}.far (id))"
        )
    source = source_of(databases)
    assert "class Near(Model, managed=False):" in source
    shown = " ".join(line.strip("# ") for line in source.splitlines())
    assert f"the foreign key from far_id to {there}.far is left out: no model has that table" in shown
    with models_of(source, databases) as registry:
        assert differences(registry, tmp_path) == []


def test_the_tables_of_a_virtual_table_are_none_of_their_own(sqlite_url):
    with Databases({"default": sqlite_url}) as databases:
        with databases.connection() as connection:
            if connection.dialect.server_version_info < (3, 37):
                pytest.skip("this SQLite does not say which tables these are")
            connection.exec_driver_sql("CREATE VIRTUAL TABLE place USING rtree (id, x0, x1)")
        source = source_of(databases)
    assert [line for line in source.splitlines() if line.startswith("class ")] == [
        "class Place(Model, managed=False):"
    ]


def test_a_view_is_a_model_that_reads_and_refuses_each_write(odd):
    with models_of(source_of(odd), odd) as registry:
        cheap = next(model for model in registry.models.values() if model.__name__ == "Cheap")
        row = cheap.objects.get()
        for write in (
            row.save,
            row.delete,
            cheap.objects.delete,
            lambda: cheap.objects.update(code=row.code),
            lambda: cheap.objects.bulk_create([cheap(code=row.code)]),
            lambda: cheap.objects.bulk_update([row], ["code"]),
            lambda: cheap.objects.create(code=row.code),
            lambda: cheap.objects.get_or_create(code=None),
        ):
            with pytest.raises((ModelError, ValueError), match="read-only|code"):
                write()
        assert cheap.objects.count() == 1


def test_only_named_tables_are_written_and_those_that_they_refer_to(odd):
    source = source_of(odd, "by_text" if "by_text" in source_of(odd) else "profile")
    assert "class Profile(Model" in source
    assert "class Order(" in source
    assert "class Thing(" not in source
    assert "class Cheap(" not in source
    with pytest.raises(ConfigurationError, match="no table or view 'profil'; nearest: 'profile'"):
        source_of(odd, "profil")


@pytest.mark.parametrize(
    ("table", "imported"),
    [
        ("CREATE TABLE pair (a INT, b INT, PRIMARY KEY (a, b), UNIQUE (b, a))", "Field, Model, field"),
        ("CREATE VIEW lost AS SELECT * FROM nowhere", ""),
    ],
)
def test_the_module_imports_what_it_uses(sqlite_url, table, imported):
    with Databases({"default": sqlite_url}) as databases:
        with databases.connection() as connection:
            connection.exec_driver_sql(table)
        source = source_of(databases)
        assert "".join(line for line in source.splitlines() if line.startswith("from microorm")) == (
            imported and f"from microorm import {imported}"
        )
        with models_of(source, databases):
            pass


def test_a_database_without_tables_is_an_error(databases):
    with pytest.raises(ConfigurationError, match="no tables"):
        source_of(databases)


@pytest.mark.backends("mariadb")
def test_defaults_that_sqlalchemy_does_not_report_are_not_overwritten_by_null(odd):
    with models_of(source_of(odd), odd) as registry:
        filled = next(model for model in registry.models.values() if model.__name__ == "FilledIn")
        row = filled().save()
        row.refresh_from_db()
        assert (row.id, row.flag, row.hidden) == (2, 1, 3)


@pytest.mark.backends("postgresql", "mariadb")
def test_comments_are_kept(odd):
    source = source_of(odd)
    assert """{"comment": 'what was "ordered"'}""" in source
    assert '''comment="it's a class: 100 %"''' in source


@pytest.mark.slow
def test_models_of_odd_tables_pass_mypy_strict_and_ruff(odd, tmp_path):
    assert type_errors(source_of(odd), tmp_path) == ""


DJANGO = """
import sys
import django
from django.conf import settings
from django.core.management import call_command
from sqlalchemy import make_url

url = make_url(sys.argv[1])
kind = url.get_backend_name()
place = {"NAME": url.database, "HOST": url.host, "PORT": url.port, "USER": url.username, "PASSWORD": url.password or ""}
if kind == "sqlite":
    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": url.database}
elif kind == "postgresql":
    place |= {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"options": url.query["options"]}}
else:
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
    place |= {"ENGINE": "django.db.backends.mysql"}
apps = [f"django.contrib.{name}" for name in ("auth", "admin", "contenttypes", "sessions", "messages")]
settings.configure(DATABASES={"default": place}, INSTALLED_APPS=apps, USE_TZ=True, SECRET_KEY="x")
django.setup()
call_command("migrate", verbosity=0)

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore

user = User.objects.create_superuser("ada", "ada@example.com", "x")
group = Group.objects.create(name="staff")
user.groups.add(group)
group.permissions.add(Permission.objects.first())
LogEntry.objects.create(user=user, content_type=ContentType.objects.first(), object_repr="x", action_flag=1)
store = SessionStore()
store["a"] = 1
store.save()
"""


@pytest.mark.slow
def test_djangos_tables_become_models_that_read_write_and_show_no_drift(databases, url, backend, tmp_path):
    pytest.importorskip("django", "5.0")
    script = tmp_path / "migrate.py"
    script.write_text(DJANGO)
    done = subprocess.run([sys.executable, str(script), url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source = source_of(databases)
    with models_of(source, databases) as registry:
        assert differences(registry, tmp_path) == []
        assert read_and_write(registry) > 40
        user = next(model for model in registry.models.values() if model.__name__ == "AuthUser")
        ada = user.objects.get(username="ada")
        assert [group.name for group in ada.auth_groups] == ["staff"]
        assert ada.django_admin_logs.get().user == ada
    assert type_errors(source, tmp_path) == ""
