"""Write a table as Parquet: ours, plain and encrypted, against ``to_parquet`` and others.

``python -m benchmarks write`` writes TPC-H lineitem, read from Parquet, on a cluster of two
single-threaded workers; ``--rows-each 10 --partitions 2000`` writes many small partitions instead.
Every writer compresses with zstd, and each write goes to a place where nothing is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import dask.dataframe as dd
import pandas as pd
from distributed import Client

from benchmarks import lineitem
from benchmarks.measuring import Comparison, keep_option, measure_in_turns, publish, rounds_option
from benchmarks.places import PLACES, Place, open_place
from deploy.local.servers import cluster
from pamola_dwriter import DataWriter

PEER = "to_parquet"
PLAIN, ENCRYPTED = "ours", "ours, encrypted"
KEY = bytes(range(32))
TARGETS = {"local": (0.95, None), "s3": (0.85, 0.85), "slow-s3": (0.6, 0.6), "tiny": (0.7, None)}
"""Of ours, plain and encrypted, by place; of many small partitions on the disk."""
SEALING = 1.02
"""Of ours encrypted, compared with ours plain, on the disk."""

Write = Callable[[str], object]
"""Writes the table to a folder that does not exist."""


@click.command()
@click.option("--place", type=click.Choice(PLACES), default="local", show_default=True)
@click.option("--scale", type=float, default=2.0, show_default=True, help="TPC-H scale factor.")
@click.option("--partitions", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--rows-each", type=click.IntRange(min=1), help="Small partitions; no TPC-H.")
@click.option("--source", type=click.Path(path_type=Path), help="Folder to keep the tables in.")
@rounds_option(5)
@keep_option
def write(rounds: int, keep: Path | None, **options: Any) -> None:
    """Write a table as Parquet, against ``to_parquet``."""
    with (
        TemporaryDirectory(prefix="pamola-bench-") as folder,
        open_place(options["place"], Path(folder)) as place,
        cluster(n_workers=2, dashboard=False) as running,
        Client(running.scheduler_address),
    ):
        frame = _frame(options, options["source"] or Path(folder))
        figures = measure_in_turns(timed(writers(frame, place), place), rounds)
    against_peer = _comparison(figures, options)
    publish(against_peer, keep)
    publish(_encrypting(against_peer, options["place"]), keep)


def writers(frame: dd.DataFrame, place: Place) -> dict[str, Write]:
    """Return the peer and ours, each a function of the folder to write."""

    def ours(folder: str, key: bytes | None) -> None:
        writer = DataWriter(folder, storage_options=place.storage_options)
        writer.write_dataframe(frame, "table", "parquet", encryption_key=key)

    return {
        PEER: lambda folder: frame.to_parquet(
            folder, compression="zstd", storage_options=place.storage_options
        ),
        PLAIN: lambda folder: ours(folder, None),
        ENCRYPTED: lambda folder: ours(folder, KEY),
    }


def timed(writes: Mapping[str, Write], place: Place) -> dict[str, Callable[[], float]]:
    """Return calls that write to a new folder and return the seconds it took, without removing."""

    def seconds(write_to: Write) -> float:
        folder = place.new()
        began = time.perf_counter()
        write_to(folder)
        spent = time.perf_counter() - began
        place.remove(folder)
        return spent

    return {name: lambda w=w: seconds(w) for name, w in writes.items()}  # type: ignore[misc]


def _frame(options: Mapping[str, Any], source: Path) -> dd.DataFrame:
    partitions = options["partitions"]
    if (rows := options["rows_each"]) is not None:
        table = pd.DataFrame({"id": range(rows * partitions), "x": 0.5, "name": "somebody"})
        return dd.from_pandas(table, npartitions=partitions)
    source.mkdir(parents=True, exist_ok=True)
    return lineitem.frame_of(lineitem.generate(source, options["scale"], partitions))


def _comparison(figures: dict[str, list[float]], options: Mapping[str, Any]) -> Comparison:
    place, tiny = options["place"], options["rows_each"] is not None
    plain, encrypted = TARGETS["tiny" if tiny and place == "local" else place]
    aims = {PLAIN: plain, ENCRYPTED: encrypted}
    what = (
        f"{options['partitions']:,} partitions of {options['rows_each']} rows"
        if tiny
        else f"TPC-H lineitem at scale {options['scale']:g} in {options['partitions']} partitions"
    )
    return Comparison(
        name=f"write-{place}{'-tiny' if tiny else ''}",
        title=f"Writing {what} as Parquet (zstd) to {place}",
        unit="s",
        peer=PEER,
        figures=figures,
        targets={name: aim for name, aim in aims.items() if aim is not None},
        parameters={name: value for name, value in options.items() if name != "source"},
    )


def _encrypting(against_peer: Comparison, place: str) -> Comparison:
    """Compare ours encrypted with ours plain, in the same rounds."""
    return replace(
        against_peer,
        name=f"{against_peer.name}-encrypted",
        title=f"{against_peer.title}: what encryption costs",
        peer=PLAIN,
        figures={name: against_peer.figures[name] for name in (PLAIN, ENCRYPTED)},
        targets={ENCRYPTED: SEALING} if place == "local" else {},
    )
