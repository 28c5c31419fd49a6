"""Frames: pandas to Arrow and back, exactly, in every format."""

from __future__ import annotations

import datetime as dt
import io
import json
import pickle
import traceback
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask.dataframe.utils import UNKNOWN_CATEGORIES, has_known_categories
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pamola_dwriter import formats
from pamola_dwriter.errors import (
    DataReadError,
    InvalidWriteError,
    SchemaMismatchError,
    UnsupportedDataError,
)
from pamola_dwriter.spec import FormatSpec

FORMATS = ("parquet", "csv", "jsonl")
NOW = dt.datetime(2024, 2, 29, 23, 59, 59, 123456)  # noqa: DTZ001  one of the types to hold


def plan(
    parts: list[pd.DataFrame], write_index: bool = True
) -> tuple[dict[str, Any], pa.Schema, list[pa.Table]]:
    """Return description, schema and tables of a dataset, as the graph makes them."""
    meta = parts[0].iloc[:0]
    frame = json.loads(json.dumps(formats.describe(meta, write_index)))
    schema, unresolved = formats.infer_schema(meta, frame)
    if unresolved:
        found = [formats.infer_columns(part, frame, unresolved) for part in parts]
        schema = formats.resolve(schema, formats.unify(found))
    tables = [formats.to_arrow(part, schema, frame, i) for i, part in enumerate(parts)]
    return frame, schema, tables


def through(name: str, table: pa.Table, columns: list[str] | None = None) -> pa.Table:
    """Return `table` through a file of one format."""
    serializer = formats.get(name)
    serializer.check_schema(table.schema)
    spec = serializer.check_options(FormatSpec(name=name))
    file = io.BytesIO(serializer.dumps(table, spec).to_pybytes())
    return serializer.load(file, table.schema, columns, spec)


def assert_same(result: pd.DataFrame, expected: pd.DataFrame, **options: Any) -> None:
    """Assert equality of values, dtypes, categories, index and names; RangeIndex is int64."""
    assert_frame_equal(
        result, expected, check_exact=True, check_freq=False, check_index_type="equiv", **options
    )


def back(name: str, expected: pd.DataFrame, write_index: bool = True) -> pd.DataFrame:
    """Return a frame through a file of one format."""
    frame, _, (table,) = plan([expected], write_index)
    return formats.to_pandas(through(name, table), frame)


def numpy_columns() -> pd.DataFrame:
    """Return a column of every numpy dtype, at its extremes."""
    data: dict[str, Any] = {}
    for size in (8, 16, 32, 64):
        for kind in ("int", "uint"):
            info = np.iinfo(f"{kind}{size}")
            data[f"{kind}{size}"] = np.array([info.min, info.max, 1], dtype=info.dtype)
    data["float32"] = np.array([0.1, np.nan, 3.4e38], dtype="float32")
    data["float64"] = [0.1 + 0.2, np.nan, 5e-324]
    data["bool"] = [True, False, True]
    for unit in ("s", "ms", "us", "ns"):
        data[f"moment_{unit}"] = np.array([NOW, "NaT", "1900-01-01"], dtype=f"datetime64[{unit}]")
        data[f"span_{unit}"] = np.array([1, -5, "NaT"], dtype=f"timedelta64[{unit}]")
    return pd.DataFrame(data)


def zoned() -> pd.DataFrame:
    """Return zoned times around a change of the clock."""
    moments = pd.to_datetime(["2024-10-27 00:30", "2024-10-27 01:30", None], utc=True)
    zones = {"berlin": "Europe/Berlin", "utc": "UTC", "offset": dt.timezone(dt.timedelta(hours=5))}
    return pd.DataFrame({name: moments.tz_convert(zone) for name, zone in zones.items()})


