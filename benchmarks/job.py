"""The benchmark as a job of a cluster, the same on two workers and on a thousand.

It generates rows on the workers, writes them, verifies every part, reads three columns back and
compares them. First a share of the partitions as large as one worker's is written by one worker
alone: what all of them then do a second, in proportion to that, is the scaling efficiency.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from dask.utils import format_bytes
from distributed import Client, Security

from benchmarks.generated import checked_columns, lineitem, totals
from benchmarks.machine import describe_machine
from pamola_dwriter import DataWriter, read_dataset, verify
from pamola_dwriter.bar import follow
from pamola_dwriter.spec import WriterResult

SEED = 7

_T = TypeVar("_T")


@click.command()
@click.option("--scheduler", required=True, help="Address of the scheduler (tls:// or tcp://).")
@click.option("--target", required=True, help="Task directory to write in: a path or URL.")
@click.option("--rows", type=click.IntRange(min=1), required=True, help="Rows to write in all.")
@click.option("--partitions", type=click.IntRange(min=1), required=True)
@click.option("--key", help="Key to encrypt with, as a reference that workers resolve: env:NAME.")
@click.option("--name", default="benchmark", show_default=True, help="Name of the dataset.")
@click.option("--workers", type=int, default=1, show_default=True, help="Wait for so many.")
@click.option("--timeout", type=float, default=300, show_default=True, help="Seconds to wait.")
@click.option("--endpoint-url", help="Of a store that speaks S3; credentials as usual with AWS.")
@click.option("--reference/--no-reference", default=True, help="Write one worker's share before.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="JSON to write.")
def job(**options: Any) -> None:
    """Generate, write, verify and read back on a cluster, and report the throughput.

    TLS is set up as for any client of Dask (DASK_DISTRIBUTED__COMM__TLS__...). The dataset is
    replaced if it is there, and stays.
    """
    with Client(options["scheduler"], security=Security()) as client:
        client.wait_for_workers(options["workers"], timeout=options["timeout"])
        report = Job(client, options).run()
    text = json.dumps(report, indent=2)
    if options["output"]:
        options["output"].write_text(text + "\n")
    click.echo(text)
    if not report["same"]:
        sys.exit("what was read back differs from what was written")


class Job:
    """One run of the job on a connected cluster."""

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options
        self._seconds: dict[str, float] = {}
        self._storage_options: dict[str, Any] = {}
        if endpoint := options["endpoint_url"]:
            self._storage_options["client_kwargs"] = {"endpoint_url": endpoint}
        self._writer = DataWriter(
            options["target"], storage_options=self._storage_options, client=client
        )

    def run(self) -> dict[str, Any]:
        """Do all of it and return the report, JSON-ready."""
        rows, partitions = self._options["rows"], self._options["partitions"]
        threads = self._client.nthreads()
        frame = lineitem(rows, partitions, SEED)
        expected = self._timed("generate", lambda: totals(frame))
        alone = self._write_alone(rows, partitions, threads) if self._options["reference"] else None
        result = self._timed("write", lambda: self._write(frame))
        options = {
            "encryption_key": self._options["key"],
            "storage_options": self._storage_options,
        }
        self._timed("verify", lambda: verify(result.path, client=self._client, **options))
        back = self._timed(
            "read back",
            lambda: totals(read_dataset(result.path, columns=checked_columns(), **options)),
        )
        return {
            **describe_machine(),
            "job": {name: self._options[name] for name in ("rows", "partitions", "target", "name")},
            "encrypted": result.encrypted,
            "workers": len(threads),
            "threads": sum(threads.values()),
            "seconds": {name: round(span, 3) for name, span in self._seconds.items()},
            "stored_bytes": result.size_bytes,
            **self._throughput(result, len(threads), alone),
            "same": back == expected,
        }

    def _write(self, frame: Any) -> WriterResult:
        handle = self._writer.submit_dataframe(
            frame, self._options["name"], format="parquet", encryption_key=self._options["key"]
        )
        result = follow(handle)
        last = handle.progress()
        self._memory_bytes = last.memory_bytes
        click.echo(f"{last.rows:,} rows, {format_bytes(last.size_bytes)} stored", err=True)
        return result

    def _write_alone(self, rows: int, partitions: int, threads: dict[str, int]) -> float:
        """Let one worker write its share, and return its rows per second."""
        share = max(1, partitions // len(threads))
        lazy = self._writer.write_dataframe(
            lineitem(max(1, rows * share // partitions), share, SEED),
            f"{self._options['name']}-alone",
            format="parquet",
            encryption_key=self._options["key"],
            compute=False,
        )
        one = self._client.compute(lazy, workers=[min(threads)])
        result: WriterResult = self._timed("write alone", one.result)
        return (result.rows or 0) / self._seconds["write alone"]

    def _throughput(
        self, result: WriterResult, workers: int, alone: float | None
    ) -> dict[str, Any]:
        seconds = self._seconds["write"]
        per_worker = (result.rows or 0) / seconds / workers
        return {
            "memory_bytes": self._memory_bytes,
            "rows_per_second": round((result.rows or 0) / seconds),
            "rows_per_second_and_worker": round(per_worker),
            "memory_bytes_per_second_and_worker": round(self._memory_bytes / seconds / workers),
            "scaling_efficiency": None if alone is None else round(per_worker / alone, 3),
        }

    def _timed(self, name: str, call: Callable[[], _T]) -> _T:
        click.echo(f"{name} ...", err=True)
        began = time.perf_counter()
        try:
            return call()
        finally:
            self._seconds[name] = time.perf_counter() - began
