"""The benchmarks run, each with a tiny size, and say what they are asked to say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import Comparison
from deploy.local import servers
from tests.places import Place


def run(*arguments: str) -> str:
    """Run one benchmark as a user does, and return what it prints."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_job_of_a_cluster(cluster: servers.Cluster, tmp_path: Path) -> None:
    """On a path: everything came back, and the figures fit one another."""
    output = tmp_path / "report.json"
    run(
        *("job", "--scheduler", cluster.scheduler_address, "--target", str(tmp_path / "task")),
        *("--rows", "2000", "--partitions", "4", "--workers", "2", "--key", "env:PII_KEY"),
        *("--output", str(output)),
    )
    report = json.loads(output.read_text())
    assert report["same"] is True
    assert report["encrypted"] is True
    assert (report["workers"], report["threads"]) == (2, 2)
    assert report["scaling_efficiency"] > 0
    assert report["rows_per_second"] == pytest.approx(2000 / report["seconds"]["write"], rel=0.01)
    written = (tmp_path / "task/output/benchmark").glob("part-*")
    assert sum(part.stat().st_size for part in written) == report["stored_bytes"]


def test_the_job_writes_to_s3(s3_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address changed, and credentials where every AWS client looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_place.options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_place.options["secret"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", servers.REGION)
    with servers.cluster(n_workers=1) as own:
        printed = run(
            *("job", "--scheduler", own.scheduler_address, "--target", s3_place.root),
            *("--rows", "100", "--partitions", "2", "--no-reference"),
            *("--endpoint-url", s3_place.options["client_kwargs"]["endpoint_url"]),
        )
    report = json.loads(printed)
    assert (report["same"], report["scaling_efficiency"]) == (True, None)


def test_the_cost_of_the_plugin() -> None:
    """Every partition is written, and the median of a transition and the share are printed."""
    printed = run("plugin-cost", "--partitions", "50")
    assert "50 of 50 partitions" in printed
    assert re.search(r"transitions of the write +\d+ +median +\d+\.\d\d us", printed)
    assert re.search(r"CPU of the scheduler: \d+\.\d%", printed)


@pytest.mark.parametrize("place", ["local", "s3", "slow-s3"])
def test_writes_against_the_peer(place: str, tmp_path: Path) -> None:
    """Each writer has a figure for each round, and a ratio to the peer's that is kept."""
    sizes = ("--partitions", "2", "--rows-each", "10", "--rounds", "2")
    printed = run("write", "--place", place, *sizes, "--keep", str(tmp_path))
    kept, sealing = (Comparison.load(file) for file in sorted(tmp_path.iterdir(), key=by_length))
    assert [len(figures) for figures in kept.figures.values()] == [2, 2, 2]
    assert (sealing.peer, *sealing.figures) == ("ours", "ours", "ours, encrypted")
    assert f"{kept.peer:<28}" in printed
    assert str(kept.ratio("ours, encrypted")) in printed


def by_length(file: Path) -> int:
    """Sort a name before those that go on where it ends."""
    return len(file.name)


def test_compiling_against_the_peer(tmp_path: Path) -> None:
    """Seconds and bytes of each writer are kept."""
    run("compile", "--partitions", "50", "--rounds", "1", "--keep", str(tmp_path))
    seconds, sent = (Comparison.load(tmp_path / f"compile{end}.json") for end in ("", "-bytes"))
    assert seconds.figures.keys() == sent.figures.keys() == {sent.peer, *seconds.targets}
    assert sent.median("ours") > 1000


def test_finalizing_records(tmp_path: Path) -> None:
    """Each size has its seconds, memory and bytes of a result."""
    run("finalize", "--records", "3", "--records", "30", "--keep", str(tmp_path))
    kept = {file.stem: Comparison.load(file) for file in tmp_path.iterdir()}
    assert kept.keys() == {f"finalize-{name}" for name in ("seconds", "each", "memory", "result")}
    for comparison in kept.values():
        assert list(comparison.figures) == ["3 records", "30 records"]
        assert min(map(min, comparison.figures.values())) > 0


@pytest.mark.parametrize("place", ["local", "slow-s3"])
def test_publishing_on_all_workers(place: str, tmp_path: Path) -> None:
    """Both ways commit every part, and are timed in each round."""
    sizes = ("--parts", "64", "--workers", "2", "--rounds", "2")
    run("publish", "--place", place, *sizes, "--keep", str(tmp_path))
    kept = Comparison.load(tmp_path / f"publish-{place}.json")
    assert list(kept.figures) == ["by the commit", "by tasks on 2 workers"]
    assert {len(each) for each in kept.figures.values()} == {2}


def test_sealing_against_the_peers(tmp_path: Path) -> None:
    """Each package sealed, and the peers are compared with ours."""
    run("sealing", "--mib", "2", "--piece-mib", "1", "--rounds", "2", "--keep", str(tmp_path))
    kept = Comparison.load(tmp_path / "sealing.json")
    assert kept.peer == "ours"
    assert kept.figures.keys() == {"ours", *kept.at_least}


TINY = ("--scale", "0.001", "--partitions", "2", "--rounds", "2")


def test_memory_against_the_peer(tmp_path: Path) -> None:
    """Every writer has a figure for each round, on workers of its own, and some memory is taken."""
    run("memory", *TINY, "--keep", str(tmp_path))
    kept = Comparison.load(tmp_path / "memory.json")
    assert kept.figures.keys() == {kept.peer, *kept.targets}
    assert {len(each) for each in kept.figures.values()} == {2}
    assert max(map(max, kept.figures.values())) > 0


@pytest.mark.parametrize("place", ["local", "s3"])
def test_reading_a_column(place: str, tmp_path: Path) -> None:
    """Seconds and bytes of each reader are kept; from S3 sealed bytes are never the fewer ones."""
    chosen = ("--place", place, "--column", "l_tax", "--keep", str(tmp_path))
    run("read", "--source", str(tmp_path / "tables"), *TINY, *chosen)
    seconds, read = (
        Comparison.load(tmp_path / f"read-{place}-l_tax{end}.json") for end in ("", "-bytes")
    )
    assert seconds.figures.keys() == read.figures.keys() > {seconds.peer, *seconds.targets}
    assert min(map(min, read.figures.values())) > 1000
    # On a disk Dask's own reading of /proc is among them, which takes as long as the machine likes.
    assert place == "local" or read.median("sealed") >= read.median("plain")


def test_the_cost_for_the_scheduler(tmp_path: Path) -> None:
    """Stand-ins take a write to its end; each size is kept, with the peer and without it."""
    sizes = ("--partitions", "70", "--partitions", "140", "--per-worker", "35")
    run("scheduler", *sizes, "--peer-up-to", "70", "--keep", str(tmp_path))
    kept = {file.stem: Comparison.load(file) for file in tmp_path.iterdir()}
    assert kept["scheduler-cpu-70"].figures.keys() == {"to_parquet", "ours"}
    assert kept["scheduler-memory-140"].figures.keys() == {"ours"}
    growth = kept["scheduler-cpu-growth-ours"]
    assert list(growth.figures) == ["70 partitions", "140 partitions"]
    assert growth.median("140 partitions") > 0


@pytest.mark.parametrize("item", ["log-entry", "execution"])
def test_appending_to_json(tmp_path: Path, item: str) -> None:
    """Without the peer, which is not installed here; with it the command says what is missing."""
    few = ("--items", "20", "--rounds", "2")
    run("json-append", "--no-peer", "--item", item, *few, "--keep", str(tmp_path))
    whole = Comparison.load(tmp_path / f"json-append-{item}.json")
    growth = Comparison.load(tmp_path / f"json-append-{item}-growth.json")
    for seconds, *ends in zip(whole.figures["ours"], *growth.figures.values(), strict=True):
        # Of two items each, whose median is their mean.
        assert 0 < 2 * sum(ends) < seconds
    command = [sys.executable, "-m", "benchmarks", "json-append"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "pip install pamola-core==1.0.0.dev4" in done.stderr


def test_steps_of_a_write_and_encoders(tmp_path: Path) -> None:
    """Each step has a figure for each partition, all together are their sum, and others encode."""
    run("stages", *TINY, "--keep", str(tmp_path))
    steps = Comparison.load(tmp_path / "stages.json")
    assert {len(each) for each in steps.figures.values()} == {2}
    whole = steps.figures["all"]
    assert sum(whole) == pytest.approx(sum(map(sum, steps.figures.values())) - sum(whole))
    encode = Comparison.load(tmp_path / "encode.json")
    assert encode.figures.keys() == {"ours", *encode.at_least}
