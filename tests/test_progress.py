"""Progress is a fold: exact whatever the order and repetition of what it is told."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from pamola_dwriter.events import PartitionStaged, WriteAnnounced
from pamola_dwriter.progress import Amount, Fold, PartitionState, Snapshot, StageCounts
from pamola_dwriter.progress.words import in_words, span_of_time
from pamola_dwriter.spec import WriteId

WRITE = WriteId("00112233445566aa")
A, B = "tcp://a", "tcp://b"


def fold_of(partitions: int | None = None) -> Fold:
    """Return a fold that was told how many partitions there are."""
    fold = Fold(WRITE, now=0.0)
    fold.announce(WriteAnnounced(write_id=WRITE, name="output/people", partitions=partitions))
    return fold


def staged(partition: int, rows: int = 10, size_bytes: int = 100, parts: int = 1) -> Any:
    """Return what a put task reports."""
    return PartitionStaged(
        write_id=WRITE, partition=partition, parts=parts, rows=rows, size_bytes=size_bytes
    )


def store(fold: Fold, partition: int, worker: str = A, now: float = 1.0) -> None:
    """Let a worker store a partition."""
    fold.running("put", partition, worker)
    fold.staged(staged(partition), worker)
    fold.finished("put", partition, worker, now)


@given(st.randoms(), st.integers(1, 30))
def test_order_and_repetition_do_not_matter(rng: random.Random, partitions: int) -> None:
    """Any shuffle with repeats of the same events ends in the same counts."""
    fold = fold_of(partitions)
    events = [(index, index * 3, index * 7) for index in range(partitions)]
    told = events + rng.choices(events, k=partitions)
    rng.shuffle(told)
    for index, rows, size in told:
        fold.finished("put", index, A, 1.0)
        fold.staged(staged(index, rows, size), A)
    seen = fold.snapshot(2.0)
    assert (seen.partitions_done, seen.partitions, seen.parts) == (partitions,) * 3
    assert seen.rows == sum(rows for _, rows, _ in events)
    assert seen.size_bytes == sum(size for _, _, size in events)
    assert seen.status == "running"


def test_work_that_is_lost_goes_back() -> None:
    """Partitions, parts, rows, bytes and the worker's share go; the task counts as retried."""
    fold = fold_of(2)
    fold.waiting("put", 0)
    fold.waiting("put", 1)
    store(fold, 0, A)
    store(fold, 1, B)
    fold.waiting("put", 1)
    seen = fold.snapshot(2.0)
    assert (seen.partitions_done, seen.parts, seen.rows, seen.size_bytes) == (1, 1, 10, 100)
    assert seen.stages["put"] == StageCounts(waiting=1, done=1, retried=1)
    assert fold.by_worker == {A: Amount(1, 1, 10, 100), B: Amount()}
    store(fold, 1, A)
    seen = fold.snapshot(3.0)
    assert (seen.partitions_done, seen.rows, seen.retried) == (2, 20, 1)
    assert fold.by_worker[A] == Amount(2, 2, 20, 200)


def test_what_was_taken_in_is_counted_once() -> None:
    """Bytes in memory go back with the partition that took them, and are not added twice."""
    fold = fold_of(1)
    event = replace(staged(0), memory_bytes=1000)
    fold.staged(event, A)
    fold.staged(event, B)
    assert fold.snapshot(1.0).memory_bytes == 1000
    fold.waiting("put", 0)
    assert fold.snapshot(1.0).memory_bytes == 0


def test_a_commit_that_is_done_again_is_under_way_again() -> None:
    """The worker with the result died: the write is running, and then committed once more."""
    fold = fold_of(1)
    store(fold, 0)
    fold.finished("commit", None, A, 2.0)
    assert (fold.status, fold.snapshot(9.0).elapsed) == ("committed", 2.0)
    fold.waiting("commit", None)
    assert fold.status == "running"
    fold.running("commit", None, B)
    fold.finished("commit", None, B, 5.0)
    assert (fold.status, fold.snapshot(9.0).elapsed) == ("committed", 5.0)
    assert fold.committers == {B}


