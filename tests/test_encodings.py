"""Columns of Parquet files are encoded as suits their values, and come back as they were."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamola_dwriter.formats.encodings import choose_encodings
from pamola_dwriter.formats.parquet import write_parquet
from pamola_dwriter.spec import FormatSpec

ROWS = 20_000
DAY = dt.date(2020, 1, 1)
NOON = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)


def stored(table: pa.Table) -> pq.FileMetaData:
    """Write a table, check that it comes back, and return what its file says of itself."""
    data = write_parquet(table, FormatSpec(name="parquet"))
    assert pq.read_table(pa.BufferReader(data)).equals(table)
    return pq.ParquetFile(pa.BufferReader(data)).metadata


def encodings(values: Any, kind: pa.DataType | None = None) -> set[str]:
    """Return the encodings of one column with these values."""
    found = stored(pa.table({"x": pa.array(values, kind)})).row_group(0).column(0).encodings
    return set(found)


DICTIONARY, DIFFERENCES = "RLE_DICTIONARY", "DELTA_BINARY_PACKED"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"shop {n % 50}" for n in range(ROWS)], None),
        ([n % 300 for n in range(ROWS)], None),
        ([n * 10**15 % 7 for n in range(ROWS)], pa.uint64()),
        ([0.5 * (n % 11) for n in range(ROWS)], None),
        ([DAY + dt.timedelta(n % 2000) for n in range(ROWS)], None),
        ([Decimal(n % 100) for n in range(ROWS)], pa.decimal128(15, 2)),
        ([None] * ROWS, pa.string()),
    ],
    ids=["texts", "integers", "unsigned", "floats", "dates", "decimals", "nulls"],
)
def test_few_values_get_a_dictionary(values: list[Any], kind: pa.DataType | None) -> None:
    """Where the same values come again and again, each is stored once."""
    assert DICTIONARY in encodings(values, kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (range(ROWS), None),
        (range(ROWS), pa.int32()),
        (range(2**63, 2**63 + ROWS), pa.uint64()),
        ([NOON + dt.timedelta(seconds=n) for n in range(ROWS)], None),
        ([None if n % 3 else n for n in range(ROWS * 3)], pa.int64()),
    ],
    ids=["integers", "32 bits", "unsigned", "times", "with nulls"],
)
def test_numbers_without_one_are_differences(values: Any, kind: pa.DataType | None) -> None:
    """Keys and amounts take no dictionary that would be dropped half way."""
    found = encodings(list(values), kind)
    assert DIFFERENCES in found
    assert DICTIONARY not in found


def test_decimals_are_integers_where_pyarrow_can() -> None:
    """Then their differences are stored; they are read as the same decimals in any case."""
    found = encodings([Decimal(n) for n in range(ROWS)], pa.decimal128(15, 2))
    can = "store_decimal_as_integer" in choose_encodings(pa.table({"x": [1]}))
    assert (DIFFERENCES in found) is can
    assert DICTIONARY not in found


def test_what_cannot_gain_is_left_plain() -> None:
    """Free text and numbers from everywhere get neither."""
    wild = [(n * 0x9E3779B97F4A7C15) % 2**63 for n in range(ROWS)]
    for values in (wild, [f"{n:x}" for n in wild], [n / 7 for n in range(ROWS)]):
        found = encodings(values)
        assert DICTIONARY not in found
        assert DIFFERENCES not in found


def test_nested_columns_keep_their_dictionaries() -> None:
    """Leaves of lists, structs and maps, and categories, are encoded as pyarrow does it."""
    words = [f"word {n % 9}" for n in range(ROWS)]
    table = pa.table(
        {
            "category": pa.array(words).dictionary_encode(),
            "list": pa.array([[word] for word in words]),
            "struct": pa.array([{"a": word, "b": [word]} for word in words]),
            "map": pa.array([[(word, word)] for word in words], pa.map_(pa.string(), pa.string())),
        }
    )
    group = stored(table).row_group(0)
    for number in range(group.num_columns):
        assert DICTIONARY in group.column(number).encodings, group.column(number).path_in_schema


def test_small_tables_are_not_judged() -> None:
    """A few rows are written as they are: looking at them would take longer."""
    assert "use_dictionary" not in choose_encodings(pa.table({"x": range(100)}))


KINDS = st.sampled_from(
    [
        *(pa.int8(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()),
        *(pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary()),
        *(pa.large_binary(), pa.binary(4), pa.null(), pa.date32(), pa.time32("ms")),
        *(pa.time64("ns"), pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.duration("ns")),
        *(pa.decimal128(5, 2), pa.decimal128(18, 0), pa.decimal128(38, 10), pa.decimal256(50, 3)),
        *(pa.list_(pa.int64()), pa.struct([("a", pa.int64())])),
    ]
)


@settings(deadline=None, max_examples=60)
@given(kind=KINDS, distinct=st.integers(1, 9000), nulls=st.booleans(), data=st.data())
def test_any_column_comes_back(
    kind: pa.DataType, distinct: int, nulls: bool, data: st.DataObject
) -> None:
    """Whatever the type and however many values, the table is read back equal."""
    few = pa.array([_value(kind, n) for n in range(8)], kind)
    seed = data.draw(st.integers(0, 7))
    picked = [
        None if nulls and n % 5 == 0 else (n * 7919 % distinct + seed) % 8 for n in range(9000)
    ]
    stored(pa.table({"a.b": few.take(pa.array(picked, pa.int64()))}))


def _value(kind: pa.DataType, number: int) -> Any:
    if pa.types.is_null(kind):
        return None
    if pa.types.is_list(kind):
        return [number]
    if pa.types.is_struct(kind):
        return {"a": number}
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_floating(kind):
        return float(number)
    if pa.types.is_boolean(kind):
        return bool(number % 2)
    if pa.types.is_temporal(kind):
        return (
            pa.scalar(number, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind).as_py()
        )
    if pa.types.is_integer(kind):
        return number
    text = f"{number:04}"
    return text if pa.types.is_string(kind) or pa.types.is_large_string(kind) else text.encode()
