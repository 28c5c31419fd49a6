"""From input paths and globs to one Dask DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import click
import dask.dataframe as dd
import fsspec
import pandas as pd
from fsspec.core import has_magic
from fsspec.utils import get_protocol

from pamola_dwriter.errors import TargetNotFoundError, TargetUnavailableError

Frame: TypeAlias = Any
"""A dask.dataframe.DataFrame; Dask does not annotate what its readers return."""

_EXTENSIONS = {
    "parquet": "parquet",
    "parq": "parquet",
    "pq": "parquet",
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
}
_COMPRESSED = {"gz", "zst", "bz2", "xz"}
_BLOCK = 64 * 2**20
"""Bytes of text in one partition, of files that can be cut."""

# pandas else makes times of text and numbers in columns named like "created_at".
_AS_THEY_ARE: dict[str, Any] = (
    {"dtype": False} if int(pd.__version__.partition(".")[0]) >= 3 else {"convert_dates": False}
)

FORMATS = ("parquet", "csv", "jsonl")


def read_inputs(
    inputs: Sequence[str], input_format: str | None, storage_options: Mapping[str, Any]
) -> dd.DataFrame:
    """Return a frame of all files that the paths and globs stand for.

    Columns have Arrow's types, so that integers with gaps stay integers.

    Raises
    ------
    TargetNotFoundError
        A path or glob stands for no file.
    TargetUnavailableError
        The files cannot be listed or read.
    click.UsageError
        The format cannot be told, or the inputs differ in it.
    """
    try:
        paths = [path for given in inputs for path in _expand(given, storage_options)]
        found = input_format or _format_of(paths)
        frame: dd.DataFrame = _READERS[found](paths, dict(storage_options))
    except (OSError, ImportError) as error:
        if isinstance(error, TargetNotFoundError):
            raise
        raise TargetUnavailableError(f"the input cannot be read: {error}") from error
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"the input cannot be read as it stands: {error}") from error
    return frame


def has_index(frame: dd.DataFrame) -> bool:
    """Return whether the files have an index that says more than the number of a row."""
    index: Any = frame.index
    return index.name is not None or not pd.api.types.is_integer_dtype(index.dtype)


def share_options(
    inputs: Sequence[str],
    task_dir: str,
    given: Mapping[str, Any] | None,
    storage_options: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Return the storage options of the inputs: those given, else those of the same store."""
    if given is not None:
        return given
    same = {get_protocol(path) for path in inputs} == {get_protocol(task_dir)}
    return storage_options or {} if same else {}


def _expand(path: str, storage_options: Mapping[str, Any]) -> list[str]:
    file_system, bare = fsspec.url_to_fs(path, **storage_options)
    found = sorted(file_system.glob(bare)) if has_magic(bare) else [bare]
    if not found or not file_system.exists(found[0]):
        raise TargetNotFoundError(f"no file is named {path!r}")
    local = get_protocol(path) in ("file", "local")
    return [one if local else file_system.unstrip_protocol(one) for one in found]


def _format_of(paths: Sequence[str]) -> str:
    found = {_EXTENSIONS.get(_extension(path), "") for path in paths}
    if len(found) != 1 or "" in found:
        raise click.UsageError(
            "the inputs' names do not tell one format; give --input-format "
            f"({', '.join(FORMATS)}) or inputs of one kind"
        )
    return found.pop()


def _extension(path: str) -> str:
    parts = path.rstrip("/").rpartition("/")[2].lower().split(".")
    if len(parts) > 2 and parts[-1] in _COMPRESSED:
        parts.pop()
    return parts[-1] if len(parts) > 1 else ""


def _read_parquet(paths: list[str], options: dict[str, Any]) -> Frame:
    return dd.read_parquet(paths, storage_options=options, dtype_backend="pyarrow")


def _read_csv(paths: list[str], options: dict[str, Any]) -> Frame:
    return dd.read_csv(
        paths,
        storage_options=options,
        dtype_backend="pyarrow",
        blocksize=_block(paths),
        compression="infer",
    )


def _read_jsonl(paths: list[str], options: dict[str, Any]) -> Frame:
    return dd.read_json(
        paths,
        storage_options=options,
        orient="records",
        lines=True,
        blocksize=_block(paths),
        compression="infer",
        dtype_backend="pyarrow",
        **_AS_THEY_ARE,
    )


def _block(paths: Sequence[str]) -> int | None:
    """Return None where a file is compressed: those cannot be read from the middle."""
    return None if any(path.rpartition(".")[2] in _COMPRESSED for path in paths) else _BLOCK


_READERS: dict[str, Callable[[list[str], dict[str, Any]], Frame]] = {
    "parquet": _read_parquet,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
}
