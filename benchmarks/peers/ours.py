"""Ours, plain and encrypted, set up as its documentation says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa

from benchmarks.peers.peer import SUM, Guarantees, Peer, Task, Write
from pamola_dwriter import DataWriter, read_dataset

_KEY = bytes(range(32))


def _opening(key: bytes | None) -> Callable[[Task], AbstractContextManager[Write]]:
    @contextmanager
    def opened(task: Task) -> Iterator[Write]:
        yield lambda folder: DataWriter(str(folder)).write_dataframe(
            task.frame, "table", "parquet", encryption_key=key
        )

    return opened


def _reading(key: bytes | None) -> Callable[[Path], Iterator[pa.Table]]:
    def read(folder: Path) -> Iterator[pa.Table]:
        path = str(folder / "output" / "table")
        frame = read_dataset(path, columns=[SUM], encryption_key=key)
        for partition in frame.partitions:
            yield pa.Table.from_pandas(partition.compute(), preserve_index=False)

    return read


def _guarantees(encrypted: str) -> Guarantees:
    return Guarantees(
        atomic="yes: the manifest is written last and conditionally, and is the commit",
        encrypted=encrypted,
        checksummed="yes: SHA-256 of each part in the manifest",
        retried="yes: parts, uploads and the commit are, each part counts once",
    )


OURS = Peer(
    setup="`write_dataframe(format='parquet')`, zstd level 1, 2 workers of 1 thread",
    guarantees=_guarantees("no: not in this write"),
    open=_opening(None),
    read=_reading(None),
    package="pamola_dwriter",
)
ENCRYPTED = Peer(
    setup="the same with `encryption_key=`",
    guarantees=_guarantees("yes: AES-256-GCM, plain bytes never reach the disk"),
    open=_opening(_KEY),
    read=_reading(_KEY),
    package="pamola_dwriter",
)
