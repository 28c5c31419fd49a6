"""What each type of Python, NumPy and pandas becomes in JSON: one table, in order.

A rule turns a value into a simpler one, until it is of a plain type; so a rule is one line,
and an array of records of dates needs no rule of its own. A type that no rule names is refused:
its ``str()`` would be text that nobody can read back.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MappingView
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype
from upath import UPath

PLAIN = frozenset([type(None), bool, int, float, str, dict, list, set, frozenset])
"""The types that need no rule; subclasses of them do."""

_PANDAS_UNITS = {"s", "ms", "us", "ns"}
_DURATION_UNITS = {"W", "D", "h", "m", *_PANDAS_UNITS}


class UnfitError(Exception):
    """No rule fits; says what to do instead, and never leaves the package."""


def simplify(value: Any) -> Any:
    """Return a simpler value of the same meaning, in the end one of a type in ``PLAIN``.

    Raises
    ------
    UnfitError
        There is no rule for it.
    """
    for kind, rule in _RULES:
        if isinstance(value, kind):
            return rule(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    raise UnfitError(_advice(value))


def only_numbers_rows(index: pd.Index) -> bool:
    """Return whether an index is an unnamed integer one, which only numbers the rows."""
    return bool(index.nlevels == 1 and index.name is None and index.dtype.kind in "iu")


def _fields(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    if not all(hasattr(value, name) for name in names):
        raise UnfitError("one of its fields was never set")
    return {name: getattr(value, name) for name in names}


def _advice(value: Any) -> str:
    if isinstance(value, complex):
        return "write its real and its imaginary part"
    if isinstance(value, Iterator):
        # A write that somebody outran is tried again, and would then find it exhausted.
        return "it can be read only once, so make it a list"
    if hasattr(type(value), "__dask_graph__"):
        return "compute() it first"
    return "convert it to numbers, text, dates, lists or dicts"


def _datetime64(value: np.datetime64) -> pd.Timestamp | str | None:
    if np.isnat(value):
        return None
    if np.datetime_data(value.dtype)[0] in _PANDAS_UNITS:
        return pd.Timestamp(value)
    # A date without a time, or finer than pandas, whose version 2 gets picoseconds wrong.
    return str(np.datetime_as_string(value))


def _timedelta64(value: np.timedelta64) -> pd.Timedelta | None:
    if np.isnat(value):
        return None
    if np.datetime_data(value.dtype)[0] not in _DURATION_UNITS:
        raise UnfitError("convert it to a unit between W and ns")
    try:
        return pd.Timedelta(value)
    except ValueError:
        raise UnfitError("it is longer than pandas holds") from None


def _numpy_scalar(value: np.generic) -> Any:
    if value.dtype.names is not None:
        return {name: value[name] for name in value.dtype.names}  # type: ignore[index]
    item = value.item()
    if isinstance(item, np.generic):
        raise UnfitError("no JSON reader keeps its digits: astype(float) first")
    return item


def _array(array: np.ndarray[Any, Any]) -> Any:
    kind = array.dtype.kind
    if kind in "biuUSO" or (kind == "f" and array.dtype.itemsize <= 8):
        return array.tolist()
    if array.ndim:
        return list(array)
    if array.dtype.names is not None:  # a record with masked fields, which is no np.void
        return {name: array[name] for name in array.dtype.names}
    return array[()]


def _duration(value: dt.timedelta) -> str:
    """Return ``P1DT2H3M4.5S``, as pandas does; with the sign in front, which more readers know."""
    whole = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    nanoseconds = whole * 1_000 + getattr(value, "nanoseconds", 0)
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    decimals = f".{fraction:09}".rstrip("0") if fraction else ""
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}P{days}DT{hours}H{minutes}M{seconds}{decimals}S"


def _interval(value: pd.Interval[Any]) -> str:
    left, right = (_endpoint(end) for end in (value.left, value.right))
    begin = "[" if value.closed_left else "("
    return f"{begin}{left}, {right}{']' if value.closed_right else ')'}"


def _endpoint(value: Any) -> str:
    while not isinstance(value, str | int | float):
        value = simplify(value)
    return str(value)


def _series(series: pd.Series[Any]) -> Any:
    values = series.tolist()
    if only_numbers_rows(series.index):
        return values
    if not series.index.is_unique:
        raise UnfitError("a label occurs twice in its index: reset_index() first")
    return dict(zip(series.index.tolist(), values, strict=True))


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    if not only_numbers_rows(frame.index):
        try:
            frame = frame.reset_index()
        except ValueError:
            raise UnfitError("its index is named like a column: rename one of them") from None
    if not frame.columns.is_unique:
        raise UnfitError("two of its columns have one name: rename them")
    names = frame.columns.tolist()
    columns = [frame.iloc[:, number].tolist() for number in range(len(names))]
    rows = zip(*columns, strict=True) if columns else [()] * len(frame)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _tuple(value: tuple[Any, ...]) -> Any:
    fields = getattr(value, "_fields", None)
    return list(value) if fields is None else dict(zip(fields, value, strict=True))


# The first rule that fits counts, so subclasses stand before their parents: NaT and Timestamp
# are datetimes, and those are dates; NumPy's float64 is a float, an Enum may be a str.
_RULES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    ((type(pd.NaT), type(pd.NA)), lambda _: None),
    (Enum, lambda value: value.value),
    (np.datetime64, _datetime64),
    (np.timedelta64, _timedelta64),
    (np.generic, _numpy_scalar),
    (np.ndarray, _array),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    # As text: a number would lose its digits in nearly every reader, which parses doubles.
    (Decimal, lambda value: str(value) if value.is_finite() else None),
    ((dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, _duration),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(bytes(value)).decode()),
    ((PurePath, UPath, UUID, pd.Period, np.dtype, ExtensionDtype), str),
    (pd.Interval, _interval),
    (pd.Series, _series),
    (pd.DataFrame, _records),
    ((pd.Index, ExtensionArray), lambda value: value.tolist()),
    (Mapping, dict),
    (tuple, _tuple),
    ((list, deque, range, MappingView), list),
    ((set, frozenset), set),
)
