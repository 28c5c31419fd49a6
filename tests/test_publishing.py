"""Publishing by tasks of its own: between them everything may happen, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, Worker, WorkerPlugin

from deploy.local import servers
from pamola_dwriter import (
    LazyWrite,
    collect_garbage,
    finalize,
    layout,
    publishing,
    read_dataset,
    tasks,
    verify,
)
from pamola_dwriter.errors import ConcurrentWriteError, DataWriteError, WriteFailedError
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.records import Records
from pamola_dwriter.spec import RunSpec
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.testing import Crash, Fault, assert_no_leftovers, inject
from tests.places import Place

PARTITIONS = 5
WIDTH = 2
"""So that three tasks publish."""

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def spread() -> Iterator[None]:
    """Few partitions are enough to be published by several tasks."""
    with dask.config.set({"pamola-dwriter.gather-width": WIDTH, "pamola-dwriter.retry-seconds": 0}):
        yield


def rows(number: int, first: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"x": [first + number], "town": ["A" if number % 2 else "B"]})


def no_rows(number: int) -> pd.DataFrame:
    return rows(number).iloc[:0]


def frame(make: Callable[[int], pd.DataFrame] = rows, partitions: int = PARTITIONS) -> dd.DataFrame:
    made: dd.DataFrame = dd.from_map(make, range(partitions), meta=rows(0))
    return made


def prepare(place: Place, source: dd.DataFrame | None = None, **options: Any) -> LazyWrite:
    lazy: LazyWrite = place.writer().write_dataframe(
        frame() if source is None else source,
        "d",
        "parquet",
        compute=False,
        single_file=False,
        **options,
    )
    return lazy


def standing(place: Place) -> list[int]:
    """Check that what stands is whole and all there is; return its numbers."""
    path = f"{place.root}/output/d"
    verify(path, storage_options=place.options)
    assert_no_leftovers(place.root, storage_options=place.options)
    return sorted(read_dataset(path, storage_options=place.options).compute()["x"])


def collect_all(place: Place) -> list[str]:
    """Collect garbage as if every lease had run out."""
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        report = collect_garbage(place.root, older_than=0, storage_options=place.options)
    return [found.path for found in report.removed]


def stage_all(spec: RunSpec) -> Records:
    """Stage every partition; each time as an attempt of its own."""
    made: dict[int, Any] = {}
    for number in range(PARTITIONS):
        made |= tasks.write_part(rows(number), number, spec, None)
    return made


def spec_of(place: Place) -> RunSpec:
    return replace(prepare(place)._spec, partitions=PARTITIONS)


def test_nothing_is_claimed_before_all_is_staged(place: Place) -> None:
    """A partition without a record commits nothing, and takes no lease."""
    spec = spec_of(place)
    with pytest.raises(WriteFailedError, match="4 of 5 partitions have a record"):
        publishing.claim(PARTITIONS - 1, spec)
    assert place.files() == []


def test_what_was_not_counted_is_not_committed(place: Place) -> None:
    """Records that got lost on the way are an error."""
    records = stage_all(spec_of(place))
    assert publishing.check_counts(records, [2, 2, 1]) is records
    with pytest.raises(WriteFailedError, match="5 of 6 partitions were published"):
        publishing.check_counts(records, [2, 2, 2])


def test_parts_are_hidden_until_they_are_claimed(place: Place) -> None:
    """Publishing makes the parts of its partitions visible, and says so in their records."""
    spec = spec_of(place)
    records = stage_all(spec)
    assert publishing.publish(records, claimed=False, spec=spec) is records
    assert not [file for file in place.files() if file.startswith("output")]
    assert publishing.claim(PARTITIONS, spec)
    done = publishing.publish({0: records[0], 1: records[1]}, claimed=True, spec=spec)
    assert {part.staged for parts in done.values() for part in parts} == {""}
    assert len([file for file in place.files() if file.startswith("output")]) == 2
    assert finalize.finalize({**records, **done}, None, spec).rows == PARTITIONS
    assert standing(place) == list(range(PARTITIONS))
    assert not publishing.claim(PARTITIONS, spec)


def test_another_run_commits_between_claim_and_publication(place: Place) -> None:
    """Of two runs the slower one finds its attempts swept, and that its write is committed."""
    spec = spec_of(place)
    first, claimed = stage_all(spec), publishing.claim(PARTITIONS, spec)
    first = publishing.publish(first, claimed, spec)
    second, claimed = stage_all(spec), publishing.claim(PARTITIONS, spec)
    assert claimed
    result = finalize.finalize(first, None, spec)
    second = publishing.publish(second, claimed, spec)
    assert finalize.finalize(second, None, spec) == result
    assert standing(place) == list(range(PARTITIONS))


def test_computed_by_dask_and_again(place: Place) -> None:
    """Without our clean-up, and twice: each row is there once."""
    lazy = prepare(place)
    for compute in (dask.compute, dask.compute, lambda write: (write.compute(),)):
        (result,) = compute(lazy)
        assert (result.rows, result.partitions) == (PARTITIONS, PARTITIONS)
    assert standing(place) == list(range(PARTITIONS))


@pytest.mark.parametrize("compute", [LazyWrite.compute, dask.compute])
def test_a_dataset_without_parts(place: Place, compute: Callable[[LazyWrite], Any]) -> None:
    """There is nothing to publish, and a version all the same."""
    compute(prepare(place, frame(no_rows), partition_on=["town"]))
    assert standing(place) == []


def test_appending(place: Place) -> None:
    """Two versions, both published by tasks."""
    prepare(place).compute()
    prepare(place, frame(partial(rows, first=100)), append=True).compute()
    assert standing(place) == [*range(PARTITIONS), *range(100, 100 + PARTITIONS)]


def test_resumed_when_some_are_published(place: Place) -> None:
    """What a run that died had published is taken over, and nothing is written again."""
    fault = Fault("publish", "after", nth=2, error=Crash, outage=True)
    with inject(fault), pytest.raises(Crash):
        prepare(place).compute()
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        result = prepare(place, resume=True).compute()
    assert (result.rows, result.resumed) == (PARTITIONS, PARTITIONS)
    assert standing(place) == list(range(PARTITIONS))


def before_the_commit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen when all parts are published."""
    original = publishing.check_counts

    def check_counts(records: Records, counts: list[int]) -> Records:
        act()
        return original(records, counts)

    monkeypatch.setattr(publishing, "check_counts", check_counts)


