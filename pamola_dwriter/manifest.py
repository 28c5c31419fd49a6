"""The manifest: the one file whose appearance commits a dataset.

A plain dataset's manifest is readable JSON. An encrypted one shows only what is needed to open
it (write id, wrapped keys) and holds everything else sealed under the dataset key. This module
is pure: bytes in, bytes out. Wrapping keys and storing files happen elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pamola_dwriter import untrusted
from pamola_dwriter.encryption import ParquetColumns
from pamola_dwriter.errors import IntegrityError, InvalidWriteError, UnsupportedVersionError
from pamola_dwriter.spec import FormatSpec, PartRecord, WriteId

Retired = Mapping[WriteId, datetime]
"""Writes whose parts a version replaced, and when: by the clock of who committed it, in UTC."""

VERSION = 1
KIND = "pamola_dwriter.dataset"

MAX_TABLE = 1 << 32
"""Bytes of a part table as stored; one of a million parts has about a hundred million."""

_LONGEST_SHOWN = 30

_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What comes of taking a document apart that is not one of ours."""

_PART_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("partition", pa.int64(), nullable=False),
        pa.field("values", pa.list_(pa.string()), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("plain_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


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


def dump_body(manifest: Manifest) -> bytes:
    """Serialize a manifest's body: canonical JSON, parsed by :func:`parse_body`."""
    body: dict[str, Any] = {
        "created": manifest.created.isoformat(),
        "format": {
            "name": manifest.format.name,
            "compression": manifest.format.compression,
            "row_group_size": manifest.format.row_group_size,
            "options": dict(manifest.format.options),
        },
        "schema": base64.b64encode(manifest.schema.serialize()).decode(),
        "columns": {field.name: str(field.type) for field in manifest.schema},
        "frame": dict(manifest.frame),
        "partition_on": list(manifest.partition_on),
        "totals": dict(manifest.totals),
        "producer": dict(manifest.producer),
        "writes": list(manifest.writes),
        "retired": _retired_to_json(manifest.retired),
        "parts": [_part_to_json(part) for part in manifest.parts],
    }
    if manifest.age_recipients:
        body["age_recipients"] = list(manifest.age_recipients)
    if manifest.parquet is not None:
        body["parquet_encryption"] = {
            "footer": manifest.parquet.footer,
            "columns": {name: list(each) for name, each in manifest.parquet.columns.items()},
        }
    if manifest.part_table is not None:
        table = manifest.part_table
        body["part_table"] = {
            "path": table.path,
            "sha256": table.sha256,
            "size_bytes": table.size_bytes,
        }
    return _canonical(body)


def parse_body(write_id: WriteId, data: bytes | Mapping[str, Any]) -> Manifest:
    """Parse what :func:`dump_body` made, as bytes or already as JSON.

    Raises
    ------
    IntegrityError
        It is not a manifest body.
    """
    try:
        body = untrusted.parse_json(data) if isinstance(data, bytes) else data
        table = body.get("part_table")
        _check_shape(body)
        return Manifest(
            write_id=write_id,
            created=datetime.fromisoformat(body["created"]),
            format=_parse_format(body["format"]),
            schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body["schema"]))),
            frame=body["frame"],
            partition_on=_texts(body["partition_on"]),
            totals=body["totals"],
            producer=body["producer"],
            writes=tuple(map(_parse_write_id, body.get("writes", [write_id]))),
            retired=_parse_retired(body.get("retired", {})),
            parts=tuple(_part_from_json(part) for part in body["parts"]),
            part_table=None if table is None else _parse_table(table),
            age_recipients=_texts(body.get("age_recipients", ())),
            parquet=_parse_parquet(body.get("parquet_encryption")),
        )
    except (*_DAMAGED, pa.ArrowException, OSError) as error:
        raise IntegrityError(f"the manifest is damaged: {type(error).__name__}") from None


def plain_envelope(manifest: Manifest, body: bytes) -> Envelope:
    """Return the envelope of a plain dataset's manifest, given its dumped body."""
    return Envelope(
        write_id=manifest.write_id,
        writes=manifest.writes,
        retired=manifest.retired,
        keyed_by=manifest.write_id,
        body=json.loads(body),
    )


