"""A version that was replaced stays for reads that go on, for as long as ``retain-seconds``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import fsspec
import pandas as pd
import pytest
from distributed import Client

from pamola_dwriter import describe, finalize, layout, read_dataset, verify
from pamola_dwriter.errors import DatasetReplacedError, IntegrityError
from pamola_dwriter.manifest import Envelope, parse_envelope
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.posix import PosixStore
from tests.places import Place, batch

OVERWRITES = 50
PARTITIONS = 2


def retaining(seconds: float) -> Any:
    return dask.config.set({"pamola-dwriter.retain-seconds": seconds})


def version(number: int) -> pd.DataFrame:
    """Return rows of which each tells the version that it belongs to."""
    return pd.DataFrame({"x": range(30), "version": number})


def write(
    place: Place, data: Any, key: str | None = None, format: str = "parquet", **options: Any
) -> WriterResult:
    return place.writer().write_dataframe(
        dd.from_pandas(data, npartitions=PARTITIONS),
        "people",
        format,
        encryption_key=key,
        write_index=False,
        **options,
    )


def opened(place: Place, result: WriterResult, key: str | None) -> dd.DataFrame:
    return read_dataset(result.path, encryption_key=key, storage_options=place.options)


def shown(place: Place) -> Envelope:
    """Return what the manifest of the dataset shows without the key."""
    options = {**place.options, "use_listings_cache": False}
    file_system, root = fsspec.core.url_to_fs(place.root, **options)
    return parse_envelope(file_system.cat_file(f"{root}/output/people/{layout.MANIFEST}"))


def assert_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    found = found.sort_values("x").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


@pytest.mark.parametrize("inline", [100, 1], ids=["parts in the manifest", "part table"])
def test_a_read_that_has_begun_succeeds(place: Place, key: str | None, inline: int) -> None:
    """What was opened before two overwrites is read whole after them; a new read is of the last."""
    with retaining(60), dask.config.set({"pamola-dwriter.inline-parts": inline}):
        first = opened(place, write(place, version(1), key), key)
        second = opened(place, write(place, version(2), key), key)
        result = write(place, version(3), key)
    for number, frame in enumerate([first, second, opened(place, result, key)], start=1):
        assert_rows(frame.compute(), version(number))
    report = verify(result.path, encryption_key=key, storage_options=place.options)
    assert (report.parts, report.rows) == (PARTITIONS, 30)


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_without_it_the_reader_is_told(place: Place, key: str | None, format: str) -> None:
    """A read whose version is gone says so, and how that can be helped; nothing is left of it."""
    first = opened(place, write(place, version(1), key, format), key)
    result = write(place, version(2), key, format)
    with pytest.raises(DatasetReplacedError, match=r"Read it again; or set retain-seconds"):
        first.compute()
    assert_rows(opened(place, result, key).compute(), version(2))
    place.assert_no_leftovers(result.write_id)


def test_the_reader_is_told_on_a_cluster(place: Place, client: Client) -> None:
    """The error comes from a worker as it is."""
    first = opened(place, write(place, version(1)), None)
    write(place, version(2))
    with pytest.raises(DatasetReplacedError):
        first.compute()


def test_a_part_that_is_lost_is_no_overwrite(place: Place, key: str | None) -> None:
    """A part of the version that stands, and of an append to it, is missed as before."""
    write(place, version(1), key)
    result = place.writer().write_dataframe(
        version(1).iloc[:0], "people", "parquet", encryption_key=key, append=True
    )
    frame = opened(place, result, key)
    file_system, root = place._open()
    lost = [file for file in place.files() if "part-00001" in file]
    for file in lost:
        file_system.rm_file(f"{root}/{file}")
    with pytest.raises(IntegrityError, match=r"part-00001.* is missing"):
        frame.compute()
    with pytest.raises(IntegrityError, match=r"part-00001.* is missing"):
        verify(result.path, encryption_key=key, storage_options=place.options)


def test_retained_parts_go_when_their_time_is_over(place: Place) -> None:
    """The first commit after it removes them, an append too; younger ones stay."""
    with retaining(0.5):
        first = write(place, version(1))
        second = write(place, version(2))
        assert shown(place).retired.keys() == {first.write_id}
        time.sleep(0.6)
        third = write(place, version(3))
        assert shown(place).retired.keys() == {second.write_id}
        place.assert_no_leftovers(second.write_id, third.write_id)
        time.sleep(0.6)
        fourth = write(place, version(3), append=True)
    assert not shown(place).retired
    place.assert_no_leftovers(third.write_id, fourth.write_id)
    assert len(place.read(fourth.path)) == 60


def test_the_next_write_without_it_removes_them(place: Place) -> None:
    """With retain-seconds 0 everything goes that was retained, however young."""
    with retaining(3600):
        for number in range(3):
            write(place, version(number))
    assert sum("part-" in file for file in place.files()) == 3 * PARTITIONS
    result = write(place, version(3))
    place.assert_no_leftovers(result.write_id)


def test_appends_retire_nothing(place: Place, key: str | None) -> None:
    """An append carries on what is retained; the parts that it adds to stay in use."""
    with retaining(60):
        first = write(place, version(1), key)
        write(place, version(2), key)
        since = shown(place).retired
        appended = write(place, version(2), key, append=True)
    assert shown(place).retired == since
    assert since.keys() == {first.write_id}
    assert len(opened(place, appended, key)) == 60


def test_the_manifest_shows_what_is_retained(place: Place, key: str | None) -> None:
    """Write and time, in UTC, are read without a key; what was appended goes with the rest."""
    before = datetime.now(UTC)
    with retaining(60):
        first = write(place, version(1), key)
        appended = write(place, version(1), key, append=True)
        result = write(place, version(2), key)
    retired = shown(place).retired
    assert retired.keys() == {first.write_id, appended.write_id}
    for since in retired.values():
        assert since.utcoffset() == timedelta(0)
        assert before < since <= datetime.now(UTC)
    facts = describe(result.path, encryption_key=key, storage_options=place.options)
    assert facts["parts"] == PARTITIONS


def test_a_sweep_cut_short_is_made_good(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit could not remove, the next one does."""
    write(place, version(1))
    with monkeypatch.context() as patch:
        patch.setattr(finalize, "_sweep", lambda *args, **kwargs: None)
        write(place, version(2))
    result = write(place, version(3))
    place.assert_no_leftovers(result.write_id)


