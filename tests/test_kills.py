"""Processes die in the middle of a write: the old version stands whole, or the new one does.

Workers, scheduler, client and S3 server are real processes and are killed with SIGKILL. To kill a
worker at one exact place of a write, it is held there by a :class:`Gate`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import psutil
import pytest
from dask.utils import key_split
from distributed import Client, Worker, WorkerPlugin
from distributed.chaos import KillWorker
from jupyter_client.manager import start_new_kernel

from deploy.local import servers
from deploy.local.proxy import Line, proxy
from pamola_dwriter import (
    collect_garbage,
    layout,
    manifest,
    publishing,
    read_dataset,
    storage,
    tasks,
    verify,
)
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    WriteCancelledError,
)
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.testing import StoreWrapper, assert_no_leftovers
from pamola_dwriter.testing.faults import Call
from tests.places import Place

ROWS, PARTITIONS = 400, 8
OLD, NEW = 0, 1000
"""The first number of the rows of either version."""

NAME = "people"
KEY = "env:PII_KEY"
PATIENCE = 60.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crew(pii_key: str) -> Iterator[servers.Cluster]:
    """Three workers, so that there is always one to take over from one that was killed."""
    with servers.cluster(n_workers=3, env={"PII_KEY": pii_key}, dashboard=False) as running:
        yield running


@pytest.fixture
def client(crew: servers.Cluster) -> Iterator[Client]:
    """A client of three workers, at least two of which are up."""
    with Client(crew.scheduler_address, set_as_default=False) as connected:
        connected.wait_for_workers(2, timeout=PATIENCE)
        yield connected


@dataclass(frozen=True)
class Gate:
    """Holds the first worker that gets to one step of a write until the test has killed it.

    A step is a method of the store, or one of :data:`TASKS`.
    """

    folder: str
    step: str
    after: bool

    def around(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what the gate stands before, or behind."""
        if self.after:
            result = function(*args, **kwargs)
            self._hold()
            return result
        self._hold()
        return function(*args, **kwargs)

    def wait(self) -> int:
        """Wait until a worker is held, and return its process id."""
        wait_until((Path(self.folder) / "held").exists)
        return int((Path(self.folder) / "held").read_text())

    def _hold(self) -> None:
        mine = Path(self.folder) / f"at-{token_hex(8)}"  # a process may come here in many threads
        mine.write_text(str(os.getpid()))
        try:
            os.link(mine, Path(self.folder) / "held")
        except FileExistsError:
            return
        time.sleep(PATIENCE)


class GatedStore(StoreWrapper):
    """A store with a gate at one of its methods."""

    def __init__(self, store: Store, gate: Gate) -> None:
        super().__init__(store)
        self._gate = gate

    def _pass_on(self, call: Call, act: Callable[[], Any], some: Any = None) -> Any:
        is_lease = call.method == "put_if" and not call.paths[0].endswith(layout.MANIFEST)
        stops = call.method == self._gate.step and not is_lease
        return self._gate.around(act) if stops else act()


TASKS = {
    "serialize": (tasks, tasks.serialize),
    "gather": (tasks, tasks.gather),
    "claim": (publishing, publishing.claim),
}
"""Where the functions of some tasks are, which a worker looks up, and what they are."""


def set_gate(gate: Gate) -> None:
    """Set a gate in this process: a worker's."""
    if gate.step in TASKS:
        module, function = TASKS[gate.step]
        setattr(module, gate.step, partial(gate.around, function))
    else:
        storage.WRAPPERS.append(partial(GatedStore, gate=gate))


def open_gates() -> None:
    """Remove every gate in this process."""
    storage.WRAPPERS.clear()
    for step, (module, function) in TASKS.items():
        setattr(module, step, function)


