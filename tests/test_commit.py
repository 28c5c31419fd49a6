"""A dataset is committed whole or not at all, on a real cluster and a real S3 server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

from deploy.local.servers import Cluster
from pamola_dwriter import layout, verify
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    IntegrityError,
    SchemaMismatchError,
    TargetExistsError,
    TargetUnavailableError,
    WriteCancelledError,
    WriteFailedError,
)
from pamola_dwriter.layout import MANIFEST
from pamola_dwriter.storage.s3 import S3Store
from tests.places import Place

ROWS = 400
PARTITIONS = 8


def frame(offset: int = 0) -> dd.DataFrame:
    numbers = range(offset, offset + ROWS)
    pdf = pd.DataFrame({"x": numbers, "name": [f"person {n}" for n in numbers]})
    return dd.from_pandas(pdf, npartitions=PARTITIONS)


def expected(offset: int = 0) -> pd.DataFrame:
    return frame(offset).compute(scheduler="sync").reset_index(drop=True)


def fail_late(partition: pd.DataFrame) -> pd.DataFrame:
    if len(partition) and partition["x"].min() >= ROWS * 3 // 4:
        time.sleep(0.5)
        raise ZeroDivisionError("deliberate")
    return partition


def slowly(partition: pd.DataFrame, seconds: float = 0.5) -> pd.DataFrame:
    time.sleep(seconds)
    return partition


def mapped(function: Callable[..., pd.DataFrame], offset: int = 0) -> dd.DataFrame:
    source = frame(offset)
    return source.map_partitions(function, meta=source._meta)


def test_committed_dataset_is_exactly_what_was_written(
    place: Place, key: str | None, client: Client
) -> None:
    """A write on the cluster gives back the rows, and leaves parts and manifest alone."""
    result = place.writer().write_dataframe(frame(), "people", "parquet", encryption_key=key)
    pd.testing.assert_frame_equal(place.read(result.path, encryption_key=key), expected())
    assert (result.rows, result.partitions) == (ROWS, PARTITIONS)
    assert (
        result.size_bytes
        == verify(result.path, encryption_key=key, storage_options=place.options).size_bytes
    )
    assert len(place.files()) == PARTITIONS + 1
    place.assert_no_leftovers(result.write_id)


def test_overwrite_replaces_the_whole_version(
    place: Place, key: str | None, client: Client
) -> None:
    """After an overwrite only the new version's parts stand."""
    writer = place.writer(encryption_key=key)
    writer.write_dataframe(frame(), "people", "parquet")
    second = writer.write_dataframe(frame(1000), "people", "parquet")
    pd.testing.assert_frame_equal(place.read(second.path, encryption_key=key), expected(1000))
    place.assert_no_leftovers(second.write_id)


def test_refused_overwrite_changes_nothing(place: Place, client: Client) -> None:
    """overwrite=False refuses an existing dataset before any work."""
    first = place.writer().write_dataframe(frame(), "people", "parquet")
    before = place.files()
    with pytest.raises(TargetExistsError, match="overwrite=True"):
        place.writer().write_dataframe(frame(9), "people", "parquet", overwrite=False)
    assert place.files() == before
    place.assert_no_leftovers(first.write_id)


def test_failed_write_keeps_the_previous_version(
    place: Place, key: str | None, client: Client
) -> None:
    """When a partition raises, the cause is chained, the old version stands, nothing is left."""
    writer = place.writer(encryption_key=key)
    first = writer.write_dataframe(frame(), "people", "parquet")
    with pytest.raises(WriteFailedError, match="ZeroDivisionError") as caught:
        writer.write_dataframe(mapped(fail_late), "people", "parquet")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.partitions
    assert min(caught.value.partitions) >= PARTITIONS * 3 // 4
    assert f"in partition {caught.value.partitions[0]}" in str(caught.value)
    pd.testing.assert_frame_equal(place.read(first.path, encryption_key=key), expected())
    place.assert_no_leftovers(first.write_id)


def test_failing_partition_is_named_without_a_cluster(place: Place) -> None:
    """On local threads too the error names the partition, and all that depend on a common step."""
    with pytest.raises(WriteFailedError, match=r"in partition \d") as caught:
        place.writer().write_dataframe(mapped(fail_late), "people", "parquet")
    assert set(caught.value.partitions) <= {6, 7}
    shuffled = mapped(fail_late).shuffle("x", npartitions=3)
    with pytest.raises(WriteFailedError, match="in partition 0, 1, 2 with Zero") as caught:
        place.writer().write_dataframe(shuffled, "people", "parquet")
    assert caught.value.partitions == (0, 1, 2)
    place.assert_no_leftovers()


def test_tasks_that_store_are_retried_by_dask(place: Place, client: Client) -> None:
    """The number of retries that is set reaches the scheduler, for puts and the commit."""
    source = mapped(slowly)
    with dask.config.set({"pamola-dwriter.task-retries": 3}):
        handle = place.writer().submit_dataframe(source, "people", "parquet")
    while not (retries := client.run_on_scheduler(retries_by_stage, handle.write_id)):
        time.sleep(0.02)
    handle.cancel()
    assert retries["put"] == retries["commit"] == {3}
    assert retries["serialize"] == retries["gather"] == {0}
    handle.exception(timeout=60)


