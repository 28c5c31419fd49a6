"""Polars: the streaming engine's ``sink_parquet`` into files of equal size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.peer import CORES, LEVEL, Guarantees, Peer, Task, Write, engine


@contextmanager
def _open(task: Task) -> Iterator[Write]:
    # Read once, when Polars is imported.
    os.environ["POLARS_MAX_THREADS"] = str(CORES)
    polars = engine("polars")
    rows_each = -(-task.rows // len(task.files))

    def write(folder: Path) -> None:
        polars.scan_parquet(task.files).sink_parquet(
            polars.PartitionBy(
                folder, max_rows_per_file=rows_each, approximate_bytes_per_file=None
            ),
            compression="zstd",
            compression_level=LEVEL,
            maintain_order=False,
            mkdir=True,
        )

    yield write


POLARS = Peer(
    setup="streaming `sink_parquet` with `PartitionBy(max_rows_per_file)`, `maintain_order=False` "
    "(faster), zstd level 1, `POLARS_MAX_THREADS=2`",
    guarantees=Guarantees(
        atomic="no: files are written under their final names, nothing marks the set complete",
        encrypted="no: `sink_parquet(encryption=...)` (unstable) takes Parquet keys, not measured",
        checksummed="no: no checksums of pages or files are documented for `sink_parquet`",
        retried="partly: requests to object stores are, a failed query is not",
    ),
    open=_open,
    package="polars",
    module="polars",
)
