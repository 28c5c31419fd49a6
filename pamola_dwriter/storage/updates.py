"""Read, change, write if unchanged: again when somebody was faster, until it counts once.

A conditional write can land and its reply be lost; a retry below us, of which we learn nothing,
then meets its own bytes and reports a conflict. So no conflict is believed before the object is
read back: every version carries a :class:`History` that names the updates it is made of.

The history goes wherever the object's metadata goes. Whoever copies the object without that
(some tools do), just when the reply to an update is lost, makes that update count twice.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_urlsafe
from weakref import WeakValueDictionary

from pamola_dwriter.contracts import VersionConflict
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    TargetUnavailableError,
)

PATIENCE = 60.0
"""Seconds after which an update that others always outrun gives up."""

KEPT = 128
"""Updates that an object remembers: S3 allows 2 KB of user metadata, a token takes 8 bytes."""

_LOOKS = 4
"""Tries to read back what became of an update, and more while that takes no longer than it may."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

_HISTORY = re.compile(rf"(?P<count>[1-9]\d{{0,17}}):(?P<tokens>([\w-]{{8}}){{1,{KEPT}}})", re.ASCII)

_turns: WeakValueDictionary[str, threading.RLock] = WeakValueDictionary()
_turns_guard = threading.Lock()

Change = Callable[[bytes | None], bytes]


@dataclass(frozen=True, slots=True)
class History:
    """How many updates made an object, and the tokens of the last of them.

    An object without one is not of our making: no update of ours is in it.
    """

    count: int = 0
    tokens: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> History:
        """Parse what :meth:`dump` made; anything else is no history."""
        found = _HISTORY.fullmatch(text or "")
        if found is None:
            return cls()
        return cls(int(found["count"]), tuple(re.findall(".{8}", found["tokens"])))

    def dump(self) -> str:
        """Return it as ASCII text."""
        return f"{self.count}:{''.join(self.tokens)}"

    def add(self, token: str) -> History:
        """Return the history of the version that one more update makes."""
        return History(self.count + 1, (*self.tokens, token)[-KEPT:])


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at a path: by default nothing."""

    data: bytes | None = None
    version: str | None = None
    history: History = field(default_factory=History)


@dataclass(frozen=True, slots=True)
class Target:
    """One object of a store that writes on a condition.

    Attributes
    ----------
    name : str
        For messages.
    read : callable
        Returns what stands there.
    write : callable
        Takes bytes, the version to replace (None: nothing), and the history to store with them;
        raises VersionConflict, or TargetUnavailableError.
    retry_seconds : float
        How long it is tried again when the store fails for a passing reason.
    """

    name: str
    read: Callable[[], Seen]
    write: Callable[[bytes, str | None, History], None]
    retry_seconds: float = 0


def update(target: Target, change: Change) -> bytes:
    """Replace an object by what `change` makes of it, exactly once; return the new bytes.

    Raises
    ------
    ConcurrentWriteError
        Others were faster for :data:`PATIENCE` seconds.
    CommitOutcomeUnknownError
        It may have been written, and reading back did not tell.
    TargetUnavailableError
        It could not be read or written.
    """
    began, tried = time.monotonic(), 0
    race = _Race(target)
    while True:
        data = change(race.seen.data)
        if data == race.seen.data:
            return data
        failure = race.send(data)
        if failure is None:
            return data
        # At once, before so many others follow that the history no longer tells; and again after
        # a pause, to start from the freshest version, and for a write that was still under way.
        for seconds in (0.0, _pause(tried)):
            time.sleep(seconds)
            if (landed := race.look_again(failure)) is not None:
                return landed
        if isinstance(failure, ConcurrentWriteError):
            patience = PATIENCE
        else:
            patience = target.retry_seconds if failure.transient else 0
            failure.answered = failure.answered and not race.is_open
        if time.monotonic() - began >= patience:
            raise failure
        tried += 1


class _Race:
    """The tries of one update: what was seen last, and what was sent and may yet land on it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sent: dict[str, bytes] = {}
        self.seen = target.read()

    def send(self, data: bytes) -> ConcurrentWriteError | TargetUnavailableError | None:
        """Return why it is unknown whether `data` was written, or None if it was."""
        token = token_urlsafe(6)
        self._sent[token] = data
        try:
            self._target.write(data, self.seen.version, self.seen.history.add(token))
        except VersionConflict:
            return beaten(self._target.name)
        except TargetUnavailableError as error:
            if error.answered:
                del self._sent[token]
            if error.transient or not error.answered:
                return error
            if self.is_open:
                raise unknown(self._target.name) from error
            raise
        return None

    @property
    def is_open(self) -> bool:
        """Whether something that was sent may yet land."""
        return bool(self._sent)

    def look_again(self, failure: Exception) -> bytes | None:
        """Return what was written if any of it was."""
        now = self._read_back(failure)
        for token in now.history.tokens:
            if token in self._sent:
                return self._sent[token]
        if self._sent and now.history.count - self.seen.history.count > KEPT:
            raise unknown(self._target.name) from failure
        if now.version != self.seen.version:
            self._sent.clear()
        self.seen = now
        return None

    def _read_back(self, failure: Exception) -> Seen:
        began, tried = time.monotonic(), 0
        while True:
            try:
                return self._target.read()
            except TargetUnavailableError as error:
                patience = self._target.retry_seconds if error.transient else 0
            tried += 1
            if tried >= _LOOKS and time.monotonic() - began >= patience:
                raise unknown(self._target.name) from failure
            pause(tried)


def pause(tried: int) -> None:
    """Sleep before the next try."""
    time.sleep(_pause(tried))


def _pause(tried: int) -> float:
    """Draw a length, on average twice as long after every try: racers in step go on colliding."""
    longest: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(tried, 16))
    return random.random() * longest  # noqa: S311


@contextmanager
def in_turn(name: str) -> Iterator[None]:
    """Let the threads of this process update one object after the other."""
    with _turns_guard:
        lock = _turns.setdefault(name, threading.RLock())
    with lock:
        yield


def beaten(name: str) -> ConcurrentWriteError:
    """Return the error of an update that gave up."""
    return ConcurrentWriteError(
        f"others kept changing {name} for {PATIENCE:.0f} seconds, so this update was given up "
        "and changed nothing; try again when there are fewer at once"
    )


def unknown(name: str) -> CommitOutcomeUnknownError:
    """Return the error of an update that may have been written or not."""
    return CommitOutcomeUnknownError(
        f"the store did not say whether this update of {name} was written, and reading it back "
        "did not tell; look at it before you update again"
    )
