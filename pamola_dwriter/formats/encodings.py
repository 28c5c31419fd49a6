"""How each column of a Parquet file is best encoded, judged by a sample of its values.

By default pyarrow collects a dictionary for every column, and drops it where it outgrows its page:
for keys, prices and free text that is work for nothing. Here a column gets a dictionary if it has
few enough values, and numbers without one are stored as differences (``DELTA_BINARY_PACKED``),
which are smaller and faster to compress. Both are of Parquet 2.4 and read by every engine of today.
See https://parquet.apache.org/docs/file-format/data-pages/encodings/ and ``benchmarks/README.md``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SAMPLE = 8192
_FEWEST_ROWS = 4096
"""Below, nothing is gained by choosing."""
_DICTIONARY_BYTES = 1 << 20
"""Where pyarrow gives a dictionary up."""
_WORTH_IT = 0.5
"""Largest share of distinct values that a dictionary is kept for."""
_SPARE_BITS = 8
"""Bits that differences must save, or they are not worth their blocks."""

_INTEGER_DECIMALS = "store_decimal_as_integer"
_KNOWS_INTEGER_DECIMALS = _INTEGER_DECIMALS in inspect.signature(pq.write_table).parameters
_LARGEST_INTEGER_DECIMAL = 18
"""Digits that fit into 64 bits."""


def choose_encodings(table: pa.Table) -> dict[str, Any]:
    """Return keyword arguments of ``pyarrow.parquet.write_table`` for this table.

    Decimals of up to 18 digits are stored as integers, as Spark does, where pyarrow can.
    """
    options: dict[str, Any] = {_INTEGER_DECIMALS: True} if _KNOWS_INTEGER_DECIMALS else {}
    rows = table.num_rows
    if rows < _FEWEST_ROWS:
        return options
    size = min(rows, _SAMPLE)
    chosen = pa.array([number * rows // size for number in range(size)])
    with_dictionary: list[str] = []
    encodings: dict[str, str] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if not _is_judged(field.type):
            with_dictionary += _leaves(field)
            continue
        sample = column.take(chosen)
        if _suits_dictionary(sample, rows):
            with_dictionary.append(field.name)
        elif _suits_differences(sample):
            encodings[field.name] = "DELTA_BINARY_PACKED"
    return options | {"use_dictionary": with_dictionary, "column_encoding": encodings or None}


def _is_judged(kind: pa.DataType) -> bool:
    """Return whether values can be counted; every other type keeps pyarrow's own choice."""
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal128(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
    )


def _leaves(field: pa.Field, above: str = "") -> Iterator[str]:
    """Name the columns of a file that hold a field, those of lists as older and newer files do."""
    path, kind = f"{above}{field.name}", field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_struct(kind):
        for child in kind:
            yield from _leaves(child, f"{path}.")
    elif pa.types.is_map(kind):
        for name, child in (("key", kind.key_field), ("value", kind.item_field)):
            yield from _leaves(child.with_name(name), f"{path}.key_value.")
    elif pa.types.is_nested(kind) and hasattr(kind, "value_field"):
        for name in ("element", "item"):
            yield from _leaves(kind.value_field.with_name(name), f"{path}.list.")
    else:
        yield path


def _suits_dictionary(sample: pa.ChunkedArray, rows: int) -> bool:
    values = sample.drop_null()
    if not len(values):
        return True
    rows = rows * len(values) // len(sample)
    distinct = _estimate_distinct(pc.count_distinct(values).as_py(), len(values), rows)
    width = values.nbytes / len(values)
    return distinct * width <= _DICTIONARY_BYTES and distinct <= _WORTH_IT * rows


def _estimate_distinct(seen: int, size: int, rows: int) -> float:
    """Return how many distinct values `rows` have of which `size` drawn ones show `seen`.

    If all were equally frequent, D of them would show D (1 - exp(-size / D)) on average.
    """
    if seen >= size:
        return rows
    low, high = float(seen), float(rows)
    for _ in range(30):
        middle = (low + high) / 2
        if middle * -math.expm1(-size / middle) < seen:
            low = middle
        else:
            high = middle
    return high


def _suits_differences(sample: pa.ChunkedArray) -> bool:
    kind = sample.type
    if pa.types.is_decimal(kind):
        return _KNOWS_INTEGER_DECIMALS and kind.precision <= _LARGEST_INTEGER_DECIMAL
    if not (pa.types.is_integer(kind) or pa.types.is_temporal(kind)) or kind.bit_width < 32:
        return False
    numbers = sample.cast(pa.int32() if kind.bit_width == 32 else pa.int64(), safe=False)
    bounds = pc.min_max(numbers).as_py()
    spread: int = bounds["max"] - bounds["min"]
    return bool(spread < 1 << (kind.bit_width - _SPARE_BITS))
