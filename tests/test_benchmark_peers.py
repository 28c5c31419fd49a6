"""Engines write what ours writes, at a tiny size, and the report is what was kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask.dataframe as dd
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pyrage
import pytest
from click import ClickException
from click.testing import CliRunner
from cryptography.exceptions import InvalidTag

from benchmarks.measuring import RESULTS, Comparison, command_line
from benchmarks.peers import command
from benchmarks.peers.ending import ending_processes
from benchmarks.peers.peer import Guarantees, MissingEngineError, Peer, Task, checked, require
from benchmarks.peers.today import AES, AGE
from benchmarks.report import as_markdown, load_all, report
from benchmarks.units import spell
from deploy.local import state

PROJECT = Path(__file__).parents[1]
SIZES = ("--scale", "0.001", "--partitions", "2", "--rounds", "2")


def run(*arguments: str, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as a user does."""
    line = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        line, check=False, capture_output=True, text=True, timeout=timeout, **options
    )


@pytest.fixture
def surroundings() -> Iterator[dict[str, Any]]:
    """Folders of its own for a command, which leaves nothing in them, and no process."""
    # Not in tmp_path: the path of a socket, which Ray puts in TMPDIR, has a hundred characters.
    with TemporaryDirectory(prefix="peers-") as folder:
        here, home, temporary = (Path(folder, name) for name in ("here", "home", "tmp"))
        for each in (here, home, temporary):
            each.mkdir()
        places = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(PROJECT)}
        yield {"cwd": here, "env": os.environ | places}
        assert not list(here.iterdir())
        assert not (home / ".ray").exists()
        assert {left.name for left in temporary.iterdir()} <= {"dask-scratch-space"}
        assert not running_in(here)


def kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def running_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # another's, or gone
            if Path(process.cwd()) == folder and not state.has_ended(process):
                found.append(process)
    return found


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A table of two files, with amounts, as small as can be."""
    for name, cents in (("a", 1), ("b", 3)):
        amounts = pa.array([Decimal(cents).scaleb(-2)] * 5, pa.decimal128(15, 2))
        pq.write_table(pa.table({"l_extendedprice": amounts}), tmp_path / f"{name}.parquet")
    files = [str(file) for file in sorted(tmp_path.glob("*.parquet"))]
    return Task(files=files, frame=dd.read_parquet(files, dtype_backend="pyarrow", index=False))


def comparison(**changes: Any) -> Comparison:
    """A result with everything in it."""
    kept = Comparison(
        name="peers-local",
        title="Writing",
        unit="s",
        peer="ours",
        figures={"ours": [2.0, 4.0, 3.0], "polars": [3.0, 4.0, 2.0], "spark": [9.0, 8.0, 20.0]},
        targets={"spark": 2.5},
        at_least={"polars": 1.0},
    )
    return replace(kept, **changes)


# The lowest Arrow cannot read the text columns that the generator makes.
@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute on two idle cores, four where four others compute
def test_all_engines_write_the_table(tmp_path: Path, surroundings: dict[str, Any]) -> None:
    """All figures, guarantees, versions and sizes are kept, and the report shows them."""
    names = ",".join(command.PEERS)
    line = ("peers", *SIZES, "--only", names, "--keep", str(tmp_path))
    done = run(*line, timeout=540, **surroundings)
    assert done.returncode == 0, done.stderr[-4000:]
    kept = Comparison.load(tmp_path / "peers-local.json")
    candidates = ["ours", "ours, encrypted", *command.PEERS]
    assert [(name, len(figures)) for name, figures in kept.figures.items()] == [
        (name, 2) for name in candidates
    ]
    assert set(kept.parameters["guarantees"]) == set(candidates)
    engines = {"polars", "duckdb", "deltalake", "pyspark", "ray", "pyrage"}
    assert engines <= set(kept.parameters["versions"])
    assert all(held["files"] and held["bytes"] for held in kept.parameters["written"].values())
    assert kept.at_least == command.AT_LEAST
    done = run("report", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "README.md").read_text()
    assert str(kept.ratio("duckdb")) in page
    assert f"`python -m benchmarks peers {' '.join(SIZES)} --only {names}`" in page
    assert str(tmp_path) not in page


def test_what_an_engine_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what hears no SIGTERM, and what has lost its parent; but no process of others."""
    monkeypatch.setattr(state, "STOP_SECONDS", 0.5)
    deaf = ["/bin/sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait"]
    with ExitStack() as started:

        def start() -> tuple[subprocess.Popen[bytes], psutil.Process]:
            parent = started.enter_context(subprocess.Popen(deaf, stdout=subprocess.PIPE))
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            started.callback(parent.kill)
            started.callback(kill, child)
            return parent, child

        _, others = start()
        with ending_processes() as stops:
            stopped, orphan = start()
            stops.callback(stopped.kill)
            left, child = start()
        assert [left.wait(), stopped.wait()] == [-signal.SIGKILL] * 2
        assert all(map(state.has_ended, [orphan, child]))
        assert not state.has_ended(others)


