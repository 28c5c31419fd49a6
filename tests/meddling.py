"""Let something happen in the middle of what a store is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pamola_dwriter import storage
from pamola_dwriter.contracts import Store
from pamola_dwriter.testing import Call, StoreWrapper


class _Meddling(StoreWrapper):
    def __init__(
        self, store: Store, at: Callable[[Call], bool], pending: list[Callable[[], object]]
    ) -> None:
        super().__init__(store)
        self._at = at
        self._pending = pending

    def _pass_on(self, call: Call, act: Callable[[], Any], some: Any = None) -> Any:
        if self._pending and self._at(call):
            self._pending.pop()()
        return act()


@contextmanager
def just_before(at: Callable[[Call], bool], meddle: Callable[[], object]) -> Iterator[None]:
    """Call `meddle` before the first call to a store that is `at` the right place."""
    pending = [meddle]

    def wrap(store: Store) -> _Meddling:
        return _Meddling(store, at, pending)

    storage.WRAPPERS.append(wrap)
    try:
        yield
    finally:
        storage.WRAPPERS.remove(wrap)
    assert not pending
