"""What all writes of a writer share: arguments, folders, keys, names, errors, progress."""

from __future__ import annotations

import inspect
import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import matplotlib.figure
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem

from pamola_dwriter import DataWriter, layout, open_artifact, read_dataset
from pamola_dwriter.errors import (
    DataWriteError,
    InvalidNameError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    NonAtomicStoreWarning,
    TargetExistsError,
    UnsupportedDataError,
    WrongKeyError,
)
from tests.places import Place

KEY = "correct horse battery"
FRAME = pd.DataFrame({"x": [1, 2, 3]})


def figure() -> Any:
    drawn = matplotlib.figure.Figure()
    drawn.subplots().plot([1, 2, 3])
    return drawn


def write(writer: DataWriter, method: str, **options: Any) -> Any:
    """Call one method with data that suits it."""
    data: dict[str, Any] = {
        "write_dataframe": FRAME,
        "write_json": {"a": [1, None]},
        "write_dictionary": {"apple": 523},
        "write_metrics": {"quality": 0.85},
        "write_visualization": figure(),
        "append_to_json_array": {"step": 1},
        "merge_json_objects": {"level": "high"},
    }
    name = options.pop("name", "thing")
    return getattr(writer, method)(data[method], name, **options)


class Drawer(LocalFileSystem):
    """A file system that nothing is known of, such as a company has of its own."""

    protocol = "drawer"

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("drawer://")))


WRITES = ["write_dataframe", "write_json", "write_dictionary", "write_metrics"]
WRITES += ["write_visualization"]
UPDATES = ["append_to_json_array", "merge_json_objects"]
JSON_WRITES = ["write_json", "write_dictionary", "write_metrics", *UPDATES]


def test_constructor_makes_the_standard_folders(tmp_path: Path) -> None:
    """A local task directory has its four folders before anything is written."""
    DataWriter(tmp_path / "task")
    assert sorted(path.name for path in (tmp_path / "task").iterdir()) == [
        "dictionaries",
        "logs",
        "output",
        "visualizations",
    ]


@pytest.mark.filterwarnings("ignore:UPath 'drawer' filesystem not explicitly implemented")
def test_a_store_without_an_atomic_create_is_used_with_a_warning(tmp_path: Path) -> None:
    """Where two writers cannot be told apart the writer says what that may cost, and works."""
    fsspec.register_implementation("drawer", Drawer, clobber=True)
    with pytest.warns(NonAtomicStoreWarning, match="the work of one is lost") as caught:
        writer = DataWriter(f"drawer://{tmp_path}/task")
    assert [warning.filename for warning in caught] == [__file__]
    result = write(writer, "write_dataframe", single_file=False)
    pd.testing.assert_frame_equal(read_dataset(result.path).compute(), FRAME)


def test_constructor_takes_what_operations_pass(tmp_path: Path) -> None:
    """Positionally, or by keyword with all that the reference library has."""
    logger = logging.getLogger("operation")
    assert DataWriter(tmp_path, logger, None).task_dir == tmp_path
    DataWriter(
        task_dir=str(tmp_path),
        logger=logger,
        progress_tracker=None,
        use_encryption=False,
        encryption_key=object(),
        encryption_mode="none",
    )._ensure_directories()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logger": "log"}, "logger must be"),
        ({"progress_tracker": 3}, "progress_tracker must have create_subtask"),
        ({"use_encryption": "yes"}, "use_encryption must be True or False"),
        ({"encryption_mode": "rot13"}, "encryption_mode must be one of none, simple, age"),
    ],
)
def test_constructor_refuses_what_it_cannot_use(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    """A wrong argument is named, and no folder is made."""
    with pytest.raises(InvalidWriteError, match=message):
        DataWriter(tmp_path / "task", **arguments)
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("write_dataframe", "output/thing.csv"),
        ("write_json", "thing.json"),
        ("write_dictionary", "dictionaries/thing.json"),
        ("write_visualization", "thing.png"),
        ("append_to_json_array", "thing.json"),
        ("merge_json_objects", "thing.json"),
    ],
)
def test_files_stand_where_readers_look(place: Place, method: str, expected: str) -> None:
    """Each kind has its folder and extension, on every store; a key adds the sealed one."""
    plain = write(place.writer(), method)
    assert str(plain.path) == f"{place.root}/{expected}"
    assert [file for file in place.files() if not file.endswith(".lock")] == [expected]
    assert (plain.encrypted, plain.partitions) == (False, 1)
    sealed = Place(f"{place.root}/sealed", place.options)
    result = write(sealed.writer(encryption_key=KEY), method)
    assert result.encrypted
    assert f"{expected}.pdw" in sealed.files()


