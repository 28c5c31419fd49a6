"""What fails for a passing reason is tried again, for a while, and is then done exactly once."""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from deploy.local import servers
from deploy.local.servers import S3Server
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.errors import TargetUnavailableError
from pamola_dwriter.spec import Redacted, WriteId
from pamola_dwriter.storage import failures, open_store, patience, posix
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.patience import Patience
from pamola_dwriter.storage.retrying import RetryingStore
from tests.places import TUNING, Place, batch
from tests.proxy import Proxy

PATIENT = replace(TUNING, retry_seconds=30)

OLD = WriteId("fedcba9876543210")
WRITE = WriteId("0123456789abcdef")
MANIFEST = "output/d/_manifest.json"

PASSING = ["lose", "drop", "500", "503", "429"]
EVERYTHING = frozenset(
    [
        "abort",
        "bucket",
        "complete",
        "create",
        "delete",
        "get",
        "head",
        "list",
        "part",
        "put",
        "uploads",
    ]
)


def part(number: int, write: WriteId = WRITE) -> str:
    return f"output/d/part-{number:05d}-{write}-00000000-000.csv"


def content(number: int) -> bytes:
    """The bytes of a part; those of the last take two requests."""
    return b"%d," % number * (3_000_000 if number == 3 else 10)


def stage(store: Store, write: WriteId = WRITE) -> dict[str, str]:
    """Stage four parts at once, as the workers do."""
    with ThreadPoolExecutor(4) as pool:
        tokens = pool.map(
            lambda n: store.stage(part(n, write), pa.py_buffer(content(n)), write), range(4)
        )
        return {part(n, write): token for n, token in enumerate(tokens)}


def replace_version(store: Store) -> None:
    """Overwrite a dataset, as a write does: every kind of request to a store occurs."""
    before = store.read_versioned(MANIFEST)
    store.check_writable(MANIFEST)
    staged = stage(store)
    assert not any(store.is_file(path) for path in staged)
    store.stage(part(9), pa.py_buffer(b"losing attempt"), WRITE)
    store.publish(staged)
    store.put("output/d/_parts.json", b"parts")
    store.put_if(MANIFEST, b"new", before.version if before else None)
    store.sweep("output/d", {OLD, WRITE}, [path.removeprefix("output/d/") for path in staged])
    store.note("_staging/note", b"note")


def assert_new_version(store: Store, place: Place) -> None:
    """The new version stands, whole and alone; a lock may stay beside what it guards."""
    wanted = [MANIFEST, "output/d/_parts.json", *(part(n) for n in range(4))]
    found = {f"output/{file}" for file in store.listdir("output") if not file.endswith(".lock")}
    assert found == set(wanted)
    assert [store.read(part(n)) for n in range(4)] == [content(n) for n in range(4)]
    assert store.read(MANIFEST) == b"new"
    assert store.listdir("_staging") == ["note"]
    assert place.pending_uploads() == []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses a tenth as long as they are for users."""
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.02)


@pytest.fixture
def direct(s3: S3Server, s3_task_dir: str) -> Store:
    """The task directory without a proxy, an old version of the dataset in it."""
    store = open_store(s3_task_dir, Redacted(s3.storage_options), TUNING)
    store.publish(stage(store, OLD))
    store.put_if(MANIFEST, b"old", None)
    return store


@contextmanager
def faulty(
    server: S3Server, root: str, *faults: str, kinds: frozenset[str] = EVERYTHING
) -> Iterator[tuple[Store, Proxy]]:
    """Open a store behind a proxy with `faults`."""
    with Proxy(server, *faults, kinds=kinds).listening() as proxy:
        yield open_store(root, Redacted(proxy.options(server, read_timeout=1)), PATIENT), proxy


# --- faults of S3 ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(EVERYTHING))
def test_any_request_may_fail_in_any_way(
    s3: S3Server, s3_place: Place, direct: Store, kind: str
) -> None:
    """Whichever request of a write fails for a passing reason, and how, it counts once."""
    with faulty(s3, s3_place.root, *PASSING, kinds=frozenset({kind})) as (store, proxy):
        replace_version(store)
        while proxy.faults:  # kinds of which a write has few
            store.check_writable(MANIFEST)
            store.is_file(part(0))
            store.remove([part(9)])
            store.read(part(0))
            store.sweep("output/d", {OLD}, ())
    assert_new_version(direct, s3_place)


@pytest.mark.parametrize("kind", ["complete", "create", "get", "part", "put"])
def test_stalled_request_is_given_up_and_sent_again(
    s3: S3Server, s3_place: Place, direct: Store, kind: str
) -> None:
    """A server that says nothing is asked again when the client's own time for it is up."""
    with faulty(s3, s3_place.root, "stall", kinds=frozenset({kind})) as (store, proxy):
        replace_version(store)
        assert not proxy.faults
    assert_new_version(direct, s3_place)


