"""append=True adds parts to a committed dataset: a new version, whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

from pamola_dwriter import describe, finalize, layout, verify
from pamola_dwriter.errors import (
    ConcurrentWriteError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    SchemaMismatchError,
    WriteFailedError,
    WrongKeyError,
)
from pamola_dwriter.storage.posix import PosixStore
from tests.places import Place, batch


def expected(*batches: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(batches, ignore_index=True)


def append(place: Place, data: Any, key: str | None = None, **options: Any) -> Any:
    return place.writer().write_dataframe(
        data, "people", "parquet", encryption_key=key, append=True, write_index=False, **options
    )


def test_appended_rows_come_after_those_that_were_there(place: Place, key: str | None) -> None:
    """The first append makes the dataset, later ones add to it; each result tells of itself."""
    first = append(place, batch(0), key)
    second = append(place, dd.from_pandas(batch(10), npartitions=2), key)
    third = append(place, batch(20), key)
    stored = place.read(third.path, encryption_key=key)
    pd.testing.assert_frame_equal(stored, expected(batch(0), batch(10), batch(20)))
    assert [one.rows for one in (first, second, third)] == [10, 10, 10]
    assert [one.partitions for one in (first, second, third)] == [1, 2, 1]
    report = verify(third.path, encryption_key=key, storage_options=place.options)
    assert (report.rows, report.parts) == (30, 4)
    place.assert_no_leftovers(first.write_id, second.write_id, third.write_id)


def test_append_runs_on_a_cluster(place: Place, key: str | None, client: Client) -> None:
    """Workers open the key of the dataset that is there."""
    append(place, dd.from_pandas(batch(0), npartitions=3), key)
    result = append(place, dd.from_pandas(batch(10), npartitions=3), key)
    stored = place.read(result.path, encryption_key=key)
    pd.testing.assert_frame_equal(stored, expected(batch(0), batch(10)), check_dtype=False)


def test_overwrite_sweeps_the_parts_of_every_append(place: Place, key: str | None) -> None:
    """What replaces a dataset that grew leaves none of its parts, whichever write made them."""
    for first in (0, 10, 20):
        append(place, batch(first), key)
    result = place.writer().write_dataframe(
        batch(50), "people", "parquet", encryption_key=key, single_file=False
    )
    assert len(place.read(result.path, encryption_key=key)) == 10
    place.assert_no_leftovers(result.write_id)


def test_appends_at_once_all_count(place: Place, key: str | None) -> None:
    """Writers that append to one dataset at the same time lose nothing to each other."""
    append(place, batch(0), key)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append(place, batch(10 * n), key), range(1, 13)))
    stored = place.read(f"{place.root}/output/people", encryption_key=key)
    pd.testing.assert_frame_equal(stored, expected(*(batch(10 * n) for n in range(13))))


def test_wide_appends_move_the_part_table(place: Place, key: str | None) -> None:
    """Past the inline limit one part table lists all parts, and the old table goes."""
    with dask.config.set({"pamola-dwriter.inline-parts": 2}):
        for first in (0, 10, 20, 30):
            result = append(place, batch(first), key)
    assert len(place.read(result.path, encryption_key=key)) == 40
    assert sum("_parts-" in file for file in place.files()) == 1


def test_failed_append_leaves_the_version_before(place: Place, key: str | None) -> None:
    """A partition that raises costs the append, and nothing of what was there."""
    kept = append(place, batch(0), key)

    def fail(partition: pd.DataFrame) -> pd.DataFrame:
        raise ZeroDivisionError

    broken = dd.from_pandas(batch(10), npartitions=2).map_partitions(fail, meta=batch(0).iloc[:0])
    with pytest.raises(WriteFailedError):
        append(place, broken, key)
    pd.testing.assert_frame_equal(place.read(kept.path, encryption_key=key), batch(0))
    place.assert_no_leftovers(kept.write_id)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda frame: frame.drop(columns="name"), "name"),
        (lambda frame: frame.assign(more=1), "more"),
        (lambda frame: frame.assign(x=frame["name"]), "x"),
        (lambda frame: frame.assign(x=frame["x"] + 0.5), "x"),
    ],
    ids=["dropped", "added", "text for numbers", "values that do not fit"],
)
def test_schema_is_held(s3_place: Place, change: Any, column: str) -> None:
    """Other columns, or values that the types of the dataset cannot hold, are refused."""
    kept = append(s3_place, batch(0))
    with pytest.raises(SchemaMismatchError, match=repr(column)):
        append(s3_place, change(batch(10)))
    pd.testing.assert_frame_equal(s3_place.read(kept.path), batch(0))
    s3_place.assert_no_leftovers(kept.write_id)


def test_narrower_types_are_widened_to_the_schema(s3_place: Place) -> None:
    """Numbers that fit are stored in the type that the dataset has."""
    append(s3_place, batch(0))
    result = append(s3_place, batch(10).astype({"x": "int32"}))
    stored = s3_place.read(result.path)
    pd.testing.assert_frame_equal(stored, expected(batch(0), batch(10)))


def test_options_are_those_of_the_dataset(s3_place: Place) -> None:
    """An option that differs is refused by name; one that is left out is taken over."""
    append(s3_place, batch(0), compression="gzip")
    with pytest.raises(InvalidWriteError, match="compression 'gzip', not 'snappy'"):
        append(s3_place, batch(10), compression="snappy")
    with pytest.raises(InvalidWriteError, match="format 'parquet', not 'csv'"):
        s3_place.writer().write_dataframe(batch(10), "people", "csv", append=True)
    result = append(s3_place, batch(10))
    assert describe(result.path, storage_options=s3_place.options)["compression"] == "gzip"


def test_partitioned_datasets_grow(place: Place, key: str | None) -> None:
    """Hive folders take the parts of every write."""
    for first in (0, 10):
        frame = batch(first).assign(half=lambda f: f["x"] % 2)
        result = append(place, frame, key, partition_on="half")
    stored = place.read(result.path, encryption_key=key)
    assert sorted(stored["x"]) == list(range(20))
    assert result.partitions == 2


@pytest.mark.parametrize(
    ("written", "appended", "error"),
    [
        ("correct horse", None, MissingKeyError),
        ("correct horse", "wrong horse battery", WrongKeyError),
        (None, "correct horse", InvalidTargetError),
    ],
    ids=["no key", "wrong key", "key for a plain dataset"],
)
def test_append_never_mixes_plain_and_sealed(
    s3_place: Place, written: str | None, appended: str | None, error: type[Exception]
) -> None:
    """The key must be one that opens the dataset; nothing is written with another, or none."""
    kept = append(s3_place, batch(0), written)
    with pytest.raises(error):
        append(s3_place, batch(10), appended)
    assert len(s3_place.read(kept.path, encryption_key=written)) == 10
    s3_place.assert_no_leftovers(kept.write_id)


def test_all_keys_of_a_dataset_open_what_is_appended_by_one(s3_place: Place) -> None:
    """Appending with one of several keys shuts none of the others out."""
    append(s3_place, batch(0), ["first passphrase", "second passphrase"])  # type: ignore[arg-type]
    result = append(s3_place, batch(10), "second passphrase")
    for key in ("first passphrase", "second passphrase"):
        assert len(s3_place.read(result.path, encryption_key=key)) == 20


def test_overwrite_meanwhile_is_not_appended_to(s3_place: Place) -> None:
    """An append prepared for one key does not land on a version written anew under another."""
    append(s3_place, batch(0), "first passphrase")
    lazy = append(s3_place, batch(10), "first passphrase", compute=False)
    winner = s3_place.writer().write_dataframe(
        batch(90), "people", "parquet", encryption_key="second passphrase", single_file=False
    )
    with pytest.raises(ConcurrentWriteError):
        lazy.compute()
    assert len(s3_place.read(winner.path, encryption_key="second passphrase")) == 10
    s3_place.assert_no_leftovers(winner.write_id)


def test_lost_reply_appends_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit whose reply is lost, with another append on top of it, counts once."""
    place = Place(str(tmp_path / "task"))
    append(place, batch(0))
    put_if = PosixStore.put_if

    def lose_reply(self: PosixStore, path: str, data: bytes, version: str | None) -> None:
        if not path.endswith(layout.MANIFEST):
            return put_if(self, path, data, version)
        monkeypatch.undo()
        put_if(self, path, data, version)
        append(place, batch(20))
        raise OSError("reply lost")

    monkeypatch.setattr(PosixStore, "put_if", lose_reply)
    result = append(place, batch(10))
    assert result.rows == 10
    stored = place.read(result.path)
    pd.testing.assert_frame_equal(stored, expected(batch(0), batch(10), batch(20)))


