"""Answers: print each question, with its answer in a table below.

Prints:
    From where to where do most flights go?
        From                 To   Flights
        John F Kennedy Intl  LAX      937
        La Guardia           ATL      878
        John F Kennedy Intl  SFO      671
        La Guardia           ORD      583
        Newark Liberty Intl  ORD      502

    How late do the large airlines arrive, month by month?
        Airline                   Month  Flights  Mean delay
        ExpressJet Airlines Inc.      1    3,964       +25.2
        Endeavor Air Inc.             1    1,480       +10.2
        Envoy Air                     1    2,203        +7.9
        JetBlue Airways               1    4,413        +4.7
        United Air Lines Inc.         1    4,590        +3.2
        US Airways Inc.               1    1,554        +1.4
        American Airlines Inc.        1    2,724        +1.0
        Delta Air Lines Inc.          1    3,655        -4.4

    Do old planes leave late?
        Decades old  Planes  Flights   Late
                  0     861    7,849  1,543
                  1   1,246   11,320  2,393
                  2     431    2,708    359
                  3      11      190     29
                  4       5       14      2
                  5       4       13      4

    Which airlines had a flight that left more than ten hours late?
        Airline
        Envoy Air
        Hawaiian Airlines Inc.

    In which time zones are the airports that no flight goes to?
        Time zone            Airports
        America/New_York          472
        America/Chicago           321
        America/Anchorage         239
        America/Los_Angeles       163
        America/Denver            112

    What are the totals of the month?
        Flights  Planes       Miles  Days in the air  Longest delay
         26,398   3,140  26,755,517            2,826          1,272

    Which flight left each airport with the longest delay?
        From                 Airline                 Flight  Minutes late
        John F Kennedy Intl  Hawaiian Airlines Inc.      51         1,301
        La Guardia           Delta Air Lines Inc.      2119           478
        Newark Liberty Intl  Envoy Air                 3695         1,126

    Which destinations are not among the airports?
        To   Flights  Airlines
        SJU      486         4
        BQN       93         2
        STT       70         3
        PSE       31         1

    How many flights in a row left late, at most, from each airport?
        From  Flights in a row
        EWR                 13
        JFK                 15
        LGA                 11

    Which flights to the west are in the air for the longest time?
        Airline                 To             Plane      Minutes
        United Air Lines Inc.   Honolulu Intl  767-424ER      667
        Hawaiian Airlines Inc.  Honolulu Intl  A330-243       660
        Hawaiian Airlines Inc.  Honolulu Intl  A330-243       659
        United Air Lines Inc.   Honolulu Intl  767-424ER      659
        Hawaiian Airlines Inc.  Honolulu Intl  A330-243       657
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from examples.flights import questions

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
    yield questions.delays, ("Airline", "Month", "Flights", "Mean delay"), questions.delays()
    yield questions.ages, ("Decades old", "Planes", "Flights", "Late"), questions.ages()
    yield questions.ten_hours_late, ("Airline",), [[name] for name in questions.ten_hours_late()]
    yield questions.never_reached, ("Time zone", "Airports"), questions.never_reached()
    yield (
        questions.in_the_air,
        ("Flights", "Planes", "Miles", "Days in the air", "Longest delay"),
        [questions.in_the_air()],
    )
    yield questions.worst_starts, ("From", "Airline", "Flight", "Minutes late"), worst_starts()
    yield questions.unlisted, ("To", "Flights", "Airlines"), questions.unlisted()
    yield questions.late_in_a_row, ("From", "Flights in a row"), questions.late_in_a_row()
    yield (
        questions.longest_to_the_west,
        ("Airline", "To", "Plane", "Minutes"),
        [
            (flight.carrier.name, flight.dest.name, flight.plane and flight.plane.model, flight.air_time)
            for flight in questions.longest_to_the_west()
        ],
    )


def worst_starts() -> Iterator[tuple[str, str, str, int | None]]:
    """Yield the rows of this question with flight numbers as text, since they are names and not amounts."""
    for airport, airline, number, delay in questions.worst_starts():
        yield airport, airline, str(number), delay


def cell(value: object) -> str:
    """Format *value* for a table."""
    if isinstance(value, float):
        return f"{value:+.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "?" if value is None else str(value)
