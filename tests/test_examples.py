"""The examples run, print what they say they print, and the flights notice what is wrong with their data.

An example is run as a reader would run it: in a process of its own, in an empty directory, warnings being errors. What is
run again with other data is a fork of a process that has imported what it needs.
"""

import ast
import csv
import gzip
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.forks import ForkedProgram

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FLIGHTS = "flights-2013-01.csv.gz"
SCRIPTS = sorted(
    path.stem for path in EXAMPLES.glob("*.py") if path.stem not in ("__init__", "async_flights")
)
SECONDS_AND_SPEED = re.compile(r"in [\d.]+ s, [\d,]+ rows per second")

Done = subprocess.CompletedProcess[str]


def run(folder: Path, *arguments: str | Path) -> Done:
    """Run Python with *arguments* in *folder*, where `microorm` and `examples` can be imported."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "PYTHONUTF8": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedProgram]:
    """Runs the flights in an empty directory, in which nothing may be left."""
    folder = tmp_path_factory.mktemp("flights")
    with ForkedProgram(folder) as program:
        yield program
    assert list(folder.iterdir()) == []


@pytest.fixture
def python(program: ForkedProgram) -> Callable[..., Done]:
    """Runs Python with some arguments as such a fork."""

    def python(*arguments: str | Path) -> Done:
        output, errors, status = program.python(*map(str, arguments), COLUMNS="80", NO_COLOR="1")
        return Done(arguments, status, output, errors)

    return python


@pytest.fixture
def flights(python: Callable[..., Done]) -> Callable[..., Done]:
    return lambda *options: python("-m", "examples.flights", *options)


def stated(script: str) -> list[str]:
    """The lines that an example's docstring promises below `Prints:`."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{script}.py").read_text()), clean=False) or ""
    _, found, block = docstring.partition("Prints:\n")
    assert found, f"the docstring of {script}.py does not say what it prints"
    return lines(textwrap.dedent(block))


