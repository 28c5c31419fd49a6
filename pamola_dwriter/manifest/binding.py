"""What sealed bytes and wrapped keys are bound to, so that none serves in another place."""

from __future__ import annotations

import hashlib
from typing import Any

from pamola_dwriter.manifest.nouns import KIND
from pamola_dwriter.spec import WriteId


def sealed_header(write_id: WriteId, kind: str, path: str) -> dict[str, Any]:
    """Return the authenticated header of a sealed part, part table or manifest body."""
    return {"kind": kind, "path": path, "write_id": write_id}


def key_context(write_id: WriteId, key_name: str = "") -> bytes:
    """Return what a wrapped dataset key, or key of Parquet columns, is bound to."""
    return f"{KIND}:{write_id}{':' if key_name else ''}{key_name}".encode()


def part_key_context(write_id: WriteId, path: str, key_name: str) -> bytes:
    """Return what the keys inside an encrypted Parquet file are bound to."""
    return f"{KIND}:{write_id}:{key_name}:{path}".encode()


def checksum(data: bytes) -> str:
    """Return the ``sha256:...`` checksum of stored manifest bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
