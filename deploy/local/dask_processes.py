"""A Dask scheduler and its workers, started as processes of their own, and waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.security import Security

from deploy.local.certificates import Certificates
from deploy.local.processes import HOST, START_SECONDS, spawn, wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskProcesses:
    """How a scheduler and its workers are started.

    Attributes
    ----------
    run : Path
        Where they keep what is of no use when they have ended; workers spill there.
    logs : Path
        Where ``scheduler.log`` and ``workers.log`` go.
    host : str
        Address of this machine that they listen on; their pages are on the loopback interface.
    tls : Certificates, optional
        For that host; without it they speak plain TCP and HTTP.
    dashboard : bool
        Serve the scheduler's pages.
    preload : str, optional
        A module that the scheduler loads before it starts.
    inherited : mapping
        What they have of an environment beside what each is given; by default this process's.
    """

    run: Path
    logs: Path
    host: str = HOST
    tls: Certificates | None = None
    dashboard: bool = True
    preload: str | None = None
    inherited: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @property
    def security(self) -> Security | None:
        """What a client of the scheduler needs."""
        return self.tls.security if self.tls else None

    def start_scheduler(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start the scheduler, and return at once."""
        command = [
            *(sys.executable, "-m", "dask", "scheduler"),
            *("--host", f"{'tls' if self.tls else 'tcp'}://{self.host}", "--port", "0"),
            *("--scheduler-file", str(self._scheduler_file)),
            # The scheduler's HTTP server runs in any case, by default on port 8787.
            *("--dashboard-address", f"{HOST}:0"),
            "--dashboard" if self.dashboard else "--no-dashboard",
            *(("--preload", self.preload) if self.preload else ()),
        ]
        return spawn(command, self.logs / "scheduler.log", self._complete(environment))

    def await_scheduler(self, process: subprocess.Popen[bytes]) -> tuple[str, str]:
        """Wait for the scheduler, and return its address and where its pages are.

        Raises
        ------
        ServerStartError
            It was not ready after :data:`processes.START_SECONDS`.
        """
        found: dict[str, Any] = {}

        def known() -> bool:
            # The file may be read while it is being written.
            with suppress(FileNotFoundError, json.JSONDecodeError):
                found.update(json.loads(self._scheduler_file.read_text()))
            return bool(found)

        wait_until(known, "the Dask scheduler", process, self.logs / "scheduler.log")
        scheme = "https" if self.tls else "http"
        return str(found["address"]), f"{scheme}://{HOST}:{found['services']['dashboard']}"

    def start_workers(
        self, scheduler: str, environment: Mapping[str, str], workers: int, threads: int
    ) -> subprocess.Popen[bytes]:
        """Start workers, each under a nanny that starts another in its place, and return."""
        command = [
            *(sys.executable, "-m", "dask", "worker", scheduler),
            *("--host", self.host, "--nworkers", str(workers), "--nthreads", str(threads)),
            # Without an address the HTTP server of each worker listens on every interface.
            *("--nanny", "--dashboard-address", f"{HOST}:0"),
            *("--local-directory", str(self.run / "workers")),
        ]
        return spawn(command, self.logs / "workers.log", self._complete(environment))

    def await_workers(self, scheduler: str, process: subprocess.Popen[bytes], workers: int) -> None:
        """Wait until so many workers are registered.

        Raises
        ------
        ServerStartError
            They were not after :data:`processes.START_SECONDS`.
        """
        with connect(scheduler, self.security) as client:
            wait_until(
                lambda: len(client.scheduler_info(n_workers=-1)["workers"]) >= workers,
                "the Dask workers",
                process,
                self.logs / "workers.log",
            )

    @property
    def _scheduler_file(self) -> Path:
        return self.run / "scheduler.json"

    def _complete(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Whatever can be imported here can be imported there: functions travel by their names."""
        complete = {**self.inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if sys.version_info < (3, 12):
            # Sampling the threads can hang the interpreter for good (python/cpython#106883, and
            # dask/distributed#8616, which the worker's profiler still does every 10 ms).
            complete["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "false"
        return {**complete, **(self.tls.environment if self.tls else {}), **environment}


def connect(scheduler: str, security: Security | None, timeout: float = START_SECONDS) -> Client:
    """Return a client that does not become the default of whoever called us."""
    return Client(scheduler, security=security, set_as_default=False, timeout=timeout)