def test_error_inside_a_good_reply_is_seen(s3: S3Server, s3_place: Place, direct: Store) -> None:
    """S3 may answer a completion with status 200 and an error, of which the part knows nothing."""
    with faulty(s3, s3_place.root, *["200"] * 3, kinds=frozenset({"complete"})) as (store, proxy):
        replace_version(store)
        assert not proxy.faults
    assert_new_version(direct, s3_place)


@pytest.mark.parametrize("seed", range(3))
def test_overloaded_server_is_got_the_better_of(
    s3: S3Server, s3_place: Place, direct: Store, seed: int
) -> None:
    """Where every third request fails, an overwrite of many requests gets through all the same."""
    draw = random.Random(seed)
    faults = [draw.choice([*PASSING, "half", *[""] * 12]) for _ in range(400)]
    with faulty(s3, s3_place.root, *faults) as (store, _):
        replace_version(store)
    assert_new_version(direct, s3_place)


def test_file_is_read_though_connections_break(
    s3: S3Server, s3_place: Place, direct: Store
) -> None:
    """Each read of an open file is tried again, from where it began."""
    direct.put("x", data := random.Random(0).randbytes(300_000))
    with (
        faulty(s3, s3_place.root, kinds=frozenset({"get"})) as (store, proxy),
        store.open("x") as file,
    ):
        assert (file.seekable(), file.readable()) == (True, True)
        read = b""
        for fault in ("half", "500", "drop", "503", "lose"):
            proxy.faults.append(fault)
            read += file.read(50_000)
            assert not proxy.faults
        proxy.faults.append("half")
        buffer = bytearray(10_000)
        assert file.readinto(buffer) == 10_000  # type: ignore[attr-defined]
        read += buffer + file.read()
        assert read == data
        file.seek(-5, os.SEEK_END)
        assert (file.tell(), file.read(), file.read()) == (299_995, data[-5:], b"")


