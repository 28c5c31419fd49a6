"""Measure calls in turns, compare them with a peer, and keep what came out as JSON.

On a machine whose speed changes from minute to minute, two times are comparable only if they were
measured close to each other. So all writers take turns, in an order that is turned round in every
other round, and what is reported is the ratio of the medians, with the smallest and the largest
ratio of a round.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe_machine
from benchmarks.units import digits, spell

RESULTS = Path(__file__).parent / "results"
"""Where results are kept, one file for each comparison."""

_FOLDERS = ("--keep", "--source", "--output", "--target")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio of medians, with the smallest and the largest of the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)} to {digits(self.high)})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures of several candidates, round by round.

    Attributes
    ----------
    name : str
        Of the file that the result is kept in.
    title : str
        What was measured, in words.
    unit : str
        Of the figures: see :func:`benchmarks.units.spell`.
    peer : str or None
        The candidate that the others are compared with.
    figures : mapping of str to list of float
        One figure a round for each candidate.
    targets : mapping of str to float
        Largest ratio that a candidate must not exceed.
    parameters : mapping
        What makes the run repeatable: sizes, formats, versions of what is compared.
    remarks : mapping of str to str
        What each candidate guarantees, or how it was set up.
    at_least : mapping of str to float
        Smallest ratio that a candidate shall have, where the peer is the one that is judged.
    at_most : mapping of str to float
        Largest figure that a candidate shall have, whatever the others have.
    """

    name: str
    title: str
    unit: str
    peer: str | None
    figures: Mapping[str, list[float]]
    targets: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)

    def median(self, candidate: str) -> float:
        """Return the median of a candidate's figures."""
        return statistics.median(self.figures[candidate])

    def ratio(self, candidate: str) -> Ratio | None:
        """Compare a candidate with the peer; None if there is no peer."""
        if self.peer is None:
            return None
        pairs = zip(self.figures[candidate], self.figures[self.peer], strict=True)
        rounds = [ours / theirs for ours, theirs in pairs]
        return Ratio(self.median(candidate) / self.median(self.peer), min(rounds), max(rounds))

    def reached(self, candidate: str) -> bool | None:
        """Return whether a candidate reached its target; None if it has none."""
        if not self.aim(candidate):
            return None
        ratio = self.ratio(candidate)
        least, most = self.at_least.get(candidate, 0), self.targets.get(candidate, math.inf)
        fits = ratio is None or least <= ratio.median <= most
        return fits and self.median(candidate) <= self.at_most.get(candidate, math.inf)

    def aim(self, candidate: str) -> str:
        """Return the target of a candidate in words; empty if it has none."""
        ratios, figure = self.peer is not None, self.at_most.get(candidate)
        least = self.at_least.get(candidate) if ratios else None
        most = self.targets.get(candidate) if ratios else None
        words = (
            None if least is None else f">= {least:g}",
            None if most is None else f"<= {most:g}",
            None if figure is None else f"<= {spell(figure, self.unit)}",
        )
        return ", ".join(filter(None, words))

    def table(self) -> str:
        """Return the result as lines of text."""
        lines = [self.title, f"{'':<28}{'median':>20}  ratio (rounds)"]
        for candidate in self.figures:
            ratio = self.ratio(candidate)
            verdict = {True: "reached", False: "MISSED", None: ""}[self.reached(candidate)]
            aim = f"  target {words} {verdict}" if (words := self.aim(candidate)) else ""
            median = spell(self.median(candidate), self.unit)
            lines.append(f"{candidate:<28}{median:>20}  {ratio or ''}{aim}")
        return "\n".join(lines)

    def keep(self, folder: Path) -> Path:
        """Store the result with the machine and the versions, and return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}.json"
        kept = {**asdict(self), "command": command_line(sys.argv[1:]), **describe_machine()}
        file.write_text(json.dumps(kept, indent=2) + "\n")
        return file

    @classmethod
    def load(cls, file: Path) -> Comparison:
        """Read a result that was kept."""
        kept = json.loads(file.read_text())
        return cls(**{name: kept[name] for name in cls.__dataclass_fields__ if name in kept})


def command_line(arguments: Sequence[str]) -> str:
    """Return the command that repeats a run, without the options that name folders."""
    options = "|".join(_FOLDERS)
    text = shlex.join(["python", "-m", "benchmarks", *arguments])
    return re.sub(rf" ({options})[ =]('[^']*'|\S+)", "", text)


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Return the seconds of each call, in each round.

    Parameters
    ----------
    calls : mapping of str to callable
        The candidates. Each must leave things so that it can be called again.
    rounds : int
        How many times each is measured.
    warm_up : bool
        Call each once before: imports, connections and the page cache.
    """

    def seconds(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return measure_in_turns(
        {name: lambda call=call: seconds(call) for name, call in calls.items()},  # type: ignore[misc]
        rounds,
        warm_up=warm_up,
    )


def measure_in_turns(
    measures: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Return what each call returns, in each round; see :func:`time_in_turns`."""
    if warm_up:
        for measure in measures.values():
            measure()
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        names = list(measures) if number % 2 == 0 else list(reversed(measures))
        for name in names:
            figures[name].append(measures[name]())
            click.echo(f"round {number + 1}: {name}: {figures[name][-1]:,.4g}", err=True)
    return figures


def publish(comparison: Comparison, keep: Path | None) -> None:
    """Print a result, and store it if a folder is given."""
    click.echo(comparison.table())
    if keep is not None:
        click.echo(f"kept in {comparison.keep(keep)}", err=True)


keep_option = click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to store the result in, as JSON.",
)
"""The option of every benchmark that says where to store its result."""


def rounds_option(default: int) -> Callable[[Any], Any]:
    """Return the option of every benchmark that says how often to measure."""
    return click.option("--rounds", type=click.IntRange(min=1), default=default, show_default=True)
