"""The one Arrow schema of a dataset: from the meta, from the partitions, from the user.

A meta says nothing about what ``object`` columns and categoricals of unknown categories hold.
Those are *unresolved* until :func:`infer_columns` has looked at the partitions and
:func:`unify` has found the one type that holds them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pandas as pd
import pyarrow as pa

from pamola_dwriter.errors import InvalidWriteError, UnsupportedDataError
from pamola_dwriter.formats.casting import castable, type_name
from pamola_dwriter.formats.columns import mismatch, stored_values
from pamola_dwriter.formats.dtypes import Descriptor, category_array
from pamola_dwriter.formats.objects import Values, kind_of, natural_array

_NOT_ONE_TYPE = "expected values of one type that Arrow can hold, found "


def infer_schema(meta: pd.DataFrame, frame: Descriptor) -> tuple[pa.Schema, tuple[str, ...]]:
    """Return the schema of the stored columns, index last, and the unresolved columns.

    Unresolved columns have type null. The schema carries the metadata by which plain pandas
    and Dask restore dtypes and index.

    Raises
    ------
    UnsupportedDataError
        Arrow cannot hold a dtype.
    """
    meta = meta.iloc[:0]
    values = stored_values(meta, frame, None)
    descriptors = stored_descriptors(frame)
    fields, unresolved = [], []
    for name, descriptor in descriptors.items():
        data_type = _declared_type(name, values[name], descriptor)
        fields.append(pa.field(name, data_type))
        if pa.types.is_null(data_type):
            unresolved.append(name)
    metadata = _pandas_metadata(meta, frame)
    return pa.schema(fields, metadata=metadata), tuple(unresolved)


def stored_descriptors(frame: Descriptor) -> dict[str, Descriptor]:
    """Return the dtype descriptor of every stored column, the index last."""
    descriptors = {column["name"]: column["dtype"] for column in frame["columns"]}
    descriptors.update({level["stored"]: level["dtype"] for level in frame["index"]})
    return descriptors


def _declared_type(name: str, values: Values, descriptor: Descriptor) -> pa.DataType:
    kind = descriptor["kind"]
    if kind == "object":
        return pa.null()
    if kind == "category":
        encoded = descriptor["categories"]
        if encoded is None:
            return pa.null()
        return _dictionary_of(category_array(encoded).type, descriptor["ordered"])
    array = natural_array(values)
    if array is None:
        raise UnsupportedDataError(
            f"column {name!r} has dtype {values.dtype}, which Arrow cannot hold"
        )
    return array.type


def _dictionary_of(value_type: pa.DataType, ordered: bool) -> pa.DataType:
    # No category at all: any type will do that files can hold.
    held = pa.string() if pa.types.is_null(value_type) else value_type
    return pa.dictionary(pa.int32(), held, ordered)


def _pandas_metadata(meta: pd.DataFrame, frame: Descriptor) -> dict[bytes, bytes]:
    named = meta.copy(deep=False)
    named.attrs = {}  # may hold anything, even values
    stored = [level["stored"] for level in frame["index"]]
    if stored:
        named.index = named.index.set_names(stored)
    schema = pa.Schema.from_pandas(named, preserve_index=bool(stored))
    return {b"pandas": schema.metadata[b"pandas"]}


def infer_columns(
    partition: pd.DataFrame,
    frame: Descriptor,
    unresolved: Collection[str],
    partition_index: int | None = None,
) -> pa.Schema:
    """Return the types that the unresolved columns have in one partition.

    Raises
    ------
    SchemaMismatchError
        A column is absent or holds values of several types; names no value.
    """
    values = stored_values(partition, frame, partition_index)
    descriptors = stored_descriptors(frame)
    fields = []
    for name in unresolved:
        data_type = _observed_type(values[name], descriptors[name])
        if data_type is None:
            raise mismatch(partition_index, name, _NOT_ONE_TYPE + kind_of(values[name]))
        fields.append(pa.field(name, data_type))
    return pa.schema(fields)


def _observed_type(values: Values, descriptor: Descriptor) -> pa.DataType | None:
    if isinstance(values.dtype, pd.CategoricalDtype):
        array = natural_array(values.dtype.categories)
    else:
        array = natural_array(values)
    if array is None:
        return None
    if array.null_count == len(array):
        return pa.null()
    is_category = descriptor["kind"] == "category"
    return _dictionary_of(array.type, False) if is_category else array.type


def unify(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return the one schema that holds all `schemas`: null gives way, numbers widen.

    Raises
    ------
    SchemaMismatchError
        Two partitions hold types that no one type holds exactly; names the column.
    """
    found: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            types = found.setdefault(field.name, [])
            if field.type not in types:
                types.append(field.type)
    return pa.schema([(name, _widest(name, types)) for name, types in found.items()])


def _widest(name: str, types: list[pa.DataType]) -> pa.DataType:
    candidates = [pa.schema([(name, data_type)]) for data_type in types]
    try:
        merged = pa.unify_schemas(candidates, promote_options="permissive").field(0).type
    except pa.ArrowException:
        merged = None
    if merged is None or not all(castable(data_type, merged) for data_type in types):
        names = ", ".join(sorted({type_name(data_type) for data_type in types}))
        raise mismatch(None, name, f"partitions hold different types: {names}")
    return merged


def resolve(schema: pa.Schema, unresolved_schema: pa.Schema) -> pa.Schema:
    """Return `schema` with the types found for its unresolved columns."""
    for field in unresolved_schema:
        position = schema.get_field_index(field.name)
        schema = schema.set(position, schema.field(position).with_type(field.type))
    return schema


def apply_user_schema(inferred: pa.Schema, user_schema: pa.Schema) -> pa.Schema:
    """Return `inferred` with the types that the user gives for some or all of its columns.

    An unresolved column that the user gives a type needs no look at the partitions any more.

    Raises
    ------
    InvalidWriteError
        The frame has no such column, or one of a type that is never cast to the given one.
    """
    known = set(inferred.names)
    unknown = [name for name in user_schema.names if name not in known]
    if unknown:
        raise InvalidWriteError(f"schema names columns that the frame does not have: {unknown}")
    for field in user_schema:
        position = inferred.get_field_index(field.name)
        current = inferred.field(position).type
        if not castable(current, field.type):
            raise InvalidWriteError(
                f"schema gives column {field.name!r} type {type_name(field.type)}, but it holds "
                f"{type_name(current)}; convert the column first"
            )
        inferred = inferred.set(position, field.remove_metadata())
    return inferred
