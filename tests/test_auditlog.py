"""Every committed write leaves one record, whatever fails beside it, and no other does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from pamola_dwriter import (
    AuditRecord,
    DataWriter,
    auditlog,
    collect_garbage,
    finalize,
    layout,
    read_audit,
    rotate_keys,
    storage,
)
from pamola_dwriter.errors import (
    IntegrityError,
    TargetUnavailableError,
    UnsupportedVersionError,
    WriteFailedError,
)
from pamola_dwriter.paths import open_place
from pamola_dwriter.spec import WriteId
from tests.places import TUNING, Place, batch

KEY = "env:PII_KEY"


def audit(place: Place) -> list[AuditRecord]:
    """Return the records of a place."""
    return read_audit(place.root, storage_options=dict(place.options))


def writer(place: Place, **options: Any) -> DataWriter:
    """Return a writer of a place."""
    return DataWriter(place.root, storage_options=dict(place.options), **options)


def test_what_a_record_says(place: Place, pii_key: str) -> None:
    """Who, what, when, how much, under which keys, and by which versions."""
    before = datetime.now(UTC)
    result = writer(place).write_dataframe(
        dd.from_pandas(batch(0, 30), npartitions=3), "people", "parquet", encryption_key=KEY
    )
    (one,) = audit(place)
    assert before - timedelta(seconds=1) < one.committed == result.timestamp
    assert "@" in one.actor
    assert (one.operation, one.path, one.format) == (
        *("create", "output/people"),
        "partitioned_parquet",
    )
    assert (one.rows, one.size_bytes, one.parts) == (30, result.size_bytes, 3)
    assert (one.write_id, one.checksum) == (result.write_id, result.checksum)
    assert (one.encrypted, one.resumed) == (True, 0)
    (key,) = one.keys
    assert key.startswith("hkdf-sha256 ")
    assert set(one.versions) >= {"pamola_dwriter", "dask", "pyarrow"}
    assert pii_key not in json.dumps(one.to_json())


def test_what_is_done(tmp_path: Path) -> None:
    """Creating, overwriting and appending are told apart, and each has a record of its own."""
    place = Place(str(tmp_path))
    frame = dd.from_pandas(batch(0), npartitions=2)
    for options in ({}, {"append": True}, {"overwrite": True}):
        writer(place).write_dataframe(frame, "people", "parquet", **options)
    writer(place).write_dataframe(batch(0), "single", "csv")
    writer(place).write_dataframe(batch(0), "single", "csv", overwrite=True)
    assert [(one.operation, one.path) for one in audit(place)] == [
        ("create", "output/people"),
        ("append", "output/people"),
        ("overwrite", "output/people"),
        ("write", "output/single.csv"),
        ("write", "output/single.csv"),
    ]
    assert [one.rows for one in audit(place)] == [10] * 5


def test_single_files_and_documents(tmp_path: Path) -> None:
    """What is written whole has a record; a document that grows has none for each change."""
    made = DataWriter(tmp_path)
    made.write_json({"a": 1}, "plain")
    made.write_dictionary({"a": 1}, "secret", encryption_key="a long passphrase of ours")
    made.write_metrics({"quality": 0.5}, "quality")
    made.append_to_json_array({"a": 1}, "log")
    made.merge_json_objects({"a": 1}, "merged")
    records = read_audit(tmp_path)
    assert [(one.operation, one.rows, one.encrypted) for one in records] == [
        ("write", None, False),
        ("write", None, True),
        ("write", None, False),
    ]
    assert records[1].keys[0].startswith("argon2id ")


def test_each_version_of_a_stream(tmp_path: Path) -> None:
    """Every commit is recorded with the rows that it added."""
    with DataWriter(tmp_path).open_stream("people", "parquet") as stream:
        for start in (0, 10):
            stream.write(pa.Table.from_pandas(batch(start), preserve_index=False))
            stream.commit()
    assert [one.rows for one in read_audit(tmp_path)] == [10, 10]


def test_a_failed_write_has_none(tmp_path: Path) -> None:
    """Nothing was committed, so nothing is recorded."""

    def fail(part: pd.DataFrame) -> pd.DataFrame:
        raise RuntimeError("no")

    frame = dd.from_pandas(batch(0), npartitions=2)
    with pytest.raises(WriteFailedError):
        DataWriter(tmp_path).write_dataframe(frame.map_partitions(fail, meta=frame._meta), "a")
    assert read_audit(tmp_path) == []


def test_a_record_that_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The write stays committed, and a warning names it."""
    original = storage.posix.PosixStore.put_if

    def refuse(self: Any, path: str, data: bytes, expected: str | None) -> None:
        if layout.is_audit(path):
            raise TargetUnavailableError("the disk is full")
        original(self, path, data, expected)

    monkeypatch.setattr(storage.posix.PosixStore, "put_if", refuse)
    result = DataWriter(tmp_path).write_dataframe(batch(0), "people", "csv")
    assert result.rows == 10
    assert read_audit(tmp_path) == []
    assert f"write {result.write_id} is committed, but has no audit record" in caplog.text


def test_a_commit_that_runs_twice(client: Client, tmp_path: Path) -> None:
    """The worker dies between commit and record; the one who does it again leaves the record."""
    client.run(_die_before_the_record, str(tmp_path / "died"))
    result = DataWriter(tmp_path / "task").write_dataframe(
        dd.from_pandas(batch(0), npartitions=2), "people", "parquet"
    )
    client.run(_live)
    assert (tmp_path / "died").exists()
    (one,) = read_audit(tmp_path / "task")
    assert one.write_id == result.write_id


