"""Every way to alter stored files x every way to read them: an error that names the part.

What the error says, its causes and the log show nothing of the data. What cannot be detected is
shown to be just that.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pytest

from pamola_dwriter import (
    DataWriter,
    RawKey,
    decrypt,
    open_artifact,
    read_dataset,
    rotate_keys,
    verify,
)
from pamola_dwriter.envelope import SMALL_SEGMENT as SEGMENT
from pamola_dwriter.envelope import encode_header, read_header
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    UnsupportedVersionError,
    WrongKeyError,
)
from tests.places import Place

KEY = bytes(range(32))
ROWS = 6_000
MARKER = "confidential-"
SALT = "A" * 22 + "=="

Alter = Callable[[bytes, "Lake"], bytes]


class Lake:
    """A sealed dataset of parts of three segments, and others under the same key beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = self._write("people", 0)
        self.old = {file.name: file.read_bytes() for file in self.path.iterdir()}
        self._write("people", 1)
        self.frame = self._frame(1)
        self.other = self._write("others", 1)
        self.files = {file.name: file.read_bytes() for file in self.path.iterdir()}
        self.parts = sorted(name for name in self.files if name.startswith("part-"))
        self.strangers = sorted(self.other.glob("part-*"))

    @staticmethod
    def _frame(seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        columns = {name: rng.random(ROWS * 3) for name in "abc"}
        names = [f"{MARKER}{number}" for number in range(ROWS * 3)]
        return pd.DataFrame({"x": range(ROWS * 3), **columns, "name": names})

    def _write(self, name: str, seed: int) -> Path:
        ddf = dd.from_pandas(self._frame(seed), npartitions=3, sort=True)
        writer = DataWriter(self.folder)
        options = {"encryption_key": KEY, "overwrite": True, "write_index": False}
        return Path(writer.write_dataframe(ddf, name, "parquet", **options).path)

    @property
    def part(self) -> Path:
        return self.path / self.parts[1]

    @property
    def prefix(self) -> int:
        stored = self.files[self.parts[1]]
        return len(read_header(lambda a, b: stored[a:b]).prefix)

    def restore(self) -> None:
        """Put everything back that a test altered."""
        for file in self.path.iterdir():
            if file.name not in self.files:
                file.unlink()
        for name, data in self.files.items():
            if not (self.path / name).exists() or (self.path / name).read_bytes() != data:
                (self.path / name).write_bytes(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def lake(made: Lake) -> Iterator[Lake]:
    yield made
    made.restore()


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def segments(data: bytes, lake: Lake, order: list[int]) -> bytes:
    """Return a part with its segments in another order."""
    start = lake.prefix
    pieces = [data[at : at + SEGMENT] for at in range(start, len(data), SEGMENT)]
    assert len(pieces) >= 3
    return data[:start] + b"".join(pieces[number] for number in order)


def with_header(data: bytes, **fields: Any) -> bytes:
    """Return sealed bytes with a well-formed header of other fields."""
    header = read_header(lambda a, b: data[a:b])
    return encode_header(header.fields | fields) + data[len(header.prefix) :]


def without_segment(data: bytes) -> bytes:
    """Return sealed bytes with a well-formed header that names no size of segments."""
    header = read_header(lambda a, b: data[a:b])
    fields = {name: value for name, value in header.fields.items() if name != "segment"}
    assert len(fields) == len(header.fields) - 1
    return encode_header(fields) + data[len(header.prefix) :]


ALTERATIONS: dict[str, Alter] = {
    "magic": lambda data, lake: flipped(data, 0),
    "version": lambda data, lake: data[:3] + b"2" + data[4:],
    "header length": lambda data, lake: flipped(data, 7),
    "huge header length": lambda data, lake: data[:4] + b"\xff" * 4 + data[8:],
    "header text": lambda data, lake: flipped(data, lake.prefix - 3),
    "header path": lambda data, lake: with_header(data, path=lake.parts[0]),
    "header write": lambda data, lake: with_header(data, write_id="0" * 16),
    "header partition": lambda data, lake: with_header(data, partition=0),
    "header more": lambda data, lake: with_header(data, more=1),
    "header segment doubled": lambda data, lake: with_header(data, segment=2 * SEGMENT),
    "header segment off by one": lambda data, lake: with_header(data, segment=SEGMENT + 1),
    "header segment of all": lambda data, lake: with_header(data, segment=1 << 26),
    "header segment too small": lambda data, lake: with_header(data, segment=1),
    "header segment a float": lambda data, lake: with_header(data, segment=float(SEGMENT)),
    "header segment null": lambda data, lake: with_header(data, segment=None),
    "header segment gone": lambda data, lake: without_segment(data),
    "stream header": lambda data, lake: flipped(data, lake.prefix),
    "salt": lambda data, lake: flipped(data, lake.prefix + 1),
    "nonce": lambda data, lake: flipped(data, lake.prefix + 39),
    "first segment": lambda data, lake: flipped(data, lake.prefix + 45),
    "middle segment": lambda data, lake: flipped(data, lake.prefix + SEGMENT + 9),
    "last segment": lambda data, lake: flipped(data, lake.prefix + 2 * SEGMENT + 9),
    "tag": lambda data, lake: flipped(data, len(data) - 1),
    "cut to nothing": lambda data, lake: b"",
    "cut in the magic": lambda data, lake: data[:3],
    "cut before the header": lambda data, lake: data[:8],
    "cut before the stream": lambda data, lake: data[: lake.prefix],
    "cut before the segments": lambda data, lake: data[: lake.prefix + 40],
    "cut after a segment": lambda data, lake: data[: lake.prefix + SEGMENT],
    "cut after two segments": lambda data, lake: data[: lake.prefix + 2 * SEGMENT],
    "cut before the tag": lambda data, lake: data[:-16],
    "cut by a byte": lambda data, lake: data[:-1],
    "a byte more": lambda data, lake: data + b"\0",
    "a segment more": lambda data, lake: data + bytes(SEGMENT),
    "segments swapped": lambda data, lake: segments(data, lake, [1, 0, 2]),
    "a segment twice": lambda data, lake: segments(data, lake, [0, 1, 1, 2]),
    "a segment for another": lambda data, lake: segments(data, lake, [0, 0, 2]),
    "another part": lambda data, lake: lake.files[lake.parts[2]],
    "a part of another dataset": lambda data, lake: lake.strangers[1].read_bytes(),
    "a part of another version": lambda data, lake: lake.old[sorted(lake.old)[2]],
}

SPOKEN = (IntegrityError, UnsupportedVersionError)


def assert_silent(error: BaseException | None, log: pytest.LogCaptureFixture) -> None:
    """Assert that neither an error, nor what it came from, nor the log shows the data."""
    while error is not None:
        assert MARKER not in f"{error} {error!r} {error.args} {vars(error)}"
        assert KEY.hex() not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert MARKER not in log.text


def read_all(path: Path) -> pd.DataFrame:
    return read_dataset(path, encryption_key=KEY).compute(scheduler="threads")


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_part_is_named(
    lake: Lake, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading, verifying and decrypting fail by an error that names the part, and no row comes."""
    original = lake.part.read_bytes()
    altered = ALTERATIONS[name](original, lake)
    assert altered != original
    lake.part.write_bytes(altered)
    actions: list[Callable[[], object]] = [
        lambda: read_all(lake.path),
        lambda: verify(lake.path, encryption_key=KEY),
        lambda: decrypt(lake.path, tmp_path / "plain", encryption_key=KEY),
    ]
    for action in actions:
        with caplog.at_level(logging.DEBUG), pytest.raises(SPOKEN, match=lake.part.name) as caught:
            action()
        assert_silent(caught.value, caplog)
    assert list(tmp_path.iterdir()) == []


def test_an_intact_dataset_is_read(lake: Lake) -> None:
    """What all these tests alter is in order before they do."""
    report = verify(lake.path, encryption_key=KEY)
    assert (report.parts, report.rows) == (3, 3 * ROWS)
    found = read_all(lake.path).sort_values("x")
    assert found["a"].tolist() == lake.frame["a"].tolist()


def test_two_parts_that_change_places_are_named(lake: Lake) -> None:
    """Both of two swapped parts are named by verify, and neither is read."""
    first, second = (lake.path / name for name in lake.parts[:2])
    first.write_bytes(lake.files[second.name])
    second.write_bytes(lake.files[first.name])
    with pytest.raises(IntegrityError, match=first.name) as caught:
        verify(lake.path, encryption_key=KEY)
    assert second.name in str(caught.value)
    with pytest.raises(IntegrityError, match="part-"):
        read_all(lake.path)


def test_a_missing_part_is_named(lake: Lake, tmp_path: Path) -> None:
    """A part that was deleted is missing, whoever reads."""
    lake.part.unlink()
    for action in (
        lambda: read_all(lake.path),
        lambda: verify(lake.path, encryption_key=KEY),
        lambda: decrypt(lake.path, tmp_path / "plain", encryption_key=KEY),
    ):
        with pytest.raises(IntegrityError, match=rf"{lake.part.name} is missing"):
            action()


def test_an_unlisted_file_is_never_opened(lake: Lake) -> None:
    """An added part changes no row that is read; verify names it."""
    added = lake.part.with_name(lake.part.name.replace("part-00001", "part-00007"))
    added.write_bytes(lake.part.read_bytes())
    assert len(read_all(lake.path)) == 3 * ROWS
    with pytest.raises(IntegrityError, match=f"{added.name} is not listed"):
        verify(lake.path, encryption_key=KEY)


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a dataset as anybody can who writes to the store."""
    file = path / "_manifest.json"
    document = json.loads(file.read_bytes())
    change(document)
    file.write_text(json.dumps(document))


def _resealed(lake: Lake) -> str:
    document = json.loads((lake.other / "_manifest.json").read_bytes())
    return str(document["encryption"]["sealed"])


def _cut_seal(document: dict[str, Any]) -> None:
    sealed = base64.b64decode(document["encryption"]["sealed"])
    document["encryption"]["sealed"] = base64.b64encode(sealed[:-1]).decode()


SEALED_EDITS: dict[str, Callable[[dict[str, Any], Lake], object]] = {
    "kind": lambda d, lake: d.update(kind="other"),
    "version up": lambda d, lake: d.update(version=2),
    "version true": lambda d, lake: d.update(version=True),
    "version text": lambda d, lake: d.update(version="1"),
    "version gone": lambda d, lake: d.pop("version"),
    "write_id": lambda d, lake: d.update(write_id="0" * 16),
    "write_id of the other": lambda d, lake: d.update(
        write_id=json.loads((lake.other / "_manifest.json").read_bytes())["write_id"]
    ),
    "writes more": lambda d, lake: d["writes"].append("0" * 16),
    "writes gone": lambda d, lake: d.update(writes=[]),
    "retired more": lambda d, lake: d["retired"].update({"0" * 16: "2024-02-29T00:00:00+00:00"}),
    "keyed_by": lambda d, lake: d["encryption"].update(keyed_by="0" * 16),
    "format": lambda d, lake: d["encryption"].update(format="PDW2"),
    "no keys": lambda d, lake: d["encryption"].update(keys=[]),
    "a key of the other": lambda d, lake: d["encryption"].update(
        keys=json.loads((lake.other / "_manifest.json").read_bytes())["encryption"]["keys"]
    ),
    "key method": lambda d, lake: d["encryption"]["keys"][0].update(method="argon2id"),
    "key id": lambda d, lake: d["encryption"]["keys"][0].update(key_id="raw:00"),
    "key salt": lambda d, lake: d["encryption"]["keys"][0]["parameters"].update(
        salt="A" * 22 + "=="
    ),
    "sealed cut": lambda d, lake: _cut_seal(d),
    "sealed of the other": lambda d, lake: d["encryption"].update(sealed=_resealed(lake)),
    "sealed gone": lambda d, lake: d["encryption"].pop("sealed"),
    "encryption of the other": lambda d, lake: d.update(
        encryption=json.loads((lake.other / "_manifest.json").read_bytes())["encryption"]
    ),
    "encryption null": lambda d, lake: d.update(encryption=None),
    "encryption gone": lambda d, lake: d.pop("encryption"),
}


@pytest.mark.parametrize("name", SEALED_EDITS)
def test_an_edited_manifest_of_a_sealed_dataset(
    lake: Lake, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever field is edited, the dataset does not open, and no plain copy is begun."""
    edit_manifest(lake.path, lambda document: SEALED_EDITS[name](document, lake))
    for action in (
        lambda: read_dataset(lake.path, encryption_key=KEY),
        lambda: verify(lake.path, encryption_key=KEY),
        lambda: decrypt(lake.path, tmp_path / "plain", encryption_key=KEY),
    ):
        with pytest.raises((IntegrityError, UnsupportedVersionError, WrongKeyError)) as caught:
            action()
        assert_silent(caught.value, caplog)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["parts", "totals", "note", "schema"])
def test_a_field_beside_the_sealed_ones_means_nothing(lake: Lake, field: str) -> None:
    """What is added to the readable part of a sealed manifest changes nothing that is read."""
    edit_manifest(lake.path, lambda document: document.update({field: []}))
    assert verify(lake.path, encryption_key=KEY).rows == 3 * ROWS


def test_the_manifest_of_another_dataset_opens_nothing(lake: Lake) -> None:
    """A whole manifest that was valid elsewhere names parts that are not here."""
    (lake.path / "_manifest.json").write_bytes((lake.other / "_manifest.json").read_bytes())
    with pytest.raises(IntegrityError, match=lake.strangers[0].name):
        verify(lake.path, encryption_key=KEY)
    with pytest.raises(IntegrityError, match="part-"):
        read_all(lake.path)


def test_an_old_manifest_alone_names_parts_that_are_gone(lake: Lake) -> None:
    """The manifest of an older version without its parts is found out."""
    (lake.path / "_manifest.json").write_bytes(lake.old["_manifest.json"])
    with pytest.raises(IntegrityError, match="missing"):
        verify(lake.path, encryption_key=KEY)
    with pytest.raises(IntegrityError, match="missing"):
        read_all(lake.path)


def test_a_whole_old_version_is_that_version_and_no_more(lake: Lake) -> None:
    """Manifest and parts put back together open as just the old version; its checksum tells."""
    now = verify(lake.path, encryption_key=KEY).checksum
    for name in lake.files:
        (lake.path / name).unlink()
    for name, data in lake.old.items():
        (lake.path / name).write_bytes(data)
    assert verify(lake.path, encryption_key=KEY).checksum != now
    found = read_all(lake.path).sort_values("x")
    assert found["a"].tolist() == Lake._frame(0)["a"].tolist()


def test_a_wrong_key_and_a_damaged_one_read_alike(lake: Lake) -> None:
    """Another raw key, a passphrase, a damaged ciphertext and another write: the same error."""
    spoken = set()

    def failing(key: Any) -> None:
        with pytest.raises(DataReadError) as caught:
            read_dataset(lake.path, encryption_key=key)
        spoken.add((type(caught.value), str(caught.value)))
        assert caught.value.__cause__ is None

    failing(bytes(32))
    failing("not the passphrase")
    failing([bytes(32), "not the passphrase"])
    for edit in ("key id", "a key of the other", "keyed_by"):
        edit_manifest(lake.path, lambda document, e=edit: SEALED_EDITS[e](document, lake))
        failing(KEY)
        lake.restore()

    def damage(document: dict[str, Any]) -> None:
        parameters = document["encryption"]["keys"][0]["parameters"]
        damaged = flipped(base64.b64decode(parameters["ciphertext"]), 5)
        parameters["ciphertext"] = base64.b64encode(damaged).decode()

    edit_manifest(lake.path, damage)
    failing(KEY)
    assert spoken == {(WrongKeyError, "none of the given keys opens this")}


def test_a_revoked_key_opens_an_old_manifest_and_no_more(lake: Lake) -> None:
    """After rotation the old key opens nothing that stands; put back, the old manifest opens."""
    new = bytes(reversed(KEY))
    rotate_keys(lake.path, encryption_key=KEY, to=new, revoke=RawKey(KEY).key_id)
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
        read_dataset(lake.path, encryption_key=KEY)
    rotated = (lake.path / "_manifest.json").read_bytes()
    assert verify(lake.path, encryption_key=new).rows == 3 * ROWS
    (lake.path / "_manifest.json").write_bytes(lake.files["_manifest.json"])
    assert verify(lake.path, encryption_key=KEY).rows == 3 * ROWS
    with pytest.raises(WrongKeyError):
        read_dataset(lake.path, encryption_key=new)
    old_keys = json.loads(lake.files["_manifest.json"])["encryption"]["keys"]
    (lake.path / "_manifest.json").write_bytes(rotated)
    edit_manifest(lake.path, lambda document: document["encryption"]["keys"].extend(old_keys))
    # Not detected: the dataset key stays through a rotation, and so do old wraps of it.
    assert verify(lake.path, encryption_key=KEY).rows == 3 * ROWS


def test_an_old_manifest_of_an_appended_dataset(tmp_path: Path) -> None:
    """Put back, the manifest of before an append is the dataset of then; verify names the rest."""
    frame = pd.DataFrame({"x": range(10)})
    options = {"encryption_key": KEY, "append": True, "single_file": False}
    first = Path(DataWriter(tmp_path).write_dataframe(frame, "x", "parquet", **options).path)
    before = (first / "_manifest.json").read_bytes()
    DataWriter(tmp_path).write_dataframe(frame, "x", "parquet", **options)
    assert len(read_all(first)) == 20
    (first / "_manifest.json").write_bytes(before)
    assert read_all(first)["x"].tolist() == list(range(10))
    with pytest.raises(IntegrityError, match="is not listed"):
        verify(first, encryption_key=KEY)


@pytest.fixture
def tabled(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """A sealed dataset whose parts a file lists, that file, and the one of the version before."""
    rows = dd.from_pandas(pd.DataFrame({"x": range(20)}), npartitions=4)

    def write() -> tuple[Path, Path]:
        result = DataWriter(tmp_path).write_dataframe(
            rows, "wide", "parquet", encryption_key=KEY, overwrite=True
        )
        (table,) = Path(result.path).glob("_parts-*")
        return Path(result.path), table

    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        old = write()[1].read_bytes()
        return *write(), old


@pytest.mark.parametrize("how", ["flip", "cut", "more", "old", "gone", "empty", "part"])
def test_an_altered_part_table_is_named(tabled: tuple[Path, Path, bytes], how: str) -> None:
    """A part table that was edited, cut, extended, replaced or removed is named."""
    path, table, old = tabled
    data = table.read_bytes()
    if how == "gone":
        table.unlink()
    else:
        changed = {
            "flip": flipped(data, len(data) // 2),
            "cut": data[:-1],
            "more": data + b"\0",
            "old": old,
            "empty": b"",
            "part": next(path.glob("part-*")).read_bytes(),
        }
        table.write_bytes(changed[how])
    for action in (read_dataset, verify):
        with pytest.raises(IntegrityError, match=table.name):
            action(path, encryption_key=KEY)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = pd.DataFrame({"x": range(4000), "name": [f"{MARKER}{n}" for n in range(4000)]})
    ddf = dd.from_pandas(frame, npartitions=4)
    folder = tmp_path_factory.mktemp("plain")
    return Path(DataWriter(folder).write_dataframe(ddf, "people", "parquet").path)


PLAIN_ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda data: flipped(data, len(data) // 2),
    "the first byte": lambda data: flipped(data, 0),
    "the last byte": lambda data: flipped(data, len(data) - 1),
    "cut": lambda data: data[:-1],
    "cut to nothing": lambda data: b"",
    "more": lambda data: data + b"\0",
}


@pytest.mark.parametrize("name", PLAIN_ALTERATIONS)
def test_verify_finds_damage_to_plain_parts(plain: Path, tmp_path: Path, name: str) -> None:
    """The checksum of a plain part tells any change of its bytes; verify names the part."""
    path = Path(shutil.copytree(plain, tmp_path / "people"))
    part = sorted(path.glob("part-*"))[1]
    part.write_bytes(PLAIN_ALTERATIONS[name](part.read_bytes()))
    with pytest.raises(IntegrityError, match=part.name):
        verify(path)


def _first(document: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = document["parts"][0]
    return part


PLAIN_EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "kind": lambda d: d.update(kind="x"),
    "version": lambda d: d.update(version=0),
    "write_id": lambda d: d.update(write_id="x"),
    "writes": lambda d: d.update(writes=["x"]),
    "retired": lambda d: d.update(retired={"0" * 16: "yesterday"}),
    "encryption": lambda d: d.update(encryption={}),
    "a part dropped": lambda d: d["parts"].pop(),
    "a part twice": lambda d: d["parts"].append(_first(d)),
    "a part more": lambda d: d["parts"].append(_first(d) | {"path": "part-x.parquet"}),
    "totals": lambda d: d["totals"].update(rows=1),
    "sha256": lambda d: _first(d).update(sha256="0" * 64),
    "size": lambda d: _first(d).update(size_bytes=_first(d)["size_bytes"] + 1),
    "rows": lambda d: _first(d).update(rows=_first(d)["rows"] + 1),
    "rows of text": lambda d: _first(d).update(rows="many"),
    "a negative count": lambda d: _first(d).update(rows=-1),
    "a path outside": lambda d: _first(d).update(path="../../etc/passwd"),
    "an absolute path": lambda d: _first(d).update(path="/etc/passwd"),
    "a table outside": lambda d: d.update(
        part_table={"path": "../x", "sha256": "0" * 64, "size_bytes": 1}
    ),
    "schema": lambda d: d.update(schema="AAAA"),
    "frame": lambda d: d["frame"].pop("columns"),
    "a dtype": lambda d: d["frame"]["columns"][0].update(dtype={"kind": "pandas", "dtype": "no"}),
    "a dtype of text": lambda d: d["frame"]["columns"][0].update(dtype="kind"),
    "format": lambda d: d["format"].update(name=[]),
    "created": lambda d: d.update(created="yesterday"),
}


@pytest.mark.parametrize("name", PLAIN_EDITS)
def test_an_inconsistent_manifest_of_a_plain_dataset(
    plain: Path, tmp_path: Path, name: str
) -> None:
    """What does not fit together in a plain manifest is an error of ours, before any row."""
    path = Path(shutil.copytree(plain, tmp_path / "people"))
    edit_manifest(path, PLAIN_EDITS[name])

    def check() -> None:
        verify(path)
        read_dataset(path).compute()

    with pytest.raises(DataReadError) as caught:
        check()
    assert caught.value.__cause__ is None


def test_rows_of_a_plain_part_are_counted(plain: Path, tmp_path: Path) -> None:
    """A manifest that counts other rows, and adds them up right, is found when it is read."""
    path = Path(shutil.copytree(plain, tmp_path / "people"))

    def more(document: dict[str, Any]) -> None:
        _first(document)["rows"] += 1
        document["totals"]["rows"] += 1

    edit_manifest(path, more)
    with pytest.raises(IntegrityError, match="rows"):
        read_dataset(path).compute()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.random(350_000), "name": MARKER})
    folder = tmp_path_factory.mktemp("single")
    result = DataWriter(folder).write_dataframe(frame, "one", "parquet", encryption_key=KEY)
    return Path(result.path)


def swapped(data: bytes) -> bytes:
    start = len(read_header(lambda a, b: data[a:b]).prefix)
    one, two = data[start : start + SEGMENT], data[start + SEGMENT : start + 2 * SEGMENT]
    return data[:start] + two + one + data[start + 2 * SEGMENT :]


FILE_ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "header length": lambda data: flipped(data, 7),
    "header text": lambda data: flipped(data, 30),
    "header path": lambda data: with_header(data, path="other.parquet.pdw"),
    "header write": lambda data: with_header(data, write_id="0" * 16),
    "header keyed_by": lambda data: with_header(data, keyed_by="0" * 16),
    "header keys": lambda data: with_header(data, keys=[]),
    "header kind": lambda data: with_header(data, kind="part"),
    "header segment doubled": lambda data: with_header(data, segment=2 * SEGMENT),
    "header segment off by one": lambda data: with_header(data, segment=SEGMENT + 1),
    "header segment of all": lambda data: with_header(data, segment=1 << 26),
    "header segment too small": lambda data: with_header(data, segment=1),
    "header segment a float": lambda data: with_header(data, segment=float(SEGMENT)),
    "header segment null": lambda data: with_header(data, segment=None),
    "header segment gone": without_segment,
    "first segment": lambda data: flipped(data, len(data) // 9),
    "last byte": lambda data: flipped(data, len(data) - 1),
    "cut": lambda data: data[:-1],
    "cut to the magic": lambda data: data[:4],
    "cut after a segment": lambda data: data[: -((len(data) - 600) % SEGMENT)],
    "more": lambda data: data + b"\0",
    "a segment more": lambda data: data + bytes(SEGMENT),
    "segments swapped": swapped,
    "not sealed at all": lambda data: b"PAR1" + data[4:],
}


@pytest.mark.parametrize("name", FILE_ALTERATIONS)
def test_an_altered_single_file(
    single: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An altered single file is not opened, verified nor decrypted."""
    file = tmp_path / single.name
    file.write_bytes(FILE_ALTERATIONS[name](single.read_bytes()))

    def read() -> bytes:
        with open_artifact(file, encryption_key=KEY) as opened:
            return opened.read()

    for action in (
        read,
        lambda: verify(file, encryption_key=KEY),
        lambda: decrypt(file, tmp_path / "plain", encryption_key=KEY),
    ):
        with pytest.raises((DataReadError, WrongKeyError)) as caught:
            action()
        assert_silent(caught.value, caplog)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("parts", [1, 2])
def test_an_added_segment_size_is_found(tmp_path: Path, parts: int) -> None:
    """A file of rows, whose header names no size, opens under no header that names the usual."""
    frame = dd.from_pandas(pd.DataFrame({"x": range(10)}), npartitions=parts)
    options = {"encryption_key": KEY, "single_file": parts == 1}
    path = Path(DataWriter(tmp_path).write_dataframe(frame, "x", "csv", **options).path)
    file = path if path.is_file() else next(path.glob("part-*"))
    verify(path, encryption_key=KEY)
    file.write_bytes(with_header(file.read_bytes(), segment=1 << 20))
    with pytest.raises(IntegrityError):
        verify(path, encryption_key=KEY)
    if path.is_dir():
        with pytest.raises(IntegrityError, match=file.name):
            read_all(path)


STORED: dict[str, Callable[[dict[str, bytes], str, str], object]] = {
    "flip": lambda files, one, two: files.update({one: flipped(files[one], 200)}),
    "cut": lambda files, one, two: files.update({one: files[one][:-1]}),
    "more": lambda files, one, two: files.update({one: files[one] + b"\0"}),
    "swap": lambda files, one, two: files.update({one: files[two], two: files[one]}),
    "gone": lambda files, one, two: files.pop(one),
    "empty": lambda files, one, two: files.update({one: b""}),
}


@pytest.mark.parametrize("how", STORED)
def test_altered_parts_on_s3(s3_place: Place, how: str) -> None:
    """On S3 too an altered, swapped or missing part is named by reading and by verify."""
    ddf = dd.from_pandas(pd.DataFrame({"x": range(400)}), npartitions=3)
    result = s3_place.writer().write_dataframe(ddf, "people", "parquet", encryption_key=KEY)
    file_system, root = fsspec.core.url_to_fs(str(result.path), **s3_place.options)
    names = sorted(name for name in file_system.find(root) if "part-" in name)
    before = {name: file_system.cat_file(name) for name in names}
    after = dict(before)
    STORED[how](after, names[0], names[1])
    for name, data in before.items():
        if name not in after:
            file_system.rm_file(name)
        elif after[name] != data:
            file_system.pipe_file(name, after[name])
    options = {"encryption_key": KEY, "storage_options": s3_place.options}
    for action in (
        lambda: read_dataset(result.path, **options).compute(scheduler="threads"),
        lambda: verify(result.path, **options),
    ):
        with pytest.raises(IntegrityError, match=r"part-0000[01]"):
            action()


@pytest.mark.parametrize("how", ["empty", "more", "flip"])
def test_an_altered_part_table_on_s3(s3_place: Place, how: str) -> None:
    """On S3 too a part table that was emptied, extended or edited is named."""
    ddf = dd.from_pandas(pd.DataFrame({"x": range(40)}), npartitions=3)
    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        result = s3_place.writer().write_dataframe(ddf, "wide", "parquet", encryption_key=KEY)
    file_system, root = fsspec.core.url_to_fs(str(result.path), **s3_place.options)
    (table,) = (name for name in file_system.find(root) if "_parts-" in name)
    data = file_system.cat_file(table)
    file_system.pipe_file(
        table, {"empty": b"", "more": data + b"x", "flip": flipped(data, 99)}[how]
    )
    for action in (read_dataset, verify):
        with pytest.raises(IntegrityError, match="_parts-"):
            action(result.path, encryption_key=KEY, storage_options=s3_place.options)
