"""Whatever callers hand over as a frame, as the pandas or Dask frame that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask.bag import Bag
from dask.dataframe.utils import clear_known_categories
from dask.delayed import Delayed, delayed

from pamola_dwriter.errors import PamolaWriterError, UnsupportedDataError, WriteFailedError
from pamola_dwriter.formats.objects import natural_array


def as_frame(data: Any) -> pd.DataFrame | dd.DataFrame:
    """Return `data` as a frame; frames of pandas and Dask as they are.

    Parameters
    ----------
    data : object
        - a pandas or Dask DataFrame, or a Series, which becomes the column of its name, or
          ``"0"``;
        - a Dask bag of dicts: see the danger below;
        - Delayed objects that give pandas DataFrames, in a list or tuple, or one alone: one
          partition each;
        - anything with ``to_dask_dataframe()`` (xarray, Dask arrays of text column names);
        - a PyArrow Table or RecordBatch, a Polars DataFrame, or anything with ``to_arrow()`` or
          ``__arrow_c_stream__``: one partition, whose columns keep their Arrow types. What
          pandas noted about an index in the metadata is left aside: it is a column like others.

    Returns
    -------
    pandas.DataFrame or dask.dataframe.DataFrame
        Object columns stay objects, whatever ``dataframe.convert-string`` says.

    Raises
    ------
    UnsupportedDataError
        It is none of these, or could not be turned into a frame.
    WriteFailedError
        Computing a partition, to know its columns, failed; the cause is chained.

    Notes
    -----
    Bags and Delayed objects do not say what columns they have. Their first partition (of a bag
    the first that is not empty) is computed for it, by the current Dask client or else by local
    threads, and computed again by the write; only its empty frame comes to the caller. Later
    partitions must fit those columns and types, else the write fails with SchemaMismatchError:
    ``bag.to_dataframe()`` would drop their other keys and round their numbers without a word.
    A ``schema`` given to the write widens a type; ``dd.from_delayed(..., meta=...)`` avoids the
    look.
    """
    if isinstance(data, pd.DataFrame | dd.DataFrame):
        return data
    if isinstance(data, pd.Series | dd.Series) and not isinstance(data, dd.Index):
        return data.to_frame("0" if data.name is None else data.name)
    # Dask would make text of every object column: of decimals, dates and lists too.
    with dask.config.set({"dataframe.convert-string": False}):
        if isinstance(data, Bag):
            return _from_bag(data)
        if partitions := _delayed(data):
            return _from_delayed(partitions, _compute_meta(partitions[0]))
        if _can(data, "to_dask_dataframe"):
            made = _convert(data, data.to_dask_dataframe)
            if isinstance(made, pd.DataFrame | pd.Series | dd.DataFrame | dd.Series):
                return as_frame(made)
            raise _refusal(made)
    return _arrow_frame(_table(data))


def has_index(data: Any) -> bool:
    """Return whether the rows of `data` have labels of their own, not just a number.

    Those of pandas and Dask frames do; records of a bag and rows of an Arrow table do not.
    """
    labelled = isinstance(data, pd.DataFrame | pd.Series | dd.DataFrame | dd.Series)
    return labelled or bool(_delayed(data)) or _can(data, "to_dask_dataframe")


def _can(data: Any, method: str) -> bool:
    return not isinstance(data, type) and callable(getattr(data, method, None))


def _delayed(data: Any) -> list[Delayed]:
    items = list(data) if isinstance(data, list | tuple) else [data]
    return items if all(isinstance(item, Delayed) for item in items) else []


def _from_delayed(items: Sequence[Delayed], meta: pd.DataFrame) -> dd.DataFrame:
    # Serializing checks more exactly than verify_meta, and forgives what loses nothing.
    made: dd.DataFrame = dd.from_delayed(items, meta=meta, verify_meta=False)
    return made


def _from_bag(bag: Bag) -> dd.DataFrame:
    partitions = bag.to_delayed()
    make: Callable[..., Delayed] = delayed(_records_frame, pure=True)
    for partition in partitions:
        meta = _compute_meta(make(partition))
        if len(meta.columns):
            names = list(meta.columns)
            return _from_delayed([make(one, names) for one in partitions], meta)
    raise UnsupportedDataError("the bag holds no records, which would tell the columns")


def _records_frame(records: Iterable[Any], names: Sequence[Any] = ()) -> pd.DataFrame:
    """Return records as a frame of Arrow types, which keep integers whole beside nulls.

    A key that a record lacks is a null; keys beyond `names` become columns too, for the schema
    to refuse.
    """
    rows = list(records)
    for row in rows:
        if not isinstance(row, Mapping):
            raise UnsupportedDataError(f"a bag must hold dicts, not {type(row).__name__}")
    columns = {}
    for name in dict.fromkeys([*names, *(key for row in rows for key in row)]):
        values = pd.Series([row.get(name) for row in rows], dtype=object)
        array = natural_array(values)
        columns[name] = values if array is None else _arrow_series(array)
    return pd.DataFrame(columns, index=pd.RangeIndex(len(rows)))


def _arrow_frame(table: pa.Table) -> pd.DataFrame:
    # to_pandas() fails on repeated names, which are for the write to refuse.
    columns = {number: _arrow_series(column) for number, column in enumerate(table.columns)}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows))
    frame.columns = pd.Index(table.column_names)
    return frame


def _arrow_series(array: pa.Array | pa.ChunkedArray) -> pd.Series:
    chunked = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    return pd.Series(pd.arrays.ArrowExtensionArray(chunked))


def _compute_meta(partition: Delayed) -> pd.DataFrame:
    try:
        meta: pd.DataFrame = delayed(_empty)(partition).compute()
    except PamolaWriterError:
        raise
    except Exception as error:  # whatever somebody else's task raises
        raise WriteFailedError(
            f"computing the first partition failed with {type(error).__name__}; nothing was "
            "written. The cause is chained to this error"
        ) from error
    return meta


def _empty(partition: Any) -> pd.DataFrame:
    """Return the frame without its rows, and without the categories of this one partition."""
    if not isinstance(partition, pd.DataFrame):
        raise UnsupportedDataError(
            f"Delayed objects must give pandas DataFrames, not {type(partition).__name__}"
        )
    clear: Any = clear_known_categories  # not annotated in Dask
    unordered = [
        name
        for name, dtype in partition.dtypes.items()
        if isinstance(dtype, pd.CategoricalDtype) and not dtype.ordered
    ]
    empty: pd.DataFrame = clear(partition.iloc[:0], cols=unordered, index=False)
    return empty


def _table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if _can(data, "to_arrow"):
        made = _convert(data, data.to_arrow)
    elif _can(data, "__arrow_c_stream__"):
        made = _convert(data, lambda: pa.table(data))
    else:
        raise _refusal(data)
    if not isinstance(made, pa.Table):  # a column alone
        raise _refusal(data)
    return made


def _convert(data: Any, convert: Callable[[], Any]) -> Any:
    try:
        return convert()
    except Exception as error:  # whatever somebody else's class raises
        raise UnsupportedDataError(
            f"this {type(data).__name__} could not be turned into a frame "
            f"({type(error).__name__}); the cause is chained to this error"
        ) from error


def _refusal(data: Any) -> UnsupportedDataError:
    kind = type(data).__name__
    if kind == "LazyFrame":
        return UnsupportedDataError("a LazyFrame holds no rows yet; call collect() on it")
    return UnsupportedDataError(
        "df must be a pandas or Dask DataFrame or Series, a Dask bag of dicts, a list of Delayed "
        "pandas DataFrames, an Arrow table or record batch, a Polars DataFrame, or something with "
        f"to_dask_dataframe() or __arrow_c_stream__, not {kind}"
    )
