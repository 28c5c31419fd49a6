"""The fold from what happens to the tasks of one write to its snapshot."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pamola_dwriter.events import PartitionStaged, WriteAnnounced
from pamola_dwriter.progress.history import History, Sample
from pamola_dwriter.progress.sizes import Amount, Sizes
from pamola_dwriter.progress.snapshot import Failure, Snapshot, Status
from pamola_dwriter.progress.stages import (
    LAST_STAGES,
    PARTITION_STAGES,
    StageTasks,
    TaskState,
    partition_states,
)
from pamola_dwriter.spec import WriteId

_FAILURES_KEPT = 20
_COMMIT = "commit"
_STAGES = [
    *["infer", "schema", "serialize", "encrypt", "put", "part", "keep"],
    *["gather", "count", "claim", "publish", "collect", _COMMIT],
]
"""In the order of the graph."""


class Fold:
    """The state of one write, updated by what happens, each thing any number of times.

    Parameters
    ----------
    write_id : WriteId
    now : float
        Seconds since the epoch, here and in every method.
    """

    def __init__(self, write_id: WriteId, now: float) -> None:
        self.write_id = write_id
        self.about = WriteAnnounced(write_id=write_id)
        self.history = History()
        self.committers: set[str] = set()
        """Workers that were given the commit task: after a loss, those to ask about it."""
        self.broken: set[int] = set()
        """Partitions that cannot be written, since something raised."""
        self.failures: list[Failure] = []
        self.workers: set[str] = set()
        """Workers that have finished a task."""
        self._stages: dict[str, StageTasks] = {}
        self._sizes = Sizes()
        self._started = now
        self._ended: tuple[Status, float] | None = None
        self.gone = False
        """Whether the scheduler has let go of it: then nothing of it is ever done again."""
        self._closing: tuple[Snapshot, npt.NDArray[np.uint8]] | None = None
        self.history.add(self._sample(now))

    @property
    def status(self) -> Status:
        """``running`` until it has ended."""
        return self._ended[0] if self._ended else "running"

    @property
    def ended(self) -> float:
        """Seconds since the epoch when it ended; infinity while it is under way."""
        return self._ended[1] if self._ended else math.inf

    @property
    def by_worker(self) -> dict[str, Amount]:
        """What each worker has stored."""
        return self._sizes.by_worker()

    def announce(self, announced: WriteAnnounced) -> None:
        """Somebody tells what this write is."""
        self.about = announced

    def waiting(self, stage: str, index: int | None) -> None:
        """A task is to be done, for the first time or again: it raised, or its worker died."""
        self._tasks(stage).move(index or 0, TaskState.WAITING)
        if index is not None and stage in PARTITION_STAGES:
            if stage in LAST_STAGES:
                self._sizes.take_back(index)
            self.broken.discard(index)
        if stage == _COMMIT:
            self._ended = None

    def running(self, stage: str, index: int | None, worker: str) -> None:
        """A task was handed to a worker."""
        self._tasks(stage).move(index or 0, TaskState.RUNNING)
        if stage == _COMMIT:
            self.committers.add(worker)

    def finished(self, stage: str, index: int | None, worker: str, now: float) -> None:
        """A task holds its result."""
        self._tasks(stage).move(index or 0, TaskState.DONE)
        self.workers.add(worker)
        if stage == _COMMIT:
            self.end("committed", now)
        elif self.history.is_due(now):
            self.history.add(self._sample(now))

    def worked(self, stage: str, seconds: float) -> None:
        """A worker spent so long on a task."""
        self._tasks(stage).seconds += seconds

    def failed(self, stage: str, index: int | None, kind: str, now: float) -> None:
        """A task raised an exception of class `kind`, or one that it depends on did."""
        self._tasks(stage).move(index or 0, TaskState.FAILED)
        partition = index if stage in PARTITION_STAGES else None
        if partition is None:
            known = bool(self.failures)
        else:
            known = partition in self.broken
            self.broken.add(partition)
        if not known and len(self.failures) < _FAILURES_KEPT:
            self.failures.append(Failure(stage=stage, partition=partition, kind=kind))
        if stage == _COMMIT:
            self.end("failed", now)

    def forgotten(self, stage: str, index: int | None, now: float) -> None:
        """A task is no longer known: nobody wants its result, or wants it any more."""
        self._tasks(stage).drop(index or 0)
        if stage == _COMMIT:
            self.gone = True
            if self._ended is None:
                self.end("cancelled", now)

    def staged(self, event: PartitionStaged, worker: str) -> None:
        """A worker reported what it stored of a partition; the last report counts."""
        amount = Amount(1, event.parts, event.rows, event.size_bytes, event.memory_bytes)
        self._sizes.store(event.partition, amount, worker)

    def end(self, status: Status, now: float) -> None:
        """It has ended so; who waited for it knows better than its tasks, and may say it later."""
        if self._closing is None:
            self.history.add(self._sample(now))
        self._ended = (status, self._ended[1] if self._ended else now)

    def close(self, now: float) -> None:
        """Let go of what only a write under way needs: this one is done with for good."""
        if self._closing is None:
            self._closing = (self.snapshot(now), self.partition_states())
            self._stages = {}
            self._sizes.forget_partitions()

    def partition_states(self) -> npt.NDArray[np.uint8]:
        """Return the :class:`PartitionState` of each partition, an array of shape (partitions,)."""
        if self._closing is not None:
            return self._closing[1]
        return partition_states(self._stages, self.partitions)

    @property
    def partitions(self) -> int:
        """Partitions in all: as announced, or those heard of."""
        if self.about.partitions is not None:
            return self.about.partitions
        return sum(tasks.total for tasks in self._known(LAST_STAGES))

    def snapshot(self, now: float) -> Snapshot:
        """Return the state as one immutable value."""
        if self._closing is not None:
            return replace(self._closing[0], status=self.status)
        total = self._sizes.total
        elapsed = max(0.0, (self._ended[1] if self._ended else now) - self._started)
        rate, memory_rate, pace = self._pace(now, elapsed)
        fraction = self._fraction()
        return Snapshot(
            write_id=self.write_id,
            name=self.about.name,
            url=self.about.url,
            format=self.about.format,
            encrypted=self.about.encrypted,
            status=self.status,
            partitions_done=self._done(),
            partitions=self.partitions,
            parts=total.parts,
            rows=total.rows,
            size_bytes=total.size_bytes,
            memory_bytes=total.memory_bytes,
            stages={
                stage: self._stages[stage].counts() for stage in _STAGES if stage in self._stages
            },
            workers=len(self.workers),
            started=self._started,
            elapsed=elapsed,
            rate=rate,
            memory_rate=memory_rate,
            eta=(1 - fraction) / pace if pace and not self._ended else None,
            failures=tuple(self.failures),
        )

    def _tasks(self, stage: str) -> StageTasks:
        found = self._stages.get(stage)
        if found is None:
            found = self._stages[stage] = StageTasks()
        return found

    def _known(self, stages: Collection[str]) -> list[StageTasks]:
        # A local write is looked at by one thread while others add to it.
        return [self._stages[stage] for stage in stages if stage in self._stages]

    def _done(self) -> int:
        return sum(tasks.count(TaskState.DONE) for tasks in self._known(LAST_STAGES))

    def _fraction(self) -> float:
        """Return how much of the tasks of partitions is done, from 0 to 1."""
        stages = self._known(PARTITION_STAGES)
        total = sum(tasks.total for tasks in stages)
        return sum(tasks.count(TaskState.DONE) for tasks in stages) / total if total else 0.0

    def _sample(self, now: float) -> Sample:
        total = self._sizes.total
        return Sample(
            time=now,
            partitions=self._done(),
            rows=total.rows,
            size_bytes=total.size_bytes,
            memory_bytes=total.memory_bytes,
            fraction=self._fraction(),
        )

    def _pace(self, now: float, elapsed: float) -> tuple[float, float, float]:
        """Return stored bytes, bytes taken in and the fraction done, each per second."""
        here = self._sample(now)
        before = None if self._ended else self.history.lately(now)
        span = now - before.time if before else elapsed
        if span <= 0:
            return 0.0, 0.0, 0.0
        start = before or replace(here, size_bytes=0, memory_bytes=0, fraction=0.0)
        return (
            max(0, here.size_bytes - start.size_bytes) / span,
            max(0, here.memory_bytes - start.memory_bytes) / span,
            max(0.0, here.fraction - start.fraction) / span,
        )
