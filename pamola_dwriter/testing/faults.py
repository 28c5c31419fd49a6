"""What goes wrong with a store: which call of which method, and how far that call comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import TargetUnavailableError

When = Literal["before", "after", "lost"]

METHODS = frozenset(
    name for name, member in vars(Store).items() if callable(member) and not name.startswith("_")
)
"""Methods of a store that can fail."""

WITH_ITEMS = frozenset({"discard", "make_folders", "publish", "remove", "sweep"})
"""Those that are given several things to do, and may fail after some of them."""


class Crash(BaseException):
    """The process dies here: no handler for errors sees it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a method of a store.

    Attributes
    ----------
    paths : tuple of str
        The files or directories it was about, relative to the task directory.
    """

    method: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong; a plain value, so that it can be sent to workers.

    Attributes
    ----------
    method : str
        Which method of :class:`~pamola_dwriter.contracts.Store` fails.
    when : {"before", "after", "lost"}
        The store refuses and has done nothing; it has done its work and refuses all the same, as
        does a call of several requests whose last one is refused; it has done its work and its
        reply, whatever that was, is lost.
    path : str
        Only calls about a path that matches this pattern of :mod:`fnmatch` count.
    nth : int
        The first of these calls to fail, counted from 1 over all stores of one injection.
    forever : bool
        Whether all later ones fail too.
    outage : bool
        Whether from then on every call of the injection fails in the same way, of whatever method:
        the store is gone, or with a :class:`Crash` the process.
    transient : bool
        Whether the error says that it passes, so that it is worth trying again.
    answered : bool or None
        Whether the error says that the store has answered, and so done nothing. None: what `when`
        suggests, which is no for a lost reply alone.
    items : int or None
        Of a call with several paths only the first so many are done: ``publish``, ``remove``,
        ``discard``, ``make_folders``, and ``sweep``, where write ids are counted.
    error : callable or None
        Makes another exception than TargetUnavailableError from a text, such as
        ``KeyboardInterrupt``.

    Raises
    ------
    ValueError
        There is no such method, or one of the numbers makes no sense.

    Examples
    --------
    The reply to the commit is lost; the process dies before it stages its second part:

    >>> lost = Fault("put_if", "lost", path="*/_manifest.json")
    >>> dies = Fault("stage", nth=2, error=Crash, outage=True)
    """

    method: str
    when: When = "before"
    _: KW_ONLY
    path: str = "*"
    nth: int = 1
    forever: bool = False
    outage: bool = False
    transient: bool = False
    answered: bool | None = None
    items: int | None = None
    error: Callable[[str], BaseException] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"a store has no method {self.method!r}: {', '.join(sorted(METHODS))}")
        if self.when not in ("before", "after", "lost"):
            raise ValueError(f"when must be 'before', 'after' or 'lost', not {self.when!r}")
        if self.nth < 1:
            raise ValueError("nth counts from 1")
        if self.items is not None and (self.method not in WITH_ITEMS or self.items < 0):
            raise ValueError(f"items must not be negative, and goes with {sorted(WITH_ITEMS)}")

    def matches(self, call: Call) -> bool:
        """Return whether this is about such a call at all."""
        if call.method != self.method:
            return False
        return self.path == "*" or any(fnmatchcase(path, self.path) for path in call.paths)

    def is_due(self, count: int) -> bool:
        """Return whether the call fails that is number `count` of those this is about."""
        return count >= self.nth if self.forever else count == self.nth

    @property
    def claims_answer(self) -> bool:
        """Whether the error says that the store has answered."""
        return self.when != "lost" if self.answered is None else self.answered

    def make_error(self, call: Call) -> BaseException:
        """Return what is raised in place of a reply."""
        text = f"injected {self.when} {call.method} of {', '.join(call.paths[:3]) or 'the store'}"
        if self.error is not None:
            return self.error(text)
        return TargetUnavailableError(text, answered=self.claims_answer, transient=self.transient)


class Injection:
    """The faults of one injection and what came of them, over all its stores and threads.

    Attributes
    ----------
    calls : list of Call
        Every call that was made, in order.
    injected : list of (Fault, Call)
        Every fault that struck, and where; of an outage the beginning.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.calls: list[Call] = []
        self.injected: list[tuple[Fault, Call]] = []
        self._seen = dict.fromkeys(faults, 0)
        self._outage: Fault | None = None
        self._lock = threading.Lock()

    def record(self, call: Call) -> Fault | None:
        """Note a call; return the fault that strikes it."""
        with self._lock:
            self.calls.append(call)
            if self._outage is not None:
                return self._outage
            matching = [fault for fault in self._seen if fault.matches(call)]
            for fault in matching:
                self._seen[fault] += 1
            due = next((fault for fault in matching if fault.is_due(self._seen[fault])), None)
            if due is not None:
                self.injected.append((due, call))
                self._outage = _goes_on(due) if due.outage else None
            return due


def _goes_on(fault: Fault) -> Fault:
    """Return what strikes every call after the one at which an outage began."""
    return replace(fault, when="before", answered=fault.claims_answer, items=None)
