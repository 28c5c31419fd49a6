"""Where a store refuses for good, a write says what to mend, and the version before it stands."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.dataframe as dd
import pandas as pd
import pytest

from deploy.local.servers import S3Server
from pamola_dwriter import collect_garbage
from pamola_dwriter.errors import DataWriteError
from tests.places import Place, batch
from tests.proxy import Proxy

LARGE = 40_000
"""Rows of which a part takes more than the limits below allow."""

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
"""Runs a program that may mount what it likes, which is gone with it."""

UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override"]
"""Lets root run a program that permissions bind like those of anybody else."""


def _can_mount() -> bool:
    """Whether this machine lets anybody mount something in a namespace; containers may not."""
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "t", "/tmp"]  # noqa: S108 - gone with it
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def call_elsewhere(command: list[str], function: Callable[[Path], None], root: Path) -> None:
    """Call a function of this module in a process that is started by `command`."""
    script = (
        "import dask, pathlib, tests.test_limits as here\n"
        "with dask.config.set(scheduler='threads'):\n"
        f"    here.{function.__name__}(pathlib.Path({str(root)!r}))"
    )
    done = subprocess.run(
        [*command, sys.executable, "-c", script],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[1],
        text=True,
    )
    assert done.returncode == 0, done.stderr


def mount(*arguments: str | Path) -> None:
    """Mount something, or mount it anew: again while a file in it is open for writing."""
    for _ in range(1000):
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False)  # noqa: S607
        if done.returncode == 0:
            return
        time.sleep(0.01)
    raise OSError(done.stderr.decode())


def collect(place: Place) -> None:
    """Collect what is garbage now, whoever may still be at work."""
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        assert collect_garbage(place.root, older_than="0s").removed


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Everything runs in this process, whose limits and rights the tests change."""
    with dask.config.set(scheduler="threads"):
        yield


def people(rows: int = 10) -> dd.DataFrame:
    return dd.from_pandas(batch(0, rows), npartitions=2)


def after(act: Callable[[], Any], rows: int = 10) -> dd.DataFrame:
    """A frame that does something when its last partition is computed."""

    def apply(partition: pd.DataFrame, partition_info: Any = None) -> pd.DataFrame:
        if partition_info and partition_info["number"] == 1:
            act()
        return partition

    return people(rows).map_partitions(apply, meta=batch(0, 1))


def fails(place: Place, frame: dd.DataFrame, *words: str, name: str = "people") -> None:
    """The write of `frame` ends in an error of ours that has these words, in this order."""
    with pytest.raises(DataWriteError, match="(?s)" + ".*".join(words)):
        place.writer().write_dataframe(frame, name, "csv")


def assert_stands(place: Place, write_id: str) -> None:
    """The version is whole, and nothing else is there."""
    read = place.read(f"{place.root}/output/people")
    pd.testing.assert_frame_equal(read, people().compute())
    place.assert_no_leftovers(write_id)


def write_first(place: Place) -> str:
    return place.writer().write_dataframe(people(), "people", "csv").write_id


# --- POSIX -------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the kernel refuse to write larger files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_file_beyond_the_limit(tmp_path: Path) -> None:
    """A part larger than the kernel lets this user write fails the write, and leaves nothing."""
    place = Place(str(tmp_path))
    first = write_first(place)
    with largest_file(200_000):
        fails(place, people(LARGE), "File too large", "ulimit -f", "more partitions")
    assert_stands(place, first)


def full(root: Path) -> None:
    """A disk without room for all parts."""
    mount("-t", "tmpfs", "t", root)
    place = Place(str(root))
    first = write_first(place)
    mount("-o", "remount,size=400k", root)
    fails(place, people(LARGE), "No space left on device", "free some space there")
    assert_stands(place, first)


