"""JSON Lines: rows through orjson, reading through pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json

from pamola_dwriter.formats.casting import Column, check_columns, selected
from pamola_dwriter.formats.compression import (
    SUFFIXES,
    check_spec,
    compressed,
    decompressed,
    suffix,
)
from pamola_dwriter.formats.wire import decode, encode, wire_schema
from pamola_dwriter.spec import FormatSpec

_BATCH_ROWS = 65_536


class JsonLinesSerializer:
    """One JSON object a line for each row; a table without rows is an empty file.

    Lists and structs are held as they are; decimals, dates and times as text
    (:mod:`pamola_dwriter.formats.wire`). Binary columns and maps are refused. JSON has no NaN
    and no infinity: **both are written as null** and come back as null (NaN in a numpy column).
    It takes no options.
    """

    columnar = False
    _name = "jsonl"

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with its codec filled in; see the protocol."""
        return check_spec(spec, [], "none", SUFFIXES)

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        check_columns(schema, self._name, self._round_trip)

    def extension(self, spec: FormatSpec) -> str:
        """Return ``jsonl``, ``jsonl.gz`` or ``jsonl.zst``."""
        return self._name + suffix(spec)

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`."""
        text = encode(table)

        def write(sink: Any) -> None:
            batches = text.to_batches(max_chunksize=_BATCH_ROWS)
            for piece in self._join(_lines(batch) for batch in batches if batch.num_rows):
                sink.write(piece)

        return compressed(spec, write)

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`)."""
        wanted = selected(schema, columns)
        data = self._split(decompressed(file, spec))
        if data.size == 0:
            return wanted.empty_table()
        # Reading no column at all would lose the number of rows.
        table = _read(data, wire_schema(wanted if wanted.names else pa.schema([schema.field(0)])))
        return decode(table, wanted) if wanted.names else table.select([])

    def _join(self, batches: Iterable[bytes]) -> Iterable[bytes]:
        """Make a file of lines, each of which ends in a line break."""
        return batches

    def _split(self, data: pa.Buffer) -> pa.Buffer:
        """Return the lines of a file."""
        return data

    def _round_trip(self, table: pa.Table) -> None:
        _read(pa.py_buffer(b"{}\n"), wire_schema(table.schema))
        decode(encode(table), table.schema)


def _read(data: pa.Buffer, schema: pa.Schema) -> pa.Table:
    # pyarrow 14 parses no more than 100,000 rows in a block, and no row across two blocks.
    ends = np.flatnonzero(np.frombuffer(data, dtype="uint8") == ord("\n")) + 1
    cuts = [0, *ends[_BATCH_ROWS - 1 : -1 : _BATCH_ROWS].tolist(), data.size]
    blocks = [data.slice(start, end - start) for start, end in pairwise(cuts)]
    return pa.concat_tables([_read_block(block, schema) for block in blocks])


def _read_block(data: pa.Buffer, schema: pa.Schema) -> pa.Table:
    return pa.json.read_json(
        pa.BufferReader(data),
        read_options=pa.json.ReadOptions(block_size=data.size),
        parse_options=pa.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore"
        ),
    )


def _lines(batch: pa.RecordBatch) -> bytes:
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    return b"".join(
        orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in zip(*columns, strict=True)
    )


def _values(column: Column) -> list[Any]:
    """Return Python values, through numpy (five times faster) where that is exact."""
    types = pa.types
    plain = types.is_primitive(column.type) and not column.null_count
    text = types.is_string(column.type) or types.is_large_string(column.type)
    if plain or text or types.is_floating(column.type):
        return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]