def retries_by_stage(write_id: str, dask_scheduler: Any) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for key, task in dask_scheduler.tasks.items():
        parsed = layout.parse_task_key(key)
        if parsed and parsed[1] == write_id and task.state == "waiting":
            found.setdefault(parsed[0], set()).add(task.retries or 0)
    return found


def test_failed_first_write_leaves_nothing(place: Place, client: Client) -> None:
    """A dataset whose first write fails does not exist afterwards."""
    with pytest.raises(WriteFailedError):
        place.writer().write_dataframe(mapped(fail_late), "people", "parquet")
    assert place.files() == []
    place.assert_no_leftovers()


def test_mismatched_partition_is_named_and_cleaned_up(place: Place, client: Client) -> None:
    """A partition of another type fails the write with its index and column, and no value."""
    source = frame()
    odd = source.map_partitions(
        lambda part: part.assign(x="secret words") if part["x"].min() > 200 else part,
        meta=source._meta,
    )
    with pytest.raises(SchemaMismatchError, match=r"partition \d, column 'x'") as caught:
        place.writer().write_dataframe(odd, "people", "parquet")
    assert caught.value.column == "x"
    assert "secret words" not in str(caught.value)
    place.assert_no_leftovers()


def test_cancelled_write_leaves_nothing(place: Place, key: str | None, client: Client) -> None:
    """cancel() in the middle ends in WriteCancelledError, with nothing staged or visible."""
    handle = place.writer().submit_dataframe(
        mapped(slowly), "people", "parquet", encryption_key=key
    )
    while not 1 <= handle.progress().partitions_done < PARTITIONS:
        assert not handle.done()
        time.sleep(0.02)
    handle.cancel()
    with pytest.raises(WriteCancelledError):
        handle.result(timeout=60)
    assert handle.status == "cancelled"
    assert place.files() == []
    place.assert_no_leftovers()


def test_one_of_two_racing_writers_wins(place: Place, key: str | None, client: Client) -> None:
    """Two writes begun on the same version: one commits, one is refused, nothing is mixed."""
    writer = place.writer(encryption_key=key)
    writer.write_dataframe(frame(), "people", "parquet")
    lazy = [
        writer.write_dataframe(frame(offset), "people", "parquet", compute=False)
        for offset in (1000, 2000)
    ]
    handles = [one.submit() for one in lazy]
    errors = [handle.exception(timeout=60) for handle in handles]
    (winner,) = (i for i, error in enumerate(errors) if error is None)
    assert isinstance(errors[1 - winner], ConcurrentWriteError)
    result = handles[winner].result()
    stored = place.read(result.path, encryption_key=key)
    pd.testing.assert_frame_equal(stored, expected([1000, 2000][winner]))
    place.assert_no_leftovers(result.write_id)


def test_killed_worker_costs_no_row(
    place: Place, key: str | None, client: Client, cluster: Cluster
) -> None:
    """SIGKILL of a worker in the middle: redone, committed once, nothing doubled or left."""
    handle = place.writer().submit_dataframe(
        mapped(slowly), "people", "parquet", encryption_key=key
    )
    while handle.progress().partitions_done < 2:
        time.sleep(0.02)
    cluster.kill_worker()
    result = handle.result(timeout=120)
    pd.testing.assert_frame_equal(place.read(result.path, encryption_key=key), expected())
    seen = handle.progress()
    assert (seen.partitions_done, seen.rows) == (PARTITIONS, ROWS)
    assert seen.size_bytes == result.size_bytes
    place.assert_no_leftovers(result.write_id)


def test_lazy_write_touches_nothing_until_computed(place: Place, client: Client) -> None:
    """Building a graph over an existing dataset changes no file and starts no upload."""
    first = place.writer().write_dataframe(frame(), "people", "parquet")
    before = place.files()
    lazy = place.writer().write_dataframe(frame(7), "people", "parquet", compute=False)
    time.sleep(0.2)
    assert place.files() == before
    assert place.pending_uploads() == []
    assert str(first.path) in repr(lazy)


def test_lazy_write_computed_twice_is_one_version(
    place: Place, key: str | None, client: Client
) -> None:
    """Running the same lazy write again finds its own commit and leaves no second copy."""
    lazy = place.writer().write_dataframe(
        frame(), "people", "parquet", compute=False, encryption_key=key
    )
    first = lazy.compute()
    again = lazy.compute()
    (by_dask,) = dask.compute(lazy)
    assert first.checksum == again.checksum == by_dask.checksum
    assert len(place.files()) == PARTITIONS + 1
    pd.testing.assert_frame_equal(place.read(first.path, encryption_key=key), expected())
    place.assert_no_leftovers(first.write_id)