class Gated(WorkerPlugin):
    """Sets a gate in every worker, also in one that comes up later."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def setup(self, worker: Worker) -> None:
        set_gate(self._gate)

    def teardown(self, worker: Worker) -> None:
        open_gates()


def numbers(first: int, seconds: float = 0.0) -> dd.DataFrame:
    """A version of the dataset, whose partitions take so long each."""
    rows = range(first, first + ROWS)
    source = dd.from_pandas(
        pd.DataFrame({"x": rows, "name": [f"person {n}" for n in rows]}), npartitions=PARTITIONS
    )
    return source.map_partitions(slowly, seconds, meta=source._meta) if seconds else source


def slowly(partition: pd.DataFrame, seconds: float) -> pd.DataFrame:
    time.sleep(seconds)
    return partition


def wait_until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_old(place: Place, key: str | None) -> WriterResult:
    """Write the old version, in this process: no client is the default one here."""
    return place.writer().write_dataframe(numbers(OLD), NAME, "parquet", encryption_key=key)


def submit(place: Place, key: str | None, client: Client, seconds: float = 0.0) -> WriteFuture:
    """Begin to overwrite the old version, on the cluster."""
    writer = place.writer(client=client, encryption_key=key)
    return writer.submit_dataframe(numbers(NEW, seconds), NAME, "parquet")


def staged(place: Place) -> bool:
    """Whether a part is staged that nobody published."""
    uploads = [upload for upload in place.pending_uploads() if "/probe-" not in upload]
    return bool(uploads) or any(map(is_staged_part, place.files()))


def is_staged_part(file: str) -> bool:
    return file.startswith("_staging/") and "/part-" in file


def standing(place: Place, key: str | None) -> int:
    """Check that a version stands whole, each row once; return the number of its first row."""
    path = f"{place.root}/output/{NAME}"
    frame = read_dataset(path, encryption_key=key, storage_options=place.options)
    rows = sorted(frame.compute()["x"])
    assert rows == list(range(rows[0], rows[0] + ROWS))
    return int(rows[0])


def assert_clean(place: Place, key: str | None) -> None:
    """Nothing is left but the version that stands, and every part of it is as it was written."""
    path = f"{place.root}/output/{NAME}"
    verify(path, encryption_key=key, storage_options=place.options)
    file_system, root = place._open()
    shown = manifest.parse_envelope(file_system.cat_file(f"{root}/output/{NAME}/_manifest.json"))
    options = {"storage_options": place.options, "encryption_key": key}
    assert_no_leftovers(place.root, write_ids=shown.writes, **options)


def assert_collectable(place: Place, key: str | None) -> None:
    """Whatever is left is garbage, and a collection takes that alone."""
    before = standing(place, key)
    # Nobody is left who would renew the lease, so there is no need to wait until it has run out.
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        options = {"storage_options": place.options, "encryption_key": key}
        collect_garbage(place.root, older_than="0s", **options)
    assert standing(place, key) == before
    assert_clean(place, key)


def assert_settled(place: Place, key: str | None, handle: WriteFuture) -> BaseException | None:
    """What the handle reports is what stands, and nothing is left unless nobody can know."""
    error = handle.exception(PATIENCE)
    if isinstance(error, CommitOutcomeUnknownError):
        standing(place, key)
        return error
    assert error is None or isinstance(error, DataWriteError)
    assert standing(place, key) == (NEW if error is None else OLD)
    assert_clean(place, key)
    return error


POSIX_STEPS = [
    *(("stage", False), ("stage", True), ("gather", False), ("gather", True)),
    *(("publish", False), ("publish", True), ("put_if", False), ("put_if", True)),
    *(("sweep", False), ("sweep", True)),
]
S3_STEPS = [("stage", True), ("publish", False), ("publish", True), ("put_if", True)]


@contextmanager
def gates(client: Client, gate: Gate) -> Iterator[None]:
    """Have a gate in every worker."""
    client.register_plugin(Gated(gate), name="gated")
    try:
        yield
    finally:
        with suppress(OSError):  # a worker dies while it is told
            client.unregister_worker_plugin("gated")


def kill_at(gate: Gate, place: Place, key: str | None, client: Client) -> BaseException | None:
    write_old(place, key)
    with gates(client, gate):
        handle = submit(place, key, client)
        os.kill(gate.wait(), signal.SIGKILL)
        return assert_settled(place, key, handle)


@pytest.mark.parametrize(("step", "after"), POSIX_STEPS)
def test_worker_killed_on_posix(
    tmp_path: Path, client: Client, pii_key: str, step: str, after: bool
) -> None:
    """SIGKILL of the worker at a step, before or after its effect: redone, committed once."""
    place = Place(str(tmp_path / "task"))
    key = KEY if after else None
    assert kill_at(Gate(str(tmp_path), step, after), place, key, client) is None


@pytest.mark.parametrize(("step", "after"), S3_STEPS)
def test_worker_killed_on_s3(
    s3_place: Place, tmp_path: Path, client: Client, pii_key: str, step: str, after: bool
) -> None:
    """As on POSIX: uploads of the killed worker are aborted, its completions counted once."""
    key = None if after else KEY
    assert kill_at(Gate(str(tmp_path), step, after), s3_place, key, client) is None


SPREAD_STEPS = [("claim", True), ("publish", False), ("publish", True), ("put_if", True)]


@pytest.mark.parametrize(("step", "after"), SPREAD_STEPS)
def test_worker_killed_where_tasks_publish(
    place: Place, key: str | None, tmp_path: Path, client: Client, step: str, after: bool
) -> None:
    """Parts that a dead worker published and nobody lists are gone, those that are listed stand."""
    with dask.config.set({"pamola-dwriter.gather-width": 2}):
        assert kill_at(Gate(str(tmp_path), step, after), place, key, client) is None


def test_worker_killed_behind_a_shuffle(tmp_path: Path, client: Client, pii_key: str) -> None:
    """Each row is there once; or, where Dask cannot restart its shuffle, the old version stands."""
    place, gate = Place(str(tmp_path / "task")), Gate(str(tmp_path), "serialize", after=False)
    write_old(place, KEY)
    writer = place.writer(client=client, encryption_key=KEY)
    with gates(client, gate), dask.config.set({"dataframe.shuffle.method": "p2p"}):
        lazy = writer.write_dataframe(
            numbers(NEW).shuffle(on="name"), NAME, "parquet", compute=False
        )
        assert "shuffle-transfer" in {key_split(key) for key in dict(lazy.__dask_graph__())}
        handle = lazy.submit()
        os.kill(gate.wait(), signal.SIGKILL)
        assert_settled(place, KEY, handle)


def test_workers_that_keep_dying(s3_place: Place, pii_key: str) -> None:
    """Chaos among the workers while they put parts: one whole version, and the truth about it."""
    with (
        servers.cluster(n_workers=3, env={"PII_KEY": pii_key}, dashboard=False) as crew,
        Client(crew.scheduler_address, set_as_default=False) as client,
    ):
        write_old(s3_place, KEY)
        born = crew.worker_pids().values()
        handle = submit(s3_place, KEY, client, seconds=0.4)
        # Its other modes take the nanny along, and no worker would come back.
        client.register_plugin(KillWorker(delay="1 s", mode="segfault"), name="chaos")
        wait_until(lambda: sum(not psutil.pid_exists(pid) for pid in born) >= 2)
        with suppress(OSError):  # a worker dies while it is told
            client.unregister_worker_plugin("chaos")
        assert_settled(s3_place, KEY, handle)
        wait_for_idle(client)
        assert_collectable(s3_place, KEY)


def test_scheduler_killed(place: Place, pii_key: str) -> None:
    """SIGKILL of the scheduler: the client comes back soon, with an error, and nothing is torn."""
    with (
        servers.cluster(env={"PII_KEY": pii_key}, dashboard=False) as crew,
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        Client(crew.scheduler_address, set_as_default=False) as client,
    ):
        write_old(place, KEY)
        handle = submit(place, KEY, client, seconds=0.3)
        wait_until(lambda: staged(place))
        crew.kill_scheduler()
        assert isinstance(handle.exception(20), DataWriteError)
        assert_settled(place, KEY, handle)
        assert standing(place, KEY) == OLD
        crew.kill()
    assert_collectable(place, KEY)


SETUP = textwrap.dedent(
    """
    import json, os, time
    import dask.dataframe as dd
    import pandas as pd
    from dask.distributed import Client
    from pamola_dwriter import DataWriter

    def slowly(partition):
        time.sleep(0.4)
        return partition

    given = json.loads(os.environ["GIVEN"])
    client = Client(given["address"])
    rows = range(given["first"], given["first"] + given["rows"])
    source = pd.DataFrame({"x": rows, "name": [f"person {n}" for n in rows]})
    frame = dd.from_pandas(source, npartitions=40).map_partitions(slowly, meta=source)
    writer = DataWriter(given["root"], storage_options=given["options"])
    how = {"format": "parquet", "encryption_key": given["key"]}
    """
)
WAITS = {
    "compute": "writer.write_dataframe(frame, given['name'], **how)",
    "result": "writer.submit_dataframe(frame, given['name'], **how).result()",
}


def environment(place: Place, crew: servers.Cluster) -> dict[str, str]:
    """What a process needs to run SETUP: no argument, for one that is a notebook's kernel."""
    given = {
        "address": crew.scheduler_address,
        "root": place.root,
        "options": place.options,
        "name": NAME,
        "key": KEY,
        "first": NEW,
        "rows": ROWS,
    }
    python_path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": python_path, "GIVEN": json.dumps(given)}


