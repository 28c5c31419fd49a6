"""Names: each is parsed back to what it was made of, and none leaves its directory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamola_dwriter import layout
from pamola_dwriter.errors import InvalidNameError
from pamola_dwriter.spec import Attempt, WriteId

WRITE_IDS = st.text("0123456789abcdef", min_size=16, max_size=16).map(WriteId)
ATTEMPTS = st.text("0123456789abcdef", min_size=8, max_size=8).map(Attempt)
EXTENSIONS = st.sampled_from(["parquet", "csv.gz", "jsonl.zst", "parquet.pdw", "csv.gz.pdw"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WRITE_ID = WriteId("0123456789abcdef")


@given(
    partition=st.integers(0, 10**7),
    write_id=WRITE_IDS,
    attempt=ATTEMPTS,
    piece=st.integers(0, 10**5),
    extension=EXTENSIONS,
)
def test_part_names_are_parsed_back(
    partition: int, write_id: WriteId, attempt: Attempt, piece: int, extension: str
) -> None:
    """Every part name, in whatever folder, says what it was made of and who wrote it."""
    name = layout.part_name(partition, write_id, attempt, piece, extension)
    expected = layout.PartName(partition, write_id, attempt, piece, extension)
    assert layout.parse_part_name(name) == expected
    assert layout.parse_part_name(f"a=1/b=%2F/{name}") == expected
    assert layout.write_id_of(f"a=1/{name}") == write_id
    assert layout.foreign_files([name]) == []


def test_parts_sort_as_their_partitions_do() -> None:
    """A listing of parts is in the order of the partitions, as other readers take it."""
    names = [layout.part_name(n, WRITE_ID, Attempt("0" * 8), 0, "csv") for n in (0, 9, 10, 99_999)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "part-00000.parquet",
        "part.0.parquet",
        "part-0-0123456789abcdef-01234567-000.csv",
        "part-00000-0123456789ABCDEF-01234567-000.csv",
        "part-00000-0123456789abcdef-01234567-000.csv\n",
        "part-00000-0123456789abcdef-01234567-000.csv/notes.txt",
        "xpart-00000-0123456789abcdef-01234567-000.csv",
        "part-00000-0123456789abcdef-01234567-000.",
        "part-\u0661\u0662\u0663\u0664\u0665-0123456789abcdef-01234567-000.csv",
        "_parts-0123456789abcdef.exe/x",
        "_parts-0123456789abcdef.parquet\n",
        "notes.txt",
    ],
)
def test_other_files_are_foreign(name: str) -> None:
    """A name that we would not make is nobody's part, and is never swept as one."""
    assert layout.parse_part_name(name) is None
    assert layout.write_id_of(name) is None
    assert layout.foreign_files([name]) == [name]


@given(TEXT)
def test_any_text_parses_or_is_foreign(name: str) -> None:
    """Parsing a name never fails, and what it accepts is a name that we make."""
    found = layout.parse_part_name(name)
    if found is not None:
        made = layout.part_name(
            found.partition, found.write_id, found.attempt, found.piece, found.extension
        )
        assert name.rpartition("/")[2] == made


@given(WRITE_IDS, ATTEMPTS, st.sampled_from(["parquet", "parquet.pdw"]))
def test_part_tables_name_their_write(write_id: WriteId, attempt: Attempt, extension: str) -> None:
    """The name of a part table says which write made it; the manifest is never foreign."""
    name = layout.part_table_name(write_id, attempt, extension)
    assert layout.write_id_of(name) == write_id
    assert layout.write_id_of(f"_parts-{write_id}.{extension}") == write_id  # without attempt once
    assert layout.foreign_files([name, layout.MANIFEST, f"{layout.MANIFEST}.lock"]) == []


@pytest.mark.parametrize("name", ["_manifest.json.bak", "_manifest.json/x", "x/_manifest.json"])
def test_what_only_resembles_the_manifest_is_foreign(name: str) -> None:
    """Only the manifest itself and its lock are ours."""
    assert layout.foreign_files([name]) == [name]


@given(st.lists(st.tuples(TEXT.filter(bool), st.none() | TEXT), max_size=4))
def test_hive_directories_are_parsed_back(pairs: list[tuple[str, str | None]]) -> None:
    """Any column names and values come back from the folders made of them, null apart from text."""
    values = tuple(pairs)
    directory = layout.hive_directory(values)
    assert layout.parse_hive_directory(directory) == values
    assert directory.count("/") == max(len(values) - 1, 0)
    components = directory.split("/") if directory else []
    assert all("=" in component for component in components)
    assert all(component.isascii() and component.isprintable() for component in components)


