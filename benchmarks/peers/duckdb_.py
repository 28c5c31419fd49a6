"""DuckDB: ``COPY`` into files of about the same size as the input's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.peer import CORES, LEVEL, Guarantees, Peer, Task, Write, engine

_FILL = 0.7
"""A file is closed after the row group that exceeds its size, so ask for less."""


@contextmanager
def _open(task: Task) -> Iterator[Write]:
    with engine("duckdb").connect() as connection:
        connection.execute(f"SET threads = {CORES}")
        # Keeping the order makes threads wait for one another.
        connection.execute("SET preserve_insertion_order = false")
        source = ", ".join(_literal(file) for file in task.files)
        size = max(1, int(_FILL * task.size_bytes / len(task.files)))

        def write(folder: Path) -> None:
            connection.execute(
                f"COPY (FROM read_parquet([{source}])) TO {_literal(str(folder))} (FORMAT parquet, "
                f"COMPRESSION zstd, COMPRESSION_LEVEL {LEVEL}, FILE_SIZE_BYTES {size})"
            )

        yield write


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


DUCKDB = Peer(
    setup="`COPY ... TO` with `FILE_SIZE_BYTES` for about as many files as the input, zstd level "
    "1, `threads = 2`, `preserve_insertion_order = false` (faster)",
    guarantees=Guarantees(
        atomic="no: a directory of files appears file by file, nothing marks it complete",
        encrypted="no: `COPY` takes `ENCRYPTION_CONFIG` (one Parquet key), not measured",
        checksummed="no: none is documented for its Parquet writer",
        retried="partly: httpfs repeats requests (`http_retries`), a failed `COPY` is not",
    ),
    open=_open,
    package="duckdb",
    module="duckdb",
)
