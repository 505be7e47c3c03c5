"""Models: six tables in two databases.

Importing this module only defines the models. It does not name or open a database. Each column of the CSV files is a
column here, with the same name. A code that identifies a row of another table is a foreign key. It has no constraint if
the data refers to rows that do not exist. The airport of the weather is plain text, because the airports are in the
other database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import UniqueConstraint

from microorm import Field, ForeignKey, Model, Related, field, foreign_key, related


def now() -> datetime:
    """Return the current time with its zone, which every `datetime` field needs."""
    return datetime.now(UTC)


class Airline(Model[str]):
    """An airline. Its key is the two-character code in its flight numbers."""

    carrier: Field[str] = field(primary_key=True, max_length=2)
    name: Field[str] = field(max_length=60)
    flights: Related[Flight] = related("carrier")


class Airport(Model[str]):
    """An airport. Its key is the code of the Federal Aviation Administration."""

    faa: Field[str] = field(primary_key=True, max_length=3)
    name: Field[str] = field(max_length=80)
    lat: Field[float]
    lon: Field[float]
    alt: Field[int]
    tz: Field[int]
    dst: Field[Literal["A", "N", "U"]]
    tzone: Field[str | None] = field(default=None, max_length=40)
    departures: Related[Flight] = related("origin")
    arrivals: Related[Flight] = related("dest")


class Plane(Model[str]):
    """An aircraft. Its key is the tail number."""

    tailnum: Field[str] = field(primary_key=True, max_length=6)
    year: Field[int | None] = field(default=None)
    type: Field[str] = field(max_length=40)
    manufacturer: Field[str] = field(max_length=40)
    model: Field[str] = field(max_length=40)
    engines: Field[int]
    seats: Field[int]
    speed: Field[int | None] = field(default=None)
    engine: Field[str] = field(max_length=20)
    flights: Related[Flight] = related("plane")


class Flight(Model, table_args=(UniqueConstraint("carrier", "flight", "origin", "time_hour"),)):
    """A departure from New York. The database generates its key, because flight numbers repeat every day."""

    year: Field[int]
    month: Field[int]
    day: Field[int]
    dep_time: Field[int | None] = field(default=None)
    sched_dep_time: Field[int]
    dep_delay: Field[int | None] = field(default=None)
    arr_time: Field[int | None] = field(default=None)
    sched_arr_time: Field[int]
    arr_delay: Field[int | None] = field(default=None)
    # No index of its own: the one of the unique constraint begins with this column.
    carrier: ForeignKey[Airline] = foreign_key(column="carrier", index=False)
    carrier_id: Field[str] = field(init=False)
    flight: Field[int]
    plane: ForeignKey[Plane | None] = foreign_key(column="tailnum", constraint=False, default=None)
    plane_id: Field[str | None] = field(init=False)
    origin: ForeignKey[Airport] = foreign_key(column="origin")
    origin_id: Field[str] = field(init=False)
    dest: ForeignKey[Airport] = foreign_key(column="dest", constraint=False)
    dest_id: Field[str] = field(init=False)
    air_time: Field[int | None] = field(default=None)
    distance: Field[int]
    hour: Field[int]
    minute: Field[int]
    time_hour: Field[datetime]


class Weather(Model[Any]):
    """One hour of weather at one of the three airports. The key has two fields."""

    origin: Field[str] = field(primary_key=True, max_length=3)
    time_hour: Field[datetime] = field(primary_key=True)
    year: Field[int]
    month: Field[int]
    day: Field[int]
    hour: Field[int]
    temp: Field[float | None] = field(default=None)
    dewp: Field[float | None] = field(default=None)
    humid: Field[float | None] = field(default=None)
    wind_dir: Field[int | None] = field(default=None)
    wind_speed: Field[float | None] = field(default=None)
    wind_gust: Field[float | None] = field(default=None)
    precip: Field[float]
    pressure: Field[float | None] = field(default=None)
    visib: Field[float]


class Audit(Model):
    """A record of what was saved, and when. A receiver writes it."""

    table: Field[str] = field(max_length=30)
    key: Field[str] = field(max_length=30)
    action: Field[Literal["created", "changed"]]
    at: Field[datetime] = field(default_factory=now)
