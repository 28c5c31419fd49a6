"""Stores that fail, and stores that take their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from pamola_dwriter.contracts import Store
from pamola_dwriter.testing.faults import Call, Fault, Injection
from pamola_dwriter.testing.wrapper import Some, StoreWrapper

T = TypeVar("T")


class FaultyStore(StoreWrapper):
    """A store whose calls go wrong as told.

    Parameters
    ----------
    store : Store
        The store that does the work.
    faults : iterable of Fault, or Injection
        What goes wrong; an :class:`Injection` counts over all stores that share it.

    """

    def __init__(self, store: Store, faults: Iterable[Fault] | Injection) -> None:
        super().__init__(store)
        self._injection = faults if isinstance(faults, Injection) else Injection(faults)

    @property
    def calls(self) -> list[Call]:
        """Every call that was made, in order."""
        return self._injection.calls

    @property
    def injected(self) -> list[tuple[Fault, Call]]:
        """Every fault that struck, and where."""
        return self._injection.injected

    def _pass_on(self, call: Call, act: Callable[[], T], some: Some | None = None) -> T:
        fault = self._injection.record(call)
        if fault is None:
            return act()
        if fault.items is not None and some is not None:
            some(fault.items)
        elif fault.when == "lost":
            with suppress(Exception):  # a refusal is lost on its way like any other reply
                act()
        elif fault.when == "after":
            act()
        raise fault.make_error(call)


class SlowStore(StoreWrapper):
    """A store every call of which takes longer.

    Parameters
    ----------
    store : Store
        The store that does the work.
    seconds : float
        How much longer.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        super().__init__(store)
        self._seconds = seconds
        self._injection = Injection()

    @property
    def calls(self) -> list[Call]:
        """Every call that was made, in order."""
        return self._injection.calls

    def _pass_on(self, call: Call, act: Callable[[], T], some: Some | None = None) -> T:
        self._injection.record(call)
        time.sleep(self._seconds)
        return act()
