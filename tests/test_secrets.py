"""No key, passphrase or credential in anything that writing and reading leaves behind or shows.

All kinds of keys are used at the same time on one cluster that logs everything and spills every
result to its disk. Whatever it shows is collected once, and searched for the secrets of each kind.
"""

from __future__ import annotations

import base64
import pickle
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyrage
import pytest
import s3fs
from distributed import Client, performance_report, wait

from deploy.local import servers
from deploy.local.key_servers import kms_server, vault_server
from pamola_dwriter import DataWriter, LazyWrite, keys, manifest, read_dataset, verify
from pamola_dwriter.errors import (
    DataWriteError,
    IntegrityError,
    InvalidKeyError,
    SchemaMismatchError,
    WriteFailedError,
)
from pamola_dwriter.keys.age import dataset_identity
from pamola_dwriter.opening import find_dataset
from tests import sweeping
from tests.places import batch
from tests.sweeping import Secret

PARTITIONS = 4
ROWS = 10 * PARTITIONS
PATIENCE = 60
IDENTITY, HOLDER = (pyrage.x25519.Identity.generate() for _ in range(2))
RAW, IN_FILE = (token_bytes(32) for _ in range(2))
PRIVATE_LINE = keys.generate_key("x25519-mlkem768").strip()
PRIVATE_KEY = keys.HpkeIdentity(PRIVATE_LINE)
PRIVATE_RAW = base64.urlsafe_b64decode(PRIVATE_LINE.rpartition(":")[2] + "=" * 3)[:96]
PASSPHRASE = f"wonderful-tortoise-{token_hex(8)}"

PLOTS = ("status", "tasks", "individual-task-stream", "exceptions")
"""Pages of the dashboard whose content is fetched over their websocket."""

LOUD = {"DASK_LOGGING__ROOT": "debug", "DASK_LOGGING__DISTRIBUTED": "debug"}
SPILLING = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "1e-9",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL_COMPRESSION": "false",
}
"""Every result goes to disk at once, as it is."""

BRISK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
"""A worker gives up sooner on one that is gone."""


@dataclass(frozen=True)
class Case:
    """A way to name a key; ``travels`` if the workers cannot resolve it."""

    key: Any = field(repr=False)
    secret: bytes | None = field(repr=False)
    travels: bool = False
    opens: str | None = field(default=None, repr=False)
    mode: str | None = None

    def given(self, folder: Path) -> Any:
        """What is given as encryption_key; a file of a key is in `folder`."""
        return self.key.format(folder=folder) if isinstance(self.key, str) else self.key

    def opener(self, folder: Path) -> Any:
        """What opens the data: not the key given, if that is public."""
        return self.opens or self.given(folder)


CASES = {
    "raw": Case(RAW, RAW, travels=True),
    "passphrase": Case(PASSPHRASE, PASSPHRASE.encode(), travels=True),
    "env": Case("env:PII_KEY", None),
    "file": Case("file:{folder}/key", IN_FILE),
    "awskms": Case("awskms:alias/pii", None),
    "vault": Case("vault:pii", None),
    "private key": Case(PRIVATE_LINE, PRIVATE_RAW, travels=True),
    "public key": Case(PRIVATE_KEY.public, PRIVATE_RAW, travels=True, opens=PRIVATE_LINE),
    "age identity": Case(str(IDENTITY), str(IDENTITY).encode(), travels=True),
    "age recipient": Case(
        str(HOLDER.to_public()),
        str(HOLDER).encode(),
        travels=True,
        opens=str(HOLDER),
    ),
    "age files": Case(
        ["env:PII_KEY", str(HOLDER.to_public())],
        str(HOLDER).encode(),
        opens=str(HOLDER),
        mode="age",
    ),
}


THREADS = len(CASES)
"""Of each worker: the writes that wait at the same time may all be on one of the two."""


def hold(partition: pd.DataFrame, folder: str, name: str) -> pd.DataFrame:
    """Let the last partition wait until a test opens the gate."""
    if _is_last(partition):
        Path(folder, f"waiting-{name}").touch()
        while not Path(folder, "open").exists():
            time.sleep(0.02)
    return partition


