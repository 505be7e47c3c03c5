"""The relations of the flights example: a flight's airline and origin are rows that exist"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
# Whose tables these are, for routers: a model may be gone one day.
labels = {"flight": "flights.Flight"}


def upgrade() -> None:
    with op.batch_alter_table("flight") as batch_op:
        batch_op.create_index(batch_op.f("ix_flight_origin"), ["origin"], unique=False)
        batch_op.create_foreign_key(batch_op.f("fk_flight_carrier"), "airline", ["carrier"], ["carrier"])
        batch_op.create_foreign_key(batch_op.f("fk_flight_origin"), "airport", ["origin"], ["faa"])


def downgrade() -> None:
    with op.batch_alter_table("flight") as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_flight_origin"), type_="foreignkey")
        batch_op.drop_constraint(batch_op.f("fk_flight_carrier"), type_="foreignkey")
        batch_op.drop_index(batch_op.f("ix_flight_origin"))
