"""HierarchicalProgressTracker: exact counts, lines in order, nothing left behind."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.tracker import HierarchicalProgressTracker


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test there is no line and no thread that was not there before."""
    before = set(threading.enumerate())
    yield
    assert list(tqdm._instances) == []
    assert set(threading.enumerate()) <= before


def screen(drawn: str) -> list[str]:
    """Return the lines that a terminal shows after these characters."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", drawn):
        if piece == "\x1b[A":
            row -= 1
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            old = lines[row].ljust(column)
            lines[row] = old[:column] + piece + old[column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]


def drawn_tracker(total: int | None = 10, **options: Any) -> HierarchicalProgressTracker:
    """Return a tracker that draws though nobody looks."""
    return HierarchicalProgressTracker(total, "outer", "steps", disable=False, **options)


def test_the_calls_of_the_operations_work() -> None:
    """The reference's operations build, set, nest, update and close a tracker in this way."""
    tracker = HierarchicalProgressTracker(total=0, description="Op", unit="steps")
    tracker.total = 6
    tracker.update(1, {"step": "Preparation", "operation": "Masking"})
    tracker.update(n=2, postfix={"step": "Creating visualization"})
    data = tracker.create_subtask(total=3, description="Processing", unit="steps")
    data.update(data.total)
    data.update(0, {"status": "error", "message": "no"})
    data.close()
    assert (data.n, data.total, data.closed) == (3, 3, True)
    assert (tracker.n, tracker.total) == (4, 6)
    tracker.close()


def test_closing_a_subtask_counts_one_step_of_its_parent_once() -> None:
    """However often it is closed, and also when the parent closes it."""
    tracker = HierarchicalProgressTracker(5)
    first, second = (tracker.create_subtask(3, name) for name in "ab")
    inner = second.create_subtask(2, "inner")
    first.close()
    first.close()
    assert tracker.n == 1
    tracker.close()
    assert (tracker.n, second.n) == (2, 1)
    assert second.closed
    assert inner.closed


def test_more_than_the_total_may_be_counted() -> None:
    """The operations of the reference do so; the count stays exact and the total as it was."""
    with drawn_tracker(2) as tracker:
        tracker.update(7)
        assert (tracker.n, tracker.total) == (7, 2)


def test_a_closed_tracker_takes_no_more() -> None:
    """Updates and subtasks that come late change nothing and raise nothing."""
    tracker = drawn_tracker()
    tracker.update(2)
    tracker.close()
    tracker.update(3, {"late": 1})
    tracker.total = 4
    late = tracker.create_subtask(total=2, description="late")
    late.update(1)
    assert list(tqdm._instances) == []
    late.close()
    assert (tracker.n, late.n) == (2, 1)


def test_steps_may_be_taken_back() -> None:
    """A negative number does so, down to none."""
    with drawn_tracker() as tracker:
        tracker.update(3)
        tracker.update(-2, {"step": "again"})
        assert tracker.n == 1
        with pytest.raises(InvalidWriteError, match="at most 1"):
            tracker.update(-2)
        assert tracker.n == 1


def test_no_count_is_lost_between_threads() -> None:
    """Threads that update, nest and close one tree at the same time add up exactly."""
    tracker = drawn_tracker(None, track_memory=False)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(50):
            with tracker.create_subtask(total=100, description="inner") as inner:
                for number in range(100):
                    tracker.update()
                    inner.update(1, {"at": number} if number % 50 == 0 else None)
                assert inner.n == 100

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    tracker.close()
    assert tracker.n == 8 * 50 * (100 + 1)


def test_closing_races_with_updates_and_subtasks() -> None:
    """Whatever other threads do meanwhile, a closed tree has no open line and a fixed count."""
    for _ in range(20):
        tracker = drawn_tracker(track_memory=False)
        stop = threading.Event()

        def work(tracker: HierarchicalProgressTracker, stop: threading.Event) -> None:
            while not stop.is_set():
                tracker.create_subtask(total=1, description="inner").update()

        threads = [threading.Thread(target=work, args=(tracker, stop)) for _ in range(3)]
        for thread in threads:
            thread.start()
        tracker.close()
        counted = tracker.n
        stop.set()
        for thread in threads:
            thread.join()
        assert list(tqdm._instances) == []
        assert tracker.n == counted


