"""What the parts of a write look like: format, schema, and how the frame is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from pamola_dwriter import formats
from pamola_dwriter.errors import InvalidWriteError, SchemaMismatchError, UnsupportedDataError
from pamola_dwriter.spec import FormatSpec, WriteSpec

_PANDAS_INDEX = frozenset({"parquet", "arrow"})
"""Formats whose files tell plain pandas which columns are the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of the parts of a write; an append takes it from its dataset."""

    format: FormatSpec
    partition_on: tuple[str, ...]
    frame: Mapping[str, Any]
    schema: pa.Schema
    unresolved: tuple[str, ...] = ()


def shape_of(frame: pd.DataFrame | dd.DataFrame, spec: WriteSpec) -> Shape:
    """Return the shape that the parts of `frame` will have.

    Raises
    ------
    UnsupportedDataError
        The format cannot hold the frame.
    InvalidWriteError
        ``partition_on`` or ``schema`` does not fit it.
    """
    meta = _meta(frame)
    described = formats.describe(meta, _keeps_index(frame, meta, spec))
    schema, unresolved = formats.infer_schema(meta, described)
    if spec.schema is not None:
        schema = formats.apply_user_schema(schema, spec.schema)
        unresolved = tuple(name for name in unresolved if name not in spec.schema.names)
    _check_partition_on(schema, described, spec)
    rest = [field for field in schema if field.name not in spec.partition_on]
    formats.get(spec.format.name).check_schema(pa.schema(rest, metadata=schema.metadata))
    return Shape(
        format=spec.format,
        partition_on=spec.partition_on,
        frame=described,
        schema=schema,
        unresolved=unresolved,
    )


def fit(asked: Shape, held: Shape, spec: WriteSpec) -> Shape:
    """Return the shape of the dataset, which what is appended must have.

    Raises
    ------
    InvalidWriteError
        The format differs, or an option that the caller gave.
    SchemaMismatchError
        The columns or their types do.
    """
    wrong = {
        "format": (asked.format.name, held.format.name),
        "compression": (asked.format.compression, held.format.compression),
        "row_group_size": (asked.format.row_group_size, held.format.row_group_size),
        "format_options": (dict(asked.format.options), dict(held.format.options)),
        "partition_on": (list(asked.partition_on), list(held.partition_on)),
    }
    for option, (wanted, present) in wrong.items():
        if wanted != present and (option == "format" or option in spec.given):
            raise InvalidWriteError(
                f"the dataset to append to has {option} {present!r}, not {wanted!r}"
            )
    names, present = ([field.name for field in shape.schema] for shape in (asked, held))
    if different := sorted(set(names) ^ set(present)):
        raise SchemaMismatchError(
            f"what is appended must have the columns and index of the dataset; only one of them "
            f"has {different[:20]}",
            column=different[0],
        )
    for field in asked.schema:
        if field.name not in asked.unresolved:
            _check_castable(field, held.schema)
    return held


def _meta(frame: pd.DataFrame | dd.DataFrame) -> pd.DataFrame:
    meta = frame.iloc[:0] if isinstance(frame, pd.DataFrame) else frame._meta
    if not isinstance(meta, pd.DataFrame):
        raise UnsupportedDataError(
            f"the partitions of df must be pandas frames, not {type(meta).__name__}"
        )
    return meta


def _keeps_index(frame: pd.DataFrame | dd.DataFrame, meta: pd.DataFrame, spec: WriteSpec) -> bool:
    if spec.write_index is not None:
        return spec.write_index
    if isinstance(frame, pd.DataFrame) and not (spec.partition_on or spec.target_part_size):
        index = frame.index  # what pandas makes by itself, and again on reading
        if isinstance(index, pd.RangeIndex) and index.equals(pd.RangeIndex(len(frame))):
            return index.name is not None
    numbers_rows = (
        meta.index.nlevels == 1
        and meta.index.name is None
        and pd.api.types.is_integer_dtype(meta.index.dtype)
    )
    return spec.format.name in _PANDAS_INDEX or not numbers_rows


def _check_partition_on(schema: pa.Schema, described: Mapping[str, Any], spec: WriteSpec) -> None:
    columns = {column["name"] for column in described["columns"]}
    if absent := [name for name in spec.partition_on if name not in columns]:
        raise InvalidWriteError(f"partition_on names {absent}, which the frame has no column for")
    if len(set(spec.partition_on)) != len(spec.partition_on):
        raise InvalidWriteError(f"partition_on names a column twice: {list(spec.partition_on)}")
    if spec.partition_on and columns <= set(spec.partition_on):
        raise InvalidWriteError("partition_on must leave at least one column to write")
    formats.check_hive_columns(schema, spec.partition_on)


def _check_castable(field: pa.Field, held: pa.Schema) -> None:
    """Refuse what no partition could fit; that every value fits is checked as it is written."""
    try:
        formats.apply_user_schema(pa.schema([field]), pa.schema([held.field(field.name)]))
    except InvalidWriteError:
        raise SchemaMismatchError(
            f"column {field.name!r} is {field.type}, and {held.field(field.name).type} in the "
            "dataset to append to; convert it first",
            column=field.name,
        ) from None
