"""What a rotation of keys reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pamola_dwriter.spec import WriteId


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationReport:
    """What :func:`rotate_keys` changed about a dataset or single file, and how it stands now.

    Attributes
    ----------
    write_id : str
        The write that committed the version; a rotation is none.
    added, revoked : tuple of str
        Ids of the keys that came and went. One in `to` that opened it before is not added again.
    key_ids : tuple of str
        Ids of all keys that open it now.
    checksum : str or None
        ``sha256:`` and the hex digest of the manifest or the file, which is no longer that of
        the write. None for a single file that was left as it is, and not read.
    fresh_key : bool
        Whether the data was sealed anew under a key drawn for it, so that one that somebody kept
        no longer opens it. Never so for a dataset.
    """

    write_id: WriteId
    added: tuple[str, ...]
    revoked: tuple[str, ...]
    key_ids: tuple[str, ...]
    checksum: str | None
    fresh_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRotation:
    """Why the keys of one dataset or single file were not rotated: an error, by its type."""

    error: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRotationReport:
    """What :func:`rotate_keys` did below a directory; paths are relative to it.

    Attributes
    ----------
    rotated : mapping of str to RotationReport
        Datasets and single files whose keys were changed.
    unchanged : mapping of str to RotationReport
        Those which the keys that were asked for open already, and no others of those revoked.
    plain : tuple of str
        Those that are not encrypted.
    failed : mapping of str to FailedRotation
        Those that are as they were, and why; after CommitOutcomeUnknownError they may be either.
    """

    rotated: Mapping[str, RotationReport]
    unchanged: Mapping[str, RotationReport]
    plain: tuple[str, ...]
    failed: Mapping[str, FailedRotation]
