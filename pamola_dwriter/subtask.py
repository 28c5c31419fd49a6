"""A write as one subtask of the tracker that a caller keeps, whatever its class."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from dask.utils import format_bytes

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.progress import Snapshot

logger = logging.getLogger(__name__)


class Subtask(Protocol):
    """What a writer tells how far it is."""

    def update(self, n: int = ..., postfix: dict[str, Any] | None = ...) -> object:
        """Count `n` more, and show `postfix` behind the bar."""

    def close(self) -> object:
        """End it, whether or not the total was reached."""


class Tracker(Protocol):
    """What a writer needs of the tracker that a caller brings."""

    def create_subtask(self, total: int | None, description: str, unit: str = ...) -> Subtask:
        """Begin a subtask of `total` steps; None if it is not known how many."""


def check_tracker(tracker: Any) -> Tracker | None:
    """Return the caller's tracker, or None.

    Raises
    ------
    InvalidWriteError
        It makes no subtasks.
    """
    if tracker is not None and not callable(getattr(tracker, "create_subtask", None)):
        raise InvalidWriteError(
            "progress_tracker must have create_subtask(total, description, unit), as "
            f"HierarchicalProgressTracker has, not {type(tracker).__name__}"
        )
    found: Tracker | None = tracker
    return found


class WriteSubtask:
    """A view that makes a write one subtask of the caller's tracker.

    Partitions are only ever counted up: what a lost worker takes back is counted once it is
    done again. A tracker that raises never takes the write down: its first failure is logged,
    and then it is left alone.

    Parameters
    ----------
    tracker : Tracker
        What the caller brought.
    description : str
        Text of the subtask.
    total : int or None
        Partitions of the write; None if it is not known how many.
    """

    def __init__(self, tracker: Tracker, description: str, total: int | None) -> None:
        self._kind = type(tracker).__name__
        self._total = total
        self._counted = 0
        self._postfix: dict[str, str] = {}
        self._subtask: Subtask | None = None
        with self._softly():
            self._subtask = tracker.create_subtask(
                total=total, description=description, unit="partitions"
            )

    def show(self, snapshot: Snapshot) -> None:
        """Count the partitions that are done since the last call."""
        postfix = {"rows": f"{snapshot.rows:,}", "bytes": format_bytes(snapshot.size_bytes)}
        if snapshot.partitions_done > self._counted or postfix != self._postfix:
            self._send(snapshot.partitions_done, postfix)

    def close(self, status: str) -> None:
        """Show the status and close the subtask, which is complete if the write committed."""
        done = self._total if status == "committed" else None
        self._send(self._counted if done is None else done, self._postfix | {"status": status})
        if self._subtask is not None:
            with self._softly():
                self._subtask.close()
            self._subtask = None

    def _send(self, done: int, postfix: dict[str, str]) -> None:
        most = done if self._total is None else min(done, self._total)
        new = max(0, most - self._counted)
        self._counted += new
        self._postfix = postfix
        if self._subtask is not None:
            with self._softly():
                # A copy: that of pamola-core adds to what it is given.
                self._subtask.update(new, dict(postfix))

    @contextmanager
    def _softly(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a tracker of the caller's raises anything
            self._subtask = None
            logger.warning(
                "the progress tracker (%s) raised %s; the write goes on without it",
                self._kind,
                type(error).__name__,
            )
