"""pandas frames to Arrow tables of one schema, and back exactly.

Arrow cannot say everything about a frame (index, string storage, categories that do not occur).
:func:`describe` says the rest, as a *frame description* that fits into a manifest::

    {"columns": [{"name": "x", "dtype": {...}}],
     "index": [{"stored": "__index_level_0__", "name": None, "dtype": {...}}],
     "axis": {"name": None, "dtype": None}}

Values in ``object`` columns come back as Arrow's plain Python objects: missing ones as None,
lists, tuples, sets and arrays as lists, dicts with all keys of their column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from dask.dataframe.utils import clear_known_categories

from pamola_dwriter.errors import DataReadError, UnsupportedDataError
from pamola_dwriter.formats.columns import fit, mismatch, stored_values
from pamola_dwriter.formats.dtypes import Descriptor, as_index, describe_dtype, restore
from pamola_dwriter.formats.schema import stored_descriptors

_LABELS = pd.Index(["a"])


def describe(meta: pd.DataFrame, write_index: bool) -> dict[str, Any]:
    """Return the JSON-ready description of a frame from its meta.

    Raises
    ------
    UnsupportedDataError
        A column name is not text or occurs twice, an index is named like a column, a dtype
        has no Arrow type, or there is nothing to write.
    """
    names = list(meta.columns)
    _check_texts("column names", names)
    _check_texts("the name of the columns axis", meta.columns.names, optional=True)
    levels = _describe_levels(meta.index) if write_index else []
    _check_unique([*names, *(level["stored"] for level in levels)])
    if not names and not levels:
        raise UnsupportedDataError("the frame has neither columns nor an index to write")
    columns = [
        {"name": name, "dtype": describe_dtype(dtype, name)}
        for name, dtype in zip(names, meta.dtypes, strict=True)
    ]
    return {"columns": columns, "index": levels, "axis": _describe_axis(meta.columns)}


def _describe_levels(index: pd.Index) -> list[dict[str, Any]]:
    _check_texts("index names", index.names, optional=True)
    levels = []
    for number, name in enumerate(index.names):
        # pandas' own name for an unnamed level: pandas and Dask both read it back as unnamed,
        # Dask's __null_dask_index__ only Dask does.
        stored = f"__index_level_{number}__" if name is None else str(name)
        dtype = describe_dtype(index.get_level_values(number).dtype, stored)
        levels.append({"stored": stored, "name": name, "dtype": dtype})
    return levels


def _describe_axis(columns: pd.Index) -> dict[str, Any]:
    # None is what this pandas has by default: text in pandas 3, objects before.
    special = columns.dtype != _LABELS.dtype and not isinstance(columns.dtype, pd.CategoricalDtype)
    dtype = describe_dtype(columns.dtype, "columns") if special else None
    return {"name": columns.name, "dtype": dtype}


def _check_texts(what: str, names: Sequence[Any], optional: bool = False) -> None:
    wrong = [n for n in names if not isinstance(n, str) and not (optional and n is None)]
    if wrong:
        raise UnsupportedDataError(
            f"{what} must be text, not {wrong[:20]}; rename them, for instance with map(str)"
        )


def _check_unique(names: list[str]) -> None:
    seen: set[str] = set()
    repeated = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if repeated:
        raise UnsupportedDataError(
            f"each column and index level needs a name of its own; repeated: {repeated[:20]}"
        )


def to_arrow(
    partition: pd.DataFrame, schema: pa.Schema, frame: Descriptor, partition_index: int
) -> pa.Table:
    """Return one partition as a table of exactly `schema`.

    Columns may come in another order, and in another type of the same family whose values all
    fit exactly (integers that a missing value made floats, other units of time); an all-null
    column fits every type.

    Raises
    ------
    SchemaMismatchError
        The partition does not fit. The message names partition, column and types, and never a
        value, which may be personal data.
    """
    values = stored_values(partition, frame, partition_index)
    descriptors = stored_descriptors(frame)
    arrays = []
    for field in schema:
        array, found = fit(values[field.name], field.type, descriptors[field.name])
        if array is None:
            # Outside of any except clause: not even the error's context may quote a value.
            detail = f"expected {_expected(field.type)}, found {found}"
            raise mismatch(partition_index, field.name, detail)
        if not field.nullable and array.null_count:
            raise mismatch(partition_index, field.name, "expected no null, found null")
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema)


def _expected(data_type: pa.DataType) -> str:
    if pa.types.is_dictionary(data_type):
        return f"category of {data_type.value_type}"
    return str(data_type)


def stored_columns(frame: Descriptor, columns: Sequence[str] | None = None) -> list[str]:
    """Return which stored columns to load for `columns`: those and the index.

    Raises
    ------
    DataReadError
        The dataset has no such column.
    """
    names = [column["name"] for column in frame["columns"]]
    if columns is not None:
        known = set(names)
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise DataReadError(f"the dataset has no column {unknown}; it has {names[:100]}")
        names = list(dict.fromkeys(columns))
    return names + [level["stored"] for level in frame["index"]]


def to_pandas(
    table: pa.Table, frame: Descriptor, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the frame that `table` was made from, or only its `columns`, in their order.

    Raises
    ------
    DataReadError
        There is no such column.
    """
    stored = stored_columns(frame, columns)
    held = set(table.column_names)
    absent = [name for name in stored if name not in held]
    if absent:
        raise DataReadError(f"the file has no column {absent}")
    descriptors = stored_descriptors(frame)
    levels = frame["index"]
    names = stored[: len(stored) - len(levels)]
    index = _restore_index(table, levels)
    data = {name: restore(table.column(name), descriptors[name]) for name in names}
    result = pd.DataFrame(_keep_objects(data, index), index=index)
    result.columns = _restore_axis(names, frame["axis"])
    return result


