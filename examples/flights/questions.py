"""Questions that counts and sums answer. Each is answered by one statement, whose rows are typed.

The queries follow relations. `Flight.plane.year` joins the planes and keeps the flights whose plane is not listed.
`Airline.flights.dep_delay > 600` asks whether such a flight exists, so no airline is found twice.
"""

from typing import Any

from sqlalchemy import BigInteger, Float, Row, case, cast, func

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


def delays(least: int = 1_000) -> list[Row[str, int, float]]:
    """How late do the large airlines arrive, on average?"""
    arrived = func.count(Flight.arr_delay)
    delay = func.avg(Flight.arr_delay, type_=Float())
    return (
        Flight.objects.group_by(Flight.carrier.name)
        .having(arrived >= least)
        .order_by(delay.desc())
        .values(Flight.carrier.name, arrived, delay)
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
    """What are the totals of the flights that were flown?"""
    # On PostgreSQL and MariaDB a sum is a decimal, and dividing it would not give a whole number.
    miles, minutes = (cast(func.sum(column), BigInteger) for column in (Flight.distance, Flight.air_time))
    return Flight.objects.filter(Flight.air_time.is_not(None)).aggregate(
        flights=func.count(),
        planes=func.count(Flight.plane_id.distinct()),
        miles=miles,
        days=minutes // (24 * 60),
        longest=func.max(Flight.arr_delay),
    )


def unlisted() -> list[Row[str, int, int]]:
    """Which destinations are not among the airports?"""
    return (
        Flight.objects.filter(Flight.dest.name.is_(None))
        .group_by(Flight.dest_id)
        .order_by(func.count().desc(), Flight.dest_id)
        .values(Flight.dest_id, func.count(), func.count(Flight.carrier_id.distinct()))
    )
