"""One execution of a compiled write on a distributed cluster."""

from __future__ import annotations

import threading
from typing import Any

from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future

from pamola_dwriter import inflight
from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.plugin import BROKEN, COMMITTERS, PROGRESS, WritesPlugin
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.runs.base import Inquiry, Run
from pamola_dwriter.spec import RunSpec, WriterResult
from pamola_dwriter.transit import check_links


class ClusterRun(Run):
    """A write on a distributed cluster."""

    def __init__(self, graph: HighLevelGraph, key: Any, spec: RunSpec, client: Client) -> None:
        super().__init__(graph, key, spec)
        check_links(client, spec.sealing)
        self._client = client
        try:
            client.register_plugin(WritesPlugin())
        except ImportError as error:
            raise InvalidWriteError(
                f"the scheduler cannot import pamola_dwriter ({error}); install the same "
                "version there and on the workers"
            ) from None
        self._submitting = threading.Lock()
        self._future: Future[WriterResult] | None = None

    def cancel(self) -> None:
        """Stop; tasks that are running end, and nothing new starts."""
        super().cancel()
        with self._submitting:
            if self._future is not None:
                self._future.cancel()

    def progress(self) -> Snapshot:
        """Ask the scheduler plugin."""
        ask = getattr(self._client.scheduler, PROGRESS)
        partitions = self.spec.partitions
        return Snapshot(
            **self._client.sync(ask, write_id=self.spec.write_id, partitions=partitions)
        )

    def _compute(self) -> WriterResult:
        with self._submitting:
            self._check_not_cancelled()
            self._future = self._client.get(self._graph, self._key, sync=False)
        result: WriterResult = self._future.result()
        return result

    def _ask(self) -> Inquiry:
        if self._future is not None:
            self._future.release()
        answers = self._client.run(inflight.report, self.spec.write_id, on_error="return")
        reports = {
            worker: answer
            for worker, answer in answers.items()
            if isinstance(answer, inflight.Report)
        }
        # Asked last: a commit that is handed out meanwhile must not be overlooked.
        committers = self._ask_plugin(COMMITTERS)
        lost = committers is None or not set(committers) <= reports.keys()
        return Inquiry.of(reports.values(), self._ask_plugin(BROKEN), lost_commit=lost)

    def _ask_plugin(self, question: str) -> Any:
        ask = getattr(self._client.scheduler, question)
        return self._client.sync(ask, write_id=self.spec.write_id)