def test_lazy_write_is_a_dask_collection(place: Place, client: Client) -> None:
    """persist, client.compute and submit run the same graph."""
    writer = place.writer()
    persisted = writer.write_dataframe(frame(), "a", "parquet", compute=False).persist()
    assert persisted.compute().rows == ROWS
    computed = client.compute(writer.write_dataframe(frame(), "b", "parquet", compute=False))
    assert computed.result().rows == ROWS
    submitted = writer.write_dataframe(frame(), "c", "parquet", compute=False).submit()
    assert submitted.result(timeout=60).rows == ROWS


def test_wide_dataset_lists_its_parts_beside_the_manifest(
    place: Place, key: str | None, client: Client
) -> None:
    """Past inline-parts the part table is a file of its own, swept with its version."""
    with dask.config.set({"pamola-dwriter.inline-parts": 3, "pamola-dwriter.gather-width": 2}):
        first = place.writer().write_dataframe(frame(), "people", "parquet", encryption_key=key)
        assert sum("_parts-" in file for file in place.files()) == 1
        pd.testing.assert_frame_equal(place.read(first.path, encryption_key=key), expected())
        again = place.writer().write_dataframe(frame(), "people", "parquet", encryption_key=key)
    place.assert_no_leftovers(again.write_id)


def test_altered_part_table_is_noticed(place: Place, key: str | None, client: Client) -> None:
    """One changed byte in the part table is an IntegrityError that names the file."""
    with dask.config.set({"pamola-dwriter.inline-parts": 3}):
        result = place.writer().write_dataframe(frame(), "people", "parquet", encryption_key=key)
    (table,) = (file for file in place.files() if "_parts-" in file)
    file_system, root = place._open()
    data = bytearray(file_system.cat_file(f"{root}/{table}"))
    data[len(data) // 2] ^= 1
    file_system.pipe_file(f"{root}/{table}", bytes(data))
    with pytest.raises(IntegrityError, match="_parts-"):
        place.read(result.path, encryption_key=key)


def test_lost_reply_of_the_manifest_is_read_back(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the manifest was written and only the reply was lost, the write is a success."""
    put_if = S3Store.put_if

    def lose_reply(self: S3Store, path: str, data: bytes, version: str | None) -> None:
        put_if(self, path, data, version)
        if path.endswith(MANIFEST):
            raise TargetUnavailableError("connection reset", answered=False)

    monkeypatch.setattr(S3Store, "put_if", lose_reply)
    result = s3_place.writer().write_dataframe(frame(), "people", "parquet")
    assert result.rows == ROWS
    s3_place.assert_no_leftovers(result.write_id)


def test_retried_manifest_meets_itself(s3_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conflict with one's own manifest, after a retry below us, is a success."""
    put_if = S3Store.put_if

    def retry(self: S3Store, path: str, data: bytes, version: str | None) -> None:
        put_if(self, path, data, version)
        if path.endswith(MANIFEST):
            put_if(self, path, data, version)

    monkeypatch.setattr(S3Store, "put_if", retry)
    result = s3_place.writer().write_dataframe(frame(), "people", "parquet")
    s3_place.assert_no_leftovers(result.write_id)


def test_unknown_outcome_deletes_nothing(s3_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody can say whether the manifest was written, every part stays."""

    def vanish(self: S3Store, path: str, data: bytes, version: str | None) -> None:
        if path.endswith(MANIFEST):
            raise TargetUnavailableError("timed out", answered=False)
        put_if(self, path, data, version)

    put_if = S3Store.put_if
    monkeypatch.setattr(S3Store, "put_if", vanish)
    with pytest.raises(CommitOutcomeUnknownError, match="nothing was deleted"):
        s3_place.writer().write_dataframe(frame(), "people", "parquet")
    assert sum("/part-" in file for file in s3_place.files()) == PARTITIONS


def test_refused_manifest_is_a_failure_that_cleans_up(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store itself refuses the manifest, the published parts are taken back."""

    def refuse(self: S3Store, path: str, data: bytes, version: str | None) -> None:
        if path.endswith(MANIFEST):
            raise TargetUnavailableError("403 Forbidden", answered=True)
        put_if(self, path, data, version)

    put_if = S3Store.put_if
    monkeypatch.setattr(S3Store, "put_if", refuse)
    with pytest.raises(TargetUnavailableError, match="403"):
        s3_place.writer().write_dataframe(frame(), "people", "parquet")
    assert s3_place.files() == []
    s3_place.assert_no_leftovers()


def test_lost_reply_of_a_completion_is_recognised(
    s3_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part whose completion is sent twice is published once."""
    complete = S3Store._complete

    async def twice(self: S3Store, path: str, token: dict[str, Any]) -> None:
        await complete(self, path, token)
        await complete(self, path, token)

    monkeypatch.setattr(S3Store, "_complete", twice)
    result = s3_place.writer().write_dataframe(frame(), "people", "parquet")
    pd.testing.assert_frame_equal(s3_place.read(result.path), expected())
    s3_place.assert_no_leftovers(result.write_id)
