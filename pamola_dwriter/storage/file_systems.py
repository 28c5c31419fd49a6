"""What fsspec leaves to each of its file systems, done so that it works on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""What file systems call the time of the last change."""


def modified(info: Mapping[str, Any]) -> float:
    """Return when a file was changed last, from what its file system says of it."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.timestamp()
    if value is None:
        raise OSError("the store does not say when a file was changed")
    return float(value)


def rename(file_system: Any, source: str, destination: str) -> None:
    """Rename, at once where the file system replaces a file so; smb and webhdfs do not."""
    failure: Exception | None = None
    try:
        file_system.mv(source, destination)
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own
        failure = error
    # webhdfs refuses without an error.
    if file_system.exists(source) and file_system.exists(destination):
        file_system.rm_file(destination)
        file_system.mv(source, destination)
    elif failure is not None:
        raise failure


def missing_folders(file_system: Any, folder: str) -> list[str]:
    """Return which of `folder` and those above it do not exist, the deepest first."""
    missing: list[str] = []
    while folder not in ("", *missing) and not file_system.isdir(folder):
        missing.append(folder)
        folder = file_system._parent(folder)
    return missing


def remove_if_empty(file_system: Any, folder: str) -> None:
    """Remove a folder that is empty; whatever stands in the way of that is passed over."""
    with suppress(Exception):  # somebody else works in it, or has removed it
        if not file_system.ls(folder):  # the rmdir of hdfs would take what is in it along
            file_system.rmdir(folder)
