"""The tools that break stores and judge them: they strike as told, and see what is wrong."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client
from fsspec.implementations.local import LocalFileSystem

import pamola_dwriter.testing
from pamola_dwriter.contracts import Found, Store, VersionConflict
from pamola_dwriter.errors import TargetUnavailableError, WrongKeyError
from pamola_dwriter.spec import Redacted, WriteId
from pamola_dwriter.storage import WRAPPERS, open_store
from pamola_dwriter.storage.posix import PosixStore
from pamola_dwriter.storage.updates import Change
from pamola_dwriter.testing import (
    Call,
    Crash,
    Fault,
    FaultyStore,
    Injection,
    SlowStore,
    StoreWrapper,
    assert_no_leftovers,
    faults,
    inject,
    install,
    uninstall,
)
from pamola_dwriter.testing.suite import StoreSuite
from tests.places import TUNING, Place

Opener = Callable[[], Store]

WRITE = WriteId("0123456789abcdef")


def posix(root: Path, kind: type[PosixStore] = PosixStore) -> PosixStore:
    return kind(LocalFileSystem(), str(root), TUNING)


class TestFaultyStore(StoreSuite):
    """Without a fault, a faulty store is as good as the one in it."""

    clock_step = 0.05

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        injection = Injection()
        return lambda: FaultyStore(posix(tmp_path), injection)


class TestSlowStore(StoreSuite):
    """A slow store does the same, later."""

    clock_step = 0.05

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: SlowStore(posix(tmp_path), 0.001)


def test_wrapper_has_every_method_of_a_store() -> None:
    """A method that the contract gains is passed on too, with the same parameters."""
    for name in faults.METHODS:
        wanted = inspect.signature(getattr(Store, name))
        assert inspect.signature(getattr(StoreWrapper, name)) == wanted, name
        assert name in vars(StoreWrapper)
    assert {"publish", "put_if", "note", "survey", "now"} <= faults.METHODS
    assert "atomic" not in faults.METHODS


@pytest.mark.parametrize(
    ("when", "stands", "answered"),
    [("before", False, True), ("after", True, True), ("lost", True, False)],
)
@pytest.mark.parametrize("transient", [False, True])
def test_fault_strikes_where_it_is_told(
    tmp_path: Path, when: Any, *, stands: bool, answered: bool, transient: bool
) -> None:
    """Before, the file is not written; after, it is; only a lost reply leaves that open."""
    store = FaultyStore(posix(tmp_path), [Fault("put", when, transient=transient)])
    with pytest.raises(TargetUnavailableError, match=r"injected .* put of x\.json") as caught:
        store.put("x.json", b"1")
    assert (caught.value.answered, caught.value.transient) == (answered, transient)
    assert store.is_file("x.json") == stands
    store.put("x.json", b"2")
    assert store.read("x.json") == b"2"


def test_calls_are_counted_by_path(tmp_path: Path) -> None:
    """The n-th call about a matching path fails, others do not count, and all are recorded."""
    fault = Fault("put", path="logs/*", nth=2)
    store = FaultyStore(posix(tmp_path), [fault])
    for path in ("x.json", "logs/1", "x.json"):
        store.put(path, b"1")
    with pytest.raises(TargetUnavailableError):
        store.put("logs/2", b"1")
    store.put("logs/3", b"1")
    assert [call.paths for call in store.calls] == [
        (path,) for path in ("x.json", "logs/1", "x.json", "logs/2", "logs/3")
    ]
    assert store.injected == [(fault, Call("put", ("logs/2",)))]


def test_fault_may_last(tmp_path: Path) -> None:
    """One that lasts strikes every later call of its method, and of no other."""
    store = FaultyStore(posix(tmp_path), [Fault("put", nth=2, forever=True)])
    store.put("x.json", b"1")
    for _ in range(3):
        with pytest.raises(TargetUnavailableError):
            store.put("x.json", b"2")
    assert store.read("x.json") == b"1"
    assert len(store.injected) == 3


@pytest.mark.parametrize("error", [None, Crash])
def test_outage_ends_everything(tmp_path: Path, error: Any) -> None:
    """After a lost reply that begins an outage nothing is done any more, and nothing answers."""
    store = FaultyStore(posix(tmp_path), [Fault("put", "lost", outage=True, error=error)])
    kind = error or TargetUnavailableError
    with pytest.raises(kind):
        store.put("x.json", b"1")
    for call in (lambda: store.put("y.json", b"1"), lambda: store.read("x.json"), store.now):
        with pytest.raises(kind) as caught:
            call()
        assert error or not caught.value.answered
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert len(store.injected) == 1


@pytest.mark.parametrize("method", sorted(faults.WITH_ITEMS))
def test_call_may_be_done_by_half(tmp_path: Path, method: str) -> None:
    """Of several items the first so many are done, whether published, made or removed."""
    inner = posix(tmp_path)
    writes = [WriteId(f"{number:016x}") for number in range(4)]
    paths = [f"output/d/part-0000{n}-{write}-00000000-000.csv" for n, write in enumerate(writes)]
    tokens = {p: inner.stage(p, pa.py_buffer(b"1"), w) for p, w in zip(paths, writes, strict=True)}
    if method != "publish":
        inner.publish(tokens)
    store = FaultyStore(inner, [Fault(method, items=3)])
    calls: dict[str, Callable[[], None]] = {
        "publish": lambda: store.publish(tokens),
        "remove": lambda: store.remove(paths),
        "discard": lambda: store.discard([Found(path=path, modified=0) for path in paths]),
        "sweep": lambda: store.sweep("output/d", writes, ()),
        "make_folders": lambda: store.make_folders(["a", "b", "c", "d"]),
    }
    with pytest.raises(TargetUnavailableError):
        calls[method]()
    if method == "make_folders":
        assert sorted(path.name for path in tmp_path.glob("[abcd]")) == ["a", "b", "c"]
    else:
        assert len(inner.listdir("output/d")) == (3 if method == "publish" else 1)


def test_lost_reply_hides_a_refusal(tmp_path: Path) -> None:
    """Whether the store refused is not learned when its reply is lost."""
    store = FaultyStore(posix(tmp_path), [Fault("put_if", "lost")])
    with pytest.raises(TargetUnavailableError):
        store.put_if("x.json", b"1", "stale")
    with pytest.raises(VersionConflict):
        store.put_if("x.json", b"1", "stale")


@pytest.mark.parametrize("error", [KeyboardInterrupt, lambda text: OSError(28, text)])
def test_other_errors_can_be_given(tmp_path: Path, error: Any) -> None:
    """Whatever makes an exception from a text may be the error."""
    store = FaultyStore(posix(tmp_path), [Fault("put", error=error)])
    with pytest.raises((KeyboardInterrupt, OSError), match="injected before put"):
        store.put("x.json", b"1")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"method": "atomic"}, "no method"),
        ({"method": "_put"}, "no method"),
        ({"method": "put", "when": "during"}, "when must be"),
        ({"method": "put", "nth": 0}, "counts from 1"),
        ({"method": "put", "items": 1}, "items"),
        ({"method": "publish", "items": -1}, "items"),
    ],
)
def test_impossible_fault_is_refused(arguments: dict[str, Any], problem: str) -> None:
    """A fault that could never strike is told at once, not by a test that passes."""
    with pytest.raises(ValueError, match=problem):
        Fault(**arguments)


def test_slow_store_takes_its_time(tmp_path: Path) -> None:
    """Each call is slower by so much, and is recorded."""
    store = SlowStore(posix(tmp_path), 0.05)
    began = time.monotonic()
    store.put("x.json", b"1")
    assert time.monotonic() - began >= 0.05
    assert store.calls == [Call("put", ("x.json",))]


def test_injection_counts_over_all_stores(tmp_path: Path) -> None:
    """Of what many stores and threads call, exactly one call fails; after it, all is as before."""
    with inject(Fault("put", nth=20)) as injection:
        stores = [open_store(str(tmp_path), Redacted({}), TUNING) for _ in range(4)]

        def put(number: int) -> bool:
            try:
                stores[number % 4].put(f"{number}", b"1")
            except TargetUnavailableError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(put, range(40))).count(False) == 1
    assert len(injection.calls) == 40
    assert not WRAPPERS
    assert "Faulty" not in repr(open_store(str(tmp_path), Redacted({}), TUNING))


def test_faults_are_installed_in_workers(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers fail as told, say what struck, and work again afterwards."""
    fault = Fault("stage", "lost", nth=1, error=ZeroDivisionError)
    client.run(install, [fault])
    frame = dask.dataframe.from_pandas(pd.DataFrame({"x": range(8)}), npartitions=4)
    try:
        place = Place(str(tmp_path))
        with dask.config.set({"pamola-dwriter.task-retries": 3}):
            result = place.writer().write_dataframe(frame, "d", "parquet")
    finally:
        struck = client.run(uninstall)
    assert 1 <= sum(map(len, struck.values())) <= 2
    assert result.rows == 8
    assert_no_leftovers(tmp_path, write_ids=[result.write_id])
    assert not any(client.run(uninstall).values())


