"""Serializers: one Arrow table to the bytes of one file and back, in every format."""

from __future__ import annotations

import datetime as dt
import gzip
import io
from decimal import Decimal

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pamola_dwriter import formats
from pamola_dwriter.errors import InvalidWriteError, UnknownFormatError, UnsupportedDataError
from pamola_dwriter.spec import FormatSpec

FORMATS = ("parquet", "csv", "jsonl", "json", "orc", "arrow")
TEXT_FORMATS = ("csv", "jsonl", "json")
NAIVE = dt.datetime(2020, 1, 1)  # noqa: DTZ001  one of the types to hold
TEXTS = ["", None, "plain", 'quo"te', "comma, tab\t", "new\nline", "win\r\ndows", " pad ", "null"]
BERLIN = pa.timestamp("ns", "Europe/Berlin")


def spec_of(name: str, **fields: object) -> FormatSpec:
    """Return a checked spec."""
    return formats.get(name).check_options(FormatSpec(name=name, **fields))  # type: ignore[arg-type]


def round_trip(table: pa.Table, spec: FormatSpec, columns: list[str] | None = None) -> pa.Table:
    """Return `table` written and read back."""
    serializer = formats.get(spec.name)
    serializer.check_schema(table.schema)
    data = serializer.dumps(table, spec)
    return serializer.load(io.BytesIO(data.to_pybytes()), table.schema, columns, spec)


def values(*items: object, of: pa.DataType) -> pa.Array:
    """Return an array with a null in its middle."""
    return pa.array([*items[:1], None, *items[1:]], type=of)


