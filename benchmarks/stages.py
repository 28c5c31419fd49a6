"""Where the time of a write goes, partition by partition, and how fast others encode.

One thread of this process does to each partition of TPC-H lineitem what a worker does, and each
step is timed. The encoders get the same Arrow table in memory and make one Parquet file in memory
(DuckDB: in a folder in memory, it has no other way), each with one thread: what reading the input
costs them is left out, as it is for ours.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import dask
import dask.dataframe as dd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import lineitem
from benchmarks.measuring import Comparison, keep_option, publish, rounds_option, time_in_turns
from benchmarks.peers.peer import LEVEL, MissingEngineError, engine
from pamola_dwriter import envelope, formats
from pamola_dwriter.formats.frame import describe, to_arrow
from pamola_dwriter.formats.schema import infer_schema
from pamola_dwriter.spec import FormatSpec

OURS = "ours"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made there
_HEADER = {"what": "benchmark", "segment": envelope.SMALL_SEGMENT}

Encode = Callable[[], object]


@click.command()
@click.option("--scale", type=float, default=2.0, show_default=True, help="TPC-H scale factor.")
@click.option("--partitions", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--source", type=click.Path(path_type=Path), help="Folder to keep the tables in.")
@rounds_option(5)
@keep_option
def stages(
    scale: float, partitions: int, source: Path | None, rounds: int, keep: Path | None
) -> None:
    """Time each step of a write, and encoding against Polars and DuckDB."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when Polars is imported
    pa.set_cpu_count(1)
    table_is = f"TPC-H lineitem at scale {scale:g} in {partitions} partitions"
    parameters = {"scale": scale, "partitions": partitions, "rounds": rounds}
    with TemporaryDirectory(prefix="pamola-bench-") as folder:
        tables = source or Path(folder)
        tables.mkdir(parents=True, exist_ok=True)
        made = lineitem.generate(tables, scale, partitions)
        steps = _steps(lineitem.frame_of(made), Path(folder))
        table = pq.read_table(lineitem.files_of(made)[0], use_threads=False)
        encoding = time_in_turns(_encoders(table), rounds)
    total = [sum(spans) for spans in zip(*steps.values(), strict=True)]
    publish(
        Comparison(
            name="stages",
            title=f"Steps of one partition, one thread: {table_is}",
            unit="s",
            peer="all",
            figures={"all": total, **steps},
            parameters=parameters,
        ),
        keep,
    )
    publish(
        Comparison(
            name="encode",
            title=f"Encoding one partition in memory, one thread: {table_is}",
            unit="s",
            peer=OURS,
            figures=encoding,
            at_least=dict.fromkeys(encoding.keys() - {OURS}, 1.0),
            parameters=parameters,
        ),
        keep,
    )


def _steps(frame: dd.DataFrame, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each step, partition by partition; the first one warms up."""
    description = describe(frame._meta, write_index=False)
    schema, _ = infer_schema(frame._meta, description)
    spec, key = FormatSpec(name="parquet"), os.urandom(32)
    spans: dict[str, list[float]] = {}

    def timed(step: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = act()
        spans.setdefault(step, []).append(time.perf_counter() - began)
        return result

    numbers = [0, *range(frame.npartitions)]
    for number in numbers:
        partition = timed("Dask reads the input", lambda n=number: _compute(frame, n))
        table = timed("to Arrow", lambda p=partition, n=number: to_arrow(p, schema, description, n))
        data = timed("encode", lambda t=table: formats.get("parquet").dumps(t, spec))
        sealed = timed("seal", lambda d=data: envelope.seal(d, key, _HEADER))
        timed("SHA-256", lambda s=sealed: hashlib.sha256(s).hexdigest())
        timed("store and sync", lambda s=sealed: _store(folder / "part", s))
    return {step: each[1:] for step, each in spans.items()}


def _compute(frame: dd.DataFrame, number: int) -> Any:
    [partition] = dask.compute(frame.partitions[number], scheduler="sync")
    return partition


def _store(path: Path, data: pa.Buffer) -> None:
    with path.open("wb") as file:
        file.write(memoryview(data))
        os.fsync(file.fileno())


def _encoders(table: pa.Table) -> dict[str, Encode]:
    try:
        polars, duckdb = engine("polars"), engine("duckdb")
    except MissingEngineError as error:
        raise click.ClickException(str(error)) from error
    ours, spec = formats.get("parquet"), FormatSpec(name="parquet")
    polars_frame, connection = polars.from_arrow(table), duckdb.connect()
    connection.execute("SET threads = 1")
    connection.register("given", table)

    def by_duckdb() -> None:
        with TemporaryDirectory(prefix="pamola-bench-", dir=_IN_MEMORY) as folder:
            connection.execute(
                f"COPY given TO '{folder}/part' (FORMAT parquet, COMPRESSION zstd, "
                f"COMPRESSION_LEVEL {LEVEL})"
            )

    return {
        OURS: lambda: ours.dumps(table, spec),
        "pyarrow's defaults": lambda: pq.write_table(
            table, pa.BufferOutputStream(), compression="zstd", compression_level=LEVEL
        ),
        "polars": lambda: polars_frame.write_parquet(
            io.BytesIO(), compression="zstd", compression_level=LEVEL
        ),
        "duckdb": by_duckdb,
    }
