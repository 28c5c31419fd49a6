"""ORC, Arrow IPC and Excel: what is particular to each, beside the round trips of all formats."""

from __future__ import annotations

import datetime as dt
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pamola_dwriter import DataWriter, formats, open_artifact, read_dataset
from pamola_dwriter.errors import IntegrityError, UnsupportedDataError
from pamola_dwriter.formats import workbook
from pamola_dwriter.spec import FormatSpec

KEY = bytes(range(32))


def spec_of(name: str, **fields: Any) -> FormatSpec:
    """Return a checked spec."""
    return formats.get(name).check_options(FormatSpec(name=name, **fields))


def dumps(table: pa.Table, name: str, **fields: Any) -> bytes:
    """Return the bytes of one file, after the check of a write."""
    serializer = formats.get(name)
    serializer.check_schema(table.schema)
    data: bytes = serializer.dumps(table, spec_of(name, **fields)).to_pybytes()
    return data


def load(data: bytes, schema: pa.Schema, name: str, columns: list[str] | None = None) -> pa.Table:
    """Return the table that a file holds."""
    return formats.get(name).load(io.BytesIO(data), schema, columns, spec_of(name))


def assert_exact(table: pa.Table, name: str) -> None:
    """Assert that a table reads back as it was, to the bit."""
    result = load(dumps(table, name), table.schema, name)
    assert result.schema.equals(table.schema, check_metadata=True)
    # Text tells NaN from null, and -0.0 from 0.0.
    assert repr(result.to_pydict()) == repr(table.to_pydict())


# --- ORC and Arrow -------------------------------------------------------------------------


STAND_INS: dict[str, pa.Array] = {
    "uint64": pa.array([0, None, 2**64 - 1], pa.uint64()),
    "lists_of_uint64": pa.array([[2**64 - 1, None], None, []], pa.list_(pa.uint64())),
    "struct_of_times": pa.array(
        [{"t": 1, "u": 255, "d": -5}, None],
        pa.struct([("t", pa.time64("ns")), ("u", pa.uint8()), ("d", pa.duration("us"))]),
    ),
    "map_of_uint8": pa.array([[("a", 255)], None, []], pa.map_(pa.string(), pa.uint8())),
    "negative_scale": pa.array([Decimal("-12000"), None], pa.decimal128(5, -3)),
    "wide_decimal": pa.array([Decimal("9" * 60), None], pa.decimal256(60, 0)),
    "nested_decimal": pa.array([[Decimal("12000")], None], pa.list_(pa.decimal128(5, -3))),
    "fixed_list": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
    "large_list": pa.array([[1, 2], None], pa.large_list(pa.timestamp("s"))),
    "large_binary": pa.array([b"\x00", None, b""], pa.large_binary()),
    "empty_struct": pa.array([{}, None], pa.struct([])),
    "period": pa.array(pd.period_range("2020-01", periods=3, freq="M")),
    "interval": pa.array(pd.interval_range(0, 3)),
    "null": pa.nulls(3),
    "zone": pa.array([-1, None, 2**60], pa.timestamp("ns", "America/St_Johns")),
    "instants": pa.array([-(2**63), -(10**9) - 1, -1, 0, 2**63 - 1], pa.timestamp("ns")),
    "nan": pa.array([float("nan"), None, float("-inf"), -0.0, 5e-324]),
}


@pytest.mark.parametrize("name", ("orc", "arrow"))
@pytest.mark.parametrize("case", STAND_INS)
def test_hard_types_come_back(name: str, case: str) -> None:
    """Types that ORC lacks come back exactly, nested and at their extremes; so in Arrow."""
    column = pa.chunked_array([STAND_INS[case], STAND_INS[case].slice(1)])
    table = pa.table({"key": range(len(column)), "x": column})
    result = load(dumps(table, name), table.schema, name)
    assert result.schema.equals(table.schema)
    if case == "nan":
        assert repr(result.to_pydict()) == repr(table.to_pydict())
    else:
        assert result.equals(table)


