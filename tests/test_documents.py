"""Documents: every type in JSON, appending and merging, metrics, dictionaries as frames."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import itertools
import json
import random
import sys
import uuid
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import dask.dataframe as dd
import hypothesis
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from pamola_dwriter import documents, formats
from pamola_dwriter.documents import (
    Caller,
    append_item,
    changes,
    decode,
    encode,
    merge_object,
    to_frame,
)
from pamola_dwriter.errors import InvalidTargetError, UnsupportedDataError
from pamola_dwriter.spec import FormatSpec, Redacted

NOON = dt.datetime(2024, 2, 29, 12, 30, 0, 1500)  # noqa: DTZ001  one of the types to hold
BERLIN = dt.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
AN_ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
INF = float("inf")
NAN = float("nan")
STYLES = (True, False)
PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


class Colour(Enum):
    """An Enum of text."""

    RED = "red"


class Level(IntEnum):
    """An Enum that is an int."""

    HIGH = 3


class Mode(StrEnum):
    """An Enum that is a str."""

    FAST = "fast"


class Right(Flag):
    """A Flag."""

    READ = 1
    WRITE = 2


class Nested(Enum):
    """An Enum whose value needs rules itself."""

    WHEN = (NOON, Colour.RED)


class Name(str):
    """A subclass of str whose ``str()`` is something else."""

    def __str__(self) -> str:
        return "another"


class Count(int):
    """A subclass of int whose ``str()`` is something else."""

    def __repr__(self) -> str:
        return "another"


Point = namedtuple("Point", "x y")


@dataclass(frozen=True, slots=True)
class Stats:
    """A dataclass with values that need rules."""

    mean: Any
    seen: Any = None


def forbid(constant: str) -> None:
    """Refuse the constants that are not JSON."""
    raise AssertionError(f"{constant} in the document")


def strict(document: bytes) -> Any:
    """Return what two parsers agree on."""
    value = json.loads(document.decode(), parse_constant=forbid)
    if not any(digits > 300 for digits in map(len, document.split())):  # orjson has doubles
        orjson.loads(document)
    return value


def written(data: Any) -> Any:
    """Return what is read back, the same in both styles."""
    pretty, compact = encode(data, pretty=True), encode(data, pretty=False)
    value = strict(compact)
    assert strict(pretty) == value
    assert decode(pretty) == decode(compact) == value
    assert repr(decode(compact)) == repr(value)
    return value


def nest(depth: int, innermost: Any = None) -> list[Any]:
    """Return lists in lists, `depth` of them."""
    for _ in range(depth):
        innermost = [] if innermost is None else [innermost]
    return innermost  # type: ignore[no-any-return]


FRAME = pd.DataFrame({"n": [1, 2], "t": pd.to_datetime(["2024-01-01", None]), "s": ["x", None]})
MASKED = np.ma.array([1, 2], mask=[False, True])
RECORDS = np.array([(1, 0.5)], dtype=[("a", "i4"), ("b", "f8")])
MASKED_RECORDS = np.ma.array(RECORDS, mask=[(True, False)])
ARROW = pd.Series([2**60, None], dtype="Int64")

VALUES: dict[str, tuple[Any, Any]] = {
    # Python
    "none": (None, None),
    "booleans": ([True, False], [True, False]),
    "integers": ([0, -1, 2**63 - 1, -(2**63), 2**64 - 1], [0, -1, 2**63 - 1, -(2**63), 2**64 - 1]),
    "beyond 64 bits": ([2**64, -(2**63) - 1, 10**300], [2**64, -(2**63) - 1, 10**300]),
    "beyond a double": ({"a": {"b": [10**4000]}}, {"a": {"b": [10**4000]}}),
    "floats": ([0.1, -0.0, 1e22, 5e-324], [0.1, -0.0, 1e22, 5e-324]),
    "not finite": ([NAN, INF, -INF], [None, None, None]),
    "text": (["", "ä", "日本", "\U0001f600", '"\\\n\x00\u2028'],) * 2,
    "subclass of str": (Name("n"), "n"),
    "subclass of int": ([Count(2**70), Count(1)], [2**70, 1]),
    "tuple": ((1, (2,)), [1, [2]]),
    "named tuple": (Point(1, NAN), {"x": 1, "y": None}),
    "range, deque": ([range(3), deque([1])], [[0, 1, 2], [1]]),
    "views": ([{"b": 1, "a": 2}.keys(), {"b": 1}.values()], [["b", "a"], [1]]),
    "view of items": ({"b": 1}.items(), [["b", 1]]),
    "set of numbers": ({10, 9, 2.5, True}, [True, 2.5, 9, 10]),
    "set of text": (frozenset({"b", "a", "B"}), ["B", "a", "b"]),
    "set of a mixture": ({None, "a", 1, (2,)}, ["a", 1, [2], None]),
    "set of sets": ({frozenset({2, 1}), frozenset({1})}, [[1, 2], [1]]),
    "mappings": (
        [OrderedDict(b=1, a=2), defaultdict(int, a=1), MappingProxyType({"a": 1}), UserDict(a=1)],
        [{"b": 1, "a": 2}, {"a": 1}, {"a": 1}, {"a": 1}],
    ),
    "dataclass": (
        Stats(np.float64(0.5), {Stats(1)}),
        {"mean": 0.5, "seen": [{"mean": 1, "seen": None}]},
    ),
    "Enum": ([Colour.RED, Level.HIGH, Mode.FAST, Right.READ], ["red", 3, "fast", 1]),
    "Enum of a tuple": (Nested.WHEN, ["2024-02-29T12:30:00.001500", "red"]),
    "datetime": ([NOON, BERLIN], ["2024-02-29T12:30:00.001500", "2024-07-01T12:00:00+02:00"]),
    "date, time": ([NOON.date(), dt.time(1, 2)], ["2024-02-29", "01:02:00"]),
    "timedelta": (dt.timedelta(1, 7384, 500_000), "P1DT2H3M4.5S"),
    "negative timedelta": (-dt.timedelta(minutes=90), "-P0DT1H30M0S"),
    "longest timedelta": (dt.timedelta.max, "P999999999DT23H59M59.999999S"),
    "no timedelta": (dt.timedelta(), "P0DT0H0M0S"),
    "Decimal": ([Decimal("1.10"), Decimal("1E+5")], ["1.10", "1E+5"]),
    "Decimal, not finite": ([Decimal("NaN"), Decimal("-Infinity"), Decimal("sNaN")], [None] * 3),
    "paths": (
        [Path("a/b"), PureWindowsPath("c:\\d"), UPath("memory://t/u")],
        ["a/b", "c:\\d", "memory://t/u"],
    ),
    "UUID": (AN_ID, str(AN_ID)),
    "bytes": ([b"\x00\xff", bytearray(b"a"), memoryview(b"abcd")[::2]], ["AP8=", "YQ==", "YWM="]),
    # NumPy
    "NumPy integers": ([np.int8(-1), np.uint64(2**64 - 1)], [-1, 2**64 - 1]),
    "NumPy floats": ([np.float16(0.5), np.float32(0.5), np.float64(NAN)], [0.5, 0.5, None]),
    "NumPy bool, text": ([np.bool_(True), np.str_("a"), np.bytes_(b"a")], [True, "a", "YQ=="]),
    "datetime64": (
        [np.datetime64("2024-01-01T00:00", unit) for unit in ("s", "ns")],
        ["2024-01-01T00:00:00"] * 2,
    ),
    "datetime64 of other units": (
        [np.datetime64("2024"), np.datetime64("2024-01-02"), np.datetime64(1, "ps")],
        ["2024", "2024-01-02", "1970-01-01T00:00:00.000000000001"],
    ),
    "timedelta64": (
        [np.timedelta64(36, "h"), np.timedelta64(1, "ns")],
        ["P1DT12H0M0S", "P0DT0H0M0.000000001S"],
    ),
    "NumPy NaT": ([np.datetime64("NaT"), np.timedelta64("NaT", "s")], [None, None]),
    "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "arrays without dimension": (
        [np.array(1.5), np.array("2024", "M8[s]")],
        [1.5, "2024-01-01T00:00:00"],
    ),
    "empty arrays": ([np.zeros((2, 0)), np.array([], "M8[s]")], [[[], []], []]),
    "array of floats": (np.array([0.5, NAN, INF]), [0.5, None, None]),
    "array of text": ([np.array(["a", "bc"]), np.array([b"a"])], [["a", "bc"], ["YQ=="]]),
    "array of datetimes": (
        np.array(["2024-01-01", "NaT"], "M8[ns]"),
        ["2024-01-01T00:00:00", None],
    ),
    "array of objects": (np.array([{1}, NOON, None], object), [[1], NOON.isoformat(), None]),
    "masked array": ([MASKED, np.ma.masked], [[1, None], None]),
    "array of records": ([RECORDS, RECORDS[0]], [[{"a": 1, "b": 0.5}], {"a": 1, "b": 0.5}]),
    "masked records": (MASKED_RECORDS, [{"a": None, "b": 0.5}]),
    # pandas
    "NaT, NA": ([pd.NaT, pd.NA], [None, None]),
    "Timestamp": (
        [pd.Timestamp("2024-01-01"), pd.Timestamp(1, unit="ns", tz="UTC")],
        ["2024-01-01T00:00:00", "1970-01-01T00:00:00.000000001+00:00"],
    ),
    "Timedelta": (-pd.Timedelta("1D 00:00:00.000000001"), "-P1DT0H0M0.000000001S"),
    "Period": ([pd.Period("2024-01"), pd.Period("2024Q1")], ["2024-01", "2024Q1"]),
    "dtypes": (
        [np.dtype("int8"), np.dtype("M8[ns]"), pd.Int64Dtype()],
        ["int8", "datetime64[ns]", "Int64"],
    ),
    "Interval": (
        [pd.Interval(0, 1.5), pd.Interval(pd.Timestamp("2024"), pd.Timestamp("2025"), "left")],
        ["(0, 1.5]", "[2024-01-01T00:00:00, 2025-01-01T00:00:00)"],
    ),
    "Categorical": (pd.Categorical(["a", None, "a"]), ["a", None, "a"]),
    "extension array": (ARROW.array, [2**60, None]),
    "Index": (pd.date_range("2024-01-01", periods=1), ["2024-01-01T00:00:00"]),
    "MultiIndex": (pd.MultiIndex.from_tuples([("a", 1)]), [["a", 1]]),
    "Series of row numbers": ([pd.Series([1.5, NAN]), ARROW.iloc[1:]], [[1.5, None], [None]]),
    "Series of labels": (pd.Series([2, 1], index=["b", "a"]), {"b": 2, "a": 1}),
    "Series of counts": (pd.Series([7, 7, 8], name="n").value_counts(), {"7": 2, "8": 1}),
    "Series of a cut": (
        pd.cut(pd.Series([1, 2, 9]), [0, 5, 10]).value_counts(),
        {"(0, 5]": 2, "(5, 10]": 1},
    ),
    "DataFrame": (
        FRAME,
        [{"n": 1, "t": "2024-01-01T00:00:00", "s": "x"}, {"n": 2, "t": None, "s": None}],
    ),
    "DataFrame with an index": (
        pd.DataFrame({"n": [1]}, index=pd.MultiIndex.from_tuples([("a", 2)], names=["k", None])),
        [{"k": "a", "level_1": 2, "n": 1}],
    ),
    "DataFrame without columns": (pd.DataFrame(index=range(2)), [{}, {}]),
    "DataFrame without rows": (FRAME.iloc[:0], []),
}


@pytest.mark.parametrize("name", VALUES)
def test_every_type_becomes_what_the_table_says(name: str) -> None:
    """Each supported type has one exact form, alone and inside others, in both styles."""
    value, expected = VALUES[name]
    assert repr(written(value)) == repr(expected)
    assert written({"a": [value]}) == {"a": [expected]}


KEYS: list[tuple[Any, str]] = [
    ("a", "a"),
    ("", ""),
    (Name("n"), "n"),
    (1, "1"),
    (2**70, str(2**70)),
    (0.5, "0.5"),
    (1.0, "1.0"),
    (True, "true"),
    (None, "null"),
    (NAN, "null"),
    (Colour.RED, "red"),
    (Level.HIGH, "3"),
    (np.int64(7), "7"),
    (np.float32(0.5), "0.5"),
    (np.bool_(False), "false"),
    (np.datetime64("2024-01-01", "ns"), "2024-01-01T00:00:00"),
    (NOON, NOON.isoformat()),
    (NOON.date(), "2024-02-29"),
    (dt.timedelta(1), "P1DT0H0M0S"),
    (Decimal("1.10"), "1.10"),
    (AN_ID, str(AN_ID)),
    (b"a", "YQ=="),
    (Path("a/b"), "a/b"),
    (pd.Interval(0, 1), "(0, 1]"),
    (("a", 1, None), '["a",1,null]'),
    (frozenset({2, 1}), "[1,2]"),
    (Point(1, (NOON.date(), 2**70)), '{"x":1,"y":["2024-02-29",' + str(2**70) + "]}"),
]


@pytest.mark.parametrize(("key", "text"), KEYS, ids=lambda part: repr(part)[:30])
def test_keys_become_text(key: Any, text: str) -> None:
    """A key is what it would be as a value: its text, or else its JSON."""
    assert written({key: 1}) == {text: 1}


@pytest.mark.parametrize(
    "data",
    [
        {1: "x", "1": "y"},
        {True: "x", "true": "y"},
        {None: "x", NAN: "y"},
        {Colour.RED: "x", "red": "y"},
        {(1, 2): "x", "[1,2]": "y"},
        {NOON: "x", NOON.isoformat(): "y"},
        {Decimal("1.0"): 0, 2: 0, "1.0": 0},
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=[1, "1"]),
        pd.Series([1, 2], index=["a", "a"]),
        pd.DataFrame({"k": [1]}, index=pd.Index(["a"], name="k")),
    ],
    ids=repr,
)
def test_two_keys_of_one_text_are_refused(data: Any) -> None:
    """Nothing is lost because two keys, columns or labels become the same text."""
    for style in STYLES:
        with pytest.raises(UnsupportedDataError, match=r"^\$\.top\[0\]"):
            encode({"top": [data]}, pretty=style)


class Secret:
    """A type nobody knows, whose text must not show."""

    def __repr__(self) -> str:
        return "hunter2"

    __str__ = __repr__


class Dangerous:
    """An object of which nothing may be run or shown."""

    @property
    def version(self) -> str:
        """Fail when looked at."""
        raise AssertionError("a property was run")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")

    def ask(self) -> Caller | None:
        """Ask from a method."""
        return documents.find_caller()


UNFIT: dict[str, tuple[Any, str]] = {
    "unknown": (Secret(), "Secret has no place"),
    "a class": (Stats, "type has no place"),
    "redacted": (Redacted("hunter2"), "Redacted has no place"),
    "complex": (complex(1, 2), "imaginary"),
    "NumPy complex": (np.complex64(1), "complex64 has no place"),
    "long double": (np.longdouble(1), "astype"),
    "array of long doubles": (np.array([[1]], np.longdouble), r"\.b\[0\]\[0\]: .*astype"),
    "generator": ((i for i in ["hunter2"]), "make it a list"),
    "iterator": (iter(["hunter2"]), "make it a list"),
    "file": (io.StringIO("hunter2"), "make it a list"),
    "function": (len, "has no place"),
    "exception": (ValueError("hunter2"), "ValueError has no place"),
    "Fraction": (Fraction(1, 3), "Fraction has no place"),
    "Fragment": (orjson.Fragment(b"hunter2"), "Fragment has no place"),
    "dangerous": (Dangerous(), "Dangerous has no place"),
    "unset field": (object.__new__(Stats), "never set"),
    "type of NumPy": (np.int8, "type has no place"),
    "Dask frame": (dd.from_pandas(FRAME, npartitions=1), "compute"),
    "offset": (pd.offsets.MonthEnd(), "MonthEnd has no place"),
    "months": (np.timedelta64(1, "M"), "unit between"),
    "no unit": (np.timedelta64(1), "unit between"),
    "too long": (np.timedelta64(2**62, "D"), "longer than pandas"),
    "surrogate": ("hunter2\ud800", "surrogate"),
    "path of bytes": (Path("hunter2\udcff"), "surrogate"),
    "too many digits": (10**5000, "digits"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_has_no_place_is_refused_by_place_and_type(name: str) -> None:
    """The error names where and what, and neither it nor its context quotes the value."""
    value, message = UNFIT[name]
    for style in STYLES:
        with pytest.raises(UnsupportedDataError, match=message) as caught:
            encode({"a": [0, 1, {"b": value}]}, pretty=style)
        assert str(caught.value).startswith("$.a[2].b")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (Secret(), "$:"),
        ({"a b": {"ü": Secret()}}, '$["a b"]["\\u00fc"]:'),
        ({"a": {1: Secret()}}, '$.a["1"]:'),
        ({(1, Secret): 0}, "$[*][1]:"),
        ({"a": {Secret()}}, "$.a[*]:"),
        ({"x\ud800": 0}, "$[*]:"),
        (pd.DataFrame({"c": [0, Secret()]}), "$[1].c:"),
        (pd.Series([Secret()], index=["label"]), "$.label:"),
        (Stats(0, [Secret()]), "$.seen[0]:"),
        (np.array([[0, Secret()]], object), "$[0][1]:"),
    ],
    ids=str,
)
def test_the_place_is_spelled_as_a_json_path(data: Any, place: str) -> None:
    """Members are named, items numbered, keys and members of sets shown as ``[*]``."""
    with pytest.raises(UnsupportedDataError) as caught:
        encode(data, pretty=False)
    assert str(caught.value).startswith(place)


def test_what_holds_itself_is_refused() -> None:
    """A circle is an error wherever it closes; holding one thing twice is none."""
    array: list[Any] = []
    array.append({"a": array})
    mapping: dict[str, Any] = {}
    mapping["m"] = (mapping,)
    objects = np.empty(1, object)
    objects[0] = objects
    stats = Stats(seen := [])  # type: ignore[var-annotated]
    seen.append(stats)
    for circle in (array, mapping, objects, stats):
        with pytest.raises(UnsupportedDataError, match="holds itself"):
            encode(circle, pretty=False)
    shared = [1]
    assert written([shared, {"a": shared}, shared]) == [[1], {"a": [1]}, [1]]


def test_nesting_ends_at_one_depth_everywhere() -> None:
    """What is written can be read, appended and merged; one level more is an error of ours."""
    deepest = documents.MAX_DEPTH
    assert written(nest(deepest)) == nest(deepest)
    assert written({2**70: nest(deepest - 1, 2**70)})
    for depth in (deepest + 1, 300, 100_000):
        for pretty in STYLES:
            with pytest.raises(UnsupportedDataError, match="nested deeper"):
                encode(nest(depth), pretty=pretty)
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            with pytest.raises(InvalidTargetError, match="nested deeper"):
                decode(opening * depth + b"0" + closing * depth)
    assert append_item(None, nest(deepest - 1), pretty=True) == encode(
        [nest(deepest - 1)], pretty=True
    )
    with pytest.raises(UnsupportedDataError, match="nested deeper"):
        append_item(b"[]", nest(deepest), pretty=True)


def test_a_stack_that_is_nearly_used_up_is_an_error_of_ours() -> None:
    """Nesting within the limit, called from the bottom of a deep stack, is no RecursionError."""

    def descend(levels: int) -> bytes:
        return descend(levels - 1) if levels else encode(nest(99), pretty=False)

    used = len(list(itertools.takewhile(bool, iter_frames())))
    with pytest.raises(UnsupportedDataError, match="stack"):
        descend(sys.getrecursionlimit() - used - 150)


def iter_frames() -> Iterator[Any]:
    """Yield the frames of the caller's stack."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def test_pretty_and_compact_are_what_they_say() -> None:
    """Pretty indents by two, compact has no space at all; neither escapes what UTF-8 can say."""
    data = {"ä": [1, {"b": []}], "c": {}, "big": 2**70}
    text = json.dumps(data, indent=2, ensure_ascii=False)
    assert encode(data, pretty=True) == text.encode()
    assert (
        encode(data, pretty=False)
        == json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    )


