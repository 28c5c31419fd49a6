"""Object stores that compare and write in one step, through an asynchronous fsspec file system.

What Azure and Google have in common: a write on the condition that nothing stands there, or
exactly this version, and user metadata that holds the history of the updates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

import fsspec
from fsspec.asyn import _run_coros_in_chunks, sync

from pamola_dwriter.contracts import Versioned
from pamola_dwriter.storage import updates
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.patience import Patience
from pamola_dwriter.storage.updates import History, Seen

_REQUESTS_AT_ONCE = 16

T = TypeVar("T")
V = TypeVar("V")


class ConditionalStore(ObjectStore):
    """A task directory in a bucket whose writes can be made conditional.

    Attributes
    ----------
    protocol : str
        One by which fsspec knows the file system.
    extra : str
        What to install of this package to have it.
    """

    protocol: ClassVar[str]
    extra: ClassVar[str]

    @classmethod
    def complete_options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            fsspec.get_filesystem_class(cls.protocol)
        except ImportError as error:
            raise ImportError(f"pip install 'pamola_dwriter[{cls.extra}]' ({error})") from error
        return super().complete_options(given)

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
            except FileNotFoundError:
                return Seen()

    @abstractmethod
    async def _get(self, path: str) -> Seen:
        """Return what stands there; FileNotFoundError if nothing does."""

    @abstractmethod
    def _put_on_condition(
        self, path: str, data: bytes, expected: str | None, history: History | None = None
    ) -> None:
        """Write if the version is still `expected` (None: if absent), else VersionConflict."""

    async def _again(self, act: Callable[[], Awaitable[T]]) -> T:
        """Send a request until it is answered for good; it is one that may be sent twice."""
        return await Patience(self._tuning.retry_seconds, self._is_transient).call_async(act)

    def _run(self, coroutine: Awaitable[T]) -> T:
        result: T = sync(self._fs.loop, lambda: coroutine)
        return result

    def _each(self, act: Callable[[V], Awaitable[T]], items: Iterable[V]) -> list[T]:
        """Return what `act` returns for each item, several at once."""
        return self._run(for_each(act, items))


async def for_each(
    act: Callable[[V], Awaitable[T]], items: Iterable[V], *, at_once: int = _REQUESTS_AT_ONCE
) -> list[T]:
    """Return what `act` returns for each item, so many of them `at_once`.

    When a failure is raised nothing is under way any more: what goes on behind the back of
    whoever cleans up would come after that.
    """
    done = await _run_coros_in_chunks(
        [act(item) for item in items], batch_size=at_once, nofiles=True, return_exceptions=True
    )
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return list(done)