def read_only(root: Path) -> None:
    """A disk that may only be read, as is found out before the work."""
    mount("-t", "tmpfs", "t", root)
    place = Place(str(root))
    first = write_first(place)
    mount("-o", "remount,ro", root)
    computed: list[int] = []
    frame = after(lambda: computed.append(1))
    fails(place, frame, "Read-only file system", "have it mounted for writing")
    assert computed == []
    assert_stands(place, first)


def read_only_all_at_once(root: Path) -> None:
    """A disk that the kernel makes read-only after a fault; what is staged there stays."""
    mount("-t", "tmpfs", "t", root)
    place = Place(str(root))
    first = write_first(place)
    frame = after(lambda: mount("-o", "remount,ro", root))
    fails(place, frame, "Read-only file system", "have it mounted for writing")
    mount("-o", "remount,rw", root)
    collect(place)
    assert_stands(place, first)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EDQUOT, "quota exceeded; free some of the quota or have it raised"),
        (errno.EROFS, r"Read-only file system.*; have it mounted for writing"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """What a disk refuses for good is said with what to do, and nothing is left.

    The system call is patched: a quota takes an administrator to set up, and a broken disk a
    hammer; the others are for machines that let nobody mount a file system.
    """
    place = Place(str(tmp_path))
    first = write_first(place)

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        fails(place, people(), words)
    assert_stands(place, first)


def dataset_closed(root: Path) -> None:
    """The dataset may not be written any more; what was staged for it is taken away."""
    place = Place(str(root))
    first = write_first(place)
    dataset = root / "output" / "people"
    lost = after(lambda: dataset.chmod(0o555))
    fails(place, lost, "Permission denied", "permission to, or write to another place")
    dataset.chmod(0o777)
    assert_stands(place, first)


def everything_closed(root: Path) -> None:
    """Nothing may be written any more; what was staged stays."""
    place = Place(str(root))
    first = write_first(place)

    def allow(mode: int) -> None:
        for folder, _, _ in os.walk(root):
            os.chmod(folder, mode)

    lost = after(lambda: allow(0o555))
    fails(place, lost, "Permission denied", "permission to, or write to another place")
    allow(0o777)
    collect(place)
    assert_stands(place, first)


def keeps_its_document(root: Path, refuse: Callable[[], object], *words: str) -> None:
    """An item that cannot be appended is said to be, and what stands there still stands."""
    writer = Place(str(root)).writer()
    writer.append_to_json_array("x" * 300_000, "log")
    before = (root / "log.json").read_bytes()
    refuse()
    with pytest.raises(DataWriteError) as caught:
        writer.append_to_json_array("y" * 300_000, "log")
    assert all(word in str(caught.value) for word in words)
    assert (root / "log.json").read_bytes() == before
    assert {file.name for file in root.iterdir() if file.is_file()} == {
        "log.json",
        "_log.json.lock",
    }


def document_closed(root: Path) -> None:
    """A folder that nothing may be written in any more."""
    keeps_its_document(root, lambda: root.chmod(0o555), "Permission denied", "have whoever writes")


def document_full(root: Path) -> None:
    """A disk without room for the old version and the new one."""
    mount("-t", "tmpfs", "t", root)
    shrink = partial(mount, "-o", "remount,size=700k", root)
    keeps_its_document(root, shrink, "No space left on device", "free some space there")


def document_read_only(root: Path) -> None:
    """A disk that may only be read any more."""
    mount("-t", "tmpfs", "t", root)
    close = partial(mount, "-o", "remount,ro", root)
    keeps_its_document(root, close, "Read-only file system", "have it mounted for writing")


LIMITS = dict.fromkeys(
    [dataset_closed, everything_closed, document_closed], UNPRIVILEGED if os.geteuid() == 0 else []
)
if _can_mount():
    on_disks = [full, read_only, read_only_all_at_once, document_full, document_read_only]
    LIMITS |= dict.fromkeys(on_disks, NAMESPACE)


@pytest.mark.parametrize("limit", LIMITS)
def test_real_limit(tmp_path: Path, limit: Callable[[Path], None]) -> None:
    """On a disk that is full or closed a write says what to do; what stood there still stands."""
    call_elsewhere(LIMITS[limit], limit, tmp_path)


def test_file_where_a_folder_was(tmp_path: Path) -> None:
    """Where somebody puts a file in the place of a folder that is written in, that is said."""
    place = Place(str(tmp_path))

    def replace() -> None:
        while not (tmp_path / "_staging").is_file():  # the other partition makes the folder again
            shutil.rmtree(tmp_path / "_staging", ignore_errors=True)
            with suppress(IsADirectoryError):
                (tmp_path / "_staging").touch()

    fails(place, after(replace), "Not a directory", "move the file away")
    assert place.files() == ["_staging"]


def test_path_too_long(tmp_path: Path) -> None:
    """A path longer than the system takes is refused before anything is computed."""
    place = Place(str(tmp_path))
    computed: list[int] = []
    with pytest.raises(DataWriteError, match=r"File name too long.*choose a shorter name"):
        place.writer().write_dataframe(
            after(lambda: computed.append(1)), "people", "csv", subdir="/".join(["d" * 200] * 25)
        )
    with pytest.raises(DataWriteError, match="shorten it"):
        place.writer().write_dataframe(people(), "n" * 300, "csv")
    assert (place.files(), computed) == ([], [])


def test_read_only_place() -> None:
    """A place that the kernel lets nobody write in, root neither, is found out before the work."""
    computed: list[int] = []
    frame = after(lambda: computed.append(1))
    fails(Place("/proc/sys/kernel"), frame, "cannot write in '/proc/sys/kernel'")
    assert computed == []


# --- S3 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path"),
    [("create", "part-"), ("part", "part-"), ("complete", "part-"), ("put", "_manifest.json")],
)
def test_permission_lost_on_s3(s3: S3Server, s3_place: Place, kind: str, path: str) -> None:
    """Credentials that may no longer write, in any phase: nothing is tried twice, or is left."""
    first = write_first(s3_place)
    with Proxy(s3, kinds=frozenset({kind})).listening() as proxy:
        proxy.always, proxy.only = "403", path
        place = Place(s3_place.root, proxy.options(s3))
        fails(place, people(), "injected; have whoever writes there given permission")
        assert proxy.requests["complete"] <= 2
    assert_stands(s3_place, first)


