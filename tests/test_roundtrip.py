"""What is written is what is read back: every format, plain and encrypted, on every store."""

from __future__ import annotations

import datetime as dt
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client
from pandas.testing import assert_frame_equal

from pamola_dwriter import DataWriter, open_artifact, read_dataset
from pamola_dwriter.errors import DataWriteError, SchemaMismatchError, UnsupportedDataError
from pamola_dwriter.spec import WriterResult

KEY = bytes(range(32))
FORMATS = ("parquet", "csv", "jsonl", "json", "orc", "arrow")
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
Parts = list[pd.DataFrame]


@dataclass
class Place:
    """A task directory somewhere, and what opens it."""

    task_dir: str
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, df: Any, format: str, key: Any = None, **options: Any) -> WriterResult:
        """Write a dataset, also where one file would do."""
        writer = DataWriter(self.task_dir, storage_options=self.options, encryption_key=key)
        return writer.write_dataframe(df, "frame", format, **{"single_file": False, **options})


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """A local task directory."""
    return Place(str(tmp_path / "task"))


@pytest.fixture(params=["local", "s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A task directory on each kind of store."""
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        return Place(f"s3://{s3.bucket}/{uuid4().hex}", s3.storage_options)
    root = tmp_path if request.param == "local" else f"memory://{uuid4().hex}"
    return Place(f"{root}/task")


def same(part: pd.DataFrame) -> pd.DataFrame:
    """Return a partition as it is."""
    return part


def to_dask(parts: Sequence[pd.DataFrame]) -> dd.DataFrame:
    """Return a Dask frame of exactly these partitions, whose objects stay objects."""
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(same, list(parts), meta=parts[0].iloc[:0], enforce_metadata=False)


def assert_same(result: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Assert equality of values, dtypes, categories, index and names; RangeIndex is int64."""
    assert_frame_equal(
        result, expected, check_exact=True, check_freq=False, check_index_type="equiv"
    )


def assert_comes_back(result: WriterResult, key: Any, parts: Parts) -> None:
    """Assert that a dataset holds exactly these partitions, in order, and says so."""
    loaded = read_dataset(result.path, encryption_key=key)
    found = [loaded.partitions[number].compute() for number in range(loaded.npartitions)]
    assert len(found) == len(parts)
    for one, expected in zip(found, parts, strict=True):
        assert_same(one, expected)
    pd.testing.assert_series_equal(loaded._meta.dtypes, parts[0].dtypes)
    assert result.rows == sum(map(len, parts))


def cut(frame: pd.DataFrame, *places: int) -> Parts:
    """Cut a frame into partitions."""
    edges = [0, *places, len(frame)]
    return [frame.iloc[a:b] for a, b in pairwise(edges)]


def numbers() -> pd.DataFrame:
    """Return integers at their extremes, floats and truth values."""
    return pd.DataFrame(
        {
            "int64": [-(2**63), 2**63 - 1, 0, 1],
            "uint8": np.array([0, 255, 1, 2], dtype="uint8"),
            "float64": [0.1 + 0.2, np.nan, 5e-324, -1.7976931348623157e308],
            "float32": np.array([0.1, 3.4e38, np.nan, 1], dtype="float32"),
            "bool": [True, False, True, True],
        }
    )


def texts() -> pd.DataFrame:
    """Return text that a careless parser would change, as str and as object."""
    values = ["", None, " pad ", "1", "007", "true", "NA", "null", "nan", "None", "\\N"]
    values += ['quo"te', "a,b;c\td", "new\nline", "win\r\ndows", "日本", "\U0001f600", "\u2028é"]
    return pd.DataFrame(
        {
            "string": pd.array(values, dtype="string[pyarrow]"),
            "object": pd.Series(values, dtype=object),
            "größe, 日本": range(len(values)),
        }
    )


def moments() -> pd.DataFrame:
    """Return times with and without a zone, around a change of the clock, and spans."""
    times = ["2024-10-27 00:30", "2024-10-27 01:30", None, "1960-02-29 00:00"]
    utc = pd.to_datetime(times, utc=True)
    return pd.DataFrame(
        {
            "berlin": utc.tz_convert("Europe/Berlin"),
            "utc_ns": utc.as_unit("ns"),
            "offset_s": utc.tz_convert(dt.timezone(dt.timedelta(hours=5, minutes=30))).as_unit("s"),
            "naive_us": utc.tz_localize(None).as_unit("us"),
            "naive_ns": utc.tz_localize(None).as_unit("ns") + pd.Timedelta(1, "ns"),
            "span": pd.to_timedelta([1, -1, None, 10**15], unit="ns"),
        }
    )


def nullable() -> pd.DataFrame:
    """Return pandas' nullable dtypes."""
    return pd.DataFrame(
        {
            "Int8": pd.array([1, None, -128, 127], dtype="Int8"),
            "UInt64": pd.array([2**64 - 1, None, 0, 1], dtype="UInt64"),
            "Float64": pd.array([0.5, None, 0.1, -0.0], dtype="Float64"),
            "boolean": pd.array([True, None, False, None], dtype="boolean"),
            "string": pd.array(["a", None, "", "NA"], dtype="string[python]"),
        }
    )


def arrow_backed() -> pd.DataFrame:
    """Return Arrow-backed dtypes that every format holds."""
    day = dt.date(2024, 2, 29)
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "int16": (pa.int16(), [1, None, -5]),
        "large_string": (pa.large_string(), ["a", None, ""]),
        "decimal": (pa.decimal128(30, 5), [Decimal("1.5"), None, Decimal("-2")]),
        "day": (pa.date32(), [day, None, dt.date(1, 1, 1)]),
        "time": (pa.time64("us"), [dt.time(1, 2, 3, 4), None, dt.time()]),
        "zoned": (pa.timestamp("us", "Asia/Tokyo"), [pd.Timestamp(0, tz="UTC"), None, None]),
    }
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=pd.ArrowDtype(kind))
            for name, (kind, values) in columns.items()
        }
    )


