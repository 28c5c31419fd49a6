"""The compiled graph: its layers, their names, its width, and what it must not contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any, get_args

import cloudpickle
import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from dask.utils import key_split
from distributed import Client, wait

from pamola_dwriter import DataWriter, LazyWrite, layout, read_dataset
from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.finalize import finalize
from pamola_dwriter.settings import FUSED_FROM

ROWS = pd.DataFrame({"x": range(100), "o": [[n] for n in range(100)]})


def compiled(folder: Path, *, columns: list[str], partitions: int = 5, **options: Any) -> LazyWrite:
    with dask.config.set({"dataframe.convert-string": False}):
        ddf = dd.from_pandas(ROWS[columns], npartitions=partitions)
        return DataWriter(folder).write_dataframe(ddf, "t", "parquet", compute=False, **options)


def stages(lazy: LazyWrite) -> dict[str, int]:
    """Number of tasks of ours by stage."""
    counts: dict[str, int] = {}
    for key in dict(lazy.__dask_graph__()):
        if parsed := layout.parse_task_key(key):
            counts[parsed[0]] = counts.get(parsed[0], 0) + 1
    return counts


def test_plain_write_has_no_encrypt_layer(tmp_path: Path) -> None:
    """A plain write is serialize and put for each partition, one gather, one commit."""
    lazy = compiled(tmp_path, columns=["x"])
    assert stages(lazy) == {"serialize": 5, "put": 5, "gather": 1, "commit": 1}
    assert len(lazy.__dask_graph__()) == 12  # who serializes a partition has computed it


def test_encrypted_write_has_three_layers(tmp_path: Path) -> None:
    """An encrypted write has encrypt as a layer of its own, visible by name."""
    lazy = compiled(tmp_path, columns=["x"], encryption_key=bytes(32))
    assert stages(lazy)["encrypt"] == 5
    prefixes = {key_split(key) for key in dict(lazy.__dask_graph__())}
    assert {"pamola-serialize", "pamola-encrypt", "pamola-put", "pamola-commit"} <= prefixes


def test_stages_can_be_fused(tmp_path: Path) -> None:
    """One setting makes one task per partition, its input too, with the same result."""
    with dask.config.set({"pamola-dwriter.fuse-stages": True}):
        lazy = compiled(tmp_path, columns=["x"], encryption_key=bytes(32))
    assert stages(lazy) == {"part": 5, "gather": 1, "commit": 1}
    assert len(lazy.__dask_graph__()) == 7
    handle = lazy.submit()
    assert handle.result().rows == 100
    assert handle.progress().memory_bytes >= ROWS["x"].nbytes


@pytest.mark.parametrize("fused", [False, True])
def test_input_that_others_need_is_not_fused(tmp_path: Path, *, fused: bool) -> None:
    """Each partition is computed once, also where its neighbour looks at it."""
    frame = dd.from_pandas(ROWS[["x"]], npartitions=5)
    source = Path(tmp_path, "computed")
    source.mkdir()
    shifted = frame.map_partitions(note_call, source, meta=ROWS[["x"]]).shift(1)
    with dask.config.set({"pamola-dwriter.fuse-stages": fused}):
        result = DataWriter(tmp_path).write_dataframe(shifted, "t", "parquet")
    assert (result.rows, len(list(source.iterdir()))) == (100, 5)


def note_call(partition: pd.DataFrame, folder: Path) -> pd.DataFrame:
    (folder / token_hex(8)).touch()
    return partition


@pytest.mark.parametrize("partitions", [3, 5])
def test_a_persisted_frame_is_written_from_memory(
    client: Client, tmp_path: Path, partitions: int
) -> None:
    """What a cluster holds is not computed again, and it still holds it after the write."""
    source = Path(tmp_path, "computed")
    source.mkdir()
    frame = dd.from_pandas(ROWS[["x"]], npartitions=partitions)
    held = client.persist(frame.map_partitions(note_call, source, meta=ROWS[["x"]]))
    wait(held)
    result = DataWriter(tmp_path).write_dataframe(held, "t", "parquet")
    assert (result.rows, result.partitions) == (100, partitions)
    pd.testing.assert_frame_equal(read_dataset(result.path).compute(), ROWS[["x"]])
    pd.testing.assert_frame_equal(held.compute(), ROWS[["x"]])
    assert len(list(source.iterdir())) == partitions


SHUFFLES: dict[str, Callable[[dd.DataFrame, tuple[int, ...]], dd.DataFrame]] = {
    "shuffle": lambda frame, divisions: frame.shuffle(on="g"),
    "set_index": lambda frame, divisions: frame.set_index("x", divisions=divisions),
}


@pytest.mark.parametrize("how", SHUFFLES)
@pytest.mark.parametrize("partitions", [3, 5])
def test_a_shuffled_frame_is_written_as_shuffled(
    client: Client, tmp_path: Path, how: str, partitions: int
) -> None:
    """Behind a shuffle between workers each part has the rows that came to its partition."""
    source = Path(tmp_path, "computed")
    source.mkdir()
    numbers = pd.Series(range(100))
    rows = pd.DataFrame({"x": numbers * 37 % 100, "g": numbers % 10, "s": "é" + numbers.map(str)})
    frame = dd.from_pandas(rows, npartitions=partitions)
    noted = frame.map_partitions(note_call, source, meta=frame._meta)
    writer = DataWriter(tmp_path)
    lazy: LazyWrite = writer.write_dataframe(
        SHUFFLES[how](noted, frame.divisions), "t", "parquet", compute=False
    )
    assert "shuffle-transfer" in {key_split(key) for key in dict(lazy.__dask_graph__())}
    result = lazy.compute()
    assert (result.rows, result.partitions) == (100, partitions)
    assert len(list(source.iterdir())) == partitions
    found, shuffled = read_dataset(result.path), SHUFFLES[how](frame, frame.divisions)
    for number in range(partitions):  # rows come in the order in which workers sent them
        part, expected = (each.partitions[number].compute() for each in (found, shuffled))
        pd.testing.assert_frame_equal(part.sort_values("s"), expected.sort_values("s"))


@pytest.mark.parametrize(("partitions", "stage"), [(FUSED_FROM - 1, "put"), (FUSED_FROM, "part")])
def test_many_partitions_are_fused(tmp_path: Path, partitions: int, stage: str) -> None:
    """By default a partition is one task where there are many."""
    frame = dd.from_map(lambda n: ROWS[["x"]] + n, range(partitions), meta=ROWS[["x"]])
    writer = DataWriter(tmp_path)
    lazy: LazyWrite = writer.write_dataframe(frame, "t", "parquet", compute=False)
    assert stages(lazy)[stage] == partitions


def test_open_columns_are_inferred_first(tmp_path: Path) -> None:
    """An object column adds one inference per partition and their union."""
    lazy = compiled(tmp_path, columns=["x", "o"])
    found = stages(lazy)
    assert (found["infer"], found["schema"]) == (5, 1)
    assert len(lazy.__dask_graph__()) == sum(found.values()) + 5  # both need the partition


@pytest.mark.parametrize(
    ("partitions", "groups", "collects"), [(1, 0, 0), (4, 0, 0), (5, 2, 2), (16, 4, 2), (17, 5, 4)]
)
def test_gather_is_a_tree(tmp_path: Path, partitions: int, groups: int, collects: int) -> None:
    """No task takes more than gather-width records; where there are more, each group publishes."""
    with dask.config.set({"pamola-dwriter.gather-width": 4}):
        lazy = compiled(tmp_path, columns=["x"], partitions=partitions, single_file=False)
    found = stages(lazy)
    assert found["gather"] == max(groups, 1)
    assert (found.get("publish", 0), found.get("collect", 0)) == (groups, collects)
    assert ("claim" in found) == bool(groups)
    inputs = {key: len(task.dependencies) for key, task in dict(lazy.__dask_graph__()).items()}
    inputs.pop((layout.task_key("collect", lazy.write_id), collects - 1), None)  # takes all counts
    assert max(inputs.values()) <= 4
    assert lazy.compute().partitions == partitions


def test_stages_follow_one_another(tmp_path: Path) -> None:
    """No stage needs a later one, which the progress of a write and its names rely on."""
    with dask.config.set({"pamola-dwriter.gather-width": 4}):
        graph = dict(compiled(tmp_path, columns=["x", "o"], partitions=17).__dask_graph__())
    order = get_args(layout.Stage)
    for key, task in graph.items():
        if parsed := layout.parse_task_key(key):
            before = filter(None, map(layout.parse_task_key, task.dependencies))
            assert all(order.index(stage) <= order.index(parsed[0]) for stage, *_ in before)


@pytest.mark.parametrize("fused", [False, True])
def test_graph_that_travels_is_small(tmp_path: Path, *, fused: bool) -> None:
    """What a client sends does not grow with the partitions, also when the graph was looked at."""
    sizes = []
    for partitions in (100, 1000):
        frame = dd.from_map(lambda n: ROWS[["x"]] + n, range(partitions), meta=ROWS[["x"]])
        writer = DataWriter(tmp_path)
        with dask.config.set({"pamola-dwriter.fuse-stages": fused}):
            lazy: LazyWrite = writer.write_dataframe(frame, "t", "parquet", compute=False)
        graph = lazy.__dask_graph__()
        assert len(graph) > (1 if fused else 2) * partitions
        sizes.append(len(cloudpickle.dumps(graph)))
        assert len(cloudpickle.loads(cloudpickle.dumps(graph))) == len(graph)
    assert sizes[1] < sizes[0] + 200


def test_building_creates_nothing(tmp_path: Path) -> None:
    """No file exists before the write runs, only the standard folders of its writer."""
    compiled(tmp_path / "task", columns=["x"])
    assert files(tmp_path) == []


def test_finalize_refuses_a_missing_partition(tmp_path: Path) -> None:
    """Records that leave a partition out commit nothing."""
    lazy = compiled(tmp_path, columns=["x"])
    with pytest.raises(WriteFailedError, match=r"partition\(s\) \[0, 1, 2, 3, 4\]"):
        finalize({}, None, lazy._spec)
    assert files(tmp_path) == []


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]
