"""Excel workbooks: what a sheet holds, what it refuses, and what other programs see."""

from __future__ import annotations

import datetime as dt
import io
import tempfile
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pamola_dwriter import DataWriter, formats, open_artifact, read_dataset
from pamola_dwriter.errors import UnsupportedDataError
from pamola_dwriter.formats import workbook
from pamola_dwriter.spec import FormatSpec

KEY = bytes(range(32))
EXCEL = formats.get("excel")
SPEC = EXCEL.check_options(FormatSpec(name="excel"))
SECONDS = pa.timestamp("s")
SHEET = "xl/worksheets/sheet1.xml"


def dumps(table: pa.Table) -> bytes:
    """Return the bytes of one workbook, after the check of a write."""
    EXCEL.check_schema(table.schema)
    data: bytes = EXCEL.dumps(table, SPEC).to_pybytes()
    return data


def load(data: bytes, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Return the table that a workbook holds."""
    return EXCEL.load(io.BytesIO(data), schema, columns, SPEC)


def sheet_of(data: bytes) -> str:
    """Return the XML of the sheet."""
    return zipfile.ZipFile(io.BytesIO(data)).read(SHEET).decode()


def assert_exact(table: pa.Table) -> None:
    """Assert that a table reads back as it was, to the bit."""
    result = load(dumps(table), table.schema)
    assert result.schema.equals(table.schema, check_metadata=True)
    # Text tells NaN from null, and -0.0 from 0.0.
    assert repr(result.to_pydict()) == repr(table.to_pydict())


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
            "seconds": np.array(["9999-12-31T23:59:59"] * 5, "datetime64[s]"),
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


def test_dates_are_wide_enough_to_be_shown() -> None:
    """Columns of dates and times have room for them, where Excel would show ####."""
    columns = {"n": [1], "day": [dt.date(2024, 1, 1)], "s": ["a"], "t": pa.array([0], SECONDS)}
    widths = openpyxl.load_workbook(io.BytesIO(dumps(pa.table(columns)))).active.column_dimensions
    assert {letter: column.width for letter, column in widths.items()} == {"B": 12, "D": 25}


def test_a_formula_is_text_in_the_file() -> None:
    """No cell of the file is a formula, an error or a shared string, whatever the text."""
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "#REF!", "=HYPERLINK(1)"]
    data = dumps(pa.table({"=name": texts}))
    cells = [cell for row in openpyxl.load_workbook(io.BytesIO(data)).active for cell in row]
    assert [cell.data_type for cell in cells] == ["s"] * 8
    assert [cell.value for cell in cells] == ["=name", *texts]
    assert "<f>" not in sheet_of(data)


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
    assert_exact(table)


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
    assert_exact(table)
    rows = cells_of(dumps(table))[1:]
    rows += [[None, None]] * (3 - len(rows))  # openpyxl leaves out blank rows at the end
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
        EXCEL.check_schema(pa.schema([("key", pa.int8()), ("x", data_type)]))


@pytest.mark.parametrize("name", ("control\x01", "x" * 32_768), ids=["control", "long"])
def test_names_that_a_cell_cannot_hold(name: str) -> None:
    """A column name that no cell holds is refused before any work."""
    with pytest.raises(UnsupportedDataError, match="column"):
        EXCEL.check_schema(pa.schema([(name, pa.int8())]))


def test_the_size_of_a_sheet() -> None:
    """One row or column more than a sheet has is refused before a cell is written."""
    columns = [(f"c{number}", pa.int8()) for number in range(16_385)]
    EXCEL.check_schema(pa.schema(columns[:1]))
    with pytest.raises(UnsupportedDataError, match="16,384 columns, not 16,385"):
        EXCEL.check_schema(pa.schema(columns))
    rows = pa.table({"x": pa.nulls(1_048_576, pa.int8())})
    with pytest.raises(UnsupportedDataError, match="1,048,575 rows below the names"):
        EXCEL.dumps(rows, SPEC)


def test_the_largest_sheet() -> None:
    """The last row and the last column that a sheet has are used and come back."""
    tall = pa.table({"x": pa.array([None] * 1_048_574 + [False])})
    assert load(dumps(tall), tall.schema).equals(tall)
    wide = pa.table({f"c{number}": [number] for number in range(16_384)})
    data = dumps(wide)
    assert load(data, wide.schema).equals(wide)
    assert load(data, wide.schema, ["c16383", "c0"]).to_pydict() == {
        "c16383": [16_383],
        "c0": [0],
    }
    assert 'r="XFD2"' in sheet_of(data)


def test_a_workbook_says_nothing_about_its_making() -> None:
    """The same table makes the same bytes: no clock, no name of a program or user."""
    table = pa.table({"x": [1.5]})
    data = dumps(table)
    assert dumps(table) == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert "docProps/core.xml" not in archive.namelist()
        assert archive.testzip() is None


def test_plain_rows_never_touch_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workbook is made and read without any temporary file, where openpyxl would need one."""
    monkeypatch.setattr(tempfile, "tempdir", "/no such folder")
    assert_exact(pa.table({"x": ["secret"] * 100}))
    with pytest.raises(FileNotFoundError):
        pd.DataFrame({"x": ["secret"]}).to_excel(io.BytesIO(), engine="openpyxl")


def damaged_sheet(change: Callable[[str], str]) -> bytes:
    """Return a workbook of one column ``x`` whose sheet was changed."""
    source = zipfile.ZipFile(io.BytesIO(dumps(pa.table({"x": ["a", None]}))))
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
        load(damaged_sheet(change), pa.schema([("x", pa.string())]))


def test_a_number_that_is_none() -> None:
    """A cell that holds something else than its column is an error, not a null."""
    for data_type in (pa.int64(), pa.bool_(), pa.timestamp("s"), pa.float64(), pa.null()):
        with pytest.raises(pa.ArrowException):
            load(damaged_sheet(str), pa.schema([("x", data_type)]))


def test_names_of_columns() -> None:
    """Columns are named as Excel names them, up to its last one."""
    names = workbook.column_letters(16_384)
    assert names[:27] == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA"]
    assert (names[701], names[702], names[-1]) == ("ZZ", "AAA", "XFD")
    assert names[-1] == openpyxl.utils.get_column_letter(16_384)


def test_escapes_are_those_of_the_standard() -> None:
    """A carriage return is written as Excel writes it, and a text of that shape stays itself."""
    data = dumps(pa.table({"x": ["a\r\nb", "_x000D_", "<&>"]}))
    sheet_text = sheet_of(data)
    for text in ("a_x000D_\nb", "_x005F_x000D_", "&lt;&amp;&gt;"):
        assert f">{text}</t>" in sheet_text
