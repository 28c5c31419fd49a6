"""``python -m benchmarks peers``: ours and other engines write one table, in turns.

Everything runs on the same two cores, in one process tree, and every engine stays up throughout.
Ratios are to ours, plain: above 1 an engine takes longer. Before anything is timed, each writes
once, which warms it up, and what it wrote is read back: rows and the sum of a column must be those
of the input, so that nobody wins by writing less.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from distributed import Client

from benchmarks import lineitem
from benchmarks.measuring import Comparison, keep_option, measure_in_turns, publish, rounds_option
from benchmarks.peers.dask_ import TO_CSV, TO_PARQUET
from benchmarks.peers.delta import DELTA
from benchmarks.peers.duckdb_ import DUCKDB
from benchmarks.peers.ours import ENCRYPTED, OURS
from benchmarks.peers.peer import (
    CORES,
    MissingEngineError,
    Peer,
    Task,
    Write,
    checked,
    read_parquet,
    require,
)
from benchmarks.peers.polars_ import POLARS
from benchmarks.peers.ray_data import RAY
from benchmarks.peers.spark import SPARK
from benchmarks.peers.today import AES, AGE
from deploy.local.servers import cluster

PEERS = {
    "to_parquet": TO_PARQUET,
    "to_csv": TO_CSV,
    "today-aes": AES,
    "today-age": AGE,
    "polars": POLARS,
    "duckdb": DUCKDB,
    "delta": DELTA,
    "spark": SPARK,
    "ray": RAY,
}
PEER = "ours"
AT_LEAST = dict.fromkeys(["polars", "duckdb", "spark", "ray"], 1.0)
"""Ours shall be no slower than these."""


def _names(_: click.Context, __: click.Parameter, given: str | None) -> list[str]:
    names = list(PEERS) if given is None else given.split(",")
    if unknown := sorted(set(names) - set(PEERS)):
        raise click.BadParameter(f"{', '.join(unknown)}: not one of {', '.join(PEERS)}")
    return names


@click.command()
@click.option("--scale", type=float, default=2.0, show_default=True, help="TPC-H scale factor.")
@click.option("--partitions", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--only", callback=_names, help=f"Engines, with commas between: {','.join(PEERS)}.")
@click.option("--source", type=click.Path(path_type=Path), help="Folder to keep the tables in.")
@rounds_option(5)
@keep_option
def peers(rounds: int, keep: Path | None, only: list[str], **options: Any) -> None:
    """Write a table with ours and with other engines."""
    # Whatever is started inherits it, so that no engine has more than the others.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    candidates = {PEER: OURS, "ours, encrypted": ENCRYPTED, **{name: PEERS[name] for name in only}}
    try:
        require(candidates.values())
    except MissingEngineError as error:
        raise click.ClickException(str(error)) from error
    with TemporaryDirectory(prefix="pamola-bench-") as folder:
        source = options["source"] or Path(folder)
        source.mkdir(parents=True, exist_ok=True)
        made = lineitem.generate(source, options["scale"], options["partitions"])
        figures, written = _measure(candidates, made, Path(folder) / "written", rounds)
    publish(_comparison(candidates, figures, written, options), keep)
    click.echo(guarantees_table(candidates))


def _measure(
    candidates: Mapping[str, Peer], made: Path, root: Path, rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, int]]]:
    root.mkdir()
    with (
        cluster(n_workers=CORES, dashboard=False) as running,
        Client(running.scheduler_address),
        ExitStack() as engines,
    ):
        task = Task(files=lineitem.files_of(made), frame=lineitem.frame_of(made))
        writes = {n: engines.enter_context(peer.open(task)) for n, peer in candidates.items()}
        expected = checked(read_parquet(made))
        written = {}
        for name, peer in candidates.items():
            written[name] = write_and_check(peer, writes[name], root / name, expected)
        turns = {name: _timing(write, root / name) for name, write in writes.items()}
        return measure_in_turns(turns, rounds, warm_up=False), written


def write_and_check(
    peer: Peer, write: Write, folder: Path, expected: tuple[int, Decimal]
) -> dict[str, int]:
    """Write once, compare what is read back, and return how much was stored.

    Raises
    ------
    click.ClickException
        Rows are missing, or a value is another.
    """
    write(folder)
    stored = _stored(folder)
    rows, total = checked(peer.read(folder))
    shutil.rmtree(folder)
    if (rows, total) != expected:
        message = f"{folder.name} wrote {rows:,} rows of {expected[0]:,}, or other values"
        raise click.ClickException(message)
    return stored


def _timing(write: Write, folder: Path) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        write(folder)
        spent = time.perf_counter() - began
        shutil.rmtree(folder)
        return spent

    return seconds


def _stored(folder: Path) -> dict[str, int]:
    """Count the files that hold data, and their bytes; not logs, marks and checksums beside."""
    held = [
        file
        for file in folder.rglob("*")
        if file.is_file()
        and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    ]
    return {"files": len(held), "bytes": sum(file.stat().st_size for file in held)}


def _comparison(
    candidates: Mapping[str, Peer],
    figures: dict[str, list[float]],
    written: dict[str, Any],
    options: Mapping[str, Any],
) -> Comparison:
    scale, partitions = options["scale"], options["partitions"]
    return Comparison(
        name="peers-local",
        title=f"Writing TPC-H lineitem at scale {scale:g}, {partitions} Parquet files, on two cores"
        " (above 1: slower than ours)",
        unit="s",
        peer=PEER,
        figures=figures,
        at_least={name: aim for name, aim in AT_LEAST.items() if name in candidates},
        parameters={
            "scale": scale,
            "partitions": partitions,
            "written": written,
            "guarantees": {n: peer.guarantees.as_dict() for n, peer in candidates.items()},
            "versions": _versions(candidates.values()),
        },
        remarks={name: peer.setup for name, peer in candidates.items()},
    )


def _versions(candidates: Iterable[Peer]) -> dict[str, str]:
    packages = {peer.package for peer in candidates} - {None}
    return {package: version(package) for package in sorted(map(str, packages))}


def guarantees_table(candidates: Mapping[str, Peer]) -> str:
    """Return what each candidate guarantees, without the reasons."""
    names = ("atomic", "encrypted", "checksummed", "retried")
    lines = [f"{'':<28}" + "".join(f"{name:<13}" for name in names)]
    for candidate, peer in candidates.items():
        held = peer.guarantees.as_dict()
        words = [held[name].partition(":")[0] for name in names]
        lines.append(f"{candidate:<28}" + "".join(f"{word:<13}" for word in words))
    return "\n".join(lines)