def objects() -> pd.DataFrame:
    """Return Python objects that are no text."""
    return pd.DataFrame(
        {
            "decimal": [Decimal("1.10"), None, Decimal("-99999999999999999999.01")],
            "day": [dt.date(2024, 2, 29), None, dt.date(1, 1, 1)],
            "time": [dt.time(23, 59, 59, 999999), None, dt.time()],
            "int": [1, None, 2**62],
            "bool": [True, None, False],
        },
        dtype=object,
    )


def nested() -> pd.DataFrame:
    """Return lists, lists of lists and structs, as objects and Arrow-backed."""
    lists = [[1, None], None, [], [3]]
    return pd.DataFrame(
        {
            "list": pd.Series(lists, dtype=object),
            "lists": pd.Series([[["a"], []], [], None, [["b", "c"]]], dtype=object),
            "struct": pd.Series(
                [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}, None], dtype=object
            ),
            "arrow": pd.Series(lists, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        }
    )


def categories() -> pd.DataFrame:
    """Return known categories: text, unobserved, ordered, numbers, times, and none at all."""
    days = pd.to_datetime(["2024-01-01", "2024-01-02"])
    return pd.DataFrame(
        {
            "text": pd.Categorical(["b", "a", None, "b"]),
            "unobserved": pd.Categorical(["b"] * 4, categories=["c", "b", "a"]),
            "ordered": pd.Categorical(["lo", "hi", None, "lo"], ["lo", "mid", "hi"], ordered=True),
            "number": pd.Categorical([3, 1, None, 3], categories=[1, 2, 3]),
            "day": pd.Categorical([days[0], days[1], None, days[0]], categories=days),
            "empty": pd.Categorical([None] * 4, categories=pd.Index([], dtype=object)),
        }
    )


def nulls(dtype: Any, *values: Any) -> Parts:
    """Return a column whose second partition holds nulls alone."""
    first = pd.DataFrame({"k": [1, 2], "x": pd.Series(list(values), dtype=dtype)})
    other = pd.DataFrame({"k": [3, 4], "x": pd.Series([None, None], dtype=dtype)})
    return [first, other.set_axis([2, 3])]


def indexed(index: Any) -> Parts:
    """Return two partitions with this index."""
    return cut(pd.DataFrame({"x": range(len(index))}, index=index), 2)


def wide() -> pd.DataFrame:
    """Return 2,000 columns of three dtypes."""
    rows = np.arange(6).reshape(3, 2)
    columns = {f"c{i}": (rows[:, i % 2] * i).astype(("i8", "f8")[i % 2]) for i in range(1_999)}
    return pd.DataFrame({**columns, "text": pd.array(["a", None, "b"], dtype="string[pyarrow]")})