@pytest.mark.parametrize(
    "column",
    (
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
        pa.array([[None]], pa.list_(pa.null())),
    ),
    ids=lambda column: str(column.type)[:12],
)
def test_orc_refuses_what_it_cannot_hold(column: pa.Array) -> None:
    """A type without a stand-in is refused by the name of its column, before any work."""
    with pytest.raises(UnsupportedDataError, match="column 'x': orc cannot hold"):
        formats.get("orc").check_schema(pa.schema([("key", pa.int8()), ("x", column.type)]))


@pytest.mark.parametrize("unit", ("s", "ms", "us"))
@pytest.mark.parametrize("zone", (None, "Asia/Tokyo"))
@pytest.mark.parametrize("year", (1, 1677, 2263, 9999))
def test_orc_refuses_timestamps_it_cannot_read_back(unit: str, zone: str | None, year: int) -> None:
    """A timestamp that overflows nanoseconds fails by column, showing no value; null is fine."""
    moment = dt.datetime(year, 1, 2, tzinfo=dt.UTC)
    array = pa.array([None, moment], pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone))
    for table in (pa.table({"x": array}), pa.table({"x": pa.array([array.to_pylist()])})):
        with pytest.raises(UnsupportedDataError, match="column 'x'") as caught:
            dumps(table, "orc")
        assert str(year) not in str(caught.value).replace("before 1677", "")
        assert caught.value.__context__ is None
    assert_exact(pa.table({"x": array[:1]}), "orc")


def test_orc_never_sees_a_table_without_columns() -> None:
    """pyarrow crashes on one, so it is refused."""
    with pytest.raises(UnsupportedDataError, match="without columns"):
        dumps(pa.table({"x": [1]}).select([]), "orc")


def test_orc_times_do_not_depend_on_the_time_zone_of_the_machine(tmp_path: Path) -> None:
    """What one time zone writes, others read alike, around changes of the clock too."""
    hours = pa.array(range(0, 9_000 * 3_600, 1_800), pa.int64()).cast(pa.timestamp("s"))
    schema = pa.schema([("x", pa.timestamp("s"))])
    path = tmp_path / "x.orc"
    path.write_bytes(dumps(pa.table({"x": hours}), "orc"))
    program = (
        "import sys, pyarrow as pa; from pamola_dwriter import formats\n"
        "from pamola_dwriter.spec import FormatSpec\n"
        "s = pa.schema([('x', pa.timestamp('s'))])\n"
        "t = formats.get('orc').load(open(sys.argv[1], 'rb'), s, None, FormatSpec(name='orc'))\n"
        "sys.stdout.buffer.write(formats.get('arrow').dumps(t, FormatSpec(name='arrow')))"
    )
    for zone in ("America/New_York", "Asia/Kathmandu"):
        environment = {**os.environ, "TZ": zone, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        assert load(done.stdout, schema, "arrow")["x"].combine_chunks().equals(hours)


@pytest.mark.parametrize("compression", ("zstd", "snappy", "zlib", "lz4", "none", None))
def test_orc_codecs(compression: str | None) -> None:
    """Every codec of ORC is used as asked for, zstd by default."""
    data = dumps(pa.table({"x": ["text"] * 1000}), "orc", compression=compression)
    found = pa.orc.ORCFile(io.BytesIO(data)).compression.lower()
    assert found == {"none": "uncompressed", None: "zstd"}.get(compression, compression)


def test_arrow_codecs() -> None:
    """Every codec of Arrow is used as asked for, lz4 by default; none can be mapped as it is."""
    table = pa.table({"x": ["text"] * 10_000})
    sizes = {codec: len(dumps(table, "arrow", compression=codec)) for codec in ("lz4", "zstd")}
    assert len(dumps(table, "arrow")) == sizes["lz4"] != sizes["zstd"]
    plain = dumps(table, "arrow", compression="none")
    assert len(plain) > max(sizes.values()) * 10
    mapped = pa.ipc.open_file(pa.py_buffer(plain)).read_all()
    start, end = mapped["x"].chunk(0).buffers()[2].address, pa.py_buffer(plain).address
    assert 0 <= start - end < len(plain)


def test_arrow_unites_the_dictionaries_of_chunks() -> None:
    """Chunks with dictionaries of their own, nested ones too, are one file."""
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", None]).dictionary_encode()]
    table = pa.table({"x": pa.chunked_array(chunks), "key": range(4)})
    result = load(dumps(table, "arrow"), table.schema, "arrow")
    assert result["x"].to_pylist() == ["a", "b", "c", None]
    assert load(dumps(table, "arrow"), table.schema, "arrow", ["x"]).num_columns == 1


def test_other_programs_read_orc_and_feather(tmp_path: Path) -> None:
    """pandas opens a single file of either, and pyarrow by its Feather reader."""
    frame = pd.DataFrame({"n": [1, 2], "x": [0.5, None], "s": ["a", None]})
    writer = DataWriter(tmp_path)
    path = writer.write_dataframe(frame, "x", "orc", write_index=False).path
    assert str(path).endswith(".orc")
    assert_frame_equal(pd.read_orc(path), frame, check_dtype=False)
    path = writer.write_dataframe(frame, "x", "feather", write_index=False).path
    assert str(path).endswith(".arrow")
    assert_frame_equal(pd.read_feather(path), frame, check_dtype=False)
    assert pa.feather.read_table(path).column_names == ["n", "x", "s"]


@pytest.mark.parametrize("name", ("orc", "arrow", "excel"))
@pytest.mark.parametrize("damage", ("cut", "zero", "other"))
def test_a_damaged_part_is_named(tmp_path: Path, name: str, damage: str) -> None:
    """A plain part that is cut off, overwritten or another file fails by its name."""
    frame = pd.DataFrame({"n": range(500), "s": [f"text {n}" for n in range(500)]})
    result = DataWriter(tmp_path).write_dataframe(
        frame, "x", name, single_file=False, write_index=False
    )
    part = next(Path(result.path).glob("part-*"))
    data = part.read_bytes()
    part.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "zero": data[:20] + bytes(len(data) - 20),
            "other": dumps(pa.table({"other": ["x"]}), name),
        }[damage]
    )
    with pytest.raises(IntegrityError, match="part-00000") as caught:
        read_dataset(result.path).compute()
    assert caught.value.part == part.name


