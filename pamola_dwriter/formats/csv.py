"""CSV through pyarrow, exact both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.formats.casting import check_columns, selected
from pamola_dwriter.formats.compression import (
    SUFFIXES,
    check_spec,
    compressed,
    decompressed,
    suffix,
)
from pamola_dwriter.formats.wire import decode, encode, wire_schema
from pamola_dwriter.spec import FormatSpec

_MAX_BLOCK = 2**31 - 1


class CsvSerializer:
    """One CSV file with a header for each table.

    Text is quoted and a null is not, so that ``""`` and null stay apart; every other type is
    written so that it reads back exactly (:mod:`pamola_dwriter.formats.wire`). A table without
    rows is a file with a header only. Nested and binary columns are refused.

    Option: ``delimiter``, one ASCII character.

    Notes
    -----
    Other programs read nulls in text as they please: ``pandas.read_csv`` takes ``""`` for
    missing too, and passes over the blank lines that the nulls of a lone column are.
    """

    columnar = False

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with its codec filled in; see the protocol."""
        spec = check_spec(spec, ["delimiter"], "none", SUFFIXES)
        delimiter: Any = _delimiter(spec)
        if (
            not isinstance(delimiter, str)
            or len(delimiter) != 1
            or not delimiter.isascii()
            or delimiter.isalnum()
            or delimiter in '"\r\n\0 +-.:'
        ):
            raise InvalidWriteError(
                "delimiter must be one ASCII character that no number, date or quote is made of"
            )
        return spec

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        check_columns(schema, "csv", self._round_trip)

    def extension(self, spec: FormatSpec) -> str:
        """Return ``csv``, ``csv.gz`` or ``csv.zst``."""
        return "csv" + suffix(spec)

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`."""
        text = encode(table, dates=True)
        options = pa.csv.WriteOptions(
            include_header=True, delimiter=_delimiter(spec), quoting_style="needed"
        )
        return compressed(spec, lambda sink: pa.csv.write_csv(text, sink, options))

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`)."""
        wanted = selected(schema, columns)
        data = decompressed(file, spec)
        if data.size == 0:
            return wanted.empty_table()
        # Reading no column at all would lose the number of rows.
        read = wire_schema(wanted if wanted.names else pa.schema([schema.field(0)]))
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            # One block: a row may be of any length, and Dask reads many files at once anyway.
            read_options=pa.csv.ReadOptions(block_size=min(data.size, _MAX_BLOCK)),
            parse_options=pa.csv.ParseOptions(
                delimiter=_delimiter(spec), newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=_convert_options(read),
        )
        return decode(table, wanted) if wanted.names else table.select([])

    def _round_trip(self, table: pa.Table) -> None:
        data = self.dumps(table, FormatSpec(name="csv"))
        self.load(pa.BufferReader(data), table.schema, None, FormatSpec(name="csv"))


def _convert_options(schema: pa.Schema) -> pa.csv.ConvertOptions:
    return pa.csv.ConvertOptions(
        column_types=schema,
        include_columns=schema.names,
        null_values=[""],
        true_values=["true"],
        false_values=["false"],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )


def _delimiter(spec: FormatSpec) -> str:
    return spec.options.get("delimiter", ",")  # type: ignore[no-any-return]  # just checked
