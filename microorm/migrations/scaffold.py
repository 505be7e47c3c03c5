"""Scaffold: the files that a folder of migrations begins with."""

from __future__ import annotations

from pathlib import Path

from microorm.errors import MigrationError

ENVIRONMENT = '''"""Migrations of the models: alembic runs this file for each command, and microorm does the work."""

from microorm import migrations

migrations.run()
'''

TEMPLATE = r'''"""${message.replace("\\", r"\\").replace('"', r'\"')}"""

import sqlalchemy as sa
from alembic import op
${imports + "\n" if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
# Whose tables these are, for routers: a model may be gone one day.
labels = ${repr(context.get("labels", {}))}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


def write_environment(folder: str | Path) -> list[Path]:
    """Write `env.py`, `script.py.mako` and an empty `versions/` into *folder*, made if it is not there; the files.

    Raises `MigrationError` where one of them is there already; nothing is written then.
    """
    folder = Path(folder)
    files = {folder / "env.py": ENVIRONMENT, folder / "script.py.mako": TEMPLATE}
    for path in (*files, folder / "versions"):
        if path.exists():
            raise MigrationError(f"{str(path)!r} is there already")
    (folder / "versions").mkdir(parents=True)
    for path, text in files.items():
        path.write_text(text)
    return list(files)