def test_who_waited_for_it_knows_better() -> None:
    """A write that failed as far as its tasks tell may have committed."""
    fold = fold_of(1)
    fold.failed("commit", None, "KilledWorker", 3.0)
    assert fold.status == "failed"
    fold.end("committed", 8.0)
    assert (fold.status, fold.snapshot(9.0).elapsed) == ("committed", 3.0)


def test_tasks_that_are_dropped_are_cancelled() -> None:
    """What waited or ran when the write was let go of; the total stays."""
    fold = fold_of(3)
    for index in range(3):
        fold.waiting("put", index)
    store(fold, 0)
    fold.running("put", 1, A)
    fold.forgotten("commit", None, 4.0)
    for index in range(3):
        fold.forgotten("put", index, 4.0)
    seen = fold.snapshot(5.0)
    assert (seen.status, fold.gone) == ("cancelled", True)
    assert seen.stages["put"] == StageCounts(done=1, cancelled=2)
    assert seen.stages["put"].total == 3


def test_a_failure_is_named_once() -> None:
    """Not again for each task that needs the one that raised; the first twenty are kept."""
    fold = fold_of(50)
    for index in range(30):
        fold.failed("serialize", index, "SchemaMismatchError", 1.0)
        fold.failed("put", index, "SchemaMismatchError", 1.0)
    fold.failed("gather", 0, "SchemaMismatchError", 1.0)
    fold.failed("commit", None, "SchemaMismatchError", 1.0)
    seen = fold.snapshot(1.0)
    assert len(seen.failures) == 20
    assert {failure.stage for failure in seen.failures} == {"serialize"}
    assert [failure.partition for failure in seen.failures] == list(range(20))
    assert fold.broken == set(range(30))


def test_the_pace_is_that_of_late() -> None:
    """After a slow beginning the rate of the last half minute counts, and gives the time to go."""
    fold = fold_of(100)
    for index in range(100):
        fold.waiting("put", index)
    for index in range(10):
        store(fold, index, now=10.0 * index)
    for index in range(10, 50):
        store(fold, index, now=100.0 + index)
    seen = fold.snapshot(149.0)
    assert seen.rate == pytest.approx(100, rel=0.1)
    assert seen.eta == pytest.approx(50, rel=0.1)
    fold.end("committed", 149.0)
    assert fold.snapshot(500.0).rate == pytest.approx(5000 / 149)
    assert fold.snapshot(500.0).eta is None


def test_nothing_is_known_at_the_beginning() -> None:
    """Neither pace nor time to go."""
    seen = fold_of(5).snapshot(0.0)
    assert (seen.partitions, seen.rate, seen.eta, seen.stages) == (5, 0.0, None, {})


def test_history_is_bounded() -> None:
    """However long a write takes, some hundred samples span it from beginning to end."""
    fold = fold_of()
    for second in range(100_000):
        fold.finished("put", second % 10, A, float(second))
    times = [sample.time for sample in fold.history.samples]
    assert len(times) <= 241
    assert times[0] == 0
    assert times[-1] > 99_000
    assert times == sorted(times)


def test_the_state_of_each_partition() -> None:
    """The furthest stage that has begun or is done; a failure above all."""
    fold = fold_of(7)
    for index in range(6):
        fold.waiting("serialize", index)
    fold.running("serialize", 1, A)
    for index in (2, 3, 4):
        fold.finished("serialize", index, A, 1.0)
    fold.running("encrypt", 3, A)
    fold.finished("encrypt", 4, A, 1.0)
    store(fold, 4)
    fold.failed("serialize", 5, "ValueError", 1.0)
    assert [PartitionState(state).name for state in fold.partition_states()] == [
        *("WAITING", "SERIALIZING", "SERIALIZED", "ENCRYPTING", "STORED", "FAILED", "WAITING")
    ]


