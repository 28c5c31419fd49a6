"""Everything that is taken for a frame: what it becomes, and that it is written as it was."""

from __future__ import annotations

import datetime as dt
import operator
import os
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask.delayed import delayed
from distributed import Client
from pandas.testing import assert_frame_equal

from pamola_dwriter import DataWriter, read_dataset
from pamola_dwriter.errors import SchemaMismatchError, UnsupportedDataError, WriteFailedError
from pamola_dwriter.frames import as_frame, has_index


def frame() -> pd.DataFrame:
    """Return a small frame with objects that are no text."""
    return pd.DataFrame({"n": [1, 2, 3], "d": pd.Series([Decimal("1.5"), None, Decimal(2)])})


def table() -> pa.Table:
    """Return an Arrow table of types that pandas alone would change."""
    return pa.table(
        {
            "int8": pa.array([1, None, -128], pa.int8()),
            "int64": pa.array([2**63 - 1, None, 0]),
            "text": pa.array(["a", None, ""]),
            "large": pa.array(["a", None, ""], pa.large_string()),
            "dictionary": pa.array(["b", None, "b"]).dictionary_encode(),
            "list": pa.array([[1, None], None, []]),
            "struct": pa.array([{"a": 1, "b": [0.5]}, None, {"a": None, "b": None}]),
            "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
            "seconds": pa.array([1, None, -1], pa.timestamp("s", "Asia/Tokyo")),
            "day": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]),
            "time": pa.array([dt.time(1, 2, 3), None, dt.time()]),
            "decimal": pa.array([Decimal("1.50"), None, Decimal(0)], pa.decimal128(30, 2)),
            "bool": pa.array([True, None, False]),
            "binary": pa.array([b"\x00", None, b""]),
            "null": pa.nulls(3),
        }
    )


class Stream:
    """What exports an Arrow stream and is nothing else."""

    def __init__(self, held: pa.Table) -> None:
        self.held = held

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.RecordBatchReader.from_batches(
            self.held.schema, self.held.to_batches()
        ).__arrow_c_stream__(requested_schema)