def test_read_that_goes_on_failing_is_explained(
    s3: S3Server, s3_place: Place, direct: Store
) -> None:
    """A read of an open file that is refused ends in one of our errors, and at once."""
    direct.put("x", b"data")
    with (
        faulty(s3, s3_place.root, kinds=frozenset({"get"})) as (store, proxy),
        store.open("x") as file,
    ):
        proxy.always = "403"
        with pytest.raises(TargetUnavailableError, match=r"cannot read 'x'.*injected"):
            file.read()
        assert proxy.requests["get"] == 1


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("bucket", lambda store: store.check_writable(MANIFEST)),  # may be forbidden
        ("create", lambda store: store.check_writable(MANIFEST)),
        ("create", stage),
        ("part", stage),
        ("put", lambda store: store.put("x", b"")),
        ("put", lambda store: store.put_if("x", b"", None)),
        ("put", lambda store: store.update("x", lambda data: b"x")),
        ("head", lambda store: store.is_file("x")),
        ("get", lambda store: store.read(MANIFEST)),
        ("get", lambda store: store.read_versioned(MANIFEST)),
        ("list", lambda store: store.listdir("")),
        ("uploads", lambda store: store.survey("")),
        ("delete", lambda store: store.remove(["x"])),
    ],
)
def test_refusal_is_final(
    s3: S3Server, s3_place: Place, direct: Store, kind: str, call: Callable[[Store], Any]
) -> None:
    """What S3 forbids is asked for once, and fails at once with S3's own words."""
    with faulty(s3, s3_place.root, kinds=frozenset({kind})) as (store, proxy):
        proxy.always = "403"
        if kind == "bucket":
            call(store)
        else:
            with pytest.raises(TargetUnavailableError, match=r"injected|Forbidden") as caught:
                call(store)
            assert (caught.value.transient, caught.value.answered) == (False, True)
            assert "given up" not in str(caught.value)
        assert proxy.requests[kind] <= (5 if call is stage else 1)
    assert s3_place.pending_uploads() == []


@pytest.mark.parametrize("fault", ["503", "500", "drop"])
def test_patience_has_an_end(
    s3: S3Server, s3_place: Place, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that never recovers is given up in time; the error says so, the log every try."""
    with Proxy(s3, kinds=EVERYTHING).listening() as proxy:
        proxy.always = fault
        options = proxy.options(s3)
        store = open_store(s3_place.root, Redacted(options), replace(TUNING, retry_seconds=0.5))
        for call in (lambda: store.put("x", b""), lambda: stage(store)):
            began = time.monotonic()
            with pytest.raises(
                TargetUnavailableError, match=r"given up after \d+ seconds"
            ) as caught:
                call()
            assert time.monotonic() - began >= 0.5
            assert caught.value.transient
            assert not caught.value.answered
    assert "trying again in" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert s3.access_key not in caplog.text + str(caught.value)
    assert s3.secret_key not in caplog.text + str(caught.value)


def _pauses(caplog: pytest.LogCaptureFixture, patience: Patience) -> list[float]:
    """Let something fail for good, and return how long it was waited between the tries."""

    def fail() -> None:
        raise ConnectionResetError("lost")

    caplog.clear()
    with pytest.raises(ConnectionResetError):
        patience.call(fail)
    return [record.args[1] for record in caplog.records]  # type: ignore[index, misc]


def test_pauses_grow_and_differ(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each pause is drawn below a bound that doubles up to the longest; all fit into the time."""
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.016)
    runs = [_pauses(caplog, Patience(0.3, failures.is_transient)) for _ in range(3)]
    for pauses in runs:
        bounds = [min(0.002 * 2**tried, 0.016) for tried in range(len(pauses))]
        assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
        assert sum(pauses) <= 0.3
    assert runs[0][:3] != runs[1][:3] != runs[2][:3]
    assert max(map(max, runs)) > 0.004


def test_lasting_failure_is_no_matter_of_patience(caplog: pytest.LogCaptureFixture) -> None:
    """What will not pass is raised by the first try."""
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        Patience(30, failures.is_transient).call(fail)
    assert tries == [1]
    assert caplog.records == []


def test_nothing_is_tried_again_without_patience(s3: S3Server, s3_place: Place) -> None:
    """With retry-seconds 0 every request is sent once, also by the libraries below."""
    with Proxy(s3, kinds=EVERYTHING).listening() as proxy:
        proxy.always = "503"
        store = open_store(s3_place.root, Redacted(proxy.options(s3)), TUNING)
        for call in (lambda: store.put("x", b""), lambda: store.listdir("")):
            with pytest.raises(TargetUnavailableError):
                call()
        with pytest.raises(TargetUnavailableError):
            store.stage(part(0), pa.py_buffer(b""), WRITE)
        assert proxy.requests == {"put": 1, "list": 1, "create": 1}


