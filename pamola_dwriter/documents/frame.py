"""Dictionaries as frames, for the formats that hold columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray
from upath import UPath

from pamola_dwriter.documents.plain import Path, text_of, unique_names
from pamola_dwriter.documents.rules import only_numbers_rows, simplify
from pamola_dwriter.errors import UnsupportedDataError

_TYPED = (np.ndarray, pd.Series, pd.Index, ExtensionArray)
_COLUMN = (list, tuple, range, *_TYPED)
_SCALAR = (
    *(type(None), str, bytes, bool, int, float, Decimal, Enum, UUID, PurePath, UPath, np.generic),
    *(dt.date, dt.time, dt.timedelta, pd.Period, pd.Interval, type(pd.NaT), type(pd.NA)),
)
_MIXED = {"mixed", "mixed-integer", "period", "interval", "complex"}


def to_frame(data: Mapping[Any, Any]) -> pd.DataFrame:
    """Return a dictionary as a frame.

    ========================= ==================================================================
    The values are            The frame has
    ========================= ==================================================================
    all lists or arrays       one column each, named by its key
    all dictionaries          a column ``key``, and one for each of their keys; one that lacks
                              a key has a null there
    all numbers, text, dates  the columns ``key`` and ``value``
    ========================= ==================================================================

    A column of one kind of value keeps its type. One of several kinds, and one of nested values,
    becomes text as a whole: text as it is, everything else as its JSON, null stays null. So a
    column has one type in every format.

    Raises
    ------
    UnsupportedDataError
        It is no dictionary, or one of another shape; columns differ in length; two names become
        the same text; a value has no place in JSON.
    """
    if not isinstance(data, Mapping):
        raise UnsupportedDataError(f"a dictionary is needed, not {type(data).__name__}")
    values = list(data.values())
    if all(isinstance(value, _SCALAR) for value in values):
        return pd.DataFrame({"key": _keys(data), "value": _series("value", values)})
    if all(isinstance(value, Mapping) for value in values):
        return _from_rows(data)
    if all(isinstance(value, _COLUMN) for value in values):
        return _from_columns(data)
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise UnsupportedDataError(
        f"a dictionary for a table holds only lists, only dictionaries, or only single values, "
        f"not {kinds} together; write it as json, or make it a DataFrame"
    )


def _from_columns(data: Mapping[Any, Any]) -> pd.DataFrame:
    names = unique_names(data)
    columns = {name: _column(name, data[key]) for name, key in zip(names, data, strict=True)}
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name!r} {len(column)}" for name, column in columns.items())
        raise UnsupportedDataError(f"the columns must be of one length; there are {lengths}")
    return pd.DataFrame(columns)


def _column(name: str, values: Any) -> pd.Series[Any]:
    if not isinstance(values, _TYPED):
        return _series(name, values)
    if values.ndim != 1:
        raise UnsupportedDataError(f"column {name!r} has {values.ndim} dimensions; one fits")
    if isinstance(values, pd.Series) and not only_numbers_rows(values.index):
        raise UnsupportedDataError(
            f"column {name!r} is a Series whose labels would be lost; make it a DataFrame"
        )
    if isinstance(values, np.ndarray):
        numbers = values.dtype.kind in "biuf" and not np.ma.isMaskedArray(values)
        return pd.Series(values) if numbers else _series(name, simplify(values))
    typed = values.dtype != object
    return pd.Series(values).reset_index(drop=True) if typed else _series(name, values)


def _from_rows(data: Mapping[Any, Mapping[Any, Any]]) -> pd.DataFrame:
    inner = list(dict.fromkeys(key for row in data.values() for key in row))
    names = unique_names(inner)
    if "key" in names:
        raise UnsupportedDataError(
            "the column 'key' holds the outer keys, so no inner one may have that name; rename it"
        )
    columns = {"key": _keys(data)}
    for key, name in zip(inner, names, strict=True):
        columns[name] = _series(name, [row.get(key) for row in data.values()])
    return pd.DataFrame(columns)


def _keys(data: Mapping[Any, Any]) -> pd.Series[Any]:
    keys = _series("key", list(data))
    if keys.duplicated().any() or keys.isna().sum() > 1:
        raise UnsupportedDataError("two keys become the same text; rename one of them")
    return keys


def _series(name: str, values: Iterable[Any]) -> pd.Series[Any]:
    """Return values as a column of one type, of objects of one kind, or of text."""
    cells = [_cell(value, (name, row)) for row, value in enumerate(values)]
    kind = pd.api.types.infer_dtype(cells, skipna=True)
    if kind in _MIXED or _would_bend(kind, cells) or not _has_type(cells):
        texts = [text_of(cell, (name, row)) for row, cell in enumerate(cells)]
        return pd.Series(texts, dtype=object)
    series = pd.Series(cells, dtype=object)
    # Integers beside floats or missing values stay objects: pandas would make them all floats.
    exact = kind != "mixed-integer-float" and not series.isna().any()
    return series.infer_objects() if exact else series


def _cell(value: Any, path: Path) -> Any:
    """Return a value without its wrapping by Enum or NumPy."""
    if isinstance(value, Enum):
        return _cell(value.value, path)
    if isinstance(value, np.generic):
        text_of(value, path)  # says what is wrong with it, and where
        return simplify(value)
    return value


def _would_bend(kind: str, cells: list[Any]) -> bool:
    """Tell whether Arrow would cut datetimes among dates, or time zones among naive datetimes."""
    times = [cell for cell in cells if isinstance(cell, dt.datetime) and pd.notna(cell)]
    return bool(times) and (kind == "date" or len({time.tzinfo is None for time in times}) > 1)


def _has_type(cells: list[Any]) -> bool:
    """Tell whether Arrow has one type for all cells; not for integers beyond 64 bits."""
    try:
        pa.array(cells, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True
