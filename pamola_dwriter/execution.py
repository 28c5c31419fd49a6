"""Run a compiled write, on a cluster or on Dask's threaded scheduler, and clean up after it.

One path for both: a write runs in a thread of its own, which waits for the result and, when
there is none, sweeps what was staged. The caller holds a :class:`WriteFuture`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import replace
from typing import Any

import dask.threaded
from dask.base import DaskMethodsMixin
from dask.highlevelgraph import HighLevelGraph
from distributed import Client
from distributed.client import FutureCancelledError as DaskCancelledError
from distributed.scheduler import KilledWorker
from upath import UPath

from pamola_dwriter import inflight, layout, storage
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    PamolaWriterError,
    WriteCancelledError,
    WriteFailedError,
)
from pamola_dwriter.finalize import committed_by_us
from pamola_dwriter.plugin import HANDLER, WritesPlugin
from pamola_dwriter.progress import Fold, Snapshot
from pamola_dwriter.spec import RunSpec, WriteId, WriterResult

_QUIET_TIMEOUT = 60.0
"""Seconds to wait for tasks that were cancelled while they ran."""

_CANCELLED = (FutureCancelledError, DaskCancelledError)


class LazyWrite(DaskMethodsMixin):
    """A write that is compiled and not yet run; a Dask collection of one WriterResult.

    ``compute()`` runs it and cleans up if it fails; ``submit()`` does so in the background.
    ``dask.compute(lazy)`` and ``client.compute(lazy)`` work too, without the cleaning up: what
    a failure leaves staged there is invisible to readers.
    """

    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __init__(self, graph: Any, key: Any, spec: RunSpec, client: Client | None) -> None:
        self._graph = graph
        self._key = key
        self._spec = spec
        self._client = client

    def __repr__(self) -> str:
        return f"<LazyWrite {self._spec.write_id} of {self._spec.target.url}>"

    @property
    def write_id(self) -> WriteId:
        """Identity of the write, part of every part's name."""
        return self._spec.write_id

    def submit(self) -> WriteFuture:
        """Start the write and return at once."""
        run = _ClusterRun if self._client is not None else _LocalRun
        return WriteFuture(run(self._graph, self._key, self._spec, self._client))

    def compute(self, **kwargs: Any) -> WriterResult:
        """Run the write and return its result; see ``WriteFuture.result`` for errors."""
        if kwargs:
            raise TypeError(f"LazyWrite.compute takes no arguments, not {sorted(kwargs)}")
        return self.submit().wait()

    def __dask_graph__(self) -> Any:
        return self._graph

    def __dask_keys__(self) -> list[Any]:
        return [self._key]

    def __dask_layers__(self) -> Sequence[str]:
        return (str(self._key),)

    def __dask_tokenize__(self) -> Any:
        return self._key

    @staticmethod
    def __dask_optimize__(graph: Any, keys: Any, **kwargs: Any) -> Any:
        return graph

    def __dask_postcompute__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _first, ()

    def __dask_postpersist__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (self._key, self._spec, self._client)


class WriteFuture:
    """A write under way.

    Dropping it does not stop the write; :meth:`cancel` does.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        pool = ThreadPoolExecutor(1, thread_name_prefix=f"pamola-{run.spec.write_id}")
        self._future: Future[WriterResult] = pool.submit(run.execute)
        pool.shutdown(wait=False)

    def __repr__(self) -> str:
        return f"<WriteFuture {self.write_id} of {self._run.spec.target.url}: {self.status}>"

    @property
    def write_id(self) -> WriteId:
        """Identity of the write, part of every part's name."""
        return self._run.spec.write_id

    @property
    def status(self) -> str:
        """``running``, ``committed``, ``cancelled`` or ``failed``."""
        if not self._future.done():
            return "running"
        error = self._future.exception()
        if error is None:
            return "committed"
        return "cancelled" if isinstance(error, WriteCancelledError) else "failed"

    def done(self) -> bool:
        """Return whether the write has ended, in whatever way, and is cleaned up."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> WriterResult:
        """Wait for the write.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the write goes on after a timeout.

        Raises
        ------
        TimeoutError
            It has not ended within `timeout`.
        DataWriteError
            It did not commit; one of its subclasses says why.
        """
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the write and return its error, or None if it committed."""
        return self._future.exception(timeout)

    def cancel(self) -> None:
        """Stop the write; returns at once. A commit under way may still win."""
        self._run.cancel()

    def progress(self) -> Snapshot:
        """Return how far the write has come."""
        return self._run.progress()

    def wait(self) -> WriterResult:
        """Return the result; an interrupt of this thread cancels the write first."""
        try:
            return self.result()
        except KeyboardInterrupt:
            self.cancel()
            self._future.exception()
            raise


