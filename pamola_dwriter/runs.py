"""One execution of a compiled write, on a cluster or in this process, and its aftermath."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass, replace
from typing import Any

import dask.threaded
from dask.highlevelgraph import HighLevelGraph
from distributed import Client
from distributed.client import FutureCancelledError as DaskCancelledError
from upath import UPath

from pamola_dwriter import inflight, layout, storage
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    InvalidWriteError,
    PamolaWriterError,
    WriteCancelledError,
    WriteFailedError,
)
from pamola_dwriter.finalize import recover
from pamola_dwriter.plugin import COMMITTERS, PROGRESS, WritesPlugin
from pamola_dwriter.progress import LAST_STAGES, Fold, Snapshot
from pamola_dwriter.spec import RunSpec, WriterResult

logger = logging.getLogger(__name__)

_QUIET_TIMEOUT = 60.0
"""Seconds to wait for tasks that were cancelled while they ran."""

_QUIET_POLLS = 2
"""Polls in a row that must find nothing running: a task may be on its way to its thread."""

_ASK_AGAIN = 0.05
"""Seconds between two polls."""

_CANCELLED = (FutureCancelledError, DaskCancelledError, WriteCancelledError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What all processes together know of a write that broke off.

    Attributes
    ----------
    stages : frozenset of str
        Stages with tasks that still run.
    result : WriterResult or None
        The result, if one of them committed.
    may_commit : bool
        Whether a commit is under way, or was begun where nobody can be asked any more.
    """

    stages: frozenset[str]
    result: WriterResult | None
    may_commit: bool

    @classmethod
    def of(cls, reports: Iterable[inflight.Report], *, lost_commit: bool) -> Inquiry:
        """Put the reports together; `lost_commit` if one that began a commit is missing."""
        known = list(reports)
        stages = frozenset[str]().union(*(report.stages for report in known))
        results = [report.result for report in known if report.result is not None]
        return cls(
            stages=stages,
            result=results[0] if results else None,
            may_commit=lost_commit or "commit" in stages,
        )


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
    def _ask(self) -> Inquiry:
        """Ask every process that had a part in the write; raises whatever a lost cluster does."""

    def _settle(self, error: Exception) -> WriterResult:
        """Return the result if the write committed all the same; else sweep and raise.

        While a commit may still be under way somewhere, the outcome is unknown and nothing is
        deleted: taking parts away would tear it.
        """
        found = self._wait_until_quiet()
        if found is not None and found.result is not None:
            return found.result
        try:
            store = storage.open_target(self.spec)
            committed = recover(store, self.spec)
        except Exception as failure:
            raise self._unknown(error) from failure
        if committed is not None:
            return committed
        if found is None or found.may_commit:
            raise self._unknown(error) from error
        if found.stages:
            logger.warning(
                "%s broke off while tasks of it (%s) hang; what they store later is garbage",
                self._title,
                ", ".join(sorted(found.stages)),
            )
        self._sweep(store)
        raise self._explain(error) from (None if isinstance(error, DataWriteError) else error)

    def _sweep(self, store: Store) -> None:
        try:
            if self.spec.target.single_file:
                store.sweep_staged(self.spec.write_id)
            else:
                store.sweep(self.spec.target.path, {self.spec.write_id}, ())
        except (PamolaWriterError, OSError) as failure:
            logger.warning("%s failed and could not be swept: %s", self._title, failure)

    def _unknown(self, error: Exception) -> CommitOutcomeUnknownError:
        return CommitOutcomeUnknownError(
            f"{self._title} broke off ({type(error).__name__}) and it could not be found out "
            "whether it was committed; nothing was deleted. Look at what stands there before "
            "you write again"
        )

    def _explain(self, error: Exception) -> DataWriteError:
        if self._cancelled.is_set() or isinstance(error, _CANCELLED):
            return WriteCancelledError(f"{self._title} was cancelled; nothing was committed")
        if isinstance(error, DataWriteError):
            return error
        return WriteFailedError(
            f"{self._title} failed with {type(error).__name__}; nothing was committed. "
            "The cause is chained to this error"
        )

    @property
    def _title(self) -> str:
        return f"write {self.spec.write_id} of {self.spec.target.url}"

    def _wait_until_quiet(self) -> Inquiry | None:
        """Return the last answers, or None if they could not be had."""
        deadline, polls = time.monotonic() + _QUIET_TIMEOUT, 0
        while True:
            try:
                found = self._ask()
            except Exception as failure:  # noqa: BLE001 - a lost client raises anything
                logger.warning("cannot ask the workers about %s: %r", self._title, failure)
                return None
            polls = 0 if found.stages else polls + 1
            if polls == _QUIET_POLLS or time.monotonic() > deadline:
                return found
            time.sleep(_ASK_AGAIN)

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
        ask = getattr(self._client.scheduler, PROGRESS)
        partitions = self.spec.partitions
        return Snapshot(
            **self._client.sync(ask, write_id=self.spec.write_id, partitions=partitions)
        )

    def _compute(self) -> WriterResult:
        result: WriterResult = self._future.result()
        return result

    def _ask(self) -> Inquiry:
        self._future.release()
        ask = getattr(self._client.scheduler, COMMITTERS)
        answers = self._client.run(inflight.report, self.spec.write_id, on_error="return")
        reports = {
            worker: answer
            for worker, answer in answers.items()
            if isinstance(answer, inflight.Report)
        }
        # Asked last: a commit that is handed out meanwhile must not be overlooked.
        committers = self._client.sync(ask, write_id=self.spec.write_id)
        lost = committers is None or not set(committers) <= reports.keys()
        return Inquiry.of(reports.values(), lost_commit=lost)


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

    def _ask(self) -> Inquiry:
        return Inquiry.of([inflight.report(self.spec.write_id)], lost_commit=False)