# --- the suite finds wrong stores ----------------------------------------------------------------


class ChecksThenWrites(PosixStore):
    """Compares and writes in two steps."""

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        present = self.read_versioned(path)
        if (present.version if present else None) != expected:
            raise VersionConflict(path)
        time.sleep(0.01)
        self.put(path, data)

    def update(self, path: str, change: Change) -> bytes:
        present = self.read_versioned(path)
        data = change(present.data if present else None)
        self.put(path, data)
        return data


class WritesInPlace(PosixStore):
    """Shows a file while it is being written."""

    def put(self, path: str, data: bytes) -> None:
        with open(self._full(path), "wb") as file:
            file.write(data[: len(data) // 2])
            time.sleep(0.001)
            file.write(data[len(data) // 2 :])


class SweepsAll(PosixStore):
    """Sweeps whatever it finds."""

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        self.remove([f"{directory}/{path}" for path in self.listdir(directory)])


class Forgets(PosixStore):
    """Lists half of what is there."""

    def survey(self, path: str) -> list[Found]:
        found = super().survey(path)
        return list(islice(found, len(found) // 2))


class LivesYesterday(PosixStore):
    """Has another clock than its files."""

    def now(self) -> float:
        return super().now() - 86_400


class PublishesOnce(PosixStore):
    """Fails when a part is published already."""

    def publish(self, staged: Any, *, overwrite: bool = True) -> None:
        if any(map(self.is_file, staged)):
            raise TargetUnavailableError("it is there already")
        super().publish(staged, overwrite=overwrite)


SUITE = StoreSuite()


@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        (ChecksThenWrites, SUITE.test_manifest_is_created_by_one_of_many),
        (ChecksThenWrites, SUITE.test_manifest_is_replaced_by_one_of_many),
        (ChecksThenWrites, SUITE.test_updates_at_once_lose_nothing),
        (WritesInPlace, SUITE.test_reader_never_sees_half_a_file),
        (SweepsAll, SUITE.test_sweep_removes_what_one_write_staged_or_published),
        (Forgets, SUITE.test_survey_finds_every_file),
        (Forgets, SUITE.test_survey_finds_what_is_staged),
        (LivesYesterday, SUITE.test_times_are_of_the_stores_clock),
        (PublishesOnce, SUITE.test_publishing_again_changes_nothing),
    ],
)
def test_wrong_store_breaks_a_promise(
    tmp_path: Path, wrong: type[PosixStore], promise: Callable[..., None]
) -> None:
    """Each promise of the suite that is put to a store which breaks it fails; a good one keeps."""
    for kind, folder in ((PosixStore, "good"), (wrong, "wrong")):
        root = tmp_path / folder
        root.mkdir()
        given = {"opener": lambda kind=kind, root=root: posix(root, kind)}
        if "store" in inspect.signature(promise).parameters:
            given = {"store": given["opener"]()}
        if kind is wrong:
            with pytest.raises((AssertionError, TargetUnavailableError)):
                promise(**given)
        else:
            promise(**given)


# --- what is left --------------------------------------------------------------------------------


def people() -> Any:
    return dask.dataframe.from_pandas(pd.DataFrame({"x": range(8)}), npartitions=2)


def check(place: Place, **options: Any) -> None:
    assert_no_leftovers(place.root, storage_options=place.options, **options)


def test_whole_task_directory_has_nothing_left(place: Place, key: str | None) -> None:
    """Versions, single files and documents of a task are nobody's leftovers."""
    writer = place.writer(encryption_key=key)
    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        results = [writer.write_dataframe(people(), "d", "parquet") for _ in range(2)]
    results.append(writer.write_dataframe(people(), "d", "parquet", append=True))
    check(place, encryption_key=key)
    check(place, write_ids=[result.write_id for result in results[1:]])
    writer.write_dataframe(people(), "one", "csv", single_file=True)
    writer.write_metrics({"rows": 8}, "run")
    check(place, encryption_key=key)
    with pytest.raises(AssertionError, match=r"one\.csv"):
        check(place, encryption_key=key, write_ids=[result.write_id for result in results])


@pytest.mark.parametrize(
    "name",
    [
        "output/d/part-00009-{write_id}-ffffffff-000.parquet",
        "output/d/_parts-{write_id}-ffffffff.parquet",
        "output/d/part-00000-fedcba9876543210-ffffffff-000.parquet",
        "output/e/part-00000-{write_id}-ffffffff-000.parquet",
        "_staging/{write_id}/lease.json",
        "_staging/tmp-0123456789abcdef",
    ],
)
def test_leftover_is_named(place: Place, key: str | None, name: str) -> None:
    """A losing attempt, a part of another write or of no dataset, and what is staged are found."""
    result = place.writer().write_dataframe(people(), "d", "parquet", encryption_key=key)
    path = name.format(write_id=result.write_id)
    open_store(place.root, Redacted(place.options), TUNING).put(path, b"1")
    with pytest.raises(AssertionError, match=r"1 left in") as caught:
        check(place, encryption_key=key)
    assert path in str(caught.value)


def test_upload_and_empty_folder_are_found(place: Place) -> None:
    """What no listing of files shows is found as well."""
    store = open_store(place.root, Redacted(place.options), TUNING)
    path = f"output/d/part-00000-{WRITE}-00000000-000.csv"
    store.stage(path, pa.py_buffer(b"1"), WRITE)
    with pytest.raises(AssertionError, match="upload of" if place.options else "_staging/"):
        check(place)
    store.sweep("output/d", {WRITE}, ())
    check(place, write_ids=())
    if not place.options:
        (Path(place.root) / "_staging" / WRITE).mkdir(parents=True)
        with pytest.raises(AssertionError, match=f"_staging/{WRITE}/"):
            check(place)


def test_earlier_version_is_left_unless_it_is_retained(tmp_path: Path) -> None:
    """Parts of a replaced version are leftovers once ``retain-seconds`` have passed."""
    place = Place(str(tmp_path))
    with dask.config.set({"pamola-dwriter.retain-seconds": 3600}):
        for _ in range(2):
            result = place.writer().write_dataframe(people(), "d", "parquet")
        check(place)
    with pytest.raises(AssertionError, match="2 left in"):
        check(place)
    with pytest.raises(AssertionError, match="2 left in"):
        check(place, write_ids=[result.write_id])


def test_long_list_of_leftovers_is_cut(tmp_path: Path) -> None:
    """The message counts them all and shows some."""
    (tmp_path / "_staging").mkdir()
    for number in range(50):
        (tmp_path / "_staging" / f"tmp-{number}").touch()
    with pytest.raises(AssertionError, match=r"50 left in[\s\S]*and 30 more"):
        assert_no_leftovers(tmp_path)


def test_losing_attempt_in_a_sealed_dataset_needs_the_key(tmp_path: Path, pii_key: str) -> None:
    """Without the key, parts of the writes that a manifest shows pass; a wrong key is an error."""
    place = Place(str(tmp_path))
    result = place.writer().write_dataframe(people(), "d", "parquet", encryption_key="env:PII_KEY")
    name = f"part-00009-{result.write_id}-ffffffff-000.parquet.pdw"
    (tmp_path / "output" / "d" / name).touch()
    check(place)
    with pytest.raises(AssertionError, match=name):
        check(place, encryption_key="env:PII_KEY")
    with pytest.raises(WrongKeyError):
        check(place, encryption_key=bytes(32))


def test_tools_need_no_pytest() -> None:
    """Everything but the suite can be imported where pytest is not installed."""
    code = (
        "import sys; sys.modules['pytest'] = None; import pamola_dwriter.testing as t; "
        "assert all(hasattr(t, name) for name in t.__all__)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("module", [pamola_dwriter.testing, faults])
def test_examples_run(module: Any) -> None:
    """The examples in the docstrings do what they show."""
    found = doctest.testmod(module)
    assert (found.failed, found.attempted > 0) == (0, True)