def nullable() -> pd.DataFrame:
    """Return pandas' nullable dtypes."""
    return pd.DataFrame(
        {
            "Int8": pd.array([1, None, -128], dtype="Int8"),
            "UInt64": pd.array([2**64 - 1, None, 0], dtype="UInt64"),
            "Float32": pd.array([0.5, None, 0.1], dtype="Float32"),
            "Float64": pd.array([0.5, None, 0.1], dtype="Float64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
            "python": pd.array(["a", None, ""], dtype="string[python]"),
            "pyarrow": pd.array(["a\n", None, ""], dtype="string[pyarrow]"),
        }
    )


def arrow_backed() -> pd.DataFrame:
    """Return Arrow-backed dtypes that every format holds."""
    types = {
        "int": (pa.int16(), [1, None, -5]),
        "text": (pa.string(), ["a", None, ""]),
        "large": (pa.large_string(), ["a", None, ""]),
        "decimal": (pa.decimal128(30, 5), [Decimal("1.5"), None, Decimal("-2")]),
        "day": (pa.date32(), [NOW.date(), None, dt.date(1, 1, 1)]),
        "time": (pa.time64("us"), [NOW.time(), None, dt.time(0)]),
        "moment": (pa.timestamp("us", "Asia/Tokyo"), [NOW.astimezone(dt.UTC), None, None]),
        "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["x", None, "x"]),
    }
    return pd.DataFrame(
        {
            name: pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(values, of)]))
            for name, (of, values) in types.items()
        }
    )


def objects() -> pd.DataFrame:
    """Return object columns that every format holds."""
    data = {
        "text": ["a", None, "Größe \n\"'"],
        "decimal": [Decimal("1.50"), None, Decimal("100")],
        "day": [NOW.date(), None, dt.date(1600, 1, 1)],
        "time": [NOW.time(), None, dt.time(0)],
        "int": [1, None, 2**62],
        "bool": [True, None, False],
        "float": [0.5, None, 0.1],
        "nothing": [None, None, None],
    }
    return pd.DataFrame({name: pd.Series(v, dtype=object) for name, v in data.items()})


def categories() -> pd.DataFrame:
    """Return categoricals: ordered, with unobserved categories, of several dtypes."""
    days = pd.to_datetime(["2024-01-02", "2024-01-01"])
    dates = pd.Index([NOW.date()], dtype=object)
    return pd.DataFrame(
        {
            "ordered": pd.Categorical(["lo", "hi", None], ["lo", "mid", "hi"], ordered=True),
            "unobserved": pd.Categorical(["b", "a", "b"], ["z", "b", "a"]),
            "ints": pd.Categorical([3, 1, None], [3, 2, 1]),
            "floats": pd.Categorical([0.5, 0.1, None]),
            "days": pd.Categorical([days[1], None, days[0]], days),
            "dates": pd.Categorical([NOW.date(), None, None], dates),
            "none": pd.Categorical([None, None, None], []),
        }
    )


def spans() -> pd.DataFrame:
    """Return periods."""
    return pd.DataFrame({"month": pd.period_range("2020-01", periods=3, freq="M"), "x": [1, 2, 3]})


def indexed(*levels: Any, names: list[str | None]) -> pd.DataFrame:
    """Return a small frame with an index of the given levels."""
    index = pd.Index(levels[0], name=names[0])
    if len(levels) > 1:
        index = pd.MultiIndex.from_arrays(list(levels), names=names)
    return pd.DataFrame({"x": [1.5, 2.5, 3.5]}, index=index)


