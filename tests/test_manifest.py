"""The manifest: what is dumped is parsed back, and damage is an error of ours."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pamola_dwriter import layout, manifest, read_dataset, verify
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    MissingKeyError,
    UnsupportedVersionError,
    WrongKeyError,
)
from pamola_dwriter.manifest import Envelope, Manifest, PartTable
from pamola_dwriter.spec import FormatSpec, PartRecord, WriteId
from tests.fixtures import make_fixtures as fixtures

WRITE_ID = WriteId("0123456789abcdef")
OTHER_ID = WriteId("fedcba9876543210")
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
COUNTS = st.integers(0, 2**63 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
NAMES = NAMES.filter(lambda name: name not in (".", ".."))
SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)
PARTS = st.builds(
    PartRecord,
    path=st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    partition=COUNTS,
    values=st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=3).map(tuple),
    rows=COUNTS,
    size_bytes=COUNTS,
    plain_bytes=COUNTS,
    sha256=SHA256,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
SCHEMAS = st.sampled_from(
    [
        pa.schema([]),
        pa.schema([("é", pa.decimal128(38, 2)), ("x", pa.timestamp("us", "Asia/Tokyo"))]),
        pa.schema(
            [pa.field("x", pa.list_(pa.string()), nullable=False)], metadata={"pandas": "{}"}
        ),
    ]
)
DESCRIPTORS = st.dictionaries(TEXT, JSON, max_size=2).map(lambda more: {**more, "kind": "object"})

FRAMES = st.fixed_dictionaries(
    {
        "columns": st.lists(st.fixed_dictionaries({"name": TEXT, "dtype": DESCRIPTORS})),
        "index": st.lists(
            st.fixed_dictionaries({"stored": TEXT, "name": st.none() | TEXT, "dtype": DESCRIPTORS})
        ),
        "axis": st.fixed_dictionaries({"name": st.none() | TEXT, "dtype": DESCRIPTORS}),
    }
)

MANIFESTS = st.builds(
    Manifest,
    write_id=st.just(WRITE_ID),
    created=st.datetimes(timezones=st.just(UTC)),
    format=st.builds(
        FormatSpec,
        name=st.sampled_from(["parquet", "csv"]),
        compression=st.none() | TEXT,
        row_group_size=st.none() | COUNTS,
        options=st.dictionaries(TEXT, st.integers() | TEXT, max_size=2),
    ),
    schema=SCHEMAS,
    frame=FRAMES,
    partition_on=st.lists(TEXT, max_size=2).map(tuple),
    totals=st.fixed_dictionaries({"rows": COUNTS, "bytes": COUNTS, "parts": COUNTS}),
    producer=st.dictionaries(TEXT, TEXT, max_size=2),
    writes=st.sampled_from([(WRITE_ID,), (OTHER_ID, WRITE_ID)]),
    retired=st.dictionaries(
        st.sampled_from([WriteId("0" * 16), WriteId("a" * 16)]),
        st.datetimes(timezones=st.just(UTC)),
    ),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    part_table=st.none()
    | st.builds(
        PartTable, path=NAMES, sha256=SHA256, size_bytes=st.integers(1, manifest.MAX_TABLE)
    ),
)


def a_manifest(**changes: Any) -> Manifest:
    """Return a small manifest."""
    fields: dict[str, Any] = {
        "write_id": WRITE_ID,
        "created": datetime(2024, 2, 29, tzinfo=UTC),
        "format": FormatSpec(name="csv", compression="gzip", options={"delimiter": ";"}),
        "schema": pa.schema([("x", pa.int64())]),
        "frame": {"columns": [], "index": []},
        "partition_on": (),
        "totals": {"rows": 0, "bytes": 0, "parts": 0},
        "producer": {"dask": "1"},
        "writes": (WRITE_ID,),
    }
    return Manifest(**{**fields, **changes})


def assert_same(parsed: Manifest, document: Manifest) -> None:
    """Assert that two manifests are equal, the metadata of their schemas too."""
    assert parsed.schema.equals(document.schema, check_metadata=True)
    assert replace(parsed, schema=document.schema) == document


@settings(deadline=None)
@given(MANIFESTS)
def test_bodies_are_parsed_back(document: Manifest) -> None:
    """A manifest body, with any parts in it, is parsed back to the same manifest."""
    body = manifest.dump_body(document)
    parsed = manifest.parse_body(WRITE_ID, body)
    assert_same(parsed, document)
    assert manifest.dump_body(parsed) == body


@settings(deadline=None)
@given(MANIFESTS)
def test_plain_envelopes_are_parsed_back(document: Manifest) -> None:
    """What is stored of a plain dataset is JSON that gives back the same manifest."""
    envelope = manifest.plain_envelope(document, manifest.dump_body(document))
    parsed = manifest.parse_envelope(manifest.dump_envelope(envelope))
    assert (parsed.write_id, parsed.sealed, parsed.wrapped) == (WRITE_ID, None, ())
    assert (parsed.writes, parsed.retired) == (document.writes, document.retired)
    assert parsed.body is not None
    assert_same(manifest.parse_body(WRITE_ID, parsed.body), document)


@given(sealed=st.binary(), keys=st.lists(st.dictionaries(TEXT, TEXT | st.integers(), max_size=3)))
def test_sealed_envelopes_are_parsed_back(sealed: bytes, keys: list[dict[str, Any]]) -> None:
    """What is stored of an encrypted dataset gives back sealed body and wrapped keys."""
    envelope = Envelope(
        write_id=WRITE_ID,
        writes=(OTHER_ID, WRITE_ID),
        retired={WriteId("a" * 16): datetime(2024, 2, 29, 12, tzinfo=UTC)},
        keyed_by=OTHER_ID,
        wrapped=tuple(keys),
        sealed=sealed,
    )
    assert manifest.parse_envelope(manifest.dump_envelope(envelope)) == envelope


@settings(deadline=None)
@given(st.lists(PARTS, max_size=20))
def test_part_tables_are_parsed_back(parts: list[PartRecord]) -> None:
    """A part table gives back every record, in order, null hive values too."""
    data = manifest.dump_parts(parts)
    assert manifest.parse_parts(data) == tuple(parts)
    assert manifest.parse_parts(data.to_pybytes()) == tuple(parts)


def test_tokens_of_the_store_are_not_stored() -> None:
    """What a store needed to publish a part is not in the manifest."""
    part = PartRecord(
        path="p",
        partition=0,
        values=(),
        rows=1,
        size_bytes=1,
        plain_bytes=1,
        sha256="0" * 64,
        staged="upload-id",
    )
    assert b"upload-id" not in manifest.dump_body(a_manifest(parts=(part,)))
    assert manifest.parse_parts(manifest.dump_parts([part]))[0].staged == ""


@pytest.mark.parametrize(("seconds", "kept"), [(0, ""), (60, "ac"), (61, "abc"), (9**9, "abc")])
def test_what_is_retained(seconds: float, kept: str) -> None:
    """What was replaced long enough ago goes; with 0 seconds all does, whatever the clocks say."""
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    ages = {"a": 0, "b": 60, "c": -10}
    retired = {WriteId(name): moment - timedelta(seconds=age) for name, age in ages.items()}
    assert "".join(manifest.retained(retired, moment, seconds)) == kept


def test_totals_are_sums() -> None:
    """Totals count rows, stored bytes and parts."""
    record = {"values": (), "plain_bytes": 1, "sha256": "", "path": ""}
    parts = [PartRecord(partition=n, rows=n, size_bytes=10, **record) for n in range(4)]
    assert manifest.totals(parts) == {"rows": 6, "bytes": 40, "parts": 4}
    assert manifest.totals([]) == {"rows": 0, "bytes": 0, "parts": 0}


@settings(deadline=None, max_examples=300)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_not_a_manifest(data: bytes) -> None:
    """Bytes of any kind are refused by an error of ours, as envelope, body and part table."""
    for parse in (
        manifest.parse_envelope,
        lambda found: manifest.parse_body(WRITE_ID, found),
        manifest.parse_parts,
    ):
        with pytest.raises(DataReadError):
            parse(data)


ENVELOPES = {
    "plain": manifest.dump_envelope(
        manifest.plain_envelope(a_manifest(), manifest.dump_body(a_manifest()))
    ),
    "sealed": manifest.dump_envelope(
        Envelope(
            write_id=WRITE_ID,
            writes=(WRITE_ID,),
            keyed_by=WRITE_ID,
            wrapped=({"method": "raw"},),
            sealed=b"abc",
        )
    ),
}


FIELDS = (
    "kind",
    "version",
    "write_id",
    "writes",
    "retired",
    "encryption",
    "keyed_by",
    "keys",
    "sealed",
    "parts",
    "created",
)
FIELDS += ("format", "schema", "frame", "partition_on", "totals", "producer", "part_table")


@pytest.mark.parametrize("name", ["plain", "table"])
@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(field=st.sampled_from(FIELDS), value=JSON)
@example(field="write_id", value=None)
@example(field="write_id", value="../../x")
@example(field="totals", value=None)
@example(field="frame", value=None)
@example(field="frame", value={"columns": [], "index": [], "axis": {}})
@example(field="parts", value=[{"path": "x"}])
@example(field="retired", value={"../../x": "2024-02-29T12:00:00+00:00"})
@example(field="retired", value={"a" * 16: "2024-02-29T12:00:00"})
@example(field="keys", value="x")
@example(field="keys", value=[{"method": "hkdf-sha256"}])
@example(field="format", value={"name": "xlsx"})
def test_a_field_of_any_other_value(tmp_path: Path, name: str, field: str, value: Any) -> None:
    """Whatever stands in one field, opening the dataset works or fails with an error of ours."""
    document = json.loads((fixtures.ROOT / name / layout.MANIFEST).read_bytes())
    inside = document["encryption"] if field in ("keys", "sealed") and name == "table" else document
    inside[field] = value
    (tmp_path / layout.MANIFEST).write_text(json.dumps(document))
    try:
        loaded = read_dataset(tmp_path, encryption_key=fixtures.KEYS[name])
        assert isinstance(loaded, dd.DataFrame)
    except DataReadError as error:
        assert str(error)  # noqa: PT017 - a dataset or our error, both are right


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(sorted(ENVELOPES)),
    position=st.integers(0, 10**6),
    byte=st.integers(0, 255),
)
def test_a_damaged_byte(kind: str, position: int, byte: int) -> None:
    """One changed byte gives another manifest or an error of ours, and never another error."""
    data = bytearray(ENVELOPES[kind])
    data[position % len(data)] = byte
    try:
        envelope = manifest.parse_envelope(bytes(data))
        if envelope.sealed is None:
            parsed = manifest.parse_body(envelope.write_id, envelope.body or {})
            assert isinstance(parsed, Manifest)
    except DataReadError as error:
        assert str(error)  # noqa: PT017 - a manifest or our error, both are right


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_part_table(position: int, byte: int, cut: bool) -> None:
    """A part table with a changed byte or without its end gives records or an error of ours."""
    part = PartRecord(
        path="p",
        partition=0,
        values=(("k", None),),
        rows=1,
        size_bytes=1,
        plain_bytes=1,
        sha256="0" * 64,
    )
    data = bytearray(manifest.dump_parts([part] * 3).to_pybytes())
    position %= len(data)
    data[position] = byte
    try:
        parsed = manifest.parse_parts(bytes(data[:position] if cut else data))
        assert all(isinstance(one, PartRecord) for one in parsed)
    except DataReadError as error:
        assert str(error)  # noqa: PT017 - records or our error, both are right


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_another_version_says_so(version: Any) -> None:
    """A manifest of another version is told apart from a damaged one."""
    document = {**json.loads(ENVELOPES["plain"]), "version": version}
    with pytest.raises(UnsupportedVersionError, match="update pamola_dwriter"):
        manifest.parse_envelope(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"kind": "other"}'],
    ids=str,
)
def test_other_files_are_damaged_manifests(data: bytes) -> None:
    """Empty files, other JSON and deep nesting are no manifest."""
    with pytest.raises(IntegrityError):
        manifest.parse_envelope(data)


def test_the_checksum_is_of_the_stored_bytes() -> None:
    """The checksum names its algorithm and is what ``sha256sum`` prints."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert manifest.checksum(b"") == f"sha256:{empty}"


