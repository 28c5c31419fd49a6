"""Values of ``partition_on`` columns: as the text of a folder name, and back exactly."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.casting import Column, cast, nulls, type_name

_KINDS = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_date,
    pa.types.is_timestamp,
)


def check_hive_columns(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raise UnsupportedDataError, naming the column, if its values are not exact as text."""
    for name in columns:
        data_type = _value_type(schema.field(name).type)
        if not any(kind(data_type) for kind in _KINDS):
            raise UnsupportedDataError(
                f"partition_on cannot use column {name!r} of type {type_name(data_type)}; "
                "use text, numbers, booleans, dates or timestamps"
            )


def to_text(column: Column) -> Column:
    """Return the values as text, nulls as nulls."""
    return pc.cast(cast(column, _value_type(column.type)), pa.string())


def from_text(text: str | None, data_type: pa.DataType, rows: int) -> Column:
    """Return a column of so many times the value that :func:`to_text` gave as `text`."""
    if text is None:
        return nulls(rows, data_type)
    value = pa.scalar(text, pa.string()).cast(_value_type(data_type))
    return cast(pa.repeat(value, rows), data_type)


def _value_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type
