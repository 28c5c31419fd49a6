"""What may stand after a run, and how far from it what does stand is: in rows, exactly.

Each row carries the number of its write, its partition and its place there, so that a lost one
and a doubled one are told apart from all others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import permutations

import dask.dataframe as dd
import pandas as pd

Row = tuple[int, int, int]
State = tuple[int, ...] | None
"""Numbers of the writes that a dataset consists of; None if there is none."""


class Outcome(Enum):
    """What was reported of a write."""

    COMMITTED = "committed"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """Also of a client that died: nobody was told."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write: all that its rows follow from."""

    number: int
    partitions: int
    append: bool = False

    def rows(self) -> Counter[Row]:
        """Return every row of it."""
        return Counter(
            (self.number, partition, row)
            for partition in range(self.partitions)
            for row in range(_rows_in(self.number, partition))
        )

    def frame(self, seconds: float) -> dd.DataFrame:
        """Return it as a frame, each partition of which takes so long."""
        first = make_partition(0, self.number, 0.0)
        frame: dd.DataFrame = dd.from_map(
            make_partition,
            range(self.partitions),
            args=(self.number, seconds),
            meta=first.iloc[:0],
        )
        return frame

    def applied_to(self, state: State) -> State:
        """Return what stands once it has committed on top of `state`."""
        return (*(state or ()), self.number) if self.append else (self.number,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How what was read compares with the nearest state that is permitted."""

    state: State
    lost: int
    doubled: int


def make_partition(partition: int, write: int, seconds: float) -> pd.DataFrame:
    """Make one partition, on a worker."""
    time.sleep(seconds)
    rows = range(_rows_in(write, partition))
    return pd.DataFrame(
        {
            "write": pd.Series(write, index=rows, dtype="int64"),
            "partition": pd.Series(partition, index=rows, dtype="int64"),
            "row": pd.Series(rows, dtype="int64"),
            "name": pd.Series([f"person {row}" for row in rows], dtype="str"),
        }
    )


def rows_of(frame: pd.DataFrame) -> Counter[Row]:
    """Count the rows that were read."""
    return Counter(zip(frame["write"], frame["partition"], frame["row"], strict=True))


def permitted(before: State, writes: Sequence[tuple[Write, Outcome]]) -> set[State]:
    """Return every state that may stand after writes that raced each other."""
    certain = {write for write, outcome in writes if outcome is Outcome.COMMITTED}
    possible = [write for write, outcome in writes if outcome is not Outcome.REFUSED]
    states = set()
    for count in range(len(possible) + 1):
        for order in permutations(possible, count):
            if certain <= set(order):
                state = before
                for write in order:
                    state = write.applied_to(state)
                states.add(state)
    return states


def judge(found: Counter[Row], states: Iterable[State], writes: dict[int, Write]) -> Verdict:
    """Compare what was read with the permitted states, and take the nearest.

    A row of a write that does not count is doubled as one that is there twice: either is a row
    too many.
    """
    verdicts = []
    for state in states:
        expected: Counter[Row] = sum((writes[number].rows() for number in state or ()), Counter())
        verdicts.append(
            Verdict(
                state=state,
                lost=(expected - found).total(),
                doubled=(found - expected).total(),
            )
        )
    return min(verdicts, key=lambda verdict: verdict.lost + verdict.doubled)


def _rows_in(write: int, partition: int) -> int:
    """Rows of a partition: few, not the same everywhere, and never none."""
    return 1 + (7 * write + 3 * partition) % 20
