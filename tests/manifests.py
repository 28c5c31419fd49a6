"""Check files for container engines and Kubernetes without either, by tools that need none.

Each check returns what is wrong, in the tool's own words; nothing means that it found nothing.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from helm_python import HelmError
from helm_python.chart import Chart, lint
from pydantic import ValidationError

from deploy.local import emulators, processes
from pamola_dwriter.storage import locks

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "kubernetes" / "pamola-dwriter"
DCLINT = "3.1.0"
VERSIONS = ("1.27", "1.37")
"""Kubernetes of the oldest release that the chart allows, and the newest with known schemas."""

_CRDS = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds/"
_MODELS = {
    "cert-manager.io/v1": cert_manager,
    "monitoring.coreos.com/v1": prometheus_operator,
}

Manifest = dict[str, Any]


def lint_dockerfile(file: Path) -> str:
    """What hadolint finds, down to matters of style."""
    return _output([processes.program("hadolint"), "--no-color", str(file)])


def lint_compose(file: Path) -> str:
    """What dclint finds, warnings too, by the rules beside the compose file."""
    main = emulators.install_npm("dclint", DCLINT) / "dclint" / "bin" / "dclint.cjs"
    rules = str(ROOT / "deploy" / "docker" / ".dclintrc.yaml")
    node = processes.program("node")
    return _output([node, str(main), "--no-color", "--max-warnings=0", "-c", rules, str(file)])


def lint_chart(chart: Path, values: Mapping[str, Any]) -> list[str]:
    """What ``helm lint --strict`` finds that is more than advice."""
    report = lint(chart, dict(values), strict=True, kube_version=f"v{VERSIONS[-1]}.0")
    found = [m["error"] for m in report["messages"] if m["severity"] > 1]
    return found + list(report["errors"])


def render(values: Mapping[str, Any], chart: Path = CHART) -> list[Manifest]:
    """Return every resource that an installation as ``lake`` in ``data`` would make.

    Raises
    ------
    HelmError
        The chart or the values are refused.
    """
    with Chart.load(chart) as loaded:
        loaded.validate_schema(dict(values))
        files = loaded.render(dict(values), name="lake", namespace="data")
    return [
        document
        for path, text in sorted(files.items())
        if not path.endswith(".txt")
        for document in yaml.safe_load_all(text)
        if document
    ]


def refusal(values: Mapping[str, Any]) -> str:
    """Why the chart does not take these values; nothing if it does."""
    try:
        render(values)
    except HelmError as error:
        return str(error)
    return ""


def check(manifest: Manifest) -> str:
    """What a server would not take, or drop without a word, in one resource."""
    group = manifest["apiVersion"]
    if group == "kubernetes.dask.org/v1":
        return _check_dask(manifest)
    if group in _MODELS:
        return _check_modelled(manifest)
    return _check_kubernetes(manifest)


def pod_specs(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Each role in a resource of Dask's, with what its pods are made from."""
    spec = manifest["spec"]
    if manifest["kind"] == "DaskJob":
        yield "job-runner", spec["job"]["spec"]
        spec = spec["cluster"]["spec"]
    if manifest["kind"] in {"DaskJob", "DaskCluster"}:
        yield "scheduler", spec["scheduler"]["spec"]
        yield "worker", spec["worker"]["spec"]


def _check_kubernetes(manifest: Manifest) -> str:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return f"Kubernetes {version}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            return f"Kubernetes {version}: {error.message}"
    return ""


def _check_dask(manifest: Manifest) -> str:
    """By Dask's definitions, whose pods are of an old Kubernetes; so the pods by new ones too."""
    schema = _dask_schemas().get(manifest["kind"])
    if schema is None:
        return f"no kind of Dask's: {manifest['kind']}"
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(manifest), key=str)
    if errors:
        return f"{errors[0].json_path}: {errors[0].message}"
    for role, spec in pod_specs(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}, "spec": spec}
        if wrong := _check_kubernetes(pod):
            return f"{role}: {wrong}"
    return ""


def _check_modelled(manifest: Manifest) -> str:
    """By models that were made from the definitions; what they drop, a server drops."""
    model = getattr(_MODELS[manifest["apiVersion"]], manifest["kind"], None)
    if model is None:
        return f"no kind of {manifest['apiVersion']}: {manifest['kind']}"
    try:
        taken = model.model_validate(manifest)
    except ValidationError as error:
        return str(error)
    kept = taken.model_dump(by_alias=True, exclude_unset=True, mode="json")
    return "" if kept == manifest else f"not taken as it is: {kept}"


@cache
def _dask_schemas() -> dict[str, Manifest]:
    """Read the definitions that Dask's operator ships, made strict."""
    found = {}
    with zipfile.ZipFile(_dask_wheel()) as wheel:
        for name in wheel.namelist():
            if name.startswith(_CRDS) and name.endswith(".yaml"):
                definition = yaml.safe_load(wheel.read(name))["spec"]
                (version,) = definition["versions"]
                schema = version["schema"]["openAPIV3Schema"]
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
                found[definition["names"]["kind"]] = _strict(schema)
    return found


def operator_source() -> str:
    """The code that makes pods of Dask's resources."""
    with zipfile.ZipFile(_dask_wheel()) as wheel:
        return wheel.read("dask_kubernetes/operator/controller/controller.py").decode()


def _dask_wheel() -> Path:
    """Fetch the wheel once, at the version of constraints.txt: we want its data, not its needs."""
    folder = Path(sys.prefix, "share", "pamola-dask-kubernetes")
    folder.parent.mkdir(parents=True, exist_ok=True)
    (pin,) = re.findall(r"(?m)^dask-kubernetes==(\S+)$", (ROOT / "constraints.txt").read_text())
    wheel = folder / f"dask_kubernetes-{pin}-py3-none-any.whl"
    with locks.held(f"{folder}.lock"):
        if not wheel.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command = [*pip, "--dest", str(folder), f"dask-kubernetes=={pin}"]
            subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL)
    return wheel


def _strict(schema: Any) -> Any:
    """Refuse what a schema does not name: a server would drop it without a word."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    found = (done.stdout + done.stderr).strip()
    return "" if done.returncode == 0 else found or f"exit status {done.returncode}"


def changed(document: Any, path: Sequence[Any], value: Any) -> Any:
    """Return a copy with one place replaced; None takes it out."""
    copied = copy.deepcopy(document)
    *parents, last = path
    place = copied
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    json.dumps(copied)
    return copied
