"""Commit synthetic part records on a real disk: seconds, memory, and bytes of the result.

Every record has a staged file, which finalize moves into place. Each size has a process of its own,
whose peak of memory is that of the records and of the commit.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import psutil

from benchmarks import staged
from benchmarks.measuring import Comparison, keep_option, publish
from pamola_dwriter import layout
from pamola_dwriter.finalize import finalize as commit
from pamola_dwriter.spec import Attempt, PartRecord, RunSpec

MEASURES = {
    "seconds": ("s", "commit", 30),
    "each": ("s a record", "commit of one record: linear if it stays", None),
    "memory": ("bytes", "peak of memory of the records and the commit", 500e6),
    "result": ("bytes", "result as it travels to the client", 100e3),
}
"""Unit, words, and what it shall be at most for :data:`JUDGED` records."""
JUDGED = "100,000 records"


@click.command()
@click.option(
    "--records",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1_000, 10_000, 100_000),
    show_default=True,
    help="Give it again for more sizes.",
)
@click.option("--folder", type=click.Path(path_type=Path), help="On the disk to measure.")
@keep_option
def finalize(records: tuple[int, ...], folder: Path | None, keep: Path | None) -> None:
    """Commit many part records that are staged on a disk."""
    measured = {f"{count:,} records": _measure(count, folder) for count in records}
    for name, (unit, words, most) in MEASURES.items():
        comparison = Comparison(
            name=f"finalize-{name}",
            title=f"Finalize, local: {words}",
            unit=unit,
            peer=next(iter(measured)),
            figures={size: [figures[name]] for size, figures in measured.items()},
            parameters={"records": records},
            at_most={JUDGED: most} if most and JUDGED in measured else {},
        )
        publish(comparison, keep)


def _measure(count: int, folder: Path | None) -> dict[str, float]:
    """Measure in a process of its own."""
    context = multiprocessing.get_context("spawn")
    where = TemporaryDirectory(prefix="pamola-bench-", dir=folder)
    with where as task_dir, context.Pool(1) as pool:
        return pool.apply(_commit, (task_dir, count))


def _commit(task_dir: str, count: int) -> dict[str, float]:
    _, spec = staged.prepare(task_dir, count)
    start = psutil.Process().memory_info().rss
    records = _stage(task_dir, count, spec)
    began = time.perf_counter()
    result = commit(records, None, spec)
    seconds = time.perf_counter() - began
    if result.partitions != count:
        raise AssertionError(f"{result.partitions} of {count} partitions were committed")
    return {
        "seconds": seconds,
        "each": seconds / count,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start,
        "result": len(pickle.dumps(result)),
    }


def _stage(task_dir: str, count: int, spec: RunSpec) -> dict[int, tuple[PartRecord, ...]]:
    """Store a small file for each record, as parts are staged but for the wait for the disk."""
    folder = layout.join(layout.STAGING, spec.write_id)
    os.makedirs(f"{task_dir}/{folder}")
    records = {}
    for number in range(count):
        attempt = Attempt(f"{number:08x}")
        path = layout.part_name(number, spec.write_id, attempt, 0, "parquet")
        token = layout.join(folder, layout.staged_name(path, attempt))
        with open(f"{task_dir}/{token}", "wb") as file:
            file.write(staged.STORED)
        records[number] = (staged.record(path, number, token),)
    return records
