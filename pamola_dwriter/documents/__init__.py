"""Single-file documents: JSON made, read, added to and merged; metrics; dictionaries as frames.

Everything here is pure: bytes and Python objects in, bytes and objects out. Storing them
happens elsewhere, and so a change may be tried again when another writer was faster.
"""

from __future__ import annotations

from pamola_dwriter.documents.changes import append_item, encode, merge_object
from pamola_dwriter.documents.frame import to_frame
from pamola_dwriter.documents.metrics import Caller, enrich_metrics, find_caller
from pamola_dwriter.documents.syntax import MAX_DEPTH, Json, decode

__all__ = [
    "MAX_DEPTH",
    "Caller",
    "Json",
    "append_item",
    "decode",
    "encode",
    "enrich_metrics",
    "find_caller",
    "merge_object",
    "to_frame",
]
