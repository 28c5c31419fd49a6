"""Azure and Google: the promises of a store, whole writes, and what each of them does its own way.

The servers are emulators; where one of them differs from what the vendor documents, a test here
says so, and the store holds to the vendor.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest
from azure.core.exceptions import ServiceResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient
from azure.storage.blob.aio import BlobClient
from distributed import Client
from fsspec.registry import _registry

from deploy.local import emulators, processes, servers
from pamola_dwriter import DataWriter, collect_garbage, finalize, verify
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    InvalidPathError,
    TargetUnavailableError,
)
from pamola_dwriter.spec import Redacted, Tuning, WriteId, WriterResult
from pamola_dwriter.storage import open_store
from pamola_dwriter.testing import assert_no_leftovers
from pamola_dwriter.testing.suite import StoreSuite
from tests.places import TUNING, Place, batch

PARTITIONS = 4
WRITERS = 4
WRITE = WriteId("0123456789abcdef")
PART = f"output/d/part-00000-{WRITE}-00000000-000.csv"
MANIFEST = "output/d/_manifest.json"
NO_RPC = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@pytest.fixture(scope="module")
def azure() -> Iterator[emulators.AzureServer]:
    """An Azure emulator with an empty container."""
    with emulators.azure_server() as server:
        yield server


@pytest.fixture(scope="module")
def gcs() -> Iterator[emulators.GcsServer]:
    """A Google emulator with an empty bucket."""
    with emulators.gcs_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in NO_RPC.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def azure_place(azure: emulators.AzureServer) -> Place:
    """A task directory in the container that no other test knows."""
    return Place(f"abfs://{azure.container}/{uuid4().hex}", azure.storage_options)


@pytest.fixture
def gcs_place(gcs: emulators.GcsServer) -> Place:
    """A task directory in the bucket that no other test knows."""
    return Place(f"gs://{gcs.bucket}/{uuid4().hex}", gcs.storage_options)


@pytest.fixture(params=["azure_place", "gcs_place"])
def place(request: pytest.FixtureRequest) -> Place:
    """A task directory in each cloud."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def workers(pii_key: str) -> Iterator[servers.Cluster]:
    """A scheduler and a worker that know the key and reach the emulators."""
    environment = {"PII_KEY": pii_key, **NO_RPC}
    with servers.cluster(1, 2, environment, dashboard=False) as running:
        yield running


def _open(place: Place, tuning: Tuning = TUNING) -> Store:
    return open_store(place.root, Redacted(place.options), tuning)


def people(first: int = 0) -> dd.DataFrame:
    """Return 20 people from two towns, in four partitions."""
    frame = batch(first, 20)
    return dd.from_pandas(frame.assign(town=["A", "B"] * 10), npartitions=PARTITIONS)


def write(place: Place, frame: dd.DataFrame, **options: Any) -> WriterResult:
    """Write an encrypted dataset, a folder for each town."""
    arguments = {"partition_on": ["town"], "write_index": False, **options}
    return place.writer().write_dataframe(
        frame, "people", "parquet", encryption_key="env:PII_KEY", **arguments
    )


