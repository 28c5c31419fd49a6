"""The body of a manifest, which an encrypted dataset seals: canonical JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from pamola_dwriter import untrusted
from pamola_dwriter.encryption import ParquetColumns
from pamola_dwriter.errors import IntegrityError
from pamola_dwriter.manifest.fields import (
    DAMAGED,
    canonical,
    parse_retired,
    parse_write_id,
    retired_to_json,
)
from pamola_dwriter.manifest.nouns import Manifest, PartTable
from pamola_dwriter.manifest.parts import MAX_TABLE, part_from_json, part_to_json
from pamola_dwriter.spec import FormatSpec, WriteId


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
        "retired": retired_to_json(manifest.retired),
        "parts": [part_to_json(part) for part in manifest.parts],
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
    return canonical(body)


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
            writes=tuple(map(parse_write_id, body.get("writes", [write_id]))),
            retired=parse_retired(body.get("retired", {})),
            parts=tuple(part_from_json(part) for part in body["parts"]),
            part_table=None if table is None else _parse_table(table),
            age_recipients=_texts(body.get("age_recipients", ())),
            parquet=_parse_parquet(body.get("parquet_encryption")),
        )
    except (*DAMAGED, pa.ArrowException, OSError) as error:
        raise IntegrityError(f"the manifest is damaged: {type(error).__name__}") from None


def _parse_parquet(document: Mapping[str, Any] | None) -> ParquetColumns | None:
    if document is None:
        return None
    footer = document["footer"]
    if not isinstance(footer, str | None):
        raise TypeError("footer")
    columns = {str(name): tuple(map(str, each)) for name, each in document["columns"].items()}
    return ParquetColumns(footer=footer, columns=columns)


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