def explode(partition: pd.DataFrame, folder: str, name: str) -> pd.DataFrame:
    """Fail as code of a user does."""
    if _is_last(partition):
        raise RuntimeError("deliberate")
    return partition


def misfit(partition: pd.DataFrame, folder: str, name: str) -> pd.DataFrame:
    """Let a task of ours fail, which has the whole RunSpec among its arguments."""
    return partition.astype({"x": "str"}) + "?" if _is_last(partition) else partition


def _is_last(partition: pd.DataFrame) -> bool:
    return len(partition) > 0 and str(partition["x"].iloc[-1]) == str(ROWS - 1)


@dataclass
class Run:
    """Writes with all kinds of keys on one cluster, and what was seen of them."""

    cluster: servers.Cluster
    client: Client
    s3: servers.S3Server
    root: str
    folder: Path
    places: dict[str, bytes] = field(default_factory=dict, repr=False)
    secrets: dict[str, list[Secret]] = field(default_factory=dict, repr=False)
    graphs: dict[str, bytes] = field(default_factory=dict, repr=False)
    tasks: bytes = field(default=b"", repr=False)
    in_scheduler: set[str] = field(default_factory=set)
    in_workers: set[str] = field(default_factory=set)
    write_ids: list[str] = field(default_factory=list)
    found: set[sweeping.Leak] = field(default_factory=set)

    @property
    def dashboard(self) -> str:
        return str(self.cluster.dashboard_url).removesuffix("/status")

    def task_dir(self, name: str) -> str:
        return f"{self.root}/{name.replace(' ', '-')}"

    def compile(self, name: str, function: Callable[..., Any]) -> LazyWrite:
        """Compile a write, and learn its dataset key as who may open it does."""
        case = CASES[name]
        ddf = dd.from_pandas(batch(0, ROWS), npartitions=PARTITIONS)
        frame = ddf.map_partitions(function, str(self.folder), name, meta=ddf._meta)
        writer = DataWriter(
            self.task_dir(name),
            storage_options=self.s3.storage_options,
            encryption_key=case.given(self.folder),
            encryption_mode=case.mode,
        )
        lazy = writer.write_dataframe(frame, "people", "parquet", compute=False)
        self._learn(name, lazy)
        graph = dict(lazy.__dask_graph__())
        self.graphs[lazy.write_id] = pickle.dumps(graph)
        self.see(f"{name}: compiled", writer, lazy, graph, lazy._spec, list(graph))
        return lazy

    def _learn(self, name: str, lazy: LazyWrite) -> None:
        sealing = lazy._spec.sealing
        assert sealing is not None
        opener = keys.resolve(CASES[name].opener(self.folder))
        context = manifest.key_context(sealing.keyed_by)
        key = keys.unwrap_any(opener, sealing.wrapped, context)
        identity = dataset_identity(key).encode()
        self.write_ids.append(lazy.write_id)
        self.secrets[name] += [
            Secret(f"{name}: the dataset key of {lazy.write_id}", key),
            Secret(f"{name}: the identity of {lazy.write_id}", identity),
        ]

    def see(self, place: str, *things: Any) -> None:
        said = "\n".join(map(sweeping.shown, things))
        self.places[f"{place} ({len(self.places)})"] = said.encode()

    def look(self, when: str) -> None:
        """Collect what the cluster tells a client now."""
        folder = self.folder / when
        folder.mkdir()
        views = sweeping.cluster_views(self.client, folder)
        self.places |= {f"{place}, {when}": data for place, data in views.items()}

    def browse(self) -> None:
        """Collect what the dashboards show now."""
        self.places |= sweeping.dashboards(self.client, self.dashboard)
        self.places |= sweeping.bokeh_documents(self.dashboard, PLOTS)

    def write_while_a_worker_dies(self) -> None:
        """Write with every key; look while all are under way, and kill a worker then."""
        lazies = {name: self.compile(name, hold) for name in CASES}
        report = self.folder / "report.html"
        with performance_report(str(report)):
            handles = {name: lazy.submit() for name, lazy in lazies.items()}
            _await(lambda: len(list(self.folder.glob("waiting-*"))) == len(CASES))
            self.look("under way")
            self.places["dump in YAML"] = sweeping.yaml_dump(self.client, self.folder)
            self.browse()
            self.tasks = self.client.run_on_scheduler(sweeping.pickled_tasks)
            self.cluster.kill_worker()
            (self.folder / "open").touch()
            for name, handle in handles.items():
                result = handle.result(PATIENCE)
                self.see(f"{name}: written", handle, handle.progress(), result)
        self.places["performance report"] = report.read_bytes()
        self.cluster.wait_for_workers()

    def fail(self, function: Callable[..., Any], expected: type[Exception]) -> None:
        """Write what cannot be computed, or does not fit."""
        handles = {name: self.compile(name, function).submit() for name in CASES}
        for name, handle in handles.items():
            with pytest.raises(expected) as caught:
                handle.result(PATIENCE)
            told = sweeping.shown_error(caught.value).encode()
            self.places[f"{name}: {expected.__name__}"] = told

    def read(self, name: str) -> None:
        back = read_dataset(
            f"{self.task_dir(name)}/output/people",
            encryption_key=CASES[name].opener(self.folder),
            storage_options=self.s3.storage_options,
        )
        self.see(f"{name}: read", back, back.expr, dict(back.__dask_graph__()))
        assert len(back) == ROWS

    def spill(self) -> None:
        """Hold the result of every task of a write, all on disk, and look there."""
        lazies = [self.compile(name, hold) for name in CASES]
        held = [self.client.get(z._graph, list(dict(z._graph)), sync=False) for z in lazies]
        wait(held, timeout=PATIENCE)
        self.look("held")
        results = self.client.run(sweeping.pickled_results)
        self.places |= {f"results of {worker}": data for worker, data in results.items()}
        self.places |= sweeping.files_below(self.cluster.run)
        self.tasks += self.client.run_on_scheduler(sweeping.pickled_tasks)
        self.look_into_memory()
        for futures in held:
            self.client.cancel(futures)

    def look_into_memory(self) -> None:
        """Find out which of the secrets the scheduler and the workers have in memory."""
        marks = {
            secret.name: sweeping.Fingerprint.of(secret)
            for secrets in self.secrets.values()
            for secret in secrets
            if secret.name.endswith(("the key given", *self.write_ids[-len(CASES) :]))
        }
        self.in_scheduler = self.client.run_on_scheduler(sweeping.in_memory, marks)
        self.in_workers = set().union(*self.client.run(sweeping.in_memory, marks).values())

    def stored(self) -> dict[str, bytes]:
        file_system = s3fs.S3FileSystem(**self.s3.storage_options, use_listings_cache=False)
        return {file: file_system.cat_file(file) for file in file_system.find(self.root)}


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def run(s3: servers.S3Server, pii_key: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All writes, done, with everything collected that could be seen of them."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "key").write_bytes(IN_FILE)
    (folder / "key").chmod(0o600)
    aws_secret = token_hex(20)
    with ExitStack() as stack:
        kms, vault = stack.enter_context(kms_server()), stack.enter_context(vault_server())
        kms.make_key("pii")
        vault.make_key("pii", derived=True)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        services = {**kms.environment, "AWS_SECRET_ACCESS_KEY": aws_secret, **vault.environment}
        for name, value in services.items():
            patch.setenv(name, value)
        log = stack.enter_context(sweeping.logs_of_this_process())
        cluster = stack.enter_context(servers.cluster(threads=THREADS, env=LOUD | SPILLING | BRISK))
        client = stack.enter_context(Client(cluster.scheduler_address))
        done = Run(cluster, client, s3, f"s3://{s3.bucket}/{token_hex(8)}", folder)
        done.secrets = {
            name: [Secret(f"{name}: the key given", case.secret)] if case.secret else []
            for name, case in CASES.items()
        }
        done.secrets["all"] = [
            Secret("PII_KEY", bytes.fromhex(pii_key)),
            Secret("the AWS secret key", aws_secret.encode()),
            Secret("the secret key of S3", s3.secret_key.encode()),
            Secret("the Vault token", vault.token.encode()),
        ]
        done.write_while_a_worker_dies()
        done.fail(explode, WriteFailedError)
        done.fail(misfit, SchemaMismatchError)
        for name in CASES:
            done.read(name)
        done.spill()
        done.places |= done.stored()
        done.places["logs of this process"] = log.getvalue().encode()
    done.found = sweeping.leaks(done.places, chain(*done.secrets.values()))
    return done


@pytest.mark.parametrize("name", [*CASES, "all"])
def test_no_secret_shows(run: Run, name: str) -> None:
    """Neither keys nor credentials are in anything shown, logged, dumped, spilt or stored."""
    names = {secret.name for secret in run.secrets[name]}
    assert [leak for leak in run.found if leak.secret in names] == []


def test_places_were_looked_at(run: Run) -> None:
    """What was searched is about the writes: dumps, pages, logs, spilt results, stored files."""
    about = {place for place, data in run.places.items() if _is_about(data, run.write_ids)}
    views = ["dump in msgpack", "whole dump in msgpack", "story", "worker logs", "scheduler logs"]
    views += ["scheduler tasks", "worker tasks", "events", "task stream"]
    assert {f"{view}, held" for view in views} <= about
    assert {"dump in YAML", "performance report", "logs of this process", "tasks"} <= about
    assert any("/info/task/" in place for place in about)
    assert any(place.endswith("_manifest.json") for place in about)
    for stage in ("serialize", "encrypt", "put", "gather", "commit"):
        assert any(f"pamola-{stage}" in place and "/storage/" in place for place in about)
    log = next(data for place, data in run.places.items() if place.endswith("workers.log"))
    assert b"DEBUG" in log
    assert b"Compute Failed" in log
    assert b"pamola-serialize" in log


def _is_about(data: bytes, write_ids: list[str]) -> bool:
    return any(write_id.encode() in data for write_id in write_ids)


@pytest.mark.parametrize("name", CASES)
def test_where_a_dataset_key_may_be(run: Run, name: str) -> None:
    """It is in the pickled graph and tasks if no worker can resolve the key given; else nowhere."""
    secrets = run.secrets[name]
    carried = sweeping.leaks({"graphs": b"".join(run.graphs.values()), "tasks": run.tasks}, secrets)
    places = {(leak.secret, leak.place) for leak in carried}
    dataset_keys = [secret.name for secret in secrets if "the dataset key" in secret.name]
    expected = {(key, "graphs") for key in dataset_keys}
    # The scheduler was asked for its tasks while these were under way, and these held.
    expected |= {(key, "tasks") for key in (dataset_keys[0], dataset_keys[-1])}
    assert places == (expected if CASES[name].travels else set())


@pytest.mark.parametrize("name", CASES)
def test_what_the_scheduler_has_in_memory(run: Run, name: str) -> None:
    """No key given ever reaches a scheduler, and no dataset key that need not travel."""
    assert f"{name}: the key given" not in run.in_scheduler
    names = {secret.name for secret in run.secrets[name]} & run.in_scheduler
    if not CASES[name].travels:
        assert names == set()
    assert {secret.name for secret in run.secrets[name]} & run.in_workers


@pytest.mark.parametrize("name", ["raw", "passphrase", "age identity", "age recipient"])
def test_given_key_does_not_reach_the_workers(run: Run, name: str) -> None:
    """A key that workers cannot resolve stays in the client: the memory of no worker has it."""
    assert f"{name}: the key given" not in run.in_workers


def test_unresolvable_provider_travels_with_a_warning(
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A variable set here and not on the workers: the dataset key travels, and a log says so."""
    monkeypatch.setenv("ONLY_HERE", RAW.hex())
    writer = DataWriter(tmp_path, encryption_key="env:ONLY_HERE")
    result = writer.write_dataframe(batch(0, ROWS), "people", "parquet", single_file=False)
    assert "cannot resolve env:ONLY_HERE" in caplog.text
    assert len(read_dataset(result.path, encryption_key=RAW)) == ROWS


SECRETS = {"raw": RAW, "passphrase": PASSPHRASE, "age identity": str(IDENTITY)}


@pytest.mark.parametrize("key", SECRETS.values(), ids=SECRETS)
def test_a_writer_does_not_take_its_key_into_a_graph(tmp_path: Path, key: Any) -> None:
    """A writer with such a key is not pickled, whether or not it wrote; nor is a lazy write."""
    writer = DataWriter(tmp_path, encryption_key=key)
    with pytest.raises(TypeError, match="must not be pickled"):
        pickle.dumps(writer)
    lazy = writer.write_dataframe(batch(0, ROWS), "people", "parquet", compute=False)
    with pytest.raises(TypeError, match="must not be pickled"):
        pickle.dumps(writer)
    with pytest.raises(TypeError):
        pickle.dumps(lazy)


def test_a_writer_that_travels(tmp_path: Path, pii_key: str) -> None:
    """Without a key, or with one named by a URI, it can be pickled, and its pickle has no key."""
    for key in (None, "env:PII_KEY"):
        data = pickle.dumps(DataWriter(tmp_path, encryption_key=key))
        assert sweeping.leaks({"pickle": data}, [Secret("key", bytes.fromhex(pii_key))]) == set()
        copy = pickle.loads(data)  # noqa: S301 - made on the line above
        result = copy.write_dataframe(batch(0, ROWS), "people", "parquet", single_file=False)
        assert result.encrypted == (key is not None)
        assert len(read_dataset(result.path, encryption_key=key)) == ROWS


@pytest.mark.parametrize("key", SECRETS.values(), ids=SECRETS)
def test_locals_of_a_failed_write(tmp_path: Path, key: Any) -> None:
    """A report with the locals of every frame shows no key that the writer was made with."""
    writer = DataWriter(tmp_path, encryption_key=key)
    frame = dd.from_pandas(batch(0, ROWS), npartitions=PARTITIONS)
    value = key if isinstance(key, bytes) else key.encode()
    broken = frame.map_partitions(explode, "", "", meta=frame._meta)
    for data, options in ((broken, {}), (frame, {"partition_on": "absent"})):
        with pytest.raises(DataWriteError) as caught:
            writer.write_dataframe(data, "people", "parquet", **options)
        told = sweeping.shown_error(caught.value)
        assert "lazy" in told or "request" in told
        assert sweeping.leaks({"report": told.encode()}, [Secret("key", value)]) == set()


def test_report_of_a_malformed_key(tmp_path: Path) -> None:
    """A report with locals can be made of a key that is refused."""
    writer = DataWriter(tmp_path, encryption_key=RAW[:31])
    with pytest.raises(InvalidKeyError) as caught:
        writer.write_dataframe(batch(0, ROWS), "people", "parquet")
    assert "RawKey(key_id=None)" in sweeping.shown_error(caught.value)


@pytest.mark.parametrize("altered", ["part", "manifest", "part table"])
def test_locals_of_a_failed_read(tmp_path: Path, pii_key: str, altered: str) -> None:
    """Nor does the report of a read that found tampering show the dataset key."""
    writer = DataWriter(tmp_path, encryption_key="env:PII_KEY")
    frame = dd.from_pandas(batch(0, ROWS), npartitions=PARTITIONS)
    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        result = writer.write_dataframe(frame, "people", "parquet")
    opened = find_dataset(result.path, None).open("env:PII_KEY").key
    assert opened is not None
    secrets = [
        Secret("the dataset key", opened.reveal()),
        Secret("the key given", bytes.fromhex(pii_key)),
    ]
    pattern = {"part": "part-*", "manifest": "_manifest.json", "part table": "_parts*"}[altered]
    file = next(Path(result.path).glob(pattern))
    stored = file.read_bytes()
    middle = len(stored) // 2
    for damaged in (
        stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :],
        stored[:-20],
    ):
        file.write_bytes(damaged)
        for look in (_compute, verify):
            with pytest.raises(IntegrityError) as caught:
                look(result.path, encryption_key="env:PII_KEY")
            told = sweeping.shown_error(caught.value)
            assert "dataset" in told
            assert sweeping.leaks({"report": told.encode()}, secrets) == set()


def _compute(path: Any, encryption_key: str) -> pd.DataFrame:
    return read_dataset(path, encryption_key=encryption_key).compute()
