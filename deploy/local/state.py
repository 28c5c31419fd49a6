"""What runs of a stack, and how its processes are found again by another process.

A process id alone may belong to somebody else by now (after a reboot, or when ids have come round),
so each server is known by its id and its start. Whatever a server starts inherits a variable with
the stack's own name: by that its children are found also when their parent is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from deploy.local.folder import Folder, StackError, write_private
from deploy.local.processes import STOP_SECONDS

MARK = "PAMOLA_LOCAL_STACK"
"""The variable that every process of a stack has, with the stack's name."""

_SAME_START = 2.0
"""Seconds by which the start of one process can differ between two looks, when a clock is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One process that was started, and where it listens."""

    name: str
    address: str
    pid: int
    started: float

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs; not one that only has its id."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < _SAME_START
            return found if same and not has_ended(found) else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A stack: what it is called, and what was started for it.

    Attributes
    ----------
    name : str
        Drawn at random for each stack.
    keep : bool
        Whether its objects stay when it is taken down, unless somebody says otherwise then.
    bucket : str
    workers : int
        How many there should be.
    servers : tuple of Server
        In the order in which they were started.
    complete : bool
        Whether all of them were; if not, whoever started them is at it, or was cut off.
    """

    name: str
    keep: bool
    bucket: str
    workers: int
    servers: tuple[Server, ...] = ()
    complete: bool = False

    def find(self, name: str) -> Server | None:
        """Return a server, if it was started."""
        return next((each for each in self.servers if each.name == name), None)

    def address(self, name: str) -> str | None:
        """Return where a server listens, if it was started."""
        found = self.find(name)
        return found.address if found else None

    def processes(self) -> set[psutil.Process]:
        """Return every process that is left of it."""
        leaders = {found for each in self.servers if (found := each.process())}
        return leaders | _marked(self.name)

    def save(self, folder: Folder) -> None:
        """Write it for the next command to find."""
        write_private(folder.state, json.dumps(asdict(self), indent=2))

    @staticmethod
    def load(folder: Folder) -> State | None:
        """Return what was saved, if anything was.

        Raises
        ------
        StackError
            It was damaged, or saved by another version.
        """
        if not folder.state.exists():
            return None
        try:
            saved: dict[str, Any] = json.loads(folder.state.read_text())
            return State(**{**saved, "servers": tuple(Server(**each) for each in saved["servers"])})
        except (ValueError, TypeError, KeyError) as error:
            raise StackError(
                f"{folder.state} is not what this version writes; take the stack down with the "
                f"version that brought it up, or end the processes that have {MARK} in their "
                "environment and remove the file"
            ) from error


def server(name: str, pid: int, address: str) -> Server:
    """Note a process that has just been started."""
    return Server(name=name, pid=pid, address=address, started=psutil.Process(pid).create_time())


def end(state: State) -> set[psutil.Process]:
    """End a stack, the last server first, each politely; then kill what is left.

    Returns
    -------
    set of psutil.Process
        Those that ended.
    """
    found = state.processes()
    for each in reversed(state.servers):
        if process := each.process():
            _send(process, signal.SIGTERM)
            _send(process, signal.SIGCONT)  # one that was stopped would not hear the first
            await_end([process])
    found |= (left := state.processes())
    for process in left:
        _send(process, signal.SIGKILL)
    await_end(left)
    return found - state.processes()


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Return where processes accept connections."""
    pids = {process.pid for process in processes}
    with suppress(psutil.AccessDenied):  # macOS tells root alone
        return {
            (str(link.laddr.ip), int(link.laddr.port))
            for link in psutil.net_connections(kind="inet")
            if link.laddr and link.pid in pids and link.status == psutil.CONN_LISTEN
        }
    return set()


def await_closed(addresses: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Wait until nobody accepts connections there, and return where somebody still does.

    A process whose main thread has ended looks as if all of it had, and has its ports open until
    the last of its threads is gone.
    """
    left = set(filter(accepts, addresses))
    deadline = time.monotonic() + STOP_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = set(filter(accepts, left))
    return left


def accepts(address: tuple[str, int]) -> bool:
    """Return whether anybody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def has_ended(process: psutil.Process) -> bool:
    """Whether it has ended, though its adoptive parent may not have asked how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _marked(name: str) -> set[psutil.Process]:
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # another's, or gone
            if process.pid != os.getpid() and process.environ().get(MARK) == name:
                found.add(process)
    return {process for process in found if not has_ended(process)}


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def await_end(processes: Collection[psutil.Process]) -> None:
    """Wait until all have ended, but not for ever."""
    deadline = time.monotonic() + STOP_SECONDS
    while not all(map(has_ended, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
