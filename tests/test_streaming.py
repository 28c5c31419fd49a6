"""A stream commits whole versions of what is still being made, and keeps nothing of a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pyarrow as pa
import pytest

from pamola_dwriter import (
    HierarchicalProgressTracker,
    WriteStream,
    collect_garbage,
    finalize,
    read_dataset,
    verify,
)
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    DataWriteError,
    InvalidWriteError,
    SchemaMismatchError,
    TargetExistsError,
    TargetNotFoundError,
    TargetUnavailableError,
    UnsupportedDataError,
    WriteFailedError,
)
from pamola_dwriter.storage.posix import PosixStore
from pamola_dwriter.testing import assert_no_leftovers
from tests.places import Place, batch


def open_stream(place: Place, key: str | None = None, **options: Any) -> WriteStream:
    return place.writer().open_stream("people", encryption_key=key, **options)


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """A local task directory."""
    return Place(str(tmp_path / "task"))


def staged(place: Place) -> list[str]:
    return [file for file in place.files() if file.startswith("_staging/")]


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_leaving_the_body_commits_everything(place: Place, key: str | None) -> None:
    """All batches are one version, in parts of so many rows."""
    with open_stream(place, key, part_rows=25) as stream:
        for first in range(0, 100, 10):
            stream.write(batch(first))
        assert stream.result is None
    result = stream.result
    assert result is not None
    assert (result.rows, result.partitions, stream.rows) == (100, 4, 100)
    pd.testing.assert_frame_equal(place.read(result.path, encryption_key=key), batch(0, 100))
    report = verify(result.path, encryption_key=key, storage_options=place.options)
    assert report.rows == 100
    place.assert_no_leftovers(result.write_id)


def test_an_exception_in_the_body_keeps_the_last_commit(place: Place, key: str | None) -> None:
    """What was written since the last commit is discarded, parts and all."""

    def body(stream: WriteStream) -> None:
        with stream:
            stream.write(batch(0))
            stream.commit()
            stream.write(batch(10))
            raise ZeroDivisionError

    stream = open_stream(place, key, part_rows=5)
    with pytest.raises(ZeroDivisionError):
        body(stream)
    committed = stream.result
    assert committed is not None
    pd.testing.assert_frame_equal(place.read(committed.path, encryption_key=key), batch(0))
    place.assert_no_leftovers(committed.write_id)


def test_an_exception_before_any_commit_leaves_nothing(place: Place) -> None:
    """The version that was there before stands."""
    with open_stream(place) as stream:
        stream.write(batch(50))
    before = stream.result
    assert before is not None

    def body() -> None:
        with open_stream(place, part_rows=1) as stream:
            stream.write(batch(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    pd.testing.assert_frame_equal(place.read(before.path), batch(50))
    place.assert_no_leftovers(before.write_id)


def test_readers_see_whole_versions_while_it_runs(local: Place) -> None:
    """With commit_every, a reader sees a growing dataset, cut between batches only."""
    seen: list[int] = []
    with open_stream(local, commit_every=0.2, part_rows=1000) as stream:
        for first in range(0, 100, 10):
            stream.write(batch(first))
            time.sleep(0.1)
            try:
                stored = local.read(f"{local.root}/output/people")
            except TargetNotFoundError:
                continue
            pd.testing.assert_frame_equal(stored, batch(0, len(stored)))
            seen.append(len(stored))
    assert seen == sorted(seen)
    assert all(rows % 10 == 0 for rows in seen)
    assert 0 < seen[0] < 100
    assert len(local.read(f"{local.root}/output/people")) == 100


def test_time_ends_a_part_while_nobody_writes(local: Place) -> None:
    """A slow producer's rows are durable after part_seconds, and visible after commit_every."""
    with open_stream(local, part_seconds=0.1, commit_every="300ms") as stream:
        stream.write(batch(0))
        deadline = time.monotonic() + 20
        while stream.result is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(local.read(stream.result.path)) == 10


