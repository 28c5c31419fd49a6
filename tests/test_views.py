"""One loop for every view, and one rule of an interrupt: real writes, clusters and signals."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

from deploy.local import servers
from pamola_dwriter import DataWriter, read_dataset, tasks, views
from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.progress import Snapshot
from pamola_dwriter.subtask import WriteSubtask
from pamola_dwriter.tracker import HierarchicalProgressTracker
from pamola_dwriter.views import wait, watch_in_background


class Recorder:
    """A view that remembers what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Snapshot] = []
        self.closed: list[str] = []

    def show(self, snapshot: Snapshot) -> None:
        assert not self.closed
        self.shown.append(snapshot)

    def close(self, status: str) -> None:
        self.closed.append(status)


def frame(partitions: int = 3, seconds: float = 0.0) -> dd.DataFrame:
    """Return a frame of four rows a partition, each of which takes a while."""
    made = dd.from_pandas(pd.DataFrame({"x": range(4 * partitions)}), npartitions=partitions)
    return made.map_partitions(_slowly, seconds, meta=made._meta)


def _slowly(part: pd.DataFrame, seconds: float) -> pd.DataFrame:
    time.sleep(seconds)
    return part


def test_views_see_the_end(tmp_path: Path) -> None:
    """The last snapshot is that of the committed write, and the status comes after it."""
    both = [Recorder(), Recorder()]
    result = wait(DataWriter(tmp_path).submit_dataframe(frame(), "a"), both)
    assert result.rows == 12
    for view in both:
        last = view.shown[-1]
        assert (last.partitions_done, last.partitions, last.rows) == (3, 3, 12)
        assert last.committed
        assert set(view.closed) == {"committed"}


