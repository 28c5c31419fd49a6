"""Each store holds what every store promises, and what it promises alone."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from deploy.local.servers import S3Server
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    InvalidPathError,
    TargetUnavailableError,
    UnsupportedDataError,
)
from pamola_dwriter.spec import Redacted, WriteId
from pamola_dwriter.storage import normalize_root, open_store
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.posix import PosixStore
from pamola_dwriter.storage.s3 import S3Store
from pamola_dwriter.testing.suite import StoreSuite
from tests.places import TUNING

WRITE = WriteId("0123456789abcdef")
OTHER = WriteId("fedcba9876543210")
PART = f"output/d/part-00000-{WRITE}-00000000-000.csv"

Opener = Callable[[], Store]


def buffer(data: bytes) -> pa.Buffer:
    return pa.py_buffer(data)


class TestPosix(StoreSuite):
    """A directory on a local disk."""

    clock_step = 0.05

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: open_store(str(tmp_path), Redacted({}), TUNING)


class TestS3(StoreSuite):
    """A bucket of a real S3 server."""

    @pytest.fixture
    def opener(self, s3: S3Server, s3_task_dir: str) -> Opener:
        return lambda: open_store(s3_task_dir, Redacted(s3.storage_options), TUNING)


class TestMemory(StoreSuite):
    """The memory of this process."""

    shows_staged_parts = True
    clock_step = 0.05

    @pytest.fixture
    def opener(self) -> Opener:
        root = f"memory://{uuid4().hex}"
        return lambda: open_store(root, Redacted({}), TUNING)


class TestFolders(StoreSuite):
    """A file system of which no more is known than what fsspec says of any."""

    shows_staged_parts = True
    clock_step = 0.05

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: ObjectStore(LocalFileSystem(), str(tmp_path), TUNING)


@pytest.mark.parametrize("kind", [PosixStore, ObjectStore])
def test_check_of_a_new_place_makes_no_folder(kind: type[ObjectStore], tmp_path: Path) -> None:
    """Whether a path can be written is found out without leaving as much as a folder."""
    kind(LocalFileSystem(), str(tmp_path), TUNING).check_writable("output/d/_manifest.json")
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
    """A store on the S3 server, with nothing around it."""
    file_system, root = url_to_fs(s3_task_dir, use_listings_cache=False, **s3.storage_options)
    return S3Store(file_system, root, TUNING)


@pytest.fixture
def called(s3_store: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that `s3_store` sends, one upload and two objects in a page of a listing."""
    methods: list[str] = []
    call = s3_store._fs._call_s3
    pages = {"list_multipart_uploads": {"MaxUploads": 1}, "list_objects_v2": {"MaxKeys": 2}}

    async def spy(method: str, *args: Any, **kwargs: Any) -> Any:
        methods.append(method)
        return await call(method, *args, **pages.get(method, {}), **kwargs)

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


@pytest.mark.parametrize("kind", ["posix", "s3"])
def test_a_late_publication_meets_a_sweep(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was cut off can publish nothing when the parts to remove are listed."""
    if kind == "s3":
        store = request.getfixturevalue("s3_store")
    else:
        store = PosixStore(LocalFileSystem(), str(tmp_path), TUNING)
    staged = {PART: store.stage(PART, buffer(b"x"), WRITE)}
    late: list[OSError] = []
    listdir = store.listdir

    def list_and_publish(path: str) -> list[str]:
        found = listdir(path)
        if path == "output/d":
            with pytest.raises(OSError, match=PART) as raised:
                store.publish(staged)
            late.append(raised.value)
        return found

    monkeypatch.setattr(store, "listdir", list_and_publish)
    store.sweep("output/d", {WRITE}, ())
    assert len(late) == 1
    assert listdir("output/d") == []


def test_all_pages_of_a_list_are_read(s3_store: Any, called: list[str]) -> None:
    """Every object is listed once, in order, however many pages that takes."""
    names = [f"{folder}/{number}.json" for folder in "ab" for number in range(4)]
    for name in reversed(names):
        s3_store.put(f"listed/{name}", b"{}")
    s3_store.put("listed.json", b"{}")
    assert s3_store.listdir("listed") == names
    assert called.count("list_objects_v2") == 4
    assert [found.path for found in s3_store.survey("listed/a")] == [
        f"listed/{name}" for name in names[:4]
    ]


def test_a_list_that_is_cut_short_is_an_error(
    s3_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server leaves out, and names no way to, is never taken for absent."""
    call = s3_store._fs._call_s3

    async def cut_short(method: str, *args: Any, **kwargs: Any) -> Any:
        page = await call(method, *args, **kwargs)
        return {**page, "IsTruncated": True} if method == "list_objects_v2" else page

    monkeypatch.setattr(s3_store._fs, "_call_s3", cut_short)
    with pytest.raises(TargetUnavailableError, match="cut the list short"):
        s3_store.listdir("")


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
