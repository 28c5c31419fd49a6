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
from dask.utils import format_bytes
from distributed import Client
from tqdm import tqdm

from deploy.local import servers
from pamola_dwriter import DataWriter, tasks
from pamola_dwriter.bar import Bar, follow
from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.events import WriteAnnounced
from pamola_dwriter.progress import Failure, Fold, Snapshot, StageCounts
from pamola_dwriter.spec import WriteId
from tests.places import open_gate, slow_frame


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
    assert re.search(
        r"\rcommitted, 3 of 3 partitions in 0:0\d, 12 rows, .*B/s\n$", forced.getvalue()
    )
    assert follow(writer.submit_dataframe(frame, "b"), file=silent).rows == 12
    assert silent.getvalue() == ""
    assert "serialize 3/3  put 3/3  commit 1/1" in forced.getvalue()
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
    assert re.search(r"\rfailed, 0 of 3 partitions .*0 rows.*\n$", drawn.getvalue())


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
    assert re.search(r"\rcancelled, \d of 3 partitions .*\n$", drawn.getvalue())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_killed_worker(cluster: servers.Cluster, client: Client, tmp_path: Path) -> None:
    """The bar ends at exactly the partitions, rows and bytes that were committed."""
    drawn, gate = io.StringIO(), tmp_path / "gate"
    frame = slow_frame(40, 0.1, gate=gate)
    handle = DataWriter(tmp_path / "task").submit_dataframe(frame, "a", format="csv")

    def kill() -> None:
        while handle.progress().partitions_done < 10:
            time.sleep(0.05)
        cluster.kill_worker()
        open_gate(gate)

    killer = threading.Thread(target=kill)
    killer.start()
    result = follow(handle, file=drawn, force=True)
    killer.join()
    last = drawn.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("committed, 40 of 40 partitions")
    assert "200 rows" in last
    assert format_bytes(result.size_bytes) in last
    assert re.search(r"[1-9]\d* retried", last)
    assert (result.rows, result.partitions) == (200, 40)


def test_work_that_is_lost_goes_back() -> None:
    """Partitions whose worker died are no longer drawn as done."""
    drawn = io.StringIO()
    write_id = WriteId("00112233445566aa")
    fold = Fold(write_id, now=0.0)
    fold.announce(WriteAnnounced(write_id=write_id, partitions=2))
    bar = Bar(drawn)
    fold.finished("put", 0, "tcp://worker", 1.0)
    bar.show(fold.snapshot(1.0))
    fold.waiting("put", 0)
    bar.show(fold.snapshot(2.0))
    bar.close("cancelled")
    bar.close("cancelled")
    bar.show(fold.snapshot(3.0))
    assert re.search(r"(?s) 50%.* 1/2,.*\rcancelled, 0 of 2 partitions [^\r]*\n$", drawn.getvalue())


def test_eighty_columns_hold_all_that_matters() -> None:
    """Pace, time to go, retries and failures are not cut off; the last line is whole anywhere."""
    drawn = io.StringIO()  # taken for 80 columns
    counts = StageCounts(waiting=499, done=500, retried=25)
    stages = dict.fromkeys(("serialize", "encrypt", "put"), counts)
    few = ("gather", "count", "claim", "publish", "collect", "commit")
    stages |= dict.fromkeys(few, StageCounts(waiting=16))
    snapshot = Snapshot(
        write_id=WriteId("00112233445566aa"),
        partitions_done=500,
        partitions=999,
        parts=500,
        rows=1_023_000,
        size_bytes=24 << 20,
        stages=stages,
        rate=11e6,
        eta=12.0,
        failures=(Failure(stage="put", partition=1, kind="OSError"),),
    )
    bar = Bar(drawn)
    bar.show(snapshot)
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[A", "", drawn.getvalue()))
    assert max(map(len, lines)) <= 80
    pace = "1 failed, 75 retried, 0:12 to go, 10.49 MiB/s"
    assert any(line.rstrip().endswith(pace) for line in lines)
    encrypted = "serialize 500/999  encrypt 500/999  put 500/999  publish 0/16  commit 0/16"
    assert any(line.strip() == encrypted for line in lines)
    bar.close("unknown")
    assert drawn.getvalue().endswith(f"{pace}\n")
