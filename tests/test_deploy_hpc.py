"""A real SLURM of one node, real jobs, and a directory that they share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import dask
import pandas as pd
import psutil
import pytest
from distributed import Client

from deploy.hpc import slurm_node
from deploy.hpc.cluster import Site, slurm_cluster
from deploy.hpc.jobqueue import SLURMCluster
from deploy.hpc.slurm_node import SlurmNode
from deploy.local import servers
from deploy.local.certificates import Certificates, make_certificates
from pamola_dwriter import read_dataset, verify
from tests import routes
from tests.gates import LET_THROUGH, ROWS, gated, make_source
from tests.places import Place

PARTITIONS = 6
PATIENCE = 90.0
PROJECT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def test_an_interrupt_stays_an_interrupt() -> None:
    """Importing the cluster leaves Ctrl-C to whoever had it."""
    script = (
        "import signal; before = signal.getsignal(signal.SIGINT); import deploy.hpc.cluster; "
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmNode]:
    """SLURM, which this process's commands then find, and of which nothing is left."""
    with slurm_node.slurm_node() as node, pytest.MonkeyPatch.context() as patch:
        for name, value in node.environment.items():
            patch.setenv(name, value)
        yield node
    assert_gone(node)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """TLS files in the shared folder."""
    return make_certificates(tmp_path / "tls", ["pamola-dwriter"])


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """The value of a variable of whoever submits."""
    monkeypatch.setenv("PII_KEY", value := token_hex(32))
    return value


@pytest.fixture
def jobs(slurm: SlurmNode, tmp_path: Path, certificates: Certificates) -> Iterator[SLURMCluster]:
    """A cluster of two jobs with one thread each, kept at that."""
    site = Site(
        shared=tmp_path,
        interface="lo",
        cores=1,
        memory="512 MiB",
        walltime=timedelta(minutes=30),
        scratch=str(tmp_path / "scratch"),
        prologue=[f"export PYTHONPATH={os.pathsep.join(filter(None, sys.path))}"],
    )
    quick = {"distributed.deploy.lost-worker-timeout": "1s"}
    with dask.config.set(quick), slurm_cluster(site, certificates) as cluster:
        cluster.adapt(minimum_jobs=2, maximum_jobs=2, interval="500ms")
        yield cluster
    await_true(lambda: not slurm.jobs() and not slurm.steps(), "the jobs end")


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A reference to a key in a file that every job can read."""
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(token_hex(32))
    return f"file:{file}"


def await_true(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def check_whole(place: Place, path: str, write_id: str, key: str) -> None:
    """Every row once, what the manifest says, and nothing else in the directory."""
    assert verify(path, encryption_key=key).rows == PARTITIONS * ROWS
    frame: pd.DataFrame = read_dataset(path, encryption_key=key).compute(scheduler="sync")
    assert sorted(frame["x"]) == list(range(PARTITIONS * ROWS))
    place.assert_no_leftovers(write_id)


def test_write_by_jobs_of_slurm_is_whole(
    jobs: SLURMCluster, slurm: SlurmNode, tmp_path: Path, key: str
) -> None:
    """An encrypted write over TLS to a shared directory commits, and the plugin watched it."""
    place = Place(str(tmp_path / "task"))
    source = make_source(tmp_path, PARTITIONS)
    (tmp_path / "open").touch()
    with Client(jobs, set_as_default=True) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        assert jobs.scheduler_address.startswith("tls://127.0.0.1")
        assert len(slurm.jobs()) == 2
        assert "pamola-writes" in jobs.scheduler.plugins
        result = place.writer().write_dataframe(
            gated(source), "people", "parquet", encryption_key=key
        )
        by_jobs = {path.name.split("-")[2] for path in tmp_path.glob("computed-*")}
    assert str(os.getpid()) not in by_jobs
    check_whole(place, result.path, result.write_id, key)


def test_write_outlives_a_cancelled_job(
    jobs: SLURMCluster, slurm: SlurmNode, tmp_path: Path, key: str
) -> None:
    """A job is cancelled in the middle of a write: another takes its place, the result is whole."""
    place = Place(str(tmp_path / "task"))
    source = make_source(tmp_path, PARTITIONS)
    with Client(jobs, set_as_default=True) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        before = set(slurm.jobs())
        handle = place.writer().submit_dataframe(
            gated(source), "people", "parquet", encryption_key=key
        )
        await_true(lambda: len(list(tmp_path.glob("computed-*"))) >= LET_THROUGH + 2, "both held")
        victim = sorted(before)[0]
        slurm.ask("scancel", victim)
        await_true(lambda: victim not in slurm.jobs(), "the job ends")
        await_true(lambda: set(slurm.jobs().values()) == {"RUNNING"}, "another job runs")
        await_true(lambda: len(set(slurm.jobs()) - before) == 1, "another job runs")
        client.wait_for_workers(2, timeout=PATIENCE)
        assert not handle.done()
        (tmp_path / "open").touch()
        result = handle.result(timeout=PATIENCE)
    check_whole(place, result.path, result.write_id, key)


def test_environment_of_the_submitter_stays_with_it(
    slurm: SlurmNode, secret: str, jobs: SLURMCluster
) -> None:
    """What jobs are given, and SLURM keeps on its disk, holds no variable but those named."""
    with Client(jobs) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        assert set(client.run(lambda: os.environ.get("PII_KEY")).values()) == {None}
        kept = [file.read_bytes() for file in slurm.folder.rglob("*") if file.is_file()]
    assert any(b"PYTHONPATH" in content for content in kept)  # of the jobs that run
    assert not any(secret.encode() in content for content in kept)


def test_wall_time_too_short_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    """A job that would have no time to hand over is refused before it is submitted."""
    site = Site(shared=tmp_path, interface="lo", walltime=timedelta(minutes=10))
    with pytest.raises(ValueError, match="give jobs more than 0:10:00"):
        slurm_cluster(site, certificates)


@pytest.mark.parametrize("name", ("two words", "a;b", "$(id)", "a\n#SBATCH --uid=0"))
def test_path_that_a_script_would_take_apart_is_refused(tmp_path: Path, name: str) -> None:
    """dask-jobqueue pastes paths into a script of the shell as they are; so some are refused."""
    certificates = make_certificates(tmp_path / name / "tls", ["pamola-dwriter"])
    with pytest.raises(ValueError, match="quotes nothing"):
        slurm_cluster(Site(shared=tmp_path / name, interface="lo"), certificates)


def test_job_script_of_the_benchmark_is_accepted(slurm: SlurmNode) -> None:
    """SLURM would run the script as it is."""
    slurm.ask("sbatch", "--test-only", str(PROJECT / "deploy" / "hpc" / "benchmark.sbatch"))
    assert slurm.jobs() == {}


def test_the_benchmark_job_runs_as_the_script_says(slurm: SlurmNode, tmp_path: Path) -> None:
    """The script's job brings up workers, runs the one command there is, and leaves no job."""
    shared, python = tmp_path / "shared", tmp_path / "python"
    shared.mkdir()
    python.write_text(
        "#!/usr/bin/env bash\n"
        f"export PYTHONPATH={os.pathsep.join(filter(None, sys.path))}\n"
        f'[[ "$2" != benchmarks ]] || printf \'%s\\n\' "$0" "$@" > {tmp_path}/words\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    values = {
        "SHARED": shared,
        "TARGET": tmp_path / "the target",
        "INTERFACE": "lo",
        "PYTHON": python,
        "JOBS": 1,
        "CORES": 1,
        "MEMORY": "512 MiB",
        "ROWS": routes.ROWS,
        "PARTITIONS": routes.PARTITIONS,
    }
    export = ",".join(["PATH", "HOME", *(f"{name}={value}" for name, value in values.items())])
    script = str(PROJECT / "deploy" / "hpc" / "benchmark.sbatch")
    log = tmp_path / "log"
    options = (f"--export={export}", f"--output={log}", f"--chdir={PROJECT}")
    slurm.ask("sbatch", *options, script)
    await_true(lambda: not slurm.jobs() and not slurm.steps(), "the job ends")
    words = (tmp_path / "words").read_text().splitlines()
    address, target = words[5], str(tmp_path / "the target")
    assert address.startswith("tls://127.0.0.1:")
    assert words == routes.job_command(address, target, python=str(python))
    said = routes.report(log.read_text())
    assert (said["same"], said["workers"]) == (True, 1), log.read_text()
    assert said["job"]["target"] == target


