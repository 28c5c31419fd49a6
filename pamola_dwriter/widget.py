"""How far a write has come, in a notebook: HTML that is replaced in place.

It needs no extension, shows its last state in a notebook that was saved, and says the same as
text where HTML is not shown. See "Display" in the reference of IPython.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from secrets import token_hex
from typing import Any

from pamola_dwriter.progress import Snapshot, StageCounts
from pamola_dwriter.progress.words import in_words, kind_of, partitions_in_words, stage_in_words

_COLORS = {"running": "#0072B2", "committed": "#00785A", "failed": "#B84A00"}
_OTHER_COLOR = "#667085"
_STATUS = (
    "color: white; padding: 1px 7px; border-radius: 9px; font-size: 12px; font-weight: 600; "
    "background: "
)
_FRAME = (
    "font: 13px/1.5 system-ui, sans-serif; max-width: 620px; padding: 8px 14px; margin: 4px 0; "
    "border: 1px solid rgba(128, 128, 128, 0.4); border-radius: 6px"
)


def notebook_display() -> Any:
    """Return the function that displays in the notebook we run in; None if it is none."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    return display if shell is not None and hasattr(shell, "kernel") else None


class Widget:
    """A view that shows a write in the output of a notebook's cell.

    Parameters
    ----------
    display : callable
        As ``IPython.display.display``.
    find_page : callable, optional
        Returns the address of the write on the scheduler's dashboard, or None. It is asked once,
        and shown while the write runs: the last state is saved, and the scheduler may be gone when
        that is read.
    """

    def __init__(self, display: Any, find_page: Callable[[], str | None] | None = None) -> None:
        self._display = display
        self._find_page = find_page
        self._page: str | None = None
        self._id = f"pamola-{token_hex(8)}"
        self._shown: Snapshot | None = None
        self._closed = False

    def show(self, snapshot: Snapshot) -> None:
        """Draw a state, in the place of the last one."""
        if not self._closed and snapshot != self._shown:
            self._draw(snapshot, snapshot.status)

    def close(self, status: str) -> None:
        """Leave the last state as it is, with the status.

        A snapshot that has it may never have come: the scheduler can be lost before.
        """
        if not self._closed and self._shown is not None and self._shown.status != status:
            self._draw(self._shown, status)
        self._closed = True

    def _draw(self, snapshot: Snapshot, status: str) -> None:
        if self._shown is None and self._find_page is not None:
            self._page = self._find_page()
        page = self._page if status == "running" else None
        bundle = {
            "text/html": as_html(snapshot, status, page),
            "text/plain": f"{snapshot.name}: {as_text(snapshot, status)}",
        }
        self._display(bundle, raw=True, display_id=self._id, update=self._shown is not None)
        self._shown = snapshot


def as_text(snapshot: Snapshot, status: str) -> str:
    """Return a state as one line of text."""
    return ", ".join([status, partitions_in_words(snapshot), *in_words(snapshot)])


def as_html(snapshot: Snapshot, status: str, page: str | None = None) -> str:
    """Return a state as HTML; names and addresses, which come from others, are escaped."""
    color = _COLORS.get(status, _OTHER_COLOR)
    rows = "".join(_stage(stage, counts, color) for stage, counts in snapshot.stages.items())
    about = [escape(one) for one in [kind_of(snapshot), *in_words(snapshot)] if one]
    about += [f"<a href='{escape(page)}' target='_blank'>dashboard</a>"] if page else []
    return (
        f"<div style='{_FRAME}'>"
        f"<b>{escape(snapshot.name or snapshot.write_id)}</b> "
        f"<span style='{_STATUS}{color}'>{escape(status)}</span> "
        f"{partitions_in_words(snapshot)}"
        f"{_bar(snapshot.partitions_done, snapshot.partitions, color, 8)}"
        f"<div style='opacity: 0.8'>{' &middot; '.join(about)}</div>"
        f"<table style='margin: 4px 0 0'>{rows}</table></div>"
    )


def _stage(stage: str, counts: StageCounts, color: str) -> str:
    cell = "<td style='text-align: left; padding: 1px 8px 1px 0; background: none'>"
    bar = _bar(counts.done, counts.total, color, 5)
    return (
        f"<tr style='background: none'>{cell}{escape(stage)}</td>"
        f"{cell}<div style='width: 200px'>{bar}</div></td>"
        f"{cell}{stage_in_words(counts)}</td></tr>"
    )


def _bar(done: int, total: int, color: str, height: int) -> str:
    share = done / total if total else 0
    return (
        f"<div style='background: rgba(128, 128, 128, 0.25); border-radius: 3px; margin: 4px 0'>"
        f"<div style='background: {color}; width: {share:.1%}; height: {height}px; "
        "border-radius: 3px'></div></div>"
    )
