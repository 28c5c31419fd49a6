"""Whatever is done to stored files, reading and verifying say so and name the part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
import pytest

from pamola_dwriter import DataWriter, open_artifact, read_dataset, verify
from pamola_dwriter.errors import (
    IntegrityError,
    MissingKeyError,
    UnsupportedVersionError,
    WrongKeyError,
)

KEY = bytes(range(32))

Tamper = Callable[[list[Path]], object]


def flip(parts: list[Path]) -> None:
    data = bytearray(parts[1].read_bytes())
    data[len(data) // 2] ^= 4
    parts[1].write_bytes(data)


def cut(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-20])


def swap(parts: list[Path]) -> None:
    first, second = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(second)
    parts[2].write_bytes(first)


def drop(parts: list[Path]) -> None:
    parts[1].unlink()


def empty(parts: list[Path]) -> None:
    parts[1].write_bytes(b"")


TAMPERINGS = [flip, cut, swap, drop, empty]


def write(folder: Path, key: bytes | None) -> tuple[Path, list[Path]]:
    rows = pd.DataFrame({"x": range(4000), "name": [f"person {n}" for n in range(4000)]})
    ddf = dd.from_pandas(rows, npartitions=4)
    result = DataWriter(folder).write_dataframe(ddf, "people", "parquet", encryption_key=key)
    return Path(result.path), sorted(Path(result.path).glob("part-*"))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_verify_names_the_altered_part(tmp_path: Path, tamper: Tamper, key: bytes | None) -> None:
    """A flipped bit, a cut, a swap or a lost part is an IntegrityError naming it."""
    path, parts = write(tmp_path, key)
    assert verify(path, encryption_key=key).parts == 4
    tamper(parts)
    with pytest.raises(IntegrityError, match=parts[1].name):
        verify(path, encryption_key=key)


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_reading_a_sealed_part_that_was_altered_fails(tmp_path: Path, tamper: Tamper) -> None:
    """Computing a sealed dataset with an altered part raises, without any row of that part."""
    path, parts = write(tmp_path, KEY)
    tamper(parts)
    with pytest.raises(IntegrityError):
        read_dataset(path, encryption_key=KEY).compute()


def test_part_of_another_version_does_not_open(tmp_path: Path) -> None:
    """A part copied from another write of the same data under the same key is refused."""
    path, parts = write(tmp_path / "a", KEY)
    _, others = write(tmp_path / "b", KEY)
    parts[0].write_bytes(others[0].read_bytes())
    with pytest.raises(IntegrityError):
        read_dataset(path, encryption_key=KEY).compute()


@pytest.mark.parametrize("name", ["part-00009-added.parquet", "notes.txt"])
def test_added_file_is_reported(tmp_path: Path, name: str) -> None:
    """A file the manifest does not list fails verification by its name."""
    path, parts = write(tmp_path, KEY)
    (path / name).write_bytes(parts[0].read_bytes())
    with pytest.raises(IntegrityError, match=name):
        verify(path, encryption_key=KEY)


def test_edited_sealed_manifest_is_refused(tmp_path: Path) -> None:
    """The sealed body, and the write id it is bound to, cannot be changed."""
    path, _ = write(tmp_path, KEY)
    file = path / "_manifest.json"
    document = json.loads(file.read_bytes())
    sealed = document["encryption"]["sealed"]
    changed = "A" if sealed[900] != "A" else "B"
    document["encryption"]["sealed"] = sealed[:900] + changed + sealed[901:]
    file.write_text(json.dumps(document))
    with pytest.raises(IntegrityError):
        read_dataset(path, encryption_key=KEY)
    document["encryption"]["sealed"] = sealed
    file.write_text(json.dumps(document | {"write_id": "0" * 16}))
    with pytest.raises((IntegrityError, WrongKeyError)):
        read_dataset(path, encryption_key=KEY)


def test_manifest_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A format version this release does not know asks for an update."""
    path, _ = write(tmp_path, None)
    file = path / "_manifest.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"version": 99}))
    with pytest.raises(UnsupportedVersionError, match="update"):
        read_dataset(path)


@pytest.mark.parametrize("wrong", [bytes(32), "a wrong passphrase", [bytes(32), "another one"]])
def test_wrong_key_is_one_opaque_error(tmp_path: Path, wrong: object) -> None:
    """Any key but the right one gets the same words."""
    path, _ = write(tmp_path, KEY)
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
        read_dataset(path, encryption_key=wrong)


def test_missing_key_is_asked_for(tmp_path: Path) -> None:
    """Without a key, the error says which argument to give."""
    path, _ = write(tmp_path, KEY)
    with pytest.raises(MissingKeyError, match="encryption_key"):
        read_dataset(path)


def test_plain_data_is_not_accepted_in_place_of_sealed(tmp_path: Path) -> None:
    """A reader with a key refuses a dataset or file that is not encrypted: no downgrade."""
    path, _ = write(tmp_path, None)
    with pytest.raises(IntegrityError, match="not encrypted"):
        read_dataset(path, encryption_key=KEY)
    (tmp_path / "plain.csv").write_text("x\n1\n")
    with pytest.raises(IntegrityError, match="not encrypted"):
        open_artifact(tmp_path / "plain.csv", encryption_key=KEY)


def test_any_of_several_keys_opens(tmp_path: Path) -> None:
    """A dataset written for two keys opens with either."""
    rows = pd.DataFrame({"x": [1, 2, 3]})
    keys = [KEY, "correct horse battery staple"]
    result = DataWriter(tmp_path).write_dataframe(
        rows, "shared", "parquet", encryption_key=keys, single_file=False
    )
    for key in keys:
        assert len(read_dataset(result.path, encryption_key=key)) == 3
    single = DataWriter(tmp_path).write_dataframe(rows, "one", "parquet", encryption_key=keys)
    for key in keys:
        with open_artifact(single.path, encryption_key=key) as file:
            assert pd.read_parquet(file)["x"].tolist() == [1, 2, 3]
