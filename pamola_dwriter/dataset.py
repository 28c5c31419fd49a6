"""A committed dataset: its manifest opened, and the list of its parts, wherever that stands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pamola_dwriter import envelope, layout, manifest
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import DatasetReplacedError, IntegrityError, TargetUnavailableError
from pamola_dwriter.manifest import Envelope, Manifest, PartTable
from pamola_dwriter.spec import PartRecord, Redacted, WriteId

OpenKey = Callable[[Envelope], bytes | None]
"""Finds the dataset key of an encrypted manifest; None where none is given and none is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one manifest says.

    Attributes
    ----------
    manifest : Manifest
        The opened manifest.
    shown : Envelope
        What it shows without the key.
    parts : tuple of PartRecord
        Every part, ordered by partition, also where a part table lists them.
    stored : bytes
        The manifest as stored, for its checksum.
    key : Redacted of bytes or None
        The dataset key; None for a plain dataset.
    """

    manifest: Manifest
    shown: Envelope
    parts: tuple[PartRecord, ...]
    stored: bytes
    key: Redacted | None

    @property
    def special_files(self) -> set[str]:
        """Files of the dataset that are neither parts nor the manifest."""
        return {self.manifest.part_table.path} if self.manifest.part_table else set()


def open_committed(store: Store, directory: str, stored: bytes, open_key: OpenKey) -> Committed:
    """Open a stored manifest and read its list of parts.

    Its part table may go while it is opened, for another version is committed: then that one,
    which stands now, is opened instead.

    Raises
    ------
    IntegrityError
        The manifest or part table was altered, or is not one.
    DatasetReplacedError
        The dataset is gone altogether.
    EncryptionKeyError
        It is encrypted and `open_key` does not find its key.
    """
    while True:
        shown = manifest.parse_envelope(stored)
        # Never a plain variable: an error report may show the locals of every frame.
        key = _held(open_key(shown)) if shown.encrypted else None
        document = open_body(shown, key)
        try:
            sealed_under = None if shown.sealed is None else key
            parts = _list_parts(store, directory, document, sealed_under)
        except FileNotFoundError:
            stored = _successor(store, directory, stored, document)
            continue
        return Committed(
            manifest=document,
            shown=shown,
            parts=parts,
            stored=stored,
            key=key,
        )


def names_write(store: Store, directory: str, write_id: WriteId) -> bool:
    """Return whether the version that stands now has parts of a write."""
    present = store.read_versioned(layout.join(directory, layout.MANIFEST))
    return present is not None and write_id in manifest.parse_envelope(present.data).writes


def _successor(store: Store, directory: str, stored: bytes, document: Manifest) -> bytes:
    """Return the manifest that stands instead of `document`, whose part table is gone."""
    present = store.read_versioned(layout.join(directory, layout.MANIFEST))
    if present is None:
        raise DatasetReplacedError("the dataset was removed while it was being opened")
    if present.data == stored:
        path = document.part_table.path if document.part_table else None
        raise IntegrityError(f"part table {path} is missing", part=path)
    return present.data


def _held(key: bytes | None) -> Redacted | None:
    return None if key is None else Redacted(key)


def open_body(shown: Envelope, key: Redacted | None) -> Manifest:
    """Open the body of a manifest; IntegrityError if it was altered, as far as `key` tells."""
    body: bytes | Mapping[str, Any] = shown.body or {}
    if shown.sealed is not None and key is not None:
        expect = manifest.sealed_header(shown.write_id, "manifest", layout.MANIFEST)
        body = _open_sealed(shown.sealed, key, expect)
    elif shown.mac is not None and key is not None:
        _check_authentic(shown, key, shown.mac)
    document = manifest.parse_body(shown.write_id, body)
    if (document.writes, document.retired) != (shown.writes, shown.retired):
        raise IntegrityError("the manifest was altered: it names other writes than it holds")
    return document


def _list_parts(
    store: Store, directory: str, document: Manifest, key: Redacted | None
) -> tuple[PartRecord, ...]:
    table = document.part_table
    parts = document.parts if table is None else _read_table(store, directory, table, document, key)
    if len({part.path for part in parts}) != len(parts):
        raise IntegrityError("the manifest was altered: it lists a part twice")
    if manifest.totals(parts) != dict(document.totals):
        raise IntegrityError("the parts listed do not add up to the totals of the manifest")
    return parts


def _read_bounded(store: Store, path: str, size: int) -> bytes:
    """Return a file of `size` bytes, or enough of another to tell that it is another."""
    try:
        return store.read(path, 0, size + 1)
    except TargetUnavailableError:
        # An object store may refuse any range of a file that is empty.
        if store.size(path):
            raise
        return b""


def _read_table(
    store: Store, directory: str, table: PartTable, document: Manifest, key: Redacted | None
) -> tuple[PartRecord, ...]:
    data = _read_bounded(store, layout.join(directory, table.path), table.size_bytes)
    if hashlib.sha256(data).hexdigest() != table.sha256:
        raise IntegrityError(f"part table {table.path} was altered", part=table.path)
    if key is not None:
        expect = manifest.sealed_header(document.write_id, "parts", table.path)
        data = _open_sealed(data, key, expect)
    return manifest.parse_parts(data)


def _check_authentic(shown: Envelope, key: Redacted, mac: bytes) -> None:
    try:
        envelope.check_authentic(key.reveal(), manifest.shown_body(shown), mac)
    except IntegrityError as error:
        raise error.with_traceback(None) from None  # as in _open_sealed


def _open_sealed(data: bytes, key: Redacted, expect: Mapping[str, Any]) -> bytes:
    try:
        return bytes(envelope.open_sealed(data, key.reveal(), expect=expect))
    except IntegrityError as error:
        # Without the frames below, which hold the key.
        raise error.with_traceback(None) from error.__cause__
