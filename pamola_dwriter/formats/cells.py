"""Columns as the cells of an Excel sheet: what stands in the XML of each, and the way back.

Excel knows texts, truth values and doubles, and shows a double as a date by its format. What a
double would round (long integers and decimals, times finer than Excel's milliseconds) is refused,
and so is what would make a file that Excel cannot open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.casting import Column, cast, storage_of

MAX_TEXT = 32_767
_EXACT_INTEGER = 2**53
_DAY = 86_400_000
"""A day in the unit of the times that Excel keeps: milliseconds."""
_FIRST_DAY, _LAST_DAY = -25_567, 2_932_896
"""1900-01-01 and 9999-12-31 in days since 1970."""
_EPOCH = 25_569
"""1970-01-01 in Excel's days, which for Excel count from the start of 1900."""
_LEAP_DAY = 60
"""1900-02-29, a day that Excel alone knows: the days before it are counted one less."""

# XML 1.0 has no way to write these.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
# A parser makes a newline of "\r". Excel writes it so, and what looks so as an escape of its own
# (ST_Xstring in ECMA-376, part 1, 22.9.2.19).
_TO_ESCAPE = re.compile("\r|_(?=x[0-9A-Fa-f]{4}[_\r])")
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


@dataclass(frozen=True, slots=True)
class Cells:
    """One column as a sheet holds it.

    Attributes
    ----------
    values : list of str or None
        The text of each cell, not yet escaped for XML; None is a blank cell.
    kind : str
        ``text``, ``number``, ``bool``, ``date`` or ``time``.
    """

    values: list[str | None]
    kind: str


def to_cells(name: str, column: pa.ChunkedArray) -> Cells:
    """Return the cells of a column.

    Raises
    ------
    UnsupportedDataError
        Excel would change a value, or could not open the file.
    pyarrow.ArrowNotImplementedError
        Excel has nothing for this type.
    """
    column = storage_of(column)
    data_type, types = column.type, pa.types
    if types.is_null(data_type) or types.is_string(data_type) or types.is_large_string(data_type):
        texts = column.to_pylist()
        return Cells([None if text is None else escape(name, text) for text in texts], "text")
    if types.is_boolean(data_type):
        return Cells(column.cast(pa.int8()).cast(pa.string()).to_pylist(), "bool")
    if types.is_date(data_type) or (types.is_timestamp(data_type) and data_type.tz is None):
        kind = "date" if types.is_date(data_type) else "time"
        return Cells(_days(name, column).cast(pa.string()).to_pylist(), kind)
    if types.is_integer(data_type) or types.is_floating(data_type) or types.is_decimal(data_type):
        return Cells(_numbers(name, column), "number")
    raise pa.ArrowNotImplementedError("no cell")


def escape(name: str, text: str) -> str:
    """Return `text` as a cell holds it, or raise UnsupportedDataError naming column `name`."""
    if _NO_XML.search(text):
        raise _refusal(name, "a text holds a control character, which Excel files cannot")
    escaped = _TO_ESCAPE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    # Excel counts code units of UTF-16.
    if len(escaped) > MAX_TEXT // 2 and len(escaped.encode("utf-16-le")) // 2 > MAX_TEXT:
        raise _refusal(name, f"a text is longer than the {MAX_TEXT:,} characters of a cell")
    return escaped


def unescape(text: str) -> str:
    """Return the text that :func:`escape` made `text` of."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _numbers(name: str, column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_integer(column.type):
        bounds = [bound for bound in pc.min_max(column).as_py().values() if bound is not None]
        if any(abs(bound) > _EXACT_INTEGER for bound in bounds):
            raise _refusal(name, "an integer is beyond 2**53, which Excel would round")
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
        if pc.all(pc.is_finite(column)).as_py() is False:
            raise _refusal(name, "Excel has neither NaN nor infinity")
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    if pa.types.is_decimal(column.type):
        exact = (Decimal(repr(float(text))) == Decimal(text) for text in texts if text is not None)
        if not all(exact):
            raise _refusal(name, "a decimal has more digits than Excel keeps, which are 15")
    return texts


def _days(name: str, column: pa.ChunkedArray) -> pa.Array:
    """Return dates and times as Excel counts them."""
    array = _milliseconds(column)
    if array is None:
        # Outside of any except clause: not even the error's context may quote a value.
        raise _refusal(name, "a time is finer than Excel's milliseconds; round it (dt.round('ms'))")
    numbers = array.fill_null(0).to_numpy(zero_copy_only=False)
    missing = array.is_null().to_numpy(zero_copy_only=False)
    outside = (numbers < _FIRST_DAY * _DAY) | (numbers >= (_LAST_DAY + 1) * _DAY)
    if (outside & ~missing).any():
        raise _refusal(name, "Excel has no dates outside the years 1900 to 9999")
    days = numbers / _DAY + _EPOCH
    return pa.array(days - (days < _LEAP_DAY + 1), mask=missing)


def _milliseconds(column: pa.ChunkedArray) -> pa.Array | None:
    try:
        return pa.concat_arrays(
            [chunk.cast(pa.timestamp("ms")).cast(pa.int64()) for chunk in column.chunks]
            or [pa.array([], pa.int64())]
        )
    except pa.ArrowInvalid:
        return None


def _refusal(name: str, reason: str) -> UnsupportedDataError:
    return UnsupportedDataError(
        f"column {name!r}: {reason}; change or convert the column, or choose another format"
    )


def from_cells(values: list[str | None], data_type: pa.DataType) -> Column:
    """Return the column of `data_type` that :func:`to_cells` made `values` of.

    Raises
    ------
    pyarrow.ArrowInvalid
        It made something else of it.
    """
    types = pa.types
    if isinstance(data_type, pa.BaseExtensionType):
        return cast(from_cells(values, data_type.storage_type), data_type)
    if types.is_dictionary(data_type):
        return cast(from_cells(values, data_type.value_type), data_type)
    if types.is_string(data_type) or types.is_large_string(data_type):
        texts = [None if value is None else unescape(value) for value in values]
        return pa.array(texts, data_type)
    cells = pa.array(values, pa.string())
    if types.is_null(data_type):
        return cast(cells, data_type)
    if types.is_boolean(data_type):
        return cells.cast(pa.int8()).cast(data_type)
    if types.is_date(data_type) or types.is_timestamp(data_type):
        return _from_days(cells.cast(pa.float64())).cast(data_type)
    return cells.cast(data_type)


def _from_days(days: pa.Array) -> pa.Array:
    numbers = days.fill_null(_EPOCH).to_numpy(zero_copy_only=False)
    numbers = numbers + (numbers < _LEAP_DAY) - _EPOCH
    counts = np.rint(numbers * _DAY).astype("int64")
    return pa.array(counts, mask=days.is_null().to_numpy(zero_copy_only=False)).cast(
        pa.timestamp("ms")
    )
