"""Advisory locks on files: ``flock``, which the kernel drops when its holder dies.

Nothing stands in for it where a file system refuses it: a mere lock file outlives a killed holder.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_POLL = 0.01
"""Seconds between two looks at a lock that somebody holds."""


class LockHeldError(Exception):
    """Somebody held a lock for too long."""


@contextmanager
def held(file: str, patience: float = math.inf) -> Iterator[None]:
    """Hold the lock of a file; errors as :func:`acquire`."""
    descriptor = acquire(file, patience)
    try:
        yield
    finally:
        release(descriptor)


def acquire(file: str, patience: float) -> int:
    """Lock a file, made if it is missing, and return its descriptor for :func:`release`.

    Threads of a process exclude one another as processes do.

    Raises
    ------
    LockHeldError
        Somebody held the lock for `patience` seconds.
    OSError
        The file cannot be opened or locked.
    """
    deadline = time.monotonic() + patience
    while (descriptor := _try(file)) is None:
        if time.monotonic() > deadline:
            raise LockHeldError(file)
        time.sleep(_POLL)
    return descriptor


def release(descriptor: int) -> None:
    """Unlock what :func:`acquire` locked."""
    try:
        # Closing alone would leave it locked while a child that was forked meanwhile has it open.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _try(file: str) -> int | None:
    """Return the descriptor of the file, locked; None if somebody holds it or took it away."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if _is_ours(descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_ours(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0  # else whoever comes next makes, and locks, another