def test_arrow_offsets_out_of_bounds_are_an_error() -> None:
    """A text that would point outside the file is refused, and no process dies of it."""
    table = pa.table({"x": ["text"] * 100})
    data = bytearray(dumps(table, "arrow", compression="none"))
    offsets = np.arange(0, 404, 4, dtype="int32").tobytes()
    place = data.index(offsets)
    data[place + 200 : place + 204] = (2**30).to_bytes(4, "little")
    with pytest.raises(pa.ArrowInvalid):
        load(bytes(data), table.schema, "arrow")


# --- Excel ---------------------------------------------------------------------------------


def cells_of(data: bytes) -> list[list[Any]]:
    """Return the values of a sheet as openpyxl reads them."""
    book = openpyxl.load_workbook(io.BytesIO(data))
    return [list(row) for row in book.active.iter_rows(values_only=True)]


def sheet() -> pd.DataFrame:
    """Return a frame of every kind that a sheet holds."""
    moments = ["1900-01-01", "1900-02-28 23:59:59.999", "1900-03-01", None, "2024-02-29 12:34:56.7"]
    days = [dt.date(1900, 1, 1), dt.date(9999, 12, 31), None, dt.date(1970, 1, 1)]
    return pd.DataFrame(
        {
            "int": [-(2**53), 2**53, 0, 1, 2],
            "Int16": pd.array([1, None, -5, 0, 9], "Int16"),
            "float": [0.1 + 0.2, np.nan, 5e-324, -1.7976931348623157e308, -0.0],
            "float32": np.array([0.1, 3.4e38, np.nan, 1, -0.0], "float32"),
            "bool": [True, False, True, True, False],
            "boolean": pd.array([True, None, False, None, True], "boolean"),
            "text": pd.array(["", None, "=1+1", " pad ", "true"], "string[pyarrow]"),
            "object": pd.Series(["007", None, "#N/A", "1e5", ""], dtype=object),
            "moment": pd.to_datetime(pd.Series(moments), format="ISO8601"),
            "seconds": pd.to_datetime(["9999-12-31 23:59:59"] * 5).as_unit("s"),
            "day": pd.Series([*days, None], dtype=object),
            "arrow_day": pd.array([*days, None], pd.ArrowDtype(pa.date32())),
            "decimal": pd.Series(
                [Decimal("1.10"), None, Decimal("-9999999999999.99"), Decimal(0), Decimal("0.01")],
                dtype=object,
            ),
            "category": pd.Categorical(["b", None, "a", "b", "a"], ["c", "b", "a"], ordered=True),
            "period": pd.period_range("2024-01", periods=5, freq="M"),
            "none": pd.Series([None] * 5, dtype=object),
        }
    )