def test_part_too_large_for_s3(s3: S3Server, s3_place: Place) -> None:
    """S3's refusal of a part's size is said at once, with what makes parts smaller."""
    first = write_first(s3_place)
    with Proxy(s3, kinds=frozenset({"part"})).listening() as proxy:
        proxy.always = "400"
        place = Place(s3_place.root, proxy.options(s3))
        fails(place, people(), "injected; cut the data into more partitions")
        assert proxy.requests["part"] == 2
    assert_stands(s3_place, first)


def test_bucket_deleted_on_the_way(s3: S3Server) -> None:
    """A bucket deleted while its parts are staged is an error that says so, and stays deleted."""
    direct = Place(f"s3://{uuid4().hex}/task", s3.storage_options)
    file_system, root = direct._open()
    bucket = root.split("/")[0]
    file_system.call_s3("create_bucket", Bucket=bucket)

    def delete() -> None:
        if file_system.exists(bucket):
            file_system.rm(bucket, recursive=True)

    with Proxy(s3, "drop", kinds=frozenset({"complete"})).listening() as proxy:
        proxy.behind = delete
        place = Place(direct.root, proxy.options(s3))
        with pytest.raises(DataWriteError) as caught:
            place.writer().write_dataframe(people(), "people", "csv")
    assert "bucket does not exist; make the bucket" in f"{caught.value} {caught.value.__cause__}"
    assert bucket not in [each["Name"] for each in file_system.call_s3("list_buckets")["Buckets"]]
