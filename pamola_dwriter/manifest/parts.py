"""The list of parts: as Parquet where they are many, and each as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pamola_dwriter import untrusted
from pamola_dwriter.errors import IntegrityError
from pamola_dwriter.manifest.fields import DAMAGED
from pamola_dwriter.spec import PartRecord

MAX_TABLE = 1 << 32
"""Bytes of a part table as stored; one of a million parts has about a hundred million."""
PART_SCHEMA = pa.schema(
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


def dump_parts(parts: Iterable[PartRecord]) -> pa.Buffer:
    """Serialize a part table as Parquet; parsed by :func:`parse_parts`."""
    rows = [part_to_json(part) for part in parts]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=PART_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def parse_parts(data: bytes | pa.Buffer) -> tuple[PartRecord, ...]:
    """Parse a part table; IntegrityError if it is not one."""
    try:
        return tuple(map(part_from_json, untrusted.read_rows(data, PART_SCHEMA)))
    except (*DAMAGED, pa.ArrowException, OSError):
        raise IntegrityError("the part table is damaged") from None


def part_to_json(part: PartRecord) -> dict[str, Any]:
    """Return a JSON object of a part; parsed by :func:`part_from_json`."""
    return {
        "path": part.path,
        "partition": part.partition,
        "values": [item for pair in part.values for item in pair],
        "rows": part.rows,
        "size_bytes": part.size_bytes,
        "plain_bytes": part.plain_bytes,
        "sha256": part.sha256,
    }


def part_from_json(row: Mapping[str, Any]) -> PartRecord:
    """Parse what :func:`part_to_json` made; an error of :data:`DAMAGED` if it is not that."""
    values = row["values"]
    if not isinstance(values, list):
        raise TypeError("values")
    return untrusted.part_record(row, zip(values[::2], values[1::2], strict=True))