@pytest.fixture(params=sorted(fixtures.OPTIONS))
def stored(request: pytest.FixtureRequest) -> tuple[Path, Any]:
    """A dataset that an earlier release wrote, and its key."""
    return fixtures.ROOT / request.param, fixtures.KEYS[request.param]


def test_stored_datasets_still_open(stored: tuple[Path, Any]) -> None:
    """A dataset written by the first release opens, verifies, and holds what it held."""
    path, key = stored
    report = verify(path, encryption_key=key)
    assert (report.rows, report.encrypted) == (4, key is not None)
    loaded = read_dataset(path, encryption_key=key).compute().sort_values("row")
    assert_frame_equal(loaded, fixtures.expected(), check_exact=True)


@pytest.mark.parametrize("key", [fixtures.RAW_KEY, fixtures.PASSPHRASE], ids=["raw", "passphrase"])
def test_either_key_of_a_stored_dataset_opens_it(key: Any) -> None:
    """Each key of a list opens on its own what was written with the list."""
    loaded = read_dataset(fixtures.ROOT / "encrypted", encryption_key=key)
    assert sorted(loaded["row"].compute()) == [0, 1, 2, 3]


def test_stored_datasets_need_their_key(stored: tuple[Path, Any]) -> None:
    """Without the key, or with another, an encrypted dataset does not open; a plain one refuses."""
    path, key = stored
    with pytest.raises(IntegrityError if key is None else WrongKeyError):
        read_dataset(path, encryption_key=bytes(32))
    if key is not None:
        with pytest.raises(MissingKeyError):
            read_dataset(path)


