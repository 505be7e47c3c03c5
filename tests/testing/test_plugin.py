"""The pytest plugin, in runs of pytest inside this one: what its fixtures do, and how they fail."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import Server
from tests.testing.conftest import HEAD, MODELS, Run

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent


def test_each_test_begins_where_the_last_one_began(run: Run, pytester: pytest.Pytester) -> None:
    """On all aliases; and the configured databases are never touched."""
    run(
        """
@pytest.mark.parametrize("number", range(2))
def test_rolled_back(microorm_db, number):
    with atomic(durable=True):
        Order(name="a").save()
    Entry(text="b").save(using="archive")
    assert rows() == (1, 1)
    assert microorm_db is microorm.default_databases

@pytest.mark.parametrize("number", range(2))
def test_committed(microorm_transactional_db, number):
    Order(name="a").save()
    assert rows() == (1, 1)

def test_nothing_is_left(microorm_db):
    assert rows() == (0, 0)
"""
    ).assert_outcomes(passed=5)
    assert list(pytester.path.glob("*.db")) == []


def test_what_waits_for_the_commit_runs_on_request(run: Run) -> None:
    run(
        """
def test_on_request(microorm_db, microorm_commits):
    with microorm_commits() as hooks:
        Order(name="a").save()
        with pytest.raises(ZeroDivisionError), atomic():
            Order(name="b").save()
            raise ZeroDivisionError
    assert rows() == (1, 0)
    assert [hook.__qualname__ for hook in hooks] == ["note"]
    assert hooks.run() == 1
    assert rows() == (1, 1)

def test_at_the_end(microorm_commits):
    with microorm_commits(execute=True):
        Order(name="a").save()
    with microorm_commits("archive", execute=True):
        Order(name="b").save()
    assert rows() == (2, 1)
"""
    ).assert_outcomes(passed=2)


def test_the_mark_names_the_aliases_that_a_test_may_touch(run: Run) -> None:
    result = run(
        """
@pytest.mark.microorm_aliases("default")
class TestDefault:
    def test_transaction(self, microorm_db):
        Order(name="a").save()
        assert microorm_db.transaction(microorm_db.database("archive")) is None

    def test_without_fixture(self):
        Order.objects.count()

@pytest.mark.microorm_aliases("default")
def test_refused(microorm_db, microorm_commits):
    with microorm_commits(execute=True):
        Order(name="a").save()

@pytest.mark.microorm_aliases("archive")
def test_committed(microorm_transactional_db):
    Order.objects.count()

@pytest.mark.microorm_aliases("defalt")
def test_unknown(microorm_db):
    pass

@pytest.mark.microorm_aliases(aliases=["default"])
def test_misspelt(microorm_db):
    pass

def test_nothing_is_left(microorm_db):
    assert rows() == (0, 0)
"""
    )
    result.assert_outcomes(passed=3, failed=2, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*no database named 'defalt'*nearest: 'default'*",
            "*TypeError: the mark takes aliases: *",
            "*AliasNotAllowed: the test may touch 'default', and this is a statement to 'archive': INSERT INTO entry*",
            "*AliasNotAllowed: the test may touch 'archive', and this is a statement to 'default': SELECT count(?)*",
        ]
    )


ASYNC = """
@fixture
async def saved(microorm_db):
    return await Order(name="saved").asave()

@mark
@pytest.mark.parametrize("number", range(2))
async def test_rolled_back(microorm_db, microorm_commits, saved, number):
    async with microorm_commits(execute=True):
        async with atomic(durable=True):
            await Order(name="a").asave()
        with pytest.raises(ZeroDivisionError):
            async with atomic():
                await Order(name="b").asave()
                raise ZeroDivisionError
    assert await Order.objects.acount() == 2
    assert await Entry.objects.using("archive").acount() == 1
    await microorm.aclose()
    async with microorm.aconnection("archive"):
        assert await Order.objects.acount() == 2

@pytest.fixture
def wrong(microorm_db):
    Order(name="wrong").save()

@mark
async def test_sync_fixture(wrong):
    pass

@mark
@pytest.mark.microorm_aliases("default")
async def test_refused(microorm_db):
    await Entry(text="a").asave(using="archive")

