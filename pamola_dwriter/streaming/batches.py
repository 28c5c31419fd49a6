"""What a stream is given: batches, checked, and collected until they make a part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa

from pamola_dwriter.errors import SchemaMismatchError, UnsupportedDataError
from pamola_dwriter.frames import as_frame
from pamola_dwriter.request import Pace
from pamola_dwriter.spec import RunSpec


class Buffer:
    """Batches that are not yet a part, in the schema of all parts."""

    def __init__(self) -> None:
        self.rows = 0
        self.size_bytes = 0
        self.since = time.monotonic()
        self._batches: list[pa.Table] = []

    def add(self, batch: pa.Table) -> None:
        if not self.rows:
            self.since = time.monotonic()
        self.rows += batch.num_rows
        self.size_bytes += batch.nbytes
        self._batches.append(batch)

    def has_rows(self, pace: Pace) -> bool:
        """Return whether the rows of a whole part are there."""
        return pace.rows is not None and self.rows >= pace.rows

    def has_bytes(self, pace: Pace) -> bool:
        """Return whether it takes as much memory as a part should."""
        return pace.size_bytes is not None and self.size_bytes >= pace.size_bytes

    def is_old(self, pace: Pace) -> bool:
        """Return whether its first row has waited for long enough."""
        return pace.seconds is not None and time.monotonic() - self.since >= pace.seconds

    def take(self, rows: int | None, *, rest: bool) -> Iterator[pa.Table]:
        """Yield tables of at most so many rows; keep a last one that is shorter, unless `rest`."""
        held = pa.concat_tables(self._batches)
        step = rows or max(held.num_rows, 1)
        whole = held.num_rows if rest else held.num_rows - held.num_rows % step
        self.__init__()  # type: ignore[misc]  # as new
        if whole < held.num_rows:
            self.add(held.slice(whole))
        for start in range(0, max(whole, 1), step):  # one part, if it is without rows
            yield held.slice(start, min(step, whole - start))


def in_memory(batch: Any) -> pd.DataFrame:
    """Return a batch as a frame, or raise UnsupportedDataError."""
    frame = as_frame(pa.table(batch) if isinstance(batch, dict) else batch)
    if not isinstance(frame, pd.DataFrame):
        raise UnsupportedDataError(
            "a stream takes frames in memory; a Dask collection is added to a dataset by "
            "write_dataframe(..., append=True)"
        )
    return frame


def check_columns(frame: pd.DataFrame, spec: RunSpec) -> None:
    """Raise SchemaMismatchError unless it has the columns of the batches before it."""
    expected = {column["name"] for column in spec.frame["columns"]}
    if different := sorted(map(str, expected ^ set(frame.columns))):
        raise SchemaMismatchError(
            f"every batch must have the columns of the first; only one of them has "
            f"{different[:20]}",
            column=different[0],
        )
