"""What the plots of the page show, as plain columns: from folds and snapshots, without Bokeh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.utils import format_bytes, format_time

from pamola_dwriter.progress import Amount, PartitionState, Sample, StageCounts
from pamola_dwriter.progress.words import stage_in_words

Columns = dict[str, list[Any]]

MOST_CELLS = 10_000
MOST_WORKERS = 16
PARTLY = len(PartitionState)
"""Value of a cell that stands for several partitions, some of them stored."""

_WIDE = 4.0
"""Width of the grid in cells, in proportion to its height."""

COUNTED = ("done", "running", "waiting", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Grid:
    """The states of all partitions as a picture.

    Attributes
    ----------
    cells : array of float32, shape (rows, columns)
        A :class:`PartitionState` or :data:`PARTLY`; NaN where there is no partition. The first
        partition is at the top left.
    per_cell : int
        Partitions that a cell stands for.
    """

    cells: npt.NDArray[np.float32]
    per_cell: int


def stages(counted: Mapping[str, StageCounts]) -> Columns:
    """Return how the tasks of each stage stand, as shares of the stage, and in words."""
    columns: Columns = {"stage": list(counted)[::-1]}
    counts = [counted[stage] for stage in columns["stage"]]
    for name in COUNTED:
        columns[name] = [getattr(one, name) / (one.total or 1) for one in counts]
        columns[f"{name}_tasks"] = [getattr(one, name) for one in counts]
    columns["text"] = [
        f"{stage_in_words(one)}, {format_time(one.seconds)} of work" for one in counts
    ]
    return columns


def throughput(samples: list[Sample]) -> Columns:
    """Return bytes stored and taken in per second, between each two samples."""
    pairs = [(before, after) for before, after in pairwise(samples) if after.time > before.time]

    def rate(before: Sample, after: Sample, name: str) -> float:
        more: int = getattr(after, name) - getattr(before, name)
        return max(0.0, more / (after.time - before.time))

    return {
        "seconds": [after.time - samples[0].time for _, after in pairs],
        "stored": [rate(*pair, "size_bytes") for pair in pairs],
        "taken_in": [rate(*pair, "memory_bytes") for pair in pairs],
    }


def workers(shares: Mapping[str, Amount]) -> Columns:
    """Return what each worker has stored: the most first from the top, the rest as one."""
    ranked = sorted(shares.items(), key=lambda item: -item[1].size_bytes)
    rows = [(address.rpartition("/")[2], share) for address, share in ranked[:MOST_WORKERS]]
    if rest := ranked[MOST_WORKERS:]:
        total = Amount()
        for _, share in rest:
            total.add(share, 1)
        rows.append((f"{len(rest):,} more workers", total))
    rows.reverse()
    return {
        "worker": [worker for worker, _ in rows],
        "size_bytes": [share.size_bytes for _, share in rows],
        "text": [
            f"{format_bytes(share.size_bytes)}, {share.partitions:,} partitions"
            for _, share in rows
        ],
    }


def grid(states: npt.NDArray[np.uint8], most: int = MOST_CELLS) -> Grid:
    """Arrange the states of partitions, an array of shape (partitions,), in a grid.

    Above `most` partitions a cell stands for several: one that failed shows in any case.
    """
    per_cell = max(1, -(-len(states) // most))
    cells = states.astype("float32") if per_cell == 1 else _merge(states, per_cell)
    columns = max(1, int(np.ceil(np.sqrt(len(cells) * _WIDE))))
    rows = max(1, -(-len(cells) // columns))
    padded = np.full(rows * columns, np.nan, dtype="float32")
    padded[: len(cells)] = cells
    return Grid(padded.reshape(rows, columns), per_cell)


def _merge(states: npt.NDArray[np.uint8], per_cell: int) -> npt.NDArray[np.float32]:
    starts = np.arange(0, len(states), per_cell)
    lowest, highest = (
        reduce(states, starts) for reduce in (np.minimum.reduceat, np.maximum.reduceat)
    )
    stored = np.add.reduceat((states == PartitionState.STORED).astype("int64"), starts)
    merged = highest.astype("float32")
    merged[(stored > 0) & (lowest < PartitionState.STORED)] = PARTLY
    merged[highest == PartitionState.FAILED] = PartitionState.FAILED
    return merged