def _restore_axis(names: list[str], axis: Descriptor) -> pd.Index:
    if axis["dtype"] is None:
        return pd.Index(names, dtype=_LABELS.dtype, name=axis["name"])
    labels = pa.chunked_array([pa.array(names, pa.string())])
    return as_index(restore(labels, axis["dtype"]), axis["name"])


def _keep_objects(data: dict[str, Any], index: pd.Index) -> dict[str, Any]:
    """Make Series of object columns, which pandas 3 would else turn into text or times."""
    return {
        name: pd.Series(values, dtype=object, index=index) if values.dtype == object else values
        for name, values in data.items()
    }


def _restore_index(table: pa.Table, levels: Sequence[Descriptor]) -> pd.Index:
    if not levels:
        return pd.RangeIndex(table.num_rows)
    restored = [
        as_index(restore(table.column(level["stored"]), level["dtype"]), level["name"])
        for level in levels
    ]
    if len(restored) == 1:
        return restored[0]
    return pd.MultiIndex.from_arrays(restored, names=[level["name"] for level in levels])


def empty_meta(
    schema: pa.Schema, frame: Descriptor, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the meta of a Dask frame over the dataset, or over only its `columns`.

    Categoricals whose categories differ by partition are marked as unknown to Dask.
    """
    meta = to_pandas(schema.empty_table(), frame, columns)
    clear: Any = clear_known_categories  # not annotated in Dask
    descriptors = stored_descriptors(frame)
    unknown = [name for name in meta.columns if _is_unknown(descriptors[name])]
    index = meta.index
    result: pd.DataFrame = clear(meta, cols=unknown)
    # That cleared a categorical index too, known or not.
    levels = frame["index"]
    unknown_index = len(levels) == 1 and _is_unknown(levels[0]["dtype"])
    result.index = clear(index) if unknown_index else index
    return result


def _is_unknown(descriptor: Descriptor) -> bool:
    return descriptor["kind"] == "category" and descriptor["categories"] is None