@contextmanager
def script(
    place: Place, crew: servers.Cluster, waits: str = "compute"
) -> Iterator[subprocess.Popen[str]]:
    """Run a user's script that writes the new version, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SETUP + WAITS[waits]],
        env=environment(place, crew),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], signum: int) -> tuple[int, str]:
    """Send a signal; return the exit code and what was printed, once the process has ended."""
    process.send_signal(signum)
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def wait_for_idle(client: Client) -> None:
    """Wait until no worker computes anything: a cancelled task runs to its end."""

    def busy(dask_worker: Any) -> int:
        return len(dask_worker.state.executing) + len(dask_worker.active_threads)

    wait_until(lambda: not any(client.run(busy).values()))


def test_client_killed(place: Place, crew: servers.Cluster, client: Client, pii_key: str) -> None:
    """SIGKILL of the client: the old version stands, and no reader sees what is left."""
    write_old(place, KEY)
    with script(place, crew) as process:
        wait_until(lambda: staged(place))
        assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
    wait_for_idle(client)
    assert standing(place, KEY) == OLD
    assert_collectable(place, KEY)


@pytest.mark.parametrize("waits", ["compute", "result"])
def test_script_interrupted(
    place: Place, crew: servers.Cluster, client: Client, pii_key: str, waits: str
) -> None:
    """Ctrl-C of a script that waits for its write: cancelled, swept, and soon at its end."""
    write_old(place, KEY)
    with script(place, crew, waits) as process:
        wait_until(lambda: staged(place))
        code, output = end(process, signal.SIGINT)
    assert code == -signal.SIGINT, output
    assert "KeyboardInterrupt" in output
    assert standing(place, KEY) == OLD
    assert_clean(place, KEY)


@pytest.mark.parametrize("waits", ["compute", "result"])
def test_notebook_cell_interrupted(
    place: Place, crew: servers.Cluster, client: Client, pii_key: str, waits: str
) -> None:
    """Interrupting a cell that writes: KeyboardInterrupt in the cell, the kernel lives on."""
    write_old(place, KEY)
    with notebook(environment(place, crew)) as (kernel, interrupt):
        assert run_cell(kernel, SETUP) == "ok"
        kernel.execute(WAITS[waits])
        wait_until(lambda: staged(place))
        interrupt()
        assert reply_of(kernel) == "KeyboardInterrupt"
        wait_for_idle(client)
        assert standing(place, KEY) == OLD
        assert_clean(place, KEY)
        assert run_cell(kernel, WAITS[waits]) == "ok"
    assert standing(place, KEY) == NEW
    assert_clean(place, KEY)


@contextmanager
def notebook(environment: dict[str, str]) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Run the kernel of a notebook; yield its client, and what its stop button does."""
    manager, kernel = start_new_kernel(env=environment)
    try:
        yield kernel, manager.interrupt_kernel
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(kernel: Any, code: str) -> str:
    kernel.execute(code)
    return reply_of(kernel)


