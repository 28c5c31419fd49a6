"""Which writes have a side effect under way in this process.

A cancelled task goes on running in its thread; whoever sweeps a write asks here first.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pamola_dwriter.spec import WriteId

_running: Counter[WriteId] = Counter()
_lock = threading.Lock()


@contextmanager
def working_on(write_id: WriteId) -> Iterator[None]:
    """Mark a side effect of a write as under way in this process."""
    with _lock:
        _running[write_id] += 1
    try:
        yield
    finally:
        with _lock:
            _running[write_id] -= 1
            if not _running[write_id]:
                del _running[write_id]


def is_working_on(write_id: WriteId) -> bool:
    """Return whether this process has a side effect of that write under way."""
    return write_id in _running
