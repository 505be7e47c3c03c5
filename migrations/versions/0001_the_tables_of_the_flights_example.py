"""The tables of the flights example"""

import sqlalchemy as sa
from alembic import op

from microorm import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
# Whose tables these are, for routers: a model may be gone one day.
labels = {
    "airline": "flights.Airline",
    "airport": "flights.Airport",
    "audit": "flights.Audit",
    "flight": "flights.Flight",
    "plane": "flights.Plane",
    "weather": "flights.Weather",
}


def upgrade() -> None:
    op.create_table(
        "airline",
        sa.Column("carrier", types.text_type(2), autoincrement=False, nullable=False),
        sa.Column("name", types.text_type(60), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("carrier", name=op.f("pk_airline")),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "airport",
        sa.Column("faa", types.text_type(3), autoincrement=False, nullable=False),
        sa.Column("name", types.text_type(80), autoincrement=False, nullable=False),
        sa.Column("lat", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("lon", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("alt", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("tz", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("dst", types.text_type(1), autoincrement=False, nullable=False),
        sa.Column("tzone", types.text_type(40), autoincrement=False, nullable=True),
        sa.CheckConstraint("dst IN ('A', 'N', 'U')", name=op.f("ck_airport_dst")),
        sa.PrimaryKeyConstraint("faa", name=op.f("pk_airport")),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", types.integer_type(), autoincrement=True, nullable=False),
        sa.Column("table", types.text_type(30), autoincrement=False, nullable=False),
        sa.Column("key", types.text_type(30), autoincrement=False, nullable=False),
        sa.Column("action", types.text_type(7), autoincrement=False, nullable=False),
        sa.Column("at", types.UtcDateTime(), autoincrement=False, nullable=False),
        sa.CheckConstraint("action IN ('created', 'changed')", name=op.f("ck_audit_action")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "flight",
        sa.Column("id", types.integer_type(), autoincrement=True, nullable=False),
        sa.Column("year", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("month", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("day", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("dep_time", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("sched_dep_time", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("dep_delay", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("arr_time", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("sched_arr_time", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("arr_delay", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("carrier", types.text_type(2), autoincrement=False, nullable=False),
        sa.Column("flight", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("tailnum", types.text_type(6), autoincrement=False, nullable=True),
        sa.Column("origin", types.text_type(3), autoincrement=False, nullable=False),
        sa.Column("dest", types.text_type(3), autoincrement=False, nullable=False),
        sa.Column("air_time", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("distance", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("hour", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("minute", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("time_hour", types.UtcDateTime(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flight")),
        sa.UniqueConstraint(
            "carrier", "flight", "origin", "time_hour", name=op.f("uq_flight_carrier_flight_origin_time_hour")
        ),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_flight_dest"), "flight", ["dest"], unique=False)
    op.create_index(op.f("ix_flight_tailnum"), "flight", ["tailnum"], unique=False)
    op.create_table(
        "plane",
        sa.Column("tailnum", types.text_type(6), autoincrement=False, nullable=False),
        sa.Column("year", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("type", types.text_type(40), autoincrement=False, nullable=False),
        sa.Column("manufacturer", types.text_type(40), autoincrement=False, nullable=False),
        sa.Column("model", types.text_type(40), autoincrement=False, nullable=False),
        sa.Column("engines", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("seats", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("speed", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("engine", types.text_type(20), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("tailnum", name=op.f("pk_plane")),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "weather",
        sa.Column("origin", types.text_type(3), autoincrement=False, nullable=False),
        sa.Column("time_hour", types.UtcDateTime(), autoincrement=False, nullable=False),
        sa.Column("year", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("month", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("day", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("hour", types.integer_type(), autoincrement=False, nullable=False),
        sa.Column("temp", sa.Double(), autoincrement=False, nullable=True),
        sa.Column("dewp", sa.Double(), autoincrement=False, nullable=True),
        sa.Column("humid", sa.Double(), autoincrement=False, nullable=True),
        sa.Column("wind_dir", types.integer_type(), autoincrement=False, nullable=True),
        sa.Column("wind_speed", sa.Double(), autoincrement=False, nullable=True),
        sa.Column("wind_gust", sa.Double(), autoincrement=False, nullable=True),
        sa.Column("precip", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("pressure", sa.Double(), autoincrement=False, nullable=True),
        sa.Column("visib", sa.Double(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("origin", "time_hour", name=op.f("pk_weather")),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("weather")
    op.drop_table("plane")
    op.drop_table("flight")
    op.drop_table("audit")
    op.drop_table("airport")
    op.drop_table("airline")
