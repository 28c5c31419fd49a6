"""A stack: an S3 server, a scheduler, workers and a notebook server that go on by themselves.

They are the servers of :mod:`deploy.local.servers`, with TLS on every link by a throw-away
authority. Unlike those they outlive who started them; a folder says what runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex, token_urlsafe

from deploy.local import notebook, processes, state
from deploy.local.certificates import make_certificates
from deploy.local.dask_processes import DaskProcesses
from deploy.local.folder import Folder, StackError, write_private
from deploy.local.links import client_environment, s3_server, store_environment
from deploy.local.processes import HOST
from deploy.local.state import MARK, State
from pamola_dwriter.dashboard import ROUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to bring up.

    Attributes
    ----------
    folder : Folder
    keep : bool
        Whether objects and keys stay when it is taken down, unless somebody says otherwise then.
    workers, threads : int
        Worker processes, and threads in each.
    bucket : str
        Made if it is not there.
    notebooks : Path, optional
        What the notebook server shows; without it there is none.
    """

    folder: Folder
    keep: bool
    workers: int = 2
    threads: int = 1
    bucket: str = "lake"
    notebooks: Path | None = None


def up(plan: Plan) -> State:
    """Bring a stack up; if any server does not start, those before it are ended again.

    Raises
    ------
    StackError
        A stack runs in that folder already, or the folder is not for stacks.
    ServerStartError
        A program is not installed, or a server was not ready in time: its log ends the message.
    """
    if plan.notebooks:
        notebook.check_installed()
    processes.program("weed")
    with plan.folder.locked(), ExitStack() as undo:
        earlier = State.load(plan.folder)
        if earlier and earlier.processes():
            raise StackError(
                f"a stack runs in {plan.folder.path}: `status` shows it, `down` ends it, "
                "another --folder holds another"
            )
        starting = _Starting(plan)
        undo.callback(starting.undo)
        starting.run()
        undo.pop_all()
        return starting.state


def down(folder: Folder, *, keep: bool | None = None) -> str:
    """Take a stack down, check that nothing of it is left, and say so.

    Parameters
    ----------
    folder : Folder
    keep : bool, optional
        Whether objects, keys and logs stay; by default as was planned when it came up.

    Raises
    ------
    StackError
        There is no stack, we are part of it, or something of it could not be ended: then nothing
        is removed.
    """
    found_state(folder)
    with folder.locked():
        found = found_state(folder)
        if os.environ.get(MARK) == found.name:
            raise StackError("a notebook of the stack would end itself; do it in another shell")
        ports = state.listening(found.processes())
        ended = state.end(found)
        _check_gone(found, ports)
        kept = found.keep if keep is None else keep
        folder.clear(data=not kept)
    gone = f"processes ended: {len(ended)}, ports closed: {len(ports)}, nothing is left"
    if not ended:
        gone = "nothing of it ran any more (was the machine started anew?)"
    stays = f"Kept in {folder.path}: objects, keys, logs." if kept else "Objects and keys removed."
    return f"Down: {gone}. {stays}"


def found_state(folder: Folder) -> State:
    """Return what is known of a stack.

    Raises
    ------
    StackError
        There is none.
    """
    found = State.load(folder)
    if found is None:
        raise StackError(f"there is no stack in {folder.path}; `up` brings one up")
    return found


def _check_gone(found: State, ports: set[tuple[str, int]]) -> None:
    left = [f"process {each.pid}" for each in found.processes()]
    left += [f"port {port}" for _, port in sorted(state.await_closed(ports))]
    if left:
        raise StackError(f"could not be ended: {', '.join(left)}; nothing was removed")


class _Starting:
    """One attempt to bring a stack up."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = plan.folder
        plan.folder.prepare()
        self._tls = make_certificates(plan.folder.certificates.folder, [HOST, "localhost"])
        self.state = State(
            name=token_hex(8), keep=plan.keep, bucket=plan.bucket, workers=plan.workers
        )
        # Whatever is cut off from here on can be found by its name, and ended.
        self.state.save(self._folder)
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Start one server after the other, and write down how to use them."""
        store = s3_server(self._folder, self.state)
        store.start()
        if store.process:
            self._started.append(store.process)
            self._note("s3", store.process.pid, store.endpoint_url)
        self._start_cluster()
        self._folder.write_environment(client_environment(self._folder, self.state))
        if self._plan.notebooks:
            self._start_notebook(self._plan.notebooks)
        self.state = replace(self.state, complete=True)
        self.state.save(self._folder)

    def undo(self) -> None:
        """End what was started, and forget it; logs and objects stay."""
        state.end(self.state)
        for process in self._started:
            process.wait()
        self._folder.clear()

    def _start_cluster(self) -> None:
        dask = DaskProcesses(
            run=self._folder.run,
            logs=self._folder.logs,
            tls=self._tls,
            preload="pamola_dwriter.plugin",
            inherited=self._inherited,
        )
        scheduler = dask.start_scheduler({})
        self._started.append(scheduler)
        address, pages = dask.await_scheduler(scheduler)
        self._note("scheduler", scheduler.pid, address)
        self._note("pages", scheduler.pid, pages + ROUTE)
        workers = dask.start_workers(
            address,
            store_environment(self._folder, self.state),
            self._plan.workers,
            self._plan.threads,
        )
        self._started.append(workers)
        dask.await_workers(address, workers, self._plan.workers)
        self._note("workers", workers.pid, f"{self._plan.workers} x {self._plan.threads} threads")

    def _start_notebook(self, notebooks: Path) -> None:
        write_private(self._folder.token, token_urlsafe(24))
        server = notebook.Notebook(
            notebooks=notebooks,
            run=self._folder.run,
            logs=self._folder.logs,
            tls=self._tls,
            token=self._folder.token,
        )
        environment = {**self._inherited, **client_environment(self._folder, self.state)}
        process, address = server.start(environment)
        self._note("notebook", process.pid, address)

    @property
    def _inherited(self) -> Mapping[str, str]:
        """What our environment has, less what AWS clients were told about other stores."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            MARK: self.state.name,
            # One line for each state of a write; Dask's processes say nothing below warnings else.
            "DASK_LOGGING__PAMOLA_DWRITER": "info",
            # Else setproctitle, where it is installed, writes its titles over the environment.
            "SPT_NOENV": "1",
        }

    def _note(self, name: str, pid: int, address: str) -> None:
        started = state.server(name, pid, address)
        self.state = replace(self.state, servers=(*self.state.servers, started))
        self.state.save(self._folder)