@given(st.lists(st.integers(-5, 9)), st.none() | st.integers(0, 20))
def test_the_count_is_the_sum(steps: list[int], total: int | None) -> None:
    """Of all steps taken, but for those that would lead below zero."""
    expected = 0
    with HierarchicalProgressTracker(total, disable=True) as tracker:
        for step in steps:
            if expected + step < 0:
                with pytest.raises(InvalidWriteError):
                    tracker.update(step)
            else:
                tracker.update(step)
                expected += step
            assert tracker.n == expected


def test_lines_stand_below_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each open tracker, indented by level; that of a closed subtask goes."""
    tracker = drawn_tracker()
    one = tracker.create_subtask(total=4, description="one", unit="parts")
    two = one.create_subtask(total=None, description="two")
    two.update(5, {"rows": "1,000"})
    one.update(2, {})
    drawn = capsys.readouterr().err
    lines = screen(drawn)
    assert [line[:7].rstrip(":") for line in lines] == ["outer: ", "  one: ", "    two"]
    assert "2/4" in lines[1]
    assert re.search(r"5steps.*rows=1,000, mem=[\d.]+ [KMGT]iB", lines[2])
    beside = tracker.create_subtask(total=1, description="beside")
    one.close()
    beside.update(1, {})
    tracker.update(0, {"step": "end"})
    drawn += capsys.readouterr().err
    lines = [line for line in screen(drawn) if line]
    assert [line.split(":")[0] for line in lines] == ["outer", "  beside"]
    tracker.close()
    lines = [line for line in screen(drawn + capsys.readouterr().err) if line]
    assert len(lines) == 1
    assert re.search(r"^outer: +20%.* 2/10 .*step=end", lines[0])


def test_a_postfix_replaces_the_last_one_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Also with nothing counted; numbers are short, line breaks and escapes harmless."""
    with drawn_tracker(track_memory=False) as tracker:
        tracker.update(1, {"old": 1})
        given = {"r": 0.123456, "e": "no\n \x1b[2J\r"}
        tracker.update(0, given)
        assert given == {"r": 0.123456, "e": "no\n \x1b[2J\r"}
        (line,) = screen(capsys.readouterr().err)
        assert line.endswith(", r=0.1235, e=no [2J]")


def test_a_total_that_becomes_known_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """And one that is unknown again; neither the count nor the clock begins anew."""
    with drawn_tracker(None, track_memory=False) as tracker:
        tracker.update(3)
        time.sleep(1.1)
        tracker.total = 6
        (line,) = screen(capsys.readouterr().err)
        assert re.search(r" 50%\|.*\| 3/6 \[00:01<", line)
        tracker.total = None
        (line,) = screen(capsys.readouterr().err)
        assert line.startswith("outer: 3steps [00:01,")


def test_the_clock_stops_at_the_end() -> None:
    """Elapsed seconds grow until the tracker is closed."""
    tracker = HierarchicalProgressTracker(1)
    first = tracker.elapsed
    time.sleep(0.01)
    assert tracker.elapsed > first
    tracker.close()
    last = tracker.elapsed
    time.sleep(0.01)
    assert tracker.elapsed == last


def test_what_it_says_of_itself() -> None:
    """Its repr and its properties name what it counts."""
    with HierarchicalProgressTracker(None, "Masking", "records") as tracker:
        tracker.update(np.int64(2))
        assert repr(tracker) == "<HierarchicalProgressTracker 'Masking': 2/? records>"
        inner = tracker.create_subtask(3, "Fields").create_subtask(1, "Age")
        assert (inner.level, inner.description, inner.unit) == (2, "Age", "steps")
        assert inner.parent is not None
        assert inner.parent.parent is tracker


