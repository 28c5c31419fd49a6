"""Wait for a write while views show how far it has come.

One loop feeds every view (a bar, a subtask of the caller's tracker) from the write's snapshot,
and one rule says what an interrupt of the waiting thread does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from pamola_dwriter.errors import CommitOutcomeUnknownError
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.spec import WriteId, WriterResult

logger = logging.getLogger(__name__)

_INTERVAL = 0.2
"""Seconds between two looks at the write."""


class View(Protocol):
    """Shows one write to somebody; it reads snapshots and touches nothing else."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a state; it may be behind the last one, for a lost worker takes work back."""

    def close(self, status: str) -> None:
        """Show how the write ended and let go of everything; a second call does nothing."""


class Write(Protocol):
    """A write under way: what :class:`~pamola_dwriter.execution.WriteFuture` is to a view."""

    @property
    def write_id(self) -> WriteId: ...

    @property
    def status(self) -> str: ...

    def done(self) -> bool: ...

    def result(self) -> WriterResult: ...

    def exception(self, timeout: float | None = None) -> BaseException | None: ...

    def cancel(self) -> None: ...

    def progress(self) -> Snapshot: ...


def wait(write: Write, views: Sequence[View] = ()) -> WriterResult:
    """Wait for a write in this thread, showing it to `views`, and return its result.

    Errors, and what an interrupt does, as :func:`await_end`.

    Raises
    ------
    DataWriteError
        The write did not commit; see ``WriteFuture.result``. After an interrupt only
        CommitOutcomeUnknownError, which must not be overlooked.
    """
    await_end(write, views)
    return write.result()


def await_end(write: Write, views: Sequence[View] = (), timeout: float | None = None) -> None:
    """Wait until a write has ended, in whatever way.

    An interrupt (Ctrl-C) cancels the write and goes on waiting until it is cleaned up. A commit
    that was under way may win: then this returns all the same and a warning is logged. A second
    interrupt gives up waiting, and the write ends by itself.

    Raises
    ------
    KeyboardInterrupt
        After the write was cancelled and cleaned up, or at the second interrupt.
    TimeoutError
        There are no views, and it has not ended within `timeout` seconds; it goes on.
    """
    try:
        _watch(write, views, timeout)
    except KeyboardInterrupt:
        write.cancel()
        _watch(write, views)
        error = write.exception()
        if error is not None and not isinstance(error, CommitOutcomeUnknownError):
            raise
        if error is None:
            logger.warning("interrupted, but write %s had committed by then", write.write_id)
    finally:
        _close(write, views)


def watch_in_background(write: Write, views: Sequence[View]) -> threading.Thread:
    """Show a write to `views` from a daemon thread, which ends soon after the write does."""
    thread = threading.Thread(
        target=_watch, args=(write, views), name=f"pamola-progress-{write.write_id}", daemon=True
    )
    thread.start()
    return thread


def _watch(write: Write, views: Sequence[View], timeout: float | None = None) -> None:
    """Return once the write has ended, its last state is shown and the views are closed."""
    if not views:
        write.exception(timeout)
        return
    ended = False
    while not ended:
        ended = write.done()
        _show(write, views)
        if not ended:
            with suppress(TimeoutError):
                write.exception(_INTERVAL)
    _close(write, views)


def _show(write: Write, views: Sequence[View]) -> None:
    try:
        snapshot = write.progress()
    except Exception as error:  # noqa: BLE001 - a lost scheduler raises anything; the write goes on
        logger.debug("cannot see how far write %s is: %r", write.write_id, error)
        return
    for view in views:
        view.show(snapshot)


def _close(write: Write, views: Sequence[View]) -> None:
    for view in views:
        view.close(write.status)