CASES: dict[str, Callable[[], Parts]] = {
    "numbers": lambda: cut(numbers(), 2),
    "texts": lambda: cut(texts(), 5),
    "moments": lambda: cut(moments(), 2),
    "nullable": lambda: cut(nullable(), 2),
    "arrow_backed": lambda: cut(arrow_backed(), 2),
    "objects": lambda: cut(objects(), 1),
    "categories": lambda: cut(categories(), 2),
    "empty_partitions": lambda: cut(numbers(), 0, 2, 2, 4),
    "empty_text_partitions": lambda: cut(texts(), 0, 0, 5),
    "empty_category_partitions": lambda: cut(categories(), 0, 4),
    "empty_frame": lambda: [numbers().iloc[:0]],
    "empty_frame_in_two_partitions": lambda: [texts().iloc[:0], texts().iloc[:0]],
    "empty_frame_of_moments_and_categories": lambda: [moments().join(categories()).iloc[:0]],
    "null_partition_of_objects": lambda: nulls(object, "a", "b"),
    "null_partition_of_decimals": lambda: nulls(object, Decimal("1.5"), Decimal("20")),
    "null_partition_of_text": lambda: nulls("string[pyarrow]", "a", "b"),
    "null_partition_of_floats": lambda: nulls("float64", 0.5, 1.5),
    "null_partition_of_integers": lambda: nulls("Int64", 1, 2),
    "null_partition_of_moments": lambda: nulls(
        "datetime64[us, UTC]", *pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True)
    ),
    "null_everywhere": lambda: nulls(object, None, None),
    "null_everywhere_typed": lambda: nulls("Int64", None, None),
    "null_column_alone": lambda: cut(pd.DataFrame({"x": [None] * 3}, dtype=object), 1),
    "later_type": lambda: nulls(object, "a", "b")[::-1],
    "later_decimal": lambda: nulls(object, Decimal("1.5"), Decimal("20"))[::-1],
    "index_duplicate": lambda: indexed([7, 7, 7, 7]),
    "index_unsorted": lambda: indexed([9, -3, 5, 0]),
    "index_named": lambda: indexed(pd.Index([4, 3, 2, 1], name="id")),
    "index_text": lambda: indexed(pd.Index(["b", "a", "", "ü"], dtype=object, name="näme")),
    "index_moments": lambda: indexed(
        pd.DatetimeIndex(["2024-01-01"] * 2 + ["1960-01-01"] * 2, tz="Asia/Tokyo", name="when")
    ),
    "index_floats": lambda: indexed(pd.Index([0.1, np.nan, -0.0, 1e300])),
    "index_categorical": lambda: indexed(pd.CategoricalIndex(list("abca"), name="k")),
    "wide": lambda: cut(wide(), 1),
    "one_row_partitions": lambda: cut(texts(), *range(1, 18)),
    "column_axis_name": lambda: cut(numbers().rename_axis(columns="measure"), 2),
    "odd_column_names": lambda: cut(
        pd.DataFrame({n: [1, 2] for n in ['a"b', "a,b", "a\nb", "", "a.b", " x ", "index"]}), 1
    ),
    "index_alone": lambda: cut(pd.DataFrame(index=pd.Index([3, 1, 2], name="id")), 1),
}
STORED = ("texts", "moments", "categories", "index_named")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", FORMATS)
def test_hard_frames_come_back(local: Place, format: str, case: str) -> None:
    """Each hard case reads back from an encrypted dataset as it was, partition by partition."""
    parts = CASES[case]()
    result = local.write(to_dask(parts), format, KEY, write_index=True)
    assert_comes_back(result, KEY, parts)


@KEYS
@pytest.mark.parametrize("case", STORED)
@pytest.mark.parametrize("format", FORMATS)
def test_every_store_gives_back_what_it_was_given(
    place: Place, format: str, case: str, key: bytes | None
) -> None:
    """A dataset reads back from local files, S3 and memory, plain and encrypted."""
    parts = CASES[case]()
    result = place.write(to_dask(parts), format, key, write_index=True)
    assert result.encrypted is (key is not None)
    assert_comes_back(result, key, parts)


@pytest.mark.parametrize("format", FORMATS)
def test_a_cluster_writes_and_reads_s3(
    s3: Any, s3_task_dir: str, client: Client, format: str
) -> None:
    """Workers in other processes write and read an encrypted dataset on S3."""
    parts = cut(texts().join(pd.concat([moments()] * 5, ignore_index=True)), 6, 6, 12)
    place = Place(s3_task_dir, s3.storage_options)
    result = place.write(to_dask(parts), format, "env:PII_KEY", write_index=True)
    loaded = read_dataset(result.path, encryption_key="env:PII_KEY")
    assert_same(loaded.compute(), pd.concat(parts))


@KEYS
@pytest.mark.parametrize("format", ("parquet", "jsonl", "orc", "arrow"))
def test_nested_values_come_back(local: Place, format: str, key: bytes | None) -> None:
    """Lists, lists of lists and structs come back, null and empty ones too."""
    parts = cut(nested(), 2)
    assert_comes_back(local.write(to_dask(parts), format, key, write_index=True), key, parts)


def test_csv_refuses_nested_values(local: Place) -> None:
    """CSV names the column that it cannot hold, and leaves nothing behind."""
    arrow = nested()[["arrow"]]
    with pytest.raises(UnsupportedDataError, match="column 'arrow'"):
        local.write(arrow, "csv")
    with pytest.raises((UnsupportedDataError, SchemaMismatchError), match="'list'"):
        local.write(nested()[["list"]], "csv")
    assert files_of(local) == []