@pytest.mark.parametrize("key", (None, KEY), ids=["plain", "encrypted"])
def test_a_sheet_comes_back(tmp_path: Path, key: bytes | None) -> None:
    """Every kind of column reads back exactly, with its index, dtypes and categories."""
    frame = sheet().set_index(pd.Index(list("edcba"), name="id"))
    writer = DataWriter(tmp_path, encryption_key=key)
    result = writer.write_dataframe(frame, "x", "excel", single_file=False)
    loaded = read_dataset(result.path, encryption_key=key)
    assert_frame_equal(loaded.compute(), frame, check_exact=True)
    some = ["moment", "int", "text"]
    assert_frame_equal(loaded[some].compute(), frame[some], check_exact=True)
    result = writer.write_dataframe(frame[:0], "y", "xlsx", single_file=False)
    loaded = read_dataset(result.path, encryption_key=key)
    assert_frame_equal(loaded.compute(), frame[:0], check_exact=True)


def test_excel_sees_what_was_meant(tmp_path: Path) -> None:
    """To another program texts are texts, numbers numbers, and dates dates; nulls are blank."""
    writer = DataWriter(tmp_path, encryption_key=KEY)
    path = writer.write_dataframe(sheet(), "x", "excel").path
    assert str(path).endswith("/x.xlsx.pdw")
    with open_artifact(path, encryption_key=KEY) as file:
        rows = cells_of(file.read())
        frame = pd.read_excel(file)
    found = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    assert found["int"] == (-(2**53), 2**53, 0, 1, 2)
    assert found["float"][:3] == (0.1 + 0.2, None, 5e-324)
    assert found["boolean"] == (True, None, False, None, True)
    assert found["text"] in {("", None, "=1+1", " pad ", "true"), (*found["text"],)}
    assert found["text"][2:] == ("=1+1", " pad ", "true")
    assert found["object"][:4] == ("007", None, "#N/A", "1e5")
    assert found["moment"] == tuple(
        None if pd.isna(moment) else moment.to_pydatetime() for moment in sheet()["moment"]
    )
    assert found["day"][1] == dt.datetime(9999, 12, 31)  # noqa: DTZ001 - as Excel has it
    assert found["decimal"][2] == -9999999999999.99
    assert found["none"] == (None,) * 5
    assert frame["moment"].tolist()[:3] == sheet()["moment"].tolist()[:3]
    assert frame["bool"].dtype == bool


