"""Parquet through pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.formats.casting import check_columns, conform, selected
from pamola_dwriter.formats.compression import check_option_names, codec_name
from pamola_dwriter.formats.encodings import choose_encodings
from pamola_dwriter.spec import FormatSpec

_CODECS = ("zstd", "snappy", "gzip", "brotli", "lz4")
_LEVELS = {"zstd": (1, 22), "gzip": (1, 9), "brotli": (0, 11)}


class ParquetSerializer:
    """One Parquet file for each table; columns are compressed inside, with zstd by default.

    Options: ``row_group_size`` (of the spec) and ``compression_level``.
    """

    columnar = True

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with its codec filled in; see the protocol."""
        check_option_names(spec, ["compression_level"])
        rows: Any = spec.row_group_size
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise InvalidWriteError(f"row_group_size must be a positive integer, not {rows!r}")
        codec = codec_name(spec.compression, "zstd", _CODECS)
        level = spec.options.get("compression_level")
        if level is not None:
            _check_level(codec, level)
        return replace(spec, compression=codec)

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        check_columns(schema, "parquet", self._round_trip)

    def extension(self, spec: FormatSpec) -> str:
        """Return ``parquet``."""
        return "parquet"

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`, without copying them."""
        return write_parquet(table, spec)

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`), reading only their bytes."""
        return read_parquet(file, schema, columns)

    def _round_trip(self, table: pa.Table) -> None:
        data = self.dumps(table, FormatSpec(name="parquet"))
        self.load(pa.BufferReader(data), table.schema, None, FormatSpec(name="parquet"))


def write_parquet(table: pa.Table, spec: FormatSpec, encryption: Any = None) -> pa.Buffer:
    """Return the bytes of one file, given pyarrow's own encryption properties if it has any."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=spec.row_group_size,
        compression=codec_name(spec.compression, "zstd", _CODECS),
        compression_level=spec.options.get("compression_level"),
        encryption_properties=encryption,
        **choose_encodings(table),
    )
    return sink.getvalue()


def read_parquet(
    file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, decryption: Any = None
) -> pa.Table:
    """Return a table with exactly `schema` (or its `columns`), reading only their bytes."""
    wanted = selected(schema, columns)
    # pre_buffer joins neighbouring ranges into few large reads.
    with pq.ParquetFile(file, pre_buffer=True, decryption_properties=decryption) as parquet:
        return conform(parquet.read(columns=wanted.names), wanted)


def _check_level(codec: str, level: Any) -> None:
    if codec not in _LEVELS:
        raise InvalidWriteError(f"compression {codec} has no compression_level")
    low, high = _LEVELS[codec]
    if isinstance(level, bool) or not isinstance(level, int) or not low <= level <= high:
        raise InvalidWriteError(
            f"compression_level of {codec} must be an integer from {low} to {high}, not {level!r}"
        )
