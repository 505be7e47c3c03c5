"""Ten questions about the flights. Each is answered by one statement with typed rows or instances.

The queries follow relations. `Flight.plane.year` joins the planes and keeps the flights whose plane is not listed.
`Airline.flights.dep_delay > 600` asks whether such a flight exists, so no airline is found twice.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import BigInteger, Float, Row, case, cast, func, select

from examples.flights.models import Airline, Airport, Flight

LATE = 15


def busiest_routes(most: int = 5) -> list[Row[str, str, int]]:
    """From where to where do most flights go?"""
    flights = func.count()
    return (
        Flight.objects.group_by(Flight.origin.name, Flight.dest_id)
        .order_by(flights.desc(), Flight.origin.name, Flight.dest_id)
        .limit(most)
        .values(Flight.origin.name, Flight.dest_id, flights)
    )


def delays(least: int = 1_000) -> list[Row[str, int, int, float]]:
    """How late do the large airlines arrive, month by month?"""
    arrived = func.count(Flight.arr_delay)
    delay = func.avg(Flight.arr_delay, type_=Float())
    return (
        Flight.objects.group_by(Flight.carrier.name, Flight.month)
        .having(arrived >= least)
        .order_by(Flight.month, delay.desc())
        .values(Flight.carrier.name, Flight.month, arrived, delay)
    )


def ages() -> list[Row[int, int, int, int]]:
    """Do old planes leave late?"""
    # The label lets PostgreSQL see that the SELECT and the GROUP BY contain the same expression.
    decades = ((Flight.year - Flight.plane.year) // 10).label("decades")
    return (
        Flight.objects.filter(Flight.plane.year.is_not(None))
        .group_by(decades)
        .order_by(decades)
        .values(
            decades,
            func.count(Flight.plane_id.distinct()),
            func.count(),
            func.count(case((Flight.dep_delay >= LATE, 1))),
        )
    )


def ten_hours_late() -> list[str]:
    """Which airlines had a flight that left more than ten hours late?"""
    return (
        Airline.objects.filter(Airline.flights.dep_delay > 600).order_by(Airline.name).scalars(Airline.name)
    )


def never_reached(most: int = 5) -> list[Row[str | None, int]]:
    """In which time zones are the airports that no flight goes to?"""
    airports = func.count()
    return (
        Airport.objects.exclude(Airport.arrivals.distance > 0)
        .group_by(Airport.tzone)
        .order_by(airports.desc(), Airport.tzone)
        .limit(most)
        .values(Airport.tzone, airports)
    )


def in_the_air() -> Row[*tuple[Any, ...]]:
    """What are the totals of the month?"""
    # On PostgreSQL and MariaDB a sum is a decimal, and dividing it would not give a whole number.
    miles, minutes = (cast(func.sum(column), BigInteger) for column in (Flight.distance, Flight.air_time))
    return Flight.objects.filter(Flight.air_time.is_not(None)).aggregate(
        flights=func.count(),
        planes=func.count(Flight.plane_id.distinct()),
        miles=miles,
        days=minutes // (24 * 60),
        longest=func.max(Flight.arr_delay),
    )


def worst_starts() -> list[Row[str, str, int, int | None]]:
    """Which flight left each airport with the longest delay?"""
    # The window function comes from SQLAlchemy. A subquery combines it with the statement of a query.
    rank = func.row_number().over(
        partition_by=Flight.origin_id, order_by=(Flight.dep_delay.desc(), Flight.id)
    )
    left = Flight.objects.filter(Flight.dep_delay.is_not(None)).statement
    ranked = left.with_only_columns(Flight.id, rank.label("rank")).subquery()
    return (
        Flight.objects.filter(Flight.id.in_(select(ranked.c.id).where(ranked.c.rank == 1)))
        .order_by(Flight.origin.name)
        .values(Flight.origin.name, Flight.carrier.name, Flight.flight, Flight.dep_delay)
    )


def unlisted() -> list[Row[str, int, int]]:
    """Which destinations are not among the airports?"""
    return (
        Flight.objects.filter(Flight.dest.name.is_(None))
        .group_by(Flight.dest_id)
        .order_by(func.count().desc(), Flight.dest_id)
        .values(Flight.dest_id, func.count(), func.count(Flight.carrier_id.distinct()))
    )


def late_in_a_row() -> list[tuple[str, int]]:
    """How many flights in a row left late, at most, from each airport?"""
    # The rows are streamed in chunks, and only two fields of each are loaded.
    flights = Flight.objects.filter(Flight.dep_delay.is_not(None)).only(Flight.origin_id, Flight.dep_delay)
    ordered = flights.order_by(Flight.origin_id, Flight.time_hour, Flight.sched_dep_time, Flight.id)
    return [
        (airport, max(streaks(group)))
        for airport, group in groupby(ordered.iterate(), lambda flight: flight.origin_id)
    ]


def streaks(flights: Iterator[Flight]) -> Iterator[int]:
    """Yield 0, and then the length of each series of late flights in *flights*."""
    yield 0
    for late, group in groupby(flights, lambda flight: (flight.dep_delay or 0) >= LATE):
        if late:
            yield sum(1 for _ in group)


def longest_to_the_west(most: int = 5) -> list[Flight]:
    """Which flights to the west are in the air for the longest time?"""
    return (
        Flight.objects.filter(Flight.dest.tz < Flight.origin.tz, Flight.air_time.is_not(None))
        .select_related(Flight.carrier, Flight.dest, Flight.plane)
        .order_by(Flight.air_time.desc(), Flight.id)
        .limit(most)
        .all()
    )