def test_a_second_run_of_a_commit_makes_the_sweep_good(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between commit and sweep leaves nothing: the task is run again."""
    write(place, version(1))
    lazy = write(place, version(2), compute=False)
    with monkeypatch.context() as patch:
        patch.setattr(finalize, "_sweep", lambda *args, **kwargs: None)
        lazy.compute()
    result = lazy.compute()
    place.assert_no_leftovers(result.write_id)


@pytest.mark.parametrize(("append", "again"), [(False, "Read it again"), (True, "verify it again")])
def test_a_version_that_comes_while_one_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, append: bool, again: str
) -> None:
    """Parts that an overwrite takes, or that an append adds, are not taken for damage."""
    place = Place(str(tmp_path / "task"))
    result = write(place, version(1))
    listdir = PosixStore.listdir

    def overwrite(self: PosixStore, path: str) -> list[str]:
        monkeypatch.undo()
        write(place, version(2), append=append)
        return listdir(self, path)

    monkeypatch.setattr(PosixStore, "listdir", overwrite)
    with pytest.raises(DatasetReplacedError, match=again):
        verify(result.path)
    assert verify(result.path).rows == (60 if append else 30)


def test_a_part_table_that_goes_is_followed(
    s3_place: Place, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens a dataset while its part table is replaced opens the version that follows."""
    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        result = write(s3_place, batch(0), key)
        read = ObjectStore.read

        def append_first(self: ObjectStore, path: str, *args: Any) -> bytes:
            if "_parts-" in path:
                monkeypatch.undo()
                write(s3_place, batch(10), key, append=True)
            return read(self, path, *args)

        monkeypatch.setattr(ObjectStore, "read", append_first)
        assert_rows(opened(s3_place, result, key).compute(), batch(0, 20))


# A process of its own: nothing in memory is shared with the writer.
_READER = """
import json, sys, threading
import dask
from pamola_dwriter import read_dataset

path, options, key = json.loads(sys.stdin.readline())
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
seen = {"versions": [], "wrong": [], "errors": []}
dask.config.set(scheduler="sync")
print("ready", flush=True)
while not over.is_set():
    try:
        frame = read_dataset(path, encryption_key=key, storage_options=options).compute()
    except Exception as error:
        seen["errors"].append(type(error).__name__)
        continue
    if sorted(frame["x"]) != list(range(30)) or frame["version"].nunique() != 1:
        seen["wrong"].append(frame.to_json())
    seen["versions"].append(int(frame["version"].iloc[0]))
print(json.dumps(seen))
"""


def poll(place: Place, key: str | None, overwrites: int) -> dict[str, list[Any]]:
    """Return what a reader saw while a dataset was overwritten again and again."""
    path = write(place, version(0), key).path
    with subprocess.Popen(
        [sys.executable, "-c", _READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(json.dumps([str(path), dict(place.options), key]) + "\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "ready\n"
        for number in range(1, overwrites + 1):
            write(place, version(number), key)
        seen: dict[str, list[Any]] = json.loads(reader.communicate(timeout=60)[0])
    return seen


@pytest.mark.usefixtures("pii_key")
@pytest.mark.parametrize(
    ("seconds", "key", "errors"),
    [(60, "env:PII_KEY", set()), (0, None, {"DatasetReplacedError"})],
    ids=["retained", "not retained"],
)
def test_a_reader_sees_whole_versions(
    place: Place, seconds: int, key: str | None, errors: set[str]
) -> None:
    """Polling through 50 overwrites gives no mix: no error either, if they are retained."""
    with retaining(seconds):
        seen = poll(place, key, OVERWRITES)
    assert seen["wrong"] == []
    assert set(seen["errors"]) <= errors
    assert seen["versions"] == sorted(seen["versions"])
    assert len(set(seen["versions"])) > 3
