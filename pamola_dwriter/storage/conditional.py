"""Object stores that write on a condition, in one step, through an asynchronous file system.

What S3, Azure and Google have in common: a write on the condition that nothing stands there, or
exactly this version, and user metadata that holds the history of the updates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from functools import partial
from typing import TypeVar

from fsspec.asyn import sync

from pamola_dwriter.contracts import Versioned
from pamola_dwriter.storage import updates
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.updates import History, Seen

T = TypeVar("T")


class ConditionalStore(ObjectStore):
    """A task directory in a bucket whose writes can be made conditional."""

    @property
    def atomic(self) -> bool:
        return True

    def read_versioned(self, path: str) -> Versioned | None:
        seen = self._see(path)
        if seen.data is None or seen.version is None:
            return None
        return Versioned(seen.data, seen.version)

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        self._put_on_condition(path, data, expected)

    def _update(self, path: str, change: updates.Change) -> bytes:
        target = updates.Target(
            name=repr(path),
            read=partial(self._see, path),
            write=partial(self._put_on_condition, path),
            retry_seconds=self._tuning.retry_seconds,
        )
        return updates.update(target, change)

    def _see(self, path: str) -> Seen:
        with self._explained("read", path):
            try:
                return self._run(self._get(path))
            except FileNotFoundError as error:
                if not self._is_absent(error):
                    raise
                return Seen()

    @abstractmethod
    async def _get(self, path: str) -> Seen:
        """Return what stands there; FileNotFoundError if nothing does."""

    @abstractmethod
    def _put_on_condition(
        self, path: str, data: bytes, expected: str | None, history: History | None = None
    ) -> None:
        """Write if the version is still `expected` (None: if absent), else VersionConflict."""

    def _run(self, coroutine: Awaitable[T]) -> T:
        result: T = sync(self._fs.loop, lambda: coroutine)
        return result
