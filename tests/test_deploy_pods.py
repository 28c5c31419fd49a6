"""The chart's pods, short of Kubernetes: what is in them runs here, and does the job.

Command, environment, secrets and certificates of each pod are those of the rendered chart, word for
word but for hosts, ports and paths; to them comes what Dask's operator adds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import yaml
from distributed import Client

from deploy.local import processes
from deploy.local.certificates import Certificates, make_certificates
from deploy.local.dask_processes import connect
from deploy.local.processes import HOST
from deploy.local.s3 import S3Server
from tests import routes
from tests.manifests import CHART, ROOT, Manifest, operator_source, pod_specs, render

TARGET = "s3://lake/benchmark"
PATIENCE = 60


@dataclass(frozen=True)
class Pods:
    """One installation of the chart with the benchmark job, and where its pods run instead."""

    folder: Path
    store: S3Server
    scheduler_port: int
    pages: int
    secrets: dict[tuple[str, str], str] = field(repr=False)

    @cached_property
    def specs(self) -> dict[str, Manifest]:
        """What the pod of each role is made from."""
        values = yaml.safe_load((CHART / "examples" / "minimal.yaml").read_text())
        values["store"]["endpointUrl"] = self.store.endpoint_url
        values["job"] = {"enabled": True, "target": TARGET, "extraArgs": ["--key", "env:PII_KEY"]}
        values["job"] |= {"rows": routes.ROWS, "partitions": routes.PARTITIONS}
        (job,) = (m for m in render(values) if m["kind"] == "DaskJob")
        return dict(pod_specs(job))

    def here(self, text: str) -> str:
        """Put our address and folders in the place of those of the pods."""
        text = re.sub(r"lake-benchmark-scheduler\.data\.svc:8786", self.address, text)
        return re.sub(r"^/(?=etc/|scratch)|(?<==)/(?=scratch)", f"{self.folder}/", text)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.scheduler_port}"

    def connect(self) -> Client:
        """A client with the certificate that pods have."""
        tls = Certificates(self.folder / "authority")
        return connect(f"tls://{self.address}", tls.security, PATIENCE)

    def variables(self, role: str, name: str) -> dict[str, str]:
        """The environment of a pod: the chart's, and the name that the operator gives."""
        (container,) = self.specs[role]["containers"]
        given = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        given["DASK_WORKER_NAME"] = name
        for each in container["env"]:
            if "value" in each:
                given[each["name"]] = self.here(each["value"])
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                given[each["name"]] = self.secrets[reference["name"], reference["key"]]
        return given

    def command(self, role: str, name: str, ports: dict[str, int]) -> list[str]:
        """What a pod runs, on ports that are free here, once the kubelet has put in variables."""
        (container,) = self.specs[role]["containers"]
        program, *words = [self.here(word) for word in container["args"]]
        for port, ours in ports.items():
            words = [word.replace(f":{port}", f"{HOST}:{ours}") for word in words]
            words = [re.sub(rf"(port=){port}$", rf"\g<1>{ours}", word) for word in words]
        words = [word.replace("$(DASK_WORKER_NAME)", name) for word in words]
        start = [sys.executable, "-m", "dask"] if program == "dask" else [sys.executable]
        return [*start, *words]

    @contextmanager
    def started(self, role: str, name: str, pages: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run a pod until the end of the block, from when its probe finds it ready."""
        (container,) = self.specs[role]["containers"]
        ports = {"8786": self.scheduler_port, "8787": pages}
        if role == "worker":
            ports |= zip(("8789", "8790"), processes.free_ports(2), strict=True)
        host = f"--host=tls://{HOST}" if role == "scheduler" else f"--host={HOST}"
        log = self.folder / f"{name}.log"
        variables = self.variables(role, name)
        process = processes.spawn([*self.command(role, name, ports), host], log, variables)
        path = container["readinessProbe"]["httpGet"]["path"]
        try:
            ready = partial(routes.answers, f"http://{HOST}:{pages}{path}")
            processes.wait_until(ready, name, process, log)
            yield process
        finally:
            processes.stop(process)

    @contextmanager
    def cluster(self) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """A scheduler and two workers, as the operator would name them."""
        with ExitStack() as stack:
            stack.enter_context(self.started("scheduler", "scheduler", self.pages))
            yield {
                name: stack.enter_context(self.started("worker", name, port))
                for name, port in zip(("a", "b"), processes.free_ports(2), strict=True)
            }

    def ask(self, route: str, asked: dict[str, Any] | None = None) -> Any:
        """Ask the scheduler as Dask's operator does, which has no certificate."""
        request = urllib.request.Request(
            f"http://{HOST}:{self.pages}/api/v1/{route}",
            data=None if asked is None else json.dumps(asked).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.loads(reply.read())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Certificates]]:
    """A store that speaks TLS by an authority that nobody else knows."""
    folder = tmp_path_factory.mktemp("store")
    tls = make_certificates(folder / "tls", [HOST])
    server = S3Server(bucket="lake", data=folder / "data", run=folder, tls=tls)
    server.data.mkdir()
    server.start()
    yield server, tls
    server.kill()


