"""The questions of the flights example are answered as plain SQL answers them, each by one statement."""

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import microorm
from examples.flights import more_questions, questions
from examples.flights.models import Airline, Airport, Flight, Plane
from microorm.testing import count_statements, no_lazy_loads

pytestmark = [pytest.mark.slow, pytest.mark.backends("sqlite-file", "postgresql", "mariadb")]

DATA = Path(__file__).parent.parent / "examples" / "data"
FILES: dict[Any, str] = {
    Airline: "airlines.csv",
    Airport: "airports.csv",
    Plane: "planes.csv",
    Flight: "flights-2013-01.csv.gz",
}
PARSERS: dict[Any, Any] = {int: int, float: float, datetime: datetime.fromisoformat}
RELATIONS = {"carrier": "carrier_id", "tailnum": "plane_id", "origin": "origin_id", "dest": "dest_id"}

SQL = {
    "busiest_routes": """
        SELECT a.name, f.dest, COUNT(*) FROM flight f JOIN airport a ON a.faa = f.origin
        GROUP BY a.name, f.dest ORDER BY 3 DESC, 1, 2 LIMIT 5""",
    "delays": """
        SELECT a.name, COUNT(*), SUM(f.arr_delay) * 1.0 / COUNT(*)
        FROM flight f JOIN airline a ON a.carrier = f.carrier WHERE f.arr_delay IS NOT NULL
        GROUP BY a.carrier, a.name HAVING COUNT(*) >= 1000 ORDER BY 3 DESC""",
    "ages": """
        SELECT aged.decades, COUNT(DISTINCT tailnum), COUNT(*), SUM(CASE WHEN dep_delay > 14 THEN 1 ELSE 0 END)
        FROM (
            SELECT f.tailnum, f.dep_delay, (f.year - p.year - (f.year - p.year) % 10) / 10 AS decades
            FROM flight f, plane p WHERE p.tailnum = f.tailnum AND p.year IS NOT NULL
        ) AS aged
        GROUP BY aged.decades ORDER BY 1""",
    "ten_hours_late": """
        SELECT DISTINCT a.name FROM airline a JOIN flight f ON f.carrier = a.carrier
        WHERE f.dep_delay > 600 ORDER BY 1""",
    "never_reached": """
        SELECT tzone, COUNT(*) FROM airport WHERE faa NOT IN (SELECT dest FROM flight)
        GROUP BY tzone ORDER BY 2 DESC, 1 LIMIT 5""",
    "in_the_air": """
        SELECT COUNT(*), COUNT(DISTINCT tailnum), SUM(distance),
               (SUM(air_time) - SUM(air_time) % 1440) / 1440, MAX(arr_delay)
        FROM flight WHERE air_time IS NOT NULL""",
    "worst_starts": """
        SELECT a.name, l.name, f.flight, f.dep_delay
        FROM (SELECT origin, MAX(dep_delay) AS delay FROM flight GROUP BY origin) AS worst
        JOIN flight f ON f.origin = worst.origin AND f.dep_delay = worst.delay
        JOIN airport a ON a.faa = f.origin JOIN airline l ON l.carrier = f.carrier ORDER BY 1""",
    "unlisted": """
        SELECT f.dest, COUNT(*), COUNT(DISTINCT f.carrier) FROM flight f
        WHERE NOT EXISTS (SELECT 1 FROM airport a WHERE a.faa = f.dest) GROUP BY f.dest ORDER BY 2 DESC, 1""",
    "late_in_a_row": """
        WITH numbered AS (
            SELECT origin, dep_delay,
                   ROW_NUMBER() OVER (PARTITION BY origin ORDER BY time_hour, sched_dep_time, id) AS place
            FROM flight WHERE dep_delay IS NOT NULL
        ), islands AS (
            SELECT origin, place - ROW_NUMBER() OVER (PARTITION BY origin ORDER BY place) AS island
            FROM numbered WHERE dep_delay >= 15
        ), sizes AS (SELECT origin, COUNT(*) AS size FROM islands GROUP BY origin, island)
        SELECT origin, MAX(size) FROM sizes GROUP BY origin ORDER BY origin""",
    "longest_to_the_west": """
        SELECT l.name, there.name, p.model, f.air_time FROM flight f
        JOIN airline l ON l.carrier = f.carrier
        JOIN airport here ON here.faa = f.origin
        JOIN airport there ON there.faa = f.dest
        LEFT JOIN plane p ON p.tailnum = f.tailnum
        WHERE there.tz < here.tz AND f.air_time > 0 ORDER BY f.air_time DESC, f.id LIMIT 5""",
}


