"""Compile and submit a write of very many partitions: seconds, and bytes that travel.

The scheduler is a process of its own and has no workers: what is timed ends when it knows every
task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import dask.dataframe as dd
import pandas as pd
from dask.base import collections_to_expr
from distributed import Client, Scheduler
from distributed.protocol import serialize, to_serialize
from distributed.utils import nbytes

from benchmarks.measuring import Comparison, keep_option, measure_in_turns, publish, rounds_option
from deploy.local.servers import cluster
from pamola_dwriter import DataWriter

PEER = "to_parquet"
KEY = bytes(range(32))
PAYLOAD = 5e6
"""Most bytes that may travel to the scheduler."""

Build = Callable[[str], Any]
"""Returns a collection that is not yet computed and would write to a folder."""


@click.command("compile")
@click.option("--partitions", type=click.IntRange(min=1), default=100_000, show_default=True)
@rounds_option(5)
@keep_option
def compile_(partitions: int, rounds: int, keep: Path | None) -> None:
    """Compile and submit a write, against ``to_parquet``: seconds and bytes."""
    frame = wide_frame(partitions)
    sent: dict[str, list[float]] = {}
    with (
        TemporaryDirectory(prefix="pamola-bench-") as folder,
        cluster(n_workers=0) as running,
        Client(running.scheduler_address) as client,
    ):
        builds = {
            PEER: lambda target: frame.to_parquet(target, compression="zstd", compute=False),
            "ours": lambda target: _ours(frame, target, None),
            "ours, encrypted": lambda target: _ours(frame, target, KEY),
        }
        seconds = measure_in_turns(
            {n: lambda b=b: _submit(client, b, folder, partitions) for n, b in builds.items()},  # type: ignore[misc]
            rounds,
        )
        for name, build in builds.items():
            sent[name] = [_payload(build(f"{folder}/measured"))] * rounds
    parameters = {"partitions": partitions, "rounds": rounds}
    for comparison in _comparisons(seconds, sent, parameters):
        publish(comparison, keep)


def _comparisons(
    seconds: dict[str, list[float]], sent: dict[str, list[float]], parameters: dict[str, int]
) -> Iterator[Comparison]:
    title = f"a write of {parameters['partitions']:,} partitions"
    ours = [name for name in seconds if name != PEER]
    yield Comparison(
        name="compile",
        title=f"Compiling and submitting {title}",
        unit="s",
        peer=PEER,
        figures=seconds,
        targets=dict.fromkeys(ours, 1.0),
        parameters=parameters,
    )
    yield Comparison(
        name="compile-bytes",
        title=f"What {title} sends to the scheduler",
        unit="bytes",
        peer=PEER,
        figures=sent,
        at_most=dict.fromkeys(ours, PAYLOAD),
        parameters=parameters,
    )


def wide_frame(partitions: int) -> dd.DataFrame:
    """Return a frame of so many partitions of ten rows, each made by its task."""
    return dd.from_map(_rows, range(partitions), meta=_rows(0))


def _rows(number: int) -> pd.DataFrame:
    return pd.DataFrame({"x": range(number, number + 10), "name": "somebody"})


def _ours(frame: dd.DataFrame, target: str, key: bytes | None) -> Any:
    writer = DataWriter(target)
    return writer.write_dataframe(frame, "wide", "parquet", encryption_key=key, compute=False)


def _submit(client: Client, build: Build, folder: str, partitions: int) -> float:
    began = time.perf_counter()
    future = client.compute(build(f"{folder}/{time.monotonic_ns()}"))
    while client.run_on_scheduler(known_tasks) < partitions:
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    future.release()
    while client.run_on_scheduler(known_tasks):
        time.sleep(0.05)
    return seconds


def known_tasks(dask_scheduler: Scheduler) -> int:
    """Return how many tasks a scheduler knows; for ``Client.run_on_scheduler``."""
    return len(dask_scheduler.tasks)


def _payload(collection: Any) -> int:
    """Return the bytes of what a client would send, without sending it."""
    header, frames = serialize(to_serialize(collections_to_expr([collection])))
    return sum(map(nbytes, [header, *frames]))