def test_an_error_closes_it() -> None:
    """As a context manager it is closed whatever happens inside, and hides no error."""
    with pytest.raises(KeyError), drawn_tracker() as tracker:
        raise KeyError("x")
    assert tracker.closed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "total must be 0 or more"),
        ((1.5,), "total must be an int, not float"),
        (("3",), "total must be an int, not str"),
        ((1, None), "description must be a str, not NoneType"),
        ((1, "x", 7), "unit must be a str, not int"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    """With what to change; nothing is drawn and no subtask begun."""
    with pytest.raises(InvalidWriteError, match=message):
        HierarchicalProgressTracker(*arguments, disable=False)
    with drawn_tracker() as tracker:
        with pytest.raises(InvalidWriteError, match=message):
            tracker.create_subtask(arguments[0], *(arguments[1:] or ("x",)))
        assert len(tqdm._instances) == 1


@pytest.mark.parametrize("arguments", [(0.5,), (None,), ("1",), (1, "text"), (1, [("a", 1)])])
def test_wrong_updates_are_refused(arguments: tuple[Any, ...]) -> None:
    """As a ValueError, and nothing is counted."""
    with HierarchicalProgressTracker(1) as tracker:
        with pytest.raises(ValueError, match=r"must be an int|must be a mapping"):
            tracker.update(*arguments)
        with pytest.raises(InvalidWriteError):
            tracker.total = -1
        assert (tracker.n, tracker.total) == (0, 1)


class OnlyWrites:
    """What some programs put in the place of stderr to send it to a log."""

    def write(self, text: str) -> None:
        raise AssertionError(f"drawn: {text!r}")


@pytest.mark.parametrize("stream", [None, io.StringIO(), OnlyWrites()])
def test_nothing_is_drawn_where_nobody_looks(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stderr, a file, or an object that only writes; counts are kept all the same."""
    monkeypatch.setattr(sys, "stderr", stream)
    with HierarchicalProgressTracker(3, "quiet") as tracker:
        with tracker.create_subtask(2, "inner") as inner:
            inner.update(2, {"x": 1})
        tracker.update(2)
        assert list(tqdm._instances) == []
    assert (tracker.n, inner.n) == (3, 2)
    if isinstance(stream, io.StringIO):
        assert stream.getvalue() == ""


def draw_on_a_terminal(columns: int, disable: bool | None, patch: pytest.MonkeyPatch) -> str:
    """Return what a tracker draws on a terminal of so many columns; 0: it does not say."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", columns and 24, columns, 0, 0))
    with os.fdopen(leader, "rb") as seen, os.fdopen(follower, "w") as terminal:
        patch.setattr(sys, "stderr", terminal)
        with HierarchicalProgressTracker(2, "outer", disable=disable) as tracker:
            tracker.update(2, {"step": "x" * 70})
        terminal.write("END")
        terminal.flush()
        drawn = b""
        while not drawn.endswith(b"END"):
            drawn += os.read(seen.fileno(), 4096)
    return drawn.decode()


@pytest.mark.parametrize(("columns", "width"), [(60, 60), (0, 80)])
def test_a_terminal_is_drawn_on(columns: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own accord, in lines that fit into it."""
    drawn = draw_on_a_terminal(columns, None, monkeypatch)
    assert "outer: 100%" in drawn
    assert width - 1 <= max(map(len, screen(drawn))) <= width


def test_a_disabled_tracker_draws_nothing_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even an empty line."""
    assert draw_on_a_terminal(80, True, monkeypatch) == "END"


def test_no_redrawing_thread_and_no_flood(capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred thousand steps draw a few times a second, from the caller's thread alone."""
    before = threading.active_count()
    began = time.monotonic()
    with drawn_tracker(100_000) as tracker:
        for _ in range(100_000):
            tracker.update()
        assert threading.active_count() == before
    seconds = time.monotonic() - began
    assert capsys.readouterr().err.count("\r") <= 10 * seconds + 5


def test_memory_is_shown_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """A subtask follows its parent unless it says otherwise."""
    with drawn_tracker(track_memory=False) as tracker:
        tracker.update(1, {})
        assert "mem=" not in capsys.readouterr().err
        with tracker.create_subtask(1, "inner", track_memory=True) as inner:
            inner.update(1, {})
            assert "mem=" in capsys.readouterr().err
