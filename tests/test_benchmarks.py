"""Benchmarks: the harness compares what was stored, keeps every figure, and names what is missing.

Sizes are tiny and no time is looked at.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from benchmarks import asynchronous, outbox
from benchmarks import contestant as roster
from benchmarks.contestants.core import Core, CoreObjects
from benchmarks.contestants.driver import Driver
from benchmarks.contestants.mapper import Mapper
from benchmarks.contestants.microorm import MicroORM, NotAsShipped
from benchmarks.contestants.postgresql import Psycopg, PsycopgMapper
from benchmarks.databases import SQLite, libpq, set_by
from benchmarks.growth import fill, grow
from benchmarks.growth_jobs import JOBS, measured
from benchmarks.imports import measure_imports
from benchmarks.postgresql import PostgreSQL
from benchmarks.report import summary
from benchmarks.rounds import measure
from benchmarks.run import main
from benchmarks.workloads import KEYS, WORKLOADS, chosen
from tests.servers import KINDS, open_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # whole programs run here

ROOT = Path(__file__).parent.parent
HOUSE = (Driver, Mapper, Core, CoreObjects, MicroORM)
ROWS = 40
PEERS_DO = "insert,bulk,get_pk,load,change,delete"
UNCOLLECTED = """
import gc, runpy, sys

gc.collect = lambda: 0
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a program without the collection before each sample, which walks all objects of all libraries."""


@pytest.fixture(autouse=True)
def _uncollected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave out the collection before each sample: it walks all objects of the test process, and no time counts."""
    monkeypatch.setattr(gc, "collect", lambda: 0)
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What is kept of a run of everything, as it comes back from JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        record = measure(HOUSE, WORKLOADS, database=SQLite(), rows=ROWS, rounds=2)
    settings = {"rounds": 2, "rows": ROWS, "collector": "on"}
    return json.loads(json.dumps(summary(record, HOUSE, WORKLOADS, SQLite(), {}, settings)))


def test_all_contestants_store_and_return_what_the_driver_does(kept: dict[str, Any]) -> None:
    assert kept["mismatches"] == []


def test_every_workload_has_every_contestant_or_says_why_not(kept: dict[str, Any]) -> None:
    assert list(kept["workloads"]) == list(KEYS)
    for workload in kept["workloads"].values():
        assert list(workload["contestants"]) == [each.name for each in HOUSE]
        for figures in workload["contestants"].values():
            assert figures.get("lacks") or len(figures["cpu"]) == len(figures["wall"]) == 2


def test_driver_and_microorm_do_every_workload(kept: dict[str, Any]) -> None:
    for workload in kept["workloads"].values():
        assert "lacks" not in workload["contestants"]["driver"]
        assert "lacks" not in workload["contestants"]["microorm"]


def test_ratios_are_to_the_driver_and_to_core(kept: dict[str, Any]) -> None:
    load = kept["workloads"]["load"]["contestants"]
    assert load["driver"]["to_driver"] == 1
    assert load["core"]["to_core"] == 1
    assert load["microorm"]["to_driver"] > 0
    assert kept["workloads"]["send_1"]["contestants"]["microorm"]["to_core"] is None


def test_the_way_to_the_driver_is_recorded_for_microorm(kept: dict[str, Any]) -> None:
    ways = {
        key: workload["contestants"]["microorm"].get("statements")
        for key, workload in kept["workloads"].items()
    }
    compiled = ("insert", "get", "filter", "change", "delete")
    for key in (each.key for each in chosen(",".join(compiled))):
        assert ways[key]["microorm"] >= ROWS / 20, key
        assert ways[key].get("sqlalchemy", 0) <= 1, f"{key}: no more than its BEGIN"
    assert set(kept["workloads"]["get"]["contestants"]["core"]["statements"]) == {"sqlalchemy"}


def test_the_machine_is_described_without_its_name(kept: dict[str, Any]) -> None:
    assert set(kept["machine"]) == {
        "processor",
        "cores",
        "system",
        "architecture",
        "python",
        "empty call, ns",
    }


def test_receivers_are_called_once_for_each_row(kept: dict[str, Any]) -> None:
    """What a receiver counted is compared with the driver's, so that it is enough that all can do these."""
    for key in ("insert_alone_heard", "insert_alone_on_commit"):
        contestants = kept["workloads"][key]["contestants"]
        assert [name for name, each in contestants.items() if "lacks" in each] == ["core_objects"]


