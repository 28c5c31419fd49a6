"""``python -m deploy.local``: servers that go on by themselves, and are gone when told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from distributed import Client
from distributed.comm import connect
from jupyter_client.blocking import BlockingKernelClient
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, sync_playwright

from deploy.local import health, notebook, stack, state
from deploy.local.folder import Folder, StackError
from deploy.local.notebook import Notebook
from deploy.local.processes import HOST, ServerStartError
from tests import routes

PROJECT = Path(__file__).parents[1]
WRITE = """
import os, sys
from distributed import Client
import dask.dataframe as dd, pandas as pd
from pamola_dwriter import DataWriter
with Client() as client:
    frame = dd.from_pandas(pd.DataFrame({"x": range(60)}), npartitions=6)
    writer = DataWriter("s3://lake/task")
    result = writer.write_dataframe(frame, "people", "parquet", encryption_key="env:PII_KEY")
    print(result.path, result.rows, result.encrypted)
"""
READ = """
from pamola_dwriter import verify
print(verify("s3://lake/task/output/people", encryption_key="env:PII_KEY").rows)
"""


@dataclass(frozen=True)
class Stack:
    """A folder, and the commands that are given for it."""

    folder: Folder

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as its user would, from a shell that knows nothing."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", *words, "--folder", str(self.folder.path)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def source(self, *command: str) -> str:
        """Run a program that has nothing but what the environment file gives it."""
        shell = '. "$0" && exec "$@"'
        path = os.pathsep.join(filter(None, sys.path))
        done = subprocess.run(
            ["/bin/bash", "-c", shell, str(self.folder.environment), *command],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder.path), "PYTHONPATH": path},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def state(self) -> state.State:
        return stack.found_state(self.folder)

    def address(self, name: str) -> str:
        found = self.state.address(name)
        assert found is not None
        return found

    @property
    def secrets(self) -> list[str]:
        kept = json.loads(self.folder.keys.read_text())
        return [*kept.values(), self.folder.token.read_text()]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with everything, for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("stack")
    made = Stack(Folder(folder))
    up = made.run("up", "--notebooks", str(folder))
    assert up.returncode == 0, up.stderr
    (folder / "said").write_text(up.stdout)
    yield made
    down = made.run("down")
    assert down.returncode == 0, down.stderr


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stack]:
    """A folder with a long name, in which a test brings up what it wants."""
    made = Stack(Folder(tmp_path / ("a long name " * 12).strip()))
    yield made
    if made.folder.state.exists():
        made.run("down")


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of a stack's."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def trusting(folder: Folder) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder.certificates.ca)


def answer(url: str, headers: Mapping[str, str], trust: ssl.SSLContext | None) -> int:
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=5, context=trust) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code


def worker_addresses(running: Stack) -> list[tuple[str, str]]:
    """Address and page of each worker."""
    with Client(
        running.address("scheduler"),
        security=running.folder.certificates.security,
        set_as_default=False,
    ) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    return [(each, f"{HOST}:{info['services']['dashboard']}") for each, info in workers.items()]


def test_every_server_is_well(running: Stack) -> None:
    """The table has a row for each server, and the exit code says the same."""
    status = running.run("status")
    assert status.returncode == 0, status.stdout + status.stderr
    rows = [line.split() for line in status.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["s3", "scheduler", "pages", "workers", "notebook"]
    assert {row[2] for row in rows} == {"well"}


@pytest.mark.parametrize("link", ("scheduler", "worker", "nanny"))
def test_plain_tcp_is_refused(running: Stack, link: str) -> None:
    """Whoever speaks plain TCP to a part of the cluster is sent away."""
    addresses = {"scheduler": running.address("scheduler")}
    with Client(
        addresses["scheduler"],
        security=running.folder.certificates.security,
        set_as_default=False,
    ) as client:
        ((addresses["worker"], info), *_) = client.scheduler_info()["workers"].items()
        addresses["nanny"] = info["nanny"]
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses.values())

    async def knock() -> None:
        comm = await connect(addresses[link].replace("tls://", "tcp://"), timeout=2)
        await comm.close()

    with pytest.raises(OSError, match=r"Timed out|handshake|closed"):
        asyncio.run(knock())


@pytest.mark.parametrize("link", ("s3", "pages", "worker pages", "notebook"))
def test_plain_http_is_refused(running: Stack, link: str) -> None:
    """HTTP gets nothing where HTTPS, by our authority alone, gets an answer."""
    if link == "worker pages":
        address = f"https://{worker_addresses(running)[0][1]}/health"
    else:
        address = running.address(link)
    secure = f"{address}/healthz" if link == "s3" else address
    assert answer(secure, {}, trusting(running.folder)) == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        answer(secure, {}, ssl.create_default_context())
    try:
        plain = answer(secure.replace("https", "http"), {}, None)
    except OSError:  # it hangs up
        plain = 400
    assert plain == 400


def test_a_stranger_is_refused(running: Stack) -> None:
    """Whoever shows no certificate of the authority is let in by no part of the cluster."""
    ((worker, _), *_) = worker_addresses(running)
    trust = trusting(running.folder)
    trust.check_hostname = False
    for address in (running.address("scheduler"), worker):
        place = urlsplit(address)
        with (
            socket.create_connection((HOST, place.port or 0), timeout=5) as link,
            trust.wrap_socket(link) as wrapped,
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        ):
            wrapped.recv(1)


def test_another_process_writes_with_what_the_file_says(running: Stack) -> None:
    """A client that sourced the environment file, and was told nothing else, writes encrypted."""
    assert running.source(sys.executable, "-c", WRITE).split() == [
        *("s3://lake/task/output/people", "60", "True")
    ]
    assert running.source(sys.executable, "-c", READ).split() == ["60"]


def test_the_benchmark_job_runs(running: Stack) -> None:
    """The one command of the job runs here too, and reads back what it wrote."""
    target = "s3://lake/benchmark"
    command = routes.job_command(running.address("scheduler"), target, python=sys.executable)
    said = json.loads(running.source(*command))
    assert (said["same"], said["workers"], said["job"]["target"]) == (True, 2, target)


def test_the_page_is_open_in_a_browser(running: Stack) -> None:
    """Chromium, told of the one certificate, shows a write; without that it shows nothing."""
    running.source(sys.executable, "-c", WRITE.replace("people", "shown"))
    address = running.address("pages")
    certificate = x509.load_pem_x509_certificate(running.folder.certificates.cert.read_bytes())
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(public).digest()).decode()

    def look(page: Page) -> str:
        page.goto(address)
        page.locator("tr", has_text="output/shown").locator(".status.committed").wait_for()
        return str(page.locator("tr", has_text="output/shown").first.inner_text())

    with ThreadPoolExecutor(1) as pool:  # its driver keeps an event loop in its thread
        shown = pool.submit(in_browser, look, f"--ignore-certificate-errors-spki-list={pin}")
        assert "6 / 6" in shown.result()
        with pytest.raises(BrowserError, match="ERR_CERT_AUTHORITY_INVALID"):
            pool.submit(in_browser, look).result()


def in_browser(look: Any, *options: str) -> Any:
    program = shutil.which("chromium")
    assert program, "there is no chromium on the PATH; `.ci/system-packages` installs it"
    always = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=[*always, *options])
        try:
            return look(chromium.new_page())
        finally:
            chromium.close()


def test_the_notebook_server_wants_its_token(running: Stack) -> None:
    """Its files are for whoever has the token, which is in a file of the owner alone."""
    address, trust = f"{running.address('notebook')}/api/contents", trusting(running.folder)
    token = running.folder.token.read_text()
    assert answer(address, {}, trust) == 403
    assert answer(address, {"Authorization": "token wrong"}, trust) == 403
    assert answer(address, {"Authorization": f"token {token}"}, trust) == 200
    assert running.folder.token.stat().st_mode & 0o777 == 0o600


def test_a_notebook_finds_the_cluster(running: Stack) -> None:
    """A kernel has what a client needs: `Client()` is connected, and the package is there."""
    with kernel(running) as client:
        said = execute(client, "from distributed import Client\nprint(len(Client().nthreads()))")
    assert said == "2\n"


class kernel:  # noqa: N801 - it is a context manager
    """A kernel that the notebook server was asked to start."""

    def __init__(self, running: Stack) -> None:
        self._running = running

    def __enter__(self) -> BlockingKernelClient:
        request = urllib.request.Request(
            f"{self._running.address('notebook')}/api/kernels",
            headers={"Authorization": f"token {self._running.folder.token.read_text()}"},
            data=b"{}",
            method="POST",
        )
        with urllib.request.urlopen(request, context=trusting(self._running.folder)) as reply:
            name = json.loads(reply.read())["id"]
        file = self._running.folder.run / "jupyter" / f"kernel-{name}.json"
        self._client = BlockingKernelClient(connection_file=str(file))
        self._client.load_connection_file()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()


def execute(client: BlockingKernelClient, code: str) -> str:
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        said.append(message["content"].get("text") or str(message["content"].get("evalue", "")))

    client.execute_interactive(code, timeout=60, output_hook=hear)
    return "".join(said)


def test_no_secret_is_shown(running: Stack) -> None:
    """Not on a command line, in a log, in the state, or in what the commands print."""
    shown = [" ".join(process.cmdline()) for process in running.state.processes()]
    assert len(shown) >= 7
    shown += [log.read_text() for log in running.folder.logs.iterdir()]
    shown += [running.folder.state.read_text(), running.run("status").stdout]
    shown.append((running.folder.path / "said").read_text())
    for secret in running.secrets:
        assert not any(secret in text for text in shown)
    for holder in (running.folder.keys, running.folder.environment):
        assert running.secrets[0] in holder.read_text()
        assert holder.stat().st_mode & 0o777 == 0o600


def test_a_second_stack_in_the_folder_is_refused(running: Stack) -> None:
    """What runs goes on."""
    before = running.state
    second = running.run("up")
    assert second.returncode == 1
    assert "a stack runs in" in second.stderr
    assert running.state == before
    assert len(running.state.processes()) >= 7


def test_down_leaves_nothing_and_keeps_the_data(fresh: Stack, tmp_path: Path) -> None:
    """No process, also none of a notebook, and no port; the objects open when it is up again."""
    made = fresh
    assert made.run("up", "--workers", "1", "--notebooks", str(tmp_path)).returncode == 0
    made.source(sys.executable, "-c", WRITE)
    with kernel(made) as client:
        (pid,) = (int(word) for word in execute(client, "import os; print(os.getpid())").split())
    before = made.state.processes()
    assert pid in {process.pid for process in before}
    ports = state.listening(before)
    assert {host for host, _ in ports} == {HOST}
    down = made.run("down")
    assert down.returncode == 0, down.stderr
    assert (
        f"processes ended: {len(before)}, ports closed: {len(ports)}, nothing is left"
        in down.stdout
    )
    assert [process for process in before if not state.has_ended(process)] == []
    assert not any(map(state.accepts, ports))
    left = {path.name for path in made.folder.path.iterdir()}
    assert left == {".pamola-stack.lock", "keys.json", "logs", "s3"}
    assert made.run("up", "--workers", "1", "--no-notebook").returncode == 0
    assert made.source(sys.executable, "-c", READ).split() == ["60"]
    assert made.run("down", "--remove-data").returncode == 0
    assert not made.folder.path.exists()


def test_a_server_that_died_is_named(fresh: Stack) -> None:
    """Status asks each server: the one that was killed is not well, and the exit code says so."""
    made = fresh
    assert made.run("up", "--workers", "1", "--no-notebook").returncode == 0
    servers = {each.name: each for each in made.state.servers}
    os.killpg(servers["workers"].pid, signal.SIGKILL)
    os.kill(servers["s3"].pid, signal.SIGSTOP)
    status = made.run("status")
    assert status.returncode == 1
    rows = {line.split()[0]: line for line in status.stdout.splitlines()[1:]}
    assert "its process has ended" in rows["workers"]
    assert "takes no object" in rows["s3"]
    assert " well " in rows["scheduler"]
    assert made.run("down").returncode == 0
    assert state.State.load(made.folder) is None


def test_a_failed_start_ends_what_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the last server's own words; those before it, and the secrets' file, go."""
    command = [sys.executable, "-c", "print('its own words'); raise SystemExit(3)"]
    monkeypatch.setattr(Notebook, "_command", lambda *_: command)
    folder = Folder(tmp_path / "stack")
    plan = stack.Plan(folder=folder, keep=True, workers=1, notebooks=tmp_path)
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ServerStartError, match=r"(?s)ended with code 3:.*its own words"):
        stack.up(plan)
    time.sleep(0.1)
    started = set(psutil.Process().children(recursive=True)) - before
    assert [process for process in started if not state.has_ended(process)] == []
    assert not folder.state.exists()
    assert not folder.environment.exists()
    assert "workers.log" in {log.name for log in folder.logs.iterdir()}


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
def test_up_that_is_cut_off_leaves_nothing_that_down_does_not_end(
    fresh: Stack, number: signal.Signals
) -> None:
    """Told to end, it takes back what it started; killed, it leaves what `down` finds."""
    command = [sys.executable, "-m", "deploy.local", "up", "--no-notebook", "--folder"]
    with subprocess.Popen(
        [*command, str(fresh.folder.path)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as up:
        deadline = time.monotonic() + 30
        while not (found := state.State.load(fresh.folder)) or not found.servers:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        up.send_signal(number)
        up.wait(30)
    if number == signal.SIGKILL:
        assert found.processes()
        status = fresh.run("status")
        assert (status.returncode, "not complete" in status.stderr) == (1, True)
        assert fresh.run("down").returncode == 0
    assert found.processes() == set()
    assert not fresh.folder.state.exists()


def test_a_notebook_does_not_end_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: subprocess.Popen[bytes]
) -> None:
    """`down` in a terminal of the stack's own notebook server is refused."""
    folder = Folder(tmp_path)
    stale(folder, foreign.pid)
    monkeypatch.setenv(state.MARK, stack.found_state(folder).name)
    with pytest.raises(StackError, match="in another shell"):
        stack.down(folder)


def stale(folder: Folder, pid: int) -> None:
    """Leave what a stack leaves that ended with the machine, one id being somebody's again."""
    with folder.locked():
        folder.prepare()
        address = "https://127.0.0.1:1"
        server = state.Server(name="s3", address=address, pid=pid, started=time.time() - 86_400)
        left = state.State(name="0" * 16, keep=True, bucket="lake", workers=1, servers=(server,))
        left.save(folder)


def test_another_process_of_the_same_id_is_left_alone(
    tmp_path: Path, foreign: subprocess.Popen[bytes]
) -> None:
    """After the machine was started anew, a stack's process ids may be those of others."""
    folder = Folder(tmp_path)
    stale(folder, foreign.pid)
    (answer,) = health.check(folder, stack.found_state(folder))
    assert answer.wrong == "its process has ended"
    assert "nothing of it ran any more" in stack.down(folder)
    assert foreign.poll() is None
    with pytest.raises(StackError, match="there is no stack in"):
        stack.down(folder)


def test_workers_without_a_scheduler_are_not_well(
    tmp_path: Path, foreign: subprocess.Popen[bytes]
) -> None:
    """Status says at once that there is nobody to ask about them."""
    folder = Folder(tmp_path)
    stale(folder, 2**22)
    gone = state.Server(name="scheduler", address="tls://127.0.0.1:1", pid=2**22, started=0.0)
    workers = state.server("workers", foreign.pid, "1 x 1 threads")
    left = replace(stack.found_state(folder), servers=(gone, workers))
    assert [each.wrong for each in health.check(folder, left)] == [
        "its process has ended",
        "their scheduler has ended",
    ]


def test_what_others_put_there_is_never_removed(tmp_path: Path) -> None:
    """A folder with something in it is refused; what comes into a stack's folder later stays."""
    (mine := tmp_path / "mine").mkdir()
    (mine / "s3").mkdir()
    with pytest.raises(StackError, match="not a stack's"):
        stack.up(stack.Plan(folder=Folder(mine), keep=True))
    folder = Folder(tmp_path / "stack")
    stale(folder, 2**22)
    (folder.path / "thesis.txt").write_text("years of work")
    stack.down(folder, keep=False)
    assert [path.name for path in folder.path.iterdir()] == ["thesis.txt"]
    assert [path.name for path in mine.iterdir()] == ["s3"]


def test_a_folder_that_nobody_named_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --folder nothing stays: what was planned when it came up is what happens."""
    folder = Folder(tmp_path / "state" / "pamola-dwriter" / "local")
    stale(folder, 2**22)
    left = stack.found_state(folder)
    state.State(name=left.name, keep=False, bucket="lake", workers=1).save(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    command = [sys.executable, "-m", "deploy.local", "down"]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert not folder.path.exists()


def test_a_place_that_cannot_hold_a_stack_is_named(tmp_path: Path) -> None:
    """Where nothing can be written, or nothing can be read any more, the error says so."""
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="no place for a stack"):
        stack.up(stack.Plan(folder=Folder(tmp_path / "file" / "stack"), keep=True))
    damaged = Folder(tmp_path / "stack")
    stale(damaged, 2**22)
    damaged.state.write_text(damaged.state.read_text().replace('"bucket"', '"buckets"'))
    with pytest.raises(StackError, match="is not what this version writes"):
        stack.down(damaged)


def test_two_commands_at_once_do_not_meet(tmp_path: Path) -> None:
    """Who comes second is told so."""
    folder = Folder(tmp_path)
    with folder.locked(), pytest.raises(StackError, match="is at work in"), folder.locked():
        pass


def test_a_missing_notebook_server_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which extra brings it, and nothing has been made."""
    monkeypatch.setattr(notebook, "find_spec", lambda _: None)
    folder = Folder(tmp_path / "stack")
    with pytest.raises(ServerStartError, match=r"\[lab\].*--no-notebook"):
        stack.up(stack.Plan(folder=folder, keep=True, notebooks=tmp_path))
    assert not folder.path.exists()
