"""What a part of a long run is given, and what it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table


@dataclass(frozen=True)
class Options:
    """For how many *seconds* to run, with how many *clients* at once, *rows* and *kills*, and the *seed* of what they choose."""

    seconds: float
    clients: int
    seed: int
    rows: int = 1_000_000
    kills: int = 200


@dataclass
class Outcome:
    """The *facts* that a part has measured, by name, and its *failures*: it has passed if there are none.

    *summary*: the most important facts, in one line.
    """

    facts: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    summary: str = ""

    @property
    def verdict(self) -> str:
        """Whether the part has passed, in the markup of rich."""
        return "[red]failed[/]" if self.failures else "[green]passed[/]"

    def require(self, holds: bool, failure: str) -> None:
        """Note the *failure* unless it *holds*."""
        if not holds:
            self.failures.append(failure)


def summary(outcomes: Mapping[str, Outcome]) -> Table:
    """Return a table with a row for each part, by name."""
    table = Table("part", "", "found", title="Summary")
    for name, outcome in outcomes.items():
        table.add_row(name, outcome.verdict, outcome.summary)
    return table


def percentiles(seconds: Sequence[float]) -> str:
    """Return some percentiles of *seconds*, in milliseconds, as text."""
    ranked = sorted(seconds)
    if not ranked:
        return "nothing measured"
    at = {f"p{part}": ranked[len(ranked) * part // 100] for part in (50, 90, 99)} | {"max": ranked[-1]}
    return ", ".join(f"{name} {value * 1000:.0f}" for name, value in at.items()) + " ms"
