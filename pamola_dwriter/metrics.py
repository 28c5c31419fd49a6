"""What the scheduler's ``/metrics`` says of writes, for Prometheus.

Counters are of writes that have ended, each counted once, so that they never go down; what a
lost worker takes back only shows in the gauges, which are of the writes under way. No label
names a write or a dataset: there would be no end of them. Names follow "Metric and label naming"
of the Prometheus documentation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pamola_dwriter.progress import Snapshot

_ENDED = ("committed", "failed", "cancelled", "unknown")


class WriteTotals:
    """Sums over all writes that have ended since the scheduler began."""

    def __init__(self) -> None:
        self.writes = Counter[str](dict.fromkeys(_ENDED, 0))
        self.partitions = self.parts = self.rows = self.size_bytes = self.memory_bytes = 0
        self.failures = 0
        self.seconds = 0.0
        self.task_seconds = Counter[str]()
        self.retries = Counter[str]()

    def add(self, ended: Snapshot) -> None:
        """Count a write; bytes and rows only if it was committed."""
        self.writes[ended.status] += 1
        self.seconds += ended.elapsed
        self.failures += len(ended.failures)
        for stage, counts in ended.stages.items():
            self.task_seconds[stage] += counts.seconds  # type: ignore[assignment]  # of floats
            self.retries[stage] += counts.retried
        if ended.committed:
            self.partitions += ended.partitions_done
            self.parts += ended.parts
            self.rows += ended.rows
            self.size_bytes += ended.size_bytes
            self.memory_bytes += ended.memory_bytes


class _Collector:
    """Asks the plugin of the scheduler that was started last; there is one in a process."""

    source: Callable[[], tuple[WriteTotals, list[Snapshot]]] | None = None

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, as ``prometheus_client`` wants them."""
        if self.source is None:
            return
        totals, running = self.source()
        yield from _counters(totals)
        yield from _gauges(running)


_collector = _Collector()


def export(source: Callable[[], tuple[WriteTotals, list[Snapshot]]]) -> None:
    """Let the scheduler's ``/metrics`` say what `source` returns; nothing without the extra.

    Dask serves it when ``prometheus_client`` is installed, and only then.
    """
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    if _collector.source is None:
        _collector.source = source
        REGISTRY.register(_collector)
    _collector.source = source


def _counters(totals: WriteTotals) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily

    writes = CounterMetricFamily("pamola_writes", "Writes that ended.", labels=["status"])
    for status in _ENDED:
        writes.add_metric([status], totals.writes[status])
    yield writes
    for name, text, value in [
        ("partitions", "Partitions of committed writes.", totals.partitions),
        ("parts", "Parts of committed writes.", totals.parts),
        ("rows", "Rows of committed writes.", totals.rows),
        ("stored_bytes", "Bytes that committed writes stored.", totals.size_bytes),
        ("memory_bytes", "Bytes in memory that committed writes took in.", totals.memory_bytes),
        ("partition_failures", "Partitions that could not be written.", totals.failures),
        ("write_seconds", "Seconds from beginning to end of writes.", totals.seconds),
    ]:
        yield CounterMetricFamily(f"pamola_{name}", text, value=value)
    yield _by_stage("task_seconds", "Seconds that workers spent.", totals.task_seconds)
    yield _by_stage("task_retries", "Tasks that were done again.", totals.retries)


def _by_stage(name: str, text: str, values: Counter[str]) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"pamola_{name}", text, labels=["stage"])
    for stage, value in sorted(values.items()):
        family.add_metric([stage], value)
    return family


def _gauges(running: Iterable[Snapshot]) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    shown = list(running)
    tasks = Counter[tuple[str, str]]()
    for one in shown:
        for stage, counts in one.stages.items():
            for state in ("waiting", "running", "done", "failed"):
                tasks[stage, state] += getattr(counts, state)
    family = GaugeMetricFamily(
        "pamola_running_tasks", "Tasks of writes under way.", labels=["stage", "state"]
    )
    for (stage, state), value in sorted(tasks.items()):
        family.add_metric([stage, state], value)
    yield family
    for name, text, value in [
        ("writes_running", "Writes under way.", len(shown)),
        ("running_partitions", "Partitions of writes under way.", _sum(shown, "partitions")),
        ("running_partitions_stored", "Those stored.", _sum(shown, "partitions_done")),
        ("running_stored_bytes", "Bytes stored by writes under way.", _sum(shown, "size_bytes")),
        ("running_rows", "Rows stored by writes under way.", _sum(shown, "rows")),
        ("running_retries", "Tasks done again of writes under way.", _sum(shown, "retried")),
    ]:
        yield GaugeMetricFamily(f"pamola_{name}", text, value=value)


def _sum(shown: list[Snapshot], name: str) -> int:
    return sum(getattr(one, name) for one in shown)