def assert_stands(place: Place, *firsts: int) -> None:
    """Assert that these batches stand, each once, and that every part is in order."""
    path = f"{place.root}/output/people"
    stored = place.read(path, encryption_key="env:PII_KEY")
    wanted = pd.concat([batch(first, 20) for first in firsts], ignore_index=True)
    assert list(stored["x"]) == list(wanted["x"])
    assert list(stored["name"]) == list(wanted["name"])
    assert list(stored["town"].astype(str)) == ["A", "B"] * (len(wanted) // 2)
    verify(path, encryption_key="env:PII_KEY", storage_options=place.options)


def assert_clean(place: Place, *results: WriterResult) -> None:
    """Assert that nothing stands but what these writes committed."""
    assert_no_leftovers(
        place.root,
        storage_options=place.options,
        encryption_key="env:PII_KEY",
        write_ids=[result.write_id for result in results],
    )


def interrupt(place: Place, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a write end in an unknown outcome, everything published and no manifest."""

    def vanish(*args: Any, **kwargs: Any) -> Any:
        raise CommitOutcomeUnknownError("the store is gone")

    with monkeypatch.context() as patch:
        patch.setattr(finalize, "put_version", vanish)
        with pytest.raises(CommitOutcomeUnknownError, match="store is gone"):
            write(place, frame)


# --- promises ----------------------------------------------------------------------------------


class TestAzure(StoreSuite):
    """Azure Blob Storage keeps every promise of a store."""

    @pytest.fixture
    def opener(self, azure_place: Place) -> Callable[[], Store]:
        return lambda: _open(azure_place)


class TestGcs(StoreSuite):
    """Google Cloud Storage keeps every promise of a store."""

    @pytest.fixture
    def opener(self, gcs_place: Place) -> Callable[[], Store]:
        return lambda: _open(gcs_place)


# --- whole writes ------------------------------------------------------------------------------


def test_dataset_is_written_appended_to_and_overwritten(place: Place, pii_key: str) -> None:
    """Threads write, append and overwrite; each version is read back, and nothing else stays."""
    first = write(place, people(0))
    assert_stands(place, 0)
    assert_clean(place, first)
    second = write(place, people(20), append=True)
    assert_stands(place, 0, 20)
    assert_clean(place, first, second)
    third = write(place, people(40))
    assert_stands(place, 40)
    assert_clean(place, third)


def test_cluster_writes(place: Place, workers: servers.Cluster) -> None:
    """The workers of a cluster write, append and overwrite straight to the store."""
    with Client(workers.scheduler_address):
        writes = [write(place, people(0)), write(place, people(20), append=True)]
        assert_stands(place, 0, 20)
        assert_clean(place, *writes)
        last = write(place, people(40))
        assert_stands(place, 40)
    assert_clean(place, last)


def test_what_an_interrupted_write_left_is_collected(
    place: Place, pii_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a write left that never committed is removed, and the version before it stays."""
    kept = write(place, people(0))
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        interrupt(place, people(20), monkeypatch)
        report = collect_garbage(
            place.root,
            older_than=0,
            encryption_key="env:PII_KEY",
            storage_options=place.options,
        )
    assert len(report.removed) >= PARTITIONS
    assert_stands(place, 0)
    assert_clean(place, kept)


def test_staged_blocks_are_collected(azure_place: Place, pii_key: str) -> None:
    """Blocks that no version names and no commit will are garbage like any file."""
    kept = write(azure_place, people(0))
    store = _open(azure_place)
    store.stage(f"output/people/part-00000-{WRITE}-00000000-000.parquet", pa.py_buffer(b"x"), WRITE)
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        report = collect_garbage(
            azure_place.root, older_than=0, storage_options=azure_place.options
        )
    (removed,) = report.removed
    assert (removed.write_id, removed.is_upload) == (WRITE, True)
    assert_clean(azure_place, kept)


def test_interrupted_write_is_resumed(
    place: Place, pii_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that got no further than its last part computes none of them again."""
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        interrupt(place, people(0), monkeypatch)
        result = write(place, people(0), resume=True)
    assert result.resumed == PARTITIONS
    assert_stands(place, 0)
    assert_clean(place, result)


def test_one_of_many_writers_wins_each_version(place: Place, pii_key: str) -> None:
    """Of several threads, one makes the dataset and one replaces it; the others leave nothing."""
    for _ in range(2):
        lazy = [write(place, people(20 * number), compute=False) for number in range(WRITERS)]
        start = threading.Barrier(WRITERS)

        def run(
            number: int, lazy: list[Any] = lazy, start: threading.Barrier = start
        ) -> tuple[int, WriterResult] | None:
            start.wait(60)
            try:
                return number, lazy[number].compute()
            except ConcurrentWriteError:
                return None

        with ThreadPoolExecutor(WRITERS) as pool:
            ((winner, result),) = filter(None, pool.map(run, range(WRITERS)))
        assert_stands(place, 20 * winner)
        assert_clean(place, result)


# --- each in its own way -----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["abfs", "gs"])
def test_server_that_is_away_is_given_up_in_time(
    azure: emulators.AzureServer, gcs: emulators.GcsServer, scheme: str
) -> None:
    """Whatever is asked of a server that refuses connections, the error comes in time."""
    port = processes.free_ports(1)[0]
    server = {"abfs": azure, "gs": gcs}[scheme]
    place = Place(f"{scheme}://lake/d", server.storage_options_by(port))
    store = _open(place, replace(TUNING, retry_seconds=0.2))
    calls: list[Callable[[], object]] = [
        lambda: store.check_writable("x"),
        lambda: store.is_file("x"),
        lambda: store.listdir("x"),
        lambda: store.size("x"),
        lambda: store.read("x"),
        lambda: store.open("x"),
        lambda: store.read_versioned("x"),
        lambda: store.stage(PART, pa.py_buffer(b"x"), WRITE),
        lambda: store.publish({PART: "1"}),
        lambda: store.put("x", b"1"),
        lambda: store.put_if("x", b"1", None),
        lambda: store.update("x", lambda data: b"1"),
        lambda: store.survey(""),
        store.now,
        lambda: store.find_staged("output/d", {PART: "1"}),
        lambda: store.remove(["x"]),
        lambda: store.sweep("output/d", {WRITE}, ()),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(TargetUnavailableError, match=r"given up after|Connect"):
            call()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("scheme", ["abfs", "gs"])
def test_bucket_that_is_gone_is_no_absent_file(
    azure_place: Place, gcs_place: Place, scheme: str
) -> None:
    """Where there is no container or bucket nothing can be said of the files in it."""
    options = {"abfs": azure_place, "gs": gcs_place}[scheme].options
    store = _open(Place(f"{scheme}://gone/d", options))
    for look in (store.read_versioned, store.is_file, store.size):
        with pytest.raises(TargetUnavailableError, match=r"container does not exist|no bucket"):
            look(MANIFEST)


def _container(azure: emulators.AzureServer) -> ContainerClient:
    connection = azure.storage_options["connection_string"]
    return BlobServiceClient.from_connection_string(connection).get_container_client(
        azure.container
    )


def test_file_is_one_request_however_large(
    azure: emulators.AzureServer, azure_place: Place
) -> None:
    """Past the size at which the SDK would send blocks, a file is still written at once."""
    _open(azure_place).put("x.json", bytes(65 * 2**20))
    with _container(azure) as container:
        key = azure_place.root.partition(f"://{azure.container}/")[2] + "/x.json"
        with container.get_blob_client(key) as blob:
            assert blob.get_blob_properties().size == 65 * 2**20
            assert blob.get_block_list("all") == ([], [])


def test_lease_of_somebody_is_no_conflict(azure: emulators.AzureServer, azure_place: Place) -> None:
    """A manifest that somebody holds a lease on was not changed by anybody: the reason is said."""
    store = _open(azure_place)
    store.put_if(MANIFEST, b"one", None)
    seen = store.read_versioned(MANIFEST)
    assert seen is not None
    with _container(azure) as container:
        key = azure_place.root.partition(f"://{azure.container}/")[2] + f"/{MANIFEST}"
        with container.get_blob_client(key) as blob:
            lease = blob.acquire_lease(15)
            with pytest.raises(TargetUnavailableError, match="lease"):
                store.put_if(MANIFEST, b"two", seen.version)
            lease.release()
    store.put_if(MANIFEST, b"two", seen.version)


def test_dropped_part_goes_also_when_the_reply_is_lost(
    azure_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty file that drops blocks is deleted by the next try, if not by this one."""
    store = _open(azure_place, replace(TUNING, retry_seconds=10))
    store.stage(PART, pa.py_buffer(b"x"), WRITE)
    commit, lost = BlobClient.commit_block_list, []

    async def lose(self: Any, *args: Any, **options: Any) -> Any:
        reply = await commit(self, *args, **options)
        if not lost:
            lost.append(reply)
            raise ServiceResponseError("reply lost")
        return reply

    monkeypatch.setattr(BlobClient, "commit_block_list", lose)
    store.discard(store.survey(""))
    assert len(lost) == 1
    assert store.survey("") == []


def test_published_part_is_not_dropped(azure_place: Place) -> None:
    """What was published since it was surveyed, be it empty, is kept by a late collection."""
    store = _open(azure_place)
    for data in (b"x", b""):
        token = store.stage(PART, pa.py_buffer(data), WRITE)
        garbage = store.survey("")
        assert [each.upload is None for each in garbage] == [False]
        store.publish({PART: token})
        store.discard(garbage)
        assert store.read(PART) == data
        store.remove([PART])


def test_listing_has_more_than_a_page(gcs_place: Place) -> None:
    """A directory of more files than one reply lists is listed whole."""
    store = _open(gcs_place)
    names = [f"{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.note(f"d/{name}", b""), names))
    assert store.listdir("d") == names
    assert len(store.survey("d")) == len(names)


# --- what people are told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "package", "extra"), [("abfs", "adlfs", "azure"), ("gs", "gcsfs", "gcs")]
)
def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, extra: str
) -> None:
    """Without the package of a cloud one is told what to install."""
    monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidPathError, match=rf"pip install 'pamola_dwriter\[{extra}\]'"):
        DataWriter(f"{scheme}://lake/task").write_dataframe(batch(0), "people")


@contextmanager
def _babbling() -> Iterator[int]:
    """Answer every request with what is no HTTP, on a port."""

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"good morning\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("kind", ["key", "signature"])
def test_credentials_are_never_shown(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither an error with all that is behind it, nor the log, nor a repr holds a credential."""
    secret = "c2VjcmV0" * 8
    caplog.set_level(logging.DEBUG)
    with _babbling() as port:
        settings = {
            "key": f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={secret};",
            "signature": f"SharedAccessSignature=sv=2024-01-01&sig={secret};",
        }
        connection = f"{settings[kind]}BlobEndpoint=http://127.0.0.1:{port}/a"
        place = Place("abfs://lake/task", {"connection_string": connection})
        store = _open(place, replace(TUNING, retry_seconds=0.1))
        for act in (
            lambda: store.put("x.json", b"1"),
            lambda: store.stage(PART, pa.py_buffer(b"x"), WRITE),
            lambda: store.read("x.json"),
        ):
            with pytest.raises(TargetUnavailableError) as caught:
                act()
            assert secret not in "".join(traceback.format_exception(caught.value))
    assert secret not in caplog.text
    assert secret not in f"{store!r} {place!r}"
