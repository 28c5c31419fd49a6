"""Progress is a fold: exact whatever the order and repetition of what it is told."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pamola_dwriter import layout
from pamola_dwriter.events import TOPIC, PartitionStaged
from pamola_dwriter.plugin import WRITES_KEPT, WritesPlugin
from pamola_dwriter.progress import Fold
from pamola_dwriter.spec import WriteId

WRITE = WriteId("00112233445566aa")


@given(st.randoms(), st.integers(1, 30))
def test_order_and_repetition_do_not_matter(rng: random.Random, partitions: int) -> None:
    """Any shuffle with repeats of the same events ends in the same counts."""
    fold = Fold(write_id=WRITE, partitions=partitions)
    events = [(index, index * 3, index * 7) for index in range(partitions)]
    told = events + rng.choices(events, k=partitions)
    rng.shuffle(told)
    for index, rows, size in told:
        fold.finished("put", index)
        fold.staged(index, rows, size)
    seen = fold.snapshot()
    assert (seen.partitions_done, seen.partitions) == (partitions, partitions)
    assert seen.rows == sum(rows for _, rows, _ in events)
    assert seen.size_bytes == sum(size for _, _, size in events)
    assert not seen.committed


def test_lost_work_goes_back() -> None:
    """A put whose result died with its worker is no longer counted until it is done again."""
    plugin = WritesPlugin()
    key = (layout.task_key("put", WRITE), 3)
    plugin.transition(key, "processing", "memory")
    assert plugin._fold(WRITE).snapshot().partitions_done == 1
    plugin.transition(key, "memory", "released")
    plugin.transition(key, "released", "waiting")
    assert plugin._fold(WRITE).snapshot().partitions_done == 0


def test_released_work_stays_done() -> None:
    """A result that is merely no longer needed remains counted."""
    plugin = WritesPlugin()
    key = (layout.task_key("put", WRITE), 3)
    plugin.transition(key, "processing", "memory")
    plugin.transition(key, "memory", "released")
    plugin.transition(key, "released", "forgotten")
    assert plugin._fold(WRITE).snapshot().partitions_done == 1


def test_foreign_tasks_and_topics_are_passed_over() -> None:
    """Tasks and events of others leave no trace."""
    plugin = WritesPlugin()
    plugin.transition(("read-parquet-abc", 0), "processing", "memory")
    plugin.log_event("somebody", {"x": 1})
    assert not plugin.writes


def test_rows_and_bytes_come_from_events() -> None:
    """What a put reports, with whatever the worker adds to it, ends in the snapshot."""
    plugin = WritesPlugin()
    event = PartitionStaged(write_id=WRITE, partition=0, rows=5, size_bytes=50)
    plugin.log_event(TOPIC, {**event.to_message(), "worker": "tcp://..."})
    plugin.log_event(TOPIC, event.to_message())
    seen = plugin._fold(WRITE).snapshot()
    assert (seen.rows, seen.size_bytes) == (5, 50)


def test_memory_is_bounded() -> None:
    """Only the latest writes are kept."""
    plugin = WritesPlugin()
    for number in range(WRITES_KEPT + 20):
        plugin.transition((f"pamola-put-{number:016x}", 0), "processing", "memory")
    assert len(plugin.writes) == WRITES_KEPT
