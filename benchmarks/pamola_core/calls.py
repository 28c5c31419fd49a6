"""Calls of the writer itself: what no operation calls, or not with these arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pamola_core.utils.ops.op_result import OperationResult, OperationStatus
from pamola_core.utils.tasks.encryption_manager import EncryptionContext, EncryptionMode

from benchmarks.pamola_core import data
from benchmarks.pamola_core.catalog import KEY

Call = Callable[[Any, Path], Any]

_NESTED = {
    "numbers": [1, 2.5, np.int64(3), np.float32(0.5)],
    "flag": np.bool_(True),
    "array": np.arange(4),
    "nothing": None,
    "text": 'Québec "quoted"',
    "nested": {"deeper": {"deepest": [1, {"x": 2}]}},
    "not a number": float("nan"),
    "pair": (1, 2),
    "moment": pd.Timestamp("2026-01-02 03:04:05"),
}


def _figure() -> Figure:
    figure = Figure()
    figure.subplots().plot([1, 3, 2])
    return figure


def _json(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root)
    one = made.write_json(_NESTED, "nested", "some/folder")
    two = made.write_json([1, "two", None], "list", pretty=False)
    return [_told(one, root), _told(two, root)]


def _dictionaries(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root)
    columns = {"letter": ["a", "b"], "number": [1, 2]}
    return [
        _told(made.write_dictionary({"apple": 523, "Żak": 2}, "counts"), root),
        _told(made.write_dictionary(columns, "columns", format="csv"), root),
        _told(made.write_dictionary(columns, "columns", format="parquet"), root),
    ]


def _changes(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root)
    told = [
        _told(made.append_to_json_array({"step": step}, "log", "logs"), root) for step in range(3)
    ]
    made.merge_json_objects({"a": {"x": 1, "y": 2}, "b": 1}, "settings")
    made.merge_json_objects({"a": {"y": 3, "z": 4}, "c": 1}, "settings")
    made.merge_json_objects({"a": 1}, "settings", overwrite_existing=False)
    made.merge_json_objects({"a": {"only": 1}}, "flat", recursive_merge=False)
    made.merge_json_objects({"a": {"other": 1}}, "flat", recursive_merge=False)
    return told


def _figures(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root)
    return [
        _told(made.write_visualization(_figure(), "chart", "visualizations"), root),
        _told(made.write_visualization(_figure(), "chart", timestamp_in_name=True), root),
    ]


def _registered(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root)
    result = OperationResult(status=OperationStatus.SUCCESS)
    for name, what in {"people": data.people(), "facts": {"a": 1}, "chart": _figure()}.items():
        result.register_artifact_via_writer(made, what, "output", name)
    return [
        {"path": str(one.path.relative_to(root)), "exists": one.exists(), "type": one.artifact_type}
        for one in result.artifacts
    ]


def _encrypted(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root, use_encryption=True, encryption_key=KEY, encryption_mode="simple")
    made.write_json({"secret": 1}, "document")
    made.append_to_json_array({"step": 1}, "log")
    made.append_to_json_array({"step": 2}, "log")
    made.write_dataframe(data.people(), "people")
    made.write_dataframe(data.people(), "people", format="parquet")
    made.write_visualization(_figure(), "chart")
    return "written"


def _of_a_task(writer: type[Any], root: Path) -> Any:
    """Construct the writer as BaseTask does, encryption on: its context holds no key."""
    context = EncryptionContext(EncryptionMode.SIMPLE, "0123456789abcdef")
    writer(task_dir=root, use_encryption=True, encryption_key=context, encryption_mode="simple")
    return "made"


def _of_a_plain_task(writer: type[Any], root: Path) -> Any:
    """Construct the writer as BaseTask does, encryption off."""
    context = EncryptionContext(EncryptionMode.NONE, "")
    made = writer(
        task_dir=root, use_encryption=False, encryption_key=context, encryption_mode="none"
    )
    made.write_dataframe(data.cards(), "cards")
    return (made.task_dir / "output").is_dir()


def _dask(writer: type[Any], root: Path) -> Any:
    """Write Dask frames; where they come to stand differs, so what is read back is returned."""
    made = writer(task_dir=root)
    read = {"csv": dd.read_csv, "parquet": dd.read_parquet}
    back = {}
    for partitions in (1, 3):
        frame = dd.from_pandas(data.people(), npartitions=partitions)
        for name, reader in read.items():
            path = made.write_dataframe(frame, f"people {partitions}", format=name).path
            files = path if path.is_file() else str(path / f"*.{name}")
            columns = reader(files).compute().reset_index(drop=True).astype(str)
            back[f"{name} {partitions}"] = columns.to_dict("list")
    return back


def _options(writer: type[Any], root: Path) -> Any:
    made = writer(task_dir=root)
    frame = data.cards()
    made.write_dataframe(frame.set_index("holder"), "indexed", index=True)
    made.write_dataframe(frame.set_index("holder"), "columns", index=False)
    made.write_dataframe(frame, "packed", format="parquet", compression="gzip", index=False)
    made.write_dataframe(frame[::-1], "backwards")
    made.write_dataframe(frame[::-1], "backwards", format="parquet")
    made.write_dataframe(frame, "semicolons", delimiter=";")
    return "written"


def _told(result: Any, root: Path) -> dict[str, Any]:
    return {
        "is a file": result.path.is_file(),
        "size is right": result.size_bytes == result.path.stat().st_size,
        "format": result.format,
        "below the task": result.path.is_relative_to(root),
    }


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Some calls; `key` opens what they write, and `files` says whether files are compared."""

    name: str
    call: Call
    key: str | None = None
    files: bool = True


CALLS = [
    Calls(name="JSON", call=_json),
    Calls(name="dictionaries", call=_dictionaries),
    Calls(name="appending and merging", call=_changes),
    Calls(name="figures", call=_figures),
    Calls(name="registered artifacts", call=_registered),
    Calls(name="encrypted", call=_encrypted, key=KEY),
    Calls(name="writer of a task", call=_of_a_plain_task),
    Calls(name="writer of an encrypted task", call=_of_a_task),
    Calls(name="Dask", call=_dask, files=False),
    Calls(name="options", call=_options),
]