def dump_envelope(envelope: Envelope) -> bytes:
    """Serialize what is stored as ``_manifest.json``; parsed by :func:`parse_envelope`.

    Raises
    ------
    InvalidWriteError
        It lists so many parts that no reader would take it.
    """
    document: dict[str, Any] = {
        "kind": KIND,
        "version": VERSION,
        "write_id": envelope.write_id,
        "writes": list(envelope.writes),
        "retired": _retired_to_json(envelope.retired),
    }
    if envelope.sealed is None:
        document |= dict(envelope.body or {})
    if envelope.encrypted:
        document["encryption"] = {
            "keyed_by": envelope.keyed_by,
            "keys": [dict(key) for key in envelope.wrapped],
            **_encrypted_by(envelope),
        }
        if envelope.column_keys:
            document["encryption"]["column_keys"] = {
                key_name: [dict(key) for key in wrapped]
                for key_name, wrapped in envelope.column_keys.items()
            }
    data = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
    if len(data) > untrusted.MAX_JSON:
        raise InvalidWriteError(
            f"the manifest would have {len(data)} bytes, and readers take {untrusted.MAX_JSON}; "
            "set pamola-dwriter.inline-parts lower, so that the parts are listed in a file"
        )
    return data


def _encrypted_by(envelope: Envelope) -> dict[str, str]:
    if envelope.sealed is not None:
        return {"format": "PDW1", "sealed": base64.b64encode(envelope.sealed).decode()}
    return {"format": "parquet", "mac": base64.b64encode(envelope.mac or b"").decode()}


def parse_envelope(data: bytes) -> Envelope:
    """Parse ``_manifest.json``.

    Raises
    ------
    IntegrityError
        It is not a manifest.
    UnsupportedVersionError
        It was written by a newer version of this package.
    """
    try:
        document = untrusted.parse_json(data)
        if document["kind"] != KIND:
            raise IntegrityError("this JSON file is not a dataset manifest")
        _check_version(document["version"])
        write_id = _parse_write_id(document["write_id"])
        # A manifest of before datasets could be appended to has but one write.
        writes = tuple(map(_parse_write_id, document.get("writes", [write_id])))
        retired = _parse_retired(document.get("retired", {}))
        if "encryption" not in document:
            return Envelope(
                write_id=write_id, writes=writes, retired=retired, keyed_by=write_id, body=document
            )
        encryption = document["encryption"]
        shows = encryption["format"] == "parquet"
        if not shows and encryption["format"] != "PDW1":
            raise UnsupportedVersionError(
                "the manifest is sealed in a format that is not known; update pamola_dwriter"
            )
        data = base64.b64decode(encryption["mac" if shows else "sealed"], validate=True)
        listed = encryption.get("column_keys", {})
        return Envelope(
            write_id=write_id,
            writes=writes,
            retired=retired,
            keyed_by=_parse_write_id(encryption.get("keyed_by", write_id)),
            wrapped=tuple(encryption["keys"]),
            column_keys={str(name): tuple(wrapped) for name, wrapped in listed.items()},
            **({"body": document, "mac": data} if shows else {"sealed": data}),
        )
    except _DAMAGED:
        raise IntegrityError("the manifest is damaged: it is not the JSON we write") from None


def shown_body(envelope: Envelope) -> bytes:
    """Return what the ``mac`` of a manifest that shows authenticates: all but the wrapped keys."""
    document = json.loads(dump_envelope(replace(envelope, mac=None, sealed=None)))
    return _canonical({name: each for name, each in document.items() if name != "encryption"})


def _parse_parquet(document: Mapping[str, Any] | None) -> ParquetColumns | None:
    if document is None:
        return None
    footer = document["footer"]
    if not isinstance(footer, str | None):
        raise TypeError("footer")
    columns = {str(name): tuple(map(str, each)) for name, each in document["columns"].items()}
    return ParquetColumns(footer=footer, columns=columns)


def _check_version(version: object) -> None:
    if type(version) is int and version == VERSION:
        return
    named = f"version {version!r}" if len(repr(version)) < _LONGEST_SHOWN else "its version"
    raise UnsupportedVersionError(f"manifest {named} is not known; update pamola_dwriter")


def _parse_write_id(text: str) -> WriteId:
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise IntegrityError("the manifest is damaged: a write id in it is not one")
    return WriteId(text)


