"""Tab-separated values: a format that another package adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from pamola_dwriter.errors import InvalidWriteError, UnsupportedDataError
from pamola_dwriter.spec import FormatSpec


class TsvSerializer:
    """Integers and texts, one row a line; texts must hold neither tabs nor newlines."""

    columnar = False

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Take no options at all."""
        if spec.options or spec.row_group_size or spec.compression not in (None, "none"):
            raise InvalidWriteError("tsv takes no options and no compression")
        return replace(spec, compression="none")

    def check_schema(self, schema: pa.Schema) -> None:
        """Refuse what is neither an integer nor text."""
        texts = (pa.string(), pa.large_string())
        for field in schema:
            if field.type not in texts and not pa.types.is_integer(field.type):
                raise UnsupportedDataError(f"column {field.name!r}: tsv cannot hold {field.type}")

    def extension(self, spec: FormatSpec) -> str:
        """Return ``tsv``."""
        return "tsv"

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file."""
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(table, sink, pa.csv.WriteOptions(delimiter="\t"))
        return sink.getvalue()

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return the table of one file, or some of its columns."""
        names = schema.names if columns is None else list(columns)
        table = pa.csv.read_csv(
            pa.py_buffer(file.read()),
            parse_options=pa.csv.ParseOptions(delimiter="\t"),
            convert_options=pa.csv.ConvertOptions(column_types=schema, strings_can_be_null=True),
        )
        return table.select(names).replace_schema_metadata(schema.metadata)
