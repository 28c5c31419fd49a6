"""Put faults into every store that this process opens, or that of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from pamola_dwriter.contracts import Store
from pamola_dwriter.storage import WRAPPERS
from pamola_dwriter.testing.faults import Call, Fault, Injection
from pamola_dwriter.testing.stores import FaultyStore

_installed: list[tuple[Injection, Callable[[Store], Store]]] = []


@contextmanager
def inject(*faults: Fault) -> Iterator[Injection]:
    """Let every store that this process opens meanwhile go wrong, and keep a record.

    Stores are opened by every writer, task and read for itself. One that is opened meanwhile and
    used later, such as that of a writer made inside the block, goes on as it is.

    Parameters
    ----------
    *faults : Fault
        What goes wrong; without any, calls are only recorded.

    Yields
    ------
    Injection
        What was called and what struck, so far.
    """
    injection = Injection(faults)
    wrap = partial(FaultyStore, faults=injection)
    WRAPPERS.append(wrap)
    try:
        yield injection
    finally:
        WRAPPERS.remove(wrap)


def install(faults: Iterable[Fault]) -> None:
    """Do as :func:`inject` until :func:`uninstall`; for workers: ``client.run(install, faults)``.

    Each process counts for itself.
    """
    injection = Injection(faults)
    wrap = partial(FaultyStore, faults=injection)
    WRAPPERS.append(wrap)
    _installed.append((injection, wrap))


def uninstall() -> list[tuple[Fault, Call]]:
    """Take away what :func:`install` put into this process; return what struck."""
    injected: list[tuple[Fault, Call]] = []
    while _installed:
        injection, wrap = _installed.pop()
        WRAPPERS.remove(wrap)
        injected += injection.injected
    return injected
