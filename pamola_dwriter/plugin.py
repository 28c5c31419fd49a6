"""The scheduler plugin that watches every write from the scheduler's own task transitions.

Counts come from transitions, which are exact; rows and bytes from events that the put tasks
send, keyed by partition so that a repeated or reordered event changes nothing. A worker's event
and the news that its task is done go the same way in this order, so a partition that counts as
done has told what it is.

The client of a write installs it. ``dask scheduler --preload pamola_dwriter.plugin`` has it from
the beginning.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from pamola_dwriter import layout
from pamola_dwriter.dashboard import add_page
from pamola_dwriter.events import ANNOTATION, TOPIC, PartitionStaged, WriteAnnounced, WriteEnded
from pamola_dwriter.metrics import WriteTotals, export
from pamola_dwriter.progress import Fold, Snapshot
from pamola_dwriter.spec import WriteId
from pamola_dwriter.statelog import log_state

logger = logging.getLogger(__name__)

NAME = "pamola-writes"
PROGRESS = "pamola_progress"
COMMITTERS = "pamola_committers"
BROKEN = "pamola_broken"
WRITES_KEPT = 100

_LAST_WORD = 5.0
"""Seconds that the client of a write has to say how it ended, once its tasks are gone."""


_WAITING = frozenset({"waiting", "queued", "no-worker"})
_KIND = re.compile(r"[A-Za-z_]\w*(?=\()", re.ASCII)
"""The class in the repr of an exception; one with a repr of its own may begin with anything."""


class WritesPlugin(SchedulerPlugin):
    """Keeps one :class:`~pamola_dwriter.progress.Fold` per write.

    Writes under way stay; of those that have ended, the last hundred.

    Parameters
    ----------
    clock : callable, optional
        Returns seconds since the epoch.
    """

    name = NAME
    idempotent = True

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.writes: OrderedDict[WriteId, Fold] = OrderedDict()
        self._totals = WriteTotals()
        self._counted: set[WriteId] = set()
        self._told: dict[WriteId, str] = {}
        self._clock = clock
        self._scheduler: Scheduler | None = None

    async def start(self, scheduler: Scheduler) -> None:
        """Answer clients that ask about a write, and browsers."""
        self._scheduler = scheduler
        scheduler.handlers[PROGRESS] = self.progress
        scheduler.handlers[COMMITTERS] = self.committers
        scheduler.handlers[BROKEN] = self.broken
        add_page(scheduler, self.name)
        export(self._measure)

    def restart(self, scheduler: Scheduler) -> None:
        """All tasks are gone, and no transition told so."""
        for fold in self.writes.values():
            if not fold.gone:
                fold.forgotten("commit", None, self._clock())

    async def progress(self, write_id: WriteId) -> dict[str, Any] | None:
        """Return the snapshot of a write as plain values; None if nothing is known of it."""
        fold = self.writes.get(write_id)
        return None if fold is None else fold.snapshot(self._clock()).to_message()

    async def committers(self, write_id: WriteId) -> list[str] | None:
        """Return the workers that were ever given the commit task; None if that is not known."""
        fold = self.writes.get(write_id)
        return None if fold is None else sorted(fold.committers)

    async def broken(self, write_id: WriteId) -> list[int]:
        """Return the partitions that could not be computed or stored."""
        fold = self.writes.get(write_id)
        return [] if fold is None else sorted(fold.broken)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Follow one task; this is called for each step of every task of the scheduler."""
        parsed = layout.parse_task_key(key)
        if parsed is None:
            return
        stage, write_id, index = parsed
        if finish in _WAITING:
            fold = self._fold_begun(write_id)
            fold.waiting(stage, index)
            if stage == "commit":
                self._announce(fold, key)
                self._tell(fold)
        elif finish == "processing":
            self._fold(write_id).running(stage, index, self._worker_of(key))
        elif finish == "memory":
            self._finish(self._fold(write_id), stage, index, kwargs)
            if stage == "commit":
                self._tell(self._fold(write_id))
        elif finish == "erred":
            self._fold(write_id).failed(stage, index, self._kind_of(key), self._clock())
        elif finish == "forgotten" and write_id in self.writes:
            self.writes[write_id].forgotten(stage, index, self._clock())

    def log_event(self, topic: str, msg: Any) -> None:
        """Take what a put task reported of its partition, or a client of its write."""
        if topic != TOPIC:
            return
        if msg["event"] == "staged":
            event = PartitionStaged.from_message(msg)
            self._fold(event.write_id).staged(event, msg.get("worker", "unknown"))
        elif msg["event"] == "ended":
            ended = WriteEnded.from_message(msg)
            if (fold := self.writes.get(ended.write_id)) is not None:
                fold.end(ended.status, self._clock())
                self._tell(fold)
                self._count(fold)

    def _tell(self, fold: Fold) -> None:
        """Log the state of a write if it is another one than was last logged."""
        if self._told.get(fold.write_id) != fold.status:
            self._told[fold.write_id] = fold.status
            log_state(logger, fold.snapshot(self._clock()))

    def _count(self, fold: Fold) -> None:
        """Add a write that has ended to the totals, once."""
        if fold.write_id not in self._counted:
            self._counted.add(fold.write_id)
            self._totals.add(fold.snapshot(self._clock()))

    def _measure(self) -> tuple[WriteTotals, list[Snapshot]]:
        """Return what is counted of writes that have ended, and the others as they are."""
        now = self._clock()
        for fold in self.writes.values():
            # Its client had time enough to say how it ended, if it has one that does.
            if fold.gone and now - fold.ended > _LAST_WORD:
                self._count(fold)
        running = [fold for fold in self.writes.values() if fold.status == "running"]
        return self._totals, [fold.snapshot(now) for fold in running]

    def _finish(self, fold: Fold, stage: str, index: int | None, told: dict[str, Any]) -> None:
        fold.finished(stage, index, told.get("worker") or "unknown", self._clock())
        for span in told.get("startstops") or ():
            if span["action"] == "compute":
                fold.worked(stage, span["stop"] - span["start"])

    def _announce(self, fold: Fold, key: Any) -> None:
        task = self._scheduler.tasks.get(key) if self._scheduler else None
        message = (task.annotations or {}).get(ANNOTATION) if task else None
        if message is not None:
            fold.announce(WriteAnnounced.from_message(message))

    def _worker_of(self, key: Any) -> str:
        task = self._scheduler.tasks.get(key) if self._scheduler else None
        worker = task.processing_on if task else None
        return str(worker.address) if worker else "unknown"

    def _kind_of(self, key: Any) -> str:
        """Return the class of what made a task fail; its text may quote data."""
        task = self._scheduler.tasks.get(key) if self._scheduler else None
        blamed = task.exception_blame if task else None
        found = _KIND.match((blamed.exception_text if blamed else None) or "")
        return found.group() if found else "Exception"

    def _fold_begun(self, write_id: WriteId) -> Fold:
        """Return the fold of a write that has tasks to do: a new one, if it was over."""
        fold = self.writes.get(write_id)
        if fold is not None and fold.gone:
            self._forget(fold)
        return self._fold(write_id)

    def _fold(self, write_id: WriteId) -> Fold:
        fold = self.writes.get(write_id)
        if fold is None:
            self._make_room()
            fold = self.writes[write_id] = Fold(write_id, self._clock())
        return fold

    def _make_room(self) -> None:
        gone = [fold for fold in self.writes.values() if fold.gone]
        for fold in gone:
            self._tell(fold)
            fold.close(self._clock())
        for fold in gone[: max(0, len(gone) - WRITES_KEPT + 1)]:
            self._forget(fold)

    def _forget(self, fold: Fold) -> None:
        self._count(fold)
        del self.writes[fold.write_id]
        self._told.pop(fold.write_id, None)
        self._counted.discard(fold.write_id)


def dask_setup(scheduler: Scheduler) -> None:
    """Install the plugin on a scheduler that preloads this module, and then starts it."""
    scheduler.add_plugin(WritesPlugin())
