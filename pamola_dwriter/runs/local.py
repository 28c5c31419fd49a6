"""One execution of a compiled write on Dask's threaded scheduler, in this process."""

from __future__ import annotations

from typing import Any

import dask.threaded
from dask.highlevelgraph import HighLevelGraph

from pamola_dwriter import inflight, layout
from pamola_dwriter.graph import name_failures
from pamola_dwriter.progress import LAST_STAGES, Fold, Snapshot
from pamola_dwriter.runs.base import Inquiry, Run
from pamola_dwriter.spec import RunSpec, WriterResult


class LocalRun(Run):
    """A write on Dask's threaded scheduler, in this process."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec) -> None:
        super().__init__(graph, key, spec)
        self._fold = Fold(write_id=spec.write_id, partitions=spec.partitions)
        self._broken: set[int] = set()

    def progress(self) -> Snapshot:
        """Return what the scheduler's callbacks added up."""
        return self._fold.snapshot()

    def _compute(self) -> WriterResult:
        self._check_not_cancelled()
        watch = (None, None, self._before_task, self._after_task, None)
        tasks = name_failures(self._graph, self._broken.update)
        result: WriterResult = dask.threaded.get(tasks, self._key, callbacks=[watch])
        return result

    def _before_task(self, *args: Any) -> None:
        self._check_not_cancelled()

    def _after_task(self, key: Any, result: Any, *args: Any) -> None:
        parsed = layout.parse_task_key(key)
        if parsed is None:
            return
        stage, _, index = parsed
        self._fold.finished(stage, index)
        if stage in LAST_STAGES:
            for partition, parts in result.items():
                rows = sum(part.rows for part in parts)
                self._fold.staged(partition, rows, sum(part.size_bytes for part in parts))

    def _ask(self) -> Inquiry:
        report = inflight.report(self.spec.write_id)
        return Inquiry.of([report], sorted(self._broken), lost_commit=False)
