"""One execution of a compiled write, wherever that is, and its aftermath."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass, replace
from typing import Any

from dask.highlevelgraph import HighLevelGraph
from distributed.client import FutureCancelledError as DaskCancelledError
from upath import UPath

from pamola_dwriter import inflight, storage
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    PamolaWriterError,
    WriteCancelledError,
    WriteFailedError,
)
from pamola_dwriter.events import EndStatus, WriteAnnounced
from pamola_dwriter.finalize import recover
from pamola_dwriter.lease import Lease
from pamola_dwriter.progress import Fold, Snapshot
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
    broken : tuple of int
        Partitions that could not be computed or stored.
    """

    stages: frozenset[str]
    result: WriterResult | None
    may_commit: bool
    broken: tuple[int, ...]

    @classmethod
    def of(
        cls, reports: Iterable[inflight.Report], broken: Iterable[int], *, lost_commit: bool
    ) -> Inquiry:
        """Put the reports together; `lost_commit` if one that began a commit is missing."""
        known = list(reports)
        stages = frozenset[str]().union(*(report.stages for report in known))
        results = [report.result for report in known if report.result is not None]
        return cls(
            stages=stages,
            result=results[0] if results else None,
            may_commit=lost_commit or "commit" in stages,
            broken=tuple(broken),
        )


class Run(ABC):
    """One execution of a compiled write."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec) -> None:
        self.spec = spec
        self._graph = graph
        self._key = key
        self._cancelled = threading.Event()
        self._fold = Fold(spec.write_id, time.time())
        self._fold.announce(WriteAnnounced.of(spec))

    def execute(self) -> WriterResult:
        """Run to the end; when there is no result, leave nothing behind.

        Unless the outcome is unknown: then all is left, so that it can be resumed.
        """
        store = storage.open_target(self.spec)
        if self.spec.target.single_file:
            return self._with_credentials(self._compute_or_settle(store))
        with Lease(store, self.spec).held():
            result = self._compute_or_settle(store)
        return self._with_credentials(result)

    def _compute_or_settle(self, store: Store) -> WriterResult:
        try:
            return self._compute()
        except CommitOutcomeUnknownError:
            raise
        except Exception as error:  # noqa: BLE001 - user code in the graph raises anything
            return self._settle(error, store)

    def cancel(self) -> None:
        """Stop; a commit under way may still win."""
        self._cancelled.set()

    def _check_not_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise WriteCancelledError(f"{self._title} was cancelled")

    @property
    def start(self) -> Snapshot:
        """The state of a write that has only begun."""
        return self._fold.snapshot(time.time())

    def progress(self) -> Snapshot:
        """Return how far the write has come."""
        return self._fold.snapshot(time.time())

    def dashboard_link(self) -> str | None:
        """Return the address of the write on a dashboard; None if there is none."""
        return None

    def ended(self, status: EndStatus) -> None:
        """Take note of how the write ended, as far as this process could find out."""
        self._fold.end(status, time.time())

    @abstractmethod
    def _compute(self) -> WriterResult: ...

    @abstractmethod
    def _ask(self) -> Inquiry:
        """Ask every process that had a part in the write; raises whatever a lost cluster does."""

    def _settle(self, error: Exception, store: Store) -> WriterResult:
        """Return the result if the write committed all the same; else sweep and raise.

        While a commit may still be under way somewhere, the outcome is unknown and nothing is
        deleted: taking parts away would tear it.
        """
        found = self._wait_until_quiet()
        try:
            committed = self._find_commit(store, found)
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
        cause = None if isinstance(error, DataWriteError) else error
        raise self._explain(error, found.broken) from cause

    def _find_commit(self, store: Store, found: Inquiry | None) -> WriterResult | None:
        """Return what this write committed and what stands, though it did not reach us.

        What a process remembers counts for a single file alone: a dataset may have been replaced
        since, and has a manifest that tells.
        """
        if not self.spec.target.single_file:
            return recover(store, self.spec)
        return None if found is None else found.result

    def _sweep(self, store: Store) -> None:
        try:
            if self.spec.target.single_file:
                store.sweep_staged(self.spec.write_id)
            else:
                store.sweep(self.spec.target.path, {self.spec.write_id}, ())
        except (PamolaWriterError, OSError) as failure:
            logger.warning("%s failed and could not be swept: %s", self._title, failure)

    def _unknown(self, error: Exception) -> CommitOutcomeUnknownError:
        # What other libraries say may quote data.
        reason = error if isinstance(error, DataWriteError) else type(error).__name__
        return CommitOutcomeUnknownError(
            f"{self._title} broke off ({reason}) and it could not be found out "
            "whether it was committed; nothing was deleted. `pamola-dwriter show` tells which "
            "writes the version has that stands; if this is not among them, the same call with "
            "resume=True goes on with it"
        )

    def _explain(self, error: Exception, broken: tuple[int, ...]) -> DataWriteError:
        if self._cancelled.is_set() or isinstance(error, _CANCELLED):
            return WriteCancelledError(f"{self._title} was cancelled; nothing was committed")
        if isinstance(error, DataWriteError):
            return error
        where = f" in partition {', '.join(map(str, broken[:5]))}" if broken else ""
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        return WriteFailedError(
            f"{self._title} failed{where}{more} with {type(error).__name__}; nothing was "
            "committed. The cause is chained to this error",
            partitions=broken,
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
