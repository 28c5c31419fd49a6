"""What a task tells the scheduler while it runs; small, and never anything secret."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pamola_dwriter.spec import WriteId

TOPIC = "pamola-writes"


@dataclass(frozen=True, slots=True)
class PartitionStaged:
    """One partition's parts are stored; made and parsed by a pair of methods."""

    write_id: WriteId
    partition: int
    rows: int
    size_bytes: int

    def to_message(self) -> dict[str, Any]:
        """Return the event as a message that any transport carries."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Any) -> PartitionStaged:
        """Parse what :meth:`to_message` made; the worker may have added fields of its own."""
        return cls(
            write_id=WriteId(message["write_id"]),
            partition=message["partition"],
            rows=message["rows"],
            size_bytes=message["size_bytes"],
        )