@mark
async def test_committed(microorm_transactional_db):
    await Order(name="a").asave()
    assert await Entry.objects.using("archive").acount() == 1

def test_nothing_is_left(microorm_db):
    assert rows() == (0, 0)
"""


@pytest.mark.parametrize(
    ("fixture", "mark"),
    [
        ("pytest.fixture", "pytest.mark.anyio"),
        ("pytest_asyncio.fixture", "pytest.mark.asyncio"),
        ("pytest_asyncio.fixture(loop_scope='module')", "pytest.mark.asyncio(loop_scope='module')"),
    ],
)
def test_async_tests_are_rolled_back_on_their_loop(run: Run, fixture: str, mark: str) -> None:
    pytest.importorskip("pytest_asyncio")
    tests = ASYNC.replace("@fixture", f"@{fixture}").replace("@mark", f"@{mark}")
    backend = "import pytest_asyncio\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    result = run(backend + tests)
    result.assert_outcomes(passed=4, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*TransactionError: *", "*AliasNotAllowed: *'archive': INSERT INTO entry*"])


def test_signals_and_statements_are_fixtures_too(run: Run) -> None:
    run(
        """
def test_all(
    microorm_db, microorm_assert_signals, microorm_record_signals, microorm_count_statements, microorm_no_lazy_loads, microorm_trace
):
    with microorm_assert_signals(post_save, sender=Order, times=2), microorm_record_signals(post_save) as sent:
        Order(name="a").save()
        Order(name="b").save()
    assert [each.arguments["instance"].name for each in sent] == ["a", "b"]
    with microorm_count_statements() as counted, microorm_no_lazy_loads():
        assert Order.objects.count() == 2
    assert counted.count == 1
    with microorm_trace(parameters=True) as t:
        Order(name="c").save()
    assert t.find("statement")[0].details["parameters"] == ["'c'"]

def test_registry(microorm_registry):
    class Order(microorm.Model, registry=microorm_registry):
        name: microorm.Field[int]
    microorm_registry.create_all()
    assert Order(name=1).save().id == 1
"""
    ).assert_outcomes(passed=2)


def test_a_failed_assertion_is_shown_in_the_test(run: Run) -> None:
    result = run(
        """
def test_twice(microorm_db, microorm_assert_signals):
    with microorm_assert_signals(post_save, sender=Order, times=2):  # this line
        Order(name="a").save()
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [">*# this line", "E*post_save of Order was sent once, not twice:", "*test_shop.py:*AssertionError"]
    )


def test_a_test_is_rolled_back_or_committed(run: Run) -> None:
    result = run("def test_both(microorm_transactional_db, microorm_commits):\n    pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*ConfigurationError: the test takes microorm_db*and microorm_transactional_db*"]
    )


def test_without_a_configuration_the_error_says_what_to_write(run: Run) -> None:
    result = run("def test_one(microorm_db):\n    pass\n", "")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*ConfigurationError: no database is configured: call microorm.configure() in conftest.py*"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("-p", "xdist", "-n", "2")])
