"""Files for containers and Kubernetes: what can be known of them without an engine or a cluster."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from deploy.docker.prepare import prepare
from tests.manifests import (
    CHART,
    ROOT,
    Manifest,
    changed,
    lint_compose,
    lint_dockerfile,
    render,
)

DOCKER = ROOT / "deploy" / "docker"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
SECRETS = {
    "admin-credentials",
    "ca.pem",
    "cert.pem",
    "dataset-key",
    "grafana-password",
    "jupyter-token",
    "key.pem",
    "s3-identities.json",
    "writer-credentials",
}
_SECRET_NAME = re.compile(r"(?i)pass(word|phrase)?$|secret(_?access)?_?key$|token$|credentials?$")
_SECRET_VALUE = re.compile(
    r"-----BEGIN|AKIA[A-Z0-9]{12}|(?<!sha256:)(?<![\w:])[0-9a-f]{32,}(?!\w)|eyJ[\w-]{20,}"
)
_REFERENCE = re.compile(r"$|true$|false$|\.?/|[{[$]|[a-z-]+-credentials$")
"""Nothing, a switch, a path, something put in, or the name of what is elsewhere."""

_ASSIGNED = re.compile(r"(?m)^\s*(?:- )?\"?([\w./-]+)\"?\s*[:=]\s*(.+?)\s*$")


def values_of(example: Path) -> Manifest:
    loaded: Manifest = yaml.safe_load(example.read_text())
    return loaded


def compose() -> Manifest:
    loaded: Manifest = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def everything() -> list[Manifest]:
    """Values that turn on all that the chart has."""
    made = values_of(CHART / "examples" / "minimal.yaml")
    made |= {"metrics": {"enabled": True}, "autoscaler": {"enabled": True}}
    made["job"] = {"enabled": True, "target": "s3://lake/benchmark", "autoscale": True}
    return render(made)


def the(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    found = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    return found[0]


def secrets_in(text: str) -> list[str]:
    """Literals that look like secrets, or stand under the name of one."""
    named = [
        f"{name}: {value}"
        for name, value in _ASSIGNED.findall(text)
        if _SECRET_NAME.search(name) and not _REFERENCE.match(value.strip("\"'"))
    ]
    return named + _SECRET_VALUE.findall(text)


def test_the_dockerfile_is_clean() -> None:
    """hadolint finds nothing in the Dockerfile, not even matters of style."""
    assert lint_dockerfile(DOCKER / "Dockerfile") == ""


@pytest.mark.parametrize(
    ("sound", "broken", "rule"),
    [
        ("ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm\n", "FROM python\n", "DL3006"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ("WORKDIR /app", "WORKDIR app", "DL3000"),
        ("RUN deploy/docker/setup.sh", "RUN pip install dask && ", "DL3013"),
        ("RUN groupadd", "RUN sudo groupadd", "DL3004"),
        ("COPY benchmarks", "ADD benchmarks", "DL3020"),
        ("HEALTHCHECK", "HEALTHCHECKED", "missing whitespace"),
        ('CMD ["dask", "scheduler"', 'CMD dask "scheduler"', "DL3025"),
    ],
)
def test_a_broken_dockerfile_is_found(tmp_path: Path, sound: str, broken: str, rule: str) -> None:
    """Each kind of fault in a Dockerfile is named by the linter."""
    text = (DOCKER / "Dockerfile").read_text()
    assert sound in text
    file = tmp_path / "Dockerfile"
    file.write_text(text.replace(sound, broken))
    assert rule in lint_dockerfile(file)


def test_the_context_holds_all_that_is_copied() -> None:
    """The build's context lets in what the Dockerfile copies, which exists, and nothing else."""
    text = (DOCKER / "Dockerfile").read_text()
    copied = {
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", text)
        for source in line.split()[:-1]
    }
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_compose_file_is_clean() -> None:
    """dclint finds nothing in the compose file, and its schema holds."""
    assert lint_compose(DOCKER / "compose.yaml") == ""


@pytest.mark.parametrize(
    ("sound", "broken", "rule"),
    [
        ("    depends_on:\n      prometheus", "    depend_on:\n      prometheus", "additional"),
        ("type: bind", "type: bound", "#/properties/volumes/items"),
        ("'127.0.0.1:3000:3000'", "'3000:3000'", "no-unbound-port-interfaces"),
        ("'127.0.0.1:3000:3000'", "'127.0.0.1:8888:8888'", "no-duplicate-exported-ports"),
        ("grafana/grafana:12.1.0", "grafana/grafana", "service-image-require-explicit-tag"),
        ("name: pamola-dwriter\n", "version: '3'\nname: p\n", "no-version-field"),
        ("retries: 4", "retries: [4]", "retries"),
    ],
)
def test_a_broken_compose_file_is_found(tmp_path: Path, sound: str, broken: str, rule: str) -> None:
    """Each kind of fault in a compose file is named by the linter."""
    text = (DOCKER / "compose.yaml").read_text()
    assert sound in text
    file = tmp_path / "compose.yaml"
    file.write_text(text.replace(sound, broken, 1))
    assert rule in lint_compose(file)