def test_a_run_for_the_page_keeps_no_samples(tmp_path: Path) -> None:
    assert _run(tmp_path, "--only", "load", "--no-samples").exit_code == 0

    figures = json.loads((tmp_path / "kept.json").read_text())["workloads"]["load"]["contestants"]["microorm"]
    assert {"cpu_median", "cpu_min", "wall_median", "wall_min", "to_driver"} < figures.keys()
    assert "cpu" not in figures


@pytest.mark.backends("postgresql")
def test_on_postgresql_all_store_and_return_what_the_driver_does(url: str) -> None:
    house, database = (Psycopg, PsycopgMapper, Core, MicroORM), PostgreSQL(url)
    workloads = chosen("insert,bulk_500,get_inside,load,filter_expression,change_alone,delete")
    record = measure(house, workloads, database=database, rows=20, rounds=1)
    settings = {"rounds": 1, "rows": 20, "collector": "on"}
    kept = summary(record, house, workloads, database, {}, settings)

    assert kept["mismatches"] == []
    assert kept["database"]["clock"] == "wall"
    get = kept["workloads"]["get_inside"]["contestants"]
    assert get["microorm"]["statements"]["microorm"] == 20
    assert get["driver"]["statements"]["benchmarks"] >= 20


@pytest.mark.backends("postgresql")
def test_on_postgresql_nothing_is_left_behind(url: str) -> None:
    database, schemas = PostgreSQL(url), "SELECT count(*) FROM pg_namespace WHERE nspname = %s"
    with psycopg.connect(**libpq(database.url)) as connection:
        with database.rooms("server") as room:
            made = set_by(room("driver"))["search_path"]
            assert connection.execute(schemas, (made,)).fetchone() == (1,)
        assert connection.execute(schemas, (made,)).fetchone() == (0,)


