"""Stages of a write, and the state of each of their tasks, one byte a task."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pamola_dwriter.progress.snapshot import StageCounts

LAST_STAGES = frozenset({"put", "part", "keep"})
"""A partition is done when the task of one of these stages is."""

PARTITION_STAGES = LAST_STAGES | {"infer", "serialize", "encrypt"}
"""Stages with one task for each partition, whose index it has."""


class TaskState(IntEnum):
    """State of a task; UNKNOWN is one that was never heard of."""

    UNKNOWN = 0
    WAITING = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5


class PartitionState(IntEnum):
    """State of a partition, as far as its tasks tell."""

    WAITING = 0
    SERIALIZING = 1
    SERIALIZED = 2
    ENCRYPTING = 3
    ENCRYPTED = 4
    STORING = 5
    STORED = 6
    FAILED = 7


_RUNNING = {"serialize": PartitionState.SERIALIZING, "encrypt": PartitionState.ENCRYPTING}
_DONE = {"serialize": PartitionState.SERIALIZED, "encrypt": PartitionState.ENCRYPTED}
_BEGUN = frozenset({TaskState.RUNNING, TaskState.DONE, TaskState.FAILED})


class StageTasks:
    """The tasks of one stage of a write; moving one takes constant time."""

    __slots__ = ("_counts", "_states", "retried", "seconds")

    def __init__(self) -> None:
        self._states = bytearray()
        self._counts = [0] * len(TaskState)
        self.retried = 0
        self.seconds = 0.0

    def move(self, index: int, state: TaskState) -> int:
        """Put a task into a state, and return the state that it had."""
        if index >= len(self._states):
            self._states.extend(bytes(index + 1 - len(self._states)))
        before = self._states[index]
        if before != state:
            self._states[index] = state
            self._counts[before] -= 1
            self._counts[state] += 1
            if state == TaskState.WAITING and before in _BEGUN:
                self.retried += 1
        return before

    def drop(self, index: int) -> None:
        """A task is forgotten: it will not be done if it is not by now."""
        if index < len(self._states) and self._states[index] in (
            TaskState.WAITING,
            TaskState.RUNNING,
        ):
            self.move(index, TaskState.CANCELLED)

    def state(self, index: int) -> int:
        """Return the state of a task."""
        return self._states[index] if index < len(self._states) else TaskState.UNKNOWN

    def count(self, state: TaskState) -> int:
        """Return how many tasks are in a state."""
        return self._counts[state]

    @property
    def total(self) -> int:
        """Tasks heard of."""
        return sum(self._counts[TaskState.WAITING :])

    def counts(self) -> StageCounts:
        """Return the numbers of this stage."""
        return StageCounts(
            waiting=self._counts[TaskState.WAITING],
            running=self._counts[TaskState.RUNNING],
            done=self._counts[TaskState.DONE],
            failed=self._counts[TaskState.FAILED],
            cancelled=self._counts[TaskState.CANCELLED],
            retried=self.retried,
            seconds=self.seconds,
        )

    def states(self) -> npt.NDArray[np.uint8]:
        """Return a copy of the states of all tasks, by index."""
        return np.frombuffer(bytes(self._states), dtype=np.uint8)


def partition_states(stages: dict[str, StageTasks], partitions: int) -> npt.NDArray[np.uint8]:
    """Return the :class:`PartitionState` of each partition, an array of shape (partitions,)."""
    states = np.zeros(partitions, dtype=np.uint8)
    for stage in sorted(PARTITION_STAGES & stages.keys(), key=_order):
        tasks = stages[stage].states()[:partitions]
        here = states[: len(tasks)]
        here[tasks == TaskState.RUNNING] = _RUNNING.get(
            stage, PartitionState.STORING if stage in LAST_STAGES else PartitionState.WAITING
        )
        here[tasks == TaskState.DONE] = _DONE.get(
            stage, PartitionState.STORED if stage in LAST_STAGES else PartitionState.WAITING
        )
        here[tasks == TaskState.FAILED] = PartitionState.FAILED
    return states


def _order(stage: str) -> int:
    return ("infer", "serialize", "encrypt", "put", "part", "keep").index(stage)
