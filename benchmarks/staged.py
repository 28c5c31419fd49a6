"""A write that nobody runs, and records of the small parts that a benchmark stages for it."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import pandas as pd

from pamola_dwriter import DataWriter
from pamola_dwriter.graph.source import Source
from pamola_dwriter.spec import PartRecord, RunSpec

STORED = b"bytes of a part"


def prepare(task_dir: str, partitions: int, **options: Any) -> tuple[Source, RunSpec]:
    """Return what a write of so many partitions takes in, and what it is."""
    frame = dd.from_map(_rows, range(partitions), meta=_rows(0))
    writer = DataWriter(task_dir, **options)
    lazy: Any = writer.write_dataframe(frame, "wide", "parquet", compute=False, single_file=False)
    return Source.from_dask(frame), lazy._spec


def record(path: str, partition: int, staged: str) -> PartRecord:
    """Return the record of a part that holds :data:`STORED`."""
    return PartRecord(
        path=path,
        partition=partition,
        values=(),
        rows=1,
        size_bytes=len(STORED),
        plain_bytes=len(STORED),
        sha256=f"{partition:064x}",
        staged=staged,
    )


def _rows(number: int) -> pd.DataFrame:
    return pd.DataFrame({"x": [number]})