def test_slurm_leaves_no_process_and_no_port() -> None:
    """Also after a failure, with a job under way that will not listen to SIGTERM."""
    left: list[SlurmNode] = []
    steps: list[psutil.Process] = []

    def fail() -> None:
        with slurm_node.slurm_node() as node:
            left.append(node)
            script = "trap '' TERM; while true; do sleep 1; done"
            node.ask("sbatch", "--output=/dev/null", "--export=PATH,HOME", f"--wrap={script}")
            await_true(lambda: len(node.steps()) >= 2, "the job runs")
            steps.extend(node.steps())
            assert node.controller_port in listening()
            assert len(processes_of(node)) >= 3
            raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        fail()
    assert [step for step in steps if is_alive(step)] == []
    assert_gone(*left)


def assert_gone(node: SlurmNode) -> None:
    """No process, no port and no file of it is left."""
    assert not node.folder.exists()
    assert processes_of(node) == []
    for port in (node.controller_port, node.node_port):
        with socket.socket() as probe:
            assert probe.connect_ex((servers.HOST, port)) != 0


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the packages the error names the programs and the one command that installs them."""
    monkeypatch.setattr(slurm_node, "_SYSTEM", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(servers.ServerStartError, match=r"munged.*sbatch.*\.ci/system-packages"),
        slurm_node.slurm_node(),
    ):
        pass


def processes_of(node: SlurmNode) -> list[psutil.Process]:
    """Whatever was started with the folder of that very SLURM: others may run beside it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(node.folder) in word for word in words):
                found.append(process)
    return found


def listening() -> set[int]:
    return {
        each.laddr.port
        for each in psutil.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN
    }


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may wait for long until its adoptive parent asks."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