@pytest.fixture
def pods(tmp_path: Path, store: tuple[S3Server, Certificates]) -> Pods:
    """The secrets and the ConfigMap that the example names, as pods would see them."""
    server, trusted = store
    made = make_certificates(tmp_path / "authority", ["pamola-dwriter"])
    mounted = {
        "etc/dask/tls/ca.crt": made.ca.read_text(),
        "etc/dask/tls/tls.crt": made.cert.read_text(),
        "etc/dask/tls/tls.key": made.key.read_text(),
        "etc/pamola/ca/ca.crt": trusted.ca.read_text(),
        "etc/pamola/store/credentials": "[default]\n"
        f"aws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n",
    }
    for path, text in mounted.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "scratch").mkdir()
    secrets = {("dataset-keys", "pii"): token_hex(32)}
    return Pods(tmp_path, server, *processes.free_ports(2), secrets)


def run(pods: Pods, role: str, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program in a pod to its end."""
    done = subprocess.run(
        command,
        env=pods.variables(role, name),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_benchmark_job_runs_as_the_chart_says(pods: Pods) -> None:
    """Scheduler, workers and runner of the chart, over TLS, write sealed to its store and read."""
    command = pods.command("job-runner", "runner", {})
    routed = routes.job_command(f"tls://{pods.address}", TARGET, python=sys.executable)
    assert command == [*routed, "--key", "env:PII_KEY"]
    with pods.cluster():
        done = run(pods, "job-runner", "runner", [*command, "--workers", "2"])
    said = json.loads(done.stdout)
    assert (said["same"], said["encrypted"], said["workers"]) == (True, True, 2)


def retire(pods: Pods, worker: str, seconds: int | None = None) -> str:
    """Run the hook of a worker's pod, and return what it says."""
    (container,) = pods.specs["worker"]["containers"]
    _, *hook, longest = container["lifecycle"]["preStop"]["exec"]["command"]
    command = [sys.executable, *hook, str(seconds or longest)]
    done = run(pods, "worker", worker, command)
    return done.stdout + done.stderr


def test_workers_leave_as_kubelet_and_operator_ask(pods: Pods) -> None:
    """The hook hands over what a worker holds, and none of it is computed again; others stay.

    The operator is told how many workers to have, since when there was nothing to do, and whom the
    scheduler has retired for it.
    """
    asked = set(re.findall(r"/api/v1/(\w+)", operator_source()))
    assert asked == {"adaptive_target", "check_idle", "retire_workers"}
    ran = pods.folder / "ran"

    def remember(number: int) -> int:  # travels by value: pods have no tests to import
        with ran.open("a") as file:
            file.write(f"{number}\n")
        return number

    with pods.cluster() as workers, pods.connect() as client:
        held = client.map(remember, range(8), pure=False)
        assert client.gather(held) == list(range(8))
        assert retire(pods, "nobody") == ""
        assert {process.poll() for process in workers.values()} == {None}
        (first, *_) = next(iter(client.who_has(held).values()))
        name = client.scheduler_info()["workers"][first]["name"]
        assert retire(pods, name) == ""
        assert workers.pop(name).wait(PATIENCE) == 0
        assert client.gather(held) == list(range(8))
        assert sorted(map(int, ran.read_text().split())) == list(range(8))
        assert pods.ask("adaptive_target")["workers"] >= 1  # as long as results are held
        assert isinstance(pods.ask("check_idle")["idle_since"], float)
        assert pods.ask("retire_workers", {"n": 1}) == {}  # the last one holds results
        client.cancel(held)
        deadline = time.monotonic() + PATIENCE
        while not (retired := pods.ask("retire_workers", {"n": 1})):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (last,) = retired.values()
        assert workers.pop(last["name"]).wait(PATIENCE) == 0
        assert workers == {}


def test_a_pod_without_a_scheduler_stops_all_the_same(pods: Pods) -> None:
    """The hook does not fail where nobody answers, or where it may not connect."""
    assert retire(pods, "worker", seconds=2).startswith("not retired: ")
