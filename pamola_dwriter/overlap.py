"""Let a worker compute the next partition while the bytes of this one are on their way.

A task that stores something mostly waits, for a disk or a network. It leaves the worker's pool of
threads meanwhile, as Dask's ``secede`` does, so another task runs in its place. What may be on its
way at the same time is bounded, in bytes and in number, in each process; a task that comes to the
bound waits before it gives its thread away, and so holds up those that would make more bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import get_worker, secede

from pamola_dwriter import layout

AT_ONCE = 16
"""Tasks of a process that store something at the same time, however small that is."""


class _Bound:
    """Bytes on their way; one task may always go, whatever its size."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tasks = self._bytes = 0

    @contextmanager
    def take(self, size: int, limit: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size, limit))
            self._tasks += 1
            self._bytes += size
        try:
            yield
        finally:
            with self._changed:
                self._tasks -= 1
                self._bytes -= size
                self._changed.notify_all()

    def _has_room(self, size: int, limit: int) -> bool:
        return not self._tasks or (self._tasks < AT_ONCE and self._bytes + size <= limit)


_bound = _Bound()


@contextmanager
def storing(size: int, limit: int) -> Iterator[None]:
    """Give the worker's thread to another task while the block stores `size` bytes.

    Parameters
    ----------
    size, limit : int
        Bytes of this task, and of all of this process that may be on their way at once; with a
        limit of 0 the thread is kept, and outside of a task of a write.
    """
    if not limit or not _is_task_of_write():
        yield
        return
    with _bound.take(size, limit):
        secede()
        yield


def _is_task_of_write() -> bool:
    """Return whether a worker runs a task of ours; the thread of any other is not ours to give."""
    try:
        key = get_worker().get_current_task()
    except ValueError:  # Dask's threaded scheduler, or no task at all
        return False
    return layout.parse_task_key(key) is not None