@pytest.fixture
def empty(url: str) -> Iterator[None]:
    """The models' own tables."""
    microorm.configure(url)
    try:
        microorm.create_all()
        yield
    finally:
        microorm.close()


@pytest.fixture
def loaded(empty: None, backend: str) -> None:
    """All the data but the weather; of the flights a third on a server, for the sake of time."""
    for model, file in FILES.items():
        most = 9_000 if model is Flight and backend != "sqlite-file" else None
        model.objects.bulk_create(model(**row) for row in islice(rows(DATA / file, model), most))


def rows(path: Path, model: Any) -> Iterator[dict[str, Any]]:
    """The lines of a file, as the constructor of *model* takes them."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        names = [RELATIONS.get(name, name) if model is Flight else name for name in next(lines)]
        kinds = [model.__schema__.by_name[name].python_type for name in names]
        parsers = [PARSERS.get(kind, str) for kind in kinds]
        for line in lines:
            values = [
                None if value == "NA" else parse(value) for parse, value in zip(parsers, line, strict=True)
            ]
            yield dict(zip(names, values, strict=True))


def answer(name: str) -> list[tuple[Any, ...]]:
    """What the question *name* answers, as plain rows."""
    found = (getattr(questions, name, None) or getattr(more_questions, name))()
    if name == "ten_hours_late":
        return [(each,) for each in found]
    if name == "in_the_air":
        return [tuple(found)]
    if name == "longest_to_the_west":
        return [
            (each.carrier.name, each.dest.name, each.plane and each.plane.model, each.air_time)
            for each in found
        ]
    return [tuple(row) for row in found]


def in_sql(name: str) -> list[tuple[Any, ...]]:
    with microorm.connection() as connection:
        return [tuple(row) for row in connection.execute(text(SQL[name]))]


def about(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row that does not mind how many decimals a database makes of a mean, and of which type."""
    return tuple(
        pytest.approx(float(value), abs=0.001) if isinstance(value, (float, Decimal)) else value
        for value in row
    )


def test_each_question_is_asked_in_sql_too() -> None:
    """All public functions of the two modules are questions, and nothing else is."""
    asked = {
        name
        for module in (questions, more_questions)
        for name, each in vars(module).items()
        if getattr(each, "__module__", None) == module.__name__ and name != "streaks"
    }
    assert asked == SQL.keys()
    assert len(SQL) == 10


@pytest.mark.timeout(300)
def test_the_questions_are_answered_as_plain_sql_answers_them(loaded: None) -> None:
    """The same rows in the same order, some of them, by one statement each, and nothing of it is loaded later."""
    for name in SQL:
        with count_statements() as counted, no_lazy_loads():
            found = answer(name)
        assert (name, found) == (name, [*map(about, in_sql(name))])
        assert (name, counted.count, bool(found)) == (name, 1, True)


def test_a_flight_may_name_a_plane_and_a_destination_that_are_not_listed(empty: None) -> None:
    """Where the data is loose, no row is None or an error when it is read; elsewhere it cannot be written."""
    for model, file in FILES.items():
        row = next(rows(DATA / file, model)) | ({"origin_id": "04G"} if model is Flight else {})
        if model is Flight:
            with pytest.raises(IntegrityError), microorm.atomic():
                Flight(**row).save()
            row["carrier_id"] = "9E"
        model(**row).save()
    flight = Flight.objects.get()
    assert (flight.carrier.name, flight.origin.faa) == ("Endeavor Air Inc.", "04G")
    assert (flight.plane_id, flight.plane) == ("N14228", None)
    with pytest.raises(Airport.DoesNotExist, match=r"Flight\.dest of .*faa='IAH'"):
        _ = flight.dest
    assert Airport.objects.get().departures.all() == [flight]
    assert Plane.objects.get().flights.count() == 0
