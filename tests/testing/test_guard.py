"""The databases of the pytest plugin: kept open in tests that take them, and out of reach of tests that do not."""

import pytest

import microorm
from tests.testing.conftest import CONFIGURED, Run

pytest_plugins = ["pytester"]


def test_a_program_cannot_lead_the_tests_to_its_own_databases(run: Run, pytester: pytest.Pytester) -> None:
    """It configures and closes the databases of the test run in vain; they stay until the end of the run."""
    result = run(
        """
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("kind", ["microorm_db", "microorm_transactional_db"])
def test_program(request, kind, number):
    request.getfixturevalue(kind)
    Order(name="a").save()
    microorm.close()
    microorm.configure({"default": "sqlite:///shop.db", "archive": "sqlite:///archive.db"})
    microorm.configure("sqlite:///shop.db")
    assert Order.objects.count() == 1
    microorm.default_databases.close()

def test_others(microorm_db):
    microorm.configure({"other": "sqlite://"})

def test_open_block(microorm_db):
    with atomic():
        microorm.close()
"""
    )
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*ConfigurationError: the databases are kept open by a test, and 'other' is not among them*",
            "*TransactionError: the databases cannot be closed while a block is open on 'default'*",
        ]
    )
    assert list(pytester.path.glob("*.db")) == []


WEB = """
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

@asynccontextmanager
async def lifespan(app):
    microorm.configure({"default": "sqlite:///shop.db", "archive": "sqlite:///archive.db"})
    yield
    await microorm.aclose()

async def order(request):
    await Order(name=request.path_params["name"]).asave()
    return PlainTextResponse(str(await Order.objects.acount()))

app = Starlette(routes=[Route("/{name}", order)], lifespan=lifespan)
"""


@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")
def test_an_application_may_configure_and_close_the_databases_in_its_lifespan(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytest.importorskip("starlette")
    result = run(
        WEB
        + """
@pytest.mark.parametrize("number", range(3))
def test_orders(microorm_transactional_db, number):
    for names in ("ab", "cd"):
        with TestClient(app) as client:
            for name in names:
                last = client.get(f"/{name}").text
    assert last == "4"
    assert rows() == (4, 4)

def test_in_another_thread(microorm_db):
    with TestClient(app) as client:
        client.get("/a")

def test_nothing_is_left(microorm_db):
    assert rows() == (0, 0)
"""
    )
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*TransactionSharedError: the open block on 'default' belongs to another thread: to the test, which rolls it back; "
            "take the fixture microorm_transactional_db instead of microorm_db*"
        ]
    )
    assert list(pytester.path.glob("*.db")) == []


FORGETFUL = """
def test_forgets():
    Order(name="a").save()

def test_forgets_to_create():
    microorm.create_all()
"""
FORGOTTEN = "configured: none*; a test takes the fixture microorm_db or microorm_transactional_db, or calls configure() itself"


@pytest.mark.parametrize(
    ("conftest", "position"),
    [(CONFIGURED, "first"), (CONFIGURED, "last"), ("", "first"), ("", "last"), ("", "alone")],
)
def test_a_test_that_takes_no_fixture_finds_no_database(
    run: Run, pytester: pytest.Pytester, conftest: str, position: str
) -> None:
    """Wherever it runs, so that it neither leaves rows for the next test nor reaches the databases of the program."""
    if not conftest:
        pytester.makepyprojecttoml(
            """
            [tool.microorm]
            databases = { default = "sqlite:///shop.db", archive = "sqlite:///archive.db" }
            """
        )
    takes = "def test_takes(microorm_transactional_db):\n    Order(name='a').save()\n"
    after = "def test_after(microorm_db):\n    assert rows() == (0, 0)\n"
    tests = {"first": FORGETFUL + takes, "last": takes + FORGETFUL + after, "alone": FORGETFUL}[position]
    result = run(tests, conftest, "--rootdir=.")
    result.assert_outcomes(failed=2, passed={"first": 1, "last": 2, "alone": 0}[position])
    result.stdout.fnmatch_lines(
        [
            f"*UnknownAlias: no database named 'default'; {FORGOTTEN}",
            "*no database is configured; a test takes*",
        ]
    )
    assert list(pytester.path.glob("*.db")) == []
    assert microorm.default_databases.remedy == "call configure() first"


def test_a_run_without_the_fixtures_is_left_alone(run: Run, pytester: pytest.Pytester) -> None:
    run(
        """
def test_writes():
    microorm.create_all()
    Order(name="a").save()

def test_reads():
    assert rows() == (1, 1)
"""
    ).assert_outcomes(passed=2)
    assert len(list(pytester.path.glob("*.db"))) == 2


def test_tests_that_configure_databases_themselves_run_beside_those_that_take_a_fixture(run: Run) -> None:
    """Each fixture is torn down with the databases with which it was set up."""
    result = run(
        """
@pytest.fixture(scope="module")
def module(microorm_databases, microorm_tables):
    yield Order(name="module").save()
    Order.objects.delete()
    Entry.objects.using("archive").delete()

@pytest.fixture
def own():
    microorm.configure("sqlite://")
    microorm.create_all()
    yield
    microorm.close()

def test_takes(microorm_db):
    Order(name="a").save()

@pytest.mark.parametrize("number", range(2))
def test_own(own, number):
    assert Order.objects.count() == 0
    assert microorm.default_databases.aliases == ("default",)

def test_module(module):
    assert rows() == (1, 1)

def test_asks_for_one(own, request):
    request.getfixturevalue("microorm_count_statements")
    assert rows() == (1, 1)

def test_another(microorm_db):
    assert rows() == (1, 1)

def test_last(own):
    assert Order.objects.count() == 0
"""
    )
    result.assert_outcomes(passed=7)


def test_a_test_cannot_configure_the_databases_that_the_tests_leave_alone(run: Run) -> None:
    result = run(
        """
def test_takes(microorm_db):
    pass

def test_program():
    microorm.configure({"default": "sqlite:///shop.db", "archive": "sqlite:///archive.db"})

def test_adds(microorm_db):
    microorm_db.add("again", "sqlite:///shop.db")
"""
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*ConfigurationError: 'default' cannot be <Database 'default' sqlite:///shop.db>, which the tests leave alone: a test takes*"
        ]
    )
