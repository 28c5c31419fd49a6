"""Every example of the specification does what its comments say, locally and on S3."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from upath import UPath

import pamola_dwriter
from deploy.local.servers import S3Server
from pamola_dwriter import DataWriteError, DataWriter, layout, open_artifact, read_dataset

_TEXT = (Path(__file__).parent / "fixtures" / "specification.md").read_text()
_BLOCKS = re.findall(r"^## (.+?)\n\n```python\n(.*?)^```$", _TEXT, re.DOTALL | re.MULTILINE)

Run = Callable[..., dict[str, Any]]


@pytest.fixture(params=["local", "s3"])
def root(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path | UPath:
    """A place for task directories; what S3 needs stands in the environment, as in a job."""
    if request.param == "local":
        return tmp_path
    server: S3Server = request.getfixturevalue("s3")
    options = server.storage_options
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["secret"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", options["client_kwargs"]["endpoint_url"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return UPath(request.getfixturevalue("s3_task_dir"), use_listings_cache=False)


@pytest.fixture
def run(root: Path | UPath, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the n-th block under a heading."""
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams.copy())
    plt.switch_backend("agg")

    def run_block(title: str, number: int = 0, **names: Any) -> dict[str, Any]:
        source = [block for heading, block in _BLOCKS if heading == title][number]
        namespace = dict(names)
        code = compile(source.replace("/path/to", str(root)), title, "exec")
        exec(code, namespace)  # noqa: S102 - the text of our own specification
        return namespace

    return run_block


def read_json(path: Path | UPath) -> Any:
    return json.loads(path.read_bytes())


def read_csv(path: Path | UPath) -> pd.DataFrame:
    with path.open("rb") as file:
        return pd.read_csv(file)


def test_basic_dataframe_writing(run: Run, root: Path | UPath) -> None:
    """A frame becomes output/users.csv, and an encrypted Parquet file with a time in its name."""
    names = run("Basic DataFrame Writing")
    plain, sealed = names["result"], names["encrypted_result"]
    assert str(plain.path) == f"{root}/task_001/output/users.csv"
    assert plain.size_bytes == (root / "task_001/output/users.csv").stat().st_size
    pd.testing.assert_frame_equal(read_csv(plain.path), names["df"])
    stem = sealed.path.name.removesuffix(".parquet.pdw")
    assert layout.parse_timestamped(stem)[0] == "users_encrypted"  # type: ignore[index]
    with open_artifact(sealed.path, encryption_key="secure_encryption_key_123") as file:
        pd.testing.assert_frame_equal(pd.read_parquet(file), names["df"])


def test_writing_metrics_and_visualizations(run: Run, root: Path | UPath) -> None:
    """The chart stands in the task directory, and the metrics beside it with their origin."""
    names = run("Writing Metrics and Visualizations")
    assert str(names["viz_result"].path) == f"{root}/task_002/metric_chart.png"
    assert names["viz_result"].path.read_bytes().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    document = read_json(names["metrics_result"].path)
    assert document["metrics"] == names["metrics"]
    assert document["metadata"]["name"] == "operation_metrics"
    stem = names["metrics_result"].path.stem
    assert layout.parse_timestamped(stem)[0] == "operation_metrics"  # type: ignore[index]
    assert names["metrics_result"].path.parent.name == "task_002"


def test_working_with_dictionaries_and_json(run: Run, root: Path | UPath) -> None:
    """Dictionaries go to dictionaries/, and array and object are begun and added to."""
    for _ in range(2):
        names = run("Working with Dictionaries and JSON")
    assert str(names["dict_result"].path) == f"{root}/task_003/dictionaries/frequency_counts.json"
    assert read_json(names["dict_result"].path) == names["frequency_dict"]
    task = root / "task_003"
    assert read_json(task / "operation_log.json") == [names["log_entry"]] * 2
    assert read_json(task / "configuration.json") == names["config_updates"]


def test_integration_with_progress_tracking(run: Run) -> None:
    """A write in the middle of a tracked operation leaves its count at exactly its total."""
    names = run("Integration with Progress Tracking")
    assert names["result"].rows == 100_000
    assert names["progress"].closed
    assert names["progress"].n >= 100


def test_handling_dask_dataframes(run: Run, root: Path | UPath) -> None:
    """A frame of one partition becomes one file, one of ten a directory of parts."""
    names = run("Handling Dask DataFrames")
    small, large = names["small_result"], names["large_result"]
    assert str(small.path) == f"{root}/task_005/output/small_dask_data.csv"
    assert small.rows == len(read_csv(small.path)) == 10_000
    assert str(large.path) == f"{root}/task_005/output/large_dask_data"
    assert (large.format, large.partitions) == ("partitioned_parquet", 10)
    pd.testing.assert_frame_equal(
        read_dataset(large.path).compute(), names["pdf"], check_index_type=False
    )


def test_operation_integration(run: Run, root: Path | UPath) -> None:
    """An operation that gives its writer positional arguments registers what was written."""

    class OperationResult:
        def __init__(self) -> None:
            self.artifacts: dict[str, Any] = {}

        def register_artifact(self, path: Any, kind: str) -> None:
            self.artifacts[kind] = path

    class Source:
        def get_dataframe(self) -> pd.DataFrame:
            return pd.DataFrame({"x": [1, 2]})

    names = run("Integration Patterns", DataWriter=DataWriter, OperationResult=OperationResult)

    class Operation:
        logger = logging.getLogger("operation")
        progress_tracker = None
        execute = names["execute"]

        def process_data(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame * 2

        def calculate_metrics(self, frame: pd.DataFrame) -> dict[str, int]:
            return {"rows": len(frame)}

    result = Operation().execute(Source(), root / "task_006")
    assert str(result.artifacts["output_data"]) == f"{root}/task_006/output/transformed_data.csv"
    origin = read_json(result.artifacts["metrics"])["metadata"]["operation"]
    assert (origin["class"], origin["function"]) == ("Operation", "execute")


def test_error_handling(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A failed write is a DataWriteError, and is logged before the caller does."""

    class Operation:
        logger = logging.getLogger("operation")

    run(
        "Integration Patterns",
        1,
        self=Operation(),
        writer=DataWriter(tmp_path),
        df=pd.DataFrame({0: [1]}),
        DataWriteError=DataWriteError,
    )
    ours, theirs = caplog.records
    assert ours.getMessage().startswith("Failed to write DataFrame: column names must be text")
    assert theirs.getMessage() == f"Failed to write data: {ours.getMessage()}"


def test_every_example_is_run() -> None:
    """No block of the specification is left out above."""
    source = Path(__file__).read_text()
    assert all(f'"{title}"' in source for title, _ in _BLOCKS)
    assert len(_BLOCKS) == 7
    assert pamola_dwriter.HierarchicalProgressTracker is not None
