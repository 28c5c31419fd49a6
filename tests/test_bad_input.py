"""What cannot be done is refused by an error of ours, before any work."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest
import s3fs
from distributed import Client

from deploy.local import processes, servers
from pamola_dwriter import DataWriter, open_artifact, read_dataset, verify
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    InvalidKeyError,
    InvalidNameError,
    InvalidPathError,
    InvalidWriteError,
    MissingKeyError,
    PamolaWriterError,
    TargetExistsError,
    TargetNotFoundError,
    TargetUnavailableError,
    UnknownFormatError,
    UnsupportedDataError,
    WrongKeyError,
)

KEY = bytes(range(32))
FORMATS = ("parquet", "csv", "jsonl")
EMPTY = pd.DataFrame({"x": pd.Series([], dtype="int64"), "s": pd.Series([], dtype="string")})


def load(number: int, ran: Path) -> pd.DataFrame:
    """Return one partition, and leave a trace of having been asked for it."""
    (ran / str(number)).touch()
    return pd.DataFrame({"x": [number], "s": pd.array(["a"], dtype="string")})


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A folder in which every computed partition leaves a file."""
    folder = tmp_path / "ran"
    folder.mkdir()
    return folder


@pytest.fixture
def frame(ran: Path) -> dd.DataFrame:
    """A frame of two partitions that tell when they are computed."""
    return dd.from_map(partial(load, ran=ran), [0, 1], meta=EMPTY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A task directory that holds a dataset, a single file, and a file of somebody else."""
    root = tmp_path / "task"
    writer = DataWriter(root)
    writer.write_dataframe(EMPTY, "dataset", "parquet", single_file=False)
    writer.write_dataframe(EMPTY, "file", "csv")
    (root / "notes.txt").write_text("mine")
    return root


@pytest.fixture
def refused(root: Path, ran: Path) -> Callable[..., Any]:
    """A ``pytest.raises`` that also asserts that nothing was computed or changed."""

    @contextmanager
    def check(error: type[Exception], match: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
        before = snapshot(root)
        with pytest.raises(error, match=match) as caught:
            yield caught
        assert isinstance(caught.value, PamolaWriterError)
        assert snapshot(root) == before
        assert [path.name for path in ran.iterdir()] == []

    return check


def snapshot(root: Path) -> dict[str, bytes | None]:
    """Return every path below a folder, with the contents of the files."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


def test_the_trace_is_left_where_work_is_done(root: Path, ran: Path, frame: dd.DataFrame) -> None:
    """A write that is not refused computes both partitions, so the other tests can fail."""
    DataWriter(root).write_dataframe(frame, "other", "csv")
    assert sorted(path.name for path in ran.iterdir()) == ["0", "1"]


BAD_NAMES = [
    *("", " ", "../x", "..", ".", "/abs", "a/b", "a\\b", "_x", ".x", "x\0", "x\n", "x" * 300),
    *("é" * 120, "c:d", " x", 5, None, b"x", Path("x")),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
def test_bad_names(root: Path, frame: dd.DataFrame, refused: Any, name: Any) -> None:
    """A name that is empty, reserved, too long, no text or not one component is refused."""
    with refused(InvalidNameError, "name"):
        DataWriter(root).write_dataframe(frame, name)


@pytest.mark.parametrize(
    "subdir", ["../x", "..", "/abs", "a/../../b", "a//b", "a/", "./a", "_staging", ".git", "a\0", 5]
)
def test_bad_subdirectories(root: Path, frame: dd.DataFrame, refused: Any, subdir: Any) -> None:
    """A subdirectory that is absolute, leaves the task directory or is reserved is refused."""
    with refused(InvalidNameError, "subdir"):
        DataWriter(root).write_dataframe(frame, "x", subdir=subdir)


BAD_OPTIONS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (UnknownFormatError, "csv, .*parquet", {"format": "docx"}),
    (UnknownFormatError, "csv, .*parquet", {"format": ""}),
    (InvalidWriteError, "format must be", {"format": 3}),
    (InvalidWriteError, "format must be", {"format": None}),
    (InvalidWriteError, "compresion.*compression", {"compresion": "zstd"}),
    (InvalidWriteError, "'gzip'", {"compression": "rar"}),
    (InvalidWriteError, "compression", {"compression": 5}),
    (InvalidWriteError, "row_group_size", {"format": "parquet", "row_group_size": "many"}),
    (InvalidWriteError, "row_group_size", {"format": "parquet", "row_group_size": -1}),
    (InvalidWriteError, "row_group_size", {"format": "csv", "row_group_size": 5}),
    (InvalidWriteError, "single_file", {"single_file": "yes"}),
    (InvalidWriteError, "single_file", {"single_file": 1}),
    (InvalidWriteError, "single_file", {"single_file": True, "partition_on": "s"}),
    (InvalidWriteError, "single_file", {"single_file": True, "target_part_size": "1MB"}),
    (InvalidWriteError, "write_index", {"write_index": "no"}),
    (InvalidWriteError, "overwrite", {"overwrite": "no"}),
    (InvalidWriteError, "timestamp_in_name", {"timestamp_in_name": "no"}),
    (InvalidWriteError, "compute", {"compute": "no"}),
    (InvalidWriteError, "target_part_size", {"target_part_size": "big"}),
    (InvalidWriteError, "target_part_size", {"target_part_size": 0}),
    (InvalidWriteError, "target_part_size", {"target_part_size": -1}),
    (InvalidWriteError, "target_part_size", {"target_part_size": 0.5}),
    (InvalidWriteError, "target_part_size", {"target_part_size": True}),
    (InvalidWriteError, "target_part_size", {"target_part_size": [1]}),
    (InvalidWriteError, "partition_on", {"partition_on": 5}),
    (InvalidWriteError, "partition_on.*'y'", {"partition_on": ["s", "y"]}),
    (InvalidWriteError, "partition_on", {"partition_on": ["s", "s"]}),
    (InvalidWriteError, "partition_on", {"partition_on": ["s", "x"]}),
    (InvalidWriteError, "partition_on", {"partition_on": [0]}),
    (InvalidWriteError, "partition_on", {"partition_on": [["s"]]}),
    (InvalidWriteError, "schema", {"schema": {"x": "int64"}}),
    (InvalidWriteError, "schema.*'y'", {"schema": pa.schema([("y", pa.int8())])}),
    (InvalidWriteError, "schema.*'x'", {"schema": pa.schema([("x", pa.string())])}),
    (InvalidWriteError, "'sep'", {"format_options": {"sep": ";"}}),
    (InvalidWriteError, "delimiter", {"format_options": {"delimiter": ";;"}}),
    (InvalidWriteError, "format_options", {"format_options": 5}),
]


@pytest.mark.parametrize(
    ("error", "match", "options"), BAD_OPTIONS, ids=[str(options) for *_, options in BAD_OPTIONS]
)
def test_bad_options(
    root: Path,
    frame: dd.DataFrame,
    refused: Any,
    error: type[Exception],
    match: str,
    options: dict[str, Any],
) -> None:
    """An option that is unknown, of the wrong type or impossible is refused by its name."""
    with refused(error, match):
        DataWriter(root).write_dataframe(frame, "x", **options)


@pytest.mark.parametrize(
    "df",
    [None, 5, "x", [1], {"x": [1]}, pd.DataFrame],
    ids=lambda df: type(df).__name__,
)
def test_other_things_than_frames(root: Path, refused: Any, df: Any) -> None:
    """What is no frame of any kind is refused by its type."""
    with refused(UnsupportedDataError, type(df).__name__):
        DataWriter(root).write_dataframe(df, "x")


@pytest.mark.parametrize("format", FORMATS)
def test_columns_that_no_file_can_hold(root: Path, refused: Any, format: str) -> None:
    """Repeated names, names that are no text, and types without an Arrow type are refused."""
    for match, df in {
        "repeated: \\['x'\\]": pd.DataFrame([[1, 2]], columns=["x", "x"]),
        "must be text, not \\[0\\]": pd.DataFrame([[1]]),
        "'z'.*complex": pd.DataFrame({"z": [1j]}),
    }.items():
        with refused(UnsupportedDataError, match):
            DataWriter(root).write_dataframe(df, "x", format)


def test_an_index_named_like_a_column(root: Path, refused: Any) -> None:
    """An index that would share its name with a column is refused."""
    df = pd.DataFrame({"x": [1]}, index=pd.Index([1], name="x"))
    with refused(UnsupportedDataError, "'x'"):
        DataWriter(root).write_dataframe(df, "x", "parquet")


def test_overwriting_is_refused(root: Path, frame: dd.DataFrame, refused: Any) -> None:
    """With ``overwrite=False`` an existing dataset or file stands, also one of the other kind."""
    writer = DataWriter(root)
    with refused(TargetExistsError, "overwrite=True"):
        writer.write_dataframe(frame, "dataset", "parquet", overwrite=False)
    with refused(TargetExistsError, "overwrite=True"):
        writer.write_dataframe(frame, "file", "csv", single_file=True, overwrite=False)
    with refused(FileExistsError, "overwrite=True"):
        writer.write_dataframe(frame, "dataset", "csv", overwrite=False)


def test_a_file_where_the_dataset_goes(root: Path, frame: dd.DataFrame, refused: Any) -> None:
    """A dataset never replaces a file, nor a file a directory."""
    writer = DataWriter(root)
    with refused(TargetExistsError, "is a file"):
        writer.write_dataframe(frame, "notes.txt", "parquet", subdir=None)
    (root / "output" / "folder.csv").mkdir()
    (root / "output" / "folder.csv" / "x").touch()
    with refused(TargetExistsError, "is a directory"):
        writer.write_dataframe(frame, "folder", "csv", single_file=True)


def test_a_directory_of_other_files(root: Path, frame: dd.DataFrame, refused: Any) -> None:
    """A directory with files of somebody else is never taken over; the message names one."""
    with refused(TargetExistsError, "notes.txt"):
        DataWriter(root.parent).write_dataframe(frame, "task", "parquet", subdir=None)
    (root / "output" / "dataset" / "mine.parquet").touch()
    with refused(TargetExistsError, "mine.parquet"):
        DataWriter(root).write_dataframe(frame, "dataset", "parquet")


def test_a_task_directory_that_is_a_file(root: Path, frame: dd.DataFrame, refused: Any) -> None:
    """A task directory that is a file, or below one, is refused."""
    for path in (root / "notes.txt", root / "notes.txt" / "below", Path("/dev/null")):
        with refused(TargetUnavailableError, "is a file"):
            DataWriter(path).write_dataframe(frame, "x")


@pytest.mark.parametrize("path", ["/proc/x", "/sys/x"])
@pytest.mark.parametrize("single_file", [True, False])
def test_a_directory_nobody_can_write(
    frame: dd.DataFrame, refused: Any, path: str, single_file: bool
) -> None:
    """Where not even root may write, the write is refused before a partition is computed."""
    with refused(TargetUnavailableError, "cannot write in.*" + path.rpartition("/")[0]):
        DataWriter(path).write_dataframe(frame, "x", "csv", single_file=single_file)


@pytest.mark.parametrize(
    "task_dir",
    [
        *("", "  ", None, 5, b"/tmp", "nosuch://bucket/x", "C:\\data://x"),
        *("/tmp/x\0y", "s3://", "s3:///x", "memory://"),  # noqa: S108
    ],
    ids=repr,
)
def test_paths_that_are_none(
    frame: dd.DataFrame, refused: Any, task_dir: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """A path that is empty, no path, of an unknown scheme or without a bucket is refused."""
    monkeypatch.chdir(tmp_path)  # where a URL taken for a relative path would end
    with refused(InvalidPathError, "path|bucket|scheme"):
        DataWriter(task_dir).write_dataframe(frame, "x")


@pytest.mark.parametrize("options", [5, "x", [1], {1: 2}], ids=repr)
def test_storage_options_of_the_wrong_type(
    root: Path, frame: dd.DataFrame, refused: Any, options: Any
) -> None:
    """Storage options that are no mapping of names are refused."""
    with refused(InvalidPathError, "storage_options"):
        DataWriter(root, storage_options=options).write_dataframe(frame, "x")


BAD_KEYS: list[tuple[str, Any]] = [
    ("passphrase", ""),
    ("passphrase", "short"),
    ("32 bytes", b""),
    ("32 bytes", b"x" * 31),
    ("none of them", 5),
    ("between 1 and", []),
    ("between 1 and", ["a long passphrase"] * 17),
    ("none of them", ["a long passphrase", 5]),
    ("none of them", {"key": KEY}),
    ("env:NAME", "env:"),
    ("NO_SUCH_VARIABLE", "env:NO_SUCH_VARIABLE"),
    ("no/such/file", "file:/no/such/file"),
    ("unknown", "gcpkms:secret/data"),
]


@pytest.mark.parametrize(("match", "key"), BAD_KEYS, ids=[repr(key)[:24] for _, key in BAD_KEYS])
def test_malformed_keys(
    root: Path, frame: dd.DataFrame, refused: Any, match: str, key: Any
) -> None:
    """A key that is malformed, of unknown kind or not to be found is refused, and not shown."""
    with refused(InvalidKeyError, match) as caught:
        DataWriter(root).write_dataframe(frame, "x", "parquet", encryption_key=key)
    assert "a long passphrase" not in str(caught.value)
    assert "secret/data" not in str(caught.value)


def test_a_malformed_key_in_the_environment(
    root: Path, frame: dd.DataFrame, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that holds no key is named, and its value is not shown."""
    monkeypatch.setenv("BAD_PII_KEY", "hunter2")
    with refused(InvalidKeyError, "BAD_PII_KEY") as caught:
        DataWriter(root, encryption_key="env:BAD_PII_KEY").write_dataframe(frame, "x")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_closed_client(root: Path, frame: dd.DataFrame, refused: Any) -> None:
    """A client that was closed, or that is none, is refused at once."""
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as gone:
        pass
    with refused(InvalidWriteError, "client is closed"):
        DataWriter(root, client=gone).write_dataframe(frame, "x")
    with refused(InvalidWriteError, "client"):
        DataWriter(root, client="tcp://127.0.0.1:1").write_dataframe(frame, "x")  # type: ignore[arg-type]
    with pytest.raises(InvalidWriteError, match="client is closed"):
        verify(root / "output" / "dataset", client=gone)


@pytest.fixture
def sealed(root: Path) -> Path:
    """An encrypted dataset, beside an encrypted single file."""
    writer = DataWriter(root, encryption_key=KEY)
    writer.write_dataframe(pd.DataFrame({"x": [1]}), "sealed_file", "parquet")
    return Path(
        writer.write_dataframe(
            pd.DataFrame({"x": [1]}), "sealed", "parquet", single_file=False
        ).path
    )


OPENERS = pytest.mark.parametrize("opener", [read_dataset, verify, open_artifact])


def target_of(opener: Any, dataset: Path) -> Path:
    """Return what this function opens."""
    return dataset.with_name("sealed_file.parquet.pdw") if opener is open_artifact else dataset


@OPENERS
def test_a_missing_key(sealed: Path, refused: Any, opener: Any) -> None:
    """What is encrypted is not opened without a key."""
    with refused(MissingKeyError, "give its encryption_key"):
        opener(target_of(opener, sealed))


@OPENERS
@pytest.mark.parametrize("key", [bytes(32), "another passphrase", [bytes(32), b"x" * 32]], ids=repr)
def test_a_wrong_key(sealed: Path, refused: Any, opener: Any, key: Any) -> None:
    """A key that does not open it gives one opaque error, whatever kind it is of."""
    with refused(WrongKeyError, "^none of the given keys opens this$"):
        opener(target_of(opener, sealed), encryption_key=key)


@OPENERS
@pytest.mark.parametrize(
    ("match", "key"), BAD_KEYS[:3], ids=[repr(k)[:24] for _, k in BAD_KEYS[:3]]
)
def test_a_malformed_key_when_reading(
    sealed: Path, refused: Any, opener: Any, match: str, key: Any
) -> None:
    """A malformed key is told apart from a wrong one."""
    with refused(InvalidKeyError, match):
        opener(target_of(opener, sealed), encryption_key=key)


def test_a_key_for_what_is_not_encrypted(root: Path, refused: Any) -> None:
    """A key for a plain dataset or file is refused: it is not what was written with that key."""
    for opener, path in {
        read_dataset: "output/dataset",
        verify: "output/dataset",
        open_artifact: "output/file.csv",
    }.items():
        with refused(IntegrityError, "not encrypted"):
            opener(root / path, encryption_key=KEY)


@pytest.mark.parametrize(
    "path", ["nothing", "output", "notes.txt", "notes.txt/x", "output/file.csv"]
)
def test_no_dataset_there(root: Path, refused: Any, path: str) -> None:
    """Where nothing, a folder without a manifest, or a file stands, no dataset is found."""
    with refused(TargetNotFoundError, "there is no dataset at"):
        read_dataset(root / path)


@pytest.mark.parametrize("path", ["nothing", "output", "notes.txt/x"])
def test_nothing_to_verify(root: Path, refused: Any, path: str) -> None:
    """Where neither a dataset nor a file stands, there is nothing to verify."""
    with refused(TargetNotFoundError, "neither a dataset nor a file"):
        verify(root / path)


@pytest.mark.parametrize("path", ["notes.txt", "output/file.csv"])
def test_a_plain_file_cannot_be_verified(root: Path, refused: Any, path: str) -> None:
    """A plain single file has nothing beside it to be checked against, and verify says so."""
    with refused(DataReadError, "checksum of its WriterResult"):
        verify(root / path)


@pytest.mark.parametrize("path", ["nothing", "output", "output/dataset", "notes.txt/x"])
def test_no_file_there(root: Path, refused: Any, path: str) -> None:
    """Where nothing or a folder stands, no single file is found."""
    with refused(TargetNotFoundError, "neither a dataset nor a file at"):
        open_artifact(root / path)


def test_a_column_that_is_not_there(root: Path, refused: Any) -> None:
    """Asking for a column that a dataset has not is refused, naming those it has."""
    with refused(DataReadError, r"no column \['y'\]; it has \['x', 's'\]"):
        read_dataset(root / "output" / "dataset", ["x", "y"])


def s3_state(s3: servers.S3Server) -> tuple[list[str], list[str]]:
    """Return every object and every open upload in the bucket."""
    fs = s3fs.S3FileSystem(**s3.storage_options, use_listings_cache=False, skip_instance_cache=True)
    uploads = fs.call_s3("list_multipart_uploads", Bucket=s3.bucket).get("Uploads", [])
    return sorted(fs.find(s3.bucket)), [upload["Key"] for upload in uploads]


@contextmanager
def refused_by_s3(
    s3: servers.S3Server, ran: Path, match: str
) -> Iterator[pytest.ExceptionInfo[TargetUnavailableError]]:
    """Assert a clear error that shows no secret, and that nothing was computed or changed."""
    before = s3_state(s3)
    with pytest.raises(TargetUnavailableError, match=match) as caught:
        yield caught
    assert s3_state(s3) == before
    assert list(ran.iterdir()) == []
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert s3.secret_key not in shown
    assert "another-secret" not in shown


@pytest.mark.parametrize("single_file", [True, False])
def test_a_missing_bucket(
    s3: servers.S3Server, ran: Path, frame: dd.DataFrame, single_file: bool
) -> None:
    """A bucket that does not exist is refused by its name, and is not created."""
    writer = DataWriter("s3://no-such-bucket/x", storage_options=s3.storage_options)
    with refused_by_s3(s3, ran, "no-such-bucket"):
        writer.write_dataframe(frame, "x", "csv", single_file=single_file)
    assert s3fs.S3FileSystem(**s3.storage_options, use_listings_cache=False).ls("") == [s3.bucket]


@pytest.mark.parametrize("wrong", [{"secret": "another-secret"}, {"key": "nobody"}], ids=str)
def test_wrong_credentials(
    s3: servers.S3Server, ran: Path, frame: dd.DataFrame, wrong: dict[str, str]
) -> None:
    """Credentials that the server refuses give a clear error without the secret."""
    writer = DataWriter(f"s3://{s3.bucket}/x", storage_options={**s3.storage_options, **wrong})
    with refused_by_s3(s3, ran, "(?i)cannot look up .*(signature|access|denied|forbidden)"):
        writer.write_dataframe(frame, "x", "csv")
    with refused_by_s3(s3, ran, "(?i)cannot read"):
        read_dataset(
            f"s3://{s3.bucket}/x/output/x", storage_options={**s3.storage_options, **wrong}
        )


def test_an_endpoint_where_nobody_listens(
    s3: servers.S3Server, ran: Path, frame: dd.DataFrame
) -> None:
    """An endpoint that cannot be reached is refused by its address, and soon."""
    (port,) = processes.free_ports(1)
    options = {
        **s3.storage_options,
        "client_kwargs": {"endpoint_url": f"http://{servers.HOST}:{port}"},
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 0}},
    }
    with (
        dask.config.set({"pamola-dwriter.retry-seconds": 3}),
        refused_by_s3(s3, ran, f"{servers.HOST}:{port}"),
    ):
        DataWriter(f"s3://{s3.bucket}/x", storage_options=options).write_dataframe(frame, "x")


@pytest.mark.parametrize(
    ("match", "wrong"),
    [
        ("'secert'", {"secert": "another-secret"}),
        ("'endpoint'", {"client_kwargs": {"endpoint": "another-secret"}}),
    ],
    ids=["unknown", "unknown_inside"],
)
def test_storage_options_that_s3_does_not_take(
    s3: servers.S3Server, ran: Path, frame: dd.DataFrame, match: str, wrong: dict[str, Any]
) -> None:
    """A storage option that the file system does not know is named, and its value not shown."""
    with pytest.raises((InvalidPathError, TargetUnavailableError), match=match) as caught:
        DataWriter(
            f"s3://{s3.bucket}/x", storage_options={**s3.storage_options, **wrong}
        ).write_dataframe(frame, "x")
    assert "another-secret" not in "".join(traceback.format_exception(caught.value))
    assert list(ran.iterdir()) == []
