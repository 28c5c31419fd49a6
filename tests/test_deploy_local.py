from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import s3fs
from distributed import Client

from deploy.local import processes, servers
from deploy.local.servers import Cluster, S3Server
from deploy.local.state import listening


def open_store(server: S3Server, **options: str) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(**(server.storage_options | options), skip_instance_cache=True)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may wait for long until its adoptive parent asks."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code


def assert_nothing_left(processes: list[psutil.Process], addresses: set[tuple[str, int]]) -> None:
    assert processes
    assert addresses
    assert [process for process in processes if is_alive(process)] == []
    for address in addresses:
        with socket.socket() as probe:
            assert probe.connect_ex(address) != 0, address


def test_s3_server_keeps_what_was_put(s3: S3Server, s3_task_dir: str) -> None:
    """An object put through s3fs comes back as it was."""
    store = open_store(s3)
    store.pipe_file(f"{s3_task_dir}/object", b"\x00" * 100_000)
    assert store.cat_file(f"{s3_task_dir}/object") == b"\x00" * 100_000


@pytest.mark.parametrize("wrong", ("key", "secret"))
def test_s3_server_refuses_wrong_credentials(s3: S3Server, s3_task_dir: str, wrong: str) -> None:
    """Neither a wrong key nor a wrong secret can write."""
    store = open_store(s3, **{wrong: "wrong"})
    with pytest.raises(PermissionError):
        store.pipe_file(f"{s3_task_dir}/object", b"data")


def test_s3_server_refuses_an_anonymous_reader(s3: S3Server, s3_task_dir: str) -> None:
    """Without credentials neither the S3 port nor the filer behind it gives an object."""
    open_store(s3).pipe_file(f"{s3_task_dir}/object", b"private")
    path = s3_task_dir.removeprefix("s3://") + "/object"
    assert status_of(f"{s3.endpoint_url}/{path}") == 403
    assert status_of(f"http://127.0.0.1:{s3.filer_port}/buckets/{path}") == 401


def test_s3_server_keeps_its_objects_over_a_crash(tmp_path: Path) -> None:
    """A killed server that comes back has the same address, credentials and objects."""
    with servers.s3_server(tmp_path) as server:
        store = open_store(server)
        store.pipe_file("lake/object", b"durable")
        server.kill()
        with pytest.raises(urllib.error.URLError):
            status_of(server.endpoint_url)
        server.restart()
        assert store.cat_file("lake/object") == b"durable"


def test_s3_server_takes_other_ports_when_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another program took after we looked costs one more try."""
    find = processes.free_ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        answers = iter([(other.getsockname()[1], *find(9)), find(10)])
        monkeypatch.setattr(processes, "free_ports", lambda _: next(answers))
        with servers.s3_server() as server:
            assert server.ports[0] != other.getsockname()[1]


def test_s3_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a failed start ends with the server's own words, and nothing is left."""
    before = descendants()
    monkeypatch.setattr(processes, "START_SECONDS", 3.0)
    with (
        pytest.raises(servers.ServerStartError, match=r"(?s)not ready in 3 s:.*SeaweedFS"),
        servers.s3_server(bucket="not/a/bucket"),
    ):
        pass
    assert descendants() == before


def test_s3_server_leaves_nothing() -> None:
    """After the block no process, no open port and no folder is left, and all were on loopback."""
    before = descendants()
    with servers.s3_server() as server:
        started = [process for process in descendants() if process not in before]
        addresses = listening(started)
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}
    assert_nothing_left(started, addresses)
    assert not server.run.exists()


def test_s3_server_shows_no_secret(s3: S3Server) -> None:
    """Credentials are neither in the repr, nor on the command line, nor in the log."""
    assert s3.process is not None
    command = " ".join(psutil.Process(s3.process.pid).cmdline())
    for secret in (s3.access_key, s3.secret_key):
        assert secret not in repr(s3) + command + s3.log.read_text()


def test_cluster_computes_in_other_processes(client: Client, cluster: Cluster) -> None:
    """Tasks run in the worker processes, not in this one."""
    pids = set(client.gather(client.map(lambda _: os.getpid(), range(20), pure=False)))
    assert pids <= set(cluster.worker_pids().values())
    assert os.getpid() not in pids


def test_cluster_serves_its_dashboard(cluster: Cluster) -> None:
    """The dashboard answers where the cluster says."""
    assert cluster.dashboard_url is not None
    assert status_of(cluster.dashboard_url) == 200


def test_cluster_passes_the_environment_on(client: Client, pii_key: str) -> None:
    """What was asked for is in the environment of every worker."""
    assert set(client.run(os.getenv, "PII_KEY").values()) == {pii_key}


def test_cluster_replaces_a_killed_worker(cluster: Cluster) -> None:
    """A nanny starts another worker in the place of one that was killed."""
    killed = cluster.kill_worker()
    deadline = time.monotonic() + 30
    while len(pids := cluster.worker_pids()) < 2 or killed in pids.values():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_cluster_leaves_nothing() -> None:
    """After the block no process, no open port and no folder is left, and all were on loopback."""
    before = descendants()
    with servers.cluster(dashboard=False) as running:
        started = [process for process in descendants() if process not in before]
        addresses = listening(started)
    assert running.dashboard_url is None
    assert len(started) >= 4
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}
    assert_nothing_left(started, addresses)
    assert not running.run.exists()
