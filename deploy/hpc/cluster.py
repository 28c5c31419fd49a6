"""A Dask cluster of SLURM jobs with the settings that our writes want.

``python -m deploy.hpc.cluster --interface ib0 --shared /shared/me --jobs 8 -- COMMAND`` runs a
command beside a scheduler of its own, with ``DASK_SCHEDULER_ADDRESS`` and Dask's TLS files in its
environment, and ends with the command's exit code. Needs ``pip install 'pamola_dwriter[hpc]'``.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from distributed.security import Security

from deploy.hpc.jobqueue import SLURMCluster
from deploy.local.certificates import Certificates, make_certificates

MARGIN = timedelta(minutes=5)
"""How long before its wall time a worker begins to hand over what it holds, at most."""

STAGGER = timedelta(minutes=1)
"""Jobs that began together do not all end together."""

ALLOWED_FAILURES = 20
"""Workers that may die under one task; Dask's three are soon used up by preemption."""

_PLAIN = re.compile(r"/[\w./+@-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What differs from one SLURM cluster to the next.

    Attributes
    ----------
    shared : Path
        A folder, the same on every node and readable by nobody else: TLS files, the jobs' logs.
    interface : str
        Network interface of scheduler and workers, such as ``ib0`` or ``eth0``.
    partition, account : str, optional
        SLURM's, where the default will not do.
    cores, processes : int
        Of one job; its cores are divided among its processes as threads.
    memory : str
        Of one job, divided in the same way.
    walltime : timedelta
        Of one job; another takes its place.
    scratch : str
        Where a worker spills, on the node's own disk; the job's shell expands it.
    prologue : sequence of str
        Lines of shell before the worker starts: ``module load``, ``source .venv/bin/activate``.
    """

    shared: Path
    interface: str
    partition: str | None = None
    account: str | None = None
    cores: int = 4
    processes: int = 1
    memory: str = "16 GiB"
    walltime: timedelta = timedelta(hours=1)
    scratch: str = "${TMPDIR:-/tmp}"
    prologue: Sequence[str] = field(default=())


def slurm_cluster(site: Site, certificates: Certificates) -> SLURMCluster:
    """Start a scheduler here, on links of TLS alone; ``adapt`` or ``scale`` then submits jobs.

    The environment of whoever submits is not handed to SLURM, which keeps it on the controller's
    disk: jobs have that of a login. So a key comes by ``file:`` or a key service, not by ``env:``.

    Parameters
    ----------
    site : Site
        Must leave more wall time than :data:`MARGIN`.
    certificates : Certificates
        In a folder that every node sees.

    Raises
    ------
    ValueError
        The wall time is too short to end in good order, or a path would be taken apart.
    """
    for path in (site.shared, certificates.folder, Path(sys.executable)):
        if not _PLAIN.fullmatch(str(path)):
            raise ValueError(
                f"{str(path)!r} goes into the jobs' script, which quotes nothing; choose an "
                "absolute path of letters, digits and any of _ . + @ - alone"
            )
    if site.walltime <= 2 * MARGIN:
        raise ValueError(f"walltime is {site.walltime}; give jobs more than {2 * MARGIN}")
    lifetime = site.walltime - MARGIN - STAGGER
    logs = site.shared / "logs"
    return SLURMCluster(
        cores=site.cores,
        processes=site.processes,
        memory=site.memory,
        queue=site.partition,
        account=site.account,
        walltime=_hours(site.walltime),
        interface=site.interface,
        security=_security(certificates),
        local_directory=site.scratch,
        log_directory=str(logs),
        python=sys.executable,
        nanny=True,  # starts a worker again that ran out of memory, within the same job
        death_timeout=60,  # without a scheduler a job ends soon, and its cores are free
        job_script_prologue=list(site.prologue),
        job_extra_directives=["--export=PATH,HOME", "--no-requeue"],  # adapt brings another
        worker_extra_args=[
            *("--lifetime", f"{lifetime.total_seconds():.0f}s"),
            *("--lifetime-stagger", f"{STAGGER.total_seconds():.0f}s"),
            # A login node has other users: only a tunnel reaches the pages.
            *("--dashboard-address", "127.0.0.1:0"),
        ],
        scheduler_options={
            "dashboard_address": "127.0.0.1:0",
            "preload": ["pamola_dwriter.plugin"],
            "allowed_failures": ALLOWED_FAILURES,
        },
    )


def environment_of(cluster: SLURMCluster, certificates: Certificates) -> Mapping[str, str]:
    """What lets another process find the scheduler and be let in."""
    address = {"DASK_SCHEDULER_ADDRESS": str(cluster.scheduler_address)}
    return {**os.environ, **certificates.environment, **address}


def main() -> int:
    """Run one command beside a cluster of at most so many jobs."""
    signal.signal(signal.SIGTERM, _end)
    options = _parse()
    certificates = make_certificates(options.shared / "tls", ["pamola-dwriter"])
    site = Site(
        shared=options.shared,
        interface=options.interface,
        partition=options.partition,
        account=options.account,
        cores=options.cores,
        memory=options.memory,
        prologue=options.prologue,
    )
    with slurm_cluster(site, certificates) as cluster:
        print(f"scheduler {cluster.scheduler_address}, page {cluster.dashboard_link}", flush=True)
        cluster.adapt(minimum_jobs=1, maximum_jobs=options.jobs)
        environment = environment_of(cluster, certificates)
        return subprocess.run(options.command, env=environment, check=False).returncode


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.hpc.cluster", description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder that every node sees")
    parser.add_argument("--interface", required=True, help="network interface, such as ib0")
    parser.add_argument("--jobs", type=int, default=4, help="jobs at most")
    parser.add_argument("--cores", type=int, default=4, help="of one job")
    parser.add_argument("--memory", default="16 GiB", help="of one job")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--prologue", action="append", default=[], help="a line of shell")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    return parser.parse_args()


def _security(certificates: Certificates) -> Security:
    """One certificate in every role, by the paths of its files: dask-jobqueue hands those on."""
    files = {
        f"tls_{role}_{what}": str(file)
        for role in ("scheduler", "worker", "client")
        for what, file in (("cert", certificates.cert), ("key", certificates.key))
    }
    return Security(tls_ca_file=str(certificates.ca), require_encryption=True, **files)


def _hours(duration: timedelta) -> str:
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _end(signum: int, _frame: object) -> NoReturn:
    """Unwind, so that the jobs are cancelled."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
