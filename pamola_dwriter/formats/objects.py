"""Arrow arrays of pandas values as they are, without a wish for a type.

pyarrow guesses the type of an ``object`` column from its first values and then bends the rest:
a datetime after a date loses its time, text beside bytes becomes bytes, a Timestamp its
nanoseconds. What it would bend is refused here.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa

from pamola_dwriter.formats.casting import Column

Values: TypeAlias = "pd.Series | pd.Index"

_MOMENTS = {"datetime", "datetime64", "timedelta", "timedelta64"}
CONVERSION_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def natural_array(values: Values) -> Column | None:
    """Return `values` in the Arrow type they have by themselves, or None if there is none.

    Arrow-backed columns are not copied. Missing values of any spelling become null, except NaN
    in an Arrow-backed or nullable float column. Raises nothing: the errors of pyarrow quote
    values, which may be personal data, and so must not even become the context of another error.
    """
    try:
        if values.dtype == object:
            return _object_array(values)
        return pa.array(pd.Series(values), from_pandas=True)
    except CONVERSION_ERRORS:
        return None


def kind_of(values: Values) -> str:
    """Return what `values` are in words fit for a message, for want of an Arrow type."""
    if values.dtype != object:
        return str(values.dtype)
    return pd.api.types.infer_dtype(values, skipna=True)


def _object_array(values: Values) -> Column | None:
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind in _MOMENTS:
        return _moments(values)
    if kind == "date" and any(isinstance(value, dt.datetime) for value in _present(values)):
        return None
    array = pa.array(values, from_pandas=True)
    if isinstance(array.type, pa.BaseExtensionType):
        return None
    return array if not kind.startswith("mixed") or _mixture_is_exact(array.type) else None


def _mixture_is_exact(data_type: pa.DataType) -> bool:
    """Tell harmless mixtures: lists and dicts, integers among floats or decimals."""
    types = pa.types
    return bool(
        types.is_nested(data_type)
        or types.is_null(data_type)
        or types.is_decimal(data_type)
        or types.is_floating(data_type)
    )


def _present(values: Values) -> list[Any]:
    return values[values.notna()].tolist()


def _moments(values: Values) -> Column | None:
    typed = pd.Series(values, dtype=object).infer_objects()
    if typed.dtype != object:
        return pa.array(typed, from_pandas=True)
    present = _present(values)
    aware = {getattr(value, "tzinfo", None) is not None for value in present}
    if len(aware) > 1 or any(getattr(value, "nanosecond", 0) for value in present):
        return None
    return pa.array(values, from_pandas=True)