def _parse_format(described: Mapping[str, Any]) -> FormatSpec:
    wanted = {"name": str, "compression": str | None, "row_group_size": int | None, "options": dict}
    if not all(isinstance(described[name], kind) for name, kind in wanted.items()):
        raise TypeError("format")
    return FormatSpec(**described)


def _parse_table(described: Mapping[str, Any]) -> PartTable:
    table = PartTable(**described)
    if "/" in untrusted.part_path(table.path) or not isinstance(table.sha256, str):
        raise TypeError("part_table")
    if type(table.size_bytes) is not int or not 0 < table.size_bytes <= MAX_TABLE:
        raise TypeError("part_table")
    return table


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    texts = tuple(text for text in values if isinstance(text, str))
    if isinstance(values, str) or len(texts) != len(tuple(values)):
        raise TypeError("a list of text")
    return texts


def _retired_to_json(retired: Retired) -> dict[str, str]:
    return {write_id: since.isoformat() for write_id, since in retired.items()}


def _parse_retired(times: Mapping[str, str]) -> Retired:
    retired = {_parse_write_id(text): datetime.fromisoformat(t) for text, t in times.items()}
    if any(since.tzinfo is None for since in retired.values()):
        raise IntegrityError("the manifest is damaged: a time in it has no zone")
    return retired


def sealed_header(write_id: WriteId, kind: str, path: str) -> dict[str, Any]:
    """Return the authenticated header of a sealed part, part table or manifest body."""
    return {"kind": kind, "path": path, "write_id": write_id}


def key_context(write_id: WriteId, key_name: str = "") -> bytes:
    """Return what a wrapped dataset key, or key of Parquet columns, is bound to."""
    return f"{KIND}:{write_id}{':' if key_name else ''}{key_name}".encode()


def part_key_context(write_id: WriteId, path: str, key_name: str) -> bytes:
    """Return what the keys inside an encrypted Parquet file are bound to."""
    return f"{KIND}:{write_id}:{key_name}:{path}".encode()


def dump_parts(parts: Iterable[PartRecord]) -> pa.Buffer:
    """Serialize a part table as Parquet; parsed by :func:`parse_parts`."""
    rows = [_part_to_json(part) for part in parts]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_PART_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def parse_parts(data: bytes | pa.Buffer) -> tuple[PartRecord, ...]:
    """Parse a part table; IntegrityError if it is not one."""
    try:
        return tuple(map(_part_from_json, untrusted.read_rows(data, _PART_SCHEMA)))
    except (*_DAMAGED, pa.ArrowException, OSError):
        raise IntegrityError("the part table is damaged") from None


def checksum(data: bytes) -> str:
    """Return the ``sha256:...`` checksum of stored manifest bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _check_shape(body: Mapping[str, Any]) -> None:
    """Raise TypeError or KeyError unless what the reader relies on is there, in its type."""
    totals, frame = body["totals"], body["frame"]
    if sorted(totals) != ["bytes", "parts", "rows"]:
        raise KeyError("totals")
    if not all(type(n) is int and 0 <= n <= untrusted.MAX_COUNT for n in totals.values()):
        raise TypeError("totals")
    columns, levels, axis = frame["columns"], frame["index"], frame["axis"]
    described = [
        *((column["name"], column["dtype"]) for column in columns),
        *((level["stored"], level["dtype"]) for level in levels if "name" in level),
    ]
    if len(described) != len(columns) + len(levels) or not {"name", "dtype"} <= axis.keys():
        raise KeyError("frame")
    if not all(
        isinstance(name, str) and isinstance(dtype["kind"], str) for name, dtype in described
    ):
        raise TypeError("frame")


def _part_to_json(part: PartRecord) -> dict[str, Any]:
    return {
        "path": part.path,
        "partition": part.partition,
        "values": [item for pair in part.values for item in pair],
        "rows": part.rows,
        "size_bytes": part.size_bytes,
        "plain_bytes": part.plain_bytes,
        "sha256": part.sha256,
    }


def _part_from_json(row: Mapping[str, Any]) -> PartRecord:
    values = row["values"]
    if not isinstance(values, list):
        raise TypeError("values")
    return untrusted.part_record(row, zip(values[::2], values[1::2], strict=True))


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
