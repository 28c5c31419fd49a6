"""A progress bar of one write; it reads the write's snapshot and touches nothing else."""

from __future__ import annotations

import sys
from typing import TextIO

from dask.utils import format_bytes

from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.line import Line, is_watched
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.views import wait

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Bar:
    """A view that draws one line: partitions, rows and bytes that are staged."""

    def __init__(self, stream: TextIO) -> None:
        self._line = Line(stream, desc="writing", bar_format=_FORMAT)

    def show(self, snapshot: Snapshot) -> None:
        """Draw a state."""
        text = f"{snapshot.rows:,} rows, {format_bytes(snapshot.size_bytes)}"
        self._line.show(snapshot.partitions_done, snapshot.partitions, text)

    def close(self, status: str) -> None:
        """Leave the line as it is, with the status in front."""
        self._line.set_description_str(status, refresh=False)
        self._line.close()


def follow(handle: WriteFuture, *, file: TextIO | None = None, force: bool = False) -> WriterResult:
    """Draw a bar of a write until it ends, and return its result.

    The bar counts partitions, rows and bytes that are staged. An interrupt (Ctrl-C) cancels the
    write and waits until it is cleaned up; if its commit was faster, the result is returned and
    a warning logged. A second interrupt gives up waiting.

    Parameters
    ----------
    handle : WriteFuture
        From ``DataWriter.submit_dataframe``.
    file : text stream, optional
        Where to draw; default ``sys.stderr``. Nothing is drawn where that is no terminal; a
        notebook with ipywidgets shows a widget instead.
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
    stream = sys.stderr if file is None else file
    return wait(handle, [Bar(stream)] if force or is_watched(stream) else [])
