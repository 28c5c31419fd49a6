"""One column of one partition made to fit the one schema of its dataset."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from pamola_dwriter.errors import SchemaMismatchError
from pamola_dwriter.formats.casting import Column, cast, castable, nulls, one_array, type_name
from pamola_dwriter.formats.dtypes import Descriptor, category_array, known_categories
from pamola_dwriter.formats.objects import CONVERSION_ERRORS, Values, kind_of, natural_array

Fit: TypeAlias = "tuple[Column | None, str]"


def mismatch(partition: int | None, column: str | None, detail: str) -> SchemaMismatchError:
    """Return the error for one column of one partition; `detail` must not hold any value."""
    where = [f"partition {partition}"] if partition is not None else []
    where += [f"column {column!r}"] if column is not None else []
    prefix = ", ".join(where)
    message = f"{prefix}: {detail}" if prefix else detail
    return SchemaMismatchError(message, partition=partition, column=column)


def stored_values(
    partition: pd.DataFrame, frame: Descriptor, index: int | None
) -> dict[str, Values]:
    """Return the columns and index levels of a partition by their stored names.

    Raises
    ------
    SchemaMismatchError
        The partition has other columns or another number of index levels than the frame.
    """
    names = [column["name"] for column in frame["columns"]]
    _check_names(partition, names, index)
    values: dict[str, Values] = {name: partition[name] for name in names}
    levels = frame["index"]
    if levels and partition.index.nlevels != len(levels):
        detail = f"expected {len(levels)} index levels, found {partition.index.nlevels}"
        raise mismatch(index, None, detail)
    for number, level in enumerate(levels):
        values[level["stored"]] = partition.index.get_level_values(number)
    return values


def _check_names(partition: pd.DataFrame, names: list[str], index: int | None) -> None:
    found = list(partition.columns)
    if found == names:
        return
    wanted, present = set(names), set(found)
    missing = [name for name in names if name not in present]
    extra = [name for name in found if name not in wanted]
    repeated = list(partition.columns[partition.columns.duplicated()].unique())
    for problem, columns in (("missing", missing), ("extra", extra), ("repeated", repeated)):
        if columns:
            shown = ", ".join(repr(name) for name in columns[:20])
            raise mismatch(index, str(columns[0]), f"{problem} columns: {shown}")


def fit(values: Values, expected: pa.DataType, descriptor: Descriptor) -> Fit:
    """Return `values` as an array of type `expected`, or None; and what was found.

    Raises nothing: see :func:`~pamola_dwriter.formats.objects.natural_array`.
    """
    if isinstance(values.dtype, pd.CategoricalDtype) or descriptor["kind"] == "category":
        return _fit_category(values, expected, descriptor)
    natural = natural_array(values)
    if natural is None:
        return None, kind_of(values)
    return _fit_array(natural, values, expected), type_name(natural.type)


def _fit_array(natural: Column, values: Values, expected: pa.DataType) -> Column | None:
    if natural.type.equals(expected):
        return natural
    if natural.null_count == len(natural):
        return nulls(len(natural), expected)
    if not castable(natural.type, expected):
        return None
    try:
        if pa.types.is_nested(expected) and values.dtype == object:
            # Structs of one partition may lack fields that others have.
            return pa.array(values, type=expected, from_pandas=True)
        return cast(natural, expected)
    except CONVERSION_ERRORS:
        return None


def _fit_category(values: Values, expected: pa.DataType, descriptor: Descriptor) -> Fit:
    known = known_categories(descriptor) if descriptor["kind"] == "category" else None
    categorical = _categorical(values)
    if categorical is None:
        return None, kind_of(values)
    codes = np.asarray(categorical.codes, dtype="int32")
    if known is None:
        dictionary = natural_array(categorical.categories)
    else:
        recoded = _recode(codes, categorical.categories, known)
        if recoded is None:
            return None, "a value outside the known categories"
        codes, dictionary = recoded, category_array(descriptor["categories"])
    if dictionary is None:
        return None, "categories of several types"
    return _dictionary(codes, dictionary, expected), f"category of {type_name(dictionary.type)}"


def _categorical(values: Values) -> Any | None:
    try:
        return pd.Categorical(values)  # a categorical stays as it is
    except CONVERSION_ERRORS:
        return None


def _recode(codes: Any, found: pd.Index, known: pd.Index) -> Any | None:
    if found is known or (found.dtype == known.dtype and found.equals(known)):
        return codes
    # The -1 at the end is what code -1 (null) picks.
    recoded = np.append(known.get_indexer(found), -1).astype("int32")[codes]
    return None if ((recoded < 0) & (codes >= 0)).any() else recoded


def _dictionary(codes: Any, dictionary: Column, expected: pa.DataType) -> Column | None:
    if (codes < 0).all():
        return nulls(len(codes), expected)
    if not castable(dictionary.type, expected):
        return None
    try:
        ordered = pa.types.is_dictionary(expected) and expected.ordered
        indices = pa.array(codes, mask=codes < 0)
        encoded = pa.DictionaryArray.from_arrays(indices, one_array(dictionary), ordered=ordered)
        return cast(encoded, expected)
    except CONVERSION_ERRORS:
        return None