@pytest.mark.parametrize("format", FORMATS)
def test_unknown_categories_come_back(local: Place, format: str) -> None:
    """Categories that differ by partition are united as Dask unites them."""
    text = dd.from_pandas(pd.DataFrame({"s": list("abca"), "n": [3, 1, 1, 2]}), npartitions=2)
    frame = text.assign(c=text["s"].astype("category"), d=text["n"].astype("category"))
    result = local.write(frame, format, KEY, write_index=True)
    loaded = read_dataset(result.path, encryption_key=KEY)
    assert not loaded["c"].cat.known
    found, expected = loaded.compute(), frame.compute()
    for name in ("c", "d"):  # nobody declared the order of the categories, nor the kind of text
        assert found[name].dtype == "category"
        assert set(found[name].cat.categories) == set(expected[name].cat.categories)
        assert found[name].astype(object).tolist() == expected[name].astype(object).tolist()


@pytest.mark.parametrize("format", FORMATS)
def test_from_pandas_comes_back_as_dask_computes_it(local: Place, format: str) -> None:
    """What ``dd.from_pandas`` makes of text is what comes back."""
    frame = dd.from_pandas(texts(), npartitions=3, sort=False)
    loaded = read_dataset(local.write(frame, format, write_index=True).path)
    assert_same(loaded.compute(), frame.compute())


MULTI = {
    "named": pd.MultiIndex.from_tuples([("b", 2), ("a", 1), ("a", 1)], names=["k", "n"]),
    "unnamed": pd.MultiIndex.from_tuples([("b", 2.5), ("a", np.nan), ("a", 1)]),
    "half": pd.MultiIndex.from_tuples([(1, "x"), (1, "y"), (0, "x")], names=[None, "n"]),
}


@KEYS
@pytest.mark.parametrize("case", MULTI)
@pytest.mark.parametrize("format", FORMATS)
def test_a_multi_index_comes_back(local: Place, format: str, case: str, key: bytes | None) -> None:
    """A pandas frame keeps its levels, their names, duplicates and order."""
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=MULTI[case])
    assert_comes_back(local.write(frame, format, key), key, [frame])


@KEYS
@pytest.mark.parametrize("format", FORMATS)
def test_pandas_input_as_a_dataset(place: Place, format: str, key: bytes | None) -> None:
    """A pandas frame becomes a dataset of one part."""
    result = place.write(texts(), format, key, write_index=True)
    assert result.partitions == 1
    assert_comes_back(result, key, [texts()])


def load_file(path: Any, format: str, key: Any) -> pd.DataFrame:
    """Read a single file with pandas."""
    with open_artifact(path, encryption_key=key) as file:
        if format in ("jsonl", "json"):
            return pd.read_json(file, lines=format == "jsonl")
        readers = {"parquet": pd.read_parquet, "orc": pd.read_orc, "arrow": pd.read_feather}
        return readers.get(format, pd.read_csv)(file)


@KEYS
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("partitions", (1, 3))
def test_a_single_file_is_read_by_pandas(
    place: Place, format: str, key: bytes | None, partitions: int
) -> None:
    """One file, of pandas or of many partitions in order, is what pandas reads."""
    frame = pd.DataFrame({"n": range(7), "x": [i / 8 for i in range(7)], "s": list("abcdefg")})
    given = frame if partitions == 1 else dd.from_pandas(frame, npartitions=partitions)
    asked = "auto" if partitions == 1 else True
    result = place.write(given, format, key, single_file=asked)
    assert result.manifest is None
    assert str(result.path).endswith(f"/output/frame.{format}" + (".pdw" if key else ""))
    assert (result.rows, result.partitions) == (7, 1)
    assert result.size_bytes == result.path.stat().st_size
    loaded = load_file(result.path, format, key)
    assert_frame_equal(loaded, frame, check_exact=True, check_dtype=False, check_index_type=False)


def test_a_single_file_keeps_dtypes_in_parquet(local: Place) -> None:
    """Plain pandas restores dtypes, categories and index from a single Parquet file."""
    frame = nullable().drop(columns="string").join(categories()[["ordered"]])
    frame.index = pd.Index([4, 3, 2, 1], name="id")
    result = local.write(frame, "parquet", single_file=True)
    loaded = pd.read_parquet(result.path)
    assert_same(loaded, frame)


def test_columns_must_be_named_by_text(local: Place) -> None:
    """A column that is named by a number is refused, and the message says how to rename."""
    frame = pd.DataFrame([[1, 2]], columns=[0, "a"])
    for given in (frame, to_dask([frame])):
        with pytest.raises(UnsupportedDataError, match=r"must be text, not \[0\]"):
            local.write(given, "parquet")
    assert files_of(local) == []


