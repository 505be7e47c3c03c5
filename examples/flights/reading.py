"""Read the CSV files: an instance for each line, in batches."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click

from examples.flights.models import Flight
from examples.flights.totals import FILES
from microorm import Model

BATCH = 1_000
PARSERS: dict[Any, Any] = {int: int, float: float, datetime: datetime.fromisoformat}
UNREADABLE = (OSError, EOFError, zlib.error, csv.Error, ValueError, TypeError)

M = TypeVar("M", bound=Model[Any])


def read(data: Path, model: type[M]) -> Iterator[M]:
    """Yield an instance for each line of the model's file. 'NA' stays as it is.

    The code of another row, such as an airline, is assigned to the key (`carrier_id`), so that row is not loaded.
    """
    fields = {field.column.name: field for field in model.__schema__.fields}
    path, line = data / FILES[model], 1
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if unknown := set(header) - fields.keys():
                raise ValueError(f"no field for the columns {sorted(unknown)}")
            into = [(fields[name].name, PARSERS.get(fields[name].python_type, str)) for name in header]
            for values in lines:
                line = lines.line_num
                if len(values) != len(header):
                    raise ValueError(f"{len(values)} values for {len(header)} columns")
                row = zip(into, values, strict=True)
                yield model(**{name: text if text == "NA" else parse(text) for (name, parse), text in row})
    except UNREADABLE as error:
        raise click.ClickException(f"{path.name}, line {line}: {error}") from error


def batches(flights: Iterable[Flight]) -> Iterator[list[Flight]]:
    """Split *flights* into lists of at most `BATCH`."""
    rest = iter(flights)
    while batch := list(islice(rest, BATCH)):
        yield batch
