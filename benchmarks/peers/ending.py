"""An engine's processes, none of which outlives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil

from deploy.local.state import await_end, has_ended


@contextmanager
def ending_processes() -> Iterator[ExitStack]:
    """On leaving, stop an engine and then end those of its processes that still run.

    Spark's JVM goes on until this process ends, and Ray's go on for a while after it says that they
    have ended. Enter before the engine starts.

    Yields
    ------
    contextlib.ExitStack
        Takes what stops the engine.
    """
    others = set(psutil.Process().children())
    stops = ExitStack()
    try:
        yield stops
    finally:
        # Those whose parent ends first are not found afterwards.
        started = _with_descendants(set(psutil.Process().children()) - others)
        try:
            stops.close()
        finally:
            _end(started)


def _with_descendants(processes: set[psutil.Process]) -> set[psutil.Process]:
    found = set(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.update(process.children(recursive=True))
    return found


def _end(processes: set[psutil.Process]) -> None:
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                ask(process)
        await_end(processes)
        processes = {process for process in processes if not has_ended(process)}
