"""What every store promises, held against each of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from deploy.local.servers import S3Server
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.errors import InvalidPathError, TargetUnavailableError
from pamola_dwriter.spec import Redacted, WriteId
from pamola_dwriter.storage import normalize_root, open_store

WRITE = WriteId("0123456789abcdef")
OTHER = WriteId("fedcba9876543210")
PART = f"output/d/part-00000-{WRITE}-00000000-000.csv"
PART_SIZE = 5 * 2**20


@pytest.fixture(params=["posix", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """One store of each kind, on an empty task directory."""
    options: dict[str, object] = {}
    if request.param == "posix":
        root = str(tmp_path)
    elif request.param == "memory":
        root = f"memory://{uuid4().hex}"
    else:
        server: S3Server = request.getfixturevalue("s3")
        root, options = request.getfixturevalue("s3_task_dir"), server.storage_options
    return open_store(root, Redacted(options), PART_SIZE)


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


def test_disk_full_is_explained(tmp_path: Path) -> None:
    """A device without space fails the stage with the path and the system's words."""
    (tmp_path / "_staging").symlink_to("/dev")
    store = open_store(str(tmp_path), Redacted({}), PART_SIZE)
    with pytest.raises(TargetUnavailableError, match="cannot write"):
        store.stage("output/x.csv", buffer(b"1"), WriteId("full/0123456789"))


@pytest.mark.parametrize("root", ["", "   ", "nosuchscheme://x"])
def test_unusable_roots_are_refused(root: str) -> None:
    """An empty path or an unknown scheme is an InvalidPathError."""
    with pytest.raises(InvalidPathError):
        normalize_root(root)