def test_a_formula_is_text_in_the_file() -> None:
    """No cell of the file is a formula, an error or a shared string, whatever the text."""
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "#REF!", "=HYPERLINK(1)"]
    data = dumps(pa.table({"=name": texts}), "excel")
    cells = [cell for row in openpyxl.load_workbook(io.BytesIO(data)).active for cell in row]
    assert [cell.data_type for cell in cells] == ["s"] * 8
    assert [cell.value for cell in cells] == ["=name", *texts]
    assert b"<f>" not in zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml")


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))
TRICKY = st.lists(st.sampled_from(["_", "x", "000D", "\r", "\n", "005F", "<", "&", "]]>", "\t"]))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(st.none() | TEXT | TRICKY.map("".join), min_size=1, max_size=6),
    name=TEXT | TRICKY.map("".join),
)
def test_any_text_comes_back_from_a_sheet(texts: list[str | None], name: str) -> None:
    """Any text but control characters, in cells and names, escapes of Excel's own included."""
    table = pa.table({name: pa.array(texts, pa.string()), f"{name}2": texts})
    assert_exact(table, "excel")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    numbers=st.lists(
        st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3
    ),
    moments=st.lists(
        st.none()
        | st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999000)),  # noqa: DTZ001
        min_size=3,
        max_size=3,
    ),
)
def test_any_number_and_moment_comes_back_from_a_sheet(
    numbers: list[float | None], moments: list[dt.datetime | None]
) -> None:
    """Doubles are exact to the bit, and times to the millisecond, here and for openpyxl."""
    whole = [m and m.replace(microsecond=m.microsecond // 1000 * 1000) for m in moments]
    table = pa.table(
        {"x": pa.array(numbers, pa.float64()), "t": pa.array(whole, pa.timestamp("ms"))}
    )
    assert_exact(table, "excel")
    rows = cells_of(dumps(table, "excel"))[1:]
    assert [row[1] for row in rows] == whole
    assert [row[0] for row in rows] == numbers


REFUSED: dict[str, tuple[pa.Array, str]] = {
    "large_integer": (pa.array([2**53 + 1]), r"2\*\*53"),
    "small_integer": (pa.array([-(2**53) - 1, None]), r"2\*\*53"),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), r"2\*\*53"),
    "smallest": (pa.array([-(2**63)]), r"2\*\*53"),
    "long_decimal": (pa.array([Decimal("1.0000000000000000001")]), "15"),
    "wide_decimal": (pa.array([Decimal("9" * 60)], pa.decimal256(60, 0)), "15"),
    "nan": (pa.array([1.0, float("nan")]), "NaN"),
    "infinity": (pa.array([None, float("-inf")]), "NaN"),
    "microsecond": (pa.array([1], pa.timestamp("us")), "millisecond"),
    "nanosecond": (pa.array([1], pa.timestamp("ns")), "millisecond"),
    "early": (pa.array([dt.date(1899, 12, 31)]), "1900"),
    "early_moment": (pa.array([-25_567 * 86_400 - 1], pa.timestamp("s")), "1900"),
    "late": (pa.array([2_932_897], pa.int32()).cast(pa.date32()), "9999"),
    "control": (pa.array(["secret\x00"]), "control character"),
    "not_a_character": (pa.array(["secret\uffff"]), "control character"),
    "long_text": (pa.array(["secret" * 5_462]), "32,767"),
    "long_text_of_pairs": (pa.array(["\U0001f600" * 16_384]), "32,767"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_excel_would_change(case: str, tmp_path: Path) -> None:
    """A value that Excel cannot hold fails by its column, not its value; nothing is left."""
    array, reason = REFUSED[case]
    frame = pa.table({"key": range(len(array)), "x": array}).to_pandas(types_mapper=pd.ArrowDtype)
    with pytest.raises(UnsupportedDataError, match=f"column 'x'.*{reason}") as caught:
        DataWriter(tmp_path).write_dataframe(frame, "x", "excel")
    assert "secret" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "data_type",
    (
        *(pa.timestamp("s", "UTC"), pa.time32("s"), pa.time64("us"), pa.duration("s")),
        *(pa.binary(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())])),
        *(pa.map_(pa.string(), pa.int8()), pa.dictionary(pa.int8(), pa.binary())),
    ),
    ids=str,
)
def test_types_that_excel_lacks(data_type: pa.DataType) -> None:
    """A type that a sheet has no cell for is refused before any work, by the column's name."""
    with pytest.raises(UnsupportedDataError, match="column 'x': excel cannot hold"):
        formats.get("excel").check_schema(pa.schema([("key", pa.int8()), ("x", data_type)]))


@pytest.mark.parametrize("name", ("control\x01", "x" * 32_768), ids=["control", "long"])
def test_names_that_a_cell_cannot_hold(name: str) -> None:
    """A column name that no cell holds is refused before any work."""
    with pytest.raises(UnsupportedDataError, match="column"):
        formats.get("excel").check_schema(pa.schema([(name, pa.int8())]))