def test_a_value_that_spells_null_is_not_null() -> None:
    """The text that stands for null in a path, as a value, stays that text."""
    values = (("k", layout.HIVE_NULL), ("k", None), ("k", ""))
    assert layout.parse_hive_directory(layout.hive_directory(values)) == values


@given(
    stage=st.sampled_from(get_args(layout.Stage)),
    write_id=WRITE_IDS,
    index=st.none() | st.integers(0, 10**6),
)
def test_task_keys_are_parsed_back(
    stage: layout.Stage, write_id: WriteId, index: int | None
) -> None:
    """A task key, of a layer or of one task in it, says stage, write and index."""
    name = layout.task_key(stage, write_id)
    key = name if index is None else (name, index)
    assert layout.parse_task_key(key) == (stage, write_id, index)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "read-parquet-0123456789abcdef",
        ("x", 1),
        (),
        ("pamola-put-0123456789abcdef",),
        5,
        None,
        b"pamola-put-0123456789abcdef",
        "pamola-put-0123456789abcde",
        "pamola-put-0123456789abcdef\n",
        (("pamola-put-0123456789abcdef", 1), 2),
    ],
)
def test_other_task_keys_are_not_ours(key: object) -> None:
    """Keys of other collections, of whatever type, are told apart."""
    assert layout.parse_task_key(key) is None


@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1),
    seconds=st.integers(0, 10**11),
    hours=st.integers(-12, 12),
)
def test_timestamps_are_parsed_back(name: str, seconds: int, hours: int) -> None:
    """A timestamped name gives back the name and the second, in UTC whatever the zone was."""
    zoned = datetime.fromtimestamp(seconds, timezone(timedelta(hours=hours)))
    made = layout.timestamped(name, zoned)
    assert made[-16] == "_"
    assert layout.parse_timestamped(made) == (name, zoned.astimezone(UTC))
    finer = zoned + timedelta(microseconds=seconds % 10**6)
    exact = layout.timestamped(name, finer, exact=True)
    assert exact.startswith(f"{made}_")
    assert layout.parse_timestamped(exact) == (name, finer.astimezone(UTC))


@pytest.mark.parametrize(
    "name", ["", "x", "_20240229_000000", "x_20240230_000000", "x_20240229_250000", "x_2024_0102"]
)
def test_names_without_a_timestamp(name: str) -> None:
    """What only resembles a timestamp is not taken for one."""
    assert layout.parse_timestamped(name) is None


@pytest.mark.parametrize("name", ["x", "x.csv", "é 日本", "a=b", "a-b_c.d", "x" * 200, "é" * 100])
def test_safe_names_are_kept(name: str) -> None:
    """A name that is one safe component is used as it is."""
    assert layout.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", " x", "x ", "x\n", ".", "..", ".x", "_x", "_manifest.json", "_staging"),
        *("../x", "/abs", "a/b", "a\\b", "C:x", "x\0", "x\x7f", "x?", "x*", 'x"', "x<", "x|"),
        *("x" * 201, "é" * 101, None, 5, b"x", ["x"]),
    ],
)
def test_unsafe_names_are_refused(name: object) -> None:
    """A name that is empty, reserved, too long, no text, or no single component is refused."""
    with pytest.raises(InvalidNameError):
        layout.check_name(name)


@given(st.text())
def test_whatever_passes_is_one_component(name: str) -> None:
    """Any text is refused, or is one visible path component of at most 200 bytes."""
    try:
        layout.check_name(name)
    except InvalidNameError:
        return
    assert name not in ("", ".", "..")
    assert not name.startswith(("_", "."))
    assert not set(name) & set("/\\\0\n:")
    assert len(name.encode()) <= layout.MAX_NAME_BYTES


@pytest.mark.parametrize(("subdir", "expected"), [(None, ""), ("", ""), ("a", "a"), ("a/b", "a/b")])
def test_subdirectories(subdir: str | None, expected: str) -> None:
    """A subdirectory is a relative path of safe components, or none."""
    assert layout.check_subdir(subdir) == expected


@pytest.mark.parametrize(
    "subdir", ["/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/_b", "a/.b", "a\\..\\b", 5, b"a"]
)
def test_subdirectories_that_escape_are_refused(subdir: object) -> None:
    """A subdirectory that is absolute, escapes or is reserved is refused, by that word."""
    with pytest.raises(InvalidNameError, match="subdir"):
        layout.check_subdir(subdir)


def test_joining_leaves_out_what_is_empty() -> None:
    """Paths are joined with forward slashes and no double ones."""
    assert layout.join("", "a", "", "b/c") == "a/b/c"
    assert layout.join("", "") == ""
