"""A tree of progress trackers, each a line below its parent's.

:class:`HierarchicalProgressTracker` takes the calls that the operations of pamola-core make to
the class of that name.
"""

from __future__ import annotations

import operator
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import psutil
from dask.utils import format_bytes

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.line import Line, is_watched

_INTERVAL = 0.1
"""Seconds between two drawings that nothing but a higher count asks for."""


class HierarchicalProgressTracker:
    """Counts the steps of an operation and draws them, with a line for each open subtask.

    Any number of threads may update one tracker or one tree; no count is lost. Counts are kept
    whether or not anything is drawn. A subtask's line disappears when it is closed.

    Parameters
    ----------
    total : int or None
        Steps in all; None if that is not known. More than that may be counted.
    description : str, default ""
        Text before the bar.
    unit : str, default "items"
        What is counted.
    track_memory : bool, default True
        Show the resident memory of this process behind the bar.
    disable : bool, optional
        True draws nothing, False draws in any case. Default: draw if stderr is a terminal, or
        in a notebook that has ipywidgets.
    parent : HierarchicalProgressTracker, optional
        See :meth:`create_subtask`.

    Raises
    ------
    InvalidWriteError
        An argument has the wrong type, or `total` is negative; a ValueError, too.

    Examples
    --------
    >>> with HierarchicalProgressTracker(2, "Masking", unit="steps") as tracker:
    ...     tracker.update(1, {"step": "Loading"})
    ...     with tracker.create_subtask(total=3, description="Fields", unit="fields") as fields:
    ...         fields.update(3)
    ...     tracker
    <HierarchicalProgressTracker 'Masking': 2/2 steps>
    """

    def __init__(
        self,
        total: int | None,
        description: str = "",
        unit: str = "items",
        *,
        track_memory: bool = True,
        disable: bool | None = None,
        parent: HierarchicalProgressTracker | None = None,
    ) -> None:
        self._total = _check_total(total)
        self._description = _check_text("description", description)
        self._unit = _check_text("unit", unit)
        self._track_memory = track_memory
        self._disable = disable
        self._parent = parent
        # One for a whole tree: closing goes down it, and counting up.
        self._lock: threading.RLock = threading.RLock() if parent is None else parent._lock
        self._children: list[HierarchicalProgressTracker] = []
        self._n = 0
        self._postfix: dict[str, str] = {}
        self._started = time.monotonic()
        self._ended: float | None = None
        self._drawn = 0.0
        with self._lock:
            orphan = parent is not None and parent.closed
            self._line = None if orphan else self._open_line()
            if parent is not None and not orphan:
                parent._children.append(self)

    def __repr__(self) -> str:
        total = "?" if self._total is None else self._total
        name = type(self).__name__
        return f"<{name} {self._description!r}: {self._n}/{total} {self._unit}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def n(self) -> int:
        """Steps counted so far."""
        return self._n

    @property
    def total(self) -> int | None:
        """Steps in all, or None; may be set when it becomes known."""
        return self._total

    @total.setter
    def total(self, total: int | None) -> None:
        with self._lock:
            self._total = _check_total(total)
            self._draw()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning; it stops when the tracker is closed."""
        return (time.monotonic() if self._ended is None else self._ended) - self._started

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._ended is not None

    @property
    def description(self) -> str:
        """Text before the bar."""
        return self._description

    @property
    def unit(self) -> str:
        """What is counted."""
        return self._unit

    @property
    def parent(self) -> HierarchicalProgressTracker | None:
        """The tracker this is a subtask of."""
        return self._parent

    @property
    def level(self) -> int:
        """How many trackers stand above this one."""
        return 0 if self._parent is None else self._parent.level + 1

    def update(self, n: int = 1, postfix: Mapping[str, Any] | None = None) -> None:
        """Count `n` more steps; nothing happens once the tracker is closed.

        Parameters
        ----------
        n : int, default 1
            0 only shows `postfix`; a negative number takes steps back.
        postfix : mapping of str to anything, optional
            Replaces what stands behind the bar.

        Raises
        ------
        InvalidWriteError
            `n` is no int or takes back more than was counted, or `postfix` is no mapping.
        """
        step = _check_int("n", n)
        texts = _check_postfix(postfix)
        with self._lock:
            if self.closed:
                return
            if self._n + step < 0:
                raise InvalidWriteError(f"n must take back at most {self._n} steps, not {-step}")
            self._n += step
            if texts is not None:
                self._postfix = texts
            if texts is not None or time.monotonic() - self._drawn >= _INTERVAL:
                self._draw()

    def create_subtask(
        self,
        total: int | None,
        description: str,
        unit: str = "steps",
        track_memory: bool | None = None,
    ) -> HierarchicalProgressTracker:
        """Return a tracker one level down; closing it counts one step of this one.

        Under a tracker that is closed it counts, and is not drawn.
        """
        return HierarchicalProgressTracker(
            total,
            description,
            unit,
            track_memory=self._track_memory if track_memory is None else track_memory,
            disable=self._disable,
            parent=self,
        )

    def close(self) -> None:
        """Close the subtasks that are open, then this; a second call does nothing."""
        with self._lock:
            if self.closed:
                return
            for child in reversed(self._children.copy()):
                child.close()
            self._draw()
            self._ended = time.monotonic()
            if self._line is not None:
                self._line.close()
                self._line = None
            if self._parent is not None and not self._parent.closed:
                self._parent._children.remove(self)
                self._parent._n += 1
                self._parent._draw()

    def _open_line(self) -> Line | None:
        if self._disable or (self._disable is None and not is_watched(sys.stderr)):
            return None
        return Line(
            sys.stderr,
            total=self._total,
            desc=f"{'  ' * self.level}{self._description}",
            unit=self._unit,
            leave=self._parent is None,
        )

    def _draw(self) -> None:
        if self._line is None:
            return
        self._drawn = time.monotonic()
        shown = dict(self._postfix)
        if self._track_memory:
            shown["mem"] = format_bytes(psutil.Process().memory_info().rss)
        text = ", ".join(f"{name}={value}" for name, value in shown.items())
        self._line.show(self._n, self._total, text)


def _check_int(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidWriteError(f"{name} must be an int, not {type(value).__name__}") from None


def _check_total(total: object) -> int | None:
    if total is None:
        return None
    number = _check_int("total", total)
    if number < 0:
        raise InvalidWriteError(f"total must be 0 or more, or None if unknown, not {number}")
    return number


def _check_text(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise InvalidWriteError(f"{name} must be a str, not {type(text).__name__}")
    return _in_one_line(text)


def _check_postfix(postfix: object) -> dict[str, str] | None:
    if postfix is None:
        return None
    if not isinstance(postfix, Mapping):
        raise InvalidWriteError(f"postfix must be a mapping, not {type(postfix).__name__}")
    return {_in_one_line(str(name)): _in_one_line(_text(value)) for name, value in postfix.items()}


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_one_line(text: str) -> str:
    """Replace line breaks and control characters, which would tear the drawing."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
