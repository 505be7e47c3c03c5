"""The relations of the flights example: a flight's airline and origin are rows that exist"""

import sqlalchemy as sa
from alembic import op

from microorm import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite gets a constraint by building the table anew. This is how it was, so that the SQL needs no look at a database.
before = sa.Table(
    "flight",
    sa.MetaData(),
    sa.Column("id", types.integer_type(), autoincrement=True, nullable=False),
    sa.Column("year", types.integer_type(), nullable=False),
    sa.Column("month", types.integer_type(), nullable=False),
    sa.Column("day", types.integer_type(), nullable=False),
    sa.Column("dep_time", types.integer_type(), nullable=True),
    sa.Column("sched_dep_time", types.integer_type(), nullable=False),
    sa.Column("dep_delay", types.integer_type(), nullable=True),
    sa.Column("arr_time", types.integer_type(), nullable=True),
    sa.Column("sched_arr_time", types.integer_type(), nullable=False),
    sa.Column("arr_delay", types.integer_type(), nullable=True),
    sa.Column("carrier", types.text_type(2), nullable=False),
    sa.Column("flight", types.integer_type(), nullable=False),
    sa.Column("tailnum", types.text_type(6), nullable=True),
    sa.Column("origin", types.text_type(3), nullable=False),
    sa.Column("dest", types.text_type(3), nullable=False),
    sa.Column("air_time", types.integer_type(), nullable=True),
    sa.Column("distance", types.integer_type(), nullable=False),
    sa.Column("hour", types.integer_type(), nullable=False),
    sa.Column("minute", types.integer_type(), nullable=False),
    sa.Column("time_hour", types.UtcDateTime(), nullable=False),
    sa.PrimaryKeyConstraint("id", name="pk_flight"),
    sa.UniqueConstraint(
        "carrier", "flight", "origin", "time_hour", name="uq_flight_carrier_flight_origin_time_hour"
    ),
    sa.Index("ix_flight_dest", "dest"),
    sa.Index("ix_flight_tailnum", "tailnum"),
)
anew = {"sqlite_autoincrement": True}


def upgrade() -> None:
    with op.batch_alter_table("flight", copy_from=before, table_kwargs=anew) as batch_op:
        batch_op.create_index(batch_op.f("ix_flight_origin"), ["origin"], unique=False)
        batch_op.create_foreign_key(batch_op.f("fk_flight_carrier"), "airline", ["carrier"], ["carrier"])
        batch_op.create_foreign_key(batch_op.f("fk_flight_origin"), "airport", ["origin"], ["faa"])


def downgrade() -> None:
    with op.batch_alter_table("flight", table_kwargs=anew) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_flight_origin"), type_="foreignkey")
        batch_op.drop_constraint(batch_op.f("fk_flight_carrier"), type_="foreignkey")
        batch_op.drop_index(batch_op.f("ix_flight_origin"))