@pytest.mark.parametrize("module", ["pyspark", "ray", "deltalake", "polars"])
def test_a_missing_engine(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started or written, and the error names the extra."""
    [name] = [name for name, peer in command.PEERS.items() if peer.module == module]
    monkeypatch.setattr("benchmarks.peers.peer.find_spec", lambda asked: asked != module or None)
    monkeypatch.setattr(command.lineitem, "generate", lambda *_: pytest.fail("it went on"))
    monkeypatch.setattr(command.os, "sched_setaffinity", lambda *_: None)
    done = CliRunner().invoke(command.peers, ["--only", f"to_csv,{name}"])
    assert done.exit_code == 1
    assert f"{module} is not installed" in done.output
    assert "'.[bench]'" in done.output


def test_a_module_that_is_not_there() -> None:
    """The check asks the import system itself."""
    absent = replace(command.PEERS["polars"], module="no_such_engine")
    with pytest.raises(MissingEngineError, match="no_such_engine is not installed"):
        require([absent])


def test_an_unknown_engine() -> None:
    """The error lists those there are."""
    done = CliRunner().invoke(command.peers, ["--only", "polars,panda"])
    assert done.exit_code == 2
    assert "panda: not one of" in done.output
    assert "duckdb" in done.output


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize(
    "write",
    [
        lambda frame, folder: frame.partitions[:1].to_parquet(folder),
        lambda frame, folder: frame.map_partitions(_scaled).to_parquet(folder),
    ],
)
def test_an_engine_that_writes_less_is_not_timed(write: Any, task: Task, tmp_path: Path) -> None:
    """Rows left out, or other values, end the run."""
    peer = command.PEERS["to_parquet"]
    expected = (10, Decimal("0.20"))
    folder = tmp_path / "to_parquet"
    with pytest.raises(ClickException, match="to_parquet wrote"):
        command.write_and_check(peer, lambda to: write(task.frame, str(to)), folder, expected)
    with peer.open(task) as whole:
        stored = command.write_and_check(peer, whole, folder, expected)
    assert stored["files"] == 2
    assert not folder.exists()


def _scaled(part: pd.DataFrame) -> pd.DataFrame:
    return part + part


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize(("peer", "error"), [(AES, InvalidTag), (AGE, pyrage.DecryptError)])
def test_what_people_do_today(
    peer: Peer, error: type[Exception], task: Task, tmp_path: Path
) -> None:
    """No plain file is left, and only what is unchanged opens, with the same values."""
    folder = tmp_path / "written"
    with peer.open(task) as write:
        write(folder)
    assert not list(folder.glob("*.parquet"))
    assert checked(peer.read(folder)) == (10, Decimal("0.20"))
    first, second = sorted(folder.glob("*.enc"))
    assert b"PAR1" not in first.read_bytes() + second.read_bytes()
    changed = bytearray(second.read_bytes())
    changed[-20] ^= 1
    second.write_bytes(changed)
    with pytest.raises(error):
        checked(peer.read(folder))


def test_every_guarantee_begins_with_its_answer() -> None:
    """Yes, no or partly, and then the reason."""
    peers = [command.OURS, command.ENCRYPTED, *command.PEERS.values()]
    for guarantees in (peer.guarantees for peer in peers):
        assert isinstance(guarantees, Guarantees)
        for text in guarantees.as_dict().values():
            answer, _, reason = text.partition(": ")
            assert answer in {"yes", "no", "partly"}
            assert reason


def test_targets_from_below_and_above() -> None:
    """The peer is judged where a ratio shall be large, the candidate where it shall be small."""
    kept = comparison()
    assert [kept.reached(name) for name in kept.figures] == [None, True, False]
    assert [kept.aim(name) for name in kept.figures] == ["", ">= 1", "<= 2.5"]
    slow = comparison(at_least={"polars": 1.1})
    assert slow.reached("polars") is False
    assert "target >= 1.1 MISSED" in slow.table()


def test_a_target_that_is_no_ratio(tmp_path: Path) -> None:
    """It holds beside one that is, and also where there is no peer; it is shown with its unit."""
    kept = comparison(at_most={"polars": 2.5, "ours": 2.5})
    assert [kept.reached(name) for name in ("ours", "polars")] == [False, False]
    assert kept.aim("polars") == ">= 1, <= 2.50 s"
    alone = comparison(peer=None, at_most={"polars": 3.5})
    assert (alone.reached("polars"), alone.aim("polars")) == (True, "<= 3.50 s")
    alone.keep(tmp_path)
    assert "| polars | 3.00 s | <= 3.50 s | yes |" in as_markdown(load_all(tmp_path))


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (12.345, "s", "12.3 s"),
        (0.00032, "s a partition", "320 µs a partition"),
        (0, "s", "0 ns"),
        (4_999_999, "bytes", "5.00 MB"),
        (999, "bytes", "999 B"),
        (1234567, "rows", "1,234,567 rows"),
        (0.0033, "", "0.0033"),
    ],
)
def test_figures_have_a_unit_of_their_size(value: float, unit: str, words: str) -> None:
    """Three digits, by a thousand a step."""
    assert spell(value, unit) == words


def test_a_kept_result_names_its_command_without_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are kept, places of this machine are not."""
    folders = ["--keep", "/a b/c", "--source=/d", "--only", "polars"]
    assert command_line(["peers", *folders]) == "python -m benchmarks peers --only polars"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "peers", "--rounds", "3", "--keep", "x"])
    kept = json.loads(comparison().keep(tmp_path).read_text())
    assert kept["command"] == "python -m benchmarks peers --rounds 3"