def test_a_write_done_with_needs_little_memory() -> None:
    """A hundred thousand partitions leave a byte each, and the numbers."""
    partitions = 100_000
    fold = fold_of(partitions)
    for index in range(partitions):
        store(fold, index)
    before, states = fold.snapshot(2.0), fold.partition_states()
    shares = fold.by_worker
    tracemalloc.start()
    try:
        fold.close(2.0)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 2 * partitions
    assert fold.snapshot(9.0) == before
    assert np.array_equal(fold.partition_states(), states)
    assert fold.by_worker == shares == {A: Amount(partitions, partitions, 10 * partitions, 10**7)}
    fold.end("committed", 9.0)
    assert fold.snapshot(9.0).committed


def test_a_snapshot_travels_as_plain_values() -> None:
    """What it becomes on the way to a client comes back equal."""
    fold = fold_of(3)
    store(fold, 0)
    fold.failed("serialize", 1, "ValueError", 2.0)
    seen = fold.snapshot(3.0)
    assert Snapshot.from_message(seen.to_message()) == seen


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (0.4, "0:00"), (65, "1:05"), (7325, "2:02:05")]
)
def test_spans_of_time(seconds: float | None, shown: str) -> None:
    """In minutes and hours, as a clock shows them."""
    assert span_of_time(seconds) == shown


def test_words_leave_out_what_is_as_usual() -> None:
    """Parts if they are not one a partition, retries and failures if there are any."""
    fold = fold_of(2)
    fold.waiting("put", 0)
    store(fold, 0, now=2.0)
    assert in_words(fold.snapshot(2.0)) == ["10 rows", "100 B", "0:00 to go", "50 B/s"]
    fold.staged(staged(0, parts=3), A)
    fold.waiting("put", 1)
    fold.running("put", 1, A)
    fold.waiting("put", 1)
    fold.failed("put", 1, "OSError", 2.0)
    fold.end("failed", 2.0)
    assert in_words(fold.snapshot(2.0)) == [
        *("3 parts", "10 rows", "100 B", "1 failed", "1 retried", "50 B/s")
    ]


class Machine(RuleBasedStateMachine):
    """Partitions that are stored, lost and stored again by several workers, against a dict."""

    partitions = Bundle("partitions")

    def __init__(self) -> None:
        super().__init__()
        self.fold = fold_of()
        self.stored: dict[int, tuple[str, int, int]] = {}
        self.known: set[int] = set()

    @rule(target=partitions, index=st.integers(0, 40))
    def begin(self, index: int) -> int:
        """A task appears, or has to be done again."""
        self.fold.waiting("put", index)
        self.stored.pop(index, None)
        self.known.add(index)
        return index

    @rule(index=partitions, worker=st.sampled_from([A, B]), rows=st.integers(0, 9))
    def store(self, index: int, worker: str, rows: int) -> None:
        """A worker stores a partition, once more if it likes."""
        self.fold.staged(staged(index, rows, 2 * rows), worker)
        self.fold.finished("put", index, worker, 1.0)
        self.stored[index] = (worker, rows, 2 * rows)

    @invariant()
    def same(self) -> None:
        """Totals and shares are those of the model."""
        seen = self.fold.snapshot(1.0)
        assert seen.partitions_done == len(self.stored)
        assert seen.rows == sum(rows for _, rows, _ in self.stored.values())
        assert seen.size_bytes == sum(size for _, _, size in self.stored.values())
        assert seen.partitions == len(self.known)
        for worker, amount in self.fold.by_worker.items():
            mine = [one for one in self.stored.values() if one[0] == worker]
            assert amount.partitions == len(mine)
            assert amount.rows == sum(rows for _, rows, _ in mine)


TestMachine = Machine.TestCase
