"""Read a column of a sealed dataset, against the same column of the plain one: seconds and bytes.

``python -m benchmarks read`` writes TPC-H lineitem, which has 16 columns, plain and encrypted, and
reads ``l_extendedprice``, the decimal that most queries of TPC-H need, on a cluster of two
single-threaded workers. Each read opens the dataset and makes a pandas frame of
every partition. ``dd.read_parquet`` of the plain dataset, which checks nothing, stands beside it.

What is read from an S3 server is counted by a proxy before it: all bytes that the server sends,
with the heads of its replies and the manifest, in passes of their own that are not timed. What is
read from a disk is counted by the kernel (``rchar`` in ``/proc/PID/io``) for the workers and this
process: all that they ask for by ``read`` and ``pread``, also what the page cache gives. It leaves
out memory maps, which neither side uses here, and what is received from sockets, which is how Dask
talks; it includes what Dask reads in ``/proc`` to watch itself, some kB a second.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import dask.dataframe as dd
from distributed import Client

from benchmarks import lineitem
from benchmarks.compile import known_tasks
from benchmarks.measuring import (
    Comparison,
    keep_option,
    measure_in_turns,
    publish,
    rounds_option,
)
from benchmarks.places import PLACES, Place, open_place
from benchmarks.write import KEY
from deploy.local.servers import cluster
from pamola_dwriter import DataWriter, read_dataset

PEER = "plain"
SEALED = "sealed"
CONTEXT = "plain, by dd.read_parquet"
SECONDS, BYTES = 1.15, 1.2
"""Largest ratios of sealed to plain."""

Open = Callable[[dict[str, Any]], dd.DataFrame]
"""Returns a frame of one column, not yet read, given storage options."""
Pass = Callable[[], None]
"""Reads all of a column."""


@click.command()
@click.option("--place", type=click.Choice(PLACES), default="local", show_default=True)
@click.option("--scale", type=float, default=2.0, show_default=True, help="TPC-H scale factor.")
@click.option("--partitions", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--column",
    "columns",
    multiple=True,
    default=("l_extendedprice",),
    show_default=True,
    help="Give it again for more, each read alone.",
)
@click.option("--source", type=click.Path(path_type=Path), help="Folder to keep the tables in.")
@rounds_option(5)
@keep_option
def read(
    columns: tuple[str, ...], source: Path | None, rounds: int, keep: Path | None, **options: Any
) -> None:
    """Read one column of a sealed dataset, against the plain one: seconds and bytes."""
    with (
        TemporaryDirectory(prefix="pamola-bench-") as folder,
        open_place(options["place"], Path(folder)) as place,
        cluster(n_workers=2, dashboard=False) as running,
        Client(running.scheduler_address) as client,
    ):
        tables = source or Path(folder)
        tables.mkdir(parents=True, exist_ok=True)
        made = lineitem.generate(tables, options["scale"], options["partitions"])
        plain, sealed, rows = _write(lineitem.frame_of(made), place)
        for column in columns:
            opens = _opens(plain, sealed, column)
            passes = _passes(opens, place.storage_options, rows)
            seconds = measure_in_turns(_rises(passes, time.perf_counter, client), rounds)
            with _counting(place, client) as (storage_options, count):
                passes = _passes(opens, storage_options, rows)
                sizes = measure_in_turns(_rises(passes, count, client), rounds)
            parameters = {**options, "column": column, "rounds": rounds}
            for comparison in _comparisons(seconds, sizes, parameters):
                publish(comparison, keep)


def _write(frame: dd.DataFrame, place: Place) -> tuple[str, str, int]:
    """Write a table plain and sealed; return where both are, and the number of rows."""
    writer = DataWriter(place.new(), storage_options=place.storage_options)
    plain = writer.write_dataframe(frame, "plain", "parquet")
    sealed = writer.write_dataframe(frame, "sealed", "parquet", encryption_key=KEY)
    return str(plain.path), str(sealed.path), plain.rows or 0


def _opens(plain: str, sealed: str, column: str) -> dict[str, Open]:
    return {
        PEER: lambda options: read_dataset(plain, [column], storage_options=options),
        SEALED: lambda options: read_dataset(
            sealed, [column], encryption_key=KEY, storage_options=options
        ),
        CONTEXT: lambda options: dd.read_parquet(
            plain,
            columns=[column],
            index=False,
            dtype_backend="pyarrow",
            storage_options=options,
        ),
    }


def _passes(
    opens: Mapping[str, Open], storage_options: dict[str, Any], rows: int
) -> dict[str, Pass]:
    """Return calls that open and read all, and make sure that it was all."""

    def read_all(open_frame: Open) -> None:
        frame = open_frame(storage_options)
        found = frame.map_partitions(len, meta=("rows", "int64")).compute().sum()
        if found != rows:
            raise AssertionError(f"{found} of {rows} rows were read")

    return {name: lambda o=o: read_all(o) for name, o in opens.items()}  # type: ignore[misc]


@contextmanager
def _counting(place: Place, client: Client) -> Iterator[tuple[dict[str, Any], Callable[[], int]]]:
    """Give storage options, and what returns the bytes that were read by them so far."""
    if place.storage_options:
        with place.counted() as counted:
            yield counted
        return
    readers = [os.getpid(), *client.run(os.getpid).values()]
    yield {}, lambda: sum(map(_asked_for, readers))


def _asked_for(pid: int) -> int:
    """Return the bytes that a process has asked the kernel for; see proc(5)."""
    found = re.search(r"rchar: (\d+)", Path(f"/proc/{pid}/io").read_text())
    assert found is not None  # noqa: S101 - Linux has it
    return int(found[1])


def _rises(
    passes: Mapping[str, Pass], gauge: Callable[[], float], client: Client
) -> dict[str, Callable[[], float]]:
    """Return calls that return how far a gauge rises while all is read."""

    def rise(read_all: Pass) -> float:
        # What the last pass has read is not there any more, or the same task would not run again.
        while client.run_on_scheduler(known_tasks):
            time.sleep(0.01)
        before = gauge()
        read_all()
        return gauge() - before

    return {name: lambda p=p: rise(p) for name, p in passes.items()}  # type: ignore[misc]


def _comparisons(
    seconds: dict[str, list[float]], sizes: dict[str, list[float]], parameters: Mapping[str, Any]
) -> Iterator[Comparison]:
    what = (
        f"{parameters['column']} of 16 columns of TPC-H lineitem at scale {parameters['scale']:g} "
        f"in {parameters['partitions']} partitions, {parameters['place']}"
    )
    name = f"read-{parameters['place']}-{parameters['column']}"
    for suffix, words, unit, figures, aim in (
        ("", "Reading", "s", seconds, SECONDS),
        ("-bytes", "Bytes read for", "bytes", sizes, BYTES),
    ):
        yield Comparison(
            name=f"{name}{suffix}",
            title=f"{words} {what}",
            unit=unit,
            peer=PEER,
            figures=figures,
            targets={SEALED: aim},
            parameters=parameters,
        )
