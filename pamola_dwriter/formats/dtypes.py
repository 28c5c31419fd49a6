"""pandas dtypes as small JSON objects, and columns restored from them.

A descriptor is ``{"kind": "pandas", "dtype": name}`` for what pandas can parse back, or one of

- ``{"kind": "string", "storage": "python" | "pyarrow", "na": "NA" | "nan"}``
- ``{"kind": "arrow"}``: an ArrowDtype, whose type the Arrow schema knows
- ``{"kind": "category", "ordered": bool, "categories": text | None, "values": descriptor | None}``
  with the categories as a base64 Arrow IPC stream, or None where Dask does not know them
- ``{"kind": "object"}``
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from dask.dataframe.utils import UNKNOWN_CATEGORIES

from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats.casting import cast, one_array
from pamola_dwriter.formats.objects import natural_array

Descriptor = Mapping[str, Any]

# pandas before 2.3 spelled the NaN-valued string dtype as a storage of its own.
_OLD_STRINGS = "na_value" not in inspect.signature(pd.StringDtype).parameters


def describe_dtype(dtype: Any, name: str) -> dict[str, Any]:
    """Return the descriptor of the dtype of column `name`.

    Raises
    ------
    UnsupportedDataError
        Arrow has no such type (complex, sparse, third-party), or it could not be restored.
    """
    if isinstance(dtype, pd.ArrowDtype):
        return {"kind": "arrow"}
    if isinstance(dtype, pd.StringDtype):
        return _describe_string(dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        return _describe_category(dtype, name)
    if pd.api.types.is_object_dtype(dtype):
        return {"kind": "object"}
    if isinstance(dtype, pd.DatetimeTZDtype):
        zone = pa.lib.tzinfo_to_string(dtype.tz)
        return {"kind": "pandas", "dtype": f"datetime64[{dtype.unit}, {zone}]"}
    if not _is_restorable(dtype):
        raise UnsupportedDataError(
            f"column {name!r} has dtype {dtype}, which Arrow cannot hold; convert it with astype"
        )
    return {"kind": "pandas", "dtype": str(dtype)}


def _is_restorable(dtype: Any) -> bool:
    if isinstance(dtype, pd.SparseDtype):
        return False
    if isinstance(dtype, np.dtype):
        return natural_array(pd.Series([], dtype=dtype)) is not None
    return (
        type(dtype).__module__.split(".")[0] == "pandas"
        and pd.api.types.pandas_dtype(str(dtype)) == dtype
    )


def _describe_string(dtype: pd.StringDtype) -> dict[str, Any]:
    na = "NA" if dtype.na_value is pd.NA else "nan"
    storage = "python" if dtype.storage == "python" else "pyarrow"
    return {"kind": "string", "storage": storage, "na": na}


def _describe_category(dtype: pd.CategoricalDtype, name: str) -> dict[str, Any]:
    ordered = bool(dtype.ordered)
    if UNKNOWN_CATEGORIES in dtype.categories:
        if ordered:
            raise UnsupportedDataError(
                f"column {name!r} has ordered categories that Dask does not know; "
                f"call .cat.as_known() on it first"
            )
        return {"kind": "category", "ordered": False, "categories": None, "values": None}
    array = natural_array(dtype.categories)
    if array is None:
        raise UnsupportedDataError(
            f"column {name!r} has categories of several types, or of one that Arrow cannot hold"
        )
    values = describe_dtype(dtype.categories.dtype, name)
    encoded = _encode_array(one_array(array))
    return {"kind": "category", "ordered": ordered, "categories": encoded, "values": values}


def _encode_array(array: pa.Array) -> str:
    batch = pa.RecordBatch.from_arrays([array], names=["categories"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode("ascii")


@lru_cache(maxsize=256)
def category_array(encoded: str) -> pa.ChunkedArray:
    """Return the known categories of a descriptor as an Arrow array."""
    return pa.ipc.open_stream(base64.b64decode(encoded)).read_all().column(0)


def known_categories(descriptor: Descriptor) -> pd.Index | None:
    """Return the categories of a descriptor, None where Dask does not know them."""
    encoded = descriptor["categories"]
    if encoded is None:
        return None
    values = descriptor["values"]
    # The same index object for every partition: pandas then sees equal categories at once.
    return _category_index(encoded, tuple(sorted(values.items())))


@lru_cache(maxsize=256)
def _category_index(encoded: str, values: tuple[tuple[str, Any], ...]) -> pd.Index:
    return as_index(restore(category_array(encoded), dict(values)))


def as_index(values: Any, name: str | None = None) -> pd.Index:
    """Return an index of exactly the dtype of `values`."""
    index: pd.Index = pd.Index(values, dtype=values.dtype, name=name)
    return index


def restore(column: pa.ChunkedArray, descriptor: Descriptor) -> Any:
    """Return the pandas or numpy array that `column` was made from.

    Integers and booleans that hold nulls, which their numpy dtype cannot, come back as pandas
    reads them by default: as floats and objects.
    """
    kind = descriptor["kind"]
    if kind == "object":
        return _restore_objects(column)
    if kind == "arrow":
        return pd.arrays.ArrowExtensionArray(column)
    if kind == "string":
        column = column if pa.types.is_large_string(column.type) else cast(column, pa.string())
        return _string_dtype(descriptor).__from_arrow__(column)
    if kind == "category":
        return _restore_category(column, descriptor)
    dtype: Any = pd.api.types.pandas_dtype(descriptor["dtype"])
    if hasattr(dtype, "__from_arrow__") and not isinstance(dtype, pd.DatetimeTZDtype):
        return dtype.__from_arrow__(column)
    if isinstance(dtype, pd.DatetimeTZDtype) or (dtype.kind in "iub" and column.null_count):
        series = column.to_pandas()
        return (series.astype(dtype) if dtype.kind == "M" else series).array
    # Not to_pandas(), which takes a millisecond a column, and some frames have thousands.
    array = column.to_numpy()
    return array if array.dtype == dtype else array.astype(dtype)


def _string_dtype(descriptor: Descriptor) -> Any:
    storage, na = descriptor["storage"], descriptor["na"]
    if na == "NA":
        return pd.StringDtype(storage)
    if _OLD_STRINGS:
        return pd.StringDtype("pyarrow_numpy")
    return pd.StringDtype(storage, na_value=np.nan)


def _restore_objects(column: pa.ChunkedArray) -> Any:
    types = pa.types
    if types.is_string(column.type) or types.is_large_string(column.type):
        return column.to_numpy()
    return pd.Series(column.to_pylist(), dtype=object).to_numpy()


def _restore_category(column: pa.ChunkedArray, descriptor: Descriptor) -> pd.Categorical:
    categories = known_categories(descriptor)
    if pa.types.is_null(column.type):
        codes = np.full(len(column), -1, dtype="int32")
        categories = pd.Index([], dtype=object) if categories is None else categories
    else:
        codes, found = _codes(column, descriptor["values"])
        categories = found if categories is None else categories
        if categories is not found and not categories.equals(found):
            # The -1 at the end is what code -1 (null) picks.
            codes = np.append(categories.get_indexer(found), -1)[codes]
    return pd.Categorical.from_codes(codes, categories, ordered=descriptor["ordered"])


def _codes(column: pa.ChunkedArray, values: Descriptor | None) -> tuple[Any, pd.Index]:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    array = one_array(column.unify_dictionaries())
    dictionary = pa.chunked_array([array.dictionary])
    found = dictionary.to_pandas() if values is None else restore(dictionary, values)
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes, as_index(found)