def test_the_size_of_a_sheet() -> None:
    """One row or column more than a sheet has is refused before a cell is written."""
    excel = formats.get("excel")
    columns = [(f"c{number}", pa.int8()) for number in range(16_385)]
    excel.check_schema(pa.schema(columns[:1]))
    with pytest.raises(UnsupportedDataError, match="16,384 columns, not 16,385"):
        excel.check_schema(pa.schema(columns))
    rows = pa.table({"x": pa.nulls(1_048_576, pa.int8())})
    with pytest.raises(UnsupportedDataError, match="1,048,575 rows below the names"):
        excel.dumps(rows, spec_of("excel"))


def test_the_largest_sheet() -> None:
    """The last row and the last column that a sheet has are used and come back."""
    tall = pa.table({"x": pa.array([None, True] * 524_287 + [False])})
    assert load(dumps(tall, "excel"), tall.schema, "excel").equals(tall)
    wide = pa.table({f"c{number}": [number] for number in range(16_384)})
    data = dumps(wide, "excel")
    assert load(data, wide.schema, "excel").equals(wide)
    assert load(data, wide.schema, "excel", ["c16383", "c0"]).to_pydict() == {
        "c16383": [16_383],
        "c0": [0],
    }
    assert b'r="XFD2"' in zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml")


def test_a_workbook_says_nothing_about_its_making() -> None:
    """The same table makes the same bytes: no clock, no name of a program or user."""
    table = pa.table({"x": [1.5]})
    data = dumps(table, "excel")
    assert dumps(table, "excel") == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert "docProps/core.xml" not in archive.namelist()
        assert archive.testzip() is None


def test_plain_rows_never_touch_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a workbook is made or read, the folder for temporary files stays empty."""
    seen: list[str] = []
    sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event == "open" else None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    table = pa.table({"x": ["secret"] * 100})
    seen.clear()
    assert_exact(table, "excel")
    assert not [path for path in seen if "tmp" in path]


def damaged_sheet(change: Callable[[str], str]) -> bytes:
    """Return a workbook of one column ``x`` whose sheet was changed."""
    source = zipfile.ZipFile(io.BytesIO(dumps(pa.table({"x": ["a", None]}), "excel")))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in source.namelist():
            text = source.read(name).decode()
            archive.writestr(name, change(text) if "sheet1" in name else text)
    return buffer.getvalue()


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><worksheet'


@pytest.mark.parametrize(
    "change",
    (
        lambda text: text.replace("<worksheet", BOMB),
        lambda text: text.replace('r="A1"', ""),
        lambda text: text.replace("<row", "<line").replace("</row", "</line"),
        lambda text: text[:-20],
        lambda text: text.replace(">x<", ">y<"),
        lambda text: "",
    ),
    ids=["entities", "no_place", "no_rows", "cut", "renamed", "empty"],
)
def test_a_sheet_that_is_not_ours(change: Callable[[str], str]) -> None:
    """A sheet with entities, without rows, cut or with another column is an error."""
    with pytest.raises(pa.ArrowInvalid):
        load(damaged_sheet(change), pa.schema([("x", pa.string())]), "excel")


def test_a_number_that_is_none() -> None:
    """A cell that holds something else than its column is an error, not a null."""
    for data_type in (pa.int64(), pa.bool_(), pa.timestamp("s"), pa.float64(), pa.null()):
        with pytest.raises(pa.ArrowException):
            load(damaged_sheet(str), pa.schema([("x", data_type)]), "excel")


def test_names_of_columns() -> None:
    """Columns are named as Excel names them, up to its last one."""
    names = workbook.column_letters(16_384)
    assert names[:27] == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA"]
    assert (names[701], names[702], names[-1]) == ("ZZ", "AAA", "XFD")
    assert names[-1] == openpyxl.utils.get_column_letter(16_384)


def test_escapes_are_those_of_the_standard() -> None:
    """A carriage return is written as Excel writes it, and a text of that shape stays itself."""
    data = dumps(pa.table({"x": ["a\r\nb", "_x000D_", "<&>"]}), "excel")
    sheet_text = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml").decode()
    for text in ("a_x000D_\nb", "_x005F_x000D_", escape("<&>")):
        assert f">{text}</t>" in sheet_text