@pytest.mark.parametrize("method", [*WRITES, *UPDATES])
def test_sealed_files_open_with_their_key_alone(place: Place, method: str) -> None:
    """What is written with a key shows nothing of it, and is the same once opened."""
    plain = write(place.writer(), method, **_fixed(method))
    again = Place(f"{place.root}/sealed", place.options)
    sealed = write(again.writer(), method, encryption_key=KEY, **_fixed(method))
    options: Any = {"storage_options": place.options}
    with open_artifact(plain.path, **options) as file:
        data = file.read()
    with open_artifact(sealed.path, encryption_key=KEY, **options) as file:
        opened = file.read()
    if method != "write_metrics":  # which holds the time
        assert opened == data
    with pytest.raises(WrongKeyError):
        open_artifact(sealed.path, encryption_key="wrong horse battery", **options)
    with pytest.raises(MissingKeyError):
        open_artifact(sealed.path, **options)


def _fixed(method: str) -> dict[str, Any]:
    return {"timestamp_in_name": False} if method == "write_metrics" else {}


@pytest.mark.parametrize("method", [*WRITES, *UPDATES])
@pytest.mark.parametrize("name", ["../x", "", "/x", "a/b", "_x", ".x", "a\nb", "x" * 201, None, 3])
def test_names_cannot_leave_the_task_directory(tmp_path: Path, method: str, name: Any) -> None:
    """A name that is no single safe component is refused by every method."""
    writer = DataWriter(tmp_path)
    with pytest.raises(InvalidNameError):
        getattr(writer, method)({"a": 1} if method != "write_dataframe" else FRAME, name)


@pytest.mark.parametrize("method", ["write_dataframe", "write_json", "write_visualization"])
def test_subdirs_cannot_leave_the_task_directory(tmp_path: Path, method: str) -> None:
    """Nor can a folder be one that climbs or is absolute; nested ones are fine."""
    writer = DataWriter(tmp_path)
    for subdir in ("..", "a/../..", "/etc", "a//b"):
        with pytest.raises(InvalidNameError, match="subdir"):
            write(writer, method, subdir=subdir)
    assert write(writer, method, subdir="output/suppressed").path.parent.name == "suppressed"


@pytest.mark.parametrize("method", WRITES)
def test_overwrite_false_keeps_what_is_there(place: Place, method: str) -> None:
    """The second write is refused, and names the file."""
    options = _fixed(method)
    first = write(place.writer(), method, **options)
    with pytest.raises(TargetExistsError, match=r"thing\."):
        write(place.writer(), method, overwrite=False, **options)
    with pytest.raises(TargetExistsError, match=r"thing\."):
        write(place.writer(), method, overwrite=False, encryption_key=KEY, **options)
    assert len(place.files()) == 1
    assert write(place.writer(), method, **options).path == first.path


@pytest.mark.parametrize("method", WRITES)
def test_one_name_is_one_file_plain_or_sealed(place: Place, method: str) -> None:
    """Overwriting with a key leaves no plain copy behind, and the other way round."""
    options = _fixed(method)
    write(place.writer(), method, **options)
    sealed = write(place.writer(), method, encryption_key=KEY, **options)
    assert [Path(file).name for file in place.files()] == [Path(str(sealed.path)).name]
    plain = write(place.writer(), method, **options)
    assert [Path(file).name for file in place.files()] == [Path(str(plain.path)).name]


@pytest.mark.parametrize("method", UPDATES)
def test_updates_never_go_between_plain_and_sealed(place: Place, method: str) -> None:
    """A sealed file is not added to without its key, nor a plain one with any."""
    write(place.writer(), method)
    with pytest.raises(InvalidTargetError, match="not encrypted"):
        write(place.writer(), method, encryption_key=KEY)
    sealed = Place(f"{place.root}/sealed", place.options)
    write(sealed.writer(), method, encryption_key=[KEY, "second passphrase"])
    before = sealed.files()
    with pytest.raises(MissingKeyError):
        write(sealed.writer(), method)
    with pytest.raises(WrongKeyError):
        write(sealed.writer(), method, encryption_key="wrong horse battery")
    result = write(sealed.writer(), method, encryption_key="second passphrase")
    assert sealed.files() == before
    for key in (KEY, "second passphrase"):
        with open_artifact(result.path, encryption_key=key, storage_options=place.options) as file:
            json.load(file)


