"""What one write costs the scheduler, as partitions and workers grow together.

The scheduler is real, in a process of its own, and so are the graph and the plugin that watches
the write. The workers are stand-ins (:mod:`benchmarks.stand_ins`), which answer at once that a task
is done: no partition is computed or stored. With the default settings a write of a thousand
partitions or more has one task for each (``pamola-dwriter.fuse-stages``); ``to_parquet`` has those
that Dask makes of it on a cluster. Each measurement has a scheduler of its own, which has seen a
small write of that kind before, so that imports are not counted; it ends when the scheduler has
forgotten every task.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import dask
import psutil
from distributed import Client, wait

from benchmarks.compile import KEY, PEER, known_tasks, wide_frame
from benchmarks.measuring import Comparison, keep_option, publish, rounds_option
from benchmarks.stand_ins import SCHEDULER_ENVIRONMENT, stand_ins
from deploy.local.servers import cluster
from pamola_dwriter import DataWriter
from pamola_dwriter.plugin import WritesPlugin
from pamola_dwriter.settings import Settings

OURS = "ours"
MEASURES = {
    "cpu": ("s", "CPU time of the scheduler"),
    "memory": ("bytes", "Peak memory of the scheduler above its start"),
}

_WARM_UP = 20
"""Partitions of the write before: few, since the memory that it leaves is used again."""
_FUSE = "pamola-dwriter.fuse-stages"
_RESET_PEAK = "5"
"""For /proc/PID/clear_refs, see proc(5)."""

Figures = Mapping[str, dict[int, list[dict[str, float]]]]
"""By candidate and number of partitions, what each round measured."""
Build = Callable[[str, int], Any]
"""Returns a write to a folder of so many partitions, not yet computed."""


@click.command()
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1_000, 10_000, 100_000),
    show_default=True,
    help="Give it again for more sizes, the smallest first.",
)
@click.option(
    "--per-worker",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Partitions for each worker.",
)
@click.option(
    "--peer-up-to",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    help="Largest number of partitions that to_parquet is measured with too.",
)
@rounds_option(1)
@keep_option
def scheduler(
    partitions: tuple[int, ...], per_worker: int, peer_up_to: int, rounds: int, keep: Path | None
) -> None:
    """Measure what a write costs the scheduler, up to very many partitions and workers."""
    figures: Figures = {PEER: {}, OURS: {}}
    for count in partitions:
        names, workers = [PEER, OURS] if count <= peer_up_to else [OURS], -(-count // per_worker)
        for number in range(rounds):
            for name in names[:: 1 if number % 2 == 0 else -1]:
                measured = _measure(name, count, workers)
                figures[name].setdefault(count, []).append(measured)
                click.echo(f"{name}, {count:,} partitions: {measured}", err=True)
    parameters = {"partitions": partitions, "per_worker": per_worker, "rounds": rounds}
    for measure in MEASURES:
        for comparison in _comparisons(figures, measure, parameters):
            publish(comparison, keep)


def _ours(folder: str, partitions: int) -> Any:
    return DataWriter(folder).write_dataframe(
        wide_frame(partitions), "wide", "parquet", encryption_key=KEY, compute=False
    )


def _to_parquet(folder: str, partitions: int) -> Any:
    return wide_frame(partitions).to_parquet(folder, compression="zstd", compute=False)


_CANDIDATES: Mapping[str, Build] = {PEER: _to_parquet, OURS: _ours}


def _measure(name: str, partitions: int, workers: int) -> dict[str, float]:
    """Measure one write on a scheduler of its own."""
    with (
        TemporaryDirectory(prefix="pamola-bench-") as folder,
        cluster(n_workers=0, env=SCHEDULER_ENVIRONMENT) as running,
        Client(running.scheduler_address) as client,
        stand_ins(client, workers),
    ):
        if name == OURS:
            client.register_plugin(WritesPlugin())
        with dask.config.set({_FUSE: Settings.load().fuses(partitions)}):
            _run(client, _CANDIDATES[name](f"{folder}/before", _WARM_UP))
        process = psutil.Process(client.run_on_scheduler(os.getpid))
        write = _CANDIDATES[name](f"{folder}/measured", partitions)
        Path(f"/proc/{process.pid}/clear_refs").write_text(_RESET_PEAK)
        began, start = _cpu_seconds(process), process.memory_info().rss
        tasks = _run(client, write)
        return {
            "tasks": tasks / partitions,
            "cpu": _cpu_seconds(process) - began,
            "memory": _peak_bytes(process.pid) - start,
        }


def _run(client: Client, write: Any) -> int:
    """Let a write be done and forgotten; return how many tasks it had, those done at once left out.

    All arrive together, so whoever asks soon sees nearly all.
    """
    future = client.compute(write)
    while not (tasks := int(client.run_on_scheduler(known_tasks))):
        time.sleep(0.01)
    wait(future)
    if future.status != "finished":
        raise AssertionError(f"the write ended as {future.status}")
    future.release()
    while client.run_on_scheduler(known_tasks):
        time.sleep(0.1)
    return tasks


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None  # noqa: S101 - Linux has it
    return int(found[1]) * 1024


def _comparisons(
    figures: Figures, measure: str, parameters: Mapping[str, Any]
) -> Iterator[Comparison]:
    """Compare ours with the peer for each size, and the sizes of ours with the smallest."""
    unit, words = MEASURES[measure]
    for count in figures[OURS]:
        taken = {
            name: [each[measure] for each in by_count[count]]
            for name, by_count in figures.items()
            if count in by_count
        }
        yield Comparison(
            name=f"scheduler-{measure}-{count}",
            title=f"{words}, one write of {count:,} partitions",
            unit=unit,
            peer=PEER if PEER in taken else None,
            figures=taken,
            parameters=parameters,
            remarks={
                name: f"{max(each['tasks'] for each in by_count[count]):.1f} tasks a partition"
                for name, by_count in figures.items()
                if count in by_count
            },
        )
    for name, by_count in figures.items():
        if len(by_count) > 1:
            yield _growth(name, by_count, measure, parameters)


def _growth(
    name: str,
    by_count: Mapping[int, list[dict[str, float]]],
    measure: str,
    parameters: Mapping[str, Any],
) -> Comparison:
    unit, words = MEASURES[measure]
    each = {
        f"{count:,} partitions": [one[measure] / count for one in measured]
        for count, measured in by_count.items()
    }
    return Comparison(
        name=f"scheduler-{measure}-growth-{name.replace('_', '-')}",
        title=f"{words} for each partition, {name}: linear if it stays",
        unit=f"{unit} a partition",
        peer=next(iter(each)),
        figures=each,
        parameters=parameters,
    )
