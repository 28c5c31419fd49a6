"""A committed dataset: its manifest opened, and the list of its parts, wherever that stands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pamola_dwriter import envelope, layout, manifest
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import IntegrityError
from pamola_dwriter.manifest import Envelope, Manifest, PartTable
from pamola_dwriter.spec import PartRecord, Redacted

OpenKey = Callable[[Envelope], bytes]
"""Finds the dataset key of an encrypted manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one manifest says.

    Attributes
    ----------
    manifest : Manifest
        The opened manifest.
    parts : tuple of PartRecord
        Every part, ordered by partition, also where a part table lists them.
    stored : bytes
        The manifest as stored, for its checksum.
    key : Redacted of bytes or None
        The dataset key; None for a plain dataset.
    """

    manifest: Manifest
    parts: tuple[PartRecord, ...]
    stored: bytes
    key: Redacted | None

    @property
    def special_files(self) -> set[str]:
        """Files of the dataset that are neither parts nor the manifest."""
        return {self.manifest.part_table.path} if self.manifest.part_table else set()


def open_committed(store: Store, directory: str, stored: bytes, open_key: OpenKey) -> Committed:
    """Open a stored manifest and read its list of parts.

    Raises
    ------
    IntegrityError
        The manifest or part table was altered, or is not one.
    EncryptionKeyError
        It is encrypted and `open_key` does not find its key.
    """
    shown = manifest.parse_envelope(stored)
    key = None if shown.sealed is None else open_key(shown)
    document = manifest.parse_body(shown.write_id, _open_body(shown, key))
    if document.writes != shown.writes:
        raise IntegrityError("the manifest was altered: it names other writes than it holds")
    return Committed(
        manifest=document,
        parts=_list_parts(store, directory, document, key),
        stored=stored,
        key=None if key is None else Redacted(key),
    )


def _open_body(shown: Envelope, key: bytes | None) -> bytes | Mapping[str, Any]:
    if shown.sealed is None or key is None:
        return shown.body or {}
    expect = manifest.sealed_header(shown.write_id, "manifest", layout.MANIFEST)
    return envelope.open_sealed(shown.sealed, key, expect=expect)


def _list_parts(
    store: Store, directory: str, document: Manifest, key: bytes | None
) -> tuple[PartRecord, ...]:
    table = document.part_table
    parts = document.parts if table is None else _read_table(store, directory, table, document, key)
    if manifest.totals(parts) != dict(document.totals):
        raise IntegrityError("the parts listed do not add up to the totals of the manifest")
    return parts


def _read_table(
    store: Store, directory: str, table: PartTable, document: Manifest, key: bytes | None
) -> tuple[PartRecord, ...]:
    try:
        data = store.read(layout.join(directory, table.path))
    except FileNotFoundError:
        raise IntegrityError(f"part table {table.path} is missing", part=table.path) from None
    if hashlib.sha256(data).hexdigest() != table.sha256:
        raise IntegrityError(f"part table {table.path} was altered", part=table.path)
    if key is not None:
        expect = manifest.sealed_header(document.write_id, "parts", table.path)
        data = bytes(envelope.open_sealed(data, key, expect=expect))
    return manifest.parse_parts(data)
