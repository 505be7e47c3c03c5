"""The same totals, counted in the CSV files with the standard library alone."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from examples.flights.totals import FILES, LATE, SUMS


def in_files(folder: Path) -> dict[str, int]:
    """Count every total in the CSV files of *folder*."""
    tables = {model.__table__.name: list(file_rows(folder / file)) for model, file in FILES.items()}
    flights = tables["flight"]
    planes = {row["tailnum"] for row in tables["plane"]}
    airports = {row["faa"] for row in tables["airport"]}
    totals = Counter({name: len(rows) for name, rows in tables.items()})
    totals["audit"] = sum(totals[name] for name in ("airline", "airport", "plane", "flight"))
    totals["planes not listed"] = sum(row["tailnum"] not in planes for row in flights)
    totals["destinations not listed"] = sum(row["dest"] not in airports for row in flights)
    for row in flights:
        carrier, delay = row["carrier"], row["arr_delay"]
        totals[f"{carrier} flights"] += 1
        totals[f"{carrier} cancelled"] += row["dep_time"] == "NA"
        if delay != "NA":
            totals[f"{carrier} arrived"] += 1
            totals[f"{carrier} late"] += int(delay) >= LATE
            totals[f"{carrier} minutes"] += int(delay)
    for column in SUMS:
        totals[f"sum of {column}"] = sum(int(row[column]) for row in flights if row[column] != "NA")
    for name, rows in tables.items():
        for column in rows[0] if rows else ():
            totals[f"{name} without {column}"] = sum(row[column] == "NA" for row in rows)
    return dict(totals)


def file_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file, compressed or not, as text."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
