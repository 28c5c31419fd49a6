"""Distributed, encrypted, all-or-nothing dataset writing for Dask.

Start with :class:`DataWriter`; read back with :func:`read_dataset`, :func:`open_artifact` and
:func:`verify`; clean up with :func:`collect_garbage`; change keys with
:func:`rotate_keys`.
"""

from __future__ import annotations

from pamola_dwriter.audit import VerifyReport, describe, verify
from pamola_dwriter.auditlog import AuditRecord, read_audit
from pamola_dwriter.encryption import ParquetEncryption
from pamola_dwriter.errors import DataReadError, DataWriteError, EncryptionKeyError
from pamola_dwriter.execution import LazyWrite, WriteFuture
from pamola_dwriter.garbage import Garbage, GarbageReport, collect_garbage
from pamola_dwriter.keys import EnvKey, FileKey, Passphrase, RawKey
from pamola_dwriter.reader import decrypt, open_artifact, open_parquet_keys, read_dataset
from pamola_dwriter.rotation import DirectoryRotationReport, RotationReport, rotate_keys
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.streaming import WriteStream
from pamola_dwriter.tracker import HierarchicalProgressTracker
from pamola_dwriter.writer import DataWriter

__all__ = [
    "AuditRecord",
    "DataReadError",
    "DataWriteError",
    "DataWriter",
    "DirectoryRotationReport",
    "EncryptionKeyError",
    "EnvKey",
    "FileKey",
    "Garbage",
    "GarbageReport",
    "HierarchicalProgressTracker",
    "LazyWrite",
    "ParquetEncryption",
    "Passphrase",
    "RawKey",
    "RotationReport",
    "VerifyReport",
    "WriteFuture",
    "WriteStream",
    "WriterResult",
    "collect_garbage",
    "decrypt",
    "describe",
    "open_artifact",
    "open_parquet_keys",
    "read_audit",
    "read_dataset",
    "rotate_keys",
    "verify",
]
