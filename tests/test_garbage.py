"""Garbage collection removes what writes left that ended badly, and nothing anybody needs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest

from pamola_dwriter import GarbageReport, collect_garbage, finalize, garbage, verify
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    InvalidWriteError,
    WriteFailedError,
)
from pamola_dwriter.lease import Lease
from tests.gates import LET_THROUGH, gated, make_source
from tests.places import Place

PARTITIONS = 6


@pytest.fixture(autouse=True)
def no_lease() -> Iterator[None]:
    """A write that gives no sign of life is dead at once."""
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        yield


@pytest.fixture
def frame() -> dd.DataFrame:
    numbers = range(60)
    people = pd.DataFrame({"x": numbers, "name": [f"person {n}" for n in numbers]})
    return dd.from_pandas(people, npartitions=PARTITIONS)


def collect(place: Place, **options: Any) -> GarbageReport:
    arguments = {"older_than": 0, "storage_options": place.options, **options}
    return collect_garbage(place.root, **arguments)


def interrupt(
    place: Place, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch, step: str, **options: Any
) -> None:
    """Let a write end in an unknown outcome instead of making its n-th step of the commit."""

    def vanish(*args: Any, **kwargs: Any) -> Any:
        raise CommitOutcomeUnknownError("the store is gone")

    with monkeypatch.context() as patch:
        patch.setattr(finalize, step, vanish)
        with pytest.raises(CommitOutcomeUnknownError, match="store is gone"):
            place.writer().write_dataframe(frame, "people", "parquet", **options)


@pytest.mark.parametrize("step", ["read_manifest", "put_version"])
@pytest.mark.parametrize("first", [True, False])
def test_what_an_interrupted_write_left_is_removed(
    place: Place,
    key: str | None,
    frame: dd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
    step: str,
) -> None:
    """Staged or published, over a version or none: all of it goes, and the version stays."""
    kept = [] if first else [place.writer().write_dataframe(frame, "people", "parquet")]
    interrupt(place, frame, monkeypatch, step, encryption_key=key)
    left = [*place.files(), *place.pending_uploads()]
    planned = collect(place, dry_run=True)
    assert [*place.files(), *place.pending_uploads()] == left
    report = collect(place)
    assert planned.removed == report.removed
    assert (planned.dry_run, report.dry_run) == (True, False)
    assert len(report.removed) >= 2 * PARTITIONS
    assert report.kept == ()
    place.assert_no_leftovers(*(result.write_id for result in kept))
    if kept:
        assert verify(kept[0].path, storage_options=place.options).rows == 60
    assert collect(place).removed == ()


@pytest.mark.slow
def test_write_under_way_is_never_touched(place: Place, key: str | None, tmp_path: Path) -> None:
    """However long a partition takes: while its client lives, a write is left alone."""
    source = make_source(tmp_path, PARTITIONS)
    with dask.config.set({"pamola-dwriter.lease-seconds": 1, "num_workers": 4}):
        handle = place.writer().submit_dataframe(
            gated(source), "people", "parquet", encryption_key=key
        )
        while sum("/record-" in file for file in place.files()) < LET_THROUGH:
            time.sleep(0.02)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            report = collect(place)
            assert report.removed == ()
            time.sleep(0.1)
        assert report.kept
        assert all("sign of life" in each.reason for each in report.kept)
        (source.parent / "open").touch()
        result = handle.result(timeout=60)
    assert result.rows == PARTITIONS * 10
    verify(result.path, encryption_key=key, storage_options=place.options)
    place.assert_no_leftovers(result.write_id)


def test_clock_of_the_collector_does_not_matter(
    place: Place, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two days ahead or behind, the collector tells the age of files by the store's clock."""
    interrupt(place, frame, monkeypatch, "put_version")
    for skew in (timedelta(days=2), timedelta(days=-2)):

        class Skewed(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + skew  # noqa: B023 - used within the loop

        now = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now() + skew.total_seconds())  # noqa: B023
            patch.setattr(garbage, "datetime", Skewed)
            assert collect(place, older_than="1h").removed == ()


