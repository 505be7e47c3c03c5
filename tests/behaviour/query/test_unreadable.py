"""A row with a value that its field cannot hold: an error that names it, whichever way it is read."""

import enum
from datetime import date, datetime, time
from typing import Any

import pytest
from sqlalchemy import text

from microorm import Field, ForeignKey, InvalidValue, Model, Registry, field, foreign_key


class Colour(enum.Enum):
    RED = "red"


@pytest.fixture
def Car(databases: Any) -> Any:
    """Made without the CHECK that would refuse another colour."""

    class Plain(Model, table="car", registry=Registry(databases)):
        colour: Field[str | None] = field(max_length=9)
        day: Field[date | None]
        at: Field[datetime | None]
        hour: Field[time | None]

    class Base(Model, registry=Registry(databases), abstract=True):
        pass

    class Car(Base):
        colour: Field[Colour | None] = field()
        day: Field[date | None]
        at: Field[datetime | None]
        hour: Field[time | None]

    class Trip(Base):
        car: ForeignKey[Car] = foreign_key()

    Plain.__schema__.registry.create_all()
    Car.Trip = Trip
    Trip.__table__.create(databases.engine())
    Plain.objects.create(colour="red", day=None, at=None, hour=None)
    Plain.objects.create(colour="blue", day=None, at=None, hour=None)
    Trip(car_id=2).save()
    return Car


def test_an_unknown_member_is_named_with_its_row(Car):
    problem = r"^Car\.colour must be Colour, not str 'blue', in the row with id=2$"
    for read in (
        lambda: Car.objects.all(),
        lambda: Car.objects.get(id=2),
        lambda: Car.objects.order_by(Car.id + 0).all(),
        lambda: Car.objects.select_related().filter(Car.id + 0 > 0).all(),
        lambda: Car.Trip.objects.select_related("car").all(),
        lambda: Car.Trip.objects.prefetch_related("car").all(),
        lambda: Car.Trip.objects.get().car,
        lambda: Car.objects.values("id", "colour"),
        lambda: Car.objects.only("day").get(id=2).colour,
        lambda: Car.objects.defer("colour").get(id=2).refresh_from_db(fields=["id", "colour"]),
        lambda: list(Car.objects.iterate()),
    ):
        with pytest.raises(InvalidValue, match=problem) as refused:
            read()
        assert refused.value.problems.keys() == {"colour"}
    assert Car.objects.get(id=1).colour is Colour.RED
    with pytest.raises(InvalidValue, match=r"^Car\.colour must be Colour, not str 'blue'"):
        Car.objects.scalars("colour")


@pytest.mark.backends("mariadb")
def test_dates_and_times_that_python_does_not_have_are_named(Car, databases):
    with databases.connection() as connection:
        connection.execute(text("SET SESSION sql_mode = ''"))
        connection.execute(
            text("UPDATE car SET colour = 'red', day = '0000-00-00', at = '0000-00-00' WHERE id = 2")
        )
        connection.execute(text("UPDATE car SET hour = '30:00:00' WHERE id = 2"))
        connection.invalidate()
    for name, value, kind in (
        ("day", "str '0000-00-00'", "date"),
        ("at", "str '0000-00-00 00:00:00(.000000)?'", "datetime"),
        ("hour", r"datetime\.timedelta\(.*\)", "time"),
    ):
        problem = rf"^Car\.{name} must be {kind}, not {value}, in the row with id=2$"
        with pytest.raises(InvalidValue, match=problem):
            Car.objects.only(name).get(id=2)
        with pytest.raises(InvalidValue, match=problem):
            Car.objects.values("id", name)[1:]
