"""A write as a subtask of the caller's tracker: counted up exactly, and harmless if that raises."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.events import PartitionStaged, WriteAnnounced
from pamola_dwriter.progress import Fold, Snapshot
from pamola_dwriter.spec import WriteId
from pamola_dwriter.subtask import WriteSubtask, check_tracker
from pamola_dwriter.tracker import HierarchicalProgressTracker

WRITE = WriteId("00112233445566aa")


class Recorder:
    """A tracker that is its own subtask and remembers the calls; it raises at one, if told to."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[tuple[Any, ...]] = []

    def create_subtask(self, total: int | None, description: str, unit: str = "items") -> Recorder:
        self._take("create_subtask", total, description, unit)
        return self

    def update(self, n: int = 1, postfix: dict[str, Any] | None = None) -> None:
        self._take("update", n, dict(postfix or {}))
        if postfix is not None:
            postfix["mem"] = "1.0MB"  # as that of pamola-core does

    def close(self) -> None:
        self._take("close")

    def counted(self) -> list[int]:
        return [call[1] for call in self.calls if call[0] == "update"]

    def _take(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.failing:
            raise ConnectionError("secret-of-the-tracker")


def snapshot(done: int, total: int = 4) -> Snapshot:
    """Return the state with so many partitions of 10 rows and 1 KiB staged."""
    fold = Fold(WRITE, now=0.0)
    fold.announce(WriteAnnounced(write_id=WRITE, partitions=total))
    for index in range(done):
        event = PartitionStaged(write_id=WRITE, partition=index, parts=1, rows=10, size_bytes=1024)
        fold.staged(event, "tcp://worker")
        fold.finished("put", index, "tcp://worker", 1.0)
    return fold.snapshot(1.0)


def test_what_a_tracker_is_told() -> None:
    """One subtask of partitions; increases with rows and bytes; the status at the end."""
    tracker = Recorder()
    view = WriteSubtask(tracker, "Writing PARQUET output: people", 4)
    view.show(snapshot(0))
    view.show(snapshot(0))
    view.show(snapshot(3))
    view.show(snapshot(4))
    view.close("committed")
    view.close("committed")
    assert tracker.calls == [
        ("create_subtask", 4, "Writing PARQUET output: people", "partitions"),
        ("update", 0, {"rows": "0", "bytes": "0 B"}),
        ("update", 3, {"rows": "30", "bytes": "3.00 kiB"}),
        ("update", 1, {"rows": "40", "bytes": "4.00 kiB"}),
        ("update", 0, {"rows": "40", "bytes": "4.00 kiB", "status": "committed"}),
        ("close",),
    ]


@given(st.lists(st.integers(0, 9)), st.sampled_from(["committed", "failed", "cancelled"]))
def test_it_only_counts_up(states: list[int], status: str) -> None:
    """Whatever is taken back meanwhile; it is complete exactly if the write committed."""
    tracker = Recorder()
    view = WriteSubtask(tracker, "x", 6)
    highest = 0
    for done in states:
        view.show(snapshot(done, 6))
        highest = min(6, max(highest, done))
        assert sum(tracker.counted()) == highest
    view.close(status)
    assert min(tracker.counted()) >= 0
    assert sum(tracker.counted()) == (6 if status == "committed" else highest)
    assert tracker.calls[-1] == ("close",)


def test_of_an_unknown_number_all_are_counted() -> None:
    """The write of a stream ends with as many as there were."""
    with HierarchicalProgressTracker(total=1) as tracker:
        recorder = Recorder()
        for view in (WriteSubtask(recorder, "x", None), WriteSubtask(tracker, "x", None)):
            view.show(snapshot(2))
            view.show(snapshot(4))
            view.close("committed")
        assert (recorder.calls[0][1], recorder.counted()) == (None, [2, 2, 0])
        assert tracker.n == 1


@pytest.mark.parametrize("failing", ["create_subtask", "update", "close"])
def test_a_tracker_that_raises_is_left_alone(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the types; what the error says is not ours to repeat."""
    tracker = Recorder(failing)
    with caplog.at_level(logging.WARNING, "pamola_dwriter"):
        view = WriteSubtask(tracker, "x", 4)
        for done in range(5):
            view.show(snapshot(done))
        view.close("committed")
    assert [record.getMessage() for record in caplog.records] == [
        "the progress tracker (Recorder) raised ConnectionError; the write goes on without it"
    ]
    assert [call[0] for call in tracker.calls].index(failing) == len(tracker.calls) - 1


def test_a_tracker_of_other_words_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A create_subtask that knows no unit is a warning too, and no error."""

    class Older:
        def create_subtask(self, total: int | None, description: str) -> Recorder:
            raise AssertionError("never reached")

    view = WriteSubtask(Older(), "x", 1)  # type: ignore[arg-type]
    view.show(snapshot(1, 1))
    view.close("committed")
    assert "(Older) raised TypeError" in caplog.text


def test_an_interrupt_passes_through() -> None:
    """Ctrl-C while the tracker draws is no failure of the tracker."""

    class Drawing(Recorder):
        def update(self, n: int = 1, postfix: dict[str, Any] | None = None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WriteSubtask(Drawing(), "x", 1).show(snapshot(1, 1))


def test_ours_takes_it() -> None:
    """Closing the subtask counts one step of the tracker, as in pamola-core."""
    with HierarchicalProgressTracker(total=100, description="Task", unit="steps") as tracker:
        view = WriteSubtask(tracker, "x", 4)
        view.show(snapshot(2))
        view.close("failed")
        assert tracker.n == 1


def test_what_makes_no_subtasks_is_no_tracker() -> None:
    """It is refused by the name of its type; None is no tracker and no mistake."""
    tracker = Recorder()
    assert check_tracker(tracker) is tracker
    assert check_tracker(None) is None
    for wrong in (7, object(), "tracker"):
        with pytest.raises(InvalidWriteError, match=f"create_subtask.*{type(wrong).__name__}"):
            check_tracker(wrong)
