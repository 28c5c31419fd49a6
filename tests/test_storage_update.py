"""Updates and conditional writes of single files, under races, crashes and lost replies."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploy.local.servers import S3Server
from pamola_dwriter import collect_garbage, layout
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    TargetUnavailableError,
)
from pamola_dwriter.spec import Redacted
from pamola_dwriter.storage import locks, open_store, posix, updates
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.updates import History, Seen
from pamola_dwriter.testing import assert_no_leftovers
from tests.places import TUNING
from tests.proxy import Proxy

FILE = "metrics/run.json"
PROCESSES = 8

PATIENT = replace(TUNING, retry_seconds=10)

Items = list[str]


def appended(item: str) -> Callable[[bytes | None], bytes]:
    """A change that adds one item to a JSON list."""

    def change(data: bytes | None) -> bytes:
        return json.dumps([*json.loads(data or b"[]"), item]).encode()

    return change


def items(store: Store) -> Items:
    found: Items = json.loads(store.read(FILE))
    return found


def _processes() -> Any:
    """Real processes, each from a clean one that has done the imports already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pamola_dwriter", "s3fs"])
    return context


def _append_many(barrier: Any, root: str, options: dict[str, Any], who: int, count: int) -> None:
    store = open_store(root, Redacted(options), TUNING)
    barrier.wait(60)
    for number in range(count):
        store.update(FILE, appended(f"{who}-{number}"))


def _race(root: str, options: dict[str, Any], count: int) -> None:
    """Let real processes append at once, and read all the while."""
    context = _processes()
    barrier = context.Barrier(PROCESSES)
    racers = [
        context.Process(target=_append_many, args=(barrier, root, options, who, count))
        for who in range(PROCESSES)
    ]
    for racer in racers:
        racer.start()
    store, seen = open_store(root, Redacted(options), TUNING), 0
    while any(racer.is_alive() for racer in racers):
        with suppress(FileNotFoundError):
            assert len(items(store)) >= seen
            seen = len(items(store))
        time.sleep(0.02)
    assert [racer.exitcode for racer in racers] == [0] * PROCESSES
    wanted = [f"{who}-{number}" for who in range(PROCESSES) for number in range(count)]
    assert sorted(items(store)) == sorted(wanted)
    assert store.listdir("_staging") == []


def test_processes_lose_nothing_on_a_local_disk() -> None:
    """Eight processes append 200 items each; a reader always finds a whole file that grows."""
    # In memory where there is such: here the locking is tried, not the disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    with TemporaryDirectory(dir=memory) as folder:
        _race(folder, {}, 200)
        assert sorted(os.listdir(f"{folder}/metrics")) == ["_run.json.lock", "run.json"]
        assert os.listdir(folder) == ["metrics"]


