"""Questions that instances, streams and window functions answer, each by one statement."""

from collections.abc import Iterator
from itertools import groupby

from sqlalchemy import Row, func, select

from examples.flights.models import Flight
from examples.flights.questions import LATE


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
