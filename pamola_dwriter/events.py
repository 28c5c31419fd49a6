"""What a write tells the scheduler while it runs; small, and never anything secret."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pamola_dwriter.spec import PartRecord, RunSpec, WriteId

TOPIC = "pamola-writes"
ANNOTATION = "pamola_write"
"""Annotation of the commit task: what the write is, for whoever watches the scheduler."""

EndStatus = Literal["committed", "failed", "cancelled", "unknown"]
"""``unknown``: the commit may or may not have happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAnnounced:
    """A write begins; made and parsed by a pair of methods."""

    write_id: WriteId
    name: str = ""
    url: str = ""
    format: str = ""
    encrypted: bool = False
    partitions: int | None = None

    @classmethod
    def of(cls, spec: RunSpec) -> WriteAnnounced:
        """Return the announcement of a run."""
        return cls(
            write_id=spec.write_id,
            name=spec.target.path,
            url=spec.target.url,
            format=spec.format.name,
            encrypted=spec.sealing is not None,
            partitions=spec.partitions,
        )

    def to_message(self) -> dict[str, Any]:
        """Return the event as a message that any transport carries."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Any) -> WriteAnnounced:
        """Parse what :meth:`to_message` made."""
        return cls(**{field.name: message[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStaged:
    """One partition's parts are stored; made and parsed by a pair of methods.

    Attributes
    ----------
    memory_bytes : int
        Of the partition; 0 for one that an interrupted run had staged.
    """

    write_id: WriteId
    partition: int
    parts: int
    rows: int
    size_bytes: int
    memory_bytes: int = 0

    @classmethod
    def of(
        cls,
        write_id: WriteId,
        partition: int,
        records: tuple[PartRecord, ...],
        memory_bytes: int,
    ) -> PartitionStaged:
        """Add up the parts of a partition."""
        return cls(
            write_id=write_id,
            partition=partition,
            parts=len(records),
            rows=sum(record.rows for record in records),
            size_bytes=sum(record.size_bytes for record in records),
            memory_bytes=memory_bytes,
        )

    def to_message(self) -> dict[str, Any]:
        """Return the event as a message that any transport carries."""
        return {"event": "staged", **asdict(self)}

    @classmethod
    def from_message(cls, message: Any) -> PartitionStaged:
        """Parse what :meth:`to_message` made; the worker may have added fields of its own."""
        return cls(
            write_id=message["write_id"],
            partition=message["partition"],
            parts=message["parts"],
            rows=message["rows"],
            size_bytes=message["size_bytes"],
            memory_bytes=message["memory_bytes"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEnded:
    """The client that waited for a write says how it ended; made and parsed by a pair."""

    write_id: WriteId
    status: EndStatus

    def to_message(self) -> dict[str, Any]:
        """Return the event as a message that any transport carries."""
        return {"event": "ended", **asdict(self)}

    @classmethod
    def from_message(cls, message: Any) -> WriteEnded:
        """Parse what :meth:`to_message` made."""
        return cls(**{field.name: message[field.name] for field in fields(cls)})
