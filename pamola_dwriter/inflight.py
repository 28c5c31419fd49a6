"""What of a write is under way in this process, and what it committed here.

A cancelled task goes on running in its thread, and a result may be lost on its way; whoever
cleans up after a write asks every process first.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Worker

from pamola_dwriter import layout
from pamola_dwriter.events import PartitionStaged
from pamola_dwriter.layout import Stage
from pamola_dwriter.spec import WriteId, WriterResult

_RESULTS_KEPT = 64
_AT_REST = frozenset({"memory", "error", "released", "forgotten"})
"""States of a worker's task in which nothing of it runs, nor will unless it is sent again."""

_running: Counter[tuple[WriteId, str]] = Counter()
_results: OrderedDict[WriteId, WriterResult] = OrderedDict()
_lock = threading.Lock()

Listener = Callable[[PartitionStaged], None]
_listeners: dict[WriteId, Listener] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process knows of a write.

    Attributes
    ----------
    stages : frozenset of str
        Stages of its tasks that run here, or are about to.
    result : WriterResult or None
        What it committed here.
    """

    stages: frozenset[str]
    result: WriterResult | None


@contextmanager
def working_on(write_id: WriteId, stage: Stage) -> Iterator[None]:
    """Mark a side effect of a write as under way in this process."""
    with _lock:
        _running[write_id, stage] += 1
    try:
        yield
    finally:
        with _lock:
            _running[write_id, stage] -= 1
            if not _running[write_id, stage]:
                del _running[write_id, stage]


@contextmanager
def listening(write_id: WriteId, listener: Listener) -> Iterator[None]:
    """Pass on what threads of this process tell of a write."""
    _listeners[write_id] = listener
    try:
        yield
    finally:
        del _listeners[write_id]


def tell(event: PartitionStaged) -> None:
    """Tell whoever listens in this process; on a cluster the scheduler does."""
    if (listener := _listeners.get(event.write_id)) is not None:
        listener(event)


def remember(result: WriterResult) -> None:
    """Keep a result for whoever asks, should its way to the client be cut."""
    with _lock:
        _results[result.write_id] = result
        while len(_results) > _RESULTS_KEPT:
            _results.popitem(last=False)


def report(write_id: WriteId, dask_worker: Worker | None = None) -> Report:
    """Tell what this process knows of a write; Dask fills in `dask_worker`."""
    with _lock:
        stages = {stage for write, stage in _running if write == write_id}
        result = _results.get(write_id)
    if dask_worker is not None:
        stages |= _tasks(write_id, dask_worker)
    return Report(stages=frozenset(stages), result=result)


def _tasks(write_id: WriteId, worker: Worker) -> set[str]:
    """Return the stages of tasks that have not come to rest: their inputs may be loading."""
    active = [key for key, task in worker.state.tasks.items() if task.state not in _AT_REST]
    parsed = [found for key in active if (found := layout.parse_task_key(key))]
    return {stage for stage, write, _ in parsed if write == write_id}
