"""The scheduler's metrics add up to the manifests, and counters never go down."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import servers
from pamola_dwriter import DataWriter, layout
from pamola_dwriter.errors import WriteCancelledError, WriteFailedError
from pamola_dwriter.plugin import WRITES_KEPT, WritesPlugin
from tests.places import open_gate, slow_frame

GRAFANA = Path(servers.__file__).parents[1] / "grafana/pamola-writes.json"

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def own() -> Iterator[servers.Cluster]:
    """A cluster that nobody else writes on, so that its counters are known."""
    with servers.cluster() as running:
        yield running


def _fail(part: pd.DataFrame) -> pd.DataFrame:
    raise RuntimeError("no")


@pytest.fixture
def written(own: servers.Cluster, tmp_path: Path) -> servers.Cluster:
    """The same, where a write has been committed."""
    with Client(own.scheduler_address):
        DataWriter(tmp_path).write_dataframe(slow_frame(2), "a", format="csv")
    return own


def scrape(cluster: servers.Cluster) -> Metrics:
    """Return our metrics as Prometheus reads them."""
    assert cluster.dashboard_url is not None
    url = cluster.dashboard_url.replace("/status", "/metrics")
    with urllib.request.urlopen(url, timeout=20) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("pamola_")
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return one sample."""
    return metrics[name, frozenset(labels.items())]


def counters(metrics: Metrics) -> Metrics:
    """Return those that may only go up."""
    return {key: number for key, number in metrics.items() if key[0].endswith("_total")}


def grown(before: Metrics, after: Metrics, name: str, **labels: str) -> float:
    """Return by how much a counter grew."""
    key = name, frozenset(labels.items())
    return after[key] - before.get(key, 0)


def test_a_write_under_way_and_committed(own: servers.Cluster, tmp_path: Path) -> None:
    """Gauges show it while it goes on; counters add what the manifest says, retries too."""
    with Client(own.scheduler_address):
        small = DataWriter(tmp_path).write_dataframe(slow_frame(2), "a", format="csv")
        before = scrape(own)
        assert value(before, "pamola_rows_total") >= small.rows == 10
        gate = tmp_path / "gate"
        handle = DataWriter(tmp_path / "task").submit_dataframe(
            slow_frame(40, 0.1, gate=gate), "b", format="csv"
        )
        while handle.progress().partitions_done < 5:
            time.sleep(0.05)
        under_way = scrape(own)
        assert value(under_way, "pamola_writes_running") == 1
        assert value(under_way, "pamola_running_partitions") == 40
        assert 5 <= value(under_way, "pamola_running_partitions_stored") < 40
        assert value(under_way, "pamola_running_tasks", stage="put", state="done") >= 5
        own.kill_worker()
        open_gate(gate)
        result = handle.result()
        after = scrape(own)
    own.wait_for_workers()
    assert grown(before, after, "pamola_writes_total", status="committed") == 1
    assert grown(before, after, "pamola_rows_total") == result.rows == 200
    assert grown(before, after, "pamola_parts_total") == result.partitions
    assert grown(before, after, "pamola_stored_bytes_total") == result.size_bytes
    assert grown(before, after, "pamola_task_retries_total", stage="serialize") > 0
    assert value(after, "pamola_task_seconds_total", stage="put") > 0
    for first, second in ((before, under_way), (under_way, after)):
        for key, number in counters(first).items():
            assert second[key] >= number, key


def test_writes_that_do_not_commit(own: servers.Cluster, tmp_path: Path) -> None:
    """Failed and cancelled ones are counted as such, and add neither rows nor bytes."""
    with Client(own.scheduler_address):
        writer, before = DataWriter(tmp_path), scrape(own)
        with pytest.raises(WriteFailedError):
            writer.write_dataframe(
                slow_frame(3).map_partitions(_fail, meta=slow_frame(3)._meta), "c"
            )
        handle = writer.submit_dataframe(slow_frame(40, 0.1), "d", format="csv")
        while handle.progress().partitions_done < 2:
            time.sleep(0.05)
        handle.cancel()
        with pytest.raises(WriteCancelledError):
            handle.result()
        after = scrape(own)
    for status in ("failed", "cancelled"):
        assert grown(before, after, "pamola_writes_total", status=status) == 1
    assert grown(before, after, "pamola_partition_failures_total") >= 1
    for name in ("pamola_rows_total", "pamola_stored_bytes_total"):
        assert grown(before, after, name) == 0


def test_a_write_that_nobody_reports(own: servers.Cluster, tmp_path: Path) -> None:
    """One that ``client.compute`` runs is counted some seconds after it is let go of."""
    before = value(scrape(own), "pamola_writes_total", status="committed")
    with Client(own.scheduler_address) as client:
        lazy = DataWriter(tmp_path).write_dataframe(slow_frame(2), "a", format="csv", compute=False)
        future = client.compute(lazy)
        future.result()
        future.release()
        deadline = time.monotonic() + 30
        while value(scrape(own), "pamola_writes_total", status="committed") != before + 1:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_the_dashboard_of_grafana(written: servers.Cluster) -> None:
    """It asks for every metric that there is, and for no other; its data source is a variable."""
    dashboard = json.loads(GRAFANA.read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for one in targets for name in re.findall(r"\bpamola_\w+", one["expr"])}
    only_meanwhile = {"pamola_running_tasks"}  # there while a write goes on
    assert asked == {name for name, _ in scrape(written)} | only_meanwhile
    assert {one["datasource"]["uid"] for one in targets} == {"${datasource}"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_labels_are_bounded(written: servers.Cluster) -> None:
    """No label holds a name or an id."""
    labels = {label for _, pairs in scrape(written) for label in pairs}
    assert {name for name, _ in labels} <= {"status", "stage", "state"}


def test_what_leaves_the_ring_stays_counted() -> None:
    """A thousand writes are counted when no more than a hundred are kept."""
    plugin = WritesPlugin(clock=lambda: 0.0)
    for number in range(10 * WRITES_KEPT):
        key = f"pamola-commit-{number:016x}"
        plugin.transition(key, "processing", "memory", stimulus_id="s")
        plugin.transition(key, "released", "forgotten", stimulus_id="s")
    totals, running = plugin._measure()
    assert totals.writes["committed"] == 9 * WRITES_KEPT  # the last may yet be reported on
    assert running == []
    plugin._clock = lambda: 60.0
    totals, _ = plugin._measure()
    assert totals.writes["committed"] == 10 * WRITES_KEPT
    assert layout.parse_task_key("pamola-commit-0000000000000001") is not None
