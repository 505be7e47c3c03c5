"""Migrations of the models: alembic runs this file for each command, and microorm does the work."""

from microorm import migrations

migrations.run()