class _Run(ABC):
    """One execution of a compiled write."""

    def __init__(self, graph: Any, key: Any, spec: RunSpec, client: Client | None) -> None:
        self.spec = spec
        self._graph = graph
        self._key = key
        self._cancelled = threading.Event()

    def execute(self) -> WriterResult:
        """Run to the end; when there is no result, leave nothing behind."""
        try:
            return self._with_credentials(self._compute())
        except CommitOutcomeUnknownError:
            raise
        except PamolaWriterError:
            self._discard(certain=True)
            raise
        except _CANCELLED:
            self._discard(certain=True)
            raise self._cancellation() from None
        except Exception as error:
            self._discard(certain=not isinstance(error, KilledWorker))
            if self._cancelled.is_set():
                raise self._cancellation() from error
            raise WriteFailedError(
                f"write {self.spec.write_id} of {self.spec.target.url} failed with "
                f"{type(error).__name__}; nothing was committed. The cause is chained to this error"
            ) from error

    def cancel(self) -> None:
        self._cancelled.set()

    @abstractmethod
    def progress(self) -> Snapshot: ...

    @abstractmethod
    def _compute(self) -> WriterResult: ...

    @abstractmethod
    def _is_quiet(self) -> bool: ...

    def _cancellation(self) -> WriteCancelledError:
        return WriteCancelledError(
            f"write {self.spec.write_id} of {self.spec.target.url} was cancelled; "
            "nothing was committed"
        )

    def _discard(self, *, certain: bool) -> None:
        """Sweep what this write staged, once nothing of it runs any more.

        Where a lost worker may still be running finalize, what it published stays: taking it
        away could tear a commit that is about to succeed.
        """
        certain = self._wait_until_quiet() and certain
        target = self.spec.target
        store = storage.open_store(
            target.root, target.storage_options, self.spec.upload_part_size
        )
        if target.single_file:
            return store.sweep_staged(target.path.rpartition("/")[0], self.spec.write_id)
        if committed_by_us(store, self.spec) is not None:
            return None
        if certain:
            return store.sweep(target.path, {self.spec.write_id}, ())
        return store.sweep_staged(target.path, self.spec.write_id)

    def _wait_until_quiet(self) -> bool:
        deadline = time.monotonic() + _QUIET_TIMEOUT
        while time.monotonic() < deadline:
            if self._is_quiet():
                return True
            time.sleep(0.1)
        return False

    def _with_credentials(self, result: WriterResult) -> WriterResult:
        """Give remote paths the caller's storage options, which the result does not carry."""
        options = self.spec.target.storage_options.reveal()
        paths = {
            name: UPath(str(path), **options)
            for name in ("path", "manifest")
            if isinstance(path := getattr(result, name), UPath)
        }
        return replace(result, **paths)  # type: ignore[arg-type]  # names of path fields only


class _ClusterRun(_Run):
    """A write on a distributed cluster."""

    def __init__(self, graph: Any, key: Any, spec: RunSpec, client: Client) -> None:
        super().__init__(graph, key, spec, client)
        self._client = client
        client.register_plugin(WritesPlugin())
        self._future = client.get(graph, key, sync=False)

    def cancel(self) -> None:
        super().cancel()
        self._future.cancel()

    def progress(self) -> Snapshot:
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


class _LocalRun(_Run):
    """A write on Dask's threaded scheduler, in this process."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec, client: None) -> None:
        super().__init__(graph, key, spec, client)
        self._fold = Fold(write_id=spec.write_id, partitions=spec.partitions)

    def progress(self) -> Snapshot:
        return self._fold.snapshot()

    def _compute(self) -> WriterResult:
        watch = (None, None, self._before_task, self._after_task, None)
        result: WriterResult = dask.threaded.get(
            self._graph.to_dict(), self._key, callbacks=[watch]
        )
        return result

    def _before_task(self, *args: Any) -> None:
        if self._cancelled.is_set():
            raise self._cancellation()

    def _after_task(self, key: Any, result: Any, *args: Any) -> None:
        parsed = layout.parse_task_key(key)
        if parsed is None:
            return
        stage, _, index = parsed
        self._fold.finished(stage, index)
        if stage in ("put", "part"):
            for partition, parts in result.items():
                rows = sum(part.rows for part in parts)
                self._fold.staged(partition, rows, sum(part.size_bytes for part in parts))

    def _is_quiet(self) -> bool:
        return not inflight.is_working_on(self.spec.write_id)


def _first(results: Sequence[WriterResult]) -> WriterResult:
    return results[0]


def _rebuild(
    graph: Any, key: Any, spec: RunSpec, client: Client | None, *, rename: Any = None
) -> LazyWrite:
    return LazyWrite(graph, key, spec, client)
