"""Arrow casts that never lose anything: between types of one family, and back from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pamola_dwriter.errors import UnsupportedDataError

Column: TypeAlias = "pa.Array | pa.ChunkedArray"

_FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    lambda t: bool(pa.types.is_string(t) or pa.types.is_large_string(t)),
    lambda t: bool(pa.types.is_binary(t) or pa.types.is_large_binary(t)),
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_duration,
    pa.types.is_decimal,
    lambda t: bool(pa.types.is_timestamp(t) and t.tz is None),
    lambda t: bool(pa.types.is_timestamp(t) and t.tz is not None),
    lambda t: bool(pa.types.is_integer(t) or pa.types.is_floating(t)),
)


def type_name(data_type: pa.DataType) -> str:
    """Return a name fit for a message: a struct's field names may be personal data."""
    return str(data_type).split("<")[0] if pa.types.is_nested(data_type) else str(data_type)


def selected(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """Return the schema of some columns, in their order; None means all of them."""
    names = schema.names if columns is None else columns
    return pa.schema([schema.field(name) for name in names], metadata=schema.metadata)


def is_list(data_type: pa.DataType) -> bool:
    """Return whether values are lists of any layout (not maps)."""
    types = pa.types
    return bool(
        types.is_list(data_type)
        or types.is_large_list(data_type)
        or types.is_fixed_size_list(data_type)
    )


def castable(found: pa.DataType, expected: pa.DataType) -> bool:
    """Return whether values of `found` mean the same when cast to `expected`.

    Arrow also casts text to numbers and times to dates; such a cast would hide a mistake.
    """
    if found.equals(expected) or pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        return castable(found.value_type, expected)
    if pa.types.is_dictionary(expected):
        return castable(found, expected.value_type)
    if pa.types.is_map(found) and pa.types.is_map(expected):
        return castable(found.key_type, expected.key_type) and castable(
            found.item_type, expected.item_type
        )
    if is_list(found) and is_list(expected):
        return castable(found.value_type, expected.value_type)
    if pa.types.is_struct(found) and pa.types.is_struct(expected):
        return _struct_castable(found, expected)
    if pa.types.is_integer(found) and pa.types.is_decimal(expected):
        return True
    return any(family(found) and family(expected) for family in _FAMILIES)


def _struct_castable(found: pa.DataType, expected: pa.DataType) -> bool:
    wanted = {field.name: field.type for field in expected}
    return all(f.name in wanted and castable(f.type, wanted[f.name]) for f in found)


def nulls(length: int, data_type: pa.DataType) -> pa.Array:
    """Return an all-null array of any type, extension types included."""
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, pa.nulls(length, data_type.storage_type))
    return pa.nulls(length, data_type)


def cast(array: Column, expected: pa.DataType) -> Column:
    """Return `array` as `expected`, including encodings that Arrow's own cast lacks.

    Raises
    ------
    pyarrow.ArrowInvalid
        A value does not fit; the message of Arrow may hold that value.
    """
    found = array.type
    if found.equals(expected):
        return array
    if pa.types.is_null(found) or (pa.types.is_null(expected) and array.null_count == len(array)):
        return nulls(len(array), expected)
    if pa.types.is_dictionary(expected) and not pa.types.is_dictionary(found):
        return cast(array, expected.value_type).dictionary_encode().cast(expected)
    if isinstance(expected, pa.BaseExtensionType):
        return _wrap(cast(array, expected.storage_type), expected)
    if pa.types.is_integer(found) and pa.types.is_decimal(expected):
        # Straight away, Arrow wants room for any integer, not only for those that are there.
        array = array.cast(pa.decimal128(20, 0))
    floats = pa.types.is_floating(found) and pa.types.is_floating(expected)
    if floats and expected.bit_width < found.bit_width:
        return _narrow(array, expected)
    return array.cast(expected, safe=True)


def _wrap(storage: Column, expected: pa.DataType) -> Column:
    chunks = storage.chunks if isinstance(storage, pa.ChunkedArray) else [storage]
    wrapped = [pa.ExtensionArray.from_storage(expected, chunk) for chunk in chunks]
    return pa.chunked_array(wrapped, type=expected)


def _narrow(array: Column, expected: pa.DataType) -> Column:
    # Arrow's safe=True still rounds doubles to floats (arrow.apache.org/docs/cpp/compute.html).
    result = array.cast(expected)
    back = result.cast(array.type)
    if pc.all(pc.or_(pc.equal(back, array), pc.is_nan(array))).as_py() is False:
        raise pa.ArrowInvalid("the narrower float would round")
    return result


def storage_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `column` as what its extension type or dictionary encoding stands for."""
    data_type = column.type
    if isinstance(data_type, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return storage_of(pa.chunked_array(chunks, type=data_type.storage_type))
    if pa.types.is_dictionary(data_type):
        return storage_of(column.cast(data_type.value_type))
    return column


def one_array(column: Column) -> pa.Array:
    """Return `column` as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else nulls(0, column.type)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `table`, as a file gave it back, with exactly the types of `schema`.

    Raises
    ------
    pyarrow.ArrowInvalid
        A column is missing, or does not fit.
    """
    if not set(schema.names) <= set(table.column_names):
        raise pa.ArrowInvalid("the file lacks columns")
    table = table.select(schema.names)
    if table.schema.equals(schema, check_metadata=True) or not schema.names:
        return table
    columns = [cast(table.column(field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def check_columns(
    schema: pa.Schema, format_name: str, round_trip: Callable[[pa.Table], object]
) -> None:
    """Try small tables of `schema`, and name the column that this pyarrow cannot hold.

    A trial knows the installed pyarrow better than a list of types would: the half floats that
    Parquet takes today it refused in pyarrow 14.
    """
    if _works(schema, round_trip):
        return
    for field in schema:
        if not _works(pa.schema([field]), round_trip):
            raise UnsupportedDataError(
                f"column {field.name!r}: {format_name} cannot hold {type_name(field.type)}; "
                f"convert the column or choose another format"
            )
    raise UnsupportedDataError(f"{format_name} cannot hold these columns together")


def _works(schema: pa.Schema, round_trip: Callable[[pa.Table], object]) -> bool:
    try:
        round_trip(schema.empty_table())
        # Arrow casts nested arrays without elements even where it has no cast for those.
        examples = _examples(schema)
        if examples.num_columns:
            round_trip(examples)
    except (pa.ArrowException, OSError, TypeError, KeyError):
        return False
    return True


def _examples(schema: pa.Schema) -> pa.Table:
    """Return one row of the nested columns, with an element in every list."""
    columns = {}
    for field in schema:
        if pa.types.is_nested(field.type):
            # pyarrow itself has no way to make extension types that are nested.
            with suppress(pa.ArrowException):
                columns[field] = pa.array([_example(field.type)], field.type)
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(list(columns)))


def _example(data_type: pa.DataType) -> Any:
    types = pa.types
    if types.is_map(data_type):
        return [(_example(data_type.key_type), _example(data_type.item_type))]
    if types.is_struct(data_type):
        return {field.name: _example(field.type) for field in data_type}
    if types.is_dictionary(data_type):
        return _example(data_type.value_type)
    if types.is_nested(data_type) and hasattr(data_type, "value_type"):
        return [_example(data_type.value_type)] * getattr(data_type, "list_size", 1)
    width = data_type.byte_width if types.is_fixed_size_binary(data_type) else 0
    for value in (0, np.float16(0), False, "", bytes(width)):
        with suppress(pa.ArrowException, TypeError):
            pa.array([value], data_type)
            return value
    return None
