"""Real servers on this machine: an S3 store and a Dask cluster, each as its own processes.

Tests and the demonstration use them, so that what is shown and tested crosses process and
network boundaries. Everything listens on the loopback interface only (unless a cluster is told
another host), on ports that were free, keeps its files in a temporary folder, and is gone when the
``with`` block ends, whatever ended it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client
from distributed.security import Security

from deploy.local.certificates import Certificates
from deploy.local.dask_processes import DaskProcesses, connect
from deploy.local.processes import HOST, START_SECONDS, ServerStartError, kill_group, stop
from deploy.local.s3 import REGION, S3Server, s3_server

__all__ = ["HOST", "REGION", "Cluster", "S3Server", "ServerStartError", "cluster", "s3_server"]


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
        return connect(self.scheduler_address, self.security)

    def worker_pids(self) -> dict[str, int]:
        """Process id of each worker by its address; a restarted worker has a new one."""
        with self.connect() as client:
            # A worker that has just died is still listed, and does not answer.
            return dict(client.run(os.getpid, on_error="ignore"))

    def kill_worker(self, address: str | None = None) -> int:
        """SIGKILL a worker, or that with most results, and return its process id.

        Its nanny starts another.

        Raises
        ------
        LookupError
            There is no such worker any more.
        """
        pids = self.worker_pids()
        if address is None and pids:
            with self.connect() as client:
                holding = client.has_what()
            address = max(pids, key=lambda one: len(holding.get(one, ())))
        if address is None or address not in pids:
            raise LookupError(f"no worker {address or 'at all'}")
        pid = pids[address]
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
        start = DaskProcesses(run=run, logs=run, host=host, tls=tls, dashboard=dashboard)
        scheduler = start.start_scheduler(env or {})
        stack.callback(stop, scheduler)
        address, pages = start.await_scheduler(scheduler)
        workers = start.start_workers(address, env or {}, n_workers, threads)
        stack.callback(stop, workers)
        start.await_workers(address, workers, n_workers)
        yield Cluster(
            scheduler_address=address,
            dashboard_url=f"{pages}/status" if dashboard else None,
            n_workers=n_workers,
            run=run,
            processes=(scheduler, workers),
            security=start.security,
        )
