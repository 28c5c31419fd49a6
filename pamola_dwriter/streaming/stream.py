"""A dataset that is being written from this process, and what ends it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa

from pamola_dwriter import formats, storage, tasks
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    InvalidWriteError,
    PamolaWriterError,
    UnsupportedDataError,
    WriteFailedError,
)
from pamola_dwriter.finalize import finalize, recover
from pamola_dwriter.lease import Lease
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.records import Records
from pamola_dwriter.request import Pace
from pamola_dwriter.spec import RunSpec, WriteId, WriterResult
from pamola_dwriter.streaming.batches import Buffer, check_columns, in_memory
from pamola_dwriter.versions import outcome_unknown
from pamola_dwriter.views import View

logger = logging.getLogger(__name__)

_PARTS_AT_ONCE = 2
"""Parts written while the next one is collected; each is held in memory."""


class WriteStream:
    """A dataset that is being written; made by ``DataWriter.open_stream``.

    As a context manager it commits when the body ends, and discards what was written since the
    last commit when the body raises. Any number of threads may write. Parts are made in threads
    of this process, where the data is.
    """

    def __init__(
        self,
        bind: Callable[[pd.DataFrame], RunSpec],
        pace: Pace,
        schema: pa.Schema | None,
        views: Sequence[View],
        failed: Callable[[DataWriteError], None],
    ) -> None:
        self._bind = bind
        self._pace = pace
        self._schema = schema
        self._views = views
        self._failed = failed
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="pamola-stream")
        self._spec: RunSpec | None = None
        self._buffer = Buffer()
        self._parts: list[Future[Records]] = []
        self._stored = (0, 0)  # parts and bytes of the versions committed so far
        self._committing = False
        self._claim = ExitStack()  # the lease of what is not committed yet
        self._result: WriterResult | None = None
        self._error: DataWriteError | None = None
        self._rows = 0
        self._last_commit = time.monotonic()
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._watch_clock, name="pamola-clock", daemon=True)
        if pace.tick is not None:
            self._clock.start()

    def __repr__(self) -> str:
        return f"<WriteStream, {'ended' if self._ended.is_set() else 'open'}: {self._rows:,} rows>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    @property
    def rows(self) -> int:
        """Rows taken so far, committed or not."""
        return self._rows

    @property
    def result(self) -> WriterResult | None:
        """What the last commit wrote; None before the first."""
        return self._result

    def write(self, batch: Any) -> None:
        """Add rows: any frame in memory that ``write_dataframe`` takes, or a dict of columns.

        Returns once they are taken. Parts that are full are written meanwhile; this waits only
        while two of them still are.

        Raises
        ------
        UnsupportedDataError
            It is no frame in memory, or the format cannot hold it; the stream stays open.
        SchemaMismatchError
            It does not fit the columns and types of the first batch, or of the dataset that is
            appended to; the stream stays open.
        DataWriteError
            A part could not be written; what was written since the last commit is discarded.
        """
        frame = in_memory(batch)
        with self._lock:
            self._check_open()
            with self._refusing():
                if self._spec is None:
                    self._spec = self._begin(frame)
                table = self._to_arrow(frame, self._spec)
            with self._ending_on_failure():
                self._rows += table.num_rows
                self._buffer.add(table)
                if self._buffer.has_rows(self._pace):
                    self._roll()
                if self._buffer.has_bytes(self._pace):
                    self._roll(rest=True)

    def commit(self) -> WriterResult | None:
        """Make what was written so far a version that readers see, and return its result.

        Each commit adds to the one before. If nothing was written since, nothing happens.
        """
        with self._lock:
            self._check_open()
            with self._ending_on_failure():
                return self._commit()

    def close(self) -> WriterResult | None:
        """Commit and end; further calls return the same result.

        Without any batch there is nothing to commit, unless a schema was given: then, and
        after batches without rows, the dataset is made and is empty.
        """
        with self._lock:
            if not self._ended.is_set():
                with self._ending_on_failure():
                    self._add_empty_part()
                    self._commit()
                self._end("committed")
            elif self._error is not None:
                raise self._error
        self._join()
        return self._result

    def abort(self) -> None:
        """End, and discard what was written since the last commit."""
        with self._lock:
            if not self._ended.is_set():
                self._discard()
                self._end("cancelled")
        self._join()

    def _begin(self, frame: pd.DataFrame) -> RunSpec:
        spec = self._bind(frame)
        if not spec.unresolved:
            return spec
        # The first batch decides on types that only values can tell; a schema would.
        resolved = tasks.unify([tasks.infer(frame, 0, spec)])
        schema = tasks.settled_schema(spec, resolved)
        if empty := [field.name for field in schema if pa.types.is_null(field.type)]:
            raise UnsupportedDataError(
                f"the first batch has nothing but nulls in {empty[:20]}, so the type that later "
                "ones will need is unknown; give it as schema="
            )
        return replace(spec, schema=schema, unresolved=())

    def _to_arrow(self, frame: pd.DataFrame, spec: RunSpec) -> pa.Table:
        check_columns(frame, spec)
        # A copy: Arrow would else read memory that the caller may use for the next batch.
        return formats.to_arrow(frame.copy(), spec.schema, spec.frame, len(self._parts))

    def _add_empty_part(self) -> None:
        """Let a stream without rows make a dataset, if its columns are known."""
        if self._spec is None and self._schema is not None:
            empty = self._schema.empty_table().to_pandas(types_mapper=pd.ArrowDtype)
            self._spec = self._begin(empty)
            self._buffer.add(self._to_arrow(empty, self._spec))
        if self._spec is not None and not self._rows:
            self._roll(rest=True)

    def _roll(self, *, rest: bool = False) -> None:
        """Hand what is collected to the threads that write parts."""
        assert self._spec is not None  # noqa: S101 - set by the first batch
        if not self._parts:
            store = storage.open_target(self._spec)
            self._claim.enter_context(Lease(store, self._spec).held())
        for table in self._buffer.take(self._pace.rows, rest=rest):
            busy = [part for part in self._parts if not part.done()]
            if len(busy) >= _PARTS_AT_ONCE:
                busy[0].result()
            index = len(self._parts)
            self._parts.append(self._pool.submit(tasks.write_table, table, index, self._spec))
        self._show()

    def _commit(self) -> WriterResult | None:
        self._last_commit = time.monotonic()
        if self._buffer.rows:
            self._roll(rest=True)
        if self._spec is None or not self._parts:
            return self._result
        records = tasks.gather([part.result() for part in self._parts])
        self._committing = True
        self._result = finalize(records, None, replace(self._spec, partitions=len(records)))
        self._committing = False
        self._claim.close()
        self._show()
        done, size_bytes = self._stored
        self._stored = (done + len(self._parts), size_bytes + self._result.size_bytes)
        self._parts = []
        self._spec = replace(
            self._spec,
            write_id=WriteId(token_hex(8)),
            append=True,
            follows=self._spec.write_id,
            expected=None,
            supersedes=(),
        )
        return self._result

    def _discard(self) -> None:
        """Take back what was written since the last commit, unless it is committed after all.

        Raises
        ------
        CommitOutcomeUnknownError
            A commit broke off and it could not be found out what became of it.
        """
        with self._claim:
            self._buffer = Buffer()
            parts, self._parts = self._parts, []
            for part in parts:
                part.exception()
            if self._spec is not None and parts:
                self._sweep(self._spec)

    def _sweep(self, spec: RunSpec) -> None:
        try:
            store = storage.open_target(spec)
            if self._committing and (committed := self._recover(store, spec)):
                self._result = committed  # an interrupt, or a failure to sweep, that came after it
                return
            store.sweep(spec.target.path, {spec.write_id}, ())
        except CommitOutcomeUnknownError:
            raise
        except (PamolaWriterError, OSError) as error:
            logger.warning("a stream into %s could not be swept: %s", spec.target.url, error)

    def _recover(self, store: Store, spec: RunSpec) -> WriterResult | None:
        try:
            return recover(store, spec)
        except Exception as error:
            raise outcome_unknown(spec) from error

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended.is_set():
            raise InvalidWriteError("the stream has ended; open another one with append=True")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except DataWriteError as error:
            self._failed(error)
            raise

    @contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        try:
            with self._discarding():
                yield
        except DataWriteError as error:
            self._fail(error)
            raise
        except Exception as error:
            failure = WriteFailedError(f"the stream failed with {type(error).__name__}")
            self._fail(failure)
            raise failure from error
        except BaseException:
            self._fail(None)
            raise

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except CommitOutcomeUnknownError:
            with self._claim:
                raise
        except BaseException:
            self._discard()
            raise

    def _fail(self, error: DataWriteError | None) -> None:
        self._error = error
        if error is not None:
            self._failed(error)
        self._end("failed")

    def _end(self, status: str) -> None:
        self._ended.set()
        self._pool.shutdown(cancel_futures=True)
        for view in self._views:
            view.close(status)

    def _join(self) -> None:
        if self._clock.is_alive() and self._clock is not threading.current_thread():
            self._clock.join()

    def _watch_clock(self) -> None:
        """End parts and commit in time also while nobody writes."""
        while not self._ended.wait(self._pace.tick):
            # A failure ended the stream and was logged; the next call raises it.
            with suppress(DataWriteError), self._lock:
                if not self._ended.is_set():
                    with self._ending_on_failure():
                        self._keep_pace()

    def _keep_pace(self) -> None:
        every = self._pace.commit_every
        if every is not None and time.monotonic() - self._last_commit >= every:
            self._commit()
        elif self._buffer.rows and self._buffer.is_old(self._pace):
            self._roll(rest=True)

    def _show(self) -> None:
        finished = [part.result() for part in self._parts if part.done() and not part.exception()]
        stored = [record for records in finished for parts in records.values() for record in parts]
        done, size_bytes = self._stored
        snapshot = Snapshot(
            write_id=WriteId("") if self._spec is None else self._spec.write_id,
            partitions_done=done + len(finished),
            partitions=done + len(self._parts),
            parts=done + len(finished),
            rows=self._rows,
            size_bytes=size_bytes + sum(record.size_bytes for record in stored),
            stages={},
            status="running" if self._result is None else "committed",
        )
        for view in self._views:
            view.show(snapshot)
