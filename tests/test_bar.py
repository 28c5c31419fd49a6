"""The bar of one write: drawn where somebody looks, and never in the way of the write."""

from __future__ import annotations

import io
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from tqdm import tqdm

from pamola_dwriter import DataWriter, tasks
from pamola_dwriter.bar import Bar, follow
from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.progress import Fold
from pamola_dwriter.spec import WriteId


@pytest.fixture
def frame() -> dd.DataFrame:
    """A frame of three partitions."""
    made: dd.DataFrame = dd.from_pandas(pd.DataFrame({"x": range(12)}), npartitions=3)
    return made


def test_it_draws_only_where_somebody_looks(tmp_path: Path, frame: dd.DataFrame) -> None:
    """Forced, the final state is drawn; into a file nothing is. Both give the result."""
    writer = DataWriter(tmp_path)
    threads = set(threading.enumerate())
    forced, silent = io.StringIO(), io.StringIO()
    assert follow(writer.submit_dataframe(frame, "a"), file=forced, force=True).rows == 12
    assert re.search(r"committed 100%.* 3/3 .*12 rows, .*B\]\n$", forced.getvalue())
    assert follow(writer.submit_dataframe(frame, "b"), file=silent).rows == 12
    assert silent.getvalue() == ""
    assert list(tqdm._instances) == []
    assert not any("tqdm" in type(one).__module__ for one in set(threading.enumerate()) - threads)


def test_a_failure_shows_and_is_raised(
    tmp_path: Path, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line says so, and the error of the write arrives."""

    def fail(*args: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(tasks, "put", fail)
    drawn = io.StringIO()
    with pytest.raises(WriteFailedError):
        follow(DataWriter(tmp_path).submit_dataframe(frame, "a"), file=drawn, force=True)
    assert re.search(r"\rfailed +0%.* 0/3 .*0 rows", drawn.getvalue())


def test_it_moves_while_the_write_does(
    tmp_path: Path, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions are shown as they are staged, not all at the end."""
    original, turn = tasks.put, threading.Lock()

    def slow(*args: Any) -> Any:
        with turn:
            time.sleep(0.5)
            return original(*args)

    monkeypatch.setattr(tasks, "put", slow)
    drawn = io.StringIO()
    follow(DataWriter(tmp_path).submit_dataframe(frame, "a"), file=drawn, force=True)
    assert {"0/3", "1/3", "2/3", "3/3"} <= set(re.findall(r"\d/3", drawn.getvalue()))


def test_an_interrupt_cancels_and_shows_it(
    tmp_path: Path, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a notebook cancels the write, waits until it is cleaned up, and is raised again."""
    original, begun, drawn = tasks.put, threading.Event(), io.StringIO()
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def slow(*args: Any) -> Any:
        while " rows" not in drawn.getvalue():
            time.sleep(0.01)
        if not begun.is_set():
            begun.set()
            signal.pthread_kill(main_thread, signal.SIGINT)
        time.sleep(0.5)
        return original(*args)

    monkeypatch.setattr(tasks, "put", slow)
    with dask.config.set(num_workers=1):
        handle = DataWriter(tmp_path).submit_dataframe(frame, "a")
        with pytest.raises(KeyboardInterrupt):
            follow(handle, file=drawn, force=True)
    assert handle.status == "cancelled"
    assert re.search(r"\rcancelled +\d+%.*\n$", drawn.getvalue())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_work_that_is_lost_goes_back() -> None:
    """Partitions whose worker died are no longer drawn as done."""
    drawn = io.StringIO()
    fold = Fold(write_id=WriteId("00112233445566aa"), partitions=2)
    bar = Bar(drawn)
    fold.finished("put", 0)
    bar.show(fold.snapshot())
    fold.lost("put", 0)
    bar.show(fold.snapshot())
    bar.close("cancelled")
    bar.close("cancelled")
    bar.show(fold.snapshot())
    assert re.search(r" 50%.* 1/2 .*\rcancelled +0%.* 0/2 [^\r]*\n$", drawn.getvalue())