def reply_of(kernel: Any) -> str:
    """Wait for the end of a cell; return ``ok``, or the name of what it raised."""
    content = kernel.get_shell_msg(timeout=PATIENCE)["content"]
    return str(content.get("ename", content["status"]))


def test_cancelled_handle(place: Place, client: Client, pii_key: str) -> None:
    """handle.cancel() in the middle: an error that says so, the old version, nothing left."""
    write_old(place, KEY)
    handle = submit(place, KEY, client, seconds=0.3)
    wait_until(lambda: staged(place))
    handle.cancel()
    assert isinstance(assert_settled(place, KEY, handle), WriteCancelledError)


def test_closed_client(place: Place, crew: servers.Cluster, client: Client, pii_key: str) -> None:
    """client.close() in the middle ends the write with an error; the old version stands."""
    write_old(place, KEY)
    with Client(crew.scheduler_address, set_as_default=False) as closing:
        handle = submit(place, KEY, closing, seconds=0.3)
        wait_until(lambda: staged(place))
        closing.close()
        assert isinstance(assert_settled(place, KEY, handle), DataWriteError)
    wait_for_idle(client)
    assert standing(place, KEY) == OLD
    assert_collectable(place, KEY)


def test_s3_server_killed_and_restarted(client: Client, pii_key: str) -> None:
    """A server that dies in the middle and comes back: the write goes on and commits."""
    with servers.s3_server() as server:
        place = Place(f"s3://{server.bucket}/task", server.storage_options)
        write_old(place, KEY)
        handle = submit(place, KEY, client, seconds=0.3)
        wait_until(lambda: staged(place))
        server.kill()
        time.sleep(1)
        server.start()
        assert assert_settled(place, KEY, handle) is None


def test_connections_reset_at_random_bytes(
    s3: servers.S3Server, s3_task_dir: str, client: Client, pii_key: str
) -> None:
    """Resets at random bytes of requests and replies, between workers, client and S3."""
    with proxy(s3.ports[0], seed=4) as network:
        place = Place(s3_task_dir, s3.storage_options_by(network.port))
        write_old(place, KEY)
        network.line = Line(reset_probability=0.15)
        handle = submit(place, KEY, client)
        handle.exception(PATIENCE)
        network.line = Line()
        assert network.resets
        assert assert_settled(place, KEY, handle) is None
