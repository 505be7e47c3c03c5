"""Answers: print each question, with its answer in a table below. `output.txt` has them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from examples.flights import more_questions, questions

Answer = tuple[Callable[..., Any], tuple[str, ...], Iterable[Iterable[Any]]]


def show_answers(console: Console) -> None:
    """Print each question and its answer."""
    for question, headings, rows in answers():
        table = Table(box=None, header_style="dim")
        lines = [[cell(value) for value in row] for row in rows]
        for index, heading in enumerate(headings):
            numbers = all(line[index][:1] in "+-0123456789" for line in lines)
            table.add_column(heading, justify="right" if numbers else "left")
        for line in lines:
            table.add_row(*line)
        console.print(f"\n{question.__doc__}", style="bold")
        console.print(Padding(table, (0, 0, 0, 3), expand=False))


def answers() -> Iterator[Answer]:
    """Yield each question with the headings and the rows of its answer."""
    yield questions.busiest_routes, ("From", "To", "Flights"), questions.busiest_routes()
    yield questions.delays, ("Airline", "Flights", "Mean delay"), questions.delays()
    yield questions.ages, ("Decades old", "Planes", "Flights", "Late"), questions.ages()
    yield questions.ten_hours_late, ("Airline",), [[name] for name in questions.ten_hours_late()]
    yield questions.never_reached, ("Time zone", "Airports"), questions.never_reached()
    yield (
        questions.in_the_air,
        ("Flights", "Planes", "Miles", "Days in the air", "Longest delay"),
        [questions.in_the_air()],
    )
    yield more_questions.worst_starts, ("From", "Airline", "Flight", "Minutes late"), worst_starts()
    yield questions.unlisted, ("To", "Flights", "Airlines"), questions.unlisted()
    yield more_questions.late_in_a_row, ("From", "Flights in a row"), more_questions.late_in_a_row()
    yield (
        more_questions.longest_to_the_west,
        ("Airline", "To", "Plane", "Minutes"),
        [
            (flight.carrier.name, flight.dest.name, flight.plane and flight.plane.model, flight.air_time)
            for flight in more_questions.longest_to_the_west()
        ],
    )


def worst_starts() -> Iterator[tuple[str, str, str, int | None]]:
    """Yield the rows of this question with flight numbers as text, since they are names and not amounts."""
    for airport, airline, number, delay in more_questions.worst_starts():
        yield airport, airline, str(number), delay


def cell(value: object) -> str:
    """Format *value* for a table."""
    if isinstance(value, float):
        return f"{value:+.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "?" if value is None else str(value)