def test_bytes_end_a_part(local: Place) -> None:
    """A part ends when its rows take so much memory."""
    with open_stream(local, part_bytes="1kB") as stream:
        for first in range(0, 100, 10):
            stream.write(batch(first))
    assert stream.result is not None
    assert 2 <= stream.result.partitions <= 10


def test_streams_add_to_a_dataset(place: Place, key: str | None) -> None:
    """append=True goes on where the last stream ended; without it the dataset is replaced."""
    for first in (0, 10):
        with open_stream(place, key, append=True) as stream:
            stream.write(batch(first))
    assert stream.result is not None
    assert len(place.read(stream.result.path, encryption_key=key)) == 20
    with open_stream(place, key) as stream:
        stream.write(batch(20))
    pd.testing.assert_frame_equal(place.read(stream.result.path, encryption_key=key), batch(20))
    place.assert_no_leftovers(stream.result.write_id)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_formats_and_kinds_of_batch(local: Place, format: str) -> None:
    """Frames, Arrow tables and dicts of columns make one dataset, in any format."""
    with open_stream(local, format=format) as stream:
        stream.write(batch(0))
        stream.write(pa.table({"x": list(range(10, 20)), "name": ["b"] * 10}))
        stream.write({"name": ["c"], "x": [20]})
    assert stream.result is not None
    assert stream.result.format == f"partitioned_{format}"
    assert local.read(stream.result.path)["x"].tolist() == list(range(21))


def test_a_refused_batch_leaves_the_stream_open(local: Place) -> None:
    """Wrong columns or no frame at all cost that batch alone."""
    with open_stream(local) as stream:
        stream.write(batch(0))
        with pytest.raises(SchemaMismatchError, match="'more'"):
            stream.write(batch(10).assign(more=1))
        with pytest.raises(UnsupportedDataError):
            stream.write([1, 2, 3])
        stream.write(batch(10))
    assert stream.result is not None
    pd.testing.assert_frame_equal(local.read(stream.result.path), batch(0, 20))