def test_order_is_kept_and_sets_are_in_a_stated_order() -> None:
    """Members stay as they came; the same set is the same bytes however it was built."""
    names = [f"n{i}" for i in range(50)]
    random.Random(7).shuffle(names)
    assert list(written(dict.fromkeys(names))) == names
    members = [*names, 3, None, 2.5, (1, 2), NOON, b"x", AN_ID, Decimal(1)]
    assert len({encode(set(random.sample(members, 58)), pretty=False) for _ in range(5)}) == 1


def test_writing_leaves_the_data_alone() -> None:
    """Nothing given is changed, and nothing returned is shared with it."""
    data = {"a": [1, {"b": {2}}], 3: np.array([1.5])}
    before = repr(data)
    encode(data, pretty=True)
    merge_object(b'{"a": {"c": 1}}', data, overwrite_existing=True, recursive=True, pretty=True)
    append_item(b"[1]", data, pretty=True)
    assert repr(data) == before


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


@PATIENT
@given(values)
def test_plain_values_come_back_exactly(value: Any) -> None:
    """Whatever JSON can say is read back as it was, types and order included."""
    for style in STYLES:
        document = encode(value, pretty=style)
        assert repr(decode(document)) == repr(value)
        assert repr(strict(document)) == repr(value)


anything = st.recursive(
    scalars
    | st.floats()
    | st.binary(max_size=4)
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([pd.NaT, pd.NA, Colour.RED, Level.HIGH, np.float32(1), np.int8(1), "\ud800"])
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(scalars | st.tuples(scalars, scalars), inner, max_size=3)
        | st.sets(scalars, max_size=3)
        | st.lists(inner, max_size=3).map(lambda items: np.array([*items, None], object)[:-1])
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda items: pd.Series([*items, None], dtype=object)
        )
    ),
    max_leaves=8,
)