FLAT = {
    **{
        f"int{n}": values(-(2 ** (n - 1)), 2 ** (n - 1) - 1, of=getattr(pa, f"int{n}")())
        for n in (8, 16, 32, 64)
    },
    **{f"uint{n}": values(0, 2**n - 1, of=getattr(pa, f"uint{n}")()) for n in (8, 16, 32, 64)},
    "float32": values(np.float32(0.1), np.float32(3.4e38), of=pa.float32()),
    "float64": values(0.1 + 0.2, 5e-324, -1.7976931348623157e308, -0.0, of=pa.float64()),
    "bool": values(True, False, of=pa.bool_()),
    "string": pa.array([*TEXTS, "Größe", "日本", "\U0001f600", "\u2028", "1", "true", "nan"]),
    "large_string": pa.array(TEXTS, pa.large_string()),
    **{
        f"timestamp_{u}": values(-1, 1_234_567_891, of=pa.timestamp(u))
        for u in ("s", "ms", "us", "ns")
    },
    "timestamp_tz": values(-3_000_000_000_123_456_789, 1_700_000_000_123_456_789, of=BERLIN),
    "timestamp_offset": values(1, 2, of=pa.timestamp("ms", "+05:30")),
    "date32": values(dt.date(1, 1, 1), dt.date(9999, 12, 31), of=pa.date32()),
    "date64": values(dt.date(1970, 1, 1), dt.date(2024, 2, 29), of=pa.date64()),
    "time32": values(1, 86_399, of=pa.time32("s")),
    "time32_ms": values(1, 86_399_999, of=pa.time32("ms")),
    "time64": values(1, 86_399_999_999, of=pa.time64("us")),
    "time64_ns": values(1, 86_399_999_999_999, of=pa.time64("ns")),
    "duration": values(-1, 2**62, of=pa.duration("ns")),
    "decimal128": values(Decimal("-1.50"), Decimal("0.00"), of=pa.decimal128(38, 2)),
    "decimal256": values(Decimal("1e49"), Decimal("-0.01"), of=pa.decimal256(60, 2)),
    "null": pa.nulls(3),
    "dictionary": pa.array(["b", None, "a", "b"]).dictionary_encode(),
    "dictionary_int": pa.array([3, None, 1, 3]).dictionary_encode(),
    "period": pa.array(pd.period_range("2020-01", periods=3, freq="M")),
}
NESTED = {
    "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
    "large_list": pa.array([["a"], None], pa.large_list(pa.large_string())),
    "struct": pa.array([{"a": 1, "b": [0.5]}, {"a": None, "b": None}, {"a": 3, "b": []}]),
    "list_of_struct": pa.array([[{"t": NAIVE, "d": Decimal("1.20")}], None]),
}
BINARY = {
    "binary": pa.array([b"", None, b"\x00\xff"]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", FLAT)
def test_flat_types_come_back_exactly(name: str, case: str) -> None:
    """Every flat type, with nulls and extremes, reads back as the same table."""
    table = pa.table({"key": pa.array(range(len(FLAT[case]))), "x": FLAT[case]})
    result = round_trip(table, spec_of(name))
    assert result.schema == table.schema
    if pa.types.is_dictionary(table.schema.field("x").type):
        assert result["x"].to_pylist() == table["x"].to_pylist()
    else:
        assert result.equals(table)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", FLAT)
def test_a_lone_column_keeps_its_nulls(name: str, case: str) -> None:
    """A table of one column keeps its rows even where all that is written is a blank line."""
    table = pa.table({"x": pa.concat_arrays([FLAT[case], FLAT[case][1:2]])})
    assert round_trip(table, spec_of(name))["x"].to_pylist() == table["x"].to_pylist()


@pytest.mark.parametrize("case", NESTED)
def test_nested_types_come_back_or_are_refused(case: str) -> None:
    """All but CSV hold lists and structs; CSV names the column it cannot hold."""
    table = pa.table({"key": pa.array(range(len(NESTED[case]))), "x": NESTED[case]})
    for name in ("parquet", "jsonl", "orc", "arrow"):
        assert round_trip(table, spec_of(name)).equals(table)
    with pytest.raises(UnsupportedDataError, match="column 'x'"):
        formats.get("csv").check_schema(table.schema)


@pytest.mark.parametrize("case", BINARY)
def test_binary_and_maps_need_a_binary_format(case: str) -> None:
    """Binary data and maps come back from binary formats, and the text formats name the column."""
    table = pa.table({"x": BINARY[case]})
    for name in ("parquet", "orc", "arrow"):
        assert round_trip(table, spec_of(name)).equals(table)
    for name in TEXT_FORMATS:
        with pytest.raises(UnsupportedDataError, match="column 'x'"):
            formats.get(name).check_schema(table.schema)


def test_not_a_number_is_exact_but_null_in_jsonl() -> None:
    """NaN and infinities survive beside nulls, except in JSON, which has none of them."""
    table = pa.table({"x": pa.array([1.5, None, float("nan"), float("inf"), float("-inf")])})
    for name in ("parquet", "csv", "orc", "arrow"):
        assert repr(round_trip(table, spec_of(name))["x"].to_pylist()) == repr(
            table["x"].to_pylist()
        )
    assert round_trip(table, spec_of("jsonl"))["x"].to_pylist() == [1.5, None, None, None, None]


def test_half_floats_are_exact_or_refused() -> None:
    """Half floats come back exactly where this pyarrow can convert them, else are refused."""
    table = pa.table({"x": pa.array(np.array([1.1, 65504], dtype="float16"))})
    for name in FORMATS:
        if name == "arrow" or int(pa.__version__.split(".")[0]) >= 16:
            assert round_trip(table, spec_of(name)).equals(table)
        else:
            with pytest.raises(UnsupportedDataError, match="column 'x'"):
                formats.get(name).check_schema(table.schema)


@pytest.mark.parametrize("name", TEXT_FORMATS)
@pytest.mark.parametrize("day", (2_932_897, -719_529))
@pytest.mark.parametrize("as_time", (False, True))
def test_dates_without_a_text_form_are_refused(name: str, day: int, as_time: bool) -> None:
    """A date outside the years 0 to 9999, which could not be read back, fails the write."""
    array = pa.array([0, day], pa.int32()).cast(pa.date32())
    if as_time:
        array = pa.array([0, day * 86_400], pa.int64()).cast(pa.timestamp("s", "Asia/Tokyo"))
    with pytest.raises(UnsupportedDataError, match="column 'x'"):
        formats.get(name).dumps(pa.table({"x": array}), spec_of(name))


@pytest.mark.parametrize("name", FORMATS)
def test_empty_tables_and_empty_files(name: str) -> None:
    """A table without rows comes back with its schema, as does a file without bytes."""
    schema = pa.schema([(case, array.type) for case, array in FLAT.items()])
    table = schema.empty_table()
    assert round_trip(table, spec_of(name)).schema == schema
    if name in TEXT_FORMATS:
        empty = formats.get(name).load(io.BytesIO(), schema, ["string"], spec_of(name))
        assert empty.schema == pa.schema([schema.field("string")])
        assert empty.num_rows == 0


@pytest.mark.parametrize("name", FORMATS)
def test_projection(name: str) -> None:
    """Only the columns asked for come back, in that order; none at all keeps the rows."""
    table = pa.table({"a": [1, 2], "b": ["x", None], "c": [0.5, 1.5]})
    result = round_trip(table, spec_of(name), ["c", "a"])
    assert result.column_names == ["c", "a"]
    assert result.equals(table.select(["c", "a"]))
    assert round_trip(table, spec_of(name), []).num_rows == 2


@pytest.mark.parametrize("name", FORMATS)
def test_two_thousand_columns(name: str) -> None:
    """A very wide table comes back."""
    table = pa.table({f"c{i}": pa.array([i, None, -i]) for i in range(2_000)})
    assert round_trip(table, spec_of(name)).equals(table)


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_a_row_longer_than_a_block(name: str) -> None:
    """A single value of several megabytes is read back whole."""
    table = pa.table({"x": ["short", "long\n" * 1_000_000, ""]})
    assert round_trip(table, spec_of(name)).equals(table)


@pytest.mark.parametrize("name", FORMATS)
def test_many_rows(name: str) -> None:
    """More rows than the parser of pyarrow 14 takes at once come back, and in order."""
    table = pa.table({"x": np.arange(150_001)})
    assert round_trip(table, spec_of(name)).equals(table)


@pytest.mark.parametrize("rows", (65_535, 65_536, 65_537, 131_072))
def test_jsonl_around_the_bounds_of_its_blocks(rows: int) -> None:
    """No row is lost or doubled where one block ends and the next begins."""
    table = pa.table({"x": np.arange(rows)})
    assert round_trip(table, spec_of("jsonl")).equals(table)


@pytest.mark.parametrize("name", FORMATS)
def test_odd_column_names(name: str) -> None:
    """Names with quotes, delimiters, newlines and dots, and the empty name, are kept."""
    table = pa.table({n: [1, None] for n in ['a"b', "a,b", "a\nb", "", "a", "a.b", "é", " x "]})
    assert round_trip(table, spec_of(name)).equals(table)
    assert round_trip(table, spec_of(name), ["a"]).equals(table.select(["a"]))


@pytest.mark.parametrize("compression", ("zstd", "snappy", "gzip", "brotli", "lz4", "none"))
def test_parquet_codecs(compression: str) -> None:
    """Every Parquet codec is used as asked for."""
    table = pa.table({"x": ["text"] * 1000})
    spec = spec_of("parquet", compression=compression, row_group_size=100)
    data = formats.get("parquet").dumps(table, spec)
    metadata = pa.parquet.ParquetFile(pa.BufferReader(data)).metadata
    codec = metadata.row_group(0).column(0).compression.lower()
    assert codec == ("uncompressed" if compression == "none" else compression)
    assert metadata.num_row_groups == 10
    assert round_trip(table, spec).equals(table)


@pytest.mark.parametrize("name", TEXT_FORMATS)
@pytest.mark.parametrize("compression", ("gzip", "zstd", "none", "uncompressed", None))
def test_text_compression_is_readable_by_dask(
    name: str, compression: str | None, tmp_path: object
) -> None:
    """A compressed text file has a telling extension, and plain Dask and pandas read it."""
    table = pa.table({"x": [1, 2], "s": ["a", 'b"\n']})
    spec = spec_of(name, compression=compression)
    serializer = formats.get(name)
    extension = serializer.extension(spec)
    assert extension == name + {"gzip": ".gz", "zstd": ".zst"}.get(compression or "", "")
    path = f"{tmp_path}/part.{extension}"
    with open(path, "wb") as file:
        file.write(serializer.dumps(table, spec))
    assert round_trip(table, spec).equals(table)
    if compression == "zstd":
        pytest.importorskip("zstandard")
    codec = compression if compression in ("gzip", "zstd") else None
    read = dd.read_csv if name == "csv" else dd.read_json
    kwargs = (
        {"blocksize": None} if name == "csv" else {"lines": name == "jsonl", "orient": "records"}
    )
    frame = read(path, compression=codec, **kwargs).compute()
    assert frame["x"].tolist() == [1, 2]
    assert frame["s"].tolist() == ["a", 'b"\n']


def test_compression_is_deterministic() -> None:
    """The same table makes the same bytes: no time stamp is in the gzip header."""
    table = pa.table({"x": ["a"]})
    spec = spec_of("csv", compression="gzip")
    first = formats.get("csv").dumps(table, spec).to_pybytes()
    assert gzip.decompress(first) == b'"x"\n"a"\n'
    assert formats.get("csv").dumps(table, spec).to_pybytes() == first


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    (
        ("parquet", {"compression": "rar"}, "brotli"),
        ("parquet", {"row_group_size": 0}, "positive"),
        ("parquet", {"options": {"compresion_level": 3}}, "compression_level"),
        ("parquet", {"options": {"compression_level": 99}}, "from 1 to 22"),
        ("parquet", {"compression": "snappy", "options": {"compression_level": 1}}, "snappy"),
        ("orc", {"compression": "gzip"}, "zlib"),
        ("orc", {"row_group_size": 5}, "parquet"),
        ("orc", {"options": {"compression_level": 3}}, "none"),
        ("arrow", {"compression": "snappy"}, "lz4"),
        ("arrow", {"row_group_size": 5}, "parquet"),
        ("excel", {"compression": "zstd"}, "none"),
        ("excel", {"options": {"sheet_name": "x"}}, "none"),
        ("csv", {"compression": "snappy"}, "gzip"),
        ("csv", {"row_group_size": 5}, "parquet"),
        ("csv", {"options": {"sep": ";"}}, "delimiter"),
        ("csv", {"options": {"delimiter": ";;"}}, "one ASCII"),
        ("csv", {"options": {"delimiter": '"'}}, "one ASCII"),
        ("jsonl", {"options": {"indent": 2}}, "none"),
    ),
)
def test_impossible_options(name: str, fields: dict[str, object], message: str) -> None:
    """An option that a format does not have is refused, naming what it has."""
    with pytest.raises(InvalidWriteError, match=message):
        spec_of(name, **fields)


@pytest.mark.parametrize("name", FORMATS)
def test_checking_options_twice_changes_nothing(name: str) -> None:
    """A checked spec is left alone by a second check, uncompressed ones too."""
    for compression in (None, "none", "zstd"):
        spec = spec_of(name, compression=compression)
        assert formats.get(name).check_options(spec) == spec


@pytest.mark.parametrize("delimiter", (";", "\t", "|"))
def test_csv_delimiter(delimiter: str) -> None:
    """Another delimiter is used, and values that hold it come back."""
    table = pa.table({"x": [f"a{delimiter}b", None, ""], "y": [1.5, None, -2.0]})
    spec = spec_of("csv", options={"delimiter": delimiter})
    assert round_trip(table, spec).equals(table)
    text = formats.get("csv").dumps(table, spec).to_pybytes()
    assert pd.read_csv(io.BytesIO(text), sep=delimiter)["y"].tolist()[0] == 1.5


def test_registry() -> None:
    """Formats are found by name and by other names, and an unknown one lists the known."""
    others = {"feather": "arrow", "ipc": "arrow", "xlsx": "excel"}
    for other, name in others.items():
        assert formats.canonical_name(other) == name
        assert formats.get(other) is formats.SERIALIZERS[name]
    with pytest.raises(UnknownFormatError, match="arrow, csv, excel, json, jsonl, orc, parquet"):
        formats.get("xls")


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read and count."""
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("name", ("parquet", "orc", "arrow"))
def test_projection_reads_few_bytes(name: str) -> None:
    """One column of twenty costs the footer and that column, not the file."""
    rng = np.random.default_rng(0)
    table = pa.table({f"c{i}": rng.random(50_000) for i in range(20)})
    spec = spec_of(name)
    file = CountingFile(formats.get(name).dumps(table, spec).to_pybytes())
    assert formats.get(name).columnar
    result = formats.get(name).load(file, table.schema, ["c7"], spec)
    assert result.equals(table.select(["c7"]))
    assert file.count < len(file.getvalue()) / 8


# Python's own datetimes overflow in a time zone at both ends.
YEARS = (NAIVE.replace(year=2), NAIVE.replace(year=9998))
ORC_YEARS = (NAIVE.replace(year=1678), NAIVE.replace(year=2261))
MOMENTS = pa.timestamp("us", "America/St_Johns")
COLUMN = st.one_of(
    st.lists(st.none() | st.text(), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.floats(), min_size=4, max_size=4).map(
        lambda v: pa.array(v, pa.float64())
    ),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=4, max_size=4).map(
        lambda v: pa.array(v, pa.uint64())
    ),
    st.lists(st.none() | st.times(), min_size=4, max_size=4).map(
        lambda v: pa.array(v, pa.time64("us"))
    ),
    st.lists(
        st.none()
        | st.decimals(
            allow_nan=False, allow_infinity=False, places=9, max_value=10**9, min_value=-(10**9)
        ),
        min_size=4,
        max_size=4,
    ).map(lambda v: pa.array(v, pa.decimal128(38, 9))),
)


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_table_round_trips(name: str, data: st.DataObject) -> None:
    """Whatever the values, a table reads back as written (NaN and infinity as null in JSON)."""
    moment = st.none() | st.datetimes(*(ORC_YEARS if name == "orc" else YEARS))
    moments = st.lists(moment, min_size=4, max_size=4).map(lambda v: pa.array(v, MOMENTS))
    columns = data.draw(st.lists(COLUMN | moments, min_size=1, max_size=4))
    table = pa.table({f"c{i}": column for i, column in enumerate(columns)})
    result = round_trip(table, spec_of(name))
    assert result.schema == table.schema
    expected = repr(table.to_pydict())
    if name in ("jsonl", "json"):
        finite = {
            key: [None if isinstance(v, float) and not np.isfinite(v) else v for v in column]
            for key, column in table.to_pydict().items()
        }
        expected = repr(finite)
    assert repr(result.to_pydict()) == expected