@pytest.mark.slow
def test_a_large_partition(local: Place) -> None:
    """One partition of 300 MB goes through encrypted Parquet, over many segments."""
    rows, size = 1_200, 2**18
    data = np.random.default_rng(7).bytes(rows * size)
    values = pa.array([data[i : i + size] for i in range(0, len(data), size)], pa.binary())
    frame = pd.DataFrame({"x": pd.arrays.ArrowExtensionArray(values)})
    result = local.write(frame, "parquet", KEY, compression="none", write_index=False)
    assert result.size_bytes > rows * size
    loaded = read_dataset(result.path, encryption_key=KEY).compute()
    assert pa.array(loaded["x"]).equals(values)


def files_of(place: Place) -> list[str]:
    """List every file below a local task directory."""
    root = Path(place.task_dir)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def grouped() -> pd.DataFrame:
    """Return values that a path must not take as they are, with nulls."""
    odd = ["a/b", "", "é=ü", None, "..", "a b%2F", ".", "a/b", "__HIVE_DEFAULT_PARTITION__"]
    odd += ["x\ny", "C:\\d", "日本"]
    size = len(odd)
    return pd.DataFrame(
        {
            "odd": pd.array(odd, dtype="string[pyarrow]"),
            "int": [1, 2, 3] * (size // 3),
            "x": np.arange(size) / 8,
            "day": pd.array([dt.date(2024, 1, 1), None] * (size // 2), pd.ArrowDtype(pa.date32())),
            "bool": [True, False] * (size // 2),
            "row": range(size),
        }
    )


@KEYS
@pytest.mark.parametrize("on", ["odd", "int", ["odd", "int"], ["day", "bool"]], ids=str)
@pytest.mark.parametrize("format", FORMATS)
def test_partition_on_comes_back(
    local: Place, format: str, on: str | list[str], key: bytes | None
) -> None:
    """Rows come back from hive folders, columns in place, whatever the values are."""
    frame = grouped()
    result = local.write(to_dask(cut(frame, 5)), format, key, partition_on=on, write_index=True)
    loaded = read_dataset(result.path, encryption_key=key).compute().sort_values("row")
    assert_same(loaded, frame)


@pytest.mark.parametrize("store", ["s3", "memory"])
@KEYS
def test_partition_on_comes_back_from_stores_without_folders(
    request: pytest.FixtureRequest, store: str, key: bytes | None
) -> None:
    """Odd values in keys of S3 and memory come back as well."""
    place = Place(f"memory://{uuid4().hex}")
    if store == "s3":
        s3 = request.getfixturevalue("s3")
        place = Place(f"s3://{s3.bucket}/{uuid4().hex}", s3.storage_options)
    result = place.write(to_dask(cut(grouped(), 5)), "parquet", key, partition_on=["odd", "int"])
    loaded = read_dataset(result.path, encryption_key=key).compute().sort_values("row")
    assert_same(loaded, grouped())


HIVE: dict[str, Callable[[], Any]] = {
    "nullable_int": lambda: pd.array([1, None, -5, 1], dtype="Int16"),
    "float": lambda: pd.array([0.1 + 0.2, 1e300, -1.5, 2]),
    "float_nan": lambda: np.array([0.5, np.nan, -0.0, 0.5]),
    "boolean": lambda: pd.array([True, None, False, True], dtype="boolean"),
    "category": lambda: pd.Categorical(["b", None, "a", "b"], categories=["c", "b", "a"]),
    "ordered": lambda: pd.Categorical([3, None, 1, 3], categories=[3, 2, 1], ordered=True),
    "decimal": lambda: pd.Series([Decimal("1.50"), None, Decimal("-2.25"), Decimal("1.50")]),
    "moment_ns": lambda: pd.DatetimeIndex(
        ["2024-01-01 00:00:00.123456789", None, "1960-01-01", "1960-01-01"]
    ),
    "moment_zoned": lambda: pd.to_datetime(
        ["2024-10-27 02:30+01:00", "2024-10-27 02:30+02:00", None, "1960-01-01 00:00+01:00"],
        utc=True,
    ).tz_convert("Europe/Berlin"),
    "text_object": lambda: pd.Series(["a", None, "", "a"], dtype=object),
    "null": lambda: pd.Series([None] * 4, dtype=object),
}


@KEYS
@pytest.mark.parametrize("case", HIVE)
def test_partition_on_keeps_types(local: Place, case: str, key: bytes | None) -> None:
    """A hive column of any type has its values and dtype back."""
    frame = pd.DataFrame({"k": HIVE[case](), "row": range(4)})
    result = local.write(frame, "parquet", key, partition_on="k")
    assert_same(read_dataset(result.path, encryption_key=key).compute().sort_values("row"), frame)


@pytest.mark.parametrize(
    "column",
    [
        pd.to_timedelta([1, 2], unit="ns"),
        pd.period_range("2024-01", periods=2, freq="M"),
        pd.interval_range(0, 2),
        pd.Series([[1], [2]], dtype=object),
        pd.Series([b"a", b"\xff"], dtype=object),
    ],
    ids=["timedelta", "period", "interval", "list", "bytes"],
)
def test_partition_on_of_a_type_without_text_is_exact_or_refused(local: Place, column: Any) -> None:
    """A hive column whose values have no text that reads back is refused, by name."""
    frame = pd.DataFrame({"k": column, "row": range(2)})
    try:
        result = local.write(frame, "parquet", partition_on="k")
    except (UnsupportedDataError, SchemaMismatchError, ValueError) as error:
        assert "'k'" in str(error)  # noqa: PT017 - refused or exact, both are right
        assert files_of(local) == []
    else:
        assert_same(read_dataset(result.path).compute().sort_values("row"), frame)


def test_a_hive_value_too_long_for_a_folder(local: Place) -> None:
    """A value that no folder can be named after fails cleanly, and encrypted it comes back."""
    frame = pd.DataFrame({"k": pd.array(["é" * 100, "b"], "string[pyarrow]"), "row": [0, 1]})
    with pytest.raises(DataWriteError, match=r"partition_on|publish"):
        local.write(frame, "parquet", partition_on="k")
    assert files_of(local) == []
    result = local.write(frame, "parquet", KEY, partition_on="k")
    loaded = read_dataset(result.path, encryption_key=KEY).compute().sort_values("row")
    assert_same(loaded, frame)


def test_an_encrypted_dataset_shows_no_value_in_any_path(local: Place) -> None:
    """With a key, hive values appear in no file name and not in the manifest."""
    frame = pd.DataFrame({"name": ["Ada Lovelace", "Grace Hopper"], "row": [0, 1]})
    local.write(frame, "parquet", partition_on="name")
    assert any("Lovelace" in path for path in files_of(local))
    result = local.write(frame, "parquet", KEY, partition_on="name")
    paths = files_of(local)
    assert not [path for path in paths if "Ada" in path or "Hopper" in path or "name" in path]
    root = Path(local.task_dir)
    assert not [path for path in paths if b"Lovelace" in (root / path).read_bytes()]
    assert result.partitions == 2


@pytest.mark.parametrize("format", FORMATS)
def test_parts_are_split_to_size(local: Place, format: str) -> None:
    """``target_part_size`` cuts partitions that are too large, for Dask and for pandas."""
    frame = pd.DataFrame({"x": np.arange(20_000)})
    for given in (frame, to_dask([frame])):
        result = local.write(given, format, target_part_size="40kB", write_index=True)
        assert 3 <= result.partitions <= 10
        assert_same(read_dataset(result.path).compute(), frame)


def test_tiny_parts_are_merged(local: Place) -> None:
    """``target_part_size`` joins partitions that are too small."""
    frame = pd.DataFrame({"x": np.arange(100)})
    result = local.write(
        to_dask(cut(frame, *range(10, 100, 10))), "parquet", target_part_size=2**20
    )
    assert result.partitions == 1
    assert_same(read_dataset(result.path).compute(), frame)


def test_a_given_schema_rules(local: Place) -> None:
    """Types that the user gives are those in the files, and no partition is looked at for them."""
    frame = pd.DataFrame({"i": [1, 2], "d": [Decimal("1.5"), None], "t": pd.Series(["a", "b"])})
    schema = pa.schema([("i", pa.int16()), ("d", pa.decimal128(12, 4))])
    result = local.write(frame, "parquet", schema=schema)
    stored = pq.read_schema(next(Path(result.path).glob("*.parquet")))
    assert stored.field("i").type == pa.int16()
    assert stored.field("d").type == pa.decimal128(12, 4)
    loaded = read_dataset(result.path).compute()
    assert loaded["i"].tolist() == [1, 2]
    assert loaded["d"].tolist() == [Decimal("1.5"), None]


def test_a_value_that_a_given_schema_cannot_hold(local: Place) -> None:
    """A number too large for the given type is a mismatch, not a wrapped number."""
    parts = [pd.DataFrame({"i": [1]}), pd.DataFrame({"i": [70_001]})]
    with pytest.raises(SchemaMismatchError, match="partition 1, column 'i'") as caught:
        local.write(to_dask(parts), "parquet", schema=pa.schema([("i", pa.int16())]))
    assert "70001" not in "".join(traceback.format_exception(caught.value))


SECRET = "4111-1111-1111-1111"
MISFITS: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {
    "text_for_integer": (pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [SECRET]})),
    "fraction_for_integer": (pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [4111.5]})),
    "text_for_moment": (
        pd.DataFrame({"x": pd.to_datetime(["2024-01-01"])}),
        pd.DataFrame({"x": [SECRET]}),
    ),
    "unknown_category": (
        pd.DataFrame({"x": pd.Categorical(["a"])}),
        pd.DataFrame({"x": pd.Categorical([SECRET])}),
    ),
    "other_column": (pd.DataFrame({"x": [1]}), pd.DataFrame({"y": [4111]})),
    "mixed_objects": (
        pd.DataFrame({"x": pd.Series(["a", "b"], dtype=object)}),
        pd.DataFrame({"x": pd.Series([SECRET, 4111], dtype=object)}),
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_partition_that_does_not_fit(local: Place, case: str) -> None:
    """The error names partition and column, shows no value, and nothing is left behind."""
    first, second = MISFITS[case]
    with pytest.raises(SchemaMismatchError, match="partition 1, column 'x'") as caught:
        local.write(to_dask([first, second]), "parquet")
    assert (caught.value.partition, caught.value.column) == (1, "x")
    assert "4111" not in "".join(traceback.format_exception(caught.value))
    assert files_of(local) == []


def test_objects_of_several_types_by_partition(local: Place) -> None:
    """Partitions whose objects have no type in common name the column and the types."""
    parts = [pd.DataFrame({"x": pd.Series([v], dtype=object)}) for v in ("a", Decimal("4111"))]
    with pytest.raises(SchemaMismatchError, match="column 'x'") as caught:
        local.write(to_dask(parts), "parquet")
    assert "4111" not in "".join(traceback.format_exception(caught.value))


def test_a_mismatch_on_a_cluster_is_as_clear(local: Place, client: Client) -> None:
    """The error comes back from a worker with its partition and column, and without the value."""
    with pytest.raises(SchemaMismatchError, match="partition 1, column 'x'") as caught:
        local.write(to_dask(MISFITS["text_for_integer"]), "csv", "env:PII_KEY")
    assert (caught.value.partition, caught.value.column) == (1, "x")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert files_of(local) == []


CODECS = {
    "parquet": ("zstd", "snappy", "gzip", "brotli", "lz4", "none"),
    "csv": ("gzip", "zstd", "none"),
    "jsonl": ("gzip", "zstd", "none"),
    "json": ("gzip", "zstd", "none"),
    "orc": ("zstd", "snappy", "zlib", "lz4", "none"),
    "arrow": ("lz4", "zstd", "none"),
}
SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "none": ""}


@KEYS
@pytest.mark.parametrize(
    ("format", "codec"), [(f, c) for f, codecs in CODECS.items() for c in codecs]
)
def test_every_compression_comes_back(
    local: Place, format: str, codec: str, key: bytes | None
) -> None:
    """Each codec is used as asked, shows in the file name of text formats, and reads back."""
    parts = cut(texts(), 5)
    result = local.write(to_dask(parts), format, key, compression=codec, write_index=True)
    assert_comes_back(result, key, parts)
    suffix = SUFFIXES[codec] if format in ("csv", "jsonl", "json") else ""
    ends = "." + format + suffix + (".pdw" if key else "")
    files = [path for path in files_of(local) if "part-" in path]
    assert len(files) == 2
    assert all(path.endswith(ends) for path in files)
    if format == "parquet" and key is None:
        group = pq.read_metadata(Path(local.task_dir, files[0])).row_group(0)
        found = group.column(0).compression.lower()
        assert found == {"none": "uncompressed"}.get(codec, codec)


@pytest.mark.parametrize(
    ("format", "index", "choice", "kept"),
    [
        ("parquet", pd.Index([5, 6]), None, True),
        ("parquet", pd.Index([5, 6]), False, False),
        ("csv", pd.Index([5, 6]), None, False),
        ("csv", pd.Index([5, 6]), True, True),
        ("csv", pd.Index([5, 6], name="id"), None, True),
        ("csv", pd.Index([5, 6], name="id"), False, False),
        ("jsonl", pd.Index([5, 6]), None, False),
        ("jsonl", pd.Index(["a", "b"], dtype=object), None, True),
        ("jsonl", pd.Index(["a", "b"], dtype=object), False, False),
    ],
)
def test_the_index_is_kept_as_chosen(
    local: Place, format: str, index: pd.Index, choice: bool | None, kept: bool
) -> None:
    """``write_index`` decides; by default text leaves out an index that only numbers the rows."""
    frame = pd.DataFrame({"x": [1, 2]}, index=index)
    loaded = read_dataset(local.write(frame, format, write_index=choice).path).compute()
    assert_same(loaded, frame if kept else frame.reset_index(drop=True))


@KEYS
@pytest.mark.parametrize("format", FORMATS)
def test_columns_are_projected(local: Place, format: str, key: bytes | None) -> None:
    """``columns=``, a list and a name give those columns of the whole frame, with its index."""
    frame = texts().join(pd.concat([moments()] * 5, ignore_index=True)).set_index("berlin")
    result = local.write(to_dask(cut(frame, 7)), format, key)
    for names in (["naive_ns", "object"], ["string"]):
        loaded = read_dataset(result.path, names, encryption_key=key)
        assert_same(loaded.compute(), frame[names])
    loaded = read_dataset(result.path, encryption_key=key)
    assert_same(loaded[["utc_ns", "string"]].compute(), frame[["utc_ns", "string"]])
    pd.testing.assert_series_equal(loaded["object"].compute(), frame["object"])
    assert len(loaded) == len(frame)


def test_no_columns_at_all(local: Place) -> None:
    """An empty list of columns gives the index alone."""
    frame = numbers().set_index("int64")
    result = local.write(to_dask(cut(frame, 2)), "parquet")
    assert_same(read_dataset(result.path, []).compute(), frame[[]])


def test_a_projected_hive_column(local: Place) -> None:
    """Columns that stand in the folders can be read alone, left out, and put in any order."""
    frame = grouped()
    result = local.write(to_dask(cut(frame, 5)), "parquet", KEY, partition_on=["odd", "int"])
    for names in (["row", "int"], ["odd"], ["row"]):
        loaded = read_dataset(result.path, names, encryption_key=KEY).compute()
        assert_same(loaded.sort_index(), frame[names])


# Dask's own readers still use what pandas 3.1 deprecates.
DASK_ON_PANDAS_4 = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")


def plain() -> pd.DataFrame:
    """Return a frame that every reader of every format types alike."""
    days = pd.date_range("2024-01-01", periods=6)
    return pd.DataFrame({"n": range(6), "x": [0.5] * 6, "s": list("abcabc"), "d": days})


@DASK_ON_PANDAS_4
def test_plain_dask_opens_parquet(place: Place) -> None:
    """A plain dataset is what ``dd.read_parquet`` expects of a directory, index and dtypes too."""
    frame = plain().join(nullable()["Int8"]).set_index(pd.Index([3, 1, 2, 6, 5, 4], name="id"))
    result = place.write(to_dask(cut(frame, 2)), "parquet")
    loaded = dd.read_parquet(str(result.path), storage_options=place.options).compute()
    assert_frame_equal(loaded, frame, check_dtype=False)
    assert loaded["Int8"].dtype == "Int8"
    assert loaded["d"].dtype == frame["d"].dtype


@DASK_ON_PANDAS_4
def test_plain_dask_opens_partitioned_parquet(place: Place) -> None:
    """Hive folders are columns for ``dd.read_parquet``, nulls and blanks in values included."""
    frame = plain().assign(k=["a b", "ü", "x", "a b", "ü", "x"], j=[1, 2, 1, 2, 1, 2])
    result = place.write(to_dask(cut(frame, 2)), "parquet", partition_on=["k", "j"])
    loaded = dd.read_parquet(str(result.path), storage_options=place.options).compute()
    assert len(loaded) == 6
    loaded = loaded.astype({"k": str, "j": "int64"}).sort_values("n")[list(frame)]
    assert_frame_equal(loaded, frame, check_dtype=False)


@DASK_ON_PANDAS_4
def test_plain_dask_opens_orc(place: Place) -> None:
    """Parts of a plain ORC dataset are what ``dd.read_orc`` reads."""
    result = place.write(to_dask(cut(plain(), 2)), "orc", write_index=False)
    loaded = dd.read_orc(f"{result.path}/*.orc", storage_options=place.options).compute()
    assert_frame_equal(loaded.reset_index(drop=True), plain(), check_dtype=False)


@pytest.mark.parametrize("format", ("csv", "jsonl"))
def test_plain_dask_opens_text(place: Place, format: str) -> None:
    """Parts of a plain text dataset are what ``dd.read_csv`` and ``dd.read_json`` read."""
    frame = plain()
    result = place.write(to_dask(cut(frame, 2)), format)
    pattern = f"{result.path}/*.{format}"
    read = dd.read_csv if format == "csv" else partial(dd.read_json, lines=True)
    found = read(pattern, storage_options=place.options).compute().reset_index(drop=True)
    found["d"] = pd.to_datetime(found["d"].astype(str))
    assert_frame_equal(found, frame, check_dtype=False)
