"""The image and the compose file, short of an engine: their Python, files and commands run here.

What the Dockerfile does is done: its set-up script makes a fresh environment, its COPY lines make
``/app``. In it run the commands of the compose file, word for word but for hosts, ports and paths.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import pytest
import s3fs
import yaml

from deploy.docker.prepare import BUCKET
from deploy.local import processes
from deploy.local.processes import HOST
from tests import routes
from tests.manifests import ROOT

DOCKER = ROOT / "deploy" / "docker"
PORTS = (
    *("s3:8333", "seaweedfs:8888", "dask-scheduler:8786", "scheduler pages", "worker pages"),
    *("master", "volume", "notebook", "s3 grpc", "filer grpc", "master grpc", "volume grpc"),
)


@dataclass(frozen=True)
class Image:
    """What an image would hold."""

    environment: Path
    app: Path


@dataclass(frozen=True)
class Place:
    """Where the services of the compose file run instead of in containers."""

    image: Image
    folder: Path
    ports: tuple[int, ...]

    def port(self, name: str) -> int:
        return self.ports[PORTS.index(name)]

    def here(self, text: str) -> str:
        """Put our folders and ports in the place of those of the containers."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        for name in ("s3:8333", "seaweedfs:8888", "dask-scheduler:8786"):
            host = "localhost" if name.startswith("s3") else HOST
            text = text.replace(name, f"{host}:{self.port(name)}")
        # SeaweedFS takes its other port to be 10,000 above, unless it is told.
        text = re.sub(r"(-filer=\S+)", rf"\1.{self.port('filer grpc')}", text)
        text = text.replace("/run/secrets", str(self.folder / "secrets"))
        text = text.replace("0.0.0.0", HOST)  # noqa: S104 - it is taken out
        return text.replace("/scratch", str(self.folder / "scratch"))

    def variables(self, service: Mapping[str, Any]) -> dict[str, str]:
        inside = {k: self.here(v) for k, v in service.get("environment", {}).items()}
        own = {
            "PATH": f"{self.image.environment / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(self.image.app),
        }
        return dockerfile_environment() | inside | own


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded["services"]  # type: ignore[no-any-return]


def dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")


def dockerfile_environment() -> dict[str, str]:
    (line,) = re.findall(r"(?m)^ENV (.+)$", dockerfile())
    return dict(re.findall(r"(\w+)=(\S+)", line))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """A fresh environment and the files beside it, made as the Dockerfile says.

    Whatever the tests ran from it, none of it has changed: its root can be read-only.
    """
    folder = tmp_path_factory.mktemp("image")
    (extras,) = re.findall(r"(?m)^ARG EXTRAS=(\S+)$", dockerfile())
    build, app = folder / "build", folder / "app"
    for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", dockerfile()):
        *sources, target = line.split()
        place = app / target.removeprefix("/app/") if target.startswith("/app") else build / target
        copy_in(sources, place)
    environment = folder / "environment"
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [str(build / "deploy" / "docker" / "setup.sh"), str(environment), extras],
        env=variables,
        check=True,
        timeout=280,
        stdin=subprocess.DEVNULL,
    )
    before = contents(environment, app)
    yield Image(environment, app)
    assert contents(environment, app) == before


def contents(*folders: Path) -> dict[Path, int]:
    """Every file and folder, and when it was changed."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return {path: path.lstat().st_mtime_ns for path in found}


def copy_in(sources: list[str], target: Path) -> None:
    """Copy as COPY does: one folder by its content, files into a folder or to a name."""
    for source in (ROOT / each for each in sources):
        if source.is_dir():
            copytree(source, target, dirs_exist_ok=True)
        else:
            into = len(sources) > 1 or target.suffix == ""
            (target if into else target.parent).mkdir(parents=True, exist_ok=True)
            copy(source, target)


def run(place: Place, command: list[str], service: Mapping[str, Any]) -> str:
    """Run a command in the image to its end."""
    done = subprocess.run(
        command,
        env=place.variables(service),
        cwd=place.image.app,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def started(
    place: Place, name: str, command: list[str], url: str, changes: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a service of the compose file until the end of the block."""
    log = place.folder / f"{name}.log"
    program = [str(place.image.environment / "bin" / command[0]), *command[1:]]
    if command[0] == "weed":
        program[0] = processes.program("weed")
    variables = place.variables(compose()[name]) | (changes or {})
    process = processes.spawn(program, log, variables)
    try:
        processes.wait_until(partial(routes.answers, url), name, process, log)
        yield
    finally:
        end = processes.kill_group if command[0] == "weed" else processes.stop
        end(process)


