"""What a view sees of a write: one immutable value, small whatever the number of partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pamola_dwriter.events import EndStatus
from pamola_dwriter.spec import WriteId

Status = Literal["running"] | EndStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCounts:
    """The tasks of one stage.

    Attributes
    ----------
    waiting, running, done, failed, cancelled : int
        Tasks by state; they add up to the tasks of the stage. A task that was handed to a worker
        counts as running. Of those that failed, only one may have raised: the others need it.
    retried : int
        Times that a task went back to waiting: it raised and is tried again, or a worker died.
    seconds : float
        Time that workers spent on it, all together.
    """

    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Tasks of the stage."""
        return self.waiting + self.running + self.done + self.failed + self.cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that raised; its message is left out, since it may quote data.

    Attributes
    ----------
    stage : str
        Stage of the first task of ours that failed with it.
    partition : int or None
        None if it was no task of a single partition.
    kind : str
        Class name of the exception.
    """

    stage: str
    partition: int | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a write has come.

    Counts are of what stands now: work that a lost worker took with it goes back.

    Attributes
    ----------
    name, url, format : str
        Path in the task directory, full path or URL, and format of what is written; empty if
        nobody has told.
    encrypted : bool
    status : str
        ``running``, ``committed``, ``failed``, ``cancelled`` or ``unknown``.
    partitions_done, partitions : int
        Partitions staged, and partitions in all.
    parts, rows, size_bytes : int
        Parts, rows and stored bytes of the partitions staged.
    memory_bytes : int
        Bytes in memory, as Dask reckons them, of the partitions that this run staged.
    stages : mapping of str to StageCounts
        By stage (``serialize``, ``encrypt``, ``put``, ...), in the order of the graph.
    workers : int
        Workers that have finished a task of it.
    started, elapsed : float
        Seconds since the epoch, and seconds from then to now or to the end.
    rate, memory_rate : float
        Stored bytes and bytes taken in per second: of the last half minute, or, once it has
        ended, of the whole write.
    eta : float or None
        Seconds to go at the present pace; None if that is not known.
    failures : tuple of Failure
        The first few.
    """

    write_id: WriteId
    name: str = ""
    url: str = ""
    format: str = ""
    encrypted: bool = False
    status: Status = "running"
    partitions_done: int
    partitions: int
    parts: int
    rows: int
    size_bytes: int
    memory_bytes: int = 0
    stages: Mapping[str, StageCounts]
    workers: int = 0
    started: float = 0.0
    elapsed: float = 0.0
    rate: float = 0.0
    memory_rate: float = 0.0
    eta: float | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def committed(self) -> bool:
        """Whether the new version stands."""
        return self.status == "committed"

    @property
    def retried(self) -> int:
        """Tasks that went back to waiting, of all stages."""
        return sum(counts.retried for counts in self.stages.values())

    def to_message(self) -> dict[str, Any]:
        """Return plain values that any transport carries."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Snapshot:
        """Parse what :meth:`to_message` made."""
        plain = {field.name: message[field.name] for field in fields(cls)}
        stages = {stage: StageCounts(**counts) for stage, counts in plain.pop("stages").items()}
        failures = tuple(Failure(**failure) for failure in plain.pop("failures"))
        return cls(**plain, stages=stages, failures=failures)
