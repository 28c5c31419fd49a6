"""What a manifest says, and what it shows without a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from pamola_dwriter.encryption import ParquetColumns
from pamola_dwriter.spec import FormatSpec, PartRecord, WriteId

Retired = Mapping[WriteId, datetime]
"""Writes whose parts a version replaced, and when: by the clock of who committed it, in UTC."""
VERSION = 1
KIND = "pamola_dwriter.dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """Where the parts of a very wide dataset are listed: a file and the hash of its bytes."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a dataset consists of.

    Attributes
    ----------
    parts : tuple of PartRecord
        Every part, ordered by partition; empty while `part_table` says where they are.
    totals : mapping
        ``rows``, ``bytes`` and ``parts`` over the whole dataset.
    writes : tuple of str
        The writes that made the parts: this one, and those it appended to.
    retired : mapping of str to datetime
        The writes whose parts it replaced, and those replaced before it that are still retained
        (``retain-seconds``); their files may stand beside the parts until a later commit.
    age_recipients : tuple of str
        Public keys that every part is encrypted to as an age file; none for the sealed format.
    parquet : ParquetColumns or None
        How the parts are encrypted inside, if they are.
    """

    write_id: WriteId
    created: datetime
    format: FormatSpec
    schema: pa.Schema
    frame: Mapping[str, Any]
    partition_on: tuple[str, ...]
    totals: Mapping[str, int]
    producer: Mapping[str, str]
    writes: tuple[WriteId, ...]
    retired: Retired = field(default_factory=dict)
    parts: tuple[PartRecord, ...] = ()
    part_table: PartTable | None = None
    age_recipients: tuple[str, ...] = ()
    parquet: ParquetColumns | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a manifest shows without a key.

    Attributes
    ----------
    writes : tuple of str
        The writes that made the parts; an overwrite has to know them without the key.
    retired : mapping of str to datetime
        As in :class:`Manifest`; whoever removes files has to know it without the key.
    keyed_by : str
        The write that the wrapped keys are bound to.
    wrapped : tuple of WrappedKey-as-JSON
        The dataset key under each provider; empty for a plain dataset.
    sealed : bytes or None
        The sealed body of an encrypted dataset.
    body : mapping or None
        The body of a plain dataset, or one whose parts are encrypted Parquet with a plain footer.
    column_keys : mapping of str to tuple of WrappedKey-as-JSON
        The keys of Parquet columns, by name, under each provider.
    mac : bytes or None
        What authenticates a `body` that shows, under the dataset key.
    """

    write_id: WriteId
    writes: tuple[WriteId, ...]
    keyed_by: WriteId
    retired: Retired = field(default_factory=dict)
    wrapped: tuple[Mapping[str, Any], ...] = ()
    sealed: bytes | None = None
    body: Mapping[str, Any] | None = None
    column_keys: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    mac: bytes | None = None

    @property
    def encrypted(self) -> bool:
        """Whether it has a key, though it may show what it consists of without."""
        return self.sealed is not None or self.mac is not None


def retained(retired: Retired, moment: datetime, seconds: float) -> dict[WriteId, datetime]:
    """Return those of `retired` that were replaced less than `seconds` before `moment`.

    Their files are left to reads that began before. With 0 seconds there are none, however the
    clocks differ that the times were read from.
    """
    return {
        write_id: since
        for write_id, since in retired.items()
        if max((moment - since).total_seconds(), 0) < seconds
    }


def totals(parts: Iterable[PartRecord]) -> dict[str, int]:
    """Sum rows, stored bytes and number of parts."""
    counts = {"rows": 0, "bytes": 0, "parts": 0}
    for part in parts:
        counts["rows"] += part.rows
        counts["bytes"] += part.size_bytes
        counts["parts"] += 1
    return counts