@PATIENT
@given(anything)
def test_anything_is_written_validly_or_refused(value: Any) -> None:
    """There is no third way: strict JSON, or an error of ours that names a place."""
    refused = None
    try:
        written(value)
    except UnsupportedDataError as error:
        refused = str(error)
    assert refused is None or refused.startswith("$")


DAMAGED = [
    b"",
    b" ",
    b"[",
    b"[1,2",
    b"[1,]",
    b"[1]]",
    b"[1] x",
    b"{'a': 1}",
    b"[NaN]",
    b"[Infinity]",
    b"[-Infinity]",
    b"[1e400]",
    b"[01]",
    b'["\x01"]',
    b'["\xff"]',
    b'["\\ud800"]',
    b'[{"\\udfff": 1}]',
    b"\xef\xbb\xbf[]",
    "[]".encode("utf-16"),
    b"[" + b"9" * 5000 + b"]",
    b"\x00" * 20,
    b"PDW1\x00\x00\x01\x00",
]


@pytest.mark.parametrize("stored", DAMAGED, ids=lambda stored: repr(stored[:20]))
def test_damage_is_an_error_and_is_not_quoted(stored: bytes) -> None:
    """Nothing that is not strict JSON is read, added to or begun anew."""
    for attempt in (
        lambda: decode(stored),
        lambda: append_item(stored, 1, pretty=True),
        lambda: merge_object(stored, {}, overwrite_existing=True, recursive=True, pretty=True),
    ):
        with pytest.raises(InvalidTargetError, match="mend it, move it away") as caught:
            attempt()
        assert caught.value.__context__ is None


