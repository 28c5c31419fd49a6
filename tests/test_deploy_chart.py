"""The chart for Kubernetes: linted, rendered, and held against what servers would take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from tests import routes
from tests.manifests import (
    CHART,
    ROOT,
    Manifest,
    changed,
    check,
    lint_chart,
    operator_source,
    pod_specs,
    refusal,
    render,
)

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
ROLES = ("scheduler", "worker", "job-runner")
_VOLUMES = {"secret", "emptyDir", "configMap"}


def values_of(path: Path) -> Manifest:
    loaded: Manifest = yaml.safe_load(path.read_text())
    return loaded


def everything() -> Manifest:
    """Values that turn on all that the chart has."""
    values = values_of(CHART / "examples" / "minimal.yaml")
    return values | {
        "metrics": {"enabled": True},
        "autoscaler": {"enabled": True},
        "job": {"enabled": True, "target": "s3://lake/benchmark", "autoscale": True},
    }


def the(kind: str, name: str = "") -> Manifest:
    """Return one resource of an installation of everything."""
    return next(
        m
        for m in render(everything())
        if m["kind"] == kind and m["metadata"]["name"].endswith(name)
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_sound(example: Path) -> None:
    """The chart lints and renders with each example, and a server would take all that it makes."""
    values = values_of(example)
    assert lint_chart(CHART, values) == []
    manifests = render(values)
    assert len(manifests) >= 10
    assert {m["metadata"]["name"]: wrong for m in manifests if (wrong := check(m))} == {}


def test_everything_at_once_is_sound() -> None:
    """With all of the chart turned on, each of its kinds is made, and a server would take it."""
    manifests = render(everything())
    assert {m["kind"] for m in manifests} == {
        "Certificate",
        "DaskAutoscaler",
        "DaskCluster",
        "DaskJob",
        "Issuer",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "ServiceAccount",
        "ServiceMonitor",
    }
    assert {m["metadata"]["name"]: wrong for m in manifests if (wrong := check(m))} == {}
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("file", "sound", "broken", "complaint"),
    [
        ("Chart.yaml", "version: 0.1.0", "version: one", "version"),
        ("values.yaml", "  threads: 1", "  threads: one", "threads"),
        ("templates/job.yaml", "{{- end }}", "", "unexpected EOF"),
        (
            "templates/cluster.yaml",
            "kind: DaskCluster",
            "kind: DaskCluster\n  bad: true",
            "mapping values",
        ),
        ("templates/identity.yaml", '"pamola.labels"', '"pamola.lables"', "pamola.lables"),
    ],
)
def test_a_broken_chart_is_found(
    tmp_path: Path, file: str, sound: str, broken: str, complaint: str
) -> None:
    """Each kind of fault in a chart is named by the linter."""
    chart = Path(copytree(CHART, tmp_path / "pamola-dwriter"))
    text = (chart / file).read_text()
    assert sound in text
    (chart / file).write_text(text.replace(sound, broken))
    assert complaint in "\n".join(lint_chart(chart, everything()))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["worker", "replicas"], "two", "replicas"),
        (["worker", "replica"], 2, "replica"),
        (["worker", "terminationGracePeriodSeconds"], 5, "terminationGracePeriodSeconds"),
        (["image", "tag"], "latest", "tag"),
        (["image", "digest"], "sha256:abc", "digest"),
        (["store", "endpointUrl"], "http://s3:8333", "endpointUrl"),
        (["store", "accessKey"], "AKIA", "accessKey"),
        (["store", "caConfigMap"], "-----BEGIN", "caConfigMap"),
        (["networkPolicy", "store", "to"], [], "networkPolicy.store.to"),
        (["networkPolicy", "store", "ports"], [0], "ports"),
        (["job", "target"], "", "job.target"),
        (["job", "target"], "/shared/x", "target"),
        (["autoscaler", "minimum"], 99, "autoscaler.minimum"),
        (["tls"], {"enabled": False}, "enabled"),
        (["tls"], {"issuerRef": {"kind": "Secret"}}, "kind"),
        (["keys", "env"], [{"name": "PII_KEY", "value": "0f"}], "value"),
        (["podDisruptionBudget"], {"maxUnavailableWorkers": "some"}, "maxUnavailableWorkers"),
    ],
)
def test_values_that_mean_nothing_are_refused(path: list[str], value: Any, complaint: str) -> None:
    """A value that is misspelt, out of range or unsafe stops the installation, and is named."""
    values = everything()
    place = values
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = value
    assert complaint in refusal(values)


def test_defaults_alone_are_refused() -> None:
    """Nothing is installed before somebody has said where the store is."""
    assert "networkPolicy.store.to" in refusal({})
    assert "nothing to install" in refusal({"cluster": {"enabled": False}})


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("NetworkPolicy", "-deny", ["spec", "policyType"], ["Egress"]),
        ("NetworkPolicy", "-deny", ["spec", "podSelector"], None),
        ("NetworkPolicy", "-dns", ["spec", "egress", 0, "ports", 0, "port"], {"number": 53}),
        ("PodDisruptionBudget", "-workers", ["spec", "maxUnavailable"], ["1"]),
        ("PodDisruptionBudget", "-workers", ["spec", "minAvailible"], 1),
        ("ServiceAccount", "", ["automountServiceAccountToken"], "no"),
        ("ServiceAccount", "", ["apiVersion"], "v2"),
        ("DaskCluster", "", ["spec", "scheduler", "service"], None),
        ("DaskCluster", "", ["spec", "worker", "replicas"], "2"),
        ("DaskCluster", "", ["spec", "worker", "replica"], 2),
        ("DaskCluster", "", ["spec", "worker", "spec", "containers", 0, "arg"], ["x"]),
        ("DaskCluster", "", ["spec", "worker", "spec", "containers", 0, "resources"], "much"),
        ("DaskAutoscaler", "", ["spec", "maximum"], None),
        ("DaskAutoscaler", "", ["kind"], "DaskAutoscalar"),
        ("DaskJob", "", ["spec", "job", "spec", "restart"], "Never"),
        ("DaskJob", "", ["spec", "cluster"], None),
        ("Certificate", "-tls", ["spec", "issuerRef"], None),
        ("Certificate", "-tls", ["spec", "secretname"], "x"),
        ("Certificate", "-tls", ["spec", "usages"], ["server"]),
        ("Certificate", "-tls", ["spec", "privateKey", "rotationPolicy"], "Sometimes"),
        ("Issuer", "-ca", ["spec", "ca", "secret"], "x"),
        ("Issuer", "-ca", ["kind"], "Issuers"),
        ("ServiceMonitor", "", ["spec", "endpoints", 0, "ports"], "x"),
        ("PodMonitor", "", ["spec", "selector"], "worker"),
    ],
)
def test_a_broken_resource_is_found(kind: str, name: str, path: list[Any], value: Any) -> None:
    """Each kind of fault is found in each kind of resource: unknown, absent, of another type."""
    assert check(the(kind, name)) == ""
    assert check(changed(the(kind, name), path, value)) != ""


def unconfined(spec: Manifest) -> list[str]:
    """What a pod may do that the profile ``restricted`` of Kubernetes, or we, do not allow."""
    pod = spec.get("securityContext", {})
    found = {
        "root": pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0,
        "system calls": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
        "a token of the API": spec.get("automountServiceAccountToken") is False,
        "the host": not {"hostNetwork", "hostPID", "hostIPC"} & set(spec),
        "volumes": all(set(v) - {"name"} <= _VOLUMES for v in spec["volumes"]),
    }
    for container in chain(spec["containers"], spec.get("initContainers", [])):
        own = container.get("securityContext", {})
        limits = container.get("resources", {})
        found |= {
            "escalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "its root": own.get("readOnlyRootFilesystem") is True,
            "privileges": not own.get("privileged"),
            "memory": "memory" in limits.get("limits", {}) and "cpu" in limits.get("requests", {}),
        }
    return [what for what, sound in found.items() if not sound]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_pods_are_confined(example: Path) -> None:
    """Every pod of every example is within the restricted profile, with requests and limits."""
    specs = [
        s for m in render(values_of(example)) if "dask.org" in m["apiVersion"] for s in specs_of(m)
    ]
    assert len(specs) >= 2
    assert [unconfined(spec) for spec in specs] == [[]] * len(specs)


def specs_of(manifest: Manifest) -> Iterator[Manifest]:
    return (
        (spec for _, spec in pod_specs(manifest))
        if manifest["kind"] != "DaskAutoscaler"
        else iter(())
    )


@pytest.mark.parametrize(
    ("path", "value", "right"),
    [
        (["securityContext", "runAsNonRoot"], None, "root"),
        (["securityContext", "runAsUser"], 0, "root"),
        (["securityContext", "seccompProfile"], {"type": "Unconfined"}, "system calls"),
        (["automountServiceAccountToken"], True, "a token of the API"),
        (["hostNetwork"], True, "the host"),
        (["volumes", 0], {"name": "tls", "hostPath": {"path": "/"}}, "volumes"),
        (["containers", 0, "securityContext", "capabilities"], {"add": ["ALL"]}, "capabilities"),
        (["containers", 0, "securityContext", "readOnlyRootFilesystem"], False, "its root"),
        (["containers", 0, "securityContext", "privileged"], True, "privileges"),
        (["containers", 0, "resources", "limits"], {}, "memory"),
    ],
)
def test_a_right_too_many_is_found(path: list[Any], value: Any, right: str) -> None:
    """Each right that a pod could be given is named by the check above."""
    (spec,) = (s for role, s in pod_specs(the("DaskCluster")) if role == "worker")
    assert unconfined(spec) == []
    assert right in unconfined(changed(spec, path, value))


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes takes these labels."""
    wanted = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    return wanted and all(
        labels.get(e["key"]) in e["values"]
        for e in selector.get("matchExpressions", [])
        if e["operator"] == "In"
    )


