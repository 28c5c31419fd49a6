"""One line of the log for each change of a write's state, the same from client and scheduler.

The message ends with one JSON object; handlers that take fields find them in
``record.pamola_write``. Nothing in it is a value of the data or a secret: of a failure it has the
class, and not what it says.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from pamola_dwriter.progress import Snapshot, Status

Logger = logging.Logger | logging.LoggerAdapter[Any]


def log_state(logger: Logger, snapshot: Snapshot) -> None:
    """Log, at level INFO, what has become of a write."""
    fields = _fields(snapshot)
    logger.info("write %s", json.dumps(fields), extra={"pamola_write": fields})


def _fields(snapshot: Snapshot) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "write_id": snapshot.write_id,
        "state": _state(snapshot.status),
        "url": snapshot.url,
        "format": snapshot.format,
        "encrypted": snapshot.encrypted,
        "partitions": snapshot.partitions,
    }
    if snapshot.status == "running":
        return fields
    fields |= {
        "partitions_done": snapshot.partitions_done,
        "parts": snapshot.parts,
        "rows": snapshot.rows,
        "bytes": snapshot.size_bytes,
        "seconds": round(snapshot.elapsed, 3),
        "retried": snapshot.retried,
    }
    if snapshot.failures:
        first = snapshot.failures[0]
        fields |= {"failure": first.kind, "failed_stage": first.stage}
        fields["failed_partition"] = first.partition
    return fields


def _state(status: Status) -> str:
    return "started" if status == "running" else status
