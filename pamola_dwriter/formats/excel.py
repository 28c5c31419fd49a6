"""Excel workbooks for frames small enough for a sheet, exact both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.casting import check_columns, selected
from pamola_dwriter.formats.cells import escape, from_cells, to_cells
from pamola_dwriter.formats.compression import check_spec
from pamola_dwriter.formats.workbook import MAX_COLUMNS, MAX_ROWS, read_workbook, write_workbook
from pamola_dwriter.spec import FormatSpec


class ExcelSerializer:
    """One workbook of one sheet for each table, with the column names in its first row.

    Text is always text, whatever it begins with: nothing becomes a formula, a number or a date.
    An empty text and a null (a blank cell) stay apart. Refused is what Excel cannot hold: by
    type, times with a zone, times of day, durations, binary and nested columns; by value, as
    :mod:`pamola_dwriter.formats.cells` says. It takes no options and no compression: a workbook
    is compressed as it is.

    Notes
    -----
    A sheet has 1,048,576 rows, one of them the names, and 16,384 columns. Writing and reading
    take some microseconds a cell. Excel shows 15 digits of a number that has 17, though it keeps
    them.
    """

    columnar = False

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with its codec filled in; see the protocol."""
        return check_spec(spec, [], "none", ["none"])

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        if len(schema) > MAX_COLUMNS:
            raise UnsupportedDataError(
                f"a sheet of Excel has {MAX_COLUMNS:,} columns, not {len(schema):,}; "
                "write fewer columns or another format"
            )
        for name in schema.names:
            escape(name, name)
        check_columns(schema, "excel", self._round_trip)

    def extension(self, spec: FormatSpec) -> str:
        """Return ``xlsx``."""
        return "xlsx"

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`.

        Raises
        ------
        UnsupportedDataError
            There are too many rows, or a value is one that Excel would change.
        """
        if table.num_rows >= MAX_ROWS:
            raise UnsupportedDataError(
                f"a sheet of Excel has {MAX_ROWS - 1:,} rows below the names, not "
                f"{table.num_rows:,}; write smaller partitions or another format"
            )
        named = zip(table.column_names, table.columns, strict=True)
        columns = [to_cells(name, column) for name, column in named]
        names = [escape(name, name) for name in table.column_names]
        return pa.py_buffer(write_workbook(names, columns))

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`)."""
        wanted = selected(schema, columns)
        # Reading no column at all would lose the number of rows.
        read = wanted if wanted.names else pa.schema([schema.field(0)])
        cells = read_workbook(file, [schema.get_field_index(field.name) for field in read])
        for field, column in zip(read, cells, strict=True):
            if column[:1] != [escape(field.name, field.name)]:
                raise pa.ArrowInvalid("the file lacks columns")
        arrays = [
            from_cells(column[1:], field.type) for field, column in zip(read, cells, strict=True)
        ]
        table = pa.Table.from_arrays(arrays, schema=read)
        return table if wanted.names else table.select([])

    def _round_trip(self, table: pa.Table) -> None:
        for field, column in zip(table.schema, table.columns, strict=True):
            from_cells(to_cells(field.name, column).values, field.type)