@pytest.mark.parametrize("stored", [b'{"a": 1, "a": 2}', b'[{"b": {"a": 1, "\\u0061": 2}}]'])
def test_one_name_twice_is_damage(stored: bytes) -> None:
    """Readers disagree on which of two members counts, so none is chosen."""
    with pytest.raises(InvalidTargetError, match="two members of one name"):
        decode(stored)


@PATIENT
@given(
    st.binary(max_size=40)
    | st.text(alphabet='[]{}",:0123e-.ntrue\\ud8 ', max_size=20).map(str.encode)
)
def test_any_bytes_are_read_as_strict_json_or_refused(stored: bytes) -> None:
    """No bytes crash the parser; what it reads, the others read too, and can be appended to."""
    try:
        value = decode(stored)
    except InvalidTargetError:
        return
    assert json.loads(stored.decode(), parse_constant=forbid) == value
    if isinstance(value, list):
        assert decode(append_item(stored, "new", pretty=True)) == [*value, "new"]


spaces = st.text(alphabet=" \t\r\n", max_size=3).map(str.encode)


@PATIENT
@given(
    st.lists(values, max_size=5), values, st.sampled_from([None, 0, 1, 4]), spaces, st.booleans()
)
def test_an_append_keeps_what_is_stored_byte_for_byte(
    items: list[Any], item: Any, indent: int | None, space: bytes, pretty: bool
) -> None:
    """Whoever laid the array out: its bytes up to the last item stay, the new item follows."""
    stored = space + json.dumps(items, indent=indent).encode() + space
    added = append_item(stored, item, pretty=pretty)
    assert repr(strict(added)) == repr([*items, item])
    kept = stored.rstrip()[:-1].rstrip()
    assert added.startswith(kept)
    assert added.endswith(b"]" + space)