def test_the_report_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    """Twice in a row, plots and all, whatever order the folder lists its files in."""
    comparison().keep(tmp_path)
    comparison(name="write-s3", peer=None).keep(tmp_path)
    comparison(name="peers-far", figures={"ours": [1.0], "polars": [99.0]}).keep(tmp_path)
    seen = []
    for _ in range(2):
        done = CliRunner().invoke(report, ["--results", str(tmp_path)])
        assert done.exit_code == 0, done.output
        names = ["README.md", "peers.svg"]
        seen.append([(tmp_path / name).read_bytes() for name in names])
    assert seen[0] == seen[1]
    page = seen[0][0].decode()
    assert page.index("## peers") < page.index("## write")
    assert "| spark | 9.00 s | 3.00 (2.00 to 6.67) | <= 2.5 | **no** |" in page
    assert "| polars | 3.00 s | 1.00 (0.67 to 1.50) | >= 1 | yes |" in page
    assert not (tmp_path / "write.svg").exists()
    assert b"polars" in seen[0][1]


def test_a_folder_that_holds_no_results(tmp_path: Path) -> None:
    """An empty one and another JSON file are told apart, and nothing is written."""
    done = CliRunner().invoke(report, ["--results", str(tmp_path)])
    assert (done.exit_code, "holds no results" in done.output) == (1, True)
    (tmp_path / "other.json").write_text("[]")
    done = CliRunner().invoke(report, ["--results", str(tmp_path)])
    assert (done.exit_code, "other.json is no result" in done.output) == (1, True)
    assert [file.name for file in tmp_path.iterdir()] == ["other.json"]


def test_the_committed_report_is_that_of_the_committed_results() -> None:
    """Nobody has edited a figure by hand, or forgotten to make the report again."""
    kept = load_all(RESULTS)
    assert (RESULTS / "README.md").read_text() == as_markdown(kept)
    drawn = {f"{each.group}.svg" for each in kept if each.comparison.peer is not None}
    assert {file.name for file in RESULTS.glob("*.svg")} == drawn
