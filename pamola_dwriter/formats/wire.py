"""What a text file holds in place of an Arrow type, and the way back.

Whatever CSV or JSON has no notion of is written as text that other programs understand: dates
and times as in RFC 3339 (``2020-01-31 23:59:59.123Z``; zoned times in UTC), decimals with all
their digits. Durations and periods are integer counts of their unit.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.casting import Column, cast, is_list, storage_of

_TEXT_LENGTHS = {"s": 19, "ms": 23, "us": 26, "ns": 29}
_EPOCH_DAY = "1970-01-01 "


def wire_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type that a text file holds for `data_type`.

    Raises
    ------
    pyarrow.ArrowNotImplementedError
        There is none: binary data, maps, Arrow's calendar intervals.
    """
    types = pa.types
    if types.is_dictionary(data_type):
        return wire_type(data_type.value_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return wire_type(data_type.storage_type)
    if is_list(data_type):
        return pa.list_(wire_type(data_type.value_type))
    if types.is_struct(data_type):
        return pa.struct([(field.name, wire_type(field.type)) for field in data_type])
    if types.is_duration(data_type):
        return pa.int64()
    if types.is_float16(data_type):
        return pa.float32()
    if types.is_decimal(data_type) or (types.is_temporal(data_type) and not _is_span(data_type)):
        return pa.string()
    if types.is_primitive(data_type) and not _is_span(data_type):
        return data_type
    if types.is_null(data_type) or types.is_string(data_type) or types.is_large_string(data_type):
        return data_type
    raise pa.ArrowNotImplementedError("no text form")


def _is_span(data_type: pa.DataType) -> bool:
    return bool(data_type == pa.month_day_nano_interval())


def wire_schema(schema: pa.Schema) -> pa.Schema:
    """Return the wire types of all columns, without metadata."""
    return pa.schema([(field.name, wire_type(field.type)) for field in schema])


def encode(table: pa.Table, *, dates: bool = False) -> pa.Table:
    """Return `table` with every column in its wire type.

    With `dates`, a column of nothing but midnights holds dates, as pandas writes it to CSV.

    Raises
    ------
    UnsupportedDataError
        A date or time lies outside the years 0 to 9999, which alone have a text form.
    """
    columns = [_encode(name, table.column(name), dates=dates) for name in table.schema.names]
    return pa.Table.from_arrays(columns, schema=wire_schema(table.schema))


def _encode(name: str, column: pa.ChunkedArray, *, dates: bool) -> pa.ChunkedArray:
    column = storage_of(column)
    if pa.types.is_timestamp(column.type):
        column = _shortened(column, dates=dates)
    data_type = column.type
    text = column.cast(_in_utc(data_type)).cast(wire_type(data_type))
    length = _text_length(data_type)
    if length is not None:
        bounds = pc.min_max(pc.utf8_length(text)).as_py()
        if bounds["min"] is not None and set(bounds.values()) != {length}:
            raise UnsupportedDataError(
                f"column {name!r}: a date outside the years 0 to 9999 has no text form; "
                f"write parquet"
            )
    return text


def _shortened(column: pa.ChunkedArray, *, dates: bool) -> pa.ChunkedArray:
    """Return times in the longest unit that is exact, which makes the shortest text."""
    zone = column.type.tz
    if dates and zone is None:
        days = column.cast(pa.date32())
        if days.cast(column.type).equals(column):
            return days
    for unit in ("s", "ms", "us"):
        try:
            return column.cast(pa.timestamp(unit, zone))
        except pa.ArrowInvalid:
            continue
    return column


def _text_length(data_type: pa.DataType) -> int | None:
    if pa.types.is_timestamp(data_type):
        return _TEXT_LENGTHS[data_type.unit] + (data_type.tz is not None)
    return 10 if pa.types.is_date(data_type) else None


def _in_utc(data_type: pa.DataType) -> pa.DataType:
    """Replace time zones: before 1900 offsets had seconds, which the text form cannot hold."""
    if pa.types.is_timestamp(data_type) and data_type.tz is not None:
        return pa.timestamp(data_type.unit, "UTC")
    if is_list(data_type):
        return pa.list_(_in_utc(data_type.value_type))
    if pa.types.is_struct(data_type):
        return pa.struct([(field.name, _in_utc(field.type)) for field in data_type])
    return data_type


def decode(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema` from a table of wire types."""
    columns = [_decode(table.column(field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _decode(column: Column, data_type: pa.DataType) -> Column:
    if pa.types.is_dictionary(data_type):
        return cast(_decode(column, data_type.value_type), data_type)
    if pa.types.is_time(data_type):
        # Arrow has no cast from text to a time, only to a timestamp.
        unit = data_type.unit
        days = pc.binary_join_element_wise(_EPOCH_DAY, column, "")
        return days.cast(pa.timestamp(unit)).cast(data_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return cast(_decode(column, data_type.storage_type), data_type)
    return column.cast(_in_utc(data_type)).cast(data_type)
