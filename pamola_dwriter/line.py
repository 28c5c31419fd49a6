"""One drawn line of progress, in a terminal or as a widget of a notebook."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # What it says in a notebook without ipywidgets; nothing is drawn there unless forced.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

_HAS_WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def is_watched(stream: object) -> bool:
    """Return whether what is drawn on `stream` is seen: on a terminal, or as a widget.

    There may be no stream, as in a service, or one that only writes, as into a log.
    """
    ask = getattr(stream, "isatty", None)
    return (ask is not None and ask()) or (_HAS_WIDGETS and stream is sys.stderr)


class Line(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """A line of a terminal, or a widget of a notebook, that shows what it is told."""

    monitor_interval = 0  # else tqdm starts a thread, which outlives the last line

    def __init__(self, stream: Any, **options: Any) -> None:
        # Of a terminal that does not tell its size, as in some containers, tqdm sees 0 columns.
        sized = _HAS_WIDGETS or _columns(stream) > 0
        size = {"dynamic_ncols": True} if sized else {"ncols": 80, "nrows": 24}
        super().__init__(file=stream, **size, **options)

    def show(self, n: int, total: int | None, text: str) -> None:
        """Draw a state; set and not added, for work can be taken back."""
        if self.disable:
            return
        if total != self.total:
            started = self.start_t
            self.reset(total)  # a widget learns of a new total in no other way
            self.start_t, self.total = started, total
        self.n = n
        self.set_postfix_str(text, refresh=False)
        self.refresh()


def _columns(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return 0