def test_absent_bucket_is_said_at_once(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt bucket is no passing failure, neither for a write nor for a read."""
    store = open_store("s3://nosuchbucket/task", Redacted(s3.storage_options), PATIENT)
    with pytest.raises(TargetUnavailableError, match="cannot write"):
        store.check_writable(MANIFEST)
    with pytest.raises(TargetUnavailableError, match=r"bucket does not exist; make the bucket"):
        store.read_versioned(MANIFEST)
    assert caplog.records == []


def test_requests_are_counted(s3: S3Server, s3_place: Place, direct: Store) -> None:
    """A part takes three requests, and one for every 5 MiB more; a commit takes one."""
    with faulty(s3, s3_place.root) as (store, proxy):
        staged = stage(store)
        assert proxy.requests == {"create": 4, "part": 4 + 1}
        proxy.requests.clear()
        store.publish(staged)
        assert proxy.requests == {"complete": 4}
        proxy.requests.clear()
        before = direct.read_versioned(MANIFEST)
        assert before is not None
        store.put_if(MANIFEST, b"new", before.version)
        assert proxy.requests == {"put": 1}
        proxy.requests.clear()
        store.update("log.json", lambda data: b"[]")
        assert proxy.requests == {"get": 1, "put": 1}
        proxy.requests.clear()
        store.check_writable(MANIFEST)
        assert proxy.requests == {"bucket": 1, "create": 1, "abort": 1}
        proxy.requests.clear()
        store.publish(staged)  # again, as a second run of finalize does
        assert proxy.requests["complete"] == 4
        assert proxy.requests["head"] <= 4  # where the server has forgotten the upload


def _people(partitions: int) -> dd.DataFrame:
    return dd.from_pandas(batch(0, 100), npartitions=partitions)


def test_requests_of_a_whole_write_are_counted(s3: S3Server, s3_place: Place) -> None:
    """Every partition more costs one creation, one upload and one completion, and one note."""
    counted = []
    with Proxy(s3).listening() as proxy, dask.config.set(scheduler="threads"):
        place = Place(s3_place.root, proxy.options(s3))
        for partitions in (2, 6):
            proxy.requests.clear()
            place.writer().write_dataframe(_people(partitions), f"people{partitions}", "parquet")
            counted.append(dict(proxy.requests))
    few, many = counted
    more = {kind: many[kind] - few[kind] for kind in many if many[kind] != few[kind]}
    assert {kind: more.pop(kind) for kind in ("create", "part", "complete")} == {
        "create": 4,
        "part": 4,
        "complete": 4,
    }
    assert more in ({}, {"put": 4})
    assert (few["create"], few["part"], few["complete"], few["abort"]) == (3, 2, 2, 1)


@pytest.mark.parametrize("key", [None, "env:PII_KEY"], ids=["plain", "encrypted"])
def test_whole_writes_get_through(
    s3: S3Server, s3_place: Place, pii_key: str, key: str | None
) -> None:
    """Two versions are written, and read, by way of a server that fails at every fifth request."""
    draw = random.Random(7)
    faults = [draw.choice([*PASSING, *[""] * 20]) for _ in range(1000)]
    with Proxy(s3, *faults, kinds=EVERYTHING).listening() as proxy:
        place = Place(s3_place.root, proxy.options(s3))
        writer = place.writer(encryption_key=key)
        writer.write_dataframe(_people(3), "people", "parquet")
        result = writer.write_dataframe(_people(5), "people", "parquet")
        read = place.read(result.path, encryption_key=key)
    pd.testing.assert_frame_equal(read, _people(5).compute())
    s3_place.assert_no_leftovers(result.write_id)


# --- a server that dies ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mortal() -> Iterator[S3Server]:
    """An S3 server that a test may kill."""
    with servers.s3_server() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "fault"), [("part", "drop"), ("complete", "lose"), ("put", "lose")]
)
def test_server_that_comes_back_has_everything_once(
    mortal: S3Server, kind: str, fault: str
) -> None:
    """A server killed within a stage, a publication or a manifest write, and started again."""
    place = Place(f"s3://{mortal.bucket}/{kind}-{fault}", mortal.storage_options)
    direct = open_store(place.root, Redacted(mortal.storage_options), PATIENT)
    direct.publish(stage(direct, OLD))
    direct.put_if(MANIFEST, b"old", None)
    with faulty(mortal, place.root, "", fault, kinds=frozenset({kind})) as (store, proxy):
        proxy.behind = mortal.restart
        replace_version(store)
        assert not proxy.faults
    assert_new_version(direct, place)


def test_server_that_is_down_for_a_while_is_waited_for(mortal: S3Server) -> None:
    """A write that begins while the server is down is prepared and committed when it is back."""
    place = Place(f"s3://{mortal.bucket}/down", mortal.storage_options)
    mortal.kill()
    with ThreadPoolExecutor(1) as pool:
        restarted = pool.submit(lambda: (time.sleep(1), mortal.start()))
        result = place.writer().write_dataframe(_people(3), "people", "parquet")
        restarted.result()
    pd.testing.assert_frame_equal(place.read(result.path), _people(3).compute())
    place.assert_no_leftovers(result.write_id)


# --- POSIX -------------------------------------------------------------------------------------


def patient(folder: Path) -> Store:
    return open_store(str(folder), Redacted({}), PATIENT)


class Failing:
    """A system call that fails some times, before or after it did what it is for."""

    def __init__(self, call: Callable[..., Any], number: int, *, after: bool) -> None:
        self.call, self.number, self.after, self.left = call, number, after, 2

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.left:
            return self.call(*args, **kwargs)
        self.left -= 1
        if self.after:
            done = self.call(*args, **kwargs)
            if isinstance(done, io.IOBase):
                done.close()
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["link", "replace", "fsync", "unlink", "mkdir"])
def test_stale_handle_of_a_shared_disk_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool
) -> None:
    """Where NFS says ESTALE twice, having done what it was asked for or not, all counts once.

    The system calls are patched, for no NFS server runs without root.
    """
    place, store = Place(str(tmp_path)), patient(tmp_path)
    store.publish(stage(store, OLD))
    store.put_if(MANIFEST, b"old", None)
    failing = Failing(getattr(os, name), errno.ESTALE, after=after)
    monkeypatch.setattr(os, name, failing)
    if name == "link":
        store.put_if("output/d/_parts.json", b"parts", None)
    replace_version(store)
    assert not failing.left
    assert_new_version(store, place)


def test_note_is_written_again_over_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second try of a note does not stumble over the file that the first one made."""
    monkeypatch.setattr(posix, "open", Failing(open, errno.ESTALE, after=True), raising=False)
    store = patient(tmp_path)
    store.note("_staging/note", b"note")
    assert store.read("_staging/note") == b"note"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_lasting_failure_of_a_disk_is_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A full, read-only or broken disk is not asked twice; real ones are in test_limits."""
    store = patient(tmp_path)
    failing = Failing(os.fsync, number, after=False)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(TargetUnavailableError, match=os.strerror(number)):
        store.put("x.json", b"new")
    assert failing.left == 1


def test_update_in_doubt_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that was made, though the disk said otherwise, is not made a second time."""
    store = patient(tmp_path)
    store.put("n", b"1")
    monkeypatch.setattr(os, "replace", Failing(os.replace, errno.ESTALE, after=True))
    with pytest.raises(TargetUnavailableError) as caught:
        store.update("n", lambda data: b"%d" % (int(data or 0) + 1))
    assert not caught.value.answered
    assert store.read("n") == b"2"


def test_nobody_waits_for_a_try_that_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two tries no lock is held: somebody else updates the file meanwhile."""
    store, other = patient(tmp_path), open_store(str(tmp_path), Redacted({}), TUNING)
    store.update("n", lambda data: b"1")
    present = store.read_versioned("n")
    assert present is not None
    make = os.replace

    def busy(*args: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            make(*args)
        else:
            raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "replace", busy)
    with ThreadPoolExecutor(1) as pool:
        tried = pool.submit(store.put_if, "n", b"ours", present.version)
        for count in range(2, 12):
            other.update("n", lambda data, count=count: b"%d" % count)  # type: ignore[misc]
            time.sleep(0.05)
        with pytest.raises(VersionConflict):
            tried.result(20)
    assert store.read("n") == b"11"


# --- any other store ---------------------------------------------------------------------------


class StatusError(Exception):
    """What the client of some store raises for a reply."""

    def __init__(self, status: Any) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class Unreliable(LocalFileSystem):
    """A file system that fails some times, before or after it did what it was asked for."""

    cachable = False
    failure: Exception = ConnectionResetError("lost")
    after = False
    left = 0

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise self.failure

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if not self.after:
            self._fail()
        super().pipe_file(path, value, mode, **kwargs)
        if self.after:
            self._fail()

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if not self.after:
            self._fail()
        super().mv(path1, path2, **kwargs)
        if self.after:
            self._fail()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "failure", [ConnectionResetError("lost"), StatusError(503), StatusError(429)]
)
def test_any_store_is_tried_again(tmp_path: Path, failure: Exception, *, after: bool) -> None:
    """Also on a store of which only fsspec is known, each write counts once."""
    file_system = Unreliable()
    store = RetryingStore(ObjectStore(file_system, str(tmp_path), TUNING), 30)
    file_system.failure, file_system.after = failure, after
    for number, act in enumerate(
        (
            lambda: store.put("a", b"a"),
            lambda: store.put_if("b", b"b", None),
            lambda: store.put_if("b", b"bb", store.read_versioned("b").version),  # type: ignore[union-attr]
            lambda: store.note("c", b"c"),
            lambda: store.publish({part(0): store.stage(part(0), pa.py_buffer(b"p"), WRITE)}),
            lambda: store.check_writable(MANIFEST),
            store.now,
        ),
        start=1,
    ):
        file_system.left = 2 if number % 2 else 1
        act()
        assert file_system.left == 0
    assert {path: store.read(path) for path in store.listdir("")} == {
        "a": b"a",
        "b": b"bb",
        "c": b"c",
        part(0): b"p",
    }


@pytest.mark.parametrize("status", [400, 403, 404, 501, 507, "503", None])
def test_other_replies_are_final(tmp_path: Path, status: Any) -> None:
    """A refusal, a thing that is not implemented or a full store is not tried again."""
    file_system = Unreliable()
    store = RetryingStore(ObjectStore(file_system, str(tmp_path), TUNING), 30)
    file_system.failure, file_system.left = StatusError(status), 9
    with pytest.raises(TargetUnavailableError, match=f"status {status}"):
        store.put("a", b"a")
    assert file_system.left == 8


def _caused_by(cause: Exception) -> Exception:
    error = RuntimeError("wrapped")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (TimeoutError(), True),
        (fsspec.exceptions.FSTimeoutError(), True),
        (BrokenPipeError(), True),
        (_caused_by(ConnectionRefusedError()), True),
        (OSError(errno.EAGAIN, ""), True),
        (OSError(errno.ENOSPC, ""), False),
        (PermissionError(errno.EACCES, ""), False),
        (_caused_by(socket.gaierror(socket.EAI_AGAIN, "")), True),
        (_caused_by(socket.gaierror(socket.EAI_NONAME, "")), False),
        (_caused_by(ssl.SSLCertVerificationError()), False),
        (ValueError("503"), False),
    ],
)
def test_failures_are_told_apart(error: Exception, *, transient: bool) -> None:
    """What the network or a busy system does may pass; what a person has to mend does not."""
    assert failures.is_transient(error) == transient