@pytest.mark.parametrize("option", [{"single_file": True}, {"timestamp_in_name": True}])
def test_append_needs_a_dataset_to_add_to(tmp_path: Any, option: dict[str, Any]) -> None:
    """A single file, or a name that is new each time, cannot be appended to."""
    with pytest.raises(InvalidWriteError, match="append=True excludes"):
        append(Place(str(tmp_path)), batch(0), **option)


@pytest.mark.parametrize("key", [None, "correct horse battery"])
def test_a_single_file_is_not_appended_to(tmp_path: Any, key: str | None) -> None:
    """Rows do not go to a dataset beside the file of that name, least of all in plaintext."""
    place = Place(str(tmp_path))
    place.writer().write_dataframe(batch(0), "people", "parquet", encryption_key=key)
    with pytest.raises(InvalidTargetError, match="single file"):
        append(place, batch(10))
    assert len(place.files()) == 1


def test_threads_append_in_turn_on_any_store() -> None:
    """Also where the store itself has no condition, the threads of one process lose nothing."""
    place = Place("memory://append-in-turn")
    append(place, batch(0))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: append(place, batch(10 * n)), range(1, 21)))
    assert len(place.read(f"{place.root}/output/people")) == 210


def test_a_commit_run_twice_keeps_the_part_table_that_stands(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one commit at once leave the table that the stored manifest names."""
    place = Place(str(tmp_path / "task"))
    put_if = PosixStore.put_if
    running: list[Any] = []

    def race(self: PosixStore, path: str, data: bytes, version: str | None) -> None:
        if len(running) == 1 and path.endswith(layout.MANIFEST):
            running.append("once")
            finalize.finalize(*running[0])
        put_if(self, path, data, version)

    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        lazy = append(place, dd.from_pandas(batch(0), npartitions=3), compute=False)
        graph = dict(lazy.__dask_graph__())
        records = dask.get({**graph}, [key for key in graph if "gather" in str(key)][-1])
        running.append((records, None, lazy._spec))
        monkeypatch.setattr(PosixStore, "put_if", race)
        result = finalize.finalize(*running[0])
    assert result.rows == 10
    assert len(place.read(result.path)) == 10
    assert verify(result.path).checksum == result.checksum
