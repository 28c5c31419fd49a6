"""What the stores of Azure and Google have in common: packages that are extras, and aiohttp."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any, ClassVar, TypeVar

import fsspec
from fsspec.asyn import _run_coros_in_chunks

from pamola_dwriter import layout
from pamola_dwriter.errors import TargetUnavailableError
from pamola_dwriter.storage.conditional import ConditionalStore
from pamola_dwriter.storage.patience import Patience

_REQUESTS_AT_ONCE = 16

_QUERY = re.compile(r"(?<=[^\s?])\?[\w.~%+-]+=[^\s'\"]*")
"""That of an address, in a text."""

T = TypeVar("T")
V = TypeVar("V")


class CloudStore(ConditionalStore):
    """A task directory on a cloud whose file system is not installed with this package.

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

    def check_writable(self, path: str) -> None:
        with self._explained("write", path), self._small_file():
            pass

    def now(self) -> float:
        with self._explained("write", layout.STAGING), self._small_file() as probe:
            return self._run(self._time_of(probe))

    @contextmanager
    def _small_file(self) -> Iterator[str]:
        """Have a small file, and leave none: also not where the reply to its writing was lost."""
        probe = layout.probe_path(token_hex(8))
        try:
            self._write(probe, b"probe")
            yield probe
        except BaseException:
            with suppress(Exception):
                self.remove([probe])
            raise
        self.remove([probe])

    @abstractmethod
    async def _time_of(self, path: str) -> float:
        """Return when a file was changed last, by the clock of the store."""

    async def _again(self, act: Callable[[], Awaitable[T]]) -> T:
        """Send a request until it is answered for good; it is one that may be sent twice."""

        async def once() -> T:
            try:
                return await act()
            except Exception as error:
                _hide_queries(error)  # before it is logged
                raise

        return await Patience(self._tuning.retry_seconds, self._is_transient).call_async(once)

    def _unavailable(self, action: str, path: str, error: Exception) -> TargetUnavailableError:
        _hide_queries(error)
        failure = super()._unavailable(action, path, error)
        _hide_queries(failure)
        return failure

    def _each(self, act: Callable[[V], Awaitable[T]], items: Iterable[V]) -> list[T]:
        """Return what `act` returns for each item, several at once."""
        return self._run(for_each(act, items))


def _hide_queries(error: BaseException) -> None:
    """Cut the queries off the addresses in an error and in what is behind it.

    aiohttp names the whole address, and a query may hold the signature that is the credential.
    """
    chain = [error]
    for each in chain:
        each.args = tuple(_QUERY.sub("", a) if isinstance(a, str) else a for a in each.args)
        # The links may go round in a circle.
        behind = [e for e in (each.__cause__, each.__context__) if e is not None]
        chain += [e for e in behind if all(e is not known for known in chain)]
    for each in chain:
        if _shows_query(each.__cause__):
            each.__cause__ = None
        if _shows_query(each.__context__):
            each.__context__ = None


def _shows_query(error: BaseException | None) -> bool:
    """Return whether an error does so still, as one does that makes its text of something else."""
    return error is not None and _QUERY.search(str(error)) is not None


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