@pytest.mark.parametrize("method", UPDATES)
@pytest.mark.parametrize("content", [b"{", b"", b"3", b'{"a": 1} x', b"\xff"])
def test_damaged_files_are_kept(tmp_path: Path, method: str, content: bytes) -> None:
    """What is no JSON, or of the wrong kind, is an error and stays as it is."""
    (tmp_path / "thing.json").write_bytes(content)
    with pytest.raises(InvalidTargetError, match="kept"):
        write(DataWriter(tmp_path), method)
    assert (tmp_path / "thing.json").read_bytes() == content


@pytest.mark.parametrize("method", UPDATES)
def test_create_if_missing_false_makes_nothing(place: Place, method: str) -> None:
    """A file that is not there is an error, and still not there."""
    with pytest.raises(InvalidTargetError, match="create_if_missing"):
        write(place.writer(), method, create_if_missing=False)
    assert [file for file in place.files() if not file.endswith(".lock")] == []


@pytest.mark.parametrize("method", WRITES)
def test_writes_in_one_second_all_stand(place: Place, method: str) -> None:
    """A name whose time is taken gets microseconds; every name tells its time."""
    writer = place.writer()
    results = [write(writer, method, timestamp_in_name=True) for _ in range(3)]
    stems = [Path(str(result.path)).name.split(".")[0] for result in results]
    assert len(set(stems)) == 3
    parsed = [layout.parse_timestamped(stem) for stem in stems]
    assert [one[0] for one in parsed if one] == ["thing"] * 3
    assert len(place.files()) == 3


def test_racing_writes_with_a_time_all_stand(place: Place) -> None:
    """Threads that write one name at the same moment never replace each other's file."""
    writer = place.writer()
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda n: writer.write_json(n, "n", timestamp_in_name=True), range(24))
        )
    assert len({str(result.path) for result in results}) == 24
    stored = []
    for result in results:
        with open_artifact(result.path, storage_options=place.options) as file:
            stored.append(json.load(file))
    assert stored == list(range(24))


def test_a_dataset_of_the_name_is_not_left_behind(place: Place) -> None:
    """One partition goes into the dataset that is there; one file is not put beside it."""
    writer = place.writer()
    first = writer.write_dataframe(FRAME, "thing", "parquet", single_file=False)
    second = writer.write_dataframe(FRAME, "thing", "parquet")
    assert second.path == first.path
    with pytest.raises(TargetExistsError, match="single_file=False"):
        writer.write_dataframe(FRAME, "thing", "parquet", single_file=True)
    place.assert_no_leftovers(second.write_id)


def test_a_file_of_the_name_is_superseded_by_a_dataset(place: Place) -> None:
    """The file that was the previous version goes with the commit of the dataset."""
    writer = place.writer()
    writer.write_dataframe(FRAME, "thing", "parquet")
    result = writer.write_dataframe(FRAME, "thing", "parquet", single_file=False)
    place.assert_no_leftovers(result.write_id)
    with pytest.raises(TargetExistsError):
        writer.write_dataframe(FRAME, "thing", "parquet", overwrite=False)


@pytest.mark.parametrize("method", ["write_dataframe", "write_json", "write_visualization"])
def test_nothing_is_written_into_a_dataset(place: Place, method: str) -> None:
    """A file inside a dataset would bar its next overwrite: it is refused."""
    writer = place.writer()
    writer.write_dataframe(FRAME, "people", "parquet", single_file=False)
    with pytest.raises(TargetExistsError, match="is a dataset"):
        write(writer, method, subdir="output/people")
    writer.write_dataframe(FRAME, "people", "parquet", single_file=False)


ACTIONS = {
    "write_dataframe": "Failed to write DataFrame: ",
    "write_json": "Failed to write JSON: ",
    "write_dictionary": "Failed to write dictionary: ",
    "write_metrics": "Failed to write metrics: ",
    "write_visualization": "Failed to save visualization: ",
    "append_to_json_array": "Failed to append to JSON array: ",
    "merge_json_objects": "Failed to merge JSON objects: ",
}


