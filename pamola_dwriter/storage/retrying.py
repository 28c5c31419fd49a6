"""A store that tries again what failed for a passing reason, without doing anything twice.

Most calls may simply be repeated; the two that write on a condition may not. A write whose reply
was lost has changed the version it was conditional on, so the next try meets its own bytes: for
`put_if` that is no conflict, and for `update` the store itself finds out what became of it.
The next try need not be ours: aiohttp sends a PUT again, unasked and unheard, when a connection
that it had kept breaks. So no conflict is believed before what stands there is read.
Once a try ended in doubt, a later refusal does not settle that nothing was changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import BinaryIO, TypeVar, cast

import pyarrow as pa

from pamola_dwriter.contracts import Found, Store, VersionConflict, Versioned
from pamola_dwriter.errors import TargetUnavailableError
from pamola_dwriter.spec import WriteId
from pamola_dwriter.storage.guarded import GuardedFile
from pamola_dwriter.storage.patience import Patience

T = TypeVar("T")


class RetryingStore:
    """Passes every call on to another store, again and again while that may help.

    Parameters
    ----------
    store : Store
        The store that does the work.
    seconds : float
        How long one call is tried; see :class:`~pamola_dwriter.storage.patience.Patience`.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._store!r}>"

    @property
    def atomic(self) -> bool:
        return self._store.atomic

    def check_writable(self, path: str) -> None:
        self._again(lambda: self._store.check_writable(path))

    def make_folders(self, paths: Collection[str]) -> None:
        self._again(lambda: self._store.make_folders(paths))

    def is_file(self, path: str) -> bool:
        return self._again(lambda: self._store.is_file(path))

    def files_among(self, paths: Collection[str]) -> set[str]:
        return self._again(lambda: self._store.files_among(paths))

    def listdir(self, path: str) -> list[str]:
        return self._again(lambda: self._store.listdir(path))

    def size(self, path: str) -> int:
        return self._again(lambda: self._store.size(path))

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        return self._again(lambda: self._store.read(path, start, end))

    def open(self, path: str) -> BinaryIO:
        file = self._again(lambda: self._store.open(path))
        return cast("BinaryIO", GuardedFile(file, self._again))

    def read_versioned(self, path: str) -> Versioned | None:
        return self._again(lambda: self._store.read_versioned(path))

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        return self._again(lambda: self._store.stage(path, data, write_id))

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        self._again(lambda: self._store.publish(staged, overwrite=overwrite))

    def put(self, path: str, data: bytes) -> None:
        self._again(lambda: self._store.put(path, data))

    def note(self, path: str, data: bytes) -> None:
        self._again(lambda: self._store.note(path, data))

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        def once() -> None:
            try:
                self._store.put_if(path, data, expected)
            except VersionConflict:
                if not self._holds(path, data):
                    raise

        self._again(once)

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            present = self._store.read_versioned(path)
        except TargetUnavailableError as error:
            error.answered = False  # it was the read that was refused; of the write nobody knows
            raise
        return present is not None and present.data == data

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        def once() -> bytes:
            changing = False

            def noted(data: bytes | None) -> bytes:
                nonlocal changing
                changing = True
                return change(data)

            try:
                return self._store.update(path, noted)
            except TargetUnavailableError as error:
                # Nothing was sent before the change was made.
                error.answered = error.answered or not changing
                raise

        # The store has looked what became of a doubtful one, which might count twice if repeated.
        return self._again(once, lambda error: error.answered)

    def survey(self, path: str) -> list[Found]:
        return self._again(lambda: self._store.survey(path))

    def now(self) -> float:
        return self._again(self._store.now)

    def discard(self, found: Collection[Found]) -> None:
        self._again(lambda: self._store.discard(found))

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        return self._again(lambda: self._store.find_staged(directory, staged))

    def remove(self, paths: Collection[str]) -> None:
        self._again(lambda: self._store.remove(paths))

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        self._again(lambda: self._store.sweep(directory, write_ids, keep))

    def sweep_staged(self, write_id: WriteId) -> None:
        self._again(lambda: self._store.sweep_staged(write_id))

    def _again(
        self,
        action: Callable[[], T],
        may_be_repeated: Callable[[TargetUnavailableError], bool] = lambda error: True,
    ) -> T:
        """Return what `action` returns; an error says in the end how long it was tried."""
        began, doubtful = time.monotonic(), False

        def once() -> T:
            nonlocal doubtful
            try:
                return action()
            except TargetUnavailableError as error:
                doubtful = doubtful or not error.answered
                error.answered = not doubtful
                raise

        try:
            return Patience(self._seconds, partial(_is_worth_it, may_be_repeated)).call(once)
        except TargetUnavailableError as error:
            if error.transient:
                tried = time.monotonic() - began
                error.args = (f"{error} (given up after {tried:.0f} seconds)", *error.args[1:])
            raise


def _is_worth_it(
    may_be_repeated: Callable[[TargetUnavailableError], bool], error: BaseException
) -> bool:
    return isinstance(error, TargetUnavailableError) and error.transient and may_be_repeated(error)
