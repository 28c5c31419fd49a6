"""A progress bar of one write; it reads the write's snapshot and touches nothing else."""

from __future__ import annotations

import sys
from typing import TextIO

from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.line import Line, is_watched
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.progress.words import in_words, span_of_time
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.views import View, wait
from pamola_dwriter.widget import Widget, as_text, notebook_display

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
_BETWEEN = frozenset({"schema", "gather", "count", "claim", "collect"})
"""Stages of a moment, which leave room on the line for those that work with data."""
_TEXT = "  {desc}{bar:0}"  # tqdm 4.66 lets a line without a bar run over the terminal's edge


class Bar:
    """A view that draws three lines: the partitions, what else is known, and the stages.

    What is known has a line to itself, so that 80 columns hold it. When the write has ended, one
    line of text takes the place of the three; it may be wrapped, and nothing of it is cut off.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = Line(stream, desc="writing", bar_format=_FORMAT, position=0, leave=False)
        self._about, self._stages = (
            Line(stream, bar_format=_TEXT, position=position, leave=False) for position in (1, 2)
        )
        self._shown: Snapshot | None = None
        self._closed = False

    def show(self, snapshot: Snapshot) -> None:
        """Draw a state."""
        if self._closed:
            return
        self._shown = snapshot
        stages = [
            f"{stage} {one.done}/{one.total}"
            for stage, one in snapshot.stages.items()
            if stage not in _BETWEEN
        ]
        self._line.show(
            snapshot.partitions_done, snapshot.partitions, span_of_time(snapshot.elapsed)
        )
        self._about.set_description_str(", ".join(in_words(snapshot)))
        self._stages.set_description_str("  ".join(stages))

    def close(self, status: str) -> None:
        """Say how far it came, and how it ended."""
        if self._closed:
            return
        self._closed = True
        for line in (self._stages, self._about, self._line):
            line.close()
        self._stream.write(f"{as_text(self._shown, status) if self._shown else status}\n")
        self._stream.flush()


def follow(handle: WriteFuture, *, file: TextIO | None = None, force: bool = False) -> WriterResult:
    """Draw a bar of a write until it ends, and return its result.

    It shows partitions, rows and bytes that are staged, the pace, the time to go, retries,
    failures, and each stage: on a terminal in three lines, of which one is left at the end; in a
    notebook in the output of the cell, where the last state is saved with it. To wait and show
    nothing, call ``handle.result()``.

    An interrupt (Ctrl-C) cancels the write and waits until it is cleaned up; if its commit was
    faster, the result is returned and a warning logged. A second interrupt gives up waiting.

    Parameters
    ----------
    handle : WriteFuture
        From ``DataWriter.submit_dataframe``.
    file : text stream, optional
        Where to draw; default the notebook's cell, or ``sys.stderr``. Nothing is drawn where that
        is no terminal.
    force : bool, default False
        Draw also there.

    Returns
    -------
    WriterResult

    Raises
    ------
    KeyboardInterrupt
        After the write was cancelled and cleaned up, or at the second interrupt.
    DataWriteError
        The write did not commit; see ``WriteFuture.result``.
    """
    return wait(handle, _views(handle, file, force))


def _views(handle: WriteFuture, file: TextIO | None, force: bool) -> list[View]:
    display = notebook_display() if file is None else None
    if display is not None:
        return [Widget(display, handle.dashboard_link)]
    stream = sys.stderr if file is None else file
    return [Bar(stream)] if force or is_watched(stream) else []
