"""Run a compiled write, on a cluster or on Dask's threaded scheduler, and clean up after it.

One path for both: a write runs in a thread of its own, which waits for the result and, when
there is none, sweeps what was staged. The caller holds a :class:`WriteFuture`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import dask.threaded
from dask.base import DaskMethodsMixin
from distributed import Client

from pamola_dwriter.errors import WriteCancelledError
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.runs import ClusterRun, LocalRun, Run
from pamola_dwriter.spec import RunSpec, WriteId, WriterResult


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
        if self._client is None:
            return WriteFuture(LocalRun(self._graph, self._key, self._spec))
        return WriteFuture(ClusterRun(self._graph, self._key, self._spec, self._client))

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

    def __init__(self, run: Run) -> None:
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


def _first(results: Sequence[WriterResult]) -> WriterResult:
    return results[0]


def _rebuild(
    graph: Any, key: Any, spec: RunSpec, client: Client | None, *, rename: Any = None
) -> LazyWrite:
    return LazyWrite(graph, key, spec, client)
