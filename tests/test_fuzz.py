"""Whatever bytes stand in a stored file, only errors of this package come out, within bounds.

The number of examples is fixed and the same each time; ``PAMOLA_FUZZ=20`` tries twenty times as
many, drawn anew.
"""

from __future__ import annotations

import base64
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pamola_dwriter import layout, manifest, untrusted
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.envelope import SealedReader, open_sealed, read_header, seal
from pamola_dwriter.errors import PamolaWriterError
from pamola_dwriter.keys import (
    AgeIdentity,
    AwsKmsKey,
    Cost,
    Passphrase,
    RawKey,
    VaultKey,
    unwrap_any,
    wrapped_from_json,
    wrapped_to_json,
)
from pamola_dwriter.lease import Entry
from pamola_dwriter.manifest.parts import PART_SCHEMA, part_to_json
from pamola_dwriter.records import _parse as parse_record
from pamola_dwriter.sealing import parse_file_header
from pamola_dwriter.spec import WriteId
from tests.vectors import make_vectors as made

WRITE_ID = made.WRITE_ID
KEY = made.KEY
TIMES = int(os.environ.get("PAMOLA_FUZZ", "0"))
FEW, MANY = 60 * max(TIMES, 1), 150 * max(TIMES, 1)
MIB = 2**20


