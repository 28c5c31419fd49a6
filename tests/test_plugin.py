"""The plugin follows every write on a real scheduler, and ends at what the manifest says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

from deploy.local import servers
from pamola_dwriter import DataWriter, layout, tasks
from pamola_dwriter.errors import CommitOutcomeUnknownError, WriteCancelledError, WriteFailedError
from pamola_dwriter.events import TOPIC, PartitionStaged
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.plugin import NAME, PROGRESS, WRITES_KEPT, WritesPlugin
from pamola_dwriter.progress import Failure, Snapshot, StageCounts
from pamola_dwriter.spec import WriteId
from tests.places import open_gate, slow_frame

WRITE = WriteId("00112233445566aa")
KEY = bytes(32)


def counts(snapshot: Snapshot) -> tuple[int, int, int]:
    """Return parts, rows and bytes."""
    return snapshot.parts, snapshot.rows, snapshot.size_bytes


def on_disk(folder: Any) -> tuple[int, int]:
    """Return number and bytes of the parts in a local dataset."""
    parts = list(Path(folder).glob("part-*"))
    return len(parts), sum(part.stat().st_size for part in parts)


def test_stages_from_the_beginning_to_the_end(client: Client, tmp_path: Path) -> None:
    """Waiting tasks become running and done ones; the end is exact, and labelled."""
    writer = DataWriter(tmp_path)
    handle = writer.submit_dataframe(slow_frame(12, 0.1), "a", format="parquet", encryption_key=KEY)
    seen = list(_states(handle))
    assert any(0 < one.stages["serialize"].done < 12 for one in seen if one.stages)
    assert any(one.stages["serialize"].running for one in seen if one.stages)
    assert any(one.eta for one in seen)
    last, result = handle.progress(), handle.result()
    assert last.status == "committed"
    assert (last.name, last.format, last.encrypted) == ("output/a", "parquet", True)
    assert last.url == f"{tmp_path}/output/a"
    for stage, total in {"serialize": 12, "encrypt": 12, "put": 12, "gather": 1}.items():
        assert (last.stages[stage].done, last.stages[stage].total) == (total, total)
        assert last.stages[stage].seconds > 0
    assert list(last.stages) == ["serialize", "encrypt", "put", "gather", "commit"]
    assert counts(last) == (12, 60, result.size_bytes)
    assert on_disk(result.path) == (12, result.size_bytes)
    assert last.memory_bytes >= 60 * 8
    assert last.workers == 2
    assert 0 < last.elapsed < 60


def _states(handle: WriteFuture) -> Iterator[Snapshot]:
    while not handle.done():
        yield handle.progress()
        time.sleep(0.05)


def test_the_last_state_outlives_the_client(cluster: servers.Cluster, tmp_path: Path) -> None:
    """A handle tells how it went when the connection is closed, and so does its writer."""
    with Client(cluster.scheduler_address):
        writer = DataWriter(tmp_path)
        handle = writer.submit_dataframe(slow_frame(3), "a")
        handle.result()
    assert handle.progress().rows == 15
    assert writer.progress() == {handle.write_id: handle.progress()}


def test_a_killed_worker_takes_its_work_back(
    cluster: servers.Cluster, client: Client, tmp_path: Path
) -> None:
    """Retries are counted, and the end is exactly what the manifest and the disk say."""
    gate = tmp_path / "gate"
    frame = slow_frame(40, 0.1, gate=gate)
    handle = DataWriter(tmp_path / "task").submit_dataframe(frame, "a", format="csv")
    while handle.progress().partitions_done < 10:
        time.sleep(0.05)
    cluster.kill_worker()
    open_gate(gate)
    rows = [one.rows for one in _states(handle)]
    last, result = handle.progress(), handle.result()
    assert min(rows) < max(rows) <= 200
    assert last.retried > 0
    assert (last.partitions_done, last.status) == (40, "committed")
    assert counts(last) == (result.partitions, result.rows, result.size_bytes)
    assert on_disk(result.path) == (last.parts, last.size_bytes)
    assert last.failures == ()


def test_hive_parts_are_counted(client: Client, tmp_path: Path) -> None:
    """A partition may have several parts, and one without rows has none."""
    made = slow_frame(4).assign(key=lambda part: part["x"] % 2)
    handle = DataWriter(tmp_path).submit_dataframe(made, "a", format="csv", partition_on="key")
    result = handle.result()
    assert handle.progress().parts == result.partitions == 8
    assert handle.progress().partitions_done == 4


def test_two_clients_with_two_writes_each(cluster: servers.Cluster, tmp_path: Path) -> None:
    """Each sees its own, at the same time, and the plugin all four."""
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(_two_writes, [cluster.scheduler_address] * 2, [tmp_path] * 2, [3, 7]))
    for partitions, seen in zip((3, 7), both, strict=True):
        assert [one.partitions for one in seen.values()] == [partitions, partitions + 1]
        assert [one.rows for one in seen.values()] == [5 * partitions, 5 * partitions + 5]
        assert all(one.status == "committed" for one in seen.values())
        assert [one.write_id for one in seen.values()] == list(seen)
    assert len(both[0] | both[1]) == 4


def _two_writes(address: str, folder: Path, partitions: int) -> dict[WriteId, Snapshot]:
    with Client(address, set_as_default=False) as client:
        writer = DataWriter(folder, client=client)
        handles = [
            writer.submit_dataframe(slow_frame(many, 0.2), f"d{many}", format="csv")
            for many in (partitions, partitions + 1)
        ]
        assert list(writer.progress()) == [handle.write_id for handle in handles]
        for handle in handles:
            handle.result()
        return writer.progress()


def test_a_failure_is_named_without_its_text(client: Client, tmp_path: Path) -> None:
    """Stage, partition and class of the exception; what depends on it has failed too."""

    def fail(part: pd.DataFrame) -> pd.DataFrame:
        if part["x"].iloc[0] == 10:
            raise RuntimeError("a value that nobody may see: 4711")
        return part

    made = slow_frame(4).map_partitions(fail, meta=slow_frame(4)._meta)
    handle = DataWriter(tmp_path).submit_dataframe(made, "a", format="csv")
    with pytest.raises(WriteFailedError):
        handle.result()
    last = handle.progress()
    assert last.status == "failed"
    assert last.failures == (Failure(stage="serialize", partition=2, kind="RuntimeError"),)
    assert last.stages["commit"].failed == 1
    assert "nobody may see" not in repr(last)


def test_an_attempt_that_raised_counts_as_retried(client: Client, tmp_path: Path) -> None:
    """A put that fails once on each worker is tried again, which the end shows."""
    client.run(_break_storage_once)
    try:
        handle = DataWriter(tmp_path).submit_dataframe(slow_frame(6), "a", format="csv")
        result = handle.result()
    finally:
        client.run(_mend_storage)
    last = handle.progress()
    assert last.stages["put"].retried == last.retried == 2
    assert counts(last) == (6, 30, result.size_bytes)
    assert last.failures == ()


def _break_storage_once() -> None:
    original = tasks.put_record

    def fail_once(*args: Any) -> None:
        tasks.put_record = original
        raise RuntimeError("once")

    _break_storage_once.__dict__["original"] = original
    tasks.put_record = fail_once


def _mend_storage() -> None:
    tasks.put_record = _break_storage_once.__dict__["original"]


def test_a_cancelled_write(client: Client, tmp_path: Path) -> None:
    """What waited is cancelled, on the scheduler too, and the totals stay."""
    handle = DataWriter(tmp_path).submit_dataframe(slow_frame(30, 0.1), "a", format="csv")
    while handle.progress().partitions_done < 2:
        time.sleep(0.05)
    handle.cancel()
    with pytest.raises(WriteCancelledError):
        handle.result()
    last = handle.progress()
    assert (last.status, last.partitions) == ("cancelled", 30)
    assert last.stages["put"].cancelled > 0
    assert last.stages["put"].waiting == last.stages["put"].running == 0
    assert last.stages["put"].total == 30


def test_a_restarted_cluster_ends_its_writes(tmp_path: Path) -> None:
    """No transition tells of tasks that a restart throws away."""
    with servers.cluster(n_workers=1) as cluster, Client(cluster.scheduler_address) as client:
        handle = DataWriter(tmp_path).submit_dataframe(slow_frame(30, 0.1), "a", format="csv")
        while handle.progress().partitions_done < 2:
            time.sleep(0.05)
        client.restart()
        with pytest.raises((WriteFailedError, WriteCancelledError)):
            handle.result()
        assert handle.progress().status in ("failed", "cancelled")
        again = DataWriter(tmp_path).submit_dataframe(slow_frame(3), "b", format="csv")
        assert again.result().rows == again.progress().rows == 15


def test_a_resumed_write_counts_what_was_kept(tmp_path: Path) -> None:
    """The scheduler died with its counts; the next one shows the whole write."""

    def begin() -> dd.DataFrame:
        return slow_frame(20, 0.1)

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        servers.cluster(n_workers=1) as cluster,
        # A default one that is lost would stay in Dask's settings.
        Client(cluster.scheduler_address, timeout="5s", set_as_default=False) as client,
    ):
        writer = DataWriter(tmp_path, client=client)
        handle = writer.submit_dataframe(begin(), "a", format="csv", resume=True)
        while handle.progress().partitions_done < 3:
            time.sleep(0.05)
        cluster.kill()
        with pytest.raises(CommitOutcomeUnknownError):
            handle.result()
        assert handle.progress().status == "unknown"
    with servers.cluster(n_workers=1) as cluster, Client(cluster.scheduler_address):
        again = DataWriter(tmp_path).submit_dataframe(begin(), "a", format="csv", resume=True)
        result = again.result()
        last = again.progress()
        assert result.resumed == last.stages["keep"].done > 0
        assert counts(last) == (20, 100, result.size_bytes)


def test_preloaded_on_a_scheduler(tmp_path: Path) -> None:
    """Then it sees writes that ``dask.compute`` runs, whose client installs nothing."""
    preload = {"DASK_DISTRIBUTED__SCHEDULER__PRELOAD": '["pamola_dwriter.plugin"]'}
    with (
        servers.cluster(n_workers=1, env=preload) as cluster,
        Client(cluster.scheduler_address) as client,
    ):
        lazy = DataWriter(tmp_path).write_dataframe(slow_frame(3), "a", format="csv", compute=False)
        result = client.compute(lazy).result()
        asked = client.sync(getattr(client.scheduler, PROGRESS), write_id=result.write_id)
        seen = Snapshot.from_message(asked)
        assert (seen.name, seen.status, seen.rows) == ("output/a", "committed", 15)
        assert client.run_on_scheduler(_plugins) == 1


def _plugins(dask_scheduler: Any) -> int:
    return list(dask_scheduler.plugins).count(NAME)


def test_foreign_tasks_and_topics_are_passed_over() -> None:
    """Tasks and events of others leave no trace, nor does the last news of a write long gone."""
    plugin = WritesPlugin()
    plugin.transition(("read-parquet-abc", 0), "processing", "memory", stimulus_id="s")
    plugin.transition((layout.task_key("put", WRITE), 0), "released", "forgotten", stimulus_id="s")
    plugin.log_event("somebody", {"x": 1})
    plugin.log_event(TOPIC, {"event": "ended", "write_id": WRITE, "status": "failed"})
    assert not plugin.writes


def test_released_work_stays_done() -> None:
    """A result that is merely no longer needed remains counted."""
    plugin = WritesPlugin()
    key = (layout.task_key("put", WRITE), 3)
    event = PartitionStaged(write_id=WRITE, partition=3, parts=1, rows=5, size_bytes=50)
    plugin.log_event(TOPIC, {**event.to_message(), "worker": "tcp://a"})
    for start, finish in [
        ("processing", "memory"),
        ("memory", "released"),
        ("released", "forgotten"),
    ]:
        plugin.transition(key, start, finish, stimulus_id="s")
    assert counts(plugin.writes[WRITE].snapshot(0.0)) == (1, 5, 50)
    plugin.transition(key, "released", "waiting", stimulus_id="s")
    assert counts(plugin.writes[WRITE].snapshot(0.0)) == (0, 0, 0)


def test_memory_is_bounded() -> None:
    """Of writes that ended the latest are kept; one that is under way is never dropped."""
    plugin = WritesPlugin()
    oldest = layout.task_key("put", WRITE)
    plugin.transition((oldest, 0), "released", "waiting", stimulus_id="s")
    for number in range(WRITES_KEPT + 20):
        key = f"pamola-commit-{number:016x}"
        plugin.transition(key, "processing", "memory", stimulus_id="s")
        plugin.transition(key, "released", "forgotten", stimulus_id="s")
    assert len(plugin.writes) == WRITES_KEPT + 1
    assert WRITE in plugin.writes
    assert f"{20:016x}" in plugin.writes
    assert f"{19:016x}" not in plugin.writes


def test_a_write_id_that_comes_back_starts_anew() -> None:
    """A write that is resumed has the id that it had, and none of its old counts."""
    plugin = WritesPlugin()
    key = (layout.task_key("put", WRITE), 0)
    plugin.transition(key, "processing", "memory", stimulus_id="s")
    plugin.transition(layout.task_key("commit", WRITE), "released", "forgotten", stimulus_id="s")
    plugin.transition(key, "released", "waiting", stimulus_id="s")
    seen = plugin.writes[WRITE].snapshot(0.0)
    assert (seen.status, seen.stages["put"]) == ("running", StageCounts(waiting=1))
