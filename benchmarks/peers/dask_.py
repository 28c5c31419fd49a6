"""Dask's own writers on the workers that write ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from benchmarks.peers.peer import SUM, Guarantees, Peer, Task, Write

_NOT_ATOMIC = "no: parts appear one by one under their final names, overwriting deletes first"
_RETRIED = "partly: tasks of lost workers are run again, errors only with `retries=`"


@contextmanager
def _open_parquet(task: Task) -> Iterator[Write]:
    yield lambda folder: task.frame.to_parquet(str(folder), compression="zstd")


@contextmanager
def _open_csv(task: Task) -> Iterator[Write]:
    yield lambda folder: task.frame.to_csv(f"{folder}/*.csv", index=False)


def _read_csv(folder: Path) -> Iterator[pa.Table]:
    options = csv.ConvertOptions(include_columns=[SUM], column_types={SUM: pa.decimal128(15, 2)})
    for file in sorted(folder.glob("*.csv")):
        yield csv.read_csv(file, convert_options=options)


TO_PARQUET = Peer(
    setup="`ddf.to_parquet(compression='zstd')` (level 1), 2 workers of 1 thread",
    guarantees=Guarantees(
        atomic=_NOT_ATOMIC,
        encrypted="no: not on the client",
        checksummed="no: Arrow writes page checksums only when asked",
        retried=_RETRIED,
    ),
    open=_open_parquet,
    package="dask",
)
TO_CSV = Peer(
    setup="`ddf.to_csv(index=False)`, not compressed, 2 workers of 1 thread",
    guarantees=Guarantees(
        atomic=_NOT_ATOMIC,
        encrypted="no: not on the client",
        checksummed="no: the format has none",
        retried=_RETRIED,
    ),
    open=_open_csv,
    read=_read_csv,
    package="dask",
)