def reaches(policies: list[Manifest], role: str, peer: Manifest, port: int) -> bool:
    """Whether the policies let a pod of a role out to a peer, named as they would name it."""
    labels = {"dask.org/component": role, "dask.org/cluster-name": "lake"}
    ours = [p["spec"] for p in policies if "Egress" in p["spec"]["policyTypes"]]
    applying = [p for p in ours if selects(p["podSelector"], labels)]
    return not applying or any(
        peer in rule["to"] and port in [p["port"] for p in rule["ports"]]
        for policy in applying
        for rule in policy.get("egress", [])
    )


def who_reaches(policies: list[Manifest], store: Manifest) -> set[str]:
    """Roles that the policies let out to the store."""
    port = store.get("ports", [443])[0]
    return {r for r in ROLES for peer in store["to"] if reaches(policies, r, peer, port)}


def policies_of(example: Path) -> tuple[list[Manifest], Manifest]:
    """The policies of an example with cluster and job, and where the store is."""
    values = values_of(example) | {"cluster": {"enabled": True}}
    values.setdefault("job", {"enabled": True, "target": "s3://lake/benchmark"})
    policies = [m for m in render(values) if m["kind"] == "NetworkPolicy"]
    return policies, values["networkPolicy"]["store"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_only_workers_and_the_job_reach_the_store(example: Path) -> None:
    """The scheduler has no way to the store, workers and the job have, and nobody has another."""
    policies, store = policies_of(example)
    assert who_reaches(policies, store) == {"worker", "job-runner"}
    elsewhere = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": store.get("ports", [443])}
    assert who_reaches(policies, elsewhere) == set()


@pytest.mark.parametrize(
    ("part", "value", "reaching"),
    [("podSelector", {}, set(ROLES)), ("egress", [], set())],
)
def test_a_policy_too_wide_or_too_narrow_is_found(
    part: str, value: Any, reaching: set[str]
) -> None:
    """The check above sees whom the policy of the store lets out, and that without any all are."""
    policies, store = policies_of(CHART / "examples" / "minimal.yaml")
    ((place, policy),) = [
        (place, p) for place, p in enumerate(policies) if p["metadata"]["name"] == "lake-store"
    ]
    broken = changed(policy, ["spec", part], value)
    assert who_reaches(changed(policies, [place], broken), store) == reaching
    assert who_reaches([], store) == set(ROLES)


def test_the_operator_labels_pods_as_they_are_selected() -> None:
    """The labels that policies and budgets select pods by are those that Dask's operator gives."""
    source = operator_source()
    given = {tuple(pair) for pair in re.findall(r'"(dask\.org/component)": "([\w-]+)"', source)}
    assert {("dask.org/component", role) for role in ROLES} < given
    assert source.count('"dask.org/cluster-name": cluster_name') >= len(ROLES)


def test_a_store_nearby_lets_in_nobody_else() -> None:
    """A store in the same Kubernetes gets a policy that lets in workers and the job alone."""
    guard = the("NetworkPolicy", "-store-guard")
    assert guard["metadata"]["namespace"] == "storage"
    ((peer,),) = ([rule["from"] for rule in guard["spec"]["ingress"]],)
    (peer,) = peer
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "data"}
    cluster = {"dask.org/cluster-name": "lake"}
    let_in = {
        r for r in ROLES if selects(peer["podSelector"], {"dask.org/component": r, **cluster})
    }
    assert let_in == {"worker", "job-runner"}