def test_another_writer_is_faster(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version stands, without a part of the other."""
    prepare(place).compute()
    lazy, faster = prepare(place), prepare(place, frame(partial(rows, first=100), 1))
    before_the_commit(monkeypatch, faster.compute)
    with pytest.raises(ConcurrentWriteError):
        lazy.compute()
    assert standing(place) == [100]


def test_garbage_is_collected_before_the_commit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published parts that a collection took are not committed."""
    prepare(place).compute()
    lazy = prepare(place, frame(partial(rows, first=100)))

    def collect() -> None:
        time.sleep(1.3)  # the clock of S3 has whole seconds
        assert len(collect_all(place)) > PARTITIONS

    before_the_commit(monkeypatch, collect)
    with pytest.raises(WriteFailedError, match="garbage collection took"):
        dask.compute(lazy)
    assert standing(place) == list(range(PARTITIONS))


def test_a_sweep_that_is_cut_short_leaves_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a first write that fails, and dies before it removes what it published, nothing stays."""
    place = Place(str(tmp_path))
    remove = ObjectStore.remove

    def die(self: ObjectStore, paths: Any) -> None:
        if any(layout.write_id_of(path) and not layout.is_staged(path) for path in paths):
            raise Crash("injected")
        remove(self, paths)

    with monkeypatch.context() as patch:
        patch.setattr("pamola_dwriter.storage.posix.PosixStore.remove", die)
        fault = Fault("put_if", path="*/_manifest.json")
        with inject(fault), pytest.raises((Crash, DataWriteError)):
            prepare(place).compute()
    assert len([file for file in place.files() if file.startswith("output")]) == PARTITIONS
    collect_all(place)
    assert place.files() == []


class Straggler(WorkerPlugin):
    """Lets one worker, the first to publish, hang in it."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def setup(self, worker: Worker) -> None:
        self._original = publishing.publish_staged
        publishing.publish_staged = self._publish

    def _publish(self, *args: Any) -> None:
        mine = self._folder / str(os.getpid())
        mine.touch()
        try:
            os.link(mine, self._folder / "hangs")
        except FileExistsError:
            self._original(*args)
        else:
            (self._folder / "pid").write_text(mine.name)
            time.sleep(PATIENCE)


def done(handle: WriteFuture, stage: str) -> int:
    counts = handle.progress().stages.get(stage)
    return counts.done if counts else 0


def holders(key: str, dask_scheduler: Any) -> list[str]:
    task = dask_scheduler.tasks.get(key)
    return [worker.address for worker in task.who_has or ()] if task else []


@pytest.mark.slow
def test_a_claim_is_lost_at_the_end(tmp_path: Path) -> None:
    """When the worker that held it dies, what the other holds is not staged again."""
    folder, place, partitions = tmp_path / "gate", Place(str(tmp_path / "task")), 40
    folder.mkdir()
    with (
        servers.cluster(n_workers=2, dashboard=False) as running,
        Client(running.scheduler_address, set_as_default=False) as client,
        dask.config.set({"pamola-dwriter.gather-width": 4, "pamola-dwriter.fuse-stages": True}),
    ):
        client.register_plugin(Straggler(str(folder)))
        writer = place.writer(client=client)
        handle = writer.submit_dataframe(frame(partitions=partitions), "d", "parquet")
        groups = partitions // 4
        wait_until(lambda: done(handle, "publish") == groups - 1)
        (hanging,) = (
            address
            for address, pid in client.run(os.getpid).items()
            if str(pid) == (folder / "pid").read_text()
        )
        claim = layout.task_key("claim", handle.write_id)
        wait_until(lambda: client.run_on_scheduler(holders, claim) == [hanging])
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        assert handle.result(timeout=PATIENCE).rows == partitions
        last = handle.progress().stages
        assert last["claim"].retried
        assert last["part"].retried < partitions
    assert standing(place) == list(range(partitions))


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