def _die_before_the_record(marker: str) -> None:
    original = finalize.record_frame

    def die(*args: Any) -> None:
        if Path(marker).exists():
            original(*args)
            return
        Path(marker).touch()
        os._exit(1)

    finalize.record_frame = die
    _die_before_the_record.__dict__["original"] = original


def _live() -> None:
    finalize.record_frame = _die_before_the_record.__dict__.get("original", finalize.record_frame)


def test_writers_at_once_lose_none(place: Place) -> None:
    """Eight processes write to one task directory; each write has its record."""
    script = (
        "import json, sys; import pandas as pd; from pamola_dwriter import DataWriter\n"
        "root, options, name = json.loads(sys.argv[1])\n"
        "made = DataWriter(root, storage_options=options)\n"
        "for number in range(3):\n"
        "    print(made.write_json({'n': number}, f'{name}-{number}').write_id)\n"
    )
    argument = [json.dumps([place.root, dict(place.options), f"n{one}"]) for one in range(8)]
    running = [
        subprocess.Popen([sys.executable, "-c", script, one], stdout=subprocess.PIPE, text=True)
        for one in argument
    ]
    told = {line for one in running for line in one.communicate()[0].split()}
    assert len(told) == 24
    assert {one.write_id for one in audit(place)} == told


def test_settings(tmp_path: Path) -> None:
    """It can be turned off, and the actor can be somebody else."""
    with dask.config.set({"pamola-dwriter.audit": False}):
        DataWriter(tmp_path).write_json({}, "a")
    assert read_audit(tmp_path) == []
    with dask.config.set({"pamola-dwriter.actor": "job 7 of the nightly run"}):
        DataWriter(tmp_path).write_json({}, "b")
    assert [one.actor for one in read_audit(tmp_path)] == ["job 7 of the nightly run"]


def test_it_is_in_nobodys_way(tmp_path: Path) -> None:
    """Rotation and garbage collection pass the records over."""
    made = DataWriter(tmp_path, encryption_key=bytes(32))
    made.write_json({"a": 1}, "a")
    report: Any = rotate_keys(tmp_path, encryption_key=bytes(32), to=bytes([1]) * 32)
    assert "_audit" not in repr(report)
    collect_garbage(tmp_path, older_than=0)
    assert len(read_audit(tmp_path)) == 1


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"write_id": 1}'])
def test_a_damaged_record_is_named(tmp_path: Path, damage: bytes) -> None:
    """It is not passed over in silence."""
    result = DataWriter(tmp_path).write_json({}, "a")
    path = tmp_path / layout.audit_path(result.write_id)
    path.write_bytes(damage)
    with pytest.raises(IntegrityError, match=result.write_id):
        read_audit(tmp_path)


def test_a_record_under_another_name(tmp_path: Path) -> None:
    """A copy does not count as a second write."""
    result = DataWriter(tmp_path).write_json({}, "a")
    path = tmp_path / layout.audit_path(result.write_id)
    other = tmp_path / layout.audit_path(WriteId("0" * 16))
    other.write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match="another write"):
        read_audit(tmp_path)


def test_a_record_of_a_later_version(tmp_path: Path) -> None:
    """Somebody with an older package is told so."""
    result = DataWriter(tmp_path).write_json({}, "a")
    path = tmp_path / layout.audit_path(result.write_id)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UnsupportedVersionError, match="install a newer"):
        read_audit(tmp_path)


def test_a_record_is_never_changed(tmp_path: Path) -> None:
    """A commit that runs again after another write finds its record, and leaves it."""
    result = DataWriter(tmp_path).write_dataframe(batch(0), "people", "csv")
    path = tmp_path / layout.audit_path(result.write_id)
    stored = path.read_bytes()
    (one,) = read_audit(tmp_path)
    store = open_place(tmp_path, None, TUNING).store
    auditlog.record(store, replace(one, rows=7), TUNING)
    assert path.read_bytes() == stored
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_command(tmp_path: Path) -> None:
    """A table for people, which no name can tear, and JSON lines for programs."""
    with dask.config.set({"pamola-dwriter.actor": "eve\x1b[2J\n"}):
        DataWriter(tmp_path).write_dataframe(batch(0), "people", "csv")
    command = [sys.executable, "-m", "pamola_dwriter", "audit", str(tmp_path)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    head, line = table.splitlines()
    assert dict(zip(head.split("\t"), line.split("\t"), strict=True))["rows"] == "10"
    assert "\x1b" not in table
    lines = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert AuditRecord.from_json(json.loads(lines)) == read_audit(tmp_path)[0]


@given(st.text(min_size=1), st.integers(0), st.datetimes(timezones=st.just(UTC)))
def test_records_survive_json(actor: str, size: int, moment: datetime) -> None:
    """Whatever stands in one comes back equal."""
    one = AuditRecord(
        write_id=WriteId("0123456789abcdef"),
        committed=moment,
        actor=actor,
        operation="create",
        path="output/a",
        format="csv",
        encrypted=False,
        rows=None,
        size_bytes=size,
        parts=1,
        checksum="sha256:",
        keys=("a b",),
        resumed=0,
        versions={"dask": "1"},
    )
    assert AuditRecord.from_json(json.loads(json.dumps(one.to_json()))) == one