def test_the_job_runs_the_benchmark_as_everywhere() -> None:
    """The job's command is that of every other route, with the address of its own scheduler."""
    values = everything()
    values["job"] |= {"rows": routes.ROWS, "partitions": routes.PARTITIONS}
    (job,) = (m for m in render(values) if m["kind"] == "DaskJob")
    ((_, runner), (_, scheduler), _) = pod_specs(job)
    assert runner["containers"][0]["args"] == routes.job_command(
        "tls://lake-benchmark-scheduler.data.svc:8786", "s3://lake/benchmark"
    )
    assert job["metadata"]["name"] == "lake-benchmark"
    ports = {
        p["name"]: p["port"]
        for p in job["spec"]["cluster"]["spec"]["scheduler"]["service"]["ports"]
    }
    assert ports == {"tcp-comm": 8786, "http-dashboard": 8787}
    assert scheduler["serviceAccountName"] == "lake-scheduler"


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskJob"])
def test_every_link_is_tls_and_no_key_is_static(kind: str) -> None:
    """Each role has the certificate and wants encryption; keys and credentials are references."""
    for role, spec in pod_specs(the(kind)):
        (container,) = spec["containers"]
        env = {e["name"]: e for e in container["env"]}
        assert env["DASK_SCHEDULER_ADDRESS"]["value"].startswith("tls://")
        assert env["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"]["value"] == "true"
        mounted = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
        volumes = {v["name"]: v for v in spec["volumes"]}
        assert volumes[mounted["/etc/dask/tls"]]["secret"]["secretName"] == "lake-tls"
        written = {e["value"] for name, e in env.items() if "TLS__" in name}
        assert written == {f"/etc/dask/tls/{f}" for f in ("ca.crt", "tls.crt", "tls.key")}
        holds = role != "scheduler"
        assert ("PII_KEY" in env) == holds
        assert ("/etc/pamola/store" in mounted) == holds
        assert ("/etc/pamola/ca" in mounted) == ("AWS_CA_BUNDLE" in env) == holds
        assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & set(env)
        if holds:
            reference = {"name": "dataset-keys", "key": "pii"}
            assert env["PII_KEY"]["valueFrom"] == {"secretKeyRef": reference}
            assert spec["serviceAccountName"] == "lake"


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskJob"])
def test_every_process_of_dask_logs_the_states_of_writes(kind: str) -> None:
    """Each role is told to log below warnings, where the lines of a write are."""
    for _, spec in pod_specs(the(kind)):
        (container,) = spec["containers"]
        env = {e["name"]: e.get("value") for e in container["env"]}
        assert env["DASK_LOGGING__PAMOLA_DWRITER"] == "info"


