"""Run a compiled write, on a cluster or on Dask's threaded scheduler, and clean up after it.

One path for both: a write runs in a thread of its own, which waits for the result and, when
there is none, sweeps what was staged. The caller holds a :class:`WriteFuture`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dask.threaded
from dask.base import DaskMethodsMixin
from distributed import Client

from pamola_dwriter.cluster import current_client
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    WriteCancelledError,
)
from pamola_dwriter.events import EndStatus
from pamola_dwriter.progress import Snapshot, Status
from pamola_dwriter.runs import ClusterRun, LocalRun, Run
from pamola_dwriter.spec import RunSpec, WriteId, WriterResult
from pamola_dwriter.statelog import Logger, log_state
from pamola_dwriter.transit import check_links
from pamola_dwriter.views import View, await_end, wait, watch_in_background

_LAST_LOOK = 5.0
"""Seconds that a finished write waits for the caller's tracker, which may hang."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a write tells how it goes: views of a new one, its writer, and the log."""

    views: Callable[[RunSpec], Sequence[View]]
    began: Callable[[WriteFuture], None]
    failed: Callable[[DataWriteError], None]
    logger: Logger


class LazyWrite(DaskMethodsMixin):
    """A write that is compiled and not yet run; a Dask collection of one WriterResult.

    ``compute()`` runs it and cleans up if it fails; ``submit()`` does so in the background.
    ``dask.compute(lazy)`` and ``client.compute(lazy)`` work too, without the cleaning up: a
    failure there leaves what was staged, and parts that no manifest names, which
    :func:`read_dataset` passes over and a plain ``dd.read_parquet`` does not.
    """

    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __init__(
        self, graph: Any, key: Any, spec: RunSpec, client: Client | None, audience: Audience
    ) -> None:
        self._graph = graph
        self._key = key
        self._spec = spec
        self._client = client
        self._audience = audience

    def __repr__(self) -> str:
        return f"<LazyWrite {self._spec.write_id} of {self._spec.target.url}>"

    @property
    def write_id(self) -> WriteId:
        """Identity of the write, part of every part's name."""
        return self._spec.write_id

    def submit(self) -> WriteFuture:
        """Start the write and return at once."""
        handle = self._start()
        if views := self._audience.views(self._spec):
            handle.watcher = watch_in_background(handle, views)
        return handle

    def compute(self, **kwargs: Any) -> WriterResult:
        """Run the write and return its result; see ``WriteFuture.result`` for errors."""
        if kwargs:
            raise TypeError(f"LazyWrite.compute takes no arguments, not {sorted(kwargs)}")
        handle = self._start()
        return wait(handle, self._audience.views(self._spec))

    def _start(self) -> WriteFuture:
        run: Run
        if self._client is None:
            run = LocalRun(self._graph, self._key, self._spec)
        else:
            run = ClusterRun(self._graph, self._key, self._spec, self._client)
        handle = WriteFuture(run, self._audience)
        self._audience.began(handle)
        return handle

    def __dask_graph__(self) -> Any:
        # Dask may take it to another cluster than the one that it was made for.
        check_links(current_client(None), self._spec.sealing)
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
        return _rebuild, (self._key, self._spec, self._client, self._audience)


class WriteFuture:
    """A write under way.

    Dropping it does not stop the write; :meth:`cancel` does.
    """

    watcher: threading.Thread | None = None
    """Shows it to the caller's tracker."""

    def __init__(self, run: Run, audience: Audience) -> None:
        self._run = run
        self._audience = audience
        pool = ThreadPoolExecutor(1, thread_name_prefix=f"pamola-{run.spec.write_id}")
        self._future: Future[WriterResult] = pool.submit(self._execute)
        pool.shutdown(wait=False)

    def _execute(self) -> WriterResult:
        log_state(self._audience.logger, self._run.start)
        try:
            result = self._run.execute()
        except BaseException as error:
            self._end(_end_status(error))
            if isinstance(error, DataWriteError):
                self._audience.failed(error)
            raise
        self._end("committed")
        return result

    def _end(self, status: EndStatus) -> None:
        self._run.ended(status)
        log_state(self._audience.logger, self._run.progress())

    def __repr__(self) -> str:
        return f"<WriteFuture {self.write_id} of {self._run.spec.target.url}: {self.status}>"

    @property
    def write_id(self) -> WriteId:
        """Identity of the write, part of every part's name."""
        return self._run.spec.write_id

    @property
    def status(self) -> Status:
        """``running``, ``committed``, ``cancelled``, ``failed`` or ``unknown``."""
        if not self._future.done():
            return "running"
        error = self._future.exception()
        return "committed" if error is None else _end_status(error)

    def done(self) -> bool:
        """Return whether the write has ended, in whatever way, and is cleaned up."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> WriterResult:
        """Wait for the write.

        An interrupt (Ctrl-C) cancels the write, and is raised once that is cleaned up.

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
        if not self.done():
            await_end(self, timeout=timeout)
        result = self._future.result()
        if self.watcher is not None:
            self.watcher.join(_LAST_LOOK)  # so that a tracker is complete once this returns
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the write and return its error, or None if it committed."""
        return self._future.exception(timeout)

    def cancel(self) -> None:
        """Stop the write; returns at once. A commit under way may still win."""
        self._run.cancel()

    def progress(self) -> Snapshot:
        """Return how far the write has come."""
        return self._run.progress()

    def dashboard_link(self) -> str | None:
        """Return the address of the write on the scheduler's dashboard; None if there is none."""
        return self._run.dashboard_link()


def _end_status(error: BaseException) -> EndStatus:
    if isinstance(error, CommitOutcomeUnknownError):
        return "unknown"
    return "cancelled" if isinstance(error, WriteCancelledError) else "failed"


def _first(results: Sequence[WriterResult]) -> WriterResult:
    return results[0]


def _rebuild(
    graph: Any,
    key: Any,
    spec: RunSpec,
    client: Client | None,
    audience: Audience,
    *,
    rename: Any = None,
) -> LazyWrite:
    return LazyWrite(graph, key, spec, client, audience)
