"""What every store promises, held against each of them."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from deploy.local.servers import S3Server
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.errors import (
    InvalidPathError,
    TargetUnavailableError,
    UnsupportedDataError,
)
from pamola_dwriter.spec import Redacted, WriteId
from pamola_dwriter.storage import normalize_root, open_store
from pamola_dwriter.storage.objects import ObjectStore
from tests.places import TUNING

WRITE = WriteId("0123456789abcdef")
OTHER = WriteId("fedcba9876543210")
PART = f"output/d/part-00000-{WRITE}-00000000-000.csv"
PART_SIZE = TUNING.upload_part_size


@pytest.fixture(params=["posix", "s3", "memory", "folders"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """One store of each kind, on an empty task directory; the last knows no more than fsspec."""
    options: dict[str, object] = {}
    if request.param == "folders":
        return ObjectStore(LocalFileSystem(), str(tmp_path), TUNING)
    if request.param == "posix":
        root = str(tmp_path)
    elif request.param == "memory":
        root = f"memory://{uuid4().hex}"
    else:
        server: S3Server = request.getfixturevalue("s3")
        root, options = request.getfixturevalue("s3_task_dir"), server.storage_options
    return open_store(root, Redacted(options), TUNING)


def buffer(data: bytes) -> pa.Buffer:
    return pa.py_buffer(data)


@pytest.mark.parametrize("size", [0, 1, PART_SIZE, 2 * PART_SIZE + 1])
def test_published_bytes_are_the_staged_ones(store: Store, size: int) -> None:
    """Whatever the size, what is published is what was staged, and can be read in ranges."""
    data = bytes(range(251)) * (size // 251 + 1)
    token = store.stage(PART, buffer(data[:size]), WRITE)
    store.publish({PART: token})
    assert store.size(PART) == size
    assert store.read(PART) == data[:size]
    if size > 1:
        assert store.read(PART, 1, 9) == data[1 : min(9, size)]
    with store.open(PART) as file:
        assert file.read() == data[:size]


def test_publishing_again_changes_nothing(store: Store) -> None:
    """A second finalize publishes the same parts without an error."""
    token = store.stage(PART, buffer(b"x,y\n"), WRITE)
    store.publish({PART: token})
    store.publish({PART: token})
    assert store.read(PART) == b"x,y\n"


def test_staged_part_is_invisible_where_the_store_can(store: Store) -> None:
    """POSIX and S3 show nothing in the dataset before it is published."""
    store.stage(PART, buffer(b"x"), WRITE)
    if not repr(store).startswith("<ObjectStore"):
        assert store.listdir("output/d") == []


def test_sweep_removes_what_was_staged_or_published_by_one_write(store: Store) -> None:
    """Sweeping a write takes its parts, kept ones excepted, and leaves those of others."""
    kept = f"part-00001-{WRITE}-00000000-000.csv"
    foreign = f"part-00000-{OTHER}-00000000-000.csv"
    for path, write in ((PART, WRITE), (f"output/d/{kept}", WRITE), (f"output/d/{foreign}", OTHER)):
        store.publish({path: store.stage(path, buffer(b"1"), write)})
    store.stage(f"output/d/part-00002-{WRITE}-00000000-000.csv", buffer(b"2"), WRITE)
    store.stage("output/single.csv", buffer(b"3"), WRITE)
    store.sweep("output/d", {WRITE}, {kept})
    assert store.listdir("output/d") == sorted([foreign, kept])
    assert store.listdir("_staging") == []
    store.sweep("output/d", {WRITE}, {kept})


def test_manifest_is_created_by_one_of_many(store: Store) -> None:
    """Of eight creators at once exactly one succeeds, and its bytes stand."""
    if repr(store).startswith("<ObjectStore"):
        put = [_attempt(store, number) for number in range(8)]
    else:
        with ThreadPoolExecutor(8) as pool:
            put = list(pool.map(lambda number: _attempt(store, number), range(8)))
    (winner,) = (number for number, won in enumerate(put) if won)
    assert store.read("output/d/_manifest.json") == b"%d" % winner


def _attempt(store: Store, number: int) -> bool:
    try:
        store.put_if("output/d/_manifest.json", b"%d" % number, None)
    except VersionConflict:
        return False
    return True


def test_manifest_is_replaced_only_if_unchanged(store: Store) -> None:
    """A stale version, or one where there is none, is a conflict that changes nothing."""
    path = "output/d/_manifest.json"
    assert store.read_versioned(path) is None
    with pytest.raises(VersionConflict):
        store.put_if(path, b"zero", '"0123456789abcdef0123456789abcdef"')
    store.put_if(path, b"one", None)
    first = store.read_versioned(path)
    assert first is not None
    assert first.data == b"one"
    store.put_if(path, b"two", first.version)
    for stale in (first.version, None):
        with pytest.raises(VersionConflict):
            store.put_if(path, b"three", stale)
    assert store.read(path) == b"two"


def test_single_file_is_published_whole(store: Store) -> None:
    """A single file is absent until published, and then replaced at once."""
    path = "output/single.csv"
    token = store.stage(path, buffer(b"old"), WRITE)
    assert not store.is_file(path)
    store.publish({path: token})
    again = store.stage(path, buffer(b"new"), OTHER)
    assert store.read(path) == b"old"
    store.publish({path: again})
    assert store.read(path) == b"new"
    with pytest.raises(VersionConflict):
        store.publish({path: store.stage(path, buffer(b"no"), OTHER)}, overwrite=False)
    assert store.read(path) == b"new"


def test_single_file_is_created_once_by_two_runs(store: Store) -> None:
    """A finalize that died after creating its file, and is run again, finds it its own."""
    path = "output/single.csv"
    token = store.stage(path, buffer(b"mine"), WRITE)
    store.publish({path: token}, overwrite=False)
    store.publish({path: token}, overwrite=False)
    assert store.read(path) == b"mine"


@pytest.mark.parametrize(
    "call",
    [lambda s: s.read("absent"), lambda s: s.size("absent"), lambda s: s.open("absent").read()],
)
def test_absent_file_is_file_not_found(store: Store, call: Callable[[Store], object]) -> None:
    """Reading what is not there is FileNotFoundError on every store."""
    with pytest.raises(FileNotFoundError):
        call(store)


def test_remove_takes_what_is_there(store: Store) -> None:
    """Removing takes files that exist, whatever is absent, and reads no pattern into a name."""
    for name in ("a[1].json", "a1.json", "b.json"):
        store.put(name, b"1")
    store.remove(["absent.json", "a[1].json", "absent/too.json", "b.json"])
    store.remove(())
    assert store.listdir("") == ["a1.json"]


def test_check_of_a_new_place_leaves_no_trace(store: Store, tmp_path: Path) -> None:
    """Whether a path can be written is found out without leaving a file or folder."""
    store.check_writable("output/d/_manifest.json")
    assert store.listdir("") == []
    assert list(tmp_path.iterdir()) == []


def test_check_keeps_folders_in_use(tmp_path: Path) -> None:
    """The check removes only the folders that it made, a missing task directory among them."""
    ObjectStore(LocalFileSystem(), str(tmp_path / "a" / "task"), TUNING).check_writable("x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "_staging").mkdir()
    ObjectStore(LocalFileSystem(), str(tmp_path), TUNING).check_writable("x")
    assert os.listdir(tmp_path) == ["_staging"]


def test_unwritable_store_is_found_out() -> None:
    """On a file system of which nothing is known, the check writes: here the kernel refuses."""
    with pytest.raises(TargetUnavailableError, match="cannot write"):
        ObjectStore(LocalFileSystem(), "/proc/sys", TUNING).check_writable("output/x.json")


class NoReplace(LocalFileSystem):
    """A file system whose rename replaces no file: it raises as smb does, or says nothing."""

    cachable = False
    silent = False

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if not self.exists(path2):
            super().mv(path1, path2, **kwargs)
        elif not self.silent:
            raise FileExistsError(path2)


@pytest.mark.parametrize("silent", [False, True])
def test_put_replaces_where_rename_does_not(tmp_path: Path, *, silent: bool) -> None:
    """A small file is replaced also where the file system refuses to rename over it."""
    file_system = NoReplace()
    file_system.silent = silent
    store = ObjectStore(file_system, str(tmp_path), TUNING)
    for data in (b"one", b"two"):
        store.put("output/x.json", data)
        assert store.read("output/x.json") == data
    assert store.listdir("") == ["output/x.json"]


def test_reader_never_sees_half_a_file(store: Store) -> None:
    """While a small file is replaced again and again, a reader finds one version or the other."""
    versions = [letter * 2**22 for letter in (b"a", b"b")]
    store.put("x.json", versions[0])
    with _meanwhile(lambda: _check_whole(store)):
        for number in range(12):
            store.put("x.json", versions[number % 2])


def _check_whole(store: Store) -> None:
    found = store.read("x.json")
    assert (len(found), len(set(found))) == (2**22, 1)


@contextmanager
def _meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Repeat `action` in a thread until the block ends; what it raises is raised here."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            action()

    with ThreadPoolExecutor(1) as pool:
        repeated = pool.submit(repeat)
        try:
            yield
        finally:
            ended.set()
            repeated.result()


def test_writers_survive_the_sweeps_of_others(tmp_path: Path) -> None:
    """Folders that another writer removes because they are empty are made again."""
    store, other = (open_store(str(tmp_path), Redacted({}), TUNING) for _ in range(2))

    def sweep() -> None:
        other.sweep("output/d", {OTHER}, ())

    with _meanwhile(sweep), _meanwhile(sweep):
        for number in range(60):
            path = f"output/d/country=FR/part-{number:05d}-{WRITE}-00000000-000.csv"
            store.publish({path: store.stage(path, buffer(b"x"), WRITE)})
            store.put("output/d/_manifest.json", b"x")
            store.remove([path, "output/d/_manifest.json"])


def test_new_folders_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder made on the way to a file is synced into the one above it."""
    synced: list[str] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    store = open_store(str(tmp_path / "new" / "task"), Redacted({}), TUNING)
    path = f"output/d/country=FR/{PART.rpartition('/')[2]}"
    store.publish({path: store.stage(path, buffer(b"x"), WRITE)})
    store.put("logs/run/x.json", b"x")
    wanted = ["", "new", "new/task", "new/task/output", "new/task/output/d", "new/task/logs"]
    wanted += ["new/task/output/d/country=FR", "new/task/logs/run"]
    assert {str(tmp_path / folder).rstrip("/") for folder in wanted} <= set(synced)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let the kernel refuse to write larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_file_that_does_not_fit_is_explained(tmp_path: Path) -> None:
    """A file the disk has no room for is refused with the system's words and leaves nothing."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.put("x.json", b"old")
    with _largest_file(1000):
        for write in (
            lambda data: store.stage("output/x.csv", buffer(data), WRITE),
            lambda data: store.put("x.json", data),
            lambda data: store.update("x.json", lambda _: data),
        ):
            with pytest.raises(TargetUnavailableError, match=r"cannot write .*too large") as caught:
                write(bytes(5000))
            assert caught.value.answered
    assert store.read("x.json") == b"old"
    assert store.listdir("_staging") == []


@pytest.mark.parametrize(
    ("number", "answered"),
    [(errno.ENOSPC, True), (errno.EIO, False), (errno.ESTALE, False), (errno.ETIMEDOUT, False)],
)
def test_doubtful_failure_is_not_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, answered: bool
) -> None:
    """After an error that a server of NFS may give for what it did, nothing is certain."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(TargetUnavailableError) as caught:
        store.put_if("x.json", b"new", None)
    assert caught.value.answered == answered