def lines(text: str) -> list[str]:
    """The lines of *text* with the time taken out, as no clock decides a test."""
    return [
        line.rstrip()
        for line in SECONDS_AND_SPEED.sub("in … s, … rows per second", text).strip("\n").splitlines()
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_prints_what_it_states(script: str, tmp_path: Path) -> None:
    done = run(tmp_path, EXAMPLES / f"{script}.py")
    assert (lines(done.stdout), done.stderr, done.returncode) == (stated(script), "", 0)
    assert list(tmp_path.iterdir()) == []


def test_the_bookshop_prints_what_it_states(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "examples.bookshop")
    assert (lines(done.stdout), done.stderr, done.returncode) == (stated("bookshop/__main__"), "", 0)
    assert list(tmp_path.iterdir()) == []


def test_an_example_is_short() -> None:
    """A newcomer reads each file at one go: 120 lines, and 85 if it shows one idea alone."""
    files = {path: len(path.read_text().splitlines()) for path in EXAMPLES.rglob("*.py")}
    assert {path.name: length for path, length in files.items() if length >= 120} == {}
    lengths = {script: files[EXAMPLES / f"{script}.py"] for script in SCRIPTS if script != "tenants"}
    assert {script: length for script, length in lengths.items() if length >= 85} == {}


def test_the_index_leads_to_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text()
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {"__init__.py"}
    packages = {path.parent.name for path in EXAMPLES.glob("*/__init__.py")}
    linked = set(re.findall(r"^\| \[[^\]]+\]\(([^)]+)\)", index, re.MULTILINE))
    assert {name for name in linked if "/" not in name} == scripts | packages
    assert [name for name in linked if not (EXAMPLES / name).exists()] == []


@pytest.mark.timeout(300)  # some seconds of work, on a machine that may be busy
def test_a_month_of_flights_prints_the_totals_it_states(tmp_path: Path) -> None:
    """Exit status 0, the stated summary (27,004 flights, 4,479 and 680 that refer to nothing), nothing left behind."""
    done = run(tmp_path, "-m", "examples.flights")
    wanted = lines((EXAMPLES / "flights" / "output.txt").read_text())
    assert (lines(done.stdout), done.stderr, done.returncode) == (wanted, "", 0)
    assert SECONDS_AND_SPEED.search(done.stdout)
    assert list(tmp_path.iterdir()) == []


CUT = """
import runpy
import sys
from pathlib import Path

from examples.flights import __main__ as flights
from examples.flights.totals import PUBLISHED

PUBLISHED.clear()
PUBLISHED["flight"] = 1_500
kind, data = sys.argv[1:]
if kind == "asynchronous":
    flights.DATA = Path(data)
    runpy.run_module("examples.async_flights", run_name="__main__")
else:
    flights.main(["--data", data])
"""


def test_flights_by_coroutines_print_the_same_summary(some_data: Path, python: Callable[..., Done]) -> None:
    """Of a part of the data, and of what is published of it; a batch is rolled back in both."""
    done = python("-c", CUT, "asynchronous", some_data)
    wanted = python("-c", CUT, "synchronous", some_data)
    summary, found, _ = wanted.stdout.partition("\n\nFrom where to where")
    assert (wanted.stderr, wanted.returncode, found) == ("", 0, "\n\nFrom where to where")
    assert (lines(done.stdout), done.stderr, done.returncode) == (lines(summary), "", 0)
    assert "1,500" in summary


@pytest.mark.servers_only
def test_flights_load_into_servers(
    url: str, other_url: str, some_data: Path, flights: Callable[..., Done]
) -> None:
    """Cut data: all that is wrong is that flights are missing, and nothing is printed as an error but that."""
    done = flights("--data", some_data, "--database", url, "--second", other_url)
    wrong = dict(line.removeprefix("wrong total: ").split(": ", 1) for line in done.stderr.splitlines())
    assert wrong.keys() == {
        "airport",
        "flight",
        "plane",
        "weather",
        "planes not listed",
        "destinations not listed",
    }
    assert done.returncode == 1


@pytest.fixture
def some_data(tmp_path: Path) -> Path:
    """A copy of the data cut to 1,500 flights, so that a second batch is rolled back, and a little of the rest."""
    folder = tmp_path / "data"
    shutil.copytree(EXAMPLES / "data", folder)
    for name, count in (("planes.csv", 50), ("weather.csv.gz", 50), (FLIGHTS, 1_500)):
        rewrite(folder / name, lambda rows, count=count: rows[: count + 1])
    kept = {"faa", "EWR", "JFK", "LGA"}  # the header and what the flights refer to
    rewrite(folder / "airports.csv", lambda rows: [row for row in rows if row[0] in kept])
    return folder


def rewrite(path: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    """Change the rows of a CSV file, the header being the first."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    with opener(path, "wt", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(change(rows))


def with_value(number: int, column: str, value: str) -> Callable[[list[list[str]]], list[list[str]]]:
    """A change of one value of one row."""

    def change(rows: list[list[str]]) -> list[list[str]]:
        rows[number][rows[0].index(column)] = value
        return rows

    return change


def test_lost_flights_are_noticed(some_data: Path, flights: Callable[..., Done]) -> None:
    """The files and the databases agree on 1,500 flights, and both are wrong."""
    done = flights("--data", some_data)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "wrong total: flight: 27,004 wanted, 1,500 found" in done.stderr
    assert "planes not listed: 4,479 wanted" in done.stderr
    assert "saves" not in done.stderr


BAD_DATA = {
    "a word for a number": (with_value(7, "distance", "far"), f"{FLIGHTS}, line 8: .*'far'"),
    "an impossible hour": (
        with_value(7, "time_hour", "2013-01-01T25:00:00Z"),
        f"{FLIGHTS}, line 8: hour must be",
    ),
    "a value too few": (
        lambda rows: [*rows[:5], rows[5][:-1]],
        f"{FLIGHTS}, line 6: 18 values for 19 columns",
    ),
    "a column too many": (
        lambda rows: [[*row, "x"] for row in rows],
        rf"{FLIGHTS}, line 1: no field for the columns \['x'\]",
    ),
    "a code too long": (
        with_value(7, "dest", "KJFK"),
        r"Flight\.dest_id must be str of at most 3 characters",
    ),
    "NA where a value must be": (with_value(7, "flight", "NA"), r"Flight\.flight must be int, not str 'NA'"),
    "a flight twice": (lambda rows: [*rows, rows[1]], "UNIQUE constraint failed: flight"),
}


@pytest.mark.parametrize(("change", "complaint"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_a_bad_row_is_named_and_ends_the_load(
    change: Callable[[list[list[str]]], list[list[str]]],
    complaint: str,
    some_data: Path,
    flights: Callable[..., Done],
) -> None:
    rewrite(some_data / FLIGHTS, lambda rows: change(rows[:40]))
    done = flights("--data", some_data)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(f"Error: .*{complaint}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_file_ends_the_load(some_data: Path, flights: Callable[..., Done]) -> None:
    path = some_data / FLIGHTS
    path.write_bytes(path.read_bytes()[:-2_000])
    done = flights("--data", some_data)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"Error: {FLIGHTS}, line \d+: Compressed file ended", done.stderr), done.stderr


def test_a_missing_file_ends_the_load(some_data: Path, flights: Callable[..., Done]) -> None:
    (some_data / "airlines.csv").unlink()
    done = flights("--data", some_data)
    assert (done.returncode, done.stdout) == (1, "")
    assert "airlines.csv" in done.stderr
    assert "Traceback" not in done.stderr


SABOTAGE = {
    "a value changed on its way": ("pre_save", "instance.distance += 1", "wrong total: sum of distance: "),
    "a value lost on its way": (
        "pre_save",
        "instance.arr_delay = None",
        "wrong total: UA arrived: .* wanted, 0 found",
    ),
    "a total that a rollback leaves": (
        "post_save",
        "signals.committed[instance.carrier_id] += 1",
        r"Error: 500 of 500 rows were rolled back and left traces in \['totals'\]",
    ),
    "a receiver silenced": (
        "pre_save",
        "post_save.disconnect(signals.count_committed, sender=Flight)",
        "wrong total: UA flights: .* wanted, 0 found",
    ),
    "an audit that is not written": (
        "pre_save",
        "post_save.disconnect(signals.write_audit, sender=Flight)",
        "wrong total: audit: ",
    ),
}


@pytest.mark.parametrize(("signal", "statement", "complaint"), SABOTAGE.values(), ids=SABOTAGE.keys())
def test_the_totals_bite(
    signal: str, statement: str, complaint: str, some_data: Path, python: Callable[..., Done]
) -> None:
    """What goes wrong between the file and the database, or in the receivers, is a wrong total."""
    program = f"""
        from examples.flights import signals
        from examples.flights.__main__ import main
        from examples.flights.models import Flight
        from microorm import receiver
        from microorm.signals import {", ".join({signal, "post_save"})}

        @receiver({signal}, sender=Flight)
        def sabotage(instance, **kwargs):
            {statement}

        main()
    """
    done = python("-c", textwrap.dedent(program), "--data", some_data)
    assert done.returncode == 1
    assert re.search(complaint, done.stderr), done.stderr


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in rows if not name.startswith("sqlite_")}


def test_a_second_load_into_kept_databases_is_refused(
    some_data: Path, tmp_path: Path, flights: Callable[..., Done]
) -> None:
    """The first leaves its two files, with the tables that the router sends there; the second changes nothing."""
    folder = tmp_path / "kept"
    flights("--data", some_data, "--keep", folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files.keys() == {"flights.db", "second.db"}
    assert tables(folder / "flights.db") == {"airline", "airport", "plane", "flight", "alembic_version"}
    assert tables(folder / "second.db") == {"weather", "audit", "alembic_version"}
    done = flights("--data", some_data, "--keep", folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: the table 'airline' already holds 16 rows" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize(
    "options",
    [
        ("--databse", "sqlite://"),
        ("--database", "nonsense"),
        ("--database", "sqlite:///a.db", "--second", "sqlite:///a.db"),
        ("--data", "nowhere"),
        ("--keep", "/dev/null/x"),
    ],
    ids=["unknown option", "no URL", "one database for two aliases", "no such directory", "no place for one"],
)
def test_wrong_usage_exits_with_2(
    options: tuple[str, ...], program: ForkedProgram, flights: Callable[..., Done]
) -> None:
    done = flights(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert list(program.folder.iterdir()) == []


def test_the_shipped_data_are_the_counts_of_their_readme() -> None:
    text = (EXAMPLES / "data" / "README.md").read_text()
    told = {
        name: int(count.replace(",", ""))
        for name, count in re.findall(r"^\| `(\S+)` \| ([\d,]+) ", text, re.M)
    }
    assert told.keys() == {path.name for path in (EXAMPLES / "data").glob("*.csv*")}
    for name, count in told.items():
        data = (EXAMPLES / "data" / name).read_bytes()
        content = gzip.decompress(data) if name.endswith(".gz") else data
        assert content.count(b"\n") - 1 == count
        assert not name.endswith(".gz") or gzip.compress(content, 9, mtime=0)[:10] == data[:10]
