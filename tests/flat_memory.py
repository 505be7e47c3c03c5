"""How much memory it takes to go through many rows: `python -m tests.flat_memory URL ROWS [END]`.

END is `iterate`, `block` (the same inside a block) or `all`. The table is made in an empty database, and filled by the
database itself. Prints JSON: the peak of the resident size before and after, in megabytes, and the seconds of CPU in between.
"""

import json
import resource
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import insert, inspect, select

from microorm import Databases, Field, Model, Registry, field

databases = Databases()
registry = Registry(databases)


class Event(Model, registry=registry):
    name: Field[str] = field(max_length=40)
    level: Field[int]
    price: Field[Decimal] = field(max_digits=8, decimal_places=2)
    seen: Field[datetime]
    note: Field[str | None] = field(default=None)


def fill(rows: int) -> None:
    """Give the table as many *rows*, by doubling them."""
    table: Any = Event.__table__
    with databases.atomic():
        Event(name="event", level=1, price=Decimal("1.5"), seen=datetime(2024, 5, 6, tzinfo=UTC)).save()
        count, copied = 1, [column for column in table.c if not column.primary_key]
        while count < rows:
            more = select(*copied).order_by(table.c.id).limit(min(count, rows - count))
            with databases.connection() as connection:
                connection.execute(insert(table).from_select([column.key for column in copied], more))
            count = min(2 * count, rows)


def peak() -> float:
    """The greatest resident size so far, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts the parent's size in what `getrusage` says of a child
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / (1 << 10)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main(url: str, rows: int, end: str = "iterate") -> None:
    """Fill, go through all rows, and print."""
    databases.configure(url)
    with databases:
        if not inspect(databases.engine()).has_table("event"):
            registry.create_all()
            fill(rows)
        assert Event.objects.count() == rows
        for _ in Event.objects.limit(1000).iterate():
            pass
        before, start = peak(), time.process_time()
        with databases.atomic() if end == "block" else nullcontext():
            query = Event.objects.filter(Event.id > 0)
            seen = sum(1 for _ in (query.all() if end == "all" else query.iterate()))
        assert seen == rows
        told = {"end": end, "rows": rows, "before": round(before, 1), "after": round(peak(), 1)}
        sys.stdout.write(json.dumps({**told, "cpu": round(time.process_time() - start, 2)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