@pytest.mark.parametrize(("method", "action"), ACTIONS.items())
def test_errors_say_what_failed_and_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str, action: str
) -> None:
    """One error record for the caller's logger, with the text of the exception."""
    (tmp_path / "file").touch()
    writer = DataWriter(tmp_path, logging.getLogger("operation"))
    with pytest.raises(DataWriteError) as caught:
        getattr(writer, method)(object(), "thing")
    assert str(caught.value).startswith(action)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("operation", "ERROR")
    assert record.getMessage() == str(caught.value)


def test_a_failure_while_running_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that shows only in a task, whoever waits for it, and however often."""
    import dask.dataframe as dd  # noqa: PLC0415 - slow to import, needed here alone

    def fail(partition: pd.DataFrame) -> pd.DataFrame:
        raise ZeroDivisionError

    broken = dd.from_pandas(FRAME, npartitions=2).map_partitions(fail, meta=FRAME.iloc[:0])
    handle = DataWriter(tmp_path).submit_dataframe(broken, "thing")
    for _ in range(2):
        with pytest.raises(DataWriteError, match=r"^Failed to write DataFrame: ") as caught:
            handle.result()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made on the line itself
    assert (str(copy), type(copy.__cause__)) == (str(caught.value), ZeroDivisionError)


def test_keywords_of_operations_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Strays are named in the debug log, without their values, and change nothing."""
    caplog.set_level(logging.DEBUG, logger="pamola_dwriter")
    strays = {"dataset_name": "secret", "encryption_mode": "age", "use_dask": False, "mode": "R"}
    for method in [*WRITES, *UPDATES]:
        caplog.clear()
        write(DataWriter(tmp_path), method, name=method, **strays)
        said = " ".join(record.getMessage() for record in caplog.records)
        assert all(name in said for name in strays)
        assert "secret" not in said


@pytest.mark.parametrize(
    ("method", "misspelt", "meant"),
    [
        ("write_dataframe", "compresion", "compression"),
        ("write_dataframe", "partition_onn", "partition_on"),
        ("write_dataframe", "overwrit", "overwrite"),
        ("write_json", "prety", "pretty"),
        ("write_visualization", "encrypton_key", "encryption_key"),
        ("append_to_json_array", "create_if_mising", "create_if_missing"),
        ("merge_json_objects", "recursive_merg", "recursive_merge"),
        ("write_metrics", "timestamp_in_nam", "timestamp_in_name"),
    ],
)
def test_misspelt_options_are_refused(
    tmp_path: Path, method: str, misspelt: str, meant: str
) -> None:
    """What is nearly an option is not a stray: a key must not get lost in a typing error."""
    with pytest.raises(InvalidWriteError, match=f"did you mean '{meant}'"):
        write(DataWriter(tmp_path), method, **{misspelt: None})


@pytest.mark.parametrize("method", [*WRITES, *UPDATES])
def test_signatures_are_real(method: str) -> None:
    """Operations look at the parameters: all specified ones by name, then any keyword."""
    parameters = inspect.signature(getattr(DataWriter, method)).parameters
    assert parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    assert {"name", "encryption_key"} <= parameters.keys()


def test_index_is_pandas_word_for_write_index(tmp_path: Path) -> None:
    """index=False, as one gives it to pandas, keeps the index out."""
    frame = FRAME.set_index(pd.Index(["a", "b", "c"], name="letter"))
    result: Any = DataWriter(tmp_path).write_dataframe(frame, "x", index=False)  # type: ignore[call-overload]
    assert list(pd.read_csv(result.path).columns) == ["x"]


@pytest.mark.parametrize("use", [None, True])
def test_default_key_seals_every_write(tmp_path: Path, use: bool | None) -> None:
    """A writer with a key writes nothing in the clear."""
    writer = DataWriter(tmp_path, use_encryption=use, encryption_key=KEY)
    for method in [*WRITES, *UPDATES]:
        assert write(writer, method, name=method).encrypted


