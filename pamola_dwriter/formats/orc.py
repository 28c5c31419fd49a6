"""ORC through pyarrow, exact both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.orc

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.casting import check_columns, conform, is_list, selected, storage_of
from pamola_dwriter.formats.compression import check_spec, codec_name
from pamola_dwriter.spec import FormatSpec

_DEFAULT = "zstd"
_CODECS = ("zstd", "snappy", "zlib", "lz4", "none")

_STAND_INS = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
}


class OrcSerializer:
    """One ORC file for each table; columns are compressed inside, with zstd by default.

    What ORC has no type for is held by one that has room for every value, and comes back as it
    was: unsigned integers by wider ones, times and durations by integer counts of their unit,
    decimals of more than 38 digits by text. Refused is what pyarrow would write wrongly or could
    not read back: structs within structs, timestamps before 1677 or after 2262. It takes no
    options.

    Notes
    -----
    pyarrow looks for the time zone database of the operating system, also to write times without
    a zone. Before version 15 it may crash on a damaged file; an encrypted part is never parsed
    before it is authenticated.
    """

    columnar = True

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with its codec filled in; see the protocol."""
        return check_spec(spec, [], _DEFAULT, _CODECS)

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        check_columns(schema, "orc", self._round_trip)
        for field in schema:
            if _has_struct(_stored_type(field.type), within=1):
                raise UnsupportedDataError(
                    f"column {field.name!r}: pyarrow loses values of a struct within a struct when "
                    "it writes orc; flatten the column or choose another format"
                )

    def extension(self, spec: FormatSpec) -> str:
        """Return ``orc``."""
        return "orc"

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`.

        Raises
        ------
        UnsupportedDataError
            A timestamp is out of range; or there is no column, on which pyarrow would crash.
        """
        if not table.num_columns:
            raise UnsupportedDataError("orc cannot hold a table without columns")
        codec = codec_name(spec.compression, _DEFAULT, _CODECS)
        sink = pa.BufferOutputStream()
        pa.orc.write_table(
            _encode(table), sink, compression="uncompressed" if codec == "none" else codec
        )
        return sink.getvalue()

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`), reading only their bytes."""
        wanted = selected(schema, columns)
        # Reading no column at all would lose the number of rows.
        table = pa.orc.ORCFile(file).read(columns=wanted.names or schema.names[:1])
        return conform(table, wanted)

    def _round_trip(self, table: pa.Table) -> None:
        data = self.dumps(table, FormatSpec(name="orc"))
        self.load(pa.BufferReader(data), table.schema, None, FormatSpec(name="orc"))


def _stored_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type that ORC holds for `data_type`, which is never left to pyarrow to guess.

    pyarrow ends the process on a decimal of negative scale, and counts every timestamp in
    nanoseconds, where those of coarser units may overflow unnoticed.
    """
    types = pa.types
    if types.is_timestamp(data_type):
        return pa.timestamp("ns", None if data_type.tz is None else "UTC")
    if types.is_decimal(data_type):
        fits = types.is_decimal128(data_type) and data_type.scale >= 0
        return data_type if fits else pa.string()
    if types.is_time(data_type) or types.is_duration(data_type):
        return pa.int32() if data_type.bit_width == 32 else pa.int64()
    if isinstance(data_type, pa.BaseExtensionType):
        return _stored_type(data_type.storage_type)
    if types.is_dictionary(data_type):
        return _stored_type(data_type.value_type)
    if is_list(data_type):
        list_of = pa.large_list if types.is_large_list(data_type) else pa.list_
        return list_of(_stored_type(data_type.value_type))
    if types.is_map(data_type):
        return pa.map_(_stored_type(data_type.key_type), _stored_type(data_type.item_type))
    if types.is_struct(data_type):
        return pa.struct([(field.name, _stored_type(field.type)) for field in data_type])
    return _STAND_INS.get(data_type, data_type)


def _has_struct(data_type: pa.DataType, *, within: int) -> bool:
    """Return whether there is a struct that stands in `within` others, lists between or not.

    pyarrow 14 to 26 write ``{"a": {"b": 1}}`` after ``{"a": None}`` as ``{"a": {"b": 0}}``.
    """
    if pa.types.is_struct(data_type):
        return not within or any(_has_struct(field.type, within=within - 1) for field in data_type)
    if pa.types.is_map(data_type):
        return _has_struct(data_type.item_type, within=within)
    return is_list(data_type) and _has_struct(data_type.value_type, within=within)


def _encode(table: pa.Table) -> pa.Table:
    columns = {}
    for field in table.schema:
        column = _encode_column(table.column(field.name))
        if column is None:
            # Outside of any except clause: not even the error's context may quote a value.
            raise UnsupportedDataError(
                f"column {field.name!r}: a timestamp before 1677 or after 2262 cannot be read "
                "back from orc; write parquet"
            )
        columns[field.name] = column
    return pa.table(columns)


def _encode_column(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if pa.types.is_null(column.type):
        return column.cast(pa.int8())
    try:
        stored = storage_of(column).cast(_stored_type(column.type))
    except pa.ArrowInvalid:
        return None
    return _copied(stored) if pa.types.is_nested(stored.type) else stored


def _copied(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `column` without offsets: pyarrow 14 to 26 forgets nulls of a struct that has one."""
    # Of two arrays a copy is made; one alone would be returned as it is.
    chunks = [pa.concat_arrays([chunk, chunk.slice(0, 0)]) for chunk in column.chunks]
    return pa.chunked_array(chunks, type=column.type)