def fuzz(examples: int) -> Any:
    """Return the settings of one test."""
    return settings(
        max_examples=examples,
        derandomize=TIMES == 0,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


PLAIN, SEALED, TABLED = (
    json.loads(entry["stored"])
    for entry in json.loads((made.DIRECTORY / "manifests_v1.json").read_text("utf-8"))
)
TABLE = (made.DIRECTORY / "part_table_v1.parquet").read_bytes()
BODY = manifest.dump_body(made._manifest(in_table=False))
STORED = seal(b"some plaintext", KEY, {"kind": "part", "path": "p", "write_id": WRITE_ID})
LEASE = {
    "kind": "pamola_dwriter.write",
    "write_id": WRITE_ID,
    "path": "output/people",
    "state": "live",
    "fingerprint": {"data": "abc"},
    "keyed_by": WRITE_ID,
    "keys": [wrapped_to_json(made._wrap({"raw": made.RAW.hex()}))],
    "beat": "0badcafe",
}
RECORD_PATH = f"_staging/{WRITE_ID}/record-00003-0badcafe.json"
RECORD = {
    "partition": 3,
    "parts": [
        {
            "path": "part-00003.parquet",
            "partition": 3,
            "values": [["country", None]],
            "rows": 1,
            "size_bytes": 2,
            "plain_bytes": 3,
            "sha256": "0" * 64,
            "staged": "token",
        }
    ],
    "resolved": base64.b64encode(pa.schema([("x", pa.int64())]).serialize()).decode(),
}
FILE_HEADER = json.loads((made.DIRECTORY / "files_v1.json").read_text("utf-8"))[0]["header"]

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "..", "../../etc/passwd", "/etc/passwd", "a/../b", "\0", "\ud800", "A" * 5000, "é\u0301"]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**63, -(2**63), 10**400, 10**4299, -1, True, 1e308, float("inf")])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def places(document: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value in a document."""
    below: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        below = list(document.items())
    elif isinstance(document, list):
        below = list(enumerate(document))
    return [here, *(way for name, value in below for way in places(value, (*here, name)))]


@st.composite
def edited(draw: st.DrawFn, document: Any) -> Any:
    """Return a document with up to three values replaced, removed or added."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(places(changed)))
        value = draw(VALUES)
        if not way:
            if isinstance(changed, dict) and draw(st.booleans()):
                changed[draw(TEXT)] = value
            else:
                changed = value
            continue
        inside = changed
        for step in way[:-1]:
            inside = inside[step]
        if draw(st.integers(0, 4)) == 0:
            del inside[way[-1]]
        else:
            inside[way[-1]] = value
    return changed


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Return bytes of which some were flipped, cut, doubled or overwritten."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "double", "put", "drop"]))
        if kind == "flip" and changed:
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del changed[at:]
        elif kind == "double":
            changed[at:at] = changed[at : at + draw(st.integers(1, 64))]
        elif kind == "put":
            changed[at : at + 8] = draw(st.binary(max_size=8))
        elif kind == "drop":
            del changed[at : at + draw(st.integers(1, 64))]
    return bytes(changed)


def spelled(document: Any) -> bytes:
    """Return JSON, lone surrogates and NaN as escapes and names."""
    return json.dumps(document).encode()


HOSTILE = {
    "nothing": b"",
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge number": b'{"kind":' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"kind":"\xff\xfe"}',
    "UTF-16": '{"kind":"x"}'.encode("utf-16"),
    "a mark before": b"\xef\xbb\xbf{}",
    "half a pair": spelled(PLAIN | {"parts": [PLAIN["parts"][0] | {"path": "\ud800"}]}),
    "not a number": spelled(PLAIN | {"totals": {"rows": float("nan"), "bytes": 0, "parts": 0}}),
    "a name twice": spelled(PLAIN).replace(b'"version"', b'"kind": "x", "version"', 1),
    "long list": b"[" + b"0," * 500_000 + b"0]",
    "nul bytes": bytes(MIB),
    "huge base64": spelled(SEALED | {"encryption": {"sealed": "A" * 4 * MIB, "keys": []}}),
    "many wraps": spelled(
        SEALED | {"encryption": SEALED["encryption"] | {"keys": SEALED["encryption"]["keys"] * 999}}
    ),
}


def open_manifest(data: bytes) -> None:
    """Open a stored manifest as a reader does, under the key of the vectors."""
    shown = manifest.parse_envelope(data)
    if shown.sealed is None:
        manifest.parse_body(shown.write_id, shown.body or {})
        return
    wrapped = tuple(wrapped_from_json(one) for one in shown.wrapped)
    key = unwrap_any(PROVIDERS[:2], wrapped, manifest.key_context(shown.keyed_by))
    expect = manifest.sealed_header(shown.write_id, "manifest", layout.MANIFEST)
    manifest.parse_body(shown.write_id, open_sealed(shown.sealed, key, expect=expect))


def open_part(data: bytes) -> None:
    """Open sealed bytes by their ranges, as a reader does."""
    header = read_header(lambda start, end: data[start:end])
    reader = SealedReader(lambda start, end: data[start:end], len(data), KEY, header)
    reader.seek(5)
    reader.read(3)
    reader.readall()


def open_file(fields: Any) -> None:
    """Take the header of a single file apart and look for its key."""
    if isinstance(fields, dict):  # as read_header gives it
        held = parse_file_header(fields)
        unwrap_any(PROVIDERS[:2], held.wrapped, manifest.key_context(held.keyed_by))


PARSERS: dict[str, Callable[[bytes], Any]] = {
    "manifest": open_manifest,
    "body": lambda data: manifest.parse_body(WRITE_ID, data),
    "part table": manifest.parse_parts,
    "sealed": lambda data: open_sealed(data, KEY),
    "reader": open_part,
    "lease": lambda data: Entry.parse(WRITE_ID, data, "1"),
}

PROVIDERS: list[KeyProvider] = [
    RawKey(made.RAW),
    Passphrase("correct horse battery", cost=Cost(iterations=1, memory_kib=64, lanes=1)),
]


def only_ours(action: Callable[[], Any]) -> None:
    """Run something that may fail, with an error of this package that has a text and no cause."""
    try:
        action()
    except PamolaWriterError as error:
        assert str(error)  # noqa: PT017 - a result or our error, both are right
        assert error.__cause__ is None  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017


@pytest.mark.parametrize("name", PARSERS)
@fuzz(MANY)
@given(data=st.binary(max_size=300) | VALUES.map(spelled))
def test_arbitrary_bytes(name: str, data: bytes) -> None:
    """Bytes and JSON of any kind are parsed or refused by an error of ours."""
    only_ours(lambda: PARSERS[name](data))


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_documents(name: str, content: str) -> None:
    """Nesting, numbers, text and sizes that break parsers are refused by an error of ours."""
    with pytest.raises(PamolaWriterError) as caught:
        PARSERS[name](HOSTILE[content])
    assert len(str(caught.value)) < 1000


VALID = {
    "manifest": [spelled(PLAIN), spelled(SEALED), spelled(TABLED)],
    "body": [BODY],
    "part table": [TABLE],
    "sealed": [STORED.to_pybytes()],
    "reader": [STORED.to_pybytes()],
    "lease": [spelled(LEASE)],
}


@pytest.mark.parametrize("name", PARSERS)
@fuzz(MANY)
@given(data=st.data())
def test_mutated_files(name: str, data: st.DataObject) -> None:
    """A valid file with some bytes changed, cut or doubled is parsed or refused by our error."""
    for valid in VALID[name]:
        PARSERS[name](valid)
    only_ours(lambda: PARSERS[name](data.draw(mutated(data.draw(st.sampled_from(VALID[name]))))))


@pytest.mark.parametrize("document", [PLAIN, SEALED, TABLED], ids=["plain", "sealed", "table"])
@fuzz(MANY)
@given(data=st.data())
def test_edited_manifests(document: Any, data: st.DataObject) -> None:
    """A manifest with values of other types anywhere in it is parsed or refused by our error."""
    changed = data.draw(edited(document))
    only_ours(lambda: open_manifest(spelled(changed)))
    only_ours(lambda: manifest.parse_body(WRITE_ID, changed))


@fuzz(MANY)
@given(edited(json.loads(BODY)))
def test_edited_bodies(changed: Any) -> None:
    """What a holder of the key sealed is parsed into the types that are used, or refused."""

    def check() -> None:
        parsed = manifest.parse_body(WRITE_ID, spelled(changed))
        for part in parsed.parts:
            assert 0 <= part.rows < 2**63
            assert not {"", ".", ".."} & set(part.path.split("/"))
        manifest.totals(parsed.parts)
        assert hash((parsed.format.name, parsed.partition_on, parsed.writes)) is not None

    only_ours(check)


@fuzz(MANY)
@given(edited(LEASE))
def test_edited_leases(changed: Any) -> None:
    """A lease is an entry with the types it is used with, or refused."""

    def check() -> None:
        entry = Entry.parse(WRITE_ID, spelled(changed), "1")
        assert entry.state in ("live", "interrupted", "collected")
        assert not {"", ".", ".."} & set(entry.path.split("/"))
        entry.dump()

    only_ours(check)


@fuzz(MANY)
@given(edited(RECORD) | VALUES)
def test_edited_records(changed: Any) -> None:
    """A record of a staged partition is one, or is of the kinds that are passed over."""
    from_json = untrusted.parse_json(spelled(RECORD))
    assert parse_record(from_json, RECORD_PATH).partition == 3
    try:
        parse_record(untrusted.parse_json(spelled(changed)), RECORD_PATH)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return


@fuzz(MANY)
@given(edited(FILE_HEADER) | VALUES)
def test_edited_file_headers(changed: Any) -> None:
    """The header of a single file, edited in any way, gives a key or an error of ours."""
    only_ours(lambda: open_file(changed))


AGE = AgeIdentity("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX")
WRAPPED = {
    "raw": (PROVIDERS[0], made._wrap({"raw": made.RAW.hex()})),
    "passphrase": (PROVIDERS[1], PROVIDERS[1].wrap(KEY, b"context")),
    "age": (AGE, AGE.wrap(KEY, b"context")),
}


@pytest.mark.parametrize("method", WRAPPED)
@fuzz(FEW)
@given(data=st.data())
def test_edited_wraps(method: str, data: st.DataObject) -> None:
    """A wrapped key that was edited anywhere gives the key or an error of ours, and cheaply."""
    provider, wrapped = WRAPPED[method]
    changed = data.draw(edited(wrapped_to_json(wrapped)) | VALUES)
    costs = changed.get("parameters") if isinstance(changed, dict) else None
    if isinstance(costs, dict) and method == "passphrase":
        # Costs within the bounds are honoured: 16 rounds over 1 GiB take seconds.
        costs |= {name: 64 for name in ("memory_kib",) if costs.get(name) in range(65, 2**20 + 1)}
    only_ours(lambda: provider.unwrap(wrapped_from_json(changed), b"context"))


@pytest.mark.parametrize("uri", ["awskms:alias/x", "vault:x"])
@fuzz(FEW)
@given(data=st.data())
def test_edited_wraps_of_services(uri: str, data: st.DataObject) -> None:
    """A key service is not even asked about a wrapped key of another method or key."""
    provider: KeyProvider = (AwsKmsKey if uri.startswith("awskms") else VaultKey)(uri)
    template = wrapped_to_json(WRAPPED["raw"][1])
    changed = data.draw(edited(template) | VALUES)
    only_ours(lambda: provider.unwrap(wrapped_from_json(changed), b"context"))


@fuzz(MANY)
@given(TEXT | st.text("part-0123456789abcdef./_ =%\n", max_size=80))
def test_names(text: str) -> None:
    """A file name of any kind is taken apart or is not one of ours, without an error."""
    for parse in (
        layout.parse_record_path,
        layout.parse_staged,
        layout.parse_part_name,
        layout.parse_task_key,
        layout.parse_timestamped,
        layout.write_id_of,
        layout.is_passing,
        layout.is_staged,
        layout.is_lock,
        layout.plain_name,
    ):
        parse(text)


def peak(action: Callable[[], Any]) -> int:
    """Return how many bytes an action that fails takes at most, of Python's and of Arrow's."""
    tracemalloc.start()
    try:
        with pytest.raises(PamolaWriterError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "garbage",
    [bytes(64 * MIB), b"x" * 64 * MIB, b"[" * 64 * MIB, b'{"kind":"' + b"x" * 64 * MIB + b'"}'],
    ids=["zeros", "text", "brackets", "one string"],
)
def test_a_gigantic_manifest_costs_little_more_than_itself(garbage: bytes) -> None:
    """64 MiB of garbage are refused within seconds, in three times their memory and 8 MiB."""
    begun = time.monotonic()
    assert peak(lambda: manifest.parse_envelope(garbage)) <= 3 * len(garbage) + 8 * MIB
    assert time.monotonic() - begun < 10


def test_a_document_beyond_all_bounds_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than any manifest has are refused before they are parsed."""
    monkeypatch.setattr(untrusted, "MAX_JSON", 1000)
    with pytest.raises(PamolaWriterError, match="damaged"):
        manifest.parse_envelope(spelled(PLAIN))
    document = made._manifest(in_table=False)
    with pytest.raises(PamolaWriterError, match="inline-parts"):
        manifest.dump_envelope(manifest.plain_envelope(document, manifest.dump_body(document)))


def bomb(rows: int, **columns: Any) -> bytes:
    """Return a part table of many equal rows."""
    row = {**part_to_json(made.parts()[0]), **columns}
    piece = pa.Table.from_pylist([row], schema=PART_SCHEMA)
    table = pa.concat_tables([piece]).take(pa.array([0] * rows))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"path": "p" * 4000},
        {"values": ["country", "x" * 4000]},
        {"values": ["a", "b"] * 50},
    ],
    ids=["many rows", "long path", "long value", "many values"],
)
def test_a_part_table_that_expands_is_refused(columns: dict[str, Any]) -> None:
    """Some kilobytes of Parquet that stand for 100,000 equal rows are refused as they are."""
    data = bomb(100_000, **columns)
    assert len(data) < 100_000
    before = pa.total_allocated_bytes()
    assert peak(lambda: manifest.parse_parts(data)) < 3 * len(data) + 8 * MIB
    assert pa.total_allocated_bytes() - before < 8 * MIB


def test_a_real_part_table_is_far_from_the_bounds() -> None:
    """100,000 parts of a deep hive tree are parsed; ten times the text would be, too."""
    part = made.parts()[1]
    parts = [
        replace(
            part,
            partition=number,
            path=f"{part.path.rpartition('/')[0]}/part-{number:05d}-{WRITE_ID}-"
            f"{number * 2654435761 % 2**32:08x}-000.parquet.pdw",
            sha256=os.urandom(32).hex(),
        )
        for number in range(100_000)
    ]
    data = manifest.dump_parts(parts)
    assert manifest.parse_parts(data) == tuple(parts)
    text = sum(len(one.path) + 64 + 20 for one in parts)
    assert text * 5 < untrusted._MAX_EXPANSION * data.size
    assert WriteId(WRITE_ID) == layout.write_id_of(parts[-1].path)