def test_the_end_is_not_slept_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the pause between two looks is."""
    monkeypatch.setattr(views, "_INTERVAL", 600)
    view = Recorder()
    began = time.monotonic()
    wait(DataWriter(tmp_path).submit_dataframe(frame(1, 0.3), "a"), [view])
    assert time.monotonic() - began < 60
    assert view.shown[-1].committed


def test_a_failed_write_closes_its_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its status, before its error is raised; the subtask stops where the write did."""

    def fail(*args: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(tasks, "put", fail)
    view = Recorder()
    with HierarchicalProgressTracker(1) as tracker:
        subtask = WriteSubtask(tracker, "x", 3)
        with pytest.raises(WriteFailedError):
            wait(DataWriter(tmp_path).submit_dataframe(frame(), "a"), [view, subtask])
        assert tracker.n == 1
    assert set(view.closed) == {"failed"}


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError, TimeoutError])
def test_a_scheduler_that_cannot_be_asked_is_no_failure(
    error: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Views get no snapshot, but the status; the write goes on."""
    handle = DataWriter(tmp_path).submit_dataframe(frame(), "a")

    def lost() -> None:
        raise error("comm closed")

    monkeypatch.setattr(handle, "progress", lost)
    view, tracker = Recorder(), HierarchicalProgressTracker(1)
    made: list[HierarchicalProgressTracker] = []
    _keep_subtasks(tracker, made, monkeypatch)
    with caplog.at_level(logging.DEBUG, "pamola_dwriter"), tracker:
        assert wait(handle, [view, WriteSubtask(tracker, "x", 3)]).rows == 12
    assert (view.shown, set(view.closed)) == ([], {"committed"})
    assert made[0].n == 3
    assert "comm closed" in caplog.text


def _keep_subtasks(
    tracker: HierarchicalProgressTracker,
    made: list[HierarchicalProgressTracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = tracker.create_subtask

    def create(*args: Any, **kwargs: Any) -> HierarchicalProgressTracker:
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(tracker, "create_subtask", create)


@pytest.mark.parametrize("background", [False, True])
def test_a_local_write_completes_its_subtask(
    background: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly, step by step, from the caller's thread or from one that ends with the write."""
    with HierarchicalProgressTracker(2) as tracker:
        made: list[HierarchicalProgressTracker] = []
        _keep_subtasks(tracker, made, monkeypatch)
        handle = DataWriter(tmp_path).submit_dataframe(frame(7, 0.02), "a")
        _follow(handle, tracker, 7, background=background)
        (subtask,) = made
        assert (subtask.n, subtask.total, subtask.closed) == (7, 7, True)
        assert tracker.n == 1


def _follow(
    handle: WriteFuture, tracker: HierarchicalProgressTracker, total: int, *, background: bool
) -> None:
    view = WriteSubtask(tracker, "Writing", total)
    if background:
        thread = watch_in_background(handle, [view])
        assert thread.name == f"pamola-progress-{handle.write_id}"
        assert thread.daemon
        handle.result()
        thread.join(30)
        assert thread not in threading.enumerate()
    else:
        wait(handle, [view])


def test_a_cluster_write_completes_its_subtask(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fed by the scheduler plugin, it ends at exactly the number of partitions."""
    with HierarchicalProgressTracker(2) as tracker:
        made: list[HierarchicalProgressTracker] = []
        _keep_subtasks(tracker, made, monkeypatch)
        handle = DataWriter(tmp_path, client=client).submit_dataframe(frame(9, 0.05), "a")
        _follow(handle, tracker, 9, background=True)
        assert (made[0].n, made[0].closed, tracker.n) == (9, True, 1)
    assert read_dataset(handle.result().path).compute()["x"].sum() == sum(range(36))


def test_a_killed_worker_takes_nothing_back(
    client: Client, cluster: servers.Cluster, tmp_path: Path
) -> None:
    """What was counted stays counted, is counted once, and the subtask ends complete."""
    steps: list[int] = []

    class Tracker:
        def create_subtask(self, total: int, description: str, unit: str = "items") -> Tracker:
            return self

        def update(self, n: int = 1, postfix: dict[str, Any] | None = None) -> None:
            steps.append(n)
            if sum(steps) >= 3 and not killed:
                killed.append(cluster.kill_worker())

        def close(self) -> None:
            pass

    killed: list[int] = []
    handle = DataWriter(tmp_path, client=client).submit_dataframe(frame(12, 0.15), "a")
    wait(handle, [WriteSubtask(Tracker(), "x", 12)])
    assert killed
    assert min(steps) >= 0
    assert sum(steps) == 12


SCRIPT = """
import os, signal, sys, time
import dask, dask.dataframe as dd, pandas as pd
from pamola_dwriter import DataWriter, tasks
from pamola_dwriter.errors import TargetUnavailableError
from pamola_dwriter.storage.posix import PosixStore
from pamola_dwriter.views import wait

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has none
dask.config.set(num_workers=1)
scenario, target = sys.argv[1:]
put, put_if = tasks.put, PosixStore.put_if
committing = False

def slow_put(*args):
    records = put(*args)
    if scenario in ("cancelled", "impatient"):
        print("busy", flush=True)
        time.sleep(60 if scenario == "impatient" else 0.5)
    return records

def slow_commit(store, path, *args, **kwargs):
    if not path.endswith("_manifest.json"):
        return put_if(store, path, *args, **kwargs)
    print("busy", flush=True)
    time.sleep(1)
    done = put_if(store, path, *args, **kwargs)
    if scenario == "unknown":
        PosixStore.read_versioned = lost
        lost()
    return done

def lost(*args, **kwargs):
    raise TargetUnavailableError("the reply was lost", answered=False)

class View:
    closed = ""
    def show(self, snapshot):
        pass
    def close(self, status):
        self.closed = status

tasks.put, PosixStore.put_if = slow_put, slow_commit
frame = dd.from_pandas(pd.DataFrame({"x": range(12)}), npartitions=3)
handle, view = DataWriter(target).submit_dataframe(frame, "a"), View()
cancel = handle.cancel
def telling_cancel():
    cancel()
    print("cancelling", flush=True)
handle.cancel = telling_cancel
try:
    said = wait(handle, [view]).rows
except BaseException as error:
    said = type(error).__name__
print(said, view.closed, handle.status, flush=True)
os._exit(0)  # the write that was given up on would be waited for
"""


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("cancelled", "KeyboardInterrupt cancelled cancelled"),
        ("committed", "12 committed committed"),
        ("unknown", "CommitOutcomeUnknownError unknown unknown"),
        ("impatient", "KeyboardInterrupt running running"),
    ],
)
def test_an_interrupt_cancels_unless_the_commit_wins(
    scenario: str, said: str, tmp_path: Path
) -> None:
    """Ctrl-C while parts are stored, while the manifest is written, and a second time."""
    command = [sys.executable, "-c", SCRIPT, scenario, str(tmp_path)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}, **pipes
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cancelling\n"
        if scenario == "impatient":
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == said, err
    assert ("had committed by then" in err) is (scenario == "committed")
    stands = any(tmp_path.rglob("_manifest.json"))
    assert stands is (scenario in ("committed", "unknown"))
