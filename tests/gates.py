"""Partitions that wait until a test opens the gate; importable wherever they are computed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import dask.dataframe as dd
import pandas as pd

ROWS = 10
"""In a partition; column ``x`` counts them through."""

LET_THROUGH = 3
"""Partitions that need not wait, whichever come first."""


def make_source(folder: Path, partitions: int) -> Path:
    """Make Parquet input of so many partitions; the gate stands in `folder`."""
    source = folder / "source"
    source.mkdir()
    for number in range(partitions):
        numbers = range(number * ROWS, (number + 1) * ROWS)
        people = pd.DataFrame({"x": numbers, "name": [f"person {n}" for n in numbers]})
        people.to_parquet(source / f"{number}.parquet")
    return source


def gate(partition: pd.DataFrame, folder: str) -> pd.DataFrame:
    """Leave a trace of each partition; all but the first few wait until the gate is open."""
    if not len(partition):
        return partition
    number = int(partition["x"].iloc[0]) // ROWS
    Path(folder, f"computed-{number}-{os.getpid()}").touch()
    for slot in range(LET_THROUGH):
        with suppress(FileExistsError):
            Path(folder, f"slot-{slot}").touch(exist_ok=False)
            return partition
    while not Path(folder, "open").exists():
        time.sleep(0.02)
    return partition


def gated(source: Path) -> dd.DataFrame:
    frame = dd.read_parquet(source)
    return frame.map_partitions(gate, str(source.parent), meta=frame._meta)