def test_processes_lose_nothing_on_s3(s3: S3Server, s3_task_dir: str) -> None:
    """The same on S3, where every update races all others: as many as a history remembers.

    With more, the outcome for a process that the machine holds up for seconds may be unknown.
    """
    _race(s3_task_dir, s3.storage_options, updates.KEPT // PROCESSES)


def _write_and_die(root: str, path: str, how: str) -> None:
    def die(*args: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    store = open_store(root, Redacted({}), TUNING)
    if how == "change":
        store.update(path, die)
    os.link = os.replace = die  # type: ignore[assignment]
    if how == "put":
        store.put(path, b"new")
    if how == "put_if":
        present = store.read_versioned(path)
        store.put_if(path, b"new", present.version if present else None)
    if how == "update":
        store.update(path, lambda data: b"new")


def _die(root: Path, path: str, how: str) -> None:
    """Let a real process be killed, in the change or just before the file is in its place."""
    process = _processes().Process(target=_write_and_die, args=(str(root), path, how))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("how", ["change", "update"])
def test_killed_holder_of_the_lock_blocks_nobody(tmp_path: Path, how: str) -> None:
    """A process killed inside an update leaves the old file, and the next update goes through."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.put(FILE, b"old")
    _die(tmp_path, FILE, how)
    assert store.read(FILE) == b"old"
    began = time.monotonic()
    store.update(FILE, lambda data: b"newer")
    assert time.monotonic() - began < 5
    assert store.read(FILE) == b"newer"
    assert store.listdir("metrics") == ["_run.json.lock", "run.json"]


def test_all_that_killed_updates_leave_is_one_file_that_is_collected(tmp_path: Path) -> None:
    """It is told from data, and goes once it is old, whether or not the file was ever made."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    for _ in range(2):
        _die(tmp_path, FILE, "update")
    assert store.listdir("metrics") == ["_run.json.lock", "_run.json.updating"]
    with pytest.raises(AssertionError, match=r"1 left in[\s\S]*_run\.json\.updating"):
        assert_no_leftovers(tmp_path)
    assert collect_garbage(tmp_path, older_than="1h").removed == ()
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        (found,) = collect_garbage(tmp_path, older_than=0).removed
    assert found.path == "metrics/_run.json.updating"
    assert store.listdir("metrics") == ["_run.json.lock"]


def test_file_that_a_killed_process_made_is_not_written_into(tmp_path: Path) -> None:
    """Killed between the link and the removal of its other name, it has left one file twice."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.put(FILE, b"whole")
    os.link(tmp_path / FILE, tmp_path / "metrics" / "_run.json.updating")
    with (tmp_path / FILE).open("rb") as reader:
        assert store.update(FILE, lambda data: (data or b"") + b" and more") == b"whole and more"
        assert reader.read() == b"whole"
    assert store.listdir("metrics") == ["_run.json.lock", "run.json"]


def test_garbage_waits_for_an_update_that_is_under_way(tmp_path: Path) -> None:
    """What an update is about to put in its place is not taken from it."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.update(FILE, lambda data: b"first")
    left = tmp_path / "metrics" / "_run.json.updating"
    left.touch()
    with ThreadPoolExecutor(1) as pool:

        def change(data: bytes | None) -> bytes:
            futures.append(pool.submit(store.remove, ["metrics/_run.json.updating"]))
            time.sleep(0.2)
            assert left.exists()
            return b"second"

        futures: list[Any] = []
        store.update(FILE, change)
        futures[0].result()
    assert store.read(FILE) == b"second"
    assert not left.exists()


def test_what_stands_where_an_update_writes_is_said(tmp_path: Path) -> None:
    """A folder in the place of the file that is to be moved is an error that says what to do."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.put(FILE, b"old")
    (tmp_path / "metrics" / "_run.json.updating").mkdir()
    with pytest.raises(TargetUnavailableError, match=r"_run\.json\.updating.*move the folder away"):
        store.update(FILE, lambda data: b"new")
    assert store.read(FILE) == b"old"


def test_lock_file_that_is_taken_away_splits_nobody(tmp_path: Path) -> None:
    """Whoever waited for a lock file that was removed meanwhile takes the one that came after."""
    file, order = str(tmp_path / "lock"), []
    first = locks.acquire(file, 0)
    with ThreadPoolExecutor(1) as pool, pytest.raises(locks.LockHeldError):
        pool.submit(locks.acquire, file, 0.05).result()
    waiting = os.open(file, os.O_RDWR)
    os.unlink(file)
    locks.release(first)
    assert not locks._is_ours(waiting)
    os.close(waiting)
    with ThreadPoolExecutor(4) as pool:

        def hold(number: int) -> None:
            held = locks.acquire(file, 10)
            order.append(number)
            time.sleep(0.01)
            order.append(number)
            locks.release(held)

        list(pool.map(hold, range(8)))
    assert order[::2] == order[1::2]


@pytest.mark.parametrize("how", ["put", "put_if"])
@pytest.mark.parametrize("present", [None, b"old"])
def test_killed_put_leaves_nothing_in_the_dataset(
    tmp_path: Path, how: str, present: bytes | None
) -> None:
    """A process killed while it writes a manifest leaves no file that would count as foreign."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    manifest = "output/d/_manifest.json"
    if present:
        store.put(manifest, present)
    _die(tmp_path, manifest, how)
    assert layout.foreign_files(store.listdir("output/d")) == []
    assert [Path(file).name for file in store.listdir("output")] == [
        name
        for name in ("_manifest.json", "_manifest.json.lock")
        if present and (how == "put_if" or not name.endswith("lock"))
    ]
    store.put(manifest, b"new")
    assert store.read(manifest) == b"new"


def test_hanging_holder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that nobody gives back in time is a ConcurrentWriteError, and nothing is changed."""
    monkeypatch.setattr(posix, "_LOCK_PATIENCE", 0.1)
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.put(FILE, b"old")

    def hang(data: bytes | None) -> bytes:
        with ThreadPoolExecutor(1) as pool, pytest.raises(ConcurrentWriteError, match="lock"):
            pool.submit(store.update, FILE, lambda data: b"second").result()
        return b"first"

    store.update(FILE, hang)
    assert store.read(FILE) == b"first"


def test_put_is_not_undone_by_an_update(tmp_path: Path) -> None:
    """A whole file that is put while an update is under way stands after it."""
    store = open_store(str(tmp_path), Redacted({}), TUNING)
    store.update(FILE, lambda data: b"first")
    with ThreadPoolExecutor(1) as pool:

        def change(data: bytes | None) -> bytes:
            futures.append(pool.submit(store.put, FILE, b"put"))
            time.sleep(0.2)
            return b"second"

        futures: list[Any] = []
        store.update(FILE, change)
        futures[0].result()
    assert store.read(FILE) == b"put"


class LosesReplies(LocalFileSystem):
    """A file system whose renames fail: after the fact, or without one."""

    cachable = False
    moves = True

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.moves:
            super().mv(path1, path2, **kwargs)
        raise ConnectionResetError("lost")


@pytest.mark.parametrize("moves", [False, True])
def test_lost_reply_of_any_other_store_is_said(tmp_path: Path, *, moves: bool) -> None:
    """Where nothing tells our update from another, a lost one is unknown, an absent one failed."""
    file_system = LosesReplies()
    file_system.moves = moves
    store = ObjectStore(file_system, str(tmp_path), TUNING)
    with pytest.raises(CommitOutcomeUnknownError if moves else TargetUnavailableError):
        store.update(FILE, lambda data: b"new")
    assert store.is_file(FILE) == moves
    assert store.listdir("_staging") == []


# --- the S3 server behind a proxy that loses replies -------------------------------------------


@contextmanager
def faulty(server: S3Server, root: str, *faults: str) -> Iterator[tuple[Store, Proxy]]:
    """Open a store behind a proxy with `faults`."""
    with Proxy(server, *faults).listening() as proxy:
        yield open_store(root, Redacted(proxy.options(server)), PATIENT), proxy


@pytest.fixture
def direct(s3: S3Server, s3_task_dir: str) -> Store:
    """The same task directory without the proxy."""
    return open_store(s3_task_dir, Redacted(s3.storage_options), TUNING)


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("fault", ["lose", "drop", "500", "409"])
def test_fault_of_a_put_counts_once(
    s3: S3Server, s3_task_dir: str, direct: Store, fault: str, *, present: bool
) -> None:
    """Whatever becomes of the reply, every update is in the file exactly once."""
    if present:
        direct.update(FILE, appended("before"))
    with faulty(s3, s3_task_dir, fault, "", fault, fault) as (store, proxy):
        written = [store.update(FILE, appended(item)) for item in ("a", "b", "c")]
    assert items(direct) == ["before"] * present + ["a", "b", "c"]
    assert written[-1] == direct.read(FILE)
    assert len(proxy.faults) < 2  # a try below us may have met one


def _count(store: Store) -> None:
    """Add one to a number, like another process: without the turns that threads take."""
    store._store._update(FILE, lambda data: b"%d" % (int(data or 0) + 1))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("fault", "others"), [("lose", updates.KEPT), ("500", 2)])
def test_others_may_follow_a_lost_reply(
    s3: S3Server, s3_task_dir: str, direct: Store, fault: str, others: int
) -> None:
    """An update is recognised under as many later ones as an object remembers."""
    direct.update(FILE, lambda data: b"0")

    def follow() -> None:
        for _ in range(others - 1):
            _count(direct)

    with faulty(s3, s3_task_dir, fault) as (store, proxy):
        proxy.behind = follow
        written = store.update(FILE, lambda data: b"%d" % (int(data or 0) + 1))
    assert written == b"1"
    assert direct.read(FILE) == b"%d" % others


def test_more_than_an_object_remembers_is_unknown(
    s3: S3Server, s3_task_dir: str, direct: Store
) -> None:
    """When so many others followed that nothing tells any more, the outcome is unknown."""
    direct.update(FILE, lambda data: b"0")

    def follow() -> None:
        for _ in range(updates.KEPT):
            _count(direct)

    with faulty(s3, s3_task_dir, "lose") as (store, proxy):
        proxy.behind = follow
        with pytest.raises(CommitOutcomeUnknownError, match="look at it"):
            store.update(FILE, lambda data: b"%d" % (int(data or 0) + 1))
    assert direct.read(FILE) == b"%d" % (updates.KEPT + 1)


def test_update_that_cannot_be_read_back_is_unknown(
    s3: S3Server, s3_task_dir: str, direct: Store
) -> None:
    """When the reply is lost and then nothing can be read, the outcome is unknown."""
    direct.update(FILE, appended("before"))
    with faulty(s3, s3_task_dir, "lose", "lose", "lose") as (store, proxy):
        proxy.behind = lambda: setattr(proxy, "deaf", True)
        with pytest.raises(CommitOutcomeUnknownError):
            store.update(FILE, appended("a"))
    assert items(direct) == ["before", "a"]


def test_replaced_object_has_no_update_of_ours(
    s3: S3Server, s3_task_dir: str, direct: Store
) -> None:
    """When somebody puts another file over a lost update, the update is made to that file."""
    direct.update(FILE, appended("before"))
    with faulty(s3, s3_task_dir, "lose") as (store, proxy):
        proxy.behind = lambda: direct.put(FILE, b'["theirs"]')
        store.update(FILE, appended("a"))
    assert items(direct) == ["theirs", "a"]


def test_outrun_update_gives_up(direct: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that others always outrun ends in ConcurrentWriteError and changes nothing."""
    monkeypatch.setattr(updates, "PATIENCE", 0.5)

    def outrun(data: bytes | None) -> bytes:
        direct.put(FILE, os.urandom(8))
        return b"ours"

    with pytest.raises(ConcurrentWriteError, match="try again"):
        direct.update(FILE, outrun)
    assert direct.read(FILE) != b"ours"


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize(
    "faults", [("lose",), ("409",), ("409", "drop", "409"), ("500",), ("500", "429")]
)
def test_put_if_is_sent_again(
    s3: S3Server, s3_task_dir: str, direct: Store, faults: tuple[str, ...], *, present: bool
) -> None:
    """A conditional put that fails for a passing reason is repeated, and finds its own bytes."""
    if present:
        direct.put(FILE, b"old")
    old = direct.read_versioned(FILE)
    with faulty(s3, s3_task_dir, *faults) as (store, proxy):
        store.put_if(FILE, b"new", old.version if old else None)
        assert not proxy.faults
    assert direct.read(FILE) == b"new"


def test_endless_409_is_no_lost_race(s3: S3Server, s3_task_dir: str, direct: Store) -> None:
    """A store that says 409 again and again is unavailable, and nobody knows what it did."""
    with Proxy(s3).listening() as proxy:
        proxy.always = "409"
        tuning = replace(TUNING, retry_seconds=1)
        store = open_store(s3_task_dir, Redacted(proxy.options(s3)), tuning)
        with pytest.raises(TargetUnavailableError, match=r"injected.*after \d seconds") as caught:
            store.put_if(FILE, b"new", None)
    assert not caught.value.answered
    assert not direct.is_file(FILE)


@pytest.mark.parametrize("fault", ["409", "drop"])
def test_fault_behind_which_another_won_is_a_conflict(
    s3: S3Server, s3_task_dir: str, direct: Store, fault: str
) -> None:
    """When the second try meets somebody else's file, the race is lost."""
    with faulty(s3, s3_task_dir, fault) as (store, proxy):
        proxy.behind = lambda: direct.put(FILE, b"theirs")
        with pytest.raises(VersionConflict):
            store.put_if(FILE, b"new", None)
    assert direct.read(FILE) == b"theirs"


def test_refusal_after_a_lost_reply_is_no_answer(
    s3: S3Server, s3_task_dir: str, direct: Store
) -> None:
    """A put whose reply was lost may stand, though a later try of it is refused."""
    with (
        faulty(s3, s3_task_dir, "500", "403") as (store, _),
        pytest.raises(TargetUnavailableError, match="injected") as caught,
    ):
        store.put_if(FILE, b"new", None)
    assert not caught.value.answered
    assert direct.read(FILE) == b"new"


def test_conflict_that_cannot_be_read_back_is_no_answer(
    s3: S3Server, s3_task_dir: str, direct: Store
) -> None:
    """Where nobody can see whose file a put met, which may be its own, the outcome is open."""
    with faulty(s3, s3_task_dir, "lose") as (store, proxy):
        proxy.behind = lambda: setattr(proxy, "deaf", True)
        with pytest.raises(TargetUnavailableError, match="cannot read") as caught:
            store.put_if(FILE, b"new", None)
    assert not caught.value.answered
    assert direct.read(FILE) == b"new"


# --- the loop itself, against every order of faults --------------------------------------------


class Scripted:
    """An object in memory whose writes go as `script` says: a fault, and updates of others."""

    def __init__(self, script: list[tuple[str, int]]) -> None:
        self.script = deque(script)
        self.seen = Seen(b"[]", "0")
        self.late: tuple[bytes, str | None, History] | None = None

    def read(self) -> Seen:
        return self.seen

    def _land(self, data: bytes, history: History) -> None:
        version = str(int(self.seen.version or 0) + 1)
        self.seen = Seen(data, version, history)

    def _others(self, count: int) -> None:
        for number in range(count):
            data = appended(f"other{number}")(self.seen.data)
            self._land(data, self.seen.history.add(f"{number:08d}"))

    def write(self, data: bytes, expected: str | None, history: History) -> None:
        if self.late is not None and self.late[1] == self.seen.version:
            self._land(self.late[0], self.late[2])
        self.late = None
        fault, others = self.script.popleft() if self.script else ("", 0)
        if fault == "late":
            self.late = data, expected, history
            raise TargetUnavailableError("timed out", answered=False)
        if fault == "outrun":
            self._others(max(others, 1))
        if fault == "refuse":
            raise TargetUnavailableError("403", answered=True)
        landed = fault != "drop" and self.seen.version == expected
        if landed:
            self._land(data, history)
        if fault != "outrun":
            self._others(others)
        if fault in ("drop", "lose"):
            raise TargetUnavailableError("timed out", answered=False)
        if not landed or fault == "retry":
            raise VersionConflict


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    script=st.lists(
        st.tuples(
            st.sampled_from(["", "outrun", "drop", "lose", "late", "retry", "refuse"]),
            st.one_of(st.integers(0, 3), st.integers(updates.KEPT - 2, updates.KEPT + 2)),
        ),
        max_size=5,
    )
)
@example(script=[("lose", updates.KEPT - 1)])
@example(script=[("drop", 0), ("outrun", updates.KEPT), ("retry", 2)])
def test_update_counts_once_under_any_faults(
    script: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returned means once, refused or outrun means never, unknown means at most once."""
    monkeypatch.setattr(updates, "_FIRST_PAUSE", 0.0)
    scripted = Scripted(script)
    target = updates.Target("x", scripted.read, scripted.write)
    try:
        written = updates.update(target, appended("ours"))
    except TargetUnavailableError:
        wanted = {0}
    except CommitOutcomeUnknownError:
        wanted = {0, 1}
        # Nobody can tell a write that was lost from one that is late.
        assert any(fault in ("drop", "late") or n >= updates.KEPT for fault, n in script)
    else:
        wanted = {1}
        assert json.loads(written)[-1] == "ours"
    assert json.loads(scripted.seen.data or b"[]").count("ours") in wanted


@given(st.integers(1, 3 * updates.KEPT))
def test_history_survives_its_text(count: int) -> None:
    """A history is read back from its text, which fits into the metadata that S3 allows."""
    history = History()
    for number in range(count):
        history = history.add(f"{number:08d}")
    assert History.parse(history.dump()) == history
    assert history.tokens[-1] == f"{count - 1:08d}"
    assert len(history.tokens) == min(count, updates.KEPT)
    assert len(history.dump()) < 1500


@pytest.mark.parametrize("text", [None, "", "0:", "1:", "1:short", "x:abcdefgh", "1:abcdefgh\n"])
def test_foreign_metadata_is_no_history(text: str | None) -> None:
    """What this package did not write counts as no history at all."""
    assert History.parse(text) == History()