def test_no_resource_is_a_secret() -> None:
    """The chart makes no Secret: cert-manager and others do, and the chart names them."""
    assert "Secret" not in {m["kind"] for m in render(everything())}


def test_identities_are_annotated_for_workers_alone() -> None:
    """The role in the cloud goes to the account of workers and job, not to the scheduler's."""
    manifests = render(values_of(CHART / "examples" / "production-eks.yaml"))
    accounts = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "ServiceAccount"}
    assert "eks.amazonaws.com/role-arn" in accounts["lake"]["metadata"]["annotations"]
    assert "annotations" not in accounts["lake-scheduler"]["metadata"]


def test_a_budget_for_a_runner_is_a_number() -> None:
    """Budgets keep scheduler and runner; the owner of a runner cannot scale, so its is a number."""
    budgets = {
        m["metadata"]["name"]: m["spec"]
        for m in render(everything())
        if m["kind"] == "PodDisruptionBudget"
    }
    assert budgets["lake-benchmark-runner"]["minAvailable"] == 1
    assert "maxUnavailable" not in budgets["lake-benchmark-runner"]
    assert budgets["lake-workers"]["maxUnavailable"] == "25%"
    assert {budgets[f"{n}-scheduler"]["maxUnavailable"] for n in ("lake", "lake-benchmark")} == {0}


def test_a_worker_that_stops_has_time_to_hand_over() -> None:
    """The hook ends before the pod is killed, and names a module that the image holds."""
    ((_, _), (_, worker)) = pod_specs(the("DaskCluster"))
    *command, seconds = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["python", "-m", "deploy.kubernetes.retire"]
    assert float(seconds) < worker["terminationGracePeriodSeconds"]
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    assert "deploy/kubernetes/retire.py" in dockerfile


def test_the_readme_names_what_there_is() -> None:
    """Every value and file that the page on Kubernetes names exists."""
    text = (ROOT / "deploy" / "kubernetes" / "README.md").read_text()
    defaults = values_of(CHART / "values.yaml")
    for name in re.findall(r"`([a-z]\w+(?:\.\w+)+)`", text):
        place: Any = defaults
        if name.split(".")[0] in defaults:
            for step in name.split("."):
                place = place[step]
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / "deploy" / "kubernetes" / link).exists(), link
