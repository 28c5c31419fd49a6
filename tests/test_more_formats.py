"""ORC and Arrow IPC: what is particular to each, beside the round trips of all formats."""

from __future__ import annotations

import datetime as dt
import io
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pamola_dwriter import DataWriter, formats, read_dataset
from pamola_dwriter.errors import IntegrityError, UnsupportedDataError
from pamola_dwriter.spec import FormatSpec


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


BELOW = pa.struct([("a", pa.list_(pa.struct([("b", pa.int8())])))])


@pytest.mark.parametrize(
    "column",
    (
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
        pa.array([[None]], pa.list_(pa.null())),
        pa.array([{"a": None}, {"a": {"b": 1}}]),
        pa.array([[("k", {"a": [{"b": 1}]})]], pa.map_(pa.string(), BELOW)),
    ),
    ids=lambda column: str(column.type)[:12],
)
def test_orc_refuses_what_it_cannot_hold(column: pa.Array) -> None:
    """A type without a stand-in is refused by the name of its column, before any work."""
    with pytest.raises(UnsupportedDataError, match=r"column 'x': .*orc"):
        formats.get("orc").check_schema(pa.schema([("key", pa.int8()), ("x", column.type)]))


ANY = st.recursive(
    st.sampled_from([pa.int64(), pa.string(), pa.bool_(), pa.uint32(), pa.timestamp("s")]),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(lambda one: pa.map_(pa.string(), one)),
        st.lists(inner, max_size=3).map(
            lambda many: pa.struct([(f"f{number}", one) for number, one in enumerate(many)])
        ),
    ),
    max_leaves=4,
)


def values_of(data_type: pa.DataType) -> st.SearchStrategy[Any]:
    """Return a strategy of Python values of a type, nulls included."""
    types = pa.types
    if types.is_map(data_type):
        inside = values_of(data_type.item_type)
        made = st.dictionaries(st.sampled_from("ab"), inside, max_size=2).map(
            lambda items: list(items.items())
        )
    elif types.is_list(data_type):
        made = st.lists(values_of(data_type.value_type), max_size=2)
    elif types.is_struct(data_type):
        made = st.fixed_dictionaries({field.name: values_of(field.type) for field in data_type})
    elif types.is_string(data_type):
        made = st.sampled_from(["", "text"])
    else:
        made = st.booleans() if types.is_boolean(data_type) else st.integers(0, 9)
    return st.none() | made


@pytest.mark.parametrize("name", ("orc", "arrow"))
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_nested_slices_come_back(name: str, data: st.DataObject) -> None:
    """Nested columns cut out of larger ones keep every null: pyarrow's ORC writer loses some."""
    data_type = data.draw(ANY)
    try:
        formats.get(name).check_schema(pa.schema([("x", data_type)]))
    except UnsupportedDataError as refusal:
        assert "struct within a struct" in str(refusal)  # noqa: PT017 - or it is exact
        return
    array = pa.array(data.draw(st.lists(values_of(data_type), min_size=8, max_size=8)), data_type)
    start, end = sorted(data.draw(st.tuples(st.integers(0, 8), st.integers(0, 8))))
    column = pa.chunked_array([array.slice(start, end - start), array.slice(end), array])
    table = pa.table({"key": range(len(column)), "x": column})
    result = load(dumps(table, name), table.schema, name)
    assert result.schema == table.schema
    assert result.to_pydict() == table.to_pydict()


ENCODED = pa.array(["a", "b"]).dictionary_encode()
RARE: dict[str, pa.Array] = {
    "list_of_dictionary": pa.ListArray.from_arrays([0, 1, 2], ENCODED),
    "struct_of_dictionary": pa.StructArray.from_arrays([ENCODED], ["a"]),
    "fixed_binary": pa.array([b"ab", None], pa.binary(2)),
    "list_of_fixed_binary": pa.array([[b"ab"], None], pa.list_(pa.binary(2))),
    "half": pa.array(np.array([1.5, -2], "float16")),
    "list_of_half": pa.array([[np.float16(1.5)], None], pa.list_(pa.float16())),
    "list_of_null": pa.array([[None], []], pa.list_(pa.null())),
    "list_of_days": pa.array([[dt.date(2024, 1, 1)], None], pa.list_(pa.date64())),
    "list_of_struct_of_map": pa.array(
        [[{"m": [("a", [1])]}], None],
        pa.list_(pa.struct([("m", pa.map_(pa.string(), pa.large_list(pa.uint8())))])),
    ),
    "list_of_period": pa.ListArray.from_arrays(
        [0, 1, 2], pa.array(pd.period_range("2020-01", periods=2, freq="M"))
    ),
    "dictionary_of_times": pa.array([1, 2, 1], pa.time32("s")).dictionary_encode(),
    "dictionary_of_lists": pa.DictionaryArray.from_arrays([0, 0], pa.array([[1]])),
    "span": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    "runs": pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
}
if hasattr(pa, "string_view"):
    RARE["view"] = pa.array(["a", None, "long enough for a buffer"], pa.string_view())
    RARE["list_view"] = pa.array([[1], None, [2, 3]], pa.list_view(pa.int64()))


@pytest.mark.parametrize("name", ("orc", "arrow", "excel", "parquet", "jsonl"))
@pytest.mark.parametrize("case", RARE)
def test_rare_types_are_exact_or_refused(name: str, case: str) -> None:
    """What the check lets pass can be read back, whatever the installed pyarrow can cast."""
    table = pa.table({"x": RARE[case]})
    try:
        formats.get(name).check_schema(table.schema)
    except UnsupportedDataError as refusal:
        assert "column 'x'" in str(refusal)  # noqa: PT017 - refused or exact, both are right
    else:
        result = load(dumps(table, name), table.schema, name)
        assert result.schema == table.schema
        assert result.to_pydict() == table.to_pydict()


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
    nulls = pa.table({"x": array[:1]})
    assert load(dumps(nulls, "orc"), nulls.schema, "orc").equals(nulls)


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
    zone = {"TZ": "America/New_York", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, env={**os.environ, **zone}, stdout=subprocess.PIPE, check=True)
    assert load(done.stdout, schema, "arrow")["x"].combine_chunks().equals(hours)


@pytest.mark.parametrize("compression", ("zstd", "snappy", "zlib", "lz4", "none", None))
def test_orc_codecs(compression: str | None) -> None:
    """Every codec of ORC is used as asked for, zstd by default."""
    data = dumps(pa.table({"x": ["text"] * 1000}), "orc", compression=compression)
    found = pa.orc.ORCFile(io.BytesIO(data)).compression.lower()
    assert found == {"none": "uncompressed", None: "zstd"}.get(compression, compression)


def test_arrow_codecs() -> None:
    """Every codec of Arrow is used as asked for, lz4 by default; none can be mapped as it is."""
    table = pa.table({"x": ["text" * 100] * 1_000})
    sizes = {codec: len(dumps(table, "arrow", compression=codec)) for codec in ("lz4", "zstd")}
    assert len(dumps(table, "arrow")) == sizes["lz4"] != sizes["zstd"]
    plain = dumps(table, "arrow", compression="none")
    assert len(plain) > max(sizes.values()) * 5
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
