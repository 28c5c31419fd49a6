"""How much memory a worker needs to write: ``python -m deploy.local.sizing``.

Six partitions of the benchmark's rows lie there as Parquet; a worker of its own reads them and
writes them, encrypted, to a local folder and to an S3 server on this machine. Meanwhile its
resident memory is looked at every ten milliseconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import click
import dask.dataframe as dd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.generated import lineitem
from deploy.local import servers
from deploy.local.watching import watch_memory
from pamola_dwriter import DataWriter

PARTITIONS = 6


@click.command()
@click.option("--rows", type=int, default=1_000_000, show_default=True, help="In a partition.")
@click.option("--threads", type=int, default=1, show_default=True, help="Of the worker.")
def main(rows: int, threads: int) -> None:
    """Print the peak memory of a worker that writes, beside the size of a partition."""
    os.environ["PII_KEY"] = token_hex(32)  # workers inherit it
    with TemporaryDirectory() as folder, servers.s3_server() as store:
        source = Path(folder, "source")
        size = _generate(source, rows)
        places: dict[str, dict[str, Any]] = {
            f"{folder}/out": {},
            f"s3://{store.bucket}/out": store.storage_options,
        }
        for place, options in places.items():
            with servers.cluster(1, threads, dashboard=False) as cluster:
                start, peak = _write(cluster, source, DataWriter(place, storage_options=options))
            click.echo(
                f"{'S3' if options else 'local':<6} {threads} thread(s), partitions of "
                f"{_mib(size)} MiB: {_mib(start)} MiB at the start, {_mib(peak - start)} more at "
                f"the peak = {(peak - start) / size / threads:.1f} partitions a thread"
            )


def _generate(folder: Path, rows: int) -> int:
    """Make the input, and return the bytes that a partition of it has in memory."""
    folder.mkdir()
    for number, part in enumerate(lineitem(rows * PARTITIONS, PARTITIONS, 7).partitions):
        table = pa.Table.from_pandas(part.compute(scheduler="sync"))
        pq.write_table(table, folder / f"{number}.parquet")
    return int(table.nbytes)


def _write(cluster: servers.Cluster, source: Path, writer: DataWriter) -> tuple[int, int]:
    (pid,) = cluster.worker_pids().values()
    with cluster.connect().as_current():
        small = dd.read_parquet(source, columns=["l_orderkey"]).partitions[0]
        writer.write_dataframe(small, "first", "parquet", encryption_key="env:PII_KEY")
        with watch_memory([pid]) as (seen,):
            frame = dd.read_parquet(source, dtype_backend="pyarrow")
            writer.write_dataframe(frame, "all", "parquet", encryption_key="env:PII_KEY")
    return seen[0], max(seen)


def _mib(size: int) -> int:
    return round(size / 2**20)


if __name__ == "__main__":
    main(prog_name="python -m deploy.local.sizing")
