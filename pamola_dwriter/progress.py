"""The fold from task transitions to one snapshot of one write; pure, no clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pamola_dwriter.spec import WriteId

LAST_STAGES = frozenset({"put", "part", "keep"})
"""A partition is done when the task of one of these stages is."""

PARTITION_STAGES = LAST_STAGES | {"infer", "serialize", "encrypt"}
"""Stages with one task for each partition, whose index it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a write has come.

    Attributes
    ----------
    partitions_done, partitions : int
        Partitions staged, and partitions in all.
    rows, size_bytes : int
        Rows and stored bytes of the partitions staged.
    stages : mapping of str to int
        Finished tasks by stage (``serialize``, ``encrypt``, ``put``, ...).
    committed : bool
        Whether the commit task is done.
    """

    write_id: WriteId
    partitions_done: int
    partitions: int
    rows: int
    size_bytes: int
    stages: dict[str, int]
    committed: bool


@dataclass(slots=True, kw_only=True)
class Fold:
    """The state of one write, updated by events in any order, any number of times."""

    write_id: WriteId
    partitions: int
    done: dict[str, set[Any]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    committers: set[str] = field(default_factory=set)
    """Workers that were given the commit task: after a loss, those to ask about it."""
    broken: set[int] = field(default_factory=set)
    """Partitions that cannot be written, since something raised."""

    def finished(self, stage: str, index: object) -> None:
        """A task of `stage` holds its result."""
        self.done.setdefault(stage, set()).add(index)

    def lost(self, stage: str, index: object) -> None:
        """A task will be computed again: its worker died."""
        self.done.get(stage, set()).discard(index)

    def failed(self, stage: str, index: object) -> None:
        """A task of `stage` raised, or one that it depends on."""
        if stage in PARTITION_STAGES and isinstance(index, int):
            self.broken.add(index)

    def staged(self, partition: int, rows: int, size_bytes: int) -> None:
        """The put of `partition` reported what it stored; the last report counts."""
        self.sizes[partition] = (rows, size_bytes)

    def snapshot(self) -> Snapshot:
        """Return the state as one immutable value."""
        done = set().union(*(self.done.get(stage, set()) for stage in LAST_STAGES))
        return Snapshot(
            write_id=self.write_id,
            partitions_done=len(done),
            partitions=self.partitions,
            rows=sum(rows for rows, _ in self.sizes.values()),
            size_bytes=sum(size for _, size in self.sizes.values()),
            stages={stage: len(indices) for stage, indices in sorted(self.done.items())},
            committed=bool(self.done.get("commit")),
        )