def test_stored_encrypted_manifests_show_no_data(stored: tuple[Path, Any]) -> None:
    """The manifest of an encrypted dataset shows how to open it, and no column, value or path."""
    path, key = stored
    document = json.loads((path / layout.MANIFEST).read_bytes())
    shown = {"encryption", "kind", "version", "write_id"}
    assert (set(document) == shown) is (key is not None)
    if key is not None:
        files = [file.relative_to(path).as_posix() for file in path.rglob("*")]
        assert not [file for file in files if "country" in file or "FR" in file]


@pytest.mark.parametrize("field", ["writes", "retired"])
def test_what_a_sealed_manifest_shows_is_what_it_holds(tmp_path: Path, field: str) -> None:
    """Whoever adds a write to those that a manifest shows is found out with the key."""
    copy = tmp_path / "copy"
    shutil.copytree(fixtures.ROOT / "encrypted", copy)
    document = json.loads((copy / layout.MANIFEST).read_bytes())
    shown = {"writes": [OTHER_ID], "retired": {OTHER_ID: "2024-02-29T12:00:00+00:00"}}
    (copy / layout.MANIFEST).write_text(json.dumps({**document, field: shown[field]}))
    with pytest.raises(IntegrityError, match="names other writes"):
        read_dataset(copy, encryption_key=fixtures.RAW_KEY)


def test_a_sealed_manifest_is_bound_to_its_write(tmp_path: Path) -> None:
    """A sealed body that is altered, or moved under another write id, does not open."""
    source = fixtures.ROOT / "encrypted"
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    document = json.loads((source / layout.MANIFEST).read_bytes())
    sealed = bytearray(base64.b64decode(document["encryption"]["sealed"]))
    sealed[-1] ^= 1
    encryption = {**document["encryption"], "sealed": base64.b64encode(sealed).decode()}
    for changed in ({"encryption": encryption}, {"write_id": "f" * 16}):
        (copy / layout.MANIFEST).write_text(json.dumps({**document, **changed}))
        with pytest.raises((IntegrityError, WrongKeyError)):
            read_dataset(copy, encryption_key=fixtures.RAW_KEY)