def weaknesses(document: Manifest) -> list[str]:
    """What a compose file lets a container do, or leaves open, that it needs not."""
    found = []
    for name, service in document["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        checks = {
            "root can be written": service.get("read_only") is True,
            "capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
            "new privileges": "no-new-privileges:true" in service.get("security_opt", []),
            "a user who may be root": str(service.get("user", "")).startswith("${PAMOLA_UID:?"),
            "no limits": {"cpus", "memory"} <= set(limits),
            "privileged": not {"privileged", "network_mode", "pid", "ipc"} & set(service),
            "a secret not declared": set(service.get("secrets", [])) <= set(document["secrets"]),
            "a network not declared": set(service["networks"]) <= set(document["networks"]),
            "open to others": all(p.startswith("127.0.0.1:") for p in service.get("ports", [])),
        }
        found += [f"{name}: {what}" for what, sound in checks.items() if not sound]
    reached = {
        network: {n for n, s in document["services"].items() if network in s["networks"]}
        for network in document["networks"]
    }
    if reached["store"] != {"worker", "notebook", "benchmark", "bucket", "s3"}:
        found.append("others reach the store")
    if reached["seaweed"] != {"s3", "seaweedfs"}:
        found.append("others reach what is behind the store")
    closed = {n for n, network in document["networks"].items() if network.get("internal")}
    if closed != {"cluster", "monitoring", "seaweed", "store"}:
        found.append("a network has a way out")
    return found


def test_no_service_has_rights_it_needs_not() -> None:
    """Every service is confined, and only those who have to reach the store can."""
    assert weaknesses(compose()) == []


@pytest.mark.parametrize(
    ("path", "value", "weakness"),
    [
        (["services", "worker", "read_only"], None, "worker: root can be written"),
        (["services", "s3", "cap_add"], ["NET_ADMIN"], "s3: capabilities"),
        (["services", "grafana", "security_opt"], None, "grafana: new privileges"),
        (["services", "bucket", "user"], "0:0", "bucket: a user who may be root"),
        (["services", "notebook", "deploy"], None, "notebook: no limits"),
        (["services", "worker", "privileged"], True, "worker: privileged"),
        (["secrets", "key.pem"], None, "scheduler: a secret not declared"),
        (["services", "scheduler", "ports"], ["8787:8787"], "scheduler: open to others"),
        (["services", "prometheus", "networks"], ["monitoring", "store"], "others reach the store"),
        (["services", "worker", "networks"], ["seaweed"], "others reach what is behind the store"),
        (["networks", "store"], {}, "a network has a way out"),
    ],
)
def test_a_weakness_is_found(path: list[str], value: Any, weakness: str) -> None:
    """Each way to loosen the compose file is named by the check above."""
    assert weakness in weaknesses(changed(compose(), path, value))


def test_what_is_prepared_is_what_compose_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every secret and folder of the compose file is made for its owner alone, and none shown."""
    prepare(tmp_path)
    named = compose()["secrets"]
    assert {Path(secret["file"]) for secret in named.values()} == {
        Path("secrets", name) for name in SECRETS
    }
    made = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    assert set(made) == SECRETS
    private = {name for name, path in made.items() if not path.stat().st_mode & 0o077}
    assert private == SECRETS - {"ca.pem", "cert.pem"}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            if volume.get("source", "").startswith("./data"):
                assert (tmp_path / volume["source"]).is_dir()
    assert capsys.readouterr() == ("", "")
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", (tmp_path / ".env").read_text()))
    assert set(settings) == {"PAMOLA_UID", "PAMOLA_GID"}
    assert int(settings["PAMOLA_UID"]) != 0


def test_preparing_again_keeps_all_but_certificates(tmp_path: Path) -> None:
    """A second preparation renews the certificates, and leaves keys that are in use."""
    prepare(tmp_path)
    folder = tmp_path / "secrets"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    prepare(tmp_path)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {n for n in before if before[n] != after[n]} == {"ca.pem", "cert.pem", "key.pem"}
    names = x509.load_pem_x509_certificate(after["cert.pem"]).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert {"dask-scheduler", "s3"} <= set(names.value.get_values_for_type(x509.DNSName))


def test_the_settings_that_compose_knows_are_explained() -> None:
    """Every variable of the compose file stands in .env.example, and no other."""
    used = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    explained = set(re.findall(r"(?m)^(\w+)=", (DOCKER / ".env.example").read_text()))
    assert used == explained


@pytest.mark.parametrize("name", ["scheduler", "worker", "notebook", "benchmark"])
def test_every_process_of_dask_logs_the_states_of_writes(name: str) -> None:
    """Scheduler, workers and clients are told to log below warnings, where those lines are."""
    assert compose()["services"][name]["environment"]["DASK_LOGGING__PAMOLA_DWRITER"] == "info"


def ours() -> Iterator[Path]:
    """Every file of the two folders, but for what prepare makes in them."""
    made = {DOCKER / "secrets", DOCKER / "data", DOCKER / ".env"}
    for folder in (DOCKER, ROOT / "deploy" / "kubernetes"):
        for path in folder.rglob("*"):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and not made & {path, *path.parents}
            ):
                yield path


def test_no_file_holds_a_secret() -> None:
    """No literal secret stands in any file of the two folders."""
    files = list(ours())
    assert len(files) > 20
    example = CHART / "examples" / "production-eks.yaml"
    found = {str(file): secrets_in(file.read_text()) for file in files if file != example}
    assert {file: what for file, what in found.items() if what} == {}
    assert secrets_in(example.read_text().replace("sha256:", "sha256: ")) != []


@pytest.mark.parametrize(
    "line",
    [
        "GF_SECURITY_ADMIN_PASSWORD: hunter2",
        'password: "hunter2"',
        "JUPYTER_TOKEN=abc",
        "  aws_secret_access_key = wJalrXUtnFEMI",
        "AWS_KEY: AKIAIOSFODNN7EXAMPLE",
        "x: " + "0f" * 16,
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_secret_is_found(line: str) -> None:
    """Each kind of literal that the search is for is found by it."""
    assert secrets_in(f"a: b\n{line}\n") != []
