"""One execution of a compiled write on Dask's threaded scheduler, in this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import dask.threaded
from dask.highlevelgraph import HighLevelGraph

from pamola_dwriter import inflight, layout
from pamola_dwriter.events import EndStatus, PartitionStaged
from pamola_dwriter.graph.failures import name_failures
from pamola_dwriter.runs.base import Inquiry, Run
from pamola_dwriter.spec import RunSpec, WriterResult

_HERE = "this process"


class LocalRun(Run):
    """A write on Dask's threaded scheduler, in this process."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec) -> None:
        super().__init__(graph, key, spec)
        self._failures: list[tuple[str, int, str]] = []
        """Stage, partition and class of each exception; filled by the threads that ran into it."""
        self._told: deque[PartitionStaged] = deque()
        """What threads told that the thread of the scheduler has not heard yet."""

    def ended(self, status: EndStatus) -> None:
        """Take note of how the write ended, and of what made it fail."""
        for stage, index, kind in self._failures:
            self._fold.failed(stage, index, kind, time.time())
        super().ended(status)

    def _compute(self) -> WriterResult:
        self._check_not_cancelled()
        watch = (None, self._begin, self._before_task, self._after_task, None)
        tasks = name_failures(self._graph, self._fail)
        with inflight.listening(self.spec.write_id, self._told.append):
            result: WriterResult = dask.threaded.get(tasks, self._key, callbacks=[watch])
        return result

    def _begin(self, dsk: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
        for key in dsk:
            if parsed := layout.parse_task_key(key):
                stage, _, index = parsed
                self._fold.waiting(stage, index)

    def _before_task(self, key: Any, dsk: Any, state: Mapping[str, Any]) -> None:
        self._check_not_cancelled()
        parsed = layout.parse_task_key(key)
        if parsed is None:
            return
        stage, _, index = parsed
        self._fold.running(stage, index, _HERE)

    def _after_task(self, key: Any, result: Any, *args: Any) -> None:
        parsed = layout.parse_task_key(key)
        if parsed is None:
            return
        stage, _, index = parsed
        while self._told:
            self._fold.staged(self._told.popleft(), _HERE)
        self._fold.finished(stage, index, _HERE, time.time())

    def _fail(self, key: Any, partitions: tuple[int, ...], error: Exception) -> None:
        parsed = layout.parse_task_key(key)
        stage = parsed[0] if parsed else "serialize"
        self._failures += [(stage, index, type(error).__name__) for index in partitions]

    def _ask(self) -> Inquiry:
        report = inflight.report(self.spec.write_id)
        return Inquiry.of(
            [report], sorted({index for _, index, _ in self._failures}), lost_commit=False
        )
