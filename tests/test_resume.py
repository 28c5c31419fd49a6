"""A write that lost its client or cluster is taken up where it stopped, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

from deploy.local import servers
from pamola_dwriter import finalize, verify
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    TargetExistsError,
    WrongKeyError,
)
from pamola_dwriter.spec import RunSpec
from pamola_dwriter.testing import Fault, assert_no_leftovers, inject, install, uninstall
from tests.gates import LET_THROUGH, ROWS, gated, make_source
from tests.places import Place

PARTITIONS = 6


@pytest.fixture(autouse=True)
def short_lease() -> Iterator[None]:
    """Nobody waits long for a sign of life."""
    with dask.config.set({"pamola-dwriter.lease-seconds": 1}):
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Parquet input that another process can read as well."""
    return make_source(tmp_path, PARTITIONS)


def computed_here(source: Path) -> set[int]:
    traces = source.parent.glob(f"computed-*-{os.getpid()}")
    return {int(trace.name.split("-")[1]) for trace in traces}


def expected(source: Path) -> pd.DataFrame:
    frame: pd.DataFrame = dd.read_parquet(source).compute(scheduler="sync")
    return frame.reset_index(drop=True)


def start_elsewhere(place: Place, source: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Write in a process of its own; return once its first three partitions are staged."""
    lease = dask.config.get("pamola-dwriter.lease-seconds")
    script = (
        "import dask\n"
        "from pathlib import Path\n"
        "from tests.places import Place\n"
        "from tests.gates import gated\n"
        f'dask.config.set({{"pamola-dwriter.lease-seconds": {lease}, "num_workers": 4}})\n'
        f"place = Place({place.root!r}, {dict(place.options)!r})\n"
        f"frame = gated(Path({str(source)!r}))\n"
        f'place.writer().write_dataframe(frame, "people", "parquet", **{options!r})\n'
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 60
    while sum("/record-" in file for file in place.files()) < LET_THROUGH:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def interrupt_at_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next commit end in an unknown outcome, everything published and no manifest."""

    def vanish(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        raise CommitOutcomeUnknownError("the store is gone")

    monkeypatch.setattr(finalize, "put_version", vanish)


def interrupt(
    place: Place, frame: dd.DataFrame, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at_commit(patch)
        with pytest.raises(CommitOutcomeUnknownError, match="store is gone"):
            place.writer().write_dataframe(frame, "people", "parquet", **options)


@pytest.mark.slow
def test_killed_client_is_resumed(place: Place, key: str | None, source: Path) -> None:
    """After SIGKILL of the writing process only what it had not staged is computed again."""
    process = start_elsewhere(place, source, encryption_key=key)
    process.kill()
    process.wait()
    (source.parent / "open").touch()
    result = place.writer().write_dataframe(
        gated(source), "people", "parquet", encryption_key=key, resume=True
    )
    assert result.resumed == LET_THROUGH
    assert len(computed_here(source)) == PARTITIONS - LET_THROUGH
    assert (result.rows, result.partitions) == (PARTITIONS * ROWS, PARTITIONS)
    pd.testing.assert_frame_equal(place.read(result.path, encryption_key=key), expected(source))
    verify(result.path, encryption_key=key, storage_options=place.options)
    place.assert_no_leftovers(result.write_id)


@pytest.mark.slow
def test_write_under_way_is_not_resumed(place: Place, source: Path) -> None:
    """As long as the other client lives it cannot be resumed, and it commits undisturbed."""
    # Not so short that a machine under load is taken for dead.
    with dask.config.set({"pamola-dwriter.lease-seconds": 5}):
        process = start_elsewhere(place, source)
        with pytest.raises(ConcurrentWriteError, match="still under way"):
            place.writer().write_dataframe(gated(source), "people", "parquet", resume=True)
    (source.parent / "open").touch()
    assert process.wait(60) == 0
    assert len(place.read(f"{place.root}/output/people")) == PARTITIONS * ROWS


@pytest.mark.slow
def test_lost_cluster_is_resumed_on_another(place: Place, source: Path) -> None:
    """After the scheduler and all workers were lost, another cluster does the rest."""
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        servers.cluster(threads=2, dashboard=False) as lost,
        connect(lost) as client,
    ):
        handle = place.writer(client=client).submit_dataframe(gated(source), "people", "parquet")
        while sum("/record-" in file for file in place.files()) < LET_THROUGH:
            time.sleep(0.05)
        for process in lost.processes:
            process.kill()
        assert isinstance(handle.exception(timeout=60), CommitOutcomeUnknownError)
    (source.parent / "open").touch()
    with servers.cluster(threads=2, dashboard=False) as other, connect(other) as client:
        writer = place.writer(client=client)
        result = writer.write_dataframe(gated(source), "people", "parquet", resume=True)
    assert result.resumed == LET_THROUGH
    pd.testing.assert_frame_equal(place.read(result.path), expected(source))
    place.assert_no_leftovers(result.write_id)


def test_resumed_on_the_same_cluster(place: Place, source: Path, client: Client) -> None:
    """While somebody still holds the write whose outcome is unknown, it is resumed all the same."""
    (source.parent / "open").touch()
    writer = place.writer(client=client)
    off = {"pamola-dwriter.retry-seconds": 0, "pamola-dwriter.task-retries": 0}
    fault = Fault("put_if", answered=False, path="*/_manifest.json")
    client.run(install, [fault])
    try:
        with dask.config.set(off):
            unknown = writer.submit_dataframe(gated(source), "people", "parquet")
            assert isinstance(unknown.exception(timeout=60), CommitOutcomeUnknownError)
    finally:
        client.run(uninstall)
    result = writer.write_dataframe(gated(source), "people", "parquet", resume=True)
    assert (result.resumed, result.write_id) == (PARTITIONS, unknown.write_id)
    place.assert_no_leftovers(result.write_id)


def connect(cluster: servers.Cluster) -> Client:
    return Client(cluster.scheduler_address, set_as_default=False, timeout=5)


def test_published_parts_are_kept(
    place: Place, key: str | None, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write interrupted between publishing and its manifest needs only the manifest."""
    frame = dd.read_parquet(source)
    interrupt(place, frame, monkeypatch, encryption_key=key)
    before = {file for file in place.files() if file.startswith("output/")}
    result = place.writer().write_dataframe(
        frame, "people", "parquet", encryption_key=key, resume=True
    )
    assert result.resumed == PARTITIONS
    after = {file for file in place.files() if file.startswith("output/")}
    assert before == {file for file in after if "_manifest" not in file}
    place.assert_no_leftovers(result.write_id)


@pytest.mark.parametrize("damage", ["torn", "record gone", "part gone"])
def test_what_is_damaged_is_done_again(
    place: Place, key: str | None, source: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that is torn or gone, or whose part is gone, costs one partition once more."""
    frame = dd.read_parquet(source)
    interrupt(place, frame, monkeypatch, encryption_key=key)
    file_system, root = place._open()
    kind = "/part-00002" if damage == "part gone" else "/record-00002"
    (file,) = (file for file in place.files() if kind in file)
    data = file_system.cat_file(f"{root}/{file}")
    if damage == "torn":
        file_system.pipe_file(f"{root}/{file}", data[: len(data) // 2])
    else:
        file_system.rm_file(f"{root}/{file}")
    result = place.writer().write_dataframe(
        frame, "people", "parquet", encryption_key=key, resume=True
    )
    assert result.resumed == PARTITIONS - 1
    pd.testing.assert_frame_equal(place.read(result.path, encryption_key=key), expected(source))
    place.assert_no_leftovers(result.write_id)


def test_open_columns_keep_the_types_they_had(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns of dtype object, whose types all partitions decided on, are not inferred again."""
    values: list[Any] = [b"a", None, b"b", b"c", None, None]
    frame = pd.DataFrame({"x": range(6), "open": pd.Series(values, dtype=object)})
    with dask.config.set({"dataframe.convert-string": False}):
        ddf = dd.from_pandas(frame, npartitions=3)
    interrupt(place, ddf, monkeypatch)
    file_system, root = place._open()
    (record,) = (file for file in place.files() if "/record-00001" in file)
    file_system.rm_file(f"{root}/{record}")
    for _ in range(2):
        interrupt(place, ddf, monkeypatch, resume=True)
    result = place.writer().write_dataframe(ddf, "people", "parquet", resume=True)
    assert result.resumed == 3
    stored = place.read(result.path)
    assert [value for value in stored["open"] if not pd.isna(value)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"compression": "snappy"}, "options"),
        ({"partition_on": ["name"]}, "options"),
        ({"schema": pa.schema([("x", pa.int32())])}, "schema"),
    ],
)
def test_other_options_are_refused(
    place: Place,
    source: Path,
    change: dict[str, Any],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another schema or option is refused, named, and changes nothing."""
    frame = dd.read_parquet(source)
    interrupt(place, frame, monkeypatch)
    before = place.files()
    with pytest.raises(InvalidWriteError, match=f"differs from this one in its.*{named}"):
        place.writer().write_dataframe(frame, "people", "parquet", resume=True, **change)
    assert place.files() == before


@pytest.mark.parametrize("how", ["another step", "another file"])
def test_other_input_is_refused(
    place: Place, source: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another computation, or an input file that changed, is refused."""
    interrupt(place, dd.read_parquet(source), monkeypatch)
    frame = dd.read_parquet(source)
    if how == "another step":
        frame = frame.assign(x=frame["x"] + 1)
    else:
        changed = source / "3.parquet"
        pd.read_parquet(changed).assign(x=0).to_parquet(changed)
        frame = dd.read_parquet(source)
    with pytest.raises(InvalidWriteError, match="differs from this one in its input"):
        place.writer().write_dataframe(frame, "people", "parquet", resume=True)


def test_other_key_is_refused(
    s3_place: Place, source: Path, pii_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a wrong key nor none takes up an encrypted write, nor a key a plain one."""
    frame = dd.read_parquet(source)
    interrupt(s3_place, frame, monkeypatch, encryption_key="env:PII_KEY")
    for key, error in ((b"x" * 32, WrongKeyError), (None, MissingKeyError)):
        with pytest.raises(error):
            s3_place.writer().write_dataframe(
                frame, "people", "parquet", encryption_key=key, resume=True
            )
    plain = s3_place.writer()
    with monkeypatch.context() as patch:
        interrupt_at_commit(patch)
        with pytest.raises(CommitOutcomeUnknownError):
            plain.write_dataframe(frame, "others", "parquet")
    with pytest.raises(InvalidWriteError, match="is not encrypted"):
        plain.write_dataframe(frame, "others", "parquet", encryption_key="env:PII_KEY", resume=True)


def test_append_is_resumed_once(
    place: Place, key: str | None, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted append adds its rows once; with nothing to resume it is refused."""
    frame = dd.read_parquet(source)
    writer = place.writer(encryption_key=key)
    writer.write_dataframe(frame, "people", "parquet")
    interrupt(place, frame, monkeypatch, encryption_key=key, append=True)
    result = writer.write_dataframe(frame, "people", "parquet", append=True, resume=True)
    assert result.resumed == PARTITIONS
    with pytest.raises(InvalidTargetError, match="no interrupted append"):
        writer.write_dataframe(frame, "people", "parquet", append=True, resume=True)
    assert len(place.read(result.path, encryption_key=key)) == 2 * PARTITIONS * ROWS


def test_first_append_whose_commit_was_not_heard_of_is_resumed_once(
    place: Place, key: str | None, source: Path
) -> None:
    """Resuming finds that it has committed, though the dataset it was to make stands by now."""
    frame = dd.read_parquet(source)
    options = {"append": True, "encryption_key": key}
    writer = place.writer()
    with (
        dask.config.set({"pamola-dwriter.retry-seconds": 0}),
        inject(Fault("put_if", "lost", path="*/_manifest.json", outage=True)),
        pytest.raises(CommitOutcomeUnknownError),
    ):
        writer.write_dataframe(frame, "people", "parquet", **options)
    result = writer.write_dataframe(frame, "people", "parquet", resume=True, **options)
    pd.testing.assert_frame_equal(place.read(result.path, encryption_key=key), expected(source))
    assert_no_leftovers(place.root, encryption_key=key, storage_options=place.options)


def test_first_write_without_overwriting_is_resumed(
    place: Place, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What overwrite=False protects is a version, not the parts of the write it goes on with."""
    frame = dd.read_parquet(source)
    interrupt(place, frame, monkeypatch, overwrite=False)
    writer = place.writer()
    with pytest.raises(TargetExistsError):
        writer.write_dataframe(frame, "people", "parquet", overwrite=False)
    result = writer.write_dataframe(frame, "people", "parquet", overwrite=False, resume=True)
    assert result.resumed == PARTITIONS
    with pytest.raises(TargetExistsError):
        writer.write_dataframe(frame, "people", "parquet", overwrite=False, resume=True)
    place.assert_no_leftovers(result.write_id)


def test_nothing_to_resume_is_a_write(place: Place, source: Path) -> None:
    """resume=True without an interrupted write, as of a job that always says so, just writes."""
    frame = dd.read_parquet(source)
    for _ in range(2):
        result = place.writer().write_dataframe(frame, "people", "parquet", resume=True)
        assert result.resumed == 0
        place.assert_no_leftovers(result.write_id)


def test_frame_in_memory_is_not_resumed(tmp_path: Path) -> None:
    """A frame in memory, a single file and a name with a time in it are refused, with reasons."""
    place, frame = Place(str(tmp_path)), pd.DataFrame({"x": [1]})
    with pytest.raises(InvalidWriteError, match="Dask collection"):
        place.writer().write_dataframe(frame, "people", "parquet", resume=True)
    ddf = dd.from_pandas(frame, npartitions=1)
    for options in ({"single_file": True}, {"timestamp_in_name": True}):
        with pytest.raises(InvalidWriteError, match="resume=True excludes"):
            place.writer().write_dataframe(ddf, "people", "parquet", resume=True, **options)
    with pytest.raises(InvalidWriteError, match="a stream has no resume"):
        place.writer().open_stream("people", resume=True)


def test_records_of_an_encrypted_write_show_nothing(
    place: Place, source: Path, pii_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an encrypted write leaves for its resumption holds neither its key nor its columns."""
    frame = dd.read_parquet(source)
    specs: list[RunSpec] = []
    put_version = finalize.put_version
    monkeypatch.setattr(finalize, "put_version", lambda *a: specs.append(a[3]) or put_version(*a))
    place.writer().write_dataframe(frame, "others", "parquet", encryption_key="env:PII_KEY")
    monkeypatch.undo()
    interrupt(place, frame, monkeypatch, encryption_key="env:PII_KEY")
    file_system, root = place._open()
    left = [file for file in place.files() if file.startswith("_staging/")]
    assert sum("/record-" in file for file in left) == PARTITIONS
    for file in left:
        data = file_system.cat_file(f"{root}/{file}")
        assert b"person" not in data
        assert b'"rows"' not in data
        assert pii_key.encode() not in data
        assert bytes.fromhex(pii_key) not in data
    (spec,) = specs
    assert spec.fingerprint is not None


def test_command_resumes(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pamola-dwriter write --resume`` goes on with what the same command began."""
    place = Place(str(tmp_path / "task"))
    command = [sys.executable, "-m", "pamola_dwriter", "write", f"{source}/*.parquet"]
    command += ["--task-dir", place.root, "--name", "people", "--json"]
    crash = (
        "import sys\n"
        "from pamola_dwriter import finalize\n"
        "import os\n"
        "finalize.put_version = lambda *a: os._exit(9)\n"
        "from pamola_dwriter.cli import main\n"
        f"main({command[3:]!r})\n"
    )
    environment = {**os.environ, "DASK_PAMOLA_DWRITER__LEASE_SECONDS": "1"}
    run = {"env": environment, "capture_output": True, "cwd": Path(__file__).parents[1]}
    assert subprocess.run([sys.executable, "-c", crash], check=False, **run).returncode == 9
    done = subprocess.run([*command, "--resume"], check=True, **run)
    assert f'"resumed": {PARTITIONS}'.encode() in done.stdout
