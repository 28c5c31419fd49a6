"""Publish and commit parts that are staged: by the commit alone, and by tasks on many workers.

Everything is staged before and not timed; what is timed is the rest of the write, in the graph that
goes on with an interrupted one. Each way has the same parts, cluster and store. A server on this
machine is as busy with one worker as with many: there is something to gain over a slow line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import dask
import pyarrow as pa
from distributed import Client

from benchmarks import staged
from benchmarks.measuring import Comparison, keep_option, measure_in_turns, rounds_option
from benchmarks.measuring import publish as publish_result
from benchmarks.places import PLACES, Place, open_place
from deploy.local.servers import cluster
from pamola_dwriter import layout, storage
from pamola_dwriter.graph import compile_write
from pamola_dwriter.records import Kept
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Attempt, PartRecord, Redacted, RunSpec

ALONE = "by the commit"
GROUPS = 16
"""Tasks that publish; each has the parts of two partitions."""
_STAGED_AT_ONCE = 16


@click.command()
@click.option("--place", type=click.Choice(PLACES), default="slow-s3", show_default=True)
@click.option("--parts", type=click.IntRange(min=2 * GROUPS), default=4_000, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True)
@rounds_option(3)
@keep_option
def publish(place: str, parts: int, workers: int, rounds: int, keep: Path | None) -> None:
    """Publish many staged parts, on many workers against the commit alone."""
    spread = f"by tasks on {workers} workers"
    with (
        TemporaryDirectory(prefix="pamola-bench-") as folder,
        open_place(place, Path(folder)) as target,
        cluster(n_workers=workers, dashboard=False) as running,
        Client(running.scheduler_address) as client,
    ):
        ways: dict[str, Callable[[], float]] = {
            ALONE: lambda: _seconds(target, client, parts, width=2 * GROUPS),
            spread: lambda: _seconds(target, client, parts, width=2),
        }
        for width in (2 * GROUPS, 2):
            _seconds(target, client, 2 * GROUPS, width)  # to warm up
        figures = measure_in_turns(ways, rounds, warm_up=False)
    comparison = Comparison(
        name=f"publish-{place}",
        title=f"Publishing and committing {parts:,} staged parts on {place}",
        unit="s",
        peer=ALONE,
        figures=figures,
        targets={spread: 1.0} if place == "slow-s3" else {},
        parameters={"place": place, "parts": parts, "workers": workers, "rounds": rounds},
    )
    publish_result(comparison, keep)


def _seconds(place: Place, client: Client, parts: int, width: int) -> float:
    with dask.config.set({"pamola-dwriter.gather-width": width}):
        options = {"storage_options": place.storage_options}
        source, spec = staged.prepare(place.new(), 2 * GROUPS, **options)
        kept = Kept(partitions=_stage(place, spec, parts))
        graph, key = compile_write(source, spec, Settings.load(), kept)
        began = time.perf_counter()
        result = client.get(graph, key)
        spent = time.perf_counter() - began
    if result.partitions != parts:
        raise AssertionError(f"{result.partitions} of {parts} parts were committed")
    place.remove(spec.target.url.removesuffix(spec.target.path))
    return spent


def _stage(place: Place, spec: RunSpec, parts: int) -> dict[int, tuple[PartRecord, ...]]:
    """Stage so many small parts, not over the slow line."""
    target = replace(spec.target, storage_options=Redacted(place.direct_options))
    store = storage.open_target(replace(spec, target=target))
    data = pa.py_buffer(staged.STORED)

    def stage(number: int) -> PartRecord:
        partition, piece = number % (2 * GROUPS), number // (2 * GROUPS)
        path = layout.part_name(partition, spec.write_id, Attempt(f"{0:08x}"), piece, "parquet")
        token = store.stage(layout.join(spec.target.path, path), data, spec.write_id)
        return staged.record(path, partition, token)

    with ThreadPoolExecutor(_STAGED_AT_ONCE) as pool:
        records = list(pool.map(stage, range(parts)))
    return {partition: tuple(records[partition :: 2 * GROUPS]) for partition in range(2 * GROUPS)}
