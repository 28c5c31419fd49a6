"""Append items to a JSON array, one call each: ours against the writer of ``pamola-core``."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.measuring import Comparison, keep_option, publish, rounds_option
from pamola_dwriter import DataWriter

PEER = "pamola-core"
FASTER = 0.2
"""At most this share of the peer's time: five times faster."""
SLOWER = 2.0
"""How much longer one of the last tenth of the items may take than one of the first."""

_REFERENCE = "pamola_core.utils.ops.op_data_writer"


@click.command("json-append")
@click.option("--items", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option("--peer/--no-peer", default=True, help="Compare with pamola-core.")
@rounds_option(3)
@keep_option
def json_append(items: int, peer: bool, rounds: int, keep: Path | None) -> None:
    """Append items to a JSON array, against pamola-core 1.0.0.dev4."""
    writers: dict[str, Callable[..., Any]] = {"ours": DataWriter}
    if peer:
        writers = {PEER: _reference(), **writers}
    spent: dict[str, list[list[float]]] = {name: [] for name in writers}
    for number in range(rounds):
        for name in list(writers)[:: 1 if number % 2 == 0 else -1]:
            spent[name].append(_append(writers[name], items))
            click.echo(f"round {number + 1}: {name}: {sum(spent[name][-1]):.3g}", err=True)
    parameters = {"items": items, "rounds": rounds}
    publish(
        Comparison(
            name="json-append",
            title=f"Appending {items:,} items to a JSON array, local",
            unit="s",
            peer=PEER if peer else None,
            figures={name: list(map(sum, each)) for name, each in spent.items()},
            targets={"ours": FASTER},
            parameters=parameters,
        ),
        keep,
    )
    tenth = items // 10
    publish(
        Comparison(
            name="json-append-growth",
            title=f"One of {items:,} items appended to a JSON array by ours: median of a tenth",
            unit="s",
            peer="the first tenth",
            figures={
                "the first tenth": [statistics.median(each[:tenth]) for each in spent["ours"]],
                "the last tenth": [statistics.median(each[-tenth:]) for each in spent["ours"]],
            },
            targets={"the last tenth": SLOWER},
            parameters=parameters,
        ),
        keep,
    )


def _reference() -> Callable[..., Any]:
    try:
        writer: Callable[..., Any] = importlib.import_module(_REFERENCE).DataWriter
    except ImportError as error:
        raise click.UsageError(
            "pamola-core is not there: pip install pamola-core==1.0.0.dev4, then this package, in "
            "an environment of its own; or pass --no-peer"
        ) from error
    return writer


def _append(writer: Callable[..., Any], items: int) -> list[float]:
    """Return the seconds of each call."""
    with TemporaryDirectory(prefix="pamola-bench-") as folder:
        made, spent = writer(task_dir=Path(folder)), []
        for number in range(items):
            began = time.perf_counter()
            made.append_to_json_array({"step": number, "rows": 10 * number}, "steps")
            spent.append(time.perf_counter() - began)
    return spent
