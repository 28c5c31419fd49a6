"""A progress bar of one write; it reads the write's snapshot and touches nothing else."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO

from dask.utils import format_bytes
from tqdm import tqdm

from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.spec import WriterResult

_INTERVAL = 0.2
"""Seconds between two looks at the write."""

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def follow(handle: WriteFuture, *, file: TextIO | None = None, force: bool = False) -> WriterResult:
    """Draw a bar of a write until it ends, and return its result.

    The bar counts partitions, rows and bytes that are staged. An interrupt (Ctrl-C) cancels the
    write and waits until it is cleaned up.

    Parameters
    ----------
    handle : WriteFuture
        From ``DataWriter.submit_dataframe``.
    file : text stream, optional
        Where to draw; default ``sys.stderr``. Nothing is drawn where that is no terminal.
    force : bool, default False
        Draw also there.

    Returns
    -------
    WriterResult

    Raises
    ------
    KeyboardInterrupt
        After the write was cancelled and cleaned up.
    DataWriteError
        The write did not commit; see ``WriteFuture.result``.
    """
    stream = sys.stderr if file is None else file
    try:
        if force or stream.isatty():
            _draw_until_done(handle, stream)
        return handle.result()
    except KeyboardInterrupt:
        handle.cancel()
        handle.exception()
        raise


def _draw_until_done(handle: WriteFuture, stream: TextIO) -> None:
    with tqdm(file=stream, desc="writing", bar_format=_FORMAT, miniters=1, mininterval=0) as bar:
        while not handle.done():
            _refresh(bar, handle)
            with suppress(TimeoutError):
                handle.exception(_INTERVAL)
        bar.set_description_str(handle.status, refresh=False)
        _refresh(bar, handle)


def _refresh(bar: tqdm[Any], handle: WriteFuture) -> None:
    # A scheduler that cannot be asked now must not take the write down with the bar.
    with suppress(OSError, RuntimeError):
        _show(bar, handle.progress())
    bar.refresh()


def _show(bar: tqdm[Any], snapshot: Snapshot) -> None:
    # Set and not added: a lost worker takes partitions back.
    bar.total, bar.n = snapshot.partitions, snapshot.partitions_done
    text = f"{snapshot.rows:,} rows, {format_bytes(snapshot.size_bytes)}"
    bar.set_postfix_str(text, refresh=False)
