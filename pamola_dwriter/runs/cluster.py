"""One execution of a compiled write on a distributed cluster."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future

from pamola_dwriter import inflight
from pamola_dwriter.dashboard import ROUTE, has_page
from pamola_dwriter.errors import CommitOutcomeUnknownError, InvalidWriteError
from pamola_dwriter.events import TOPIC, EndStatus, WriteEnded
from pamola_dwriter.plugin import BROKEN, COMMITTERS, PROGRESS, WritesPlugin
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.runs.base import Inquiry, Run
from pamola_dwriter.spec import RunSpec, WriterResult
from pamola_dwriter.transit import check_links

_LAST_WORD = 5.0
"""Seconds that an ended write spends on telling the scheduler, and on asking it."""


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
        self._last: Snapshot | None = None
        """How far it had come when it ended."""
        self._future: Future[WriterResult] | None = None

    def cancel(self) -> None:
        """Stop; tasks that are running end, and nothing new starts."""
        super().cancel()
        with self._submitting:
            if self._future is not None:
                self._future.cancel()

    def progress(self) -> Snapshot:
        """Ask the scheduler plugin, which knows nothing before the graph has arrived."""
        if self._last is not None:
            return self._last
        told = self._ask_plugin(PROGRESS)
        return super().progress() if told is None else Snapshot.from_message(told)

    def dashboard_link(self) -> str | None:
        """Return its address on the page of writes of the scheduler, if that has one."""
        # No view is worth an error: a lost scheduler raises anything, and a link is made to a
        # template that may be the user's own.
        with suppress(Exception):
            self._check_open()
            if self._client.run_on_scheduler(has_page):
                board = str(self._client.dashboard_link).rpartition("/")[0]
                return f"{board}{ROUTE}?write={self.spec.write_id}"
        return None

    def ended(self, status: EndStatus) -> None:
        """Tell the plugin, which knows of tasks alone, and ask it once more."""
        super().ended(status)
        self._last = super().progress()
        message = WriteEnded(write_id=self.spec.write_id, status=status).to_message()
        # A lost cluster raises anything, and nobody is there to be told.
        with suppress(Exception):
            self._call("log_event", topic=TOPIC, msg=message)
            if told := self._call(PROGRESS, write_id=self.spec.write_id):
                self._last = Snapshot.from_message(told)

    def _call(self, handler: str, **arguments: Any) -> Any:
        self._check_open()
        call = getattr(self._client.scheduler, handler)
        return self._client.sync(call, **arguments, callback_timeout=_LAST_WORD)

    def _compute(self) -> WriterResult:
        with self._submitting:
            self._check_not_cancelled()
            self._future = self._client.get(self._graph, self._key, sync=False)
        try:
            result: WriterResult = self._future.result()
        except CommitOutcomeUnknownError:
            # Held on to, it would be the answer to whoever resumes the write: its key is the same.
            self._future.release()
            raise
        return result

    def _ask(self) -> Inquiry:
        self._check_open()
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

    def _check_open(self) -> None:
        """Raise unless there is somebody to ask: a closed client would wait for ever."""
        if self._client.status in ("closing", "closed"):
            raise RuntimeError("the Dask client is closed")

    def _ask_plugin(self, question: str) -> Any:
        self._check_open()
        ask = getattr(self._client.scheduler, question)
        return self._client.sync(ask, write_id=self.spec.write_id)