CASES: dict[str, Callable[[], pd.DataFrame]] = {
    "numpy": numpy_columns,
    "zoned": zoned,
    "nullable": nullable,
    "arrow": arrow_backed,
    "objects": objects,
    "categories": categories,
    "periods": spans,
    "text": lambda: pd.DataFrame({"x": ["a", None, "日本"], "y": ["", "b", "c"]}),
    "empty": lambda: numpy_columns().iloc[:0],
    "empty objects": lambda: objects().iloc[:0],
    "empty categories": lambda: categories().iloc[:0],
    "unnamed index": lambda: indexed([3, 1, 1], names=[None]),
    "named index": lambda: indexed([3, 1, 1], names=["id"]),
    "text index": lambda: indexed(["b", "a", "b"], names=["id"]),
    "time index": lambda: indexed(pd.date_range("2024", periods=3, tz="UTC"), names=["at"]),
    "category index": lambda: indexed(
        pd.CategoricalIndex(["b", "a", "b"], ["b", "c", "a"]), names=["k"]
    ),
    "multi index": lambda: indexed(["b", "a", "b"], [1, 1, 2], names=["k", None]),
    "no columns": lambda: indexed(["b", "a", "b"], names=["id"])[[]],
    "axis of objects": lambda: pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], dtype=object)),
    "axis of text": lambda: pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], dtype="string")),
    "axis name": lambda: pd.DataFrame({"a": [1], "b": [2]}).rename_axis(columns="measure"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_frames_come_back_exactly(name: str, case: str) -> None:
    """Values, dtypes, categories, index and names survive every format."""
    expected = CASES[case]()
    assert_same(back(name, expected), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_without_index(name: str) -> None:
    """An index that is not written comes back as a plain range."""
    expected = indexed(["b", "a", "b"], names=["id"])
    result = back(name, expected, write_index=False)
    assert_same(result, expected.reset_index(drop=True))
    assert isinstance(result.index, pd.RangeIndex)


def test_nested_objects() -> None:
    """Lists and dicts come back as such from Parquet and JSON Lines, bytes from Parquet."""
    expected = pd.DataFrame(
        {"l": [[1, 2], None, []], "d": [{"a": 1, "b": ["x"]}, {"a": 2, "b": None}, None]}
    )
    for name in ("parquet", "jsonl"):
        assert_same(back(name, expected), expected)
    blobs = pd.DataFrame({"x": [b"\x00", None]})
    assert_same(back("parquet", blobs), blobs)
    for name in ("csv", "jsonl"):
        with pytest.raises(UnsupportedDataError, match="column 'x'"):
            back(name, blobs)


def test_intervals_need_a_nested_format() -> None:
    """An interval column comes back from Parquet; as a category it is refused, named."""
    expected = pd.DataFrame({"x": pd.interval_range(0, 2)})
    assert_same(back("parquet", expected), expected)
    assert_same(back("jsonl", expected), expected)
    cut = pd.DataFrame({"x": pd.cut(pd.Series([1, 2, 3]), 2)})
    for name in FORMATS:
        with pytest.raises(UnsupportedDataError, match="column 'x'"):
            back(name, cut)


@pytest.mark.parametrize("name", FORMATS)
def test_infinity_and_nan(name: str) -> None:
    """Infinities survive in numpy columns, except in JSON, where they become NaN."""
    expected = pd.DataFrame({"x": [np.inf, -np.inf, np.nan, 1.0]})
    held = expected.replace([np.inf, -np.inf], np.nan) if name == "jsonl" else expected
    assert_same(back(name, expected), held)


def test_two_thousand_columns() -> None:
    """A wide frame comes back, by default and in projection."""
    wide = pd.DataFrame(np.arange(4_000).reshape(2, 2_000), columns=[f"c{i}" for i in range(2_000)])
    frame, schema, (table,) = plan([wide])
    assert_same(formats.to_pandas(table, frame), wide)
    columns = formats.stored_columns(frame, ["c9", "c3"])
    assert columns == ["c9", "c3", "__index_level_0__"]
    part = formats.to_pandas(through("parquet", table, columns), frame, ["c9", "c3"])
    assert_same(part, wide[["c9", "c3"]])
    assert_same(formats.empty_meta(schema, frame, ["c3"]), wide[["c3"]].iloc[:0])


@pytest.mark.parametrize("case", CASES)
def test_meta_is_that_of_the_partitions(case: str) -> None:
    """The empty meta has the dtypes, the index and the categories of the data."""
    expected = CASES[case]()
    frame, schema, _ = plan([expected])
    empty = expected.iloc[:0]
    if isinstance(empty.index, pd.MultiIndex):
        empty.index = empty.index.remove_unused_levels()
    assert_same(formats.empty_meta(schema, frame), empty)


def test_unknown_column_is_named() -> None:
    """Asking for a column that is not there names it."""
    frame, schema, (table,) = plan([numpy_columns()])
    for call in (
        lambda: formats.to_pandas(table, frame, ["nope"]),
        lambda: formats.stored_columns(frame, ["nope"]),
        lambda: formats.empty_meta(schema, frame, ["nope"]),
        lambda: formats.to_pandas(table.drop(["bool"]), frame),
    ):
        with pytest.raises(DataReadError, match=r"nope|bool"):
            call()


def test_writable() -> None:
    """What is read may be changed in place, though Arrow memory may not."""
    result = back("parquet", pd.DataFrame({"x": [1.5, 2.5], "y": [1, 2]}))
    result.iloc[0, 0] = 9.0
    result["y"] += 1
    assert result["x"].tolist() == [9.0, 2.5]


@pytest.mark.parametrize(
    ("bad", "message"),
    (
        (lambda: pd.DataFrame({1: [1], "a": [2]}), r"\[1\]"),
        (lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a'"),
        (lambda: pd.DataFrame({"a": [1]}, index=pd.Index([1], name="a")), "'a'"),
        (lambda: pd.DataFrame({"a": [1]}, index=pd.Index([1], name=7)), r"\[7\]"),
        (lambda: pd.DataFrame({"a": [1 + 2j]}), "'a'.*complex"),
        (lambda: pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "'a'.*Sparse"),
        (lambda: pd.DataFrame({"a": pd.Categorical(["a", 1])}), "'a'"),
        (lambda: pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "text"),
        (lambda: pd.DataFrame({"a": pd.Categorical([UNKNOWN_CATEGORIES], ordered=True)}), "'a'"),
    ),
)
def test_frames_that_arrow_cannot_hold(bad: Callable[[], pd.DataFrame], message: str) -> None:
    """A frame that could not come back is refused before any work, by name."""
    with pytest.raises(UnsupportedDataError, match=message):
        formats.describe(bad(), True)


def test_nothing_to_write() -> None:
    """A frame without columns and index is refused."""
    with pytest.raises(UnsupportedDataError, match="neither"):
        formats.describe(pd.DataFrame(index=[1, 2]), False)


SECRET = "Erika Mustermann"


@pytest.mark.parametrize(
    ("declared", "found", "message"),
    (
        ([1], [SECRET], "expected int64, found (large_)?string"),
        ([1], [2.5], "expected int64, found double"),
        ([1], [SECRET, 1], "expected int64, found mixed-integer"),
        ([1], ["1"], "expected int64, found (large_)?string"),
        ([1.5], [SECRET], "expected double, found"),
        ([True], [1], "expected bool, found int64"),
        (["a"], [1], "expected (large_)?string, found int64"),
        (["a"], [b"a"], "expected (large_)?string, found binary"),
        (["a"], [[SECRET]], "expected (large_)?string, found list"),
        (["a"], [{SECRET: 1}], "expected (large_)?string, found struct"),
        ([np.int8(1)], [300], "expected int8, found int64"),
        ([np.float32(1)], [0.1], "expected float, found double"),
        ([pd.Timestamp(0)], [pd.Timestamp(0, tz="UTC")], "expected timestamp"),
        ([pd.Timestamp(0)], [SECRET], "expected timestamp"),
        (pd.Categorical(["a"]), pd.Categorical([SECRET]), "outside the known categories"),
        (pd.Categorical(["a"]), [SECRET], "outside the known categories"),
        (pd.array([1], dtype="Int64"), [2.5], "expected int64, found double"),
    ),
)
def test_mismatch_names_types_and_never_values(declared: Any, found: Any, message: str) -> None:
    """A misfit names partition, column and types; no value, not even in a chained error."""
    good = pd.DataFrame({"x": declared if hasattr(declared, "dtype") else np.array(declared)})
    if isinstance(declared, list) and isinstance(declared[0], (str, pd.Timestamp)):
        good = pd.DataFrame({"x": declared})
        good["x"] = good["x"].astype("string" if isinstance(declared[0], str) else good["x"].dtype)
    frame, schema, _ = plan([good])
    bad = pd.DataFrame({"x": found}, index=range(len(found)))
    with pytest.raises(SchemaMismatchError, match=f"partition 3, column 'x': .*{message}") as info:
        formats.to_arrow(bad, schema, frame, 3)
    error = info.value
    assert (error.partition, error.column) == (3, "x")
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception_only(error)) + repr(pickle.dumps(error))
    assert SECRET not in shown


@pytest.mark.parametrize(
    "found",
    (
        pd.DataFrame({"x": [1.0, None]}),
        pd.DataFrame({"x": [None, None]}, dtype=object),
        pd.DataFrame({"x": [None, None]}, dtype="string"),
        pd.DataFrame({"x": [np.nan, np.nan]}),
        pd.DataFrame({"x": pd.array([1, None], dtype="Int8")}),
        pd.DataFrame({"x": [1, None]}, dtype=object),
    ),
)
def test_what_fits_exactly_is_accepted(found: pd.DataFrame) -> None:
    """Integers that a missing value made floats, and all-null columns, fit an int column."""
    frame, schema, _ = plan([pd.DataFrame({"x": [1, 2]})])
    table = formats.to_arrow(found, schema, frame, 0)
    assert table.schema == schema
    assert table["x"].to_pylist() == [None if pd.isna(v) else v for v in found["x"]]


@pytest.mark.parametrize(
    ("columns", "message"),
    (
        (["a"], "missing columns: 'b'"),
        (["a", "b", "c"], "extra columns: 'c'"),
        (["a", "b", "b"], "repeated columns: 'b'"),
    ),
)
def test_other_columns_are_refused(columns: list[str], message: str) -> None:
    """A missing, extra or repeated column is named together with its partition."""
    frame, schema, _ = plan([pd.DataFrame({"a": [1], "b": [2]})])
    part = pd.DataFrame([[1] * len(columns)], columns=columns)
    with pytest.raises(SchemaMismatchError, match=f"partition 7.*{message}"):
        formats.to_arrow(part, schema, frame, 7)


def test_another_order_of_columns_is_put_right() -> None:
    """Columns are matched by name."""
    frame, schema, _ = plan([pd.DataFrame({"a": [1], "b": ["x"]})])
    table = formats.to_arrow(pd.DataFrame({"b": ["y"], "a": [2]}), schema, frame, 0)
    assert table.drop(["__index_level_0__"]).to_pylist() == [{"a": 2, "b": "y"}]


def test_index_levels_are_checked() -> None:
    """A partition with another number of index levels is refused."""
    frame, schema, _ = plan([indexed([1, 2, 3], names=["id"])])
    with pytest.raises(SchemaMismatchError, match="expected 1 index levels, found 2"):
        formats.to_arrow(indexed([1, 2, 3], [1, 2, 3], names=["a", "b"]), schema, frame, 0)


def test_every_partition_has_all_categories() -> None:
    """Partitions with fewer, reordered or foreign-typed categories come back with the known."""
    known = pd.DataFrame({"x": pd.Categorical(["a", "b"], ["c", "b", "a"], ordered=True)})
    frame, schema, _ = plan([known])
    for values in (
        pd.Categorical(["a", None], ["a"]),
        pd.Categorical(["a", "b"], ["a", "b", "unused"]),
        pd.array(["b", None], dtype="string"),
    ):
        part = pd.DataFrame({"x": values})
        for name in FORMATS:
            table = through(name, formats.to_arrow(part, schema, frame, 0))
            result = formats.to_pandas(table, frame)
            assert result["x"].dtype == known["x"].dtype
            assert (
                result["x"].astype(object).tolist()
                == [None if pd.isna(v) else v for v in part["x"].astype(object)]
                or result["x"].isna().tolist() == part["x"].isna().tolist()
            )


@pytest.mark.parametrize("name", FORMATS)
def test_unknown_categories_stay_unknown(name: str) -> None:
    """Categories that Dask does not know are inferred by partition and unknown in the meta."""
    parts = [pd.DataFrame({"x": pd.Categorical(values)}) for values in (["b", "a"], [None], ["z"])]
    lazy = dd.from_map(
        lambda i: parts[i],
        range(3),
        meta=dd.from_pandas(parts[0], npartitions=1)
        .assign(x=lambda df: df.x.cat.as_unknown())
        ._meta,
    )
    frame = json.loads(json.dumps(formats.describe(lazy._meta, True)))
    schema, unresolved = formats.infer_schema(lazy._meta, frame)
    assert unresolved == ("x",)
    found = formats.unify(formats.infer_columns(part, frame, unresolved) for part in parts)
    schema = formats.resolve(schema, found)
    assert not has_known_categories(formats.empty_meta(schema, frame)["x"])
    for index, part in enumerate(parts):
        table = through(name, formats.to_arrow(part, schema, frame, index))
        result = formats.to_pandas(table, frame)
        assert_same(result.astype(object), part.astype(object), check_column_type=False)
        assert isinstance(result["x"].dtype, pd.CategoricalDtype)


def test_unknown_categories_without_any_value() -> None:
    """A categorical of unknown categories that is null everywhere reads as such."""
    part = pd.DataFrame({"x": pd.Categorical([None, None])})
    meta = pd.DataFrame({"x": pd.Categorical([], [UNKNOWN_CATEGORIES])})
    frame = formats.describe(meta, True)
    schema, unresolved = formats.infer_schema(meta, frame)
    schema = formats.resolve(schema, formats.infer_columns(part, frame, unresolved))
    for name in FORMATS:
        result = formats.to_pandas(through(name, formats.to_arrow(part, schema, frame, 0)), frame)
        assert isinstance(result["x"].dtype, pd.CategoricalDtype)
        assert result["x"].isna().all()


def test_object_columns_are_unified() -> None:
    """Partitions agree on one type: null gives way, numbers and decimals widen."""
    parts = [
        pd.DataFrame({"n": n, "d": d, "l": items}, dtype=object)
        for n, d, items in (
            ([None], [Decimal("1.5")], [[]]),
            ([1], [Decimal("100.25")], [None]),
            ([2.5], [None], [[{"a": 1}]]),
            ([1], [7], [[{"b": "x"}]]),
        )
    ]
    _, schema, tables = plan(parts)
    assert schema.field("n").type == pa.float64()
    assert pa.types.is_decimal(schema.field("d").type)
    assert [t["n"].to_pylist() for t in tables] == [[None], [1.0], [2.5], [1.0]]
    assert tables[1]["d"].to_pylist() == [Decimal("100.25")]
    assert tables[2]["l"].to_pylist() == [[{"a": 1, "b": None}]]
    for table in tables:
        assert through("parquet", table).equals(table)


@pytest.mark.parametrize(
    "columns", (([1], ["a"]), (["a"], [b"a"]), ([1], [True]), ([NOW], [NOW.date()]), ([1], [[1]]))
)
def test_object_columns_in_conflict(columns: tuple[list[Any], list[Any]]) -> None:
    """Types that no one type holds exactly are a mismatch that names the column."""
    parts = [pd.DataFrame({"x": pd.Series(values, dtype=object)}) for values in columns]
    with pytest.raises(SchemaMismatchError, match="column 'x': partitions hold different types"):
        plan(parts)


@pytest.mark.parametrize(
    "values",
    (
        ["a", b"a"],
        [NOW.date(), NOW],
        [SECRET, 1],
        [1 + 2j],
        [pd.Interval(0, 1)],
        ["\ud800"],
        [NOW, NOW.astimezone(dt.UTC)],
        [2**64],
        [{1: 2}],
        [object()],
    ),
)
def test_objects_that_pyarrow_would_bend(values: list[Any]) -> None:
    """Mixtures that pyarrow would convert with a loss, or not at all, are refused by name."""
    part = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    frame = formats.describe(part.iloc[:0], True)
    with pytest.raises(SchemaMismatchError, match="partition 2, column 'x'") as info:
        formats.infer_columns(part, frame, ["x"], 2)
    assert SECRET not in str(info.value)
    assert info.value.__context__ is None


def test_objects_keep_nanoseconds() -> None:
    """Timestamps in an object column keep their nanoseconds."""
    part = pd.DataFrame({"x": pd.Series([pd.Timestamp(1), None], dtype=object)})
    assert back("parquet", part)["x"].tolist() == [pd.Timestamp(1), None]


def test_user_schema() -> None:
    """A given schema sets types of some columns, resolves objects, and is enforced."""
    part = pd.DataFrame({"a": [1, 2], "b": pd.Series([None, None], dtype=object), "c": [1.0, 2.0]})
    frame = formats.describe(part, True)
    schema, unresolved = formats.infer_schema(part, frame)
    wanted = pa.schema([("b", pa.string()), pa.field("a", pa.int8(), nullable=False)])
    applied = formats.apply_user_schema(schema, wanted)
    assert applied.field("a").type == pa.int8()
    assert unresolved == ("b",)
    assert applied.names == schema.names
    table = formats.to_arrow(part, applied, frame, 0)
    assert_same(formats.to_pandas(through("parquet", table), frame), part)
    with pytest.raises(SchemaMismatchError, match="column 'a': expected int8"):
        formats.to_arrow(part.assign(a=[1, 1000]), applied, frame, 0)
    with pytest.raises(SchemaMismatchError, match="column 'a': expected no null"):
        formats.to_arrow(part.assign(a=[1, None]), applied, frame, 0)


@pytest.mark.parametrize(
    ("name", "of"), (("nope", pa.int64()), ("a", pa.string()), ("a", pa.timestamp("ns")))
)
def test_impossible_user_schema(name: str, of: pa.DataType) -> None:
    """A schema that names no column, or a type its values never become, is refused at once."""
    part = pd.DataFrame({"a": [1, 2]})
    schema, _ = formats.infer_schema(part, formats.describe(part, True))
    with pytest.raises(InvalidWriteError, match=name):
        formats.apply_user_schema(schema, pa.schema([(name, of)]))


@pytest.mark.parametrize("case", ("numpy", "categories", "zoned", "text index", "named index"))
def test_plain_pandas_and_dask_read_parquet(case: str, tmp_path: Any) -> None:
    """Without this package, pandas and Dask restore dtypes and index from the file's metadata."""
    expected = CASES[case]()
    if case == "categories":
        expected = expected[["ordered", "unobserved"]]
    if case == "zoned":
        expected = expected[["berlin", "utc"]]
    _, _, (table,) = plan([expected])
    path = f"{tmp_path}/part.parquet"
    spec = FormatSpec(name="parquet")
    with open(path, "wb") as file:
        file.write(formats.get("parquet").dumps(table, spec))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyarrow and Dask call what pandas deprecates
        plain = pd.read_parquet(path)
        lazy = dd.read_parquet(path).compute()
    ms = [c for c in expected if c.endswith("_s")]  # Parquet has no seconds
    assert_same(plain.drop(columns=ms), expected.drop(columns=ms), check_column_type=False)
    assert lazy.index.name == expected.index.name
    assert list(lazy.columns) == list(expected.columns)


def test_arrow_backed_columns_are_not_copied() -> None:
    """An Arrow-backed column becomes part of the table as it is."""
    array = pa.chunked_array([pa.array(["a", None] * 1000, pa.string())])
    part = pd.DataFrame({"x": pd.arrays.ArrowExtensionArray(array)})
    _, _, (table,) = plan([part])
    assert table["x"].chunk(0).buffers()[2].address == array.chunk(0).buffers()[2].address


def test_all_null_partition_of_an_int_column_reads_as_floats() -> None:
    """An int64 column cannot hold a null, so that one partition comes back as pandas does."""
    frame, schema, _ = plan([pd.DataFrame({"x": [1]})])
    table = formats.to_arrow(pd.DataFrame({"x": [None]}), schema, frame, 0)
    assert formats.to_pandas(table, frame)["x"].dtype == "float64"


SERIES = st.one_of(
    st.lists(st.text() | st.none(), min_size=3, max_size=3).map(
        lambda v: pd.Series(v, dtype="string")
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=3, max_size=3).map(
        lambda v: pd.Series(v, dtype="Int64")
    ),
    st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3).map(
        lambda v: pd.Series(v, dtype="float64")
    ),
    st.lists(st.sampled_from(["x", "y", None]), min_size=3, max_size=3).map(
        lambda v: pd.Series(pd.Categorical(v, ["y", "x", "unseen"]))
    ),
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3).map(
        lambda v: pd.Series(np.array(v, dtype="datetime64[ns]")).dt.tz_localize("UTC")
    ),
    st.lists(st.dates() | st.none(), min_size=3, max_size=3).map(
        lambda v: pd.Series(v, dtype=object)
    ),
)


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    columns=st.dictionaries(st.text(max_size=5), SERIES, min_size=1, max_size=3),
    index=st.lists(st.integers(-5, 5), min_size=3, max_size=3),
)
def test_any_frame_round_trips(name: str, columns: dict[str, pd.Series], index: list[int]) -> None:
    """Whatever the values, column names and index, a frame reads back as written."""
    expected = pd.DataFrame(columns).set_axis(pd.Index(index), axis=0)
    assert_same(back(name, expected), expected)
