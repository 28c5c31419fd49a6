"""What each run does, drawn from the seed: pure, so that the same seed is the same plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["worker", "committer", "scheduler", "client", "server", "resets", "racer", "gc"]

_WEIGHTS: dict[Kind, int] = {
    "worker": 6,
    "committer": 5,
    "scheduler": 2,
    "client": 3,
    "server": 2,
    "resets": 4,
    "racer": 4,
    "gc": 4,
}
_ONLY_S3 = frozenset[Kind]({"server", "resets"})
_FATAL = frozenset[Kind]({"scheduler", "client"})
"""Of these a run has one at most: what is dead cannot be watched dying again."""

LONGEST = 1.2
"""Seconds after the start of a write within which faults strike; most writes take about as long."""

SLOTS = 2
"""Datasets of a kind, each of which many runs write to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault and its moment.

    Attributes
    ----------
    at : float
        Seconds after the start of the write; for the committer, after it was given the commit.
    draw : float
        From 0 to 1: which worker, how long the server is down, how probable a reset is.
    """

    kind: Kind
    at: float
    draw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run.

    Attributes
    ----------
    number : int
        Of the run; writes of run n have the numbers 2n and, for the one that races it, 2n + 1.
    dataset : str
        Name of the dataset; it says whether it is sealed.
    seconds : float
        How long each partition takes to compute.
    """

    number: int
    store: str
    dataset: str
    sealed: bool
    append: bool
    partitions: int
    seconds: float
    strikes: tuple[Strike, ...]

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of faults of this run."""
        return {strike.kind for strike in self.strikes}

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)


def draw(seed: int, number: int, stores: Sequence[str]) -> Plan:
    """Draw run `number` of a seed; other runs have no influence on it."""
    chance = random.Random(f"{seed}-{number}")  # noqa: S311 - faults, not secrets
    store = chance.choice(list(stores))
    sealed = chance.random() < 0.5
    slot = chance.randrange(SLOTS)
    return Plan(
        number=number,
        store=store,
        dataset=f"{'sealed' if sealed else 'plain'}-{slot}",
        sealed=sealed,
        append=chance.random() < 0.4,
        partitions=chance.randint(2, 9),
        seconds=chance.choice((0.0, 0.05, 0.2)),
        strikes=_strikes(chance, store),
    )


def _strikes(chance: random.Random, store: str) -> tuple[Strike, ...]:
    weights = {
        kind: weight for kind, weight in _WEIGHTS.items() if store == "s3" or kind not in _ONLY_S3
    }
    kinds: list[Kind] = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = chance.choices(list(weights), list(weights.values()))[0]
        kinds.append(kind)
        for used in _FATAL if kind in _FATAL else {kind} - {"worker"}:
            weights.pop(used)
    strikes = [
        Strike(
            kind=kind,
            at=0.0 if kind == "resets" else chance.uniform(0, LONGEST),
            draw=chance.random(),
        )
        for kind in kinds
    ]
    return tuple(sorted(strikes, key=lambda strike: strike.at))