@PATIENT
@given(st.lists(values, max_size=5), st.booleans())
def test_a_history_of_appends_is_the_list_encoded(items: list[Any], pretty: bool) -> None:
    """Appending one by one in one style gives the very bytes of encoding them all at once."""
    stored = None
    for number, item in enumerate(items, 1):
        stored = append_item(stored, item, pretty=pretty)
        assert stored == encode(items[:number], pretty=pretty)
    assert append_item(encode([], pretty=pretty), 1, pretty=pretty) == encode([1], pretty=pretty)


@PATIENT
@given(st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=5))
def test_appends_of_both_styles_stay_valid(steps: list[tuple[Any, bool]]) -> None:
    """Changing one's mind about `pretty` changes the look and nothing else."""
    stored = None
    for item, pretty in steps:
        stored = append_item(stored, item, pretty=pretty)
    assert stored is not None
    assert repr(strict(stored)) == repr([item for item, _ in steps])


@pytest.mark.parametrize("remembered", [0, 64])
def test_an_append_goes_by_what_is_stored(remembered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it is the array that was made last, and whatever became of that."""
    monkeypatch.setattr(changes, "_LENGTHS_KEPT", remembered)
    made = append_item(append_item(None, 1, pretty=False), 2, pretty=False)
    for damaged in (made[:-1], made.replace(b"2", b"}"), b'{"a":[1,2]}'):
        with pytest.raises(InvalidTargetError):
            append_item(damaged, 3, pretty=False)
    assert append_item(made, 3, pretty=False) == b"[1,2,3]"
    assert append_item(b"[]", 4, pretty=False) == b"[4]"
    with pytest.raises(UnsupportedDataError, match=r"\$\[1\]"):
        append_item(b"[4]", object(), pretty=False)
    assert all(len(digest) == 32 for digest in changes._lengths)  # and no array, maybe a secret one


def test_an_append_follows_the_rules_and_names_the_place() -> None:
    """An item is any supported object; a refused one is named by its place in the document."""
    assert append_item(b"[1.50]", {NOON.date(): 10**400}, pretty=False) == (
        b'[1.50,{"2024-02-29":1' + b"0" * 400 + b"}]"
    )
    assert append_item(b"[1" + b"0" * 400 + b" ]\n", None, pretty=False).endswith(b"0,null]\n")
    with pytest.raises(UnsupportedDataError, match=r"^\$\[2\]\.a: "):
        append_item(b"[1, 2]", {"a": Secret()}, pretty=True)


@pytest.mark.parametrize(
    ("stored", "kind"),
    [(b"{}", "an object"), (b'"[]"', "a string"), (b"null", "null"), (b"1", "a number")],
)
def test_only_arrays_are_appended_to(stored: bytes, kind: str) -> None:
    """Another kind of document is refused and kept; it is not begun anew."""
    with pytest.raises(InvalidTargetError, match=f"is .*{kind}.*, not an array; it is kept"):
        append_item(stored, 1, pretty=True)


def merged(old: dict[str, Any], new: dict[str, Any], overwrite: bool, recursive: bool) -> Any:
    """Return what a merge means, by cases."""
    result = {}
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new or name not in old:
            result[name] = new.get(name, old.get(name))
        elif recursive and type(old[name]) is type(new[name]) is dict:
            result[name] = merged(old[name], new[name], overwrite, recursive)
        else:
            result[name] = new[name] if overwrite else old[name]
    return result


@PATIENT
@given(objects, objects, st.booleans(), st.booleans(), st.booleans())
def test_a_merge_is_what_its_cases_say(
    old: dict[str, Any], new: dict[str, Any], overwrite: bool, recursive: bool, pretty: bool
) -> None:
    """Kept, replaced or merged, member by member, in the order old, then new."""
    for stored in (None, encode(old, pretty=False), json.dumps(old, indent=3).encode()):
        result = merge_object(
            stored, new, overwrite_existing=overwrite, recursive=recursive, pretty=pretty
        )
        expected = merged({} if stored is None else old, new, overwrite, recursive)
        assert result == encode(expected, pretty=pretty)
        assert repr(strict(result)) == repr(expected)


@pytest.mark.parametrize(
    ("overwrite", "recursive", "expected"),
    [
        (True, True, {"a": {"x": 9, "y": 2, "z": 3}, "b": {"q": 1}, "c": None, "n": [1], "d": 4}),
        (True, False, {"a": {"x": 9, "z": 3}, "b": {"q": 1}, "c": None, "n": [1], "d": 4}),
        (False, True, {"a": {"x": 1, "y": 2, "z": 3}, "b": 1, "c": {"k": 1}, "n": None, "d": 4}),
        (False, False, {"a": {"x": 1, "y": 2}, "b": 1, "c": {"k": 1}, "n": None, "d": 4}),
    ],
)
def test_merges_by_example(overwrite: bool, recursive: bool, expected: dict[str, Any]) -> None:
    """A stored null is a member like any other; new members of kept objects still come in."""
    stored = b'{"a": {"x": 1, "y": 2}, "b": 1, "c": {"k": 1}, "n": null}'
    new = {"a": {"x": 9, "z": np.int8(3)}, "b": {"q": 1}, "c": None, "n": (1,), "d": 4}
    result = merge_object(
        stored, new, overwrite_existing=overwrite, recursive=recursive, pretty=False
    )
    assert decode(result) == expected
    assert list(strict(result)) == list(expected)


def test_a_merge_keeps_integers_exact_and_sees_keys_as_text() -> None:
    """What is stored keeps its digits; a key that is not text meets its own text."""
    stored = encode({"big": 2**80, "1": "old"}, pretty=True)
    result = merge_object(
        stored, {1: "new"}, overwrite_existing=True, recursive=False, pretty=False
    )
    assert result == b'{"big":' + str(2**80).encode() + b',"1":"new"}'
    new: Any = Stats(1)
    result = merge_object(None, new, overwrite_existing=True, recursive=True, pretty=False)
    assert result == b'{"mean":1,"seen":null}'


def test_only_objects_are_merged() -> None:
    """Neither another kind of document nor another kind of data becomes an object."""
    flags = {"overwrite_existing": True, "recursive": True, "pretty": True}
    for stored in (b"[]", b"1", b'"{}"'):
        with pytest.raises(InvalidTargetError, match="not an object; it is kept"):
            merge_object(stored, {}, **flags)
    for data in ([], "text", None, 1):
        with pytest.raises(UnsupportedDataError, match="only an object can be merged"):
            merge_object(b"{}", data, **flags)  # type: ignore[arg-type]


CALLER = Caller(module="m", class_name="C", function="f", version="1")


def test_metrics_carry_their_origin() -> None:
    """The document has the shape that readers of metrics know; times are UTC."""
    metrics = {"rows": np.int64(3), "nested": {"a": [1]}}
    document = documents.enrich_metrics(metrics, name="quality", moment=BERLIN, caller=CALLER)
    assert written(document) == {
        "metadata": {
            "timestamp": "2024-07-01T10:00:00+00:00",
            "name": "quality",
            "operation": {"module": "m", "class": "C", "function": "f", "version": "1"},
        },
        "metrics": {"rows": 3, "nested": {"a": [1]}},
    }
    assert list(metrics) == ["rows", "nested"]


def test_an_unknown_origin_is_left_out() -> None:
    """What is not known about the caller has no member, rather than a null."""
    plain = Caller(module="m", function="f")
    for caller, operation in ((None, {}), (plain, {"module": "m", "function": "f"})):
        document = documents.enrich_metrics({}, name="n", moment=BERLIN, caller=caller)
        assert document["metadata"]["operation"] == operation


class Operation:
    """An operation as users write them."""

    def __init__(self, version: Any = "1.2.0") -> None:
        self.version = version

    def execute(self) -> Caller | None:
        """Ask from a method."""
        return documents.find_caller()

    def in_a_comprehension(self) -> list[Caller | None]:
        """Ask from a comprehension, which is a frame of its own before Python 3.12."""
        return [documents.find_caller() for _ in range(1)]

    def in_a_generator(self) -> Caller | None:
        """Ask from a generator expression."""
        return next(documents.find_caller() for _ in range(1))

    def in_a_function(self) -> Caller | None:
        """Ask from a function inside a method, which knows ``self`` if it uses it."""

        def inner() -> Caller | None:
            assert self
            return documents.find_caller()

        return inner()

    @classmethod
    def build(cls) -> Caller | None:
        """Ask from a class method."""
        return documents.find_caller()


class Child(Operation):
    """Inherits the methods that ask."""

    __version__ = "2.0"

    def __init__(self) -> None:
        pass


def test_the_caller_is_the_operation_that_asked() -> None:
    """Module, class, function and version are those of the nearest frame outside the package."""
    assert Operation().execute() == Caller(
        module=__name__, class_name="Operation", function="execute", version="1.2.0"
    )
    found = [*Operation().in_a_comprehension(), Operation().in_a_generator()]
    assert [(caller.class_name, caller.function) for caller in found if caller] == [
        ("Operation", "in_a_comprehension"),
        ("Operation", "in_a_generator"),
    ]
    inner = Operation().in_a_function()
    assert inner is not None
    assert (inner.class_name, inner.function) == ("Operation", "inner")


def test_the_class_is_the_one_that_ran() -> None:
    """An inherited method and a class method name the class they were called on."""
    for caller in (Child().execute(), Child.build()):
        assert caller is not None
        assert (caller.class_name, caller.version) == ("Child", "2.0")


def test_a_function_has_no_class() -> None:
    """Outside of a class there is only module and function."""

    def outer() -> Caller | None:
        self = "not a parameter"
        assert self
        return documents.find_caller()

    caller = outer()
    assert caller is not None
    assert (caller.class_name, caller.function) == (None, "outer")


def test_nothing_of_the_caller_is_run_or_copied() -> None:
    """A computed version is passed over, and so is one that is not text or a number."""
    caller = Dangerous().ask()
    assert caller is not None
    assert (caller.class_name, caller.version) == ("Dangerous", None)
    for stored in (FRAME, {"secret": 1}, None, True, ""):
        found = Operation(stored).execute()
        assert found is not None
        assert found.version is None
    number = Operation(3).execute()
    assert number is not None
    assert number.version == "3"


@pytest.mark.parametrize(
    ("module", "own", "expected"),
    [
        ("hypothesis.extra", {}, hypothesis.__version__),
        ("nowhere.to.be.found", {"__version__": "0.7"}, "0.7"),
        ("nowhere.to.be.found", {}, None),
        ("pytest_timeout", {}, version("pytest-timeout")),
        ("__main__", {}, None),
        ("", {}, None),
    ],
)
def test_the_version_of_a_package_stands_in(
    module: str, own: dict[str, Any], expected: str | None
) -> None:
    """Without a version of its own, a caller has that of its module or its package."""
    namespace = {"__name__": module, "documents": documents, **own}
    exec("def ask():\n    return documents.find_caller()", namespace)  # noqa: S102  a module
    caller = namespace["ask"]()
    assert caller == Caller(module=module, function="ask", version=expected)


def test_frames_of_the_package_are_passed_over() -> None:
    """However deep inside the package the question is asked, the answer is who called it."""
    inside: dict[str, Any] = {"__name__": "pamola_dwriter.writer", "documents": documents}
    exec(  # noqa: S102  a module of the package
        "class Writer:\n"
        "    version = 'not this'\n"
        "    def write(self):\n"
        "        return [ask() for _ in range(1)][0]\n"
        "def ask():\n"
        "    return documents.find_caller()",
        inside,
    )
    caller = inside["Writer"]().write()
    assert (caller.module, caller.class_name) == (__name__, None)
    namespace: dict[str, Any] = {"__name__": "pamola_dwriter_plugin", "inside": inside["ask"]}
    exec("def mine():\n    return inside()", namespace)  # noqa: S102  a neighbour by name
    assert namespace["mine"]().module == "pamola_dwriter_plugin"


def through(name: str, frame: pd.DataFrame) -> bytes:
    """Return a frame as one file of a format, as a write makes it."""
    described = json.loads(json.dumps(formats.describe(frame.iloc[:0], False)))
    schema, unresolved = formats.infer_schema(frame.iloc[:0], described)
    if unresolved:
        found = formats.infer_columns(frame, described, unresolved)
        schema = formats.resolve(schema, formats.unify([found]))
    serializer = formats.get(name)
    serializer.check_schema(schema)
    table = formats.to_arrow(frame, schema, described, 0)
    data = serializer.dumps(table, serializer.check_options(FormatSpec(name=name)))
    return data.to_pybytes()


def csv(data: dict[Any, Any]) -> list[str]:
    """Return a dictionary as lines of CSV; it is written as Parquet too."""
    frame = to_frame(data)
    back = pd.read_parquet(io.BytesIO(through("parquet", frame)))
    assert list(back.columns) == list(frame.columns)
    assert len(back) == len(frame)
    return through("csv", frame).decode().splitlines()


RECORD = '"{""a"":1,""b"":0.5}"'
DICTIONARIES: dict[str, tuple[dict[Any, Any], list[str]]] = {
    "flat": ({"apple": 2, "fig": 1}, ['"key","value"', '"apple",2', '"fig",1']),
    "empty": ({}, ['"key","value"']),
    "numeric keys": ({1: "a", 2: "b"}, ['"key","value"', '1,"a"', '2,"b"']),
    "flat with null": ({"a": None, "b": 2**60 + 1}, ['"key","value"', '"a",', f'"b",{2**60 + 1}']),
    "integers and floats": ({"a": 1, "b": 2.5}, ['"key","value"', '"a",1', '"b",2.5']),
    "a float would bend it": (
        {"a": 2**60 + 1, "b": 0.5},
        ['"key","value"', f'"a","{2**60 + 1}"', '"b","0.5"'],
    ),
    "mixed": (
        {"a": 1, "b": "x", "c": None, "d": True, "e": NOON.date(), "f": NAN},
        ['"key","value"', '"a","1"', '"b","x"', '"c",', '"d","true"', '"e","2024-02-29"', '"f",'],
    ),
    "mixed keys": (
        {1: 1, "a": 2, (1, "b"): 3},
        ['"key","value"', '"1",1', '"a",2', '"[1,""b""]",3'],
    ),
    "date and datetime": (
        {"a": NOON.date(), "b": NOON},
        ['"key","value"', '"a","2024-02-29"', '"b","2024-02-29T12:30:00.001500"'],
    ),
    "with and without a zone": (
        {"a": NOON, "b": NOON.replace(tzinfo=dt.UTC)},
        [
            '"key","value"',
            '"a","2024-02-29T12:30:00.001500"',
            '"b","2024-02-29T12:30:00.001500+00:00"',
        ],
    ),
    "beyond 64 bits": ({"a": 2**70}, ['"key","value"', f'"a","{2**70}"']),
    "wrapped": ({"a": Mode.FAST, "b": Colour.RED}, ['"key","value"', '"a","fast"', '"b","red"']),
    "NumPy": ({np.int8(1): np.float32(0.5)}, ['"key","value"', "1,0.5"]),
    "UUID, path": ({AN_ID: Path("a/b")}, ['"key","value"', f'"{AN_ID}","a/b"']),
    "lists": (
        {"a": [1, 2], "b": ("x", None), "c": range(2), 7: np.array([0.5, NAN])},
        ['"a","b","c","7"', '1,"x",0,0.5', "2,,1,"],
    ),
    "arrays": (
        {"i": pd.Index(["x"]), "s": pd.Series([1], index=[5]), "k": pd.Categorical(["u"])},
        ['"i","s","k"', '"x",1,"u"'],
    ),
    "arrays that need rules": (
        {
            "m": np.ma.array([2**60 + 1, 2], mask=[0, 1]),
            "r": np.repeat(RECORDS, 2),
            "o": [[1], [2]],
        },
        [
            '"m","r","o"',
            f'{2**60 + 1},"{{""a"":1,""b"":0.5}}","[1]"',
            ',"{""a"":1,""b"":0.5}","[2]"',
        ],
    ),
    "dates in an array": ({"d": np.array(["2024-01-01"], "M8[D]")}, ['"d"', '"2024-01-01"']),
    "empty lists": ({"a": [], "b": ()}, ['"a","b"']),
    "dictionaries": (
        {"u": {"x": 1, "y": "s"}, "v": {"y": None, "z": [1]}},
        ['"key","x","y","z"', '"u",1,"s",', '"v",,,"[1]"'],
    ),
    "empty dictionaries": ({"u": {}, "v": {}}, ['"key"', '"u"', '"v"']),
    "numeric outer keys": ({10: {1: 2}}, ['"key","1"', "10,2"]),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries_become_tables(name: str) -> None:
    """Keys are never lost, and every column has one type in CSV and in Parquet."""
    data, lines = DICTIONARIES[name]
    assert csv(data) == lines


def test_columns_of_one_kind_keep_their_type() -> None:
    """Numbers, booleans and times stay what they are; arrays keep their very dtype."""
    frame = to_frame({"i": [1, 2], "b": [True, False], "t": [NOON, NOON], "f": np.ones(2, "f4")})
    assert [dtype.kind for dtype in frame.dtypes] == ["i", "b", "M", "f"]
    assert frame["f"].dtype == "float32"
    times = to_frame(
        {"a": np.datetime64("2024-01-01", "s"), "b": np.datetime64("2025-01-01", "ns")}
    )
    assert times["value"].dtype.kind == "M"
    assert to_frame({"k": pd.Categorical(["u"])})["k"].dtype == "category"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "a dictionary is needed, not list"),
        ({"a": [1], "b": 2}, "only lists, only dictionaries, or only single values"),
        ({"a": {"x": 1}, "b": [1]}, "not dict, list together"),
        ({"a": {1, 2}}, "not set together"),
        ({"a": FRAME}, "not DataFrame together"),
        ({"a": Secret()}, "not Secret together"),
        ({"a": [1, 2], "b": [1]}, "'a' 2, 'b' 1"),
        ({"a": np.ones((2, 2))}, "'a' has 2 dimensions"),
        ({"a": np.array(1)}, "'a' has 0 dimensions"),
        ({"a": pd.Series([1], index=["x"])}, "labels would be lost"),
        ({1: [1], "1": [2]}, "the same text"),
        ({1: 1, "1": 2}, "the same text"),
        ({None: 1, NAN: 2, "a": 3}, "the same text"),
        ({"a": {1: 1}, "b": {"1": 2}}, "the same text"),
        ({"a": {"key": 1}}, "'key' holds the outer keys"),
        ({"a": [1, [Secret()]]}, r"^\$\.a\[1\]\[0\]: .*Secret has no place"),
        ({"a": {"b": 1j}}, r"^\$\.b\[0\]: complex has no place"),
        ({"a": np.longdouble(1)}, r"^\$\.value\[0\]: .*longdouble"),
        ({"a": "x\ud800"}, r"^\$\.value\[0\]: .*surrogate"),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_dictionaries_that_are_no_table_are_refused(data: Any, message: str) -> None:
    """The error says which shapes are accepted, or which column to mend, and shows no value."""
    with pytest.raises(UnsupportedDataError, match=message) as caught:
        to_frame(data)
    assert "hunter2" not in str(caught.value)


cells = scalars | st.dates() | st.decimals(allow_nan=False) | st.floats() | st.binary(max_size=3)


@PATIENT
@given(st.dictionaries(scalars, cells, max_size=5))
def test_any_flat_dictionary_is_a_parquet_table_or_refused(data: dict[Any, Any]) -> None:
    """Whatever single values it holds, the table has a row for each and a type for all."""
    try:
        frame = to_frame(data)
    except UnsupportedDataError:
        return
    with decimal.localcontext(prec=100):
        back = pd.read_parquet(io.BytesIO(through("parquet", frame)))
    assert list(back.columns) == ["key", "value"]
    assert len(back) == len(data)
