"""Totals: the numbers in the databases, queried in SQL, and what is different from those that were expected.

`totals_in_files` counts them in the CSV files; the two counts share no code. A total is a name and a whole number, so two
counts can be compared as two dictionaries.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import case, func, or_, select

import microorm
from examples.flights.models import Airline, Airport, Audit, Flight, Plane, Weather
from microorm import Model

FILES: dict[type[Model[Any]], str] = {
    Airline: "airlines.csv",
    Airport: "airports.csv",
    Plane: "planes.csv",
    Weather: "weather.csv.gz",
    Flight: "flights-2013-01.csv.gz",
}

MODELS: list[type[Model[Any]]] = [*FILES, Audit]

PUBLISHED = {
    "airline": 16,
    "airport": 1_458,
    "plane": 3_322,
    "weather": 26_115,
    "flight": 27_004,
    "planes not listed": 4_479,
    "destinations not listed": 680,
}

LATE = 15
SUMS = ("dep_delay", "arr_delay", "air_time", "distance", "flight")


def in_databases() -> dict[str, int]:
    """Count the same totals in the databases."""
    totals = {model.__table__.name: model.objects.count() for model in MODELS}
    no_plane = or_(Flight.plane_id.is_(None), Flight.plane_id.not_in(select(Plane.tailnum)))
    totals["planes not listed"] = Flight.objects.filter(no_plane).count()
    totals["destinations not listed"] = Flight.objects.filter(
        Flight.dest_id.not_in(select(Airport.faa))
    ).count()
    return totals | carriers() | sums() | empty_columns()


def carriers() -> dict[str, int]:
    """Count the flights of each airline, those cancelled, arrived and late, and the minutes of delay."""
    figures = {
        "flights": func.count(),
        "cancelled": func.count() - func.count(Flight.dep_time),
        "arrived": func.count(Flight.arr_delay),
        "late": func.sum(case((Flight.arr_delay >= LATE, 1), else_=0)),
        "minutes": func.coalesce(func.sum(Flight.arr_delay), 0),
    }
    query = select(Flight.carrier_id, *figures.values()).group_by(Flight.carrier_id)
    with microorm.connection("default") as connection:
        lines = connection.execute(query).all()
    return {
        f"{carrier} {name}": int(number)
        for carrier, *numbers in lines
        for name, number in zip(figures, numbers, strict=True)
    }


def sums() -> dict[str, int]:
    """Add up some columns of the flights."""
    query = select(*[func.coalesce(func.sum(Flight.__table__.c[column]), 0) for column in SUMS])
    with microorm.connection("default") as connection:
        line = connection.execute(query).one()
    return {f"sum of {column}": int(number) for column, number in zip(SUMS, line, strict=True)}


def empty_columns() -> dict[str, int]:
    """Count, for each column of the files, the rows in which it is NULL."""
    totals: dict[str, int] = {}
    for model in FILES:
        columns = [column for column in model.__table__.columns if column.name != "id"]
        query = select(*[func.count() - func.count(column) for column in columns])
        with microorm.connection("second" if model is Weather else "default") as connection:
            line = connection.execute(query).one()
        for column, number in zip(columns, line, strict=True):
            totals[f"{model.__table__.name} without {column.name}"] = int(number)
    return totals


def differences(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Return a line for every total that differs. A missing total counts as 0."""
    return [
        f"{name}: {wanted.get(name, 0):,} wanted, {found.get(name, 0):,} found"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name, 0) != found.get(name, 0)
    ]
