"""One line for each state of a write, with its id, and nothing that must not be there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

from deploy.local import servers
from pamola_dwriter import DataWriter
from pamola_dwriter.errors import WriteFailedError

SECRET = "a value that nobody may see"


def frame(partitions: int) -> dd.DataFrame:
    """Return a frame of five rows a partition."""
    made = pd.DataFrame({"x": range(5 * partitions)})
    frame: dd.DataFrame = dd.from_pandas(made, npartitions=partitions)
    return frame


def _fail(part: pd.DataFrame) -> pd.DataFrame:
    raise RuntimeError(SECRET)


def states(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    """Return the fields of each line, which are the same in its text."""
    told = [record for record in records if hasattr(record, "pamola_write")]
    for record in told:
        head, _, fields = record.getMessage().partition(" ")
        assert head == "write"
        assert json.loads(fields) == record.pamola_write
    return [record.pamola_write for record in told]


@pytest.fixture(params=["cluster", "threads"])
def anywhere(request: pytest.FixtureRequest) -> None:
    """Run on a cluster, and without one."""
    if request.param == "cluster":
        request.getfixturevalue("client")


@pytest.mark.usefixtures("anywhere")
def test_from_beginning_to_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Started and committed, with what was written."""
    logger = logging.getLogger("my.operation")
    with caplog.at_level("INFO", logger="my.operation"):
        handle = DataWriter(tmp_path, logger=logger).submit_dataframe(frame(3), "a", format="csv")
        result = handle.result()
    begun, ended = states(caplog.records)
    assert begun == {
        "write_id": handle.write_id,
        "state": "started",
        "url": f"{tmp_path}/output/a",
        "format": "csv",
        "encrypted": False,
        "partitions": 3,
    }
    seconds = ended.pop("seconds")
    assert 0 < seconds < 60
    assert ended == begun | {
        "state": "committed",
        "partitions_done": 3,
        "parts": 3,
        "rows": 15,
        "bytes": result.size_bytes,
        "retried": 0,
    }


@pytest.mark.usefixtures("anywhere")
def test_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Class, stage and partition of what raised; not what it said."""
    made = frame(3)
    broken = made.map_partitions(_fail, meta=made._meta)
    with caplog.at_level("INFO"), pytest.raises(WriteFailedError):
        DataWriter(tmp_path).write_dataframe(broken, "a", format="csv")
    ended = states(caplog.records)[-1]
    assert (ended["state"], ended["failure"]) == ("failed", "RuntimeError")
    assert ended["failed_stage"] == "serialize"
    assert ended["failed_partition"] in (0, 1, 2)
    assert SECRET not in json.dumps(ended)


def test_the_scheduler_says_it_too(tmp_path: Path) -> None:
    """Of all clients, once for each state, with the same fields."""
    env = {"DASK_LOGGING__PAMOLA_DWRITER": "info"}
    with servers.cluster(n_workers=1, env=env) as cluster:
        with Client(cluster.scheduler_address):
            handle = DataWriter(tmp_path).submit_dataframe(frame(3), "a", format="csv")
            result = handle.result()
        log = (cluster.run / "scheduler.log").read_text()
    lines = [line for line in log.splitlines() if handle.write_id in line]
    told = [json.loads(line[line.index("{") :]) for line in lines]
    assert [one["state"] for one in told] == ["started", "committed"]
    assert (told[1]["rows"], told[1]["bytes"]) == (15, result.size_bytes)
