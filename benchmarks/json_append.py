"""Append items to a JSON array, one call each: ours against the writer of ``pamola-core``."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import click

from benchmarks.measuring import Comparison, keep_option, publish, rounds_option
from pamola_dwriter import DataWriter

PEER = "pamola-core"
FASTER = 0.2
"""At most this share of the peer's time: five times faster."""
SLOWER = 2.0
"""How much longer one of the last tenth of the items may take than one of the first."""

_REFERENCE = "pamola_core.utils.ops.op_data_writer"


def _log_entry(number: int) -> dict[str, Any]:
    """Return the item of the specification's example, with other numbers each time."""
    return {
        "timestamp": _moment(number),
        "operation": "text_anonymization",
        "fields_processed": 12,
        "records_affected": 156 + number,
    }


def _execution(number: int) -> dict[str, Any]:
    """Return a record of the kind that pamola-core keeps of a task's execution, of about 1 kB."""
    task, folder = f"task_{number:03d}_anonymize_customers", "/data/customers/processed"
    return {
        "task_id": task,
        "task_type": "anonymization",
        "task_run_id": str(UUID(int=number)),
        "timestamp": _moment(number),
        "success": True,
        "execution_time": 12.5 + number / 8,
        "report_path": f"/data/customers/reports/{task}_report.json",
        "input_files": [
            {"name": name, "path": f"{folder}/{task}/input/{name}.csv"}
            for name in ("customers", "addresses")
        ],
        "output_files": [
            {
                "path": f"{folder}/{task}/{name}",
                "type": name.rpartition(".")[2],
                "description": f"{what} of {task}",
            }
            for name, what in {
                "output/customers.parquet": "Anonymized table",
                "dictionaries/names.json": "Mapping of names",
                "name_lengths_metrics.json": "Metrics",
            }.items()
        ],
        "hostname": "worker-07",
    }


def _moment(number: int) -> str:
    began = datetime(2025, 5, 3, 14, 32, 15)  # noqa: DTZ001 - without a zone, as in the example
    return (began + timedelta(seconds=number)).isoformat()


_ITEMS = {"log-entry": _log_entry, "execution": _execution}
"""What is appended, made from the number of the item."""

_SPELLED = {"log-entry": "log entries", "execution": "records of executions"}


@click.command("json-append")
@click.option("--items", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option(
    "--item",
    "kind",
    type=click.Choice([*_ITEMS]),
    default="log-entry",
    show_default=True,
    help="The example of the specification (0.15 kB), or a record of an execution log (1 kB).",
)
@click.option("--peer/--no-peer", default=True, help="Compare with pamola-core.")
@rounds_option(3)
@keep_option
def json_append(items: int, kind: str, peer: bool, rounds: int, keep: Path | None) -> None:
    """Append items to a JSON array, against pamola-core 1.0.0.dev4."""
    writers: dict[str, Callable[..., Any]] = {"ours": DataWriter}
    if peer:
        writers = {PEER: _reference(), **writers}
    spent: dict[str, list[list[float]]] = {name: [] for name in writers}
    for number in range(rounds):
        for name in list(writers)[:: 1 if number % 2 == 0 else -1]:
            spent[name].append(_append(writers[name], items, _ITEMS[kind]))
            click.echo(f"round {number + 1}: {name}: {sum(spent[name][-1]):.3g}", err=True)
    parameters = {"items": items, "item": kind, "rounds": rounds}
    publish(
        Comparison(
            name=f"json-append-{kind}",
            title=f"Appending {items:,} items to a JSON array, local: {_SPELLED[kind]}",
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
            name=f"json-append-{kind}-growth",
            title=f"One of {items:,} items appended by ours, median of a tenth: {_SPELLED[kind]}",
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


def _append(
    writer: Callable[..., Any], items: int, item: Callable[[int], dict[str, Any]]
) -> list[float]:
    """Return the seconds of each call."""
    with TemporaryDirectory(prefix="pamola-bench-") as folder:
        made, spent = writer(task_dir=Path(folder)), []
        for each in [item(number) for number in range(items)]:
            began = time.perf_counter()
            made.append_to_json_array(each, "operation_log")
            spent.append(time.perf_counter() - began)
    return spent
