"""One execution of a compiled write, on a cluster or in this process, and its aftermath."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import replace
from typing import Any

import dask.threaded
from dask.highlevelgraph import HighLevelGraph
from distributed import Client
from distributed.client import FutureCancelledError as DaskCancelledError
from distributed.scheduler import KilledWorker
from upath import UPath

from pamola_dwriter import inflight, layout, storage
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    InvalidWriteError,
    PamolaWriterError,
    WriteCancelledError,
    WriteFailedError,
)
from pamola_dwriter.finalize import recover
from pamola_dwriter.plugin import HANDLER, WritesPlugin
from pamola_dwriter.progress import LAST_STAGES, Fold, Snapshot
from pamola_dwriter.spec import RunSpec, WriterResult

logger = logging.getLogger(__name__)

_QUIET_TIMEOUT = 60.0
"""Seconds to wait for tasks that were cancelled while they ran."""

_QUIET_POLLS = 2
"""Polls in a row that must find nothing running: a task may be on its way to its thread."""

_CANCELLED = (FutureCancelledError, DaskCancelledError, WriteCancelledError)


class Run(ABC):
    """One execution of a compiled write."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec) -> None:
        self.spec = spec
        self._graph = graph
        self._key = key
        self._cancelled = threading.Event()

    def execute(self) -> WriterResult:
        """Run to the end; when there is no result, leave nothing behind."""
        try:
            result = self._compute()
        except CommitOutcomeUnknownError:
            raise
        except Exception as error:  # noqa: BLE001 - user code in the graph raises anything
            result = self._settle(error)
        return self._with_credentials(result)

    def cancel(self) -> None:
        """Stop; a commit under way may still win."""
        self._cancelled.set()

    @abstractmethod
    def progress(self) -> Snapshot:
        """Return how far the write has come."""

    @abstractmethod
    def _compute(self) -> WriterResult: ...

    @abstractmethod
    def _is_quiet(self) -> bool: ...

    def _settle(self, error: Exception) -> WriterResult:
        """Return the result if the write committed all the same; else sweep and raise.

        While a task may still run, the outcome is unknown and nothing is deleted. After a lost
        worker, what was published stays too: should that worker still be running finalize
        somewhere, taking parts away would tear its commit.
        """
        if not self._wait_until_quiet():
            raise CommitOutcomeUnknownError(
                f"{self._title} broke off ({type(error).__name__}) and it could not be found out "
                "whether its tasks still run; nothing was deleted. Look at the target's manifest"
            ) from error
        target = self.spec.target
        store = storage.open_store(target.root, target.storage_options, self.spec.upload_part_size)
        if (committed := recover(store, self.spec)) is not None:
            return committed
        try:
            if target.single_file or isinstance(error, KilledWorker):
                store.sweep_staged(self.spec.directory, self.spec.write_id)
            else:
                store.sweep(self.spec.directory, {self.spec.write_id}, ())
        except (PamolaWriterError, OSError) as failure:
            logger.warning("%s failed and could not be swept: %s", self._title, failure)
        raise self._explain(error) from (None if isinstance(error, PamolaWriterError) else error)

    def _explain(self, error: Exception) -> PamolaWriterError:
        if self._cancelled.is_set() or isinstance(error, _CANCELLED):
            return WriteCancelledError(f"{self._title} was cancelled; nothing was committed")
        if isinstance(error, PamolaWriterError):
            return error
        return WriteFailedError(
            f"{self._title} failed with {type(error).__name__}; nothing was committed. "
            "The cause is chained to this error"
        )

    @property
    def _title(self) -> str:
        return f"write {self.spec.write_id} of {self.spec.target.url}"

    def _wait_until_quiet(self) -> bool:
        deadline, polls = time.monotonic() + _QUIET_TIMEOUT, 0
        while polls < _QUIET_POLLS:
            if time.monotonic() > deadline:
                return False
            try:
                polls = polls + 1 if self._is_quiet() else 0
            except Exception as failure:  # noqa: BLE001 - a lost client raises anything
                logger.warning("cannot ask the workers about %s: %r", self._title, failure)
                return False
            time.sleep(0.05)
        return True

    def _with_credentials(self, result: WriterResult) -> WriterResult:
        """Give remote paths the caller's storage options, which the result does not carry."""
        options = self.spec.target.storage_options.reveal()
        paths: dict[str, Any] = {
            name: UPath(str(path), **options)
            for name in ("path", "manifest")
            if isinstance(path := getattr(result, name), UPath)
        }
        return replace(result, **paths)


class ClusterRun(Run):
    """A write on a distributed cluster."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec, client: Client) -> None:
        super().__init__(graph, key, spec)
        self._client = client
        try:
            client.register_plugin(WritesPlugin())
        except ImportError as error:
            raise InvalidWriteError(
                f"the scheduler cannot import pamola_dwriter ({error}); install the same "
                "version there and on the workers"
            ) from None
        self._future = client.get(graph, key, sync=False)

    def cancel(self) -> None:
        """Stop; tasks that are running end, and nothing new starts."""
        super().cancel()
        self._future.cancel()

    def progress(self) -> Snapshot:
        """Ask the scheduler plugin."""
        ask = getattr(self._client.scheduler, HANDLER)
        partitions = self.spec.partitions
        return Snapshot(
            **self._client.sync(ask, write_id=self.spec.write_id, partitions=partitions)
        )

    def _compute(self) -> WriterResult:
        result: WriterResult = self._future.result()
        return result

    def _is_quiet(self) -> bool:
        self._future.release()
        answers = self._client.run(inflight.is_working_on, self.spec.write_id, on_error="return")
        return not any(answer is True for answer in answers.values())


class LocalRun(Run):
    """A write on Dask's threaded scheduler, in this process."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec) -> None:
        super().__init__(graph, key, spec)
        self._fold = Fold(write_id=spec.write_id, partitions=spec.partitions)

    def progress(self) -> Snapshot:
        """Return what the scheduler's callbacks added up."""
        return self._fold.snapshot()

    def _compute(self) -> WriterResult:
        watch = (None, None, self._before_task, self._after_task, None)
        result: WriterResult = dask.threaded.get(
            self._graph.to_dict(), self._key, callbacks=[watch]
        )
        return result

    def _before_task(self, *args: Any) -> None:
        if self._cancelled.is_set():
            raise WriteCancelledError(f"{self._title} was cancelled")

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

    def _is_quiet(self) -> bool:
        return not inflight.is_working_on(self.spec.write_id)
