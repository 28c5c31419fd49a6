"""From the paths callers give to what a store is opened with, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import InvalidPathError
from pamola_dwriter.spec import Redacted, Tuning
from pamola_dwriter.storage import normalize_root, open_store

PathLike = str | os.PathLike[str] | UPath

_LOCAL = frozenset({"", "file", "local"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a writer writes: its task directory, opened."""

    root: str
    storage_options: Redacted
    store: Store
    tuning: Tuning

    def url(self, path: str) -> str:
        """Return the full path or URL of a file or folder of the task directory."""
        return f"{self.root.rstrip('/')}/{path}"


def open_place(
    task_dir: PathLike, storage_options: Mapping[str, Any] | None, tuning: Tuning
) -> Place:
    """Open a task directory; nothing is read or made yet. Errors as :func:`resolve_path`."""
    root, options = resolve_path(task_dir, storage_options)
    store = open_store(root, options, tuning)
    return Place(root=root, storage_options=options, store=store, tuning=tuning)


def resolve_path(path: PathLike, storage_options: Mapping[str, Any] | None) -> tuple[str, Redacted]:
    """Return a root for :func:`pamola_dwriter.storage.open_store`, and its options.

    Raises
    ------
    InvalidPathError
        It is not a path, is empty, or has a scheme that fsspec does not know.
    """
    if storage_options is not None and not hasattr(storage_options, "keys"):
        kind = type(storage_options).__name__
        raise InvalidPathError(f"storage_options must be a mapping, not {kind}")
    options = dict(storage_options or {})
    if not all(isinstance(name, str) for name in options):
        raise InvalidPathError("the names of storage_options must be str")
    if isinstance(path, UPath) and path.protocol not in _LOCAL:
        return normalize_root(str(path)), Redacted({**path.storage_options, **options})
    if not isinstance(path, str | os.PathLike):
        raise InvalidPathError(f"a path must be a str, Path or UPath, not {type(path).__name__}")
    return normalize_root(os.fspath(path)), Redacted(options)


def present_path(url: str) -> Path | UPath:
    """Return a local path as Path, and a URL as UPath without any storage options."""
    return UPath(url) if "://" in url else Path(url)
