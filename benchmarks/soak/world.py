"""The processes of the soak, kept between runs and healed: a cluster and an S3 server."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from benchmarks.soak.spare import Spare
from deploy.local.proxy import Line, Proxy, proxy
from deploy.local.servers import Cluster, S3Server, cluster, s3_server
from pamola_dwriter.storage import WRAPPERS
from pamola_dwriter.testing import SlowStore

N_WORKERS = 3
_SECONDS_PER_CALL = 0.03
"""Every call of a store takes so much longer, so that a random moment may hit any of them."""

_PATIENCE = 60.0


class SlowStores(WorkerPlugin):
    """Makes every store of a worker slow, also of one that is born later."""

    name = "slow-stores"

    def setup(self, worker: Worker) -> None:
        """Put the wrapper around what this process opens."""
        WRAPPERS[:] = [partial(SlowStore, seconds=_SECONDS_PER_CALL)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A task directory: as writers reach it, and as whoever checks it does."""

    root: str
    options: dict[str, Any] = field(repr=False)
    direct: dict[str, Any] = field(repr=False)


class World:
    """Everything that a run needs; use it in a ``with`` block.

    Attributes
    ----------
    crew : Cluster
        The cluster as it is now; another after :meth:`replace_crew`.
    client : Client
        A client of it that is nobody's default.
    """

    crew: Cluster
    client: Client

    def __init__(self, folder: Path, stores: tuple[str, ...], key: str) -> None:
        self._folder = folder
        self._stores = stores
        self._key = key
        self._stack = ExitStack()
        self._crew_stack = ExitStack()
        self.sites: dict[str, Site] = {}
        self.server: S3Server | None = None
        self.network: Proxy | None = None
        self.spare = Spare()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._crew_stack.close()
        self._stack.close()

    def heal(self) -> None:
        """Make everything work again, and wait until no task runs any more."""
        if self.network is not None:
            self.network.line = Line()
        self.client.wait_for_workers(N_WORKERS - 1, timeout=_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        while any(self.client.run(_is_busy, on_error="ignore").values()):
            if time.monotonic() > deadline:
                raise TimeoutError("tasks of a write that has ended still run")
            time.sleep(0.05)

    def replace_crew(self) -> None:
        """Kill the whole cluster and start another."""
        self.crew.kill()
        self._crew_stack.close()
        self._start_crew()

    def replace_spare(self) -> None:
        """Start another client process, which gets ready meanwhile."""
        self.spare.close()
        self.spare = Spare()

    def _open(self, stack: ExitStack) -> None:
        stack.callback(lambda: self.spare.close())  # noqa: PLW0108 - the last one
        if "posix" in self._stores:
            self.sites["posix"] = Site(root=str(self._folder / "task"), options={}, direct={})
        if "s3" in self._stores:
            self.server = stack.enter_context(s3_server())
            self.network = stack.enter_context(proxy(self.server.ports[0]))
            self.sites["s3"] = Site(
                root=f"s3://{self.server.bucket}/task",
                options=self.server.storage_options_by(self.network.port),
                direct=self.server.storage_options,
            )
        self._start_crew()

    def _start_crew(self) -> None:
        with ExitStack() as stack:
            self.crew = stack.enter_context(
                cluster(n_workers=N_WORKERS, env={"PII_KEY": self._key}, dashboard=False)
            )
            self.client = stack.enter_context(
                Client(self.crew.scheduler_address, set_as_default=False)
            )
            self.client.register_plugin(SlowStores())
            self._crew_stack = stack.pop_all()


def pids(client: Client) -> dict[str, int]:
    """Return the process id of each worker that answers, by address."""
    return dict(client.run(os.getpid, on_error="ignore"))


def _is_busy(dask_worker: Worker) -> bool:
    return bool(dask_worker.state.executing or dask_worker.active_threads)
