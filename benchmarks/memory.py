"""Peak memory of workers that write TPC-H lineitem: ours, plain and encrypted, and ``to_parquet``.

Each measurement has two single-threaded workers of its own, since what a process once took it
seldom gives back. They have written a small table before, so that imports are not counted.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pandas as pd

from benchmarks import lineitem
from benchmarks.measuring import Comparison, keep_option, measure_in_turns, publish, rounds_option
from benchmarks.places import Place
from benchmarks.write import PEER, Write, writers
from deploy.local.servers import cluster
from deploy.local.watching import watch_memory

AIM = 1.1


@click.command()
@click.option("--scale", type=float, default=2.0, show_default=True, help="TPC-H scale factor.")
@click.option("--partitions", type=click.IntRange(min=2), default=16, show_default=True)
@click.option("--source", type=click.Path(path_type=Path), help="Folder to keep the tables in.")
@rounds_option(3)
@keep_option
def memory(
    scale: float, partitions: int, source: Path | None, rounds: int, keep: Path | None
) -> None:
    """Measure how far a worker's memory rises while it writes, against ``to_parquet``."""
    with TemporaryDirectory(prefix="pamola-bench-") as folder:
        tables = source or Path(folder)
        tables.mkdir(parents=True, exist_ok=True)
        frame = lineitem.frame_of(lineitem.generate(tables, scale, partitions))
        place = Place(f"{folder}/written")
        small = writers(frame.partitions[:2].map_partitions(_some, meta=frame._meta), place)
        measures = {
            name: lambda first=small[name], then=then: _measure(first, then, place)  # type: ignore[misc]
            for name, then in writers(frame, place).items()
        }
        figures = measure_in_turns(measures, rounds, warm_up=False)
    publish(
        Comparison(
            name="memory",
            title=f"Memory of a worker above its start, TPC-H lineitem at scale {scale:g} in "
            f"{partitions} partitions",
            unit="bytes",
            peer=PEER,
            figures=figures,
            targets=dict.fromkeys(figures.keys() - {PEER}, AIM),
            parameters={"scale": scale, "partitions": partitions, "rounds": rounds},
        ),
        keep,
    )


def _some(partition: pd.DataFrame) -> pd.DataFrame:
    return partition.iloc[:100]


def _measure(first: Write, then: Write, place: Place) -> float:
    """Return the bytes that the worker which takes most has taken more."""
    with (
        cluster(n_workers=2, dashboard=False) as running,
        running.connect() as client,
        client.as_current(),
    ):
        first(place.new())
        with watch_memory(list(running.worker_pids().values())) as seen:
            then(folder := place.new())
    place.remove(folder)
    return max(max(sizes) - sizes[0] for sizes in seen)