def test_use_encryption_false_leaves_the_default_key_alone(tmp_path: Path) -> None:
    """Then only a write that is given a key itself is sealed."""
    writer = DataWriter(tmp_path, use_encryption=False, encryption_key=KEY)
    assert not writer.write_json({}, "a").encrypted
    assert writer.write_json({}, "b", encryption_key=KEY).encrypted


@pytest.mark.parametrize("method", [*WRITES, *UPDATES])
def test_encryption_without_a_key_writes_nothing(tmp_path: Path, method: str) -> None:
    """use_encryption=True and no key is an error of the first write, never plaintext."""
    with pytest.raises(MissingKeyError, match="needs an encryption_key"):
        write(DataWriter(tmp_path, use_encryption=True), method)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class Recorder:
    """A tracker of a caller's own."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def create_subtask(self, total: int, description: str, unit: str = "steps") -> Recorder:
        self.said.append(("begin", total))
        return self

    def update(self, n: int = 1, postfix: Any = None) -> None:
        self.said.append(n)

    def close(self) -> None:
        self.said.append("end")


@pytest.mark.parametrize("method", [*WRITES, *UPDATES])
def test_every_write_is_a_subtask_with_its_count(tmp_path: Path, method: str) -> None:
    """Any object with the three methods is told; the counts add up to the total."""
    recorder = Recorder()
    write(DataWriter(tmp_path, progress_tracker=recorder), method)
    begin, *counts, end = recorder.said
    assert (begin, end) == (("begin", 1), "end")
    assert sum(counts) == 1


def test_a_submitted_write_completes_its_subtask(tmp_path: Path) -> None:
    """When the result is there, the tracker has been told everything."""
    recorder = Recorder()
    writer = DataWriter(tmp_path, progress_tracker=recorder)
    writer.submit_dataframe(FRAME, "thing").result()
    assert recorder.said[-1] == "end"
    assert sum(recorder.said[1:-1]) == 1


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl"])
def test_dictionaries_as_tables(place: Place, format: str) -> None:
    """A flat dictionary, columns, and rows with their keys, in every format."""
    for name, data, columns in (
        ("flat", {"apple": 523, "fig": 2}, ["key", "value"]),
        ("lists", {"a": [1, 2], "b": ["x", "y"]}, ["a", "b"]),
        ("rows", {"r1": {"a": 1}, "r2": {"a": 2, "b": 3}}, ["key", "a", "b"]),
    ):
        result = place.writer().write_dictionary(data, name, format=format)
        assert result.rows == 2
        with open_artifact(result.path, storage_options=place.options) as file:
            if format == "jsonl":
                frame = pd.read_json(file, lines=True)
            else:
                frame = pd.read_csv(file) if format == "csv" else pd.read_parquet(file)
        assert list(frame.columns) == columns


def test_json_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    """The place in the data and the type are named, not the value; no file is made."""
    with pytest.raises(UnsupportedDataError, match=r"\$\.a\[1\]") as caught:
        DataWriter(tmp_path).write_json({"a": [1, object()]}, "x")
    assert "0x" not in str(caught.value)
    assert not (tmp_path / "x.json").exists()


def test_partitioned_results_are_named_so(tmp_path: Path) -> None:
    """The path is the folder, and the format says that it is one."""
    result = DataWriter(tmp_path).write_dataframe(FRAME, "x", "csv", single_file=False)
    assert (result.path, result.format) == (tmp_path / "output/x", "partitioned_csv")
    assert read_dataset(result.path).compute()["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("method", [*WRITES, *UPDATES])
@pytest.mark.parametrize("asked", [{"use_encryption": True}, {"password": "x"}, {"encrypt": True}])
def test_asking_for_encryption_never_writes_plaintext(
    tmp_path: Path, method: str, asked: dict[str, Any]
) -> None:
    """A keyword that asks for it, in whatever words, is refused where there is no key."""
    with pytest.raises((MissingKeyError, InvalidWriteError), match="encryption_key"):
        write(DataWriter(tmp_path), method, **asked)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_racing_frames_with_a_time_all_stand(tmp_path: Path) -> None:
    """Threads that write frames of one name in one second get a name each."""
    writer = DataWriter(tmp_path)
    with ThreadPoolExecutor(6) as pool:
        results = list(
            pool.map(lambda _: writer.write_dataframe(FRAME, "n", timestamp_in_name=True), range(6))
        )
    assert len({result.path for result in results}) == 6