def test_files_of_others_are_never_touched(
    place: Place, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever bears no name that this package gives stays, wherever it lies."""
    interrupt(place, frame, monkeypatch, "put_version")
    file_system, root = place._open()
    (write_id,) = {f.split("/")[1] for f in place.files() if f.startswith("_staging/")}
    foreign = {
        "_staging/notes.txt",
        f"_staging/{write_id}/notes.txt",
        "_staging/tmp-mine",
        "output/part-00000.parquet",
        "output/people/part-0.parquet",
        "output/other/_manifest.json",
        f"logs/{write_id}.json",
    }
    for file in foreign:
        file_system.makedirs(f"{root}/{file}".rpartition("/")[0], exist_ok=True)
        file_system.pipe_file(f"{root}/{file}", b"{}")
    report = collect(place)
    assert set(place.files()) == foreign
    assert report.unopened == ("output/other",)


def test_losing_attempts_of_a_committed_write_are_removed(
    place: Place, key: str | None, frame: dd.DataFrame
) -> None:
    """What a zombie put after the commit goes; if it is encrypted, only with the key."""
    result = place.writer().write_dataframe(frame, "people", "parquet", encryption_key=key)
    file_system, root = place._open()
    part = next(file for file in place.files() if "part-00000" in file)
    zombie = part.replace(f"{result.write_id}-", f"{result.write_id}-dead", 1)
    zombie = zombie[: zombie.index("dead") + 8] + zombie[zombie.index("dead") + 12 :]
    file_system.copy(f"{root}/{part}", f"{root}/{zombie}")
    staged = f"_staging/{result.write_id}/{part.rpartition('/')[2]}.0123abcd"
    file_system.makedirs(f"{root}/_staging/{result.write_id}", exist_ok=True)
    file_system.pipe_file(f"{root}/{staged}", b"late")
    report = collect(place)
    expected = {staged} if key else {staged, zombie}
    assert {each.path for each in report.removed} == expected
    assert report.unopened == (("output/people",) if key else ())
    collect(place, encryption_key=key)
    place.assert_no_leftovers(result.write_id)
    assert zombie not in place.files()
    verify(result.path, encryption_key=key, storage_options=place.options)


def test_dataset_whose_manifest_is_gone_is_kept(place: Place, frame: dd.DataFrame) -> None:
    """Parts whose manifest somebody deleted or damaged are data, not garbage."""
    result = place.writer().write_dataframe(frame, "people", "parquet")
    parts = [file for file in place.files() if "/part-" in file]
    file_system, root = place._open()
    file_system.pipe_file(f"{root}/output/people/_manifest.json", b"damaged")
    assert collect(place).unopened == ("output/people",)
    file_system.rm_file(f"{root}/output/people/_manifest.json")
    report = collect(place)
    assert [each.path for each in report.kept] == parts
    assert {each.write_id for each in report.kept} == {result.write_id}
    assert [file for file in place.files() if "/part-" in file] == parts


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Files that live for a moment are removed once they are older than that."""
    place = Place(str(tmp_path))
    for kind in ("tmp", "probe"):
        file = tmp_path / "_staging" / f"{kind}-0123456789abcdef"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert collect(place, older_than="1h").removed == ()
    assert len(collect(place).removed) == 2
    assert place.files() == []


def test_collected_write_cannot_commit(
    place: Place, key: str | None, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that wakes up after its parts were collected fails, and the old version stands."""
    first = place.writer().write_dataframe(frame, "people", "parquet", encryption_key=key)
    confirm = Lease.confirm

    def sleep_through_a_collection(lease: Lease) -> None:
        removed, deadline = 0, time.monotonic() + 30
        while removed <= PARTITIONS:  # the lease may be renewed at that very moment
            assert time.monotonic() < deadline
            removed += len(collect(place).removed)
        confirm(lease)

    monkeypatch.setattr(Lease, "confirm", sleep_through_a_collection)
    with pytest.raises(WriteFailedError, match="garbage collection"):
        place.writer().write_dataframe(frame, "people", "parquet", encryption_key=key)
    monkeypatch.undo()
    verify(first.path, encryption_key=key, storage_options=place.options)
    collect(place)
    place.assert_no_leftovers(first.write_id)


@pytest.mark.parametrize("step", ["read_manifest", "put_version"])
def test_collected_write_is_not_resumed(
    place: Place, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """After a collection there is nothing to resume: all is written anew."""
    interrupt(place, frame, monkeypatch, step)
    collect(place)
    result = place.writer().write_dataframe(frame, "people", "parquet", resume=True)
    assert result.resumed == 0
    place.assert_no_leftovers(result.write_id)


def test_writes_go_on_during_collections(place: Place, frame: dd.DataFrame) -> None:
    """Overwrites and appends commit one after the other while garbage is collected all the time."""
    over, removed = threading.Event(), 0

    def collect_all_the_time() -> None:
        nonlocal removed
        while not over.is_set():
            with dask.config.set({"pamola-dwriter.lease-seconds": 30}):
                removed += len(collect(place).removed)

    collector = threading.Thread(target=collect_all_the_time)
    with dask.config.set({"pamola-dwriter.lease-seconds": 30}):
        collector.start()
        try:
            writer = place.writer()
            for _ in range(4):
                writer.write_dataframe(frame, "people", "parquet")
                result = writer.write_dataframe(frame, "people", "parquet", append=True)
        finally:
            over.set()
            collector.join()
    assert removed == 0
    assert verify(result.path, storage_options=place.options).rows == 120


@pytest.mark.parametrize("span", ["soon", -1, True, None, "-1h"])
def test_impossible_age_is_refused(tmp_path: Path, span: Any) -> None:
    """older_than must be a span of time."""
    with pytest.raises(InvalidWriteError, match="older_than"):
        collect_garbage(tmp_path, older_than=span)


def test_command_collects(
    tmp_path: Path, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``pamola-dwriter gc`` lists with --dry-run and removes without, past --older-than."""
    place = Place(str(tmp_path))
    interrupt(place, frame, monkeypatch, "put_version")
    monkeypatch.setenv("DASK_PAMOLA_DWRITER__LEASE_SECONDS", "0")

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "pamola_dwriter", "gc", place.root, *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert "sign of life" in run()
    before = place.files()
    assert run("--older-than", "0s", "--dry-run").count("would be removed: ") >= 2 * PARTITIONS
    assert place.files() == before
    assert '"removed": [{' in run("--older-than", "0s", "--json")
    assert place.files() == []