def test_the_package_of_a_project_is_found_by_the_command_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """As by the command microorm, without `python -m`, in tests and in conftest.py."""
    pytester.makepyprojecttoml(
        '[tool.microorm]\napps = ["shop"]\ndatabases = { default = "sqlite:///shop.db" }\n'
    )
    pytester.mkpydir("shop").joinpath("models.py").write_text(
        "from microorm import Field, Model\n\n\nclass Order(Model):\n    name: Field[str]\n"
    )
    tests = pytester.mkdir("tests")
    tests.joinpath("conftest.py").write_text("from shop.models import Order\n")
    tests.joinpath("test_shop.py").write_text(
        "from shop.models import Order\n\n\ndef test_order(microorm_db):\n    Order(name='tea').save()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    command = [sys.executable, "-P", "-m", "pytest", "-p", "microorm.testing.plugin", *arguments]
    result = pytester.run(*command, timeout=60)
    result.assert_outcomes(passed=1)


def test_a_project_is_set_up_with_databases_of_the_tests(run: Run, pytester: pytest.Pytester) -> None:
    """`configure_project()` in the code under test does nothing, then."""
    pytester.makepyprojecttoml(
        """
        [tool.microorm]
        databases = { default = "sqlite:///shop.db", archive = "sqlite:///archive.db" }
        """
    )
    run(
        """
def test_project(microorm_transactional_db):
    microorm.configure_project()
    Order(name="a").save()
    assert rows() == (1, 1)
""",
        "",
        "--rootdir=.",
    ).assert_outcomes(passed=1)
    assert list(pytester.path.glob("*.db")) == []


def test_databases_in_memory_are_taken_as_they_are(run: Run) -> None:
    run(
        """
def test_memory(microorm_db):
    Order(name="a").save()
    assert rows() == (1, 0)
""",
        'import microorm\nmicroorm.configure({"default": "sqlite://", "archive": "sqlite://"})\n',
    ).assert_outcomes(passed=1)


def test_ones_own_databases_are_taken_instead(run: Run) -> None:
    run(
        """
def test_own(microorm_db):
    class Thing(microorm.Model, registry=OWN):
        name: microorm.Field[str]
    OWN.create_all()
    assert Thing(name="a").save().id == 1

@pytest.fixture(scope="session")
def microorm_databases():
    with microorm.Databases("sqlite://") as databases:
        yield databases

@pytest.fixture(scope="session")
def microorm_tables(microorm_databases):
    global OWN
    OWN = microorm.Registry(microorm_databases)
    return OWN
""",
        "",
    ).assert_outcomes(passed=1)


def test_the_entry_point_is_a_module_that_does_not_load_microorm() -> None:
    """pytest imports it at each start, in projects that do not use it, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module = project["project"]["entry-points"]["pytest11"]["microorm"]
    code = f"import sys, {module}\nassert not any(each.split('.')[0] in ('microorm', 'sqlalchemy') for each in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert f"{module}.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_each_worker_of_xdist_has_databases_of_its_own(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    find_server: Callable[[str], Server | str],
    kind: str,
) -> None:
    urls = ["sqlite:///shop.db", "sqlite:///archive.db"]
    server = None
    if kind != "sqlite":
        server = find_server(kind)
        if isinstance(server, str):
            pytest.skip(server)
        name = f"plugin_{server.token}"
        urls = [server.url.set(database=f"{name}_{n}").render_as_string(hide_password=False) for n in (1, 2)]
    pytester.makepyfile(models=MODELS)
    pytester.makeconftest(
        f"import microorm\nmicroorm.configure({{'default': {urls[0]!r}, 'archive': {urls[1]!r}}})\n"
    )
    tests = """
import os, re

@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("kind", ["microorm_db", "microorm_transactional_db"])
def test_alone(request, kind, number):
    databases = request.getfixturevalue(kind)
    assert rows() == (0, 0)
    for each in range(20):
        Order(name=f"{each}").save()
    assert rows() == (20, 20 if kind == "microorm_transactional_db" else 0)
    if not databases.database("default").is_sqlite:
        assert databases.database("default").url.database.endswith(f"_1_{os.environ['PYTEST_XDIST_WORKER']}")
"""
    pytester.makepyfile(test_shop=HEAD + tests)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # each process would import them all
    plugins = ("-p", "microorm.testing.plugin", "-p", "xdist")
    done = pytester.runpytest_subprocess(*plugins, "-n", "2", timeout=100)
    done.assert_outcomes(passed=6)
    assert list(pytester.path.glob("*.db")) == []
    if server is not None:
        listing = "SELECT datname FROM pg_database" if kind == "postgresql" else "SHOW DATABASES"
        assert not [each for each in server._run(listing) if name in each]


def test_an_alias_that_a_test_adds_is_removed_after_it(run: Run) -> None:
    result = run(
        """
def test_adds(microorm_db):
    microorm_db.add("tenant_1", "sqlite://")
    microorm.create_all(using="tenant_1")
    Order(name="a").save(using="tenant_1")
    assert microorm_db.aliases == ("default", "archive", "tenant_1")


def test_finds_none(microorm_db):
    assert microorm_db.aliases == ("default", "archive")
"""
    )
    result.assert_outcomes(passed=2)