def test_a_part_that_fails_ends_the_stream(
    local: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is raised once more by every later call, logged once, and leaves nothing."""
    stage = PosixStore.stage

    def fail(self: PosixStore, path: str, *args: Any) -> str:
        if "part-00001" in path:
            raise OSError(28, "No space left on device")
        return stage(self, path, *args)

    monkeypatch.setattr(PosixStore, "stage", fail)
    stream = open_stream(local, part_rows=10)

    def write_all() -> None:
        for first in range(0, 50, 10):
            stream.write(batch(first))
        stream.close()

    with pytest.raises(WriteFailedError) as caught:
        write_all()
    assert isinstance(caught.value.__cause__, OSError)
    for call in (stream.close, stream.commit, lambda: stream.write(batch(0))):
        with pytest.raises(WriteFailedError):
            call()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert local.files() == []


@pytest.mark.parametrize(
    "other", [pd.Series(["text"]), pd.Series([0.5]), pd.Series([True]), pd.Series([2**60 + 0.0])]
)
def test_values_that_do_not_fit_are_refused_alone(local: Place, other: pd.Series[Any]) -> None:
    """A batch of another type is refused by its column; no value of the others is bent."""
    exact = pd.DataFrame({"x": [2**53 + 1]})
    with open_stream(local) as stream:
        stream.write(exact)
        if other.dtype == float and other[0] == 2**60:
            stream.write(pd.DataFrame({"x": other}))
        else:
            with pytest.raises(SchemaMismatchError, match="'x'"):
                stream.write(pd.DataFrame({"x": other}))
    assert stream.result is not None
    assert local.read(stream.result.path)["x"].tolist()[0] == 2**53 + 1


def test_a_batch_may_be_used_again(local: Place) -> None:
    """What was written is what the frame held then, whatever becomes of it."""
    frame = pd.DataFrame({"x": [0]})
    with open_stream(local) as stream:
        for number in range(3):
            frame.loc[0, "x"] = number
            stream.write(frame)
    assert stream.result is not None
    assert local.read(stream.result.path)["x"].tolist() == [0, 1, 2]


def test_nulls_alone_ask_for_a_schema(local: Place) -> None:
    """A column of which the first batch tells nothing is refused, saying what to give."""
    unknown = pd.DataFrame({"x": pd.Series([None], dtype=object)})
    with open_stream(local) as stream, pytest.raises(UnsupportedDataError, match="schema="):
        stream.write(unknown)


def test_an_interrupt_after_the_commit_takes_nothing_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the old version is swept leaves the new one whole."""

    def interrupt(*args: Any, **kwargs: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with open_stream(place) as stream:
        stream.write(batch(0))
    stream = open_stream(place)
    stream.write(batch(10))
    monkeypatch.setattr(finalize, "_sweep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stream.close()
    assert stream.result is not None
    pd.testing.assert_frame_equal(place.read(stream.result.path), batch(10))


def test_an_unknown_outcome_deletes_nothing(local: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody can say whether a commit that broke off went through, its parts stay."""

    def vanish(*args: Any) -> None:
        raise TargetUnavailableError("the disk is gone")

    def interrupt(*args: Any) -> None:
        monkeypatch.setattr(PosixStore, "read_versioned", vanish)
        raise KeyboardInterrupt

    stream = open_stream(local)
    stream.write(batch(0))
    monkeypatch.setattr(finalize, "_sweep", interrupt)
    with pytest.raises(CommitOutcomeUnknownError, match="nothing was deleted"):
        stream.close()
    monkeypatch.undo()
    with pytest.raises(CommitOutcomeUnknownError):
        stream.close()
    pd.testing.assert_frame_equal(local.read(f"{local.root}/output/people"), batch(0))
    assert any(file.endswith("/lease.json") for file in staged(local))


def test_a_garbage_collection_spares_an_open_stream(place: Place, key: str | None) -> None:
    """What a stream has not committed shows signs of life, however long nobody writes."""
    with (
        dask.config.set({"pamola-dwriter.lease-seconds": 1}),
        open_stream(place, key, part_rows=10) as stream,
    ):
        stream.write(batch(0))
        stream.commit()
        stream.write(batch(10))
        for _ in range(8):
            time.sleep(0.5)
            report = collect_garbage(
                place.root,
                older_than=0,
                encryption_key=key,
                storage_options=place.options,
            )
            assert report.removed == ()
        assert {"part", "leas"} <= {each.path.rpartition("/")[2][:4] for each in report.kept}
    assert stream.result is not None
    read = place.read(stream.result.path, encryption_key=key)
    pd.testing.assert_frame_equal(read, batch(0, 20))
    assert_no_leftovers(place.root, encryption_key=key, storage_options=place.options)


def test_a_stream_that_was_collected_commits_nothing_more(local: Place) -> None:
    """Parts that a garbage collection took are missed by the commit, not by readers."""
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        stream = open_stream(local, part_rows=10)
        stream.write(batch(0))
        stream.commit()
        stream.write(batch(10))
        wait_until(lambda: any("part-" in file for file in staged(local)))
        assert collect_garbage(local.root, older_than=0).removed
        with pytest.raises(WriteFailedError, match="a garbage collection took"):
            stream.close()
    pd.testing.assert_frame_equal(local.read(f"{local.root}/output/people"), batch(0))
    assert_no_leftovers(local.root)


def test_a_named_index_is_kept(place: Place, key: str | None) -> None:
    """The index of the first batch is stored with every part, and comes back under its name."""
    frames = [batch(first).set_index("name") for first in (0, 10)]
    with open_stream(place, key, part_rows=10) as stream:
        for frame in frames:
            stream.write(frame)
    assert stream.result is not None
    stored = read_dataset(
        stream.result.path, encryption_key=key, storage_options=place.options
    ).compute()
    pd.testing.assert_frame_equal(stored, pd.concat(frames))


def test_a_version_of_somebody_else_is_not_added_to(local: Place) -> None:
    """A stream whose last version was overwritten says so, and leaves the other one alone."""
    stream = open_stream(local)
    stream.write(batch(0))
    stream.commit()
    with open_stream(local) as other:
        other.write(batch(90))
    stream.write(batch(10))
    with pytest.raises(ConcurrentWriteError):
        stream.close()
    assert other.result is not None
    pd.testing.assert_frame_equal(local.read(other.result.path), batch(90))


def test_an_empty_stream(local: Place) -> None:
    """No batch and no schema commit nothing; a schema makes a dataset without rows."""
    with open_stream(local) as stream:
        pass
    assert stream.result is None
    assert local.files() == []
    with open_stream(local, schema=pa.schema({"x": pa.int64()})) as stream:
        pass
    assert stream.result is not None
    assert stream.result.rows == 0
    assert list(local.read(stream.result.path).columns) == ["x"]
    with open_stream(local) as stream:
        stream.write(batch(0, 0))
    assert stream.result is not None
    assert list(local.read(stream.result.path).columns) == ["x", "name"]


def test_an_ended_stream_says_so(local: Place) -> None:
    """close() may be called again; writing more is an error that says how to go on."""
    with open_stream(local) as stream:
        stream.write(batch(0))
    assert stream.close() == stream.result
    with pytest.raises(InvalidWriteError, match="append=True"):
        stream.write(batch(10))
    stream.abort()
    assert "ended: 10 rows" in repr(stream)


def test_threads_may_write(local: Place) -> None:
    """Eight threads that write at once lose no row."""
    with open_stream(local, part_rows=7) as stream:
        threads = [
            threading.Thread(target=lambda n=n: stream.write(batch(n * 10))) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stream.result is not None
    pd.testing.assert_frame_equal(local.read(stream.result.path), batch(0, 80))


def test_no_thread_outlives_a_stream(local: Place) -> None:
    """Neither the clock nor the threads that write parts go on after the end."""
    with open_stream(local, commit_every=60) as stream:
        stream.write(batch(0))
    assert not [t for t in threading.enumerate() if t.name.startswith(("pamola-s", "pamola-c"))]


def test_tracker_counts_parts(local: Place) -> None:
    """A stream is one subtask of the caller's tracker, of a length nobody knows beforehand."""
    tracker = HierarchicalProgressTracker(1, "operation")
    writer = local.writer(progress_tracker=tracker)
    with writer.open_stream("people", part_rows=10) as stream:
        for first in range(0, 50, 10):
            stream.write(batch(first))
    assert tracker.n == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part_rows": 0}, "part_rows"),
        ({"part_rows": True}, "part_rows"),
        ({"part_bytes": "much"}, "part_bytes"),
        ({"part_seconds": -1}, "part_seconds"),
        ({"commit_every": "often"}, "commit_every"),
        ({"commit_evry": 1}, "did you mean 'commit_every'"),
        ({"format": "docx"}, "unknown format"),
    ],
)
def test_bad_options_are_refused_before_any_batch(
    local: Place, options: dict[str, Any], message: str
) -> None:
    """Opening a stream checks everything that needs no data."""
    with pytest.raises(InvalidWriteError, match=message):
        open_stream(local, **options)


def test_overwrite_false_is_refused_with_the_first_batch(local: Place) -> None:
    """What stands there is looked at when there is something to write."""
    for _ in range(2):
        stream = open_stream(local, overwrite=False)
        try:
            stream.write(batch(0))
        except DataWriteError as error:
            refused: DataWriteError = error
        stream.close()
    assert isinstance(refused, TargetExistsError)
    assert len(local.read(f"{local.root}/output/people")) == 10
