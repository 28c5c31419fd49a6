"""A SLURM of one node on this machine: ``python -m deploy.hpc.slurm_node``.

munged, slurmctld and slurmd run as processes of whoever starts this, without systemd, on the
loopback interface, on ports that were free, with a munge key of their own. Configuration, sockets,
state and logs are in a temporary folder; nothing in ``/etc`` is read or changed: whoever submits
has to have ``SLURM_CONF`` in the environment. All is gone when the ``with`` block ends, jobs
included, whatever ended it. For tests: nothing limits what a job uses, and the node claims eight
CPUs whatever it has, so that jobs need not wait for each other.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from tempfile import TemporaryDirectory
from typing import NoReturn

import psutil

from deploy.local import processes
from deploy.local.processes import HOST, ServerStartError

PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")
"""Debian's packages; ``.ci/system-packages`` installs them."""

CPUS = 8
MEMORY = 16_384
"""MiB that the node claims to have."""

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue", "sinfo")
_SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
_ASK_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """A running SLURM; made by :func:`slurm_node`.

    Attributes
    ----------
    folder : Path
        Holds the configuration, state and the logs.
    controller_port, node_port : int
        Where slurmctld and slurmd listen, on the loopback interface alone.
    """

    folder: Path
    controller_port: int
    node_port: int

    @property
    def conf(self) -> Path:
        """What ``SLURM_CONF`` has to say."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What to add to the environment of whoever submits jobs."""
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM))
        return {"SLURM_CONF": str(self.conf), "PATH": path}

    def ask(self, *command: str) -> str:
        """Run one of SLURM's commands and return what it printed.

        Raises
        ------
        subprocess.CalledProcessError
            It failed; its ``stderr`` says why.
        """
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
        ).stdout

    def jobs(self) -> dict[str, str]:
        """State of each job that is not over, by its id."""
        lines = self.ask("squeue", "--noheader", "--format=%i %T").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def steps(self) -> list[psutil.Process]:
        """The processes of jobs, with those of SLURM that watch them."""
        # Watchers detach themselves from slurmd, and each listens on a socket of our folder.
        watched = {
            each.pid
            for each in psutil.net_connections(kind="unix")
            if each.pid and str(each.laddr).startswith(f"{self.folder}/spool/")
        }
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid in watched and process.name().startswith("slurmstepd"):
                    found |= {process, *process.children(recursive=True)}
                elif process.environ().get("SLURM_JOB_ID") and (
                    process.environ().get("SLURM_CONF") == str(self.conf)
                ):
                    found.add(process)
        return sorted(found, key=lambda process: process.pid)


@contextmanager
def slurm_node() -> Iterator[SlurmNode]:
    """Run SLURM with one node that is ready for jobs.

    Raises
    ------
    ServerStartError
        A program is not installed, or one was not ready after ``processes.START_SECONDS``.
    """
    check_installed()
    with ExitStack() as stack:
        # Short: a socket's path may have 107 characters at most.
        folder = stack.enter_context(
            TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)
        )
        os.chmod(folder, 0o711)  # noqa: S103 - munged insists that others can reach its socket
        controller_port, node_port = processes.free_ports(2)
        node = SlurmNode(folder=Path(folder), controller_port=controller_port, node_port=node_port)
        _configure(node)
        stack.callback(_end_jobs, node)
        socket_path = str(node.folder / "munge.socket")
        _start(node, stack, "munged", [*_munged(node)], lambda: os.path.exists(socket_path))
        _start(node, stack, "slurmctld", ["slurmctld", "-D"], lambda: _answers(node))
        _start(node, stack, "slurmd", ["slurmd", "-D"], lambda: _is_idle(node))
        # Last in, first out: jobs end while there is still somebody to end them.
        stack.callback(_cancel_jobs, node)
        yield node


def check_installed() -> None:
    """Raise ServerStartError if a program is missing; its message says how to install it."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM))
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        raise ServerStartError(
            f"{', '.join(missing)} not installed; as root: .ci/system-packages, "
            f"or apt-get install {' '.join(PACKAGES)}"
        )


def main() -> int:
    """Run until Ctrl-C, and say how to use it."""
    signal.signal(signal.SIGTERM, _end)
    try:
        with slurm_node() as node:
            print(f"Ready. In another shell:\n  export SLURM_CONF={node.conf}\n  sinfo", flush=True)
            signal.pause()
    except ServerStartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _configure(node: SlurmNode) -> None:
    key = node.folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(token_bytes(128))
    for name in ("state", "spool"):
        (node.folder / name).mkdir(mode=0o755)
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    settings = {
        "ClusterName": "onenode",
        "SlurmctldHost": f"{host}({HOST})",
        "SlurmctldPort": node.controller_port,
        "SlurmdPort": node.node_port,
        # Both listen on every interface without it.
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={node.folder / 'munge.socket'}",
        "StateSaveLocation": node.folder / "state",
        "SlurmdSpoolDir": node.folder / "spool",
        "SlurmctldPidFile": node.folder / "slurmctld.pid",
        "SlurmdPidFile": node.folder / "slurmd.pid",
        # Control groups belong to whoever runs the machine.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SchedulerType": "sched/builtin",
        "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0",
        "SlurmdParameters": "config_overrides",
        "ReturnToService": 2,
        "JobRequeue": 0,
        "KillWait": 1,
        "MinJobAge": 10,
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines.append(f"NodeName={host} NodeAddr={HOST} CPUs={CPUS} RealMemory={MEMORY}")
    lines.append(f"PartitionName=main Nodes={host} Default=YES MaxTime=60 DefMemPerCPU=512")
    node.conf.write_text("\n".join(lines) + "\n")


def _munged(node: SlurmNode) -> Iterator[str]:
    yield from ("munged", "--foreground", "--num-threads=2")
    for option, name in {
        "key-file": "munge.key",
        "log-file": "munged.own.log",
        "pid-file": "munged.pid",
        "seed-file": "munge.seed",
        "socket": "munge.socket",
    }.items():
        yield f"--{option}={node.folder / name}"


def _start(
    node: SlurmNode, stack: ExitStack, name: str, command: list[str], ready: Callable[[], bool]
) -> None:
    log = node.folder / f"{name}.log"
    environment = {"HOME": str(node.folder), **os.environ, **node.environment}
    process = processes.spawn(command, log, environment)
    stack.callback(processes.stop, process)
    processes.wait_until(ready, name, process, log)


def _answers(node: SlurmNode) -> bool:
    try:
        return "UP" in node.ask("scontrol", "ping")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False


def _is_idle(node: SlurmNode) -> bool:
    try:
        return node.ask("sinfo", "--noheader", "--format=%T").strip() == "idle"
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False


def _cancel_jobs(node: SlurmNode) -> None:
    """Let SLURM end the jobs: SIGTERM, and SIGKILL after its ``KillWait``."""
    with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
        for job in node.jobs():
            node.ask("scancel", job)
        deadline = time.monotonic() + processes.STOP_SECONDS
        while (node.jobs() or node.steps()) and time.monotonic() < deadline:
            time.sleep(0.1)


def _end_jobs(node: SlurmNode) -> None:
    """Kill what is left of jobs when SLURM itself is gone."""
    left = node.steps()
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, processes.STOP_SECONDS)


def _end(signum: int, _frame: object) -> NoReturn:
    """Unwind, so that everything is stopped."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
