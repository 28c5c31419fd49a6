"""What watching a wide write costs the scheduler.

``python -m benchmarks plugin-cost --partitions 20000`` writes that many partitions of ten rows on a
scheduler of its own process and two workers, while a subclass of the plugin times each call, and
prints the time of a transition and the share of all calls in the scheduler's CPU time during the
write. ``--fuse`` makes one task of each partition. Timing a call costs about as much as a clock
reads; that is measured and taken off.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import click
import dask
import dask.dataframe as dd
import pandas as pd
from distributed import Client, Scheduler

from deploy.local.servers import cluster
from pamola_dwriter import DataWriter
from pamola_dwriter.plugin import WritesPlugin

COST = "pamola_cost"


class TimedPlugin(WritesPlugin):
    """The plugin of the package, with the nanoseconds of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.transitions: list[int] = []
        self.others: list[int] = []
        self.events: list[int] = []
        self.cpu = time.process_time()

    async def start(self, scheduler: Scheduler) -> None:
        """Also answer what it has cost so far."""
        await super().start(scheduler)
        scheduler.handlers[COST] = self.cost

    async def cost(self) -> dict[str, Any]:
        """Return the costs since the last question, and forget them."""
        now = time.process_time()
        told = {
            "transitions": self.transitions,
            "others": self.others,
            "events": self.events,
            "cpu": now - self.cpu,
            "clock": _clock_cost(),
        }
        self.transitions, self.others, self.events, self.cpu = [], [], [], time.process_time()
        return told

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Time it, those of other people's tasks apart."""
        began = time.perf_counter_ns()
        super().transition(key, start, finish, *args, **kwargs)
        spent = time.perf_counter_ns() - began
        name = key[0] if isinstance(key, tuple) else key
        (self.transitions if str(name).startswith("pamola-") else self.others).append(spent)

    def log_event(self, topic: str, msg: Any) -> None:
        """Time it."""
        began = time.perf_counter_ns()
        super().log_event(topic, msg)
        self.events.append(time.perf_counter_ns() - began)


def dask_setup(scheduler: Scheduler) -> None:
    """Install the timed plugin; the client's own then finds the name taken."""
    scheduler.add_plugin(TimedPlugin())


@click.command()
@click.option("--partitions", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--fuse", is_flag=True, help="One task for each partition.")
def plugin_cost(partitions: int, fuse: bool) -> None:
    """Measure what watching a wide write costs the scheduler."""
    env = {
        "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": json.dumps([__name__]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with (
        tempfile.TemporaryDirectory(prefix="pamola-bench-") as folder,
        cluster(n_workers=2, env=env) as running,
        Client(running.scheduler_address) as client,
        dask.config.set({"pamola-dwriter.fuse-stages": fuse}),
    ):
        rows = 10 * partitions
        frame = dd.from_pandas(pd.DataFrame({"x": range(rows)}), npartitions=partitions)
        ask = getattr(client.scheduler, COST)
        client.sync(ask)
        began = time.perf_counter()
        handle = DataWriter(folder).submit_dataframe(frame, "wide", format="parquet")
        handle.result()
        seconds = time.perf_counter() - began
        seen = handle.progress()
        print(f"{seen.partitions_done:,} of {seen.partitions:,} partitions in {seconds:.0f} s")
        report(client.sync(ask))


def report(cost: dict[str, Any]) -> None:
    """Print the table."""
    total = 0.0
    for name, label in [
        ("transitions", "transitions of the write"),
        ("others", "transitions of other tasks"),
        ("events", "events"),
    ]:
        spent = [max(0, each - cost["clock"]) / 1000 for each in cost[name]]
        if not spent:
            continue
        total += sum(spent) / 1e6
        _, *_, late = statistics.quantiles(spent, n=100)
        print(
            f"{label:28} {len(spent):>9,}   median {statistics.median(spent):5.2f} us   "
            f"99 % below {late:6.2f} us   in all {sum(spent) / 1e6:6.2f} s"
        )
    share = total / cost["cpu"]
    print(f"{total:.2f} s of {cost['cpu']:.1f} s CPU of the scheduler: {share:.1%}")


def _clock_cost() -> int:
    """Return the nanoseconds between two readings of the clock with nothing between."""
    spans = []
    for _ in range(1000):
        began = time.perf_counter_ns()
        spans.append(time.perf_counter_ns() - began)
    return int(statistics.median(spans))