def test_unconfirmed_folder_is_not_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When only the sync of the folder fails, the file stands, whatever the reason was."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path):
            raise OSError(errno.ENOSPC, "no space left")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TargetUnavailableError, match="did not confirm") as caught:
        store.put_if("x.json", b"new", None)
    assert not caught.value.answered
    assert store.read("x.json") == b"new"


@pytest.fixture
def s3_store(s3: S3Server, s3_task_dir: str) -> Any:
    """A store on the S3 server."""
    return open_store(s3_task_dir, Redacted(s3.storage_options), TUNING)


@pytest.fixture
def called(s3_store: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that `s3_store` sends, one upload in a page of a listing."""
    methods: list[str] = []
    call = s3_store._fs._call_s3

    async def spy(method: str, *args: Any, **kwargs: Any) -> Any:
        methods.append(method)
        if method != "list_multipart_uploads":
            return await call(method, *args, **kwargs)
        return await call(method, *args, MaxUploads=1, **kwargs)

    monkeypatch.setattr(s3_store._fs, "_call_s3", spy)
    return methods


def test_all_pages_of_uploads_are_swept(s3_store: Any, called: list[str]) -> None:
    """Uploads are aborted on every page of a listing, which here names no next key."""
    others = PART.replace(WRITE, OTHER)
    for number in range(4):
        path = PART.replace("part-00000", f"part-{number:05d}")
        s3_store.stage(path, buffer(b"x"), WRITE)
    token = s3_store.stage(others, buffer(b"y"), OTHER)
    s3_store.sweep("output/d", {WRITE}, ())
    assert called.count("abort_multipart_upload") == 4
    assert called.count("list_multipart_uploads") > 1
    s3_store.publish({others: token})
    assert s3_store.read(others) == b"y"


def test_single_file_is_swept_without_asking_for_uploads(s3_store: Any, called: list[str]) -> None:
    """A single file is no multipart upload, so sweeping one does not list those of the bucket."""
    s3_store.stage("output/single.csv", buffer(b"x"), WRITE)
    s3_store.sweep_staged(WRITE)
    assert s3_store.listdir("_staging") == []
    assert "list_multipart_uploads" not in called


def test_unreachable_server_is_explained(s3: S3Server, s3_store: Any, s3_task_dir: str) -> None:
    """When the server is gone at the time of publishing, the error is one of ours."""
    token = s3_store.stage(PART, buffer(b"x"), WRITE)
    options = {
        **s3.storage_options,
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    gone = open_store(s3_task_dir, Redacted(options), TUNING)
    with pytest.raises(TargetUnavailableError, match=r"127\.0\.0\.1:9") as caught:
        gone.publish({PART: token})
    assert not caught.value.answered


def test_file_larger_than_s3_takes_is_refused(s3_store: Any, tmp_path: Path) -> None:
    """A single file of more than 5 GiB is refused before a byte of it is sent."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(5 * 2**30 + 1)
    with pa.memory_map(str(tmp_path / "large")) as mapped:
        data = mapped.read_buffer()
        began = time.monotonic()
        with pytest.raises(UnsupportedDataError, match="single_file=False"):
            s3_store.stage("output/large.csv", data, WRITE)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("root", ["", "   ", "nosuchscheme://x"])
def test_unusable_roots_are_refused(root: str) -> None:
    """An empty path or an unknown scheme is an InvalidPathError."""
    with pytest.raises(InvalidPathError):
        normalize_root(root)


@pytest.mark.parametrize(
    "root",
    [
        "s3://AKIAEXAMPLE:wJalrXUtnFEMI@bucket/x",
        "s3://AKIAEXAMPLE:wJalr/XUtnFEMI+bPx@bucket/x",
        "ftp://user:wJalrXUtnFEMI@host:21/x",
        "ftp://user:0042@host",
        "simplecache::sftp://user:wJalrXUtnFEMI@host/x",
        "s3://:wJalrXUtnFEMI@",
    ],
)
def test_password_in_a_url_is_refused(root: str) -> None:
    """A password in a URL would show everywhere, so it is refused, and not repeated."""
    with pytest.raises(InvalidPathError, match="storage_options") as caught:
        normalize_root(root)
    assert "wJalr" not in str(caught.value)
    assert "0042" not in str(caught.value)


@pytest.mark.parametrize(
    "root",
    [
        "s3://bucket/a:b@c",
        "ftp://user@host:21/x",
        "ftp://host:21/a@b",
        "abfs://container@account.dfs.core.windows.net/x",
        "/data/a:b@c",
    ],
)
def test_other_signs_in_a_url_are_kept(root: str) -> None:
    """A user, a port, a container or a strange name is no password."""
    assert normalize_root(root) == root