@pytest.mark.backends("postgresql")
def test_on_postgresql_only_what_a_dead_run_left_is_swept(url: str) -> None:
    database, dead = PostgreSQL(url), f"microorm_bench_{token_hex(4)}_driver"
    names = "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)"
    with psycopg.connect(**libpq(database.url), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {dead}".encode())
        with database.rooms("server") as room:
            alive = set_by(room("driver"))["search_path"]
            with database.rooms("server"):
                assert connection.execute(names, ([dead, alive],)).fetchall() == [(alive,)]


@pytest.mark.backends("sqlite-file", "postgresql")
def test_peers_store_and_return_what_the_driver_does(backend: str, fresh_url: Any, tmp_path: Path) -> None:
    """In a process of its own, for some of the libraries can be set up only once; all of them in one."""
    target = tmp_path / "kept.json"
    names = ["--contestants", ",".join(roster.PEERS), "--only", PEERS_DO]
    sizes = ["--rows", "20", "--rounds", "1", "--json", str(target)]
    where = ["--database", "postgresql"] if backend == "postgresql" else []
    command = [sys.executable, "-c", UNCOLLECTED, "benchmarks", *names, *sizes, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads(target.read_text())
    assert kept["mismatches"] == []
    for name in roster.PEERS.keys() - kept["missing"].keys():
        for key, workload in kept["workloads"].items():
            figures = workload["contestants"][name]
            assert figures.get("lacks") or figures["wall_median"] > 0, (name, key)
    if kept["missing"]:
        pytest.skip(f"all but {', '.join(kept['missing'])}, which benchmarks/peers.txt would install")


@pytest.mark.backends("sqlite-file", "postgresql")
def test_what_is_awaited_stores_and_returns_what_the_driver_does(
    backend: str, fresh_url: Any, tmp_path: Path
) -> None:
    """In a process of its own, as the peers are."""
    target = tmp_path / "kept.json"
    where = ["--database", "postgresql"] if backend == "postgresql" else []
    sizes = ["--rows", "20", "--rounds", "1", "--json", str(target)]
    command = [sys.executable, "-c", UNCOLLECTED, "benchmarks.asynchronous", "--peers", *sizes, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads(target.read_text())
    assert kept["mismatches"] == []
    assert kept["database"]["clock"] == "wall"
    for key, workload in kept["workloads"].items():
        for name, figures in workload["contestants"].items():
            assert figures.get("lacks") or figures["wall_median"] > 0, (name, key)
        assert not {"driver", "microorm"} & {
            name for name, each in workload["contestants"].items() if "lacks" in each
        }
    if kept["missing"]:
        pytest.skip(f"all but {', '.join(kept['missing'])}, which benchmarks/peers.txt would install")


@pytest.mark.parametrize("database", outbox.KINDS)
def test_the_outbox_is_clocked_on_each_database(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small batches: each commit waits for the disk."""
    monkeypatch.setattr(outbox, "BATCH", 10)
    monkeypatch.setattr(outbox, "DRAINED", 20)
    if database in KINDS:
        server = open_server(database)
        if isinstance(server, str):
            pytest.skip(server)
        server.close()
    target = tmp_path / "kept.json"
    arguments = ["--database", database, "--rows", "10", "--rounds", "1", "--json", str(target)]
    result = CliRunner().invoke(outbox.main, arguments)

    assert result.exit_code == 0, result.output
    kept = json.loads(target.read_text())[database]
    assert {len(taken) for taken in kept["seconds"].values()} == {1}
    assert "durable save / save, a transaction each" in result.output


def test_an_unknown_awaited_workload_is_refused() -> None:
    result = CliRunner().invoke(asynchronous.main, ["--only", "send"])

    assert result.exit_code == 2
    assert "no workload named 'send'; known: insert, insert_receiver," in result.output


@pytest.mark.parametrize("job", JOBS)
def test_a_growing_table_is_worked_on_as_the_driver_does(job: str, tmp_path: Path) -> None:
    fill(tmp_path / "source.db", 200)
    driver, ours = (measured(kind, JOBS[job], 200, tmp_path / "source.db") for kind in (Driver, MicroORM))

    for what in ("steps", "returned", "stored"):
        assert ours[what] == driver[what]


def test_growth_is_measured_in_processes_for_each_size_and_weighs_instances() -> None:
    said: list[str] = []
    found = grow(["driver", "microorm"], [1_000], limit=1.0, say=said.append, jobs=["load"])

    assert found.mismatches == []
    assert said == ["load, 1,000 rows"]
    assert found.jobs["load"]["microorm"]["1000"]["steps"] == 1_000
    assert found.weights["microorm"]["traced"] > found.weights["driver"]["traced"] > 0


def test_a_server_that_does_not_answer_is_said(tmp_path: Path) -> None:
    nowhere = "postgresql+psycopg://postgres:secret@127.0.0.1:1/test"
    result = _run(tmp_path, "--database", "postgresql", "--url", nowhere)

    assert result.exit_code == 1
    assert (
        "postgresql cannot be measured: no PostgreSQL at postgresql+psycopg://postgres:***@" in result.output
    )


def test_another_checkout_takes_part_in_processes_of_its_own(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "microorm", copy / "microorm")
    result = _run(tmp_path, "--contestants", "driver", "--only", "load", "--against", str(copy))

    assert result.exit_code == 0, result.output
    assert "microorm before and after, by CPU time" in result.output
    kept = json.loads((tmp_path / "kept.json").read_text())
    contestants = kept["workloads"]["load"]["contestants"]
    assert list(contestants) == ["driver", "microorm_before", "microorm"]
    assert contestants["microorm_before"]["statements"] == {"microorm": 1}
    assert contestants["microorm"]["to_before"] > 0


def test_imports_are_measured_in_fresh_processes() -> None:
    found = measure_imports(1)

    assert list(found) == ["sqlalchemy", "microorm"]
    assert all(figures["wall_min"] == figures["wall_median"] > 0 for figures in found.values())


def test_a_checkout_without_microorm_is_refused(tmp_path: Path) -> None:
    result = _run(tmp_path, "--against", str(tmp_path))

    assert result.exit_code == 2
    assert "no package microorm in" in result.output


def test_a_process_that_fails_is_named(tmp_path: Path) -> None:
    package = tmp_path / "microorm"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(7)\n")
    result = _run(tmp_path, "--only", "load", "--against", str(tmp_path))

    assert result.exit_code == 1
    assert "the process of microorm_before ended with exit code 7" in result.output


def test_an_unknown_contestant_is_refused(tmp_path: Path) -> None:
    result = _run(tmp_path, "--contestants", "poney")

    assert result.exit_code == 2
    assert "no contestant named 'poney'; known: driver," in result.output


class Forgetful(Driver):
    """Stores NULL where there was a note."""

    name = "forgetful"

    def insert(self, rows: Sequence[Any]) -> list[Any]:
        return super().insert([(*row[:3], None, row[4]) for row in rows])


class Lossy(Driver):
    """Says that it deleted, and did not."""

    name = "lossy"

    def delete(self, instances: Sequence[Any]) -> None:
        """Delete nothing."""


class Stringly(Driver):
    """Returns the right values in the wrong types."""

    name = "stringly"

    def load(self) -> list[Any]:
        return [(*row[:3], float(row[3]), row[4], float(row[5])) for row in super().load()]


class Deaf(Mapper):
    """Takes a receiver and never calls it."""

    name = "deaf"

    def save(self, item: Any) -> Any:
        receivers, self.saved.receivers = self.saved.receivers, []
        try:
            return super().save(item)
        finally:
            self.saved.receivers = receivers


@pytest.mark.parametrize(
    ("contestant", "workload", "said"),
    [
        (Forgetful, "insert", "forgetful, insert, stored: "),
        (Lossy, "delete", "lossy, delete, stored: 40 rows where the driver has 4"),
        (Stringly, "load", "stringly, load, returned: "),
        (Deaf, "insert_heard", "deaf, insert_heard, receiver called: (0,) where the driver has (40,)"),
    ],
)
def test_a_contestant_that_cheats_is_named(contestant: type[Driver], workload: str, said: str) -> None:
    record = measure([Driver, contestant], chosen(workload), database=SQLite(), rows=ROWS, rounds=1)

    assert any(mismatch.startswith(said) for mismatch in record.mismatches)


def test_a_wrong_row_makes_the_run_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.run.gather", lambda names, database: ([Driver, Forgetful], {}))
    result = _run(tmp_path, "--only", "insert")

    assert result.exit_code == 1
    assert "forgetful, insert, stored" in result.output
    assert json.loads((tmp_path / "kept.json").read_text())["mismatches"]


def test_a_run_prints_the_table_and_keeps_it(tmp_path: Path) -> None:
    result = _run(tmp_path, "--only", "bulk,get")

    assert result.exit_code == 0, result.output
    assert "bulk insert of 500 rows" in result.output
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert list(kept["workloads"]) == ["bulk", "bulk_500", "get", "get_inside", "get_pk", "get_pk_inside"]
    assert "imports" not in kept


def test_a_missing_peer_is_named_and_a_missing_house_contestant_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "PEERS", {"oldest": ("oldest", "Oldest")})
    present, missing = roster.gather(["driver", "oldest"])
    assert present == [Driver]
    assert "oldest" in missing["oldest"]

    monkeypatch.setattr("benchmarks.run.gather", lambda names, database: ([Driver], {"pony": "no wheel"}))
    result = _run(tmp_path, "--only", "load")
    assert result.exit_code == 0
    assert "missing: pony (no wheel)" in result.output
    monkeypatch.setattr("benchmarks.run.gather", lambda names, database: ([Driver], {"core": "no wheel"}))
    assert _run(tmp_path, "--only", "load").exit_code == 1


def test_microorm_is_not_clocked_when_it_runs_stripped() -> None:
    class Stripped(MicroORM):
        def _model(self) -> Any:
            item = super()._model()
            item.changed_fields = frozenset()
            return item

    with pytest.raises(NotAsShipped, match="changed_fields"):
        measure([Driver, Stripped], chosen("load"), database=SQLite(), rows=ROWS, rounds=1)


def test_an_unknown_workload_is_refused(tmp_path: Path) -> None:
    result = _run(tmp_path, "--only", "inset")

    assert result.exit_code == 2
    assert "no workload named 'inset'; known: insert," in result.output


def _run(folder: Path, *arguments: str) -> Any:
    target = str(folder / "kept.json")
    return CliRunner().invoke(main, ["--rows", str(ROWS), "--rounds", "1", "--json", target, *arguments])
