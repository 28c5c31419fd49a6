"""delta-rs: ``write_deltalake`` from a stream of record batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.dataset as ds

from benchmarks.peers.peer import LEVEL, Guarantees, Peer, Task, Write, engine


@contextmanager
def _open(task: Task) -> Iterator[Write]:
    delta = engine("deltalake")
    properties = delta.WriterProperties(compression="ZSTD", compression_level=LEVEL)
    size = task.size_bytes // len(task.files)

    def write(folder: Path) -> None:
        # Arrow decodes on its own threads ahead of the writer; nothing is collected.
        batches = ds.dataset(task.files).scanner(use_threads=True).to_reader()
        delta.write_deltalake(
            str(folder), batches, target_file_size=size, writer_properties=properties
        )

    yield write


DELTA = Peer(
    setup="`write_deltalake` from a stream that Arrow decodes ahead, zstd level 1, "
    "`target_file_size` for about as many files as the input",
    guarantees=Guarantees(
        atomic="yes: a commit is one new file in `_delta_log`, for readers who follow the log",
        encrypted="no: not in this write",
        checksummed="no: the log holds sizes and statistics of files, no checksums of them",
        retried="partly: requests and the commit (`max_commit_retries`) are, the write is not",
    ),
    open=_open,
    package="deltalake",
    module="deltalake",
)
