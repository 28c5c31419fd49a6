"""The scheduler plugin that watches every write from the scheduler's own task transitions.

Counts come from transitions, which are exact; rows and bytes from events that the put tasks
send, keyed by partition so that a repeated or reordered event changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from pamola_dwriter import layout
from pamola_dwriter.events import TOPIC, PartitionStaged
from pamola_dwriter.progress import Fold
from pamola_dwriter.spec import WriteId

NAME = "pamola-writes"
PROGRESS = "pamola_progress"
COMMITTERS = "pamola_committers"
BROKEN = "pamola_broken"
WRITES_KEPT = 100


class WritesPlugin(SchedulerPlugin):
    """Keeps one :class:`~pamola_dwriter.progress.Fold` per write, the last hundred of them."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.writes: OrderedDict[WriteId, Fold] = OrderedDict()
        self._scheduler: Scheduler | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Answer clients that ask about a write."""
        self._scheduler = scheduler
        scheduler.handlers[PROGRESS] = self.progress
        scheduler.handlers[COMMITTERS] = self.committers
        scheduler.handlers[BROKEN] = self.broken

    async def progress(self, write_id: WriteId, partitions: int) -> dict[str, Any]:
        """Return the snapshot of a write of so many partitions, as plain values."""
        fold = self._fold(write_id)
        fold.partitions = partitions
        return asdict(fold.snapshot())

    async def committers(self, write_id: WriteId) -> list[str] | None:
        """Return the workers that were ever given the commit task; None if that is not known."""
        fold = self.writes.get(write_id)
        return None if fold is None else sorted(fold.committers)

    async def broken(self, write_id: WriteId) -> list[int]:
        """Return the partitions that could not be computed or stored."""
        fold = self.writes.get(write_id)
        return [] if fold is None else sorted(fold.broken)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Count a task that is done, or discount one that waits to be done again."""
        if finish not in ("memory", "waiting", "processing", "erred"):
            return
        parsed = layout.parse_task_key(key)
        if parsed is None:
            return
        stage, write_id, index = parsed
        if finish == "memory":
            self._fold(write_id).finished(stage, index)
        elif finish == "waiting":
            self._fold(write_id).lost(stage, index)
        elif finish == "erred":
            self._fold(write_id).failed(stage, index)
        elif stage == "commit":
            self._fold(write_id).committers.add(self._worker_of(key))

    def log_event(self, topic: str, msg: Any) -> None:
        """Take what a put task reported of its partition."""
        if topic == TOPIC:
            event = PartitionStaged.from_message(msg)
            self._fold(event.write_id).staged(event.partition, event.rows, event.size_bytes)

    def _worker_of(self, key: Any) -> str:
        task = self._scheduler.tasks.get(key) if self._scheduler else None
        worker = task.processing_on if task else None
        return str(worker.address) if worker else "unknown"

    def _fold(self, write_id: WriteId) -> Fold:
        if write_id not in self.writes:
            self.writes[write_id] = Fold(write_id=write_id, partitions=0)
            while len(self.writes) > WRITES_KEPT:
                self.writes.popitem(last=False)
        return self.writes[write_id]