@pytest.fixture(scope="module")
def place(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Prepared secrets and free ports."""
    folder = tmp_path_factory.mktemp("place")
    made = Place(image, folder, processes.free_ports(len(PORTS)))
    run(made, ["python", "-m", "deploy.docker.prepare", str(folder)], {})
    return made


@pytest.fixture(scope="module")
def store(place: Place) -> Iterator[Place]:
    """The store of the compose file with its bucket, on this machine."""
    with ExitStack() as stack:
        inner = [place.here(word) for word in compose()["seaweedfs"]["command"]]
        inner = [word.replace("-ip=seaweedfs", f"-ip={HOST}") for word in inner]
        inner = [word.replace("-dir=/data", f"-dir={place.folder / 'data'}") for word in inner]
        inner.append(f"-filer.port={place.port('seaweedfs:8888')}")
        inner += [f"-{name}.port={place.port(name)}" for name in ("master", "volume")]
        for name in ("filer", "master", "volume"):
            inner.append(f"-{name}.port.grpc={place.port(f'{name} grpc')}")
        inner += [f"-filer.localSocket={place.folder / 'filer.sock'}"]
        url = f"http://{HOST}:{place.port('master')}/cluster/healthz"
        stack.enter_context(started(place, "seaweedfs", ["weed", *inner], url))
        stack.enter_context(
            listening(place, "s3", [place.here(word) for word in compose()["s3"]["command"]])
        )
        run(place, ["python", *compose()["bucket"]["command"][1:]], compose()["bucket"])
        yield place


@contextmanager
def listening(place: Place, name: str, words: list[str]) -> Iterator[None]:
    """Run the door to the store; the wait for it is the business of what makes the bucket."""
    log = place.folder / f"{name}.log"
    words = [word.replace("-port=8333", f"-port={place.port('s3:8333')}") for word in words]
    words += [f"-localSocket={place.folder / 's3.sock'}", f"-port.grpc={place.port('s3 grpc')}"]
    variables = place.variables(compose()[name])
    process = processes.spawn([processes.program("weed"), *words], log, variables)
    try:
        yield
    finally:
        processes.kill_group(process)  # a polite stop takes it seconds


def credentials(place: Place, name: str) -> dict[str, Any]:
    """How a client of ours reaches the store as somebody."""
    text = (place.folder / "secrets" / f"{name}-credentials").read_text()
    found = dict(re.findall(r"(\w+) = (\S+)", text))
    endpoint = f"https://localhost:{place.port('s3:8333')}"
    return {
        "key": found["aws_access_key_id"],
        "secret": found["aws_secret_access_key"],
        "client_kwargs": {
            "endpoint_url": endpoint,
            "verify": str(place.folder / "secrets" / "ca.pem"),
        },
        "skip_instance_cache": True,
    }


def test_the_image_holds_what_its_roles_need(image: Image, place: Place) -> None:
    """In the fresh environment the package, Dask, the notebook server and the job can start."""
    nothing: dict[str, Any] = {}
    assert "version" in run(place, ["dask", "scheduler", "--version"], nothing)
    assert re.match(r"\d+\.", run(place, ["jupyter", "lab", "--version"], nothing))
    assert "--scheduler" in run(place, ["python", "-m", "benchmarks", "job", "--help"], nothing)
    ours = run(place, ["python", "-c", "import pamola_dwriter as p; print(p.__file__)"], nothing)
    assert Path(ours.strip()).is_relative_to(image.environment)


def test_the_versions_are_those_of_the_constraints(image: Image) -> None:
    """What is installed is what the constraints name, to the last package."""
    lines = [(ROOT / "constraints.txt"), DOCKER / "constraints.txt"]
    pins = [pin for file in lines for pin in re.findall(r"(?m)^[\w.-]+==\S+$", file.read_text())]
    names = [normal(pin.split("==")[0]) for pin in pins]
    assert len(set(names)) == len(names)
    freeze = [str(image.environment / "bin" / "python"), "-m", "pip", "freeze"]
    done = subprocess.run(freeze, check=True, capture_output=True, text=True)
    installed = {line for line in done.stdout.splitlines() if "==" in line}
    pinned = {f"{normal(n)}=={v}" for n, v in (pin.split("==") for pin in pins)}
    found = {f"{normal(n)}=={v}" for n, v in (line.split("==") for line in installed)}
    assert len(found) > 50
    assert found - pinned == set()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_benchmark_job_runs_as_compose_says(store: Place) -> None:
    """Scheduler, worker and job of the compose file, over TLS, write to its store and read back."""
    pages = {name: f"{HOST}:{store.port(f'{name} pages')}" for name in ("scheduler", "worker")}
    (store.folder / "scratch").mkdir()
    with ExitStack() as stack:
        for name in ("scheduler", "worker"):
            words = [store.here(word) for word in compose()[name]["command"]]
            words = [word.replace(":8787", pages[name]) for word in words]
            port = store.port("dask-scheduler:8786")
            words = [word.replace("--port=8786", f"--port={port}") for word in words]
            words.append(f"--host=tls://{HOST}" if name == "scheduler" else f"--host={HOST}")
            url = f"http://{pages[name]}/health"
            stack.enter_context(started(store, name, words, url))
        job = [store.here(word) for word in compose()["benchmark"]["command"]]
        job = [re.sub("--rows=.*", f"--rows={routes.ROWS}", word) for word in job]
        job = [re.sub("--partitions=.*", f"--partitions={routes.PARTITIONS}", word) for word in job]
        address = f"tls://{HOST}:{store.port('dask-scheduler:8786')}"
        assert routes.split_options(job) == routes.job_command(address, "s3://lake/benchmark")
        key = f"--key=file:{store.folder / 'secrets' / 'dataset-key'}"
        said = json.loads(run(store, [*job, key], compose()["benchmark"]))
        assert (said["same"], said["encrypted"], said["workers"]) == (True, True, 1)
        (check,) = re.findall(r"CMD (\[.+urllib.+\])", dockerfile())
        healthy = {"environment": {"HEALTH_URL": f"http://{pages['worker']}/health"}}
        run(store, json.loads(check), healthy)
    fs = s3fs.S3FileSystem(**credentials(store, "writer"))
    assert fs.exists(f"{BUCKET}/benchmark/output/benchmark/_manifest.json")


def test_the_store_takes_nobody_else(store: Place) -> None:
    """The writer cannot make buckets, and without the right keys nobody gets in."""
    writer = s3fs.S3FileSystem(**credentials(store, "writer"))
    with pytest.raises(PermissionError):
        writer.mkdir("another")
    with pytest.raises(PermissionError):
        writer.pipe("another/object", b"x")
    stranger = credentials(store, "writer") | {"secret": "0" * 40}
    with pytest.raises(PermissionError):
        s3fs.S3FileSystem(**stranger).ls(BUCKET)
    with pytest.raises(PermissionError):
        s3fs.S3FileSystem(anon=True, client_kwargs=stranger["client_kwargs"]).ls(BUCKET)


def test_the_notebook_server_wants_its_token(place: Place) -> None:
    """The notebook server starts as the compose file says, is healthy, and asks for the token."""
    service = compose()["notebook"]
    (place.folder / "work").mkdir()
    words = [place.here(word) for word in service["command"]]
    words = [word.replace("8888", str(place.port("notebook"))) for word in words]
    words = [word.replace("/work", str(place.folder / "work")) for word in words]
    if os.getuid() == 0:
        words.append("--allow-root")  # in the container nobody is
    url = f"http://{HOST}:{place.port('notebook')}"
    with started(place, "notebook", words, f"{url}/api"):
        assert not routes.answers(f"{url}/api/contents")
        token = (place.folder / "secrets" / "jupyter-token").read_text()
        assert routes.answers(f"{url}/api/contents?token={token}")
