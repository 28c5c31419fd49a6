"""Watch how much memory processes take."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

_LOOK_SECONDS = 0.01


@contextmanager
def watch_memory(pids: Sequence[int]) -> Iterator[list[list[int]]]:
    """Look at the resident memory of some processes every ten milliseconds.

    Yields
    ------
    list of list of int
        For each process its bytes, first to last; they grow until the block ends.
    """
    processes = [psutil.Process(pid) for pid in pids]
    seen = [[int(process.memory_info().rss)] for process in processes]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_SECONDS):
            for process, sizes in zip(processes, seen, strict=True):
                sizes.append(int(process.memory_info().rss))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()