class Lake:
    """What can become a Dask frame, as an xarray Dataset can."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def to_dask_dataframe(self) -> Any:
        """Return what this stands for, or fail."""
        if isinstance(self.made, Exception):
            raise self.made
        return self.made() if callable(self.made) else self.made


def test_frames_are_left_alone() -> None:
    """A frame of pandas, which can export Arrow too, or of Dask is returned itself."""
    for given in (frame(), dd.from_pandas(frame(), npartitions=2)):
        assert as_frame(given) is given


@pytest.mark.parametrize("name", ("n", None, ""))
@pytest.mark.parametrize("lazy", (False, True))
def test_a_series_is_one_column(name: str | None, lazy: bool) -> None:
    """A Series keeps its name and index; one without a name is column ``"0"``."""
    series = pd.Series([3, 1, 2], index=pd.Index([5, 6, 7], name="id"), name=name)
    made = as_frame(dd.from_pandas(series, npartitions=2) if lazy else series)
    expected = series.to_frame("0" if name is None else name)
    assert isinstance(made, dd.DataFrame if lazy else pd.DataFrame)
    assert_frame_equal(made.compute() if isinstance(made, dd.DataFrame) else made, expected)


def test_an_arrow_table_is_written_as_it_is(tmp_path: Path) -> None:
    """The files of a table have its schema and values, and reading back gives its types."""
    writer = DataWriter(tmp_path)
    path = writer.write_dataframe(table(), "x", "parquet", write_index=False).path
    pq.write_table(table(), tmp_path / "expected.parquet")
    assert pq.read_table(path).equals(pq.read_table(tmp_path / "expected.parquet"))
    path = writer.write_dataframe(table(), "x", "arrow", write_index=False).path
    assert pa.ipc.open_file(path).read_all().equals(table())
    result = writer.write_dataframe(table(), "y", "arrow", single_file=False, write_index=False)
    loaded = read_dataset(result.path).compute()
    assert loaded.dtypes.tolist() == [pd.ArrowDtype(field.type) for field in table().schema]
    assert pa.Table.from_pandas(loaded, table().schema, preserve_index=False).equals(table())


MADE: dict[str, Callable[[pa.Table], Any]] = {
    "table": lambda held: held,
    "chunks": lambda held: pa.concat_tables([held[:1], held[1:]]),
    "batch": lambda held: held.combine_chunks().to_batches()[0],
    "reader": lambda held: pa.RecordBatchReader.from_batches(held.schema, held.to_batches()),
    "stream": Stream,
}


@pytest.mark.parametrize("case", MADE)
def test_whatever_holds_arrow_is_the_same_frame(case: str) -> None:
    """Batches, readers and strangers that export a stream become the frame of their table."""
    made = as_frame(MADE[case](table()))
    assert isinstance(made, pd.DataFrame)
    assert made.dtypes.tolist() == [pd.ArrowDtype(field.type) for field in table().schema]
    assert pa.Table.from_pandas(made, table().schema, preserve_index=False).equals(table())
    empty = as_frame(MADE[case](table()) if case == "batch" else MADE[case](table()[:0]))
    assert list(empty.columns) == table().column_names


def test_a_table_of_pandas_is_columns() -> None:
    """What pandas notes about an index in a table is left aside: it is a column like others."""
    held = pa.Table.from_pandas(frame().set_index(pd.Index([3, 1, 2], name="id")))
    made = as_frame(held)
    assert made.columns.tolist() == ["n", "d", "id"]
    assert made.index.equals(pd.RangeIndex(3))


def test_tables_that_are_no_frames() -> None:
    """A table without columns, or with a name twice, is refused by the write."""
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    for held, match in ((table().select([]), "neither columns"), (twice, "repeated")):
        with pytest.raises(UnsupportedDataError, match=match):
            DataWriter("memory://frames").write_dataframe(held, "x", write_index=False)


def test_polars_frames(tmp_path: Path) -> None:
    """A Polars frame is written and read back, categories, lists, nulls and times too."""
    given = pl.DataFrame(
        {
            "n": [1, None, 3],
            "s": ["a", None, ""],
            "c": pl.Series(["u", None, "v"], dtype=pl.Categorical),
            "e": pl.Series(["u", None, "v"], dtype=pl.Enum(["v", "u"])),
            "l": [[1, 2], None, []],
            "t": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None, None],
            "d": [Decimal("1.50"), None, Decimal("-2.25")],
            "r": [{"a": 1}, None, {"a": None}],
            "u": pl.Series([2**64 - 1, None, 0], dtype=pl.UInt64),
        }
    )
    for name in ("parquet", "arrow", "orc"):
        result = DataWriter(tmp_path).write_dataframe(
            given, name, name, single_file=False, write_index=False
        )
        loaded = read_dataset(result.path).compute()
        found = pl.from_arrow(pa.Table.from_pandas(loaded, preserve_index=False))
        assert found.to_dicts() == given.to_dicts()
    assert as_frame(given.head(0)).columns.tolist() == given.columns


def test_polars_lazy_frames_say_what_to_call() -> None:
    """A LazyFrame is refused with the call that makes a frame of it."""
    with pytest.raises(UnsupportedDataError, match=r"call collect\(\)"):
        as_frame(pl.LazyFrame({"x": [1]}))


def part(start: int, **columns: Any) -> pd.DataFrame:
    """Return one partition."""
    return pd.DataFrame({"n": [start, start + 1], **columns}, index=[start, start + 1])


@pytest.mark.parametrize("kind", (list, tuple))
def test_delayed_frames_are_partitions(kind: Any) -> None:
    """A list of Delayed frames becomes one partition each, objects staying objects."""
    given = kind(delayed(part)(start, o=[Decimal(start), None]) for start in (0, 5, 9))
    made = as_frame(given)
    assert isinstance(made, dd.DataFrame)
    assert made.npartitions == 3
    expected = pd.concat([part(start, o=[Decimal(start), None]) for start in (0, 5, 9)])
    assert_frame_equal(made.compute(), expected)
    assert as_frame(given[0]).npartitions == 1


def test_categories_of_delayed_frames_are_united(tmp_path: Path) -> None:
    """Categories that differ by partition are united; the first ones are not taken for all."""
    given = [delayed(part)(n, c=pd.Categorical([text, "z"])) for n, text in enumerate("ab")]
    result = DataWriter(tmp_path).write_dataframe(given, "x", "parquet", single_file=False)
    loaded = read_dataset(result.path).compute()
    assert loaded["c"].tolist() == ["a", "z", "b", "z"]
    assert loaded["c"].dtype == "category"


def test_delayed_objects_that_are_no_frames() -> None:
    """A Delayed object that gives something else is refused by its type, before any write."""
    for given in ([delayed(int)(5)], delayed(frame)()["n"], [delayed(dict)()]):
        with pytest.raises(UnsupportedDataError, match="must give pandas DataFrames, not"):
            as_frame(given)


def test_a_first_partition_that_fails() -> None:
    """A failing first partition is a failed write whose cause is chained."""
    with pytest.raises(WriteFailedError, match="ZeroDivisionError") as caught:
        as_frame([delayed(operator.truediv)(1, 0)])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    bag = db.from_sequence([1, 0], npartitions=2).map(partial(operator.truediv, 1))
    with pytest.raises(UnsupportedDataError, match="must hold dicts, not float"):
        as_frame(bag)


def records() -> list[dict[str, Any]]:
    """Return records that a DataFrame of numpy types would change."""
    return [
        {"id": 2**63 - 1, "name": "a", "tags": ["x"], "at": dt.date(2024, 1, 1), "late": None},
        {"id": None, "name": None, "tags": None, "at": None, "late": None},
        {"id": 3, "name": "c", "tags": [], "late": None},
        {"name": "d", "id": 4, "tags": ["y", None], "late": "text"},
    ]


def test_a_bag_keeps_its_records(tmp_path: Path) -> None:
    """Integers beside nulls stay whole, absent keys are nulls, lists and dates stay."""
    bag = db.from_sequence(records(), npartitions=2)
    for name in ("parquet", "jsonl"):
        result = DataWriter(tmp_path).write_dataframe(
            bag, name, name, single_file=False, write_index=False
        )
        assert result.partitions == 2
        loaded = read_dataset(result.path).compute()
        found = pa.Table.from_pandas(loaded, preserve_index=False).to_pylist()
        expected = [{"at": None, **record} for record in records()]
        assert found == expected
    assert loaded["id"].dtype == pd.ArrowDtype(pa.int64())


def test_a_bag_that_begins_with_empty_partitions() -> None:
    """The columns are those of the first partition that has records."""
    bag = db.from_sequence(range(4), npartitions=4).filter(lambda n: n >= 2)
    made = as_frame(bag.map(lambda n: {"n": n}))
    assert made.npartitions == 4
    assert made.compute()["n"].tolist() == [2, 3]
    with pytest.raises(UnsupportedDataError, match="no records"):
        as_frame(bag.filter(lambda n: n > 9))


@pytest.mark.parametrize(
    ("later", "match"),
    (
        ({"n": 1.5}, "partition 1, column 'n': expected int64, found double"),
        ({"n": 1, "more": 2}, "partition 1.*extra columns: 'more'"),
        ({"n": "text"}, "partition 1, column 'n': expected int64, found string"),
        (5, "must hold dicts, not int"),
    ),
    ids=["float", "key", "text", "number"],
)
def test_later_records_lose_nothing(later: Any, match: str, tmp_path: Path) -> None:
    """A later record with other keys or types fails the write: nothing is rounded or dropped."""
    bag = db.from_sequence([{"n": 1}, later], npartitions=2)
    with pytest.raises((SchemaMismatchError, UnsupportedDataError), match=match):
        DataWriter(tmp_path).write_dataframe(bag, "x", "parquet", write_index=False)


def test_a_schema_widens_the_types_of_a_bag(tmp_path: Path) -> None:
    """The type that a caller gives holds what the first partition did not show."""
    bag = db.from_sequence([{"n": 1}, {"n": 1.5}], npartitions=2)
    result = DataWriter(tmp_path).write_dataframe(
        bag, "x", "parquet", write_index=False, schema=pa.schema([("n", pa.float64())])
    )
    assert read_dataset(result.path).compute()["n"].tolist() == [1.0, 1.5]


def test_bags_and_delayed_frames_are_looked_at_on_the_cluster(client: Client) -> None:
    """The first partition is computed by the workers, and only its empty frame comes here."""
    bag = db.from_sequence(range(4), npartitions=2).map(lambda n: {"n": n, "pid": os.getpid()})
    frames = [delayed(lambda: pd.DataFrame({"pid": [os.getpid()]}))()]
    for made in (as_frame(bag), as_frame(frames)):
        assert os.getpid() not in made.compute()["pid"].tolist()


def test_a_look_starts_no_processes() -> None:
    """Without a cluster the first partition is computed in a thread, not as bags would."""
    made = as_frame(db.from_sequence([0]).map(lambda _: {"pid": os.getpid()}))
    assert made.compute(scheduler="threads")["pid"].tolist() == [os.getpid()]
    assert dask.config.get("scheduler", None) is None


@pytest.mark.parametrize("kind", ("dask", "pandas", "series"))
def test_what_turns_itself_into_a_dask_frame(kind: str) -> None:
    """``to_dask_dataframe()`` is called, objects stay objects, and a Series is a column."""
    made = {
        "dask": lambda: dd.from_pandas(frame(), npartitions=2),
        "pandas": frame(),
        "series": lambda: dd.from_pandas(frame()["d"], npartitions=2),
    }[kind]
    found = as_frame(Lake(made))
    computed = found.compute() if isinstance(found, dd.DataFrame) else found
    expected = frame()[["d"]] if kind == "series" else frame()
    assert_frame_equal(computed, expected)
    assert computed["d"].dtype == object


def test_dask_arrays() -> None:
    """A Dask array is a frame as far as its columns are named by text."""
    assert as_frame(da.arange(3, chunks=2)).compute()["0"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "given",
    (
        *(None, 5, "x", b"x", [1], [], (), {}, {"x": [1]}, [{"x": 1}], np.zeros(2)),
        *(pd.Index([1]), pd.DataFrame, pl.DataFrame, Lake, pa.array([1]), pa.scalar(1)),
        *(pl.Series([1]), pa.chunked_array([[1]]), pa.schema([]), db.Bag),
        *(Lake(5), Lake(None), Lake(ValueError("no")), [delayed(frame)(), frame()]),
        dd.from_pandas(frame(), npartitions=1).index,
    ),
    ids=lambda given: f"{type(given).__name__}",
)
def test_everything_else_is_refused(given: Any) -> None:
    """What is no frame is refused with a word on what is taken, or on what failed."""
    match = "df must be a pandas or Dask DataFrame .*, not |could not be turned into a frame"
    with pytest.raises(UnsupportedDataError, match=match):
        as_frame(given)


def test_who_has_an_index() -> None:
    """Frames and partitions have labels for their rows, records and Arrow tables none."""
    lazy = dd.from_pandas(frame(), npartitions=1)
    labelled = (frame(), frame()["n"], lazy, lazy["n"], [delayed(frame)()], Lake(frame))
    bag = db.from_sequence([{"x": 1}])
    numbered = (table(), table().to_batches()[0], pl.DataFrame(), Stream(table()), bag)
    assert [has_index(given) for given in labelled] == [True] * len(labelled)
    assert [has_index(given) for given in numbered] == [False] * len(numbered)
