"""Stores, one file each, and the table that picks one by URL scheme."""

from __future__ import annotations

import re
from collections.abc import Callable

import fsspec
from fsspec.implementations.local import make_path_posix
from fsspec.utils import get_protocol

from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import InvalidPathError
from pamola_dwriter.spec import Redacted, RunSpec, Tuning
from pamola_dwriter.storage.azure import AzureStore
from pamola_dwriter.storage.connections import open_file_system
from pamola_dwriter.storage.gcs import GcsStore
from pamola_dwriter.storage.objects import ObjectStore
from pamola_dwriter.storage.posix import PosixStore
from pamola_dwriter.storage.retrying import RetryingStore
from pamola_dwriter.storage.s3 import S3Store

__all__ = ["STORES", "WRAPPERS", "normalize_root", "open_store", "open_target"]

STORES: dict[str, type[ObjectStore]] = {
    "abfs": AzureStore,
    "abfss": AzureStore,
    "az": AzureStore,
    "file": PosixStore,
    "gcs": GcsStore,
    "gs": GcsStore,
    "local": PosixStore,
    "s3": S3Store,
    "s3a": S3Store,
}
"""Class by URL scheme; any other scheme fsspec knows is an :class:`ObjectStore`."""

WRAPPERS: list[Callable[[Store], Store]] = []
"""Put around every store that is opened in this process; :mod:`pamola_dwriter.testing` does."""

_PASSWORD = re.compile(r"[^/]*://[^/:@]*:(?!\d*/)[^@]*@", re.DOTALL)
"""A user and a password before ``@``; secrets of S3 may hold a ``/``. Not so: ``host:21/x@y``."""


def normalize_root(task_dir: str) -> str:
    """Return `task_dir` as an absolute local path, or as a URL without a trailing slash.

    Raises
    ------
    InvalidPathError
        It is empty, holds a password, or fsspec knows no such scheme.
    """
    if not task_dir.strip() or "\0" in task_dir:
        raise InvalidPathError("the path is empty or holds a NUL; give a directory or a URL")
    protocol = get_protocol(task_dir)
    if protocol not in (*fsspec.available_protocols(), *fsspec.registry):
        raise InvalidPathError(f"the path has scheme {protocol!r}, which fsspec does not know")
    if protocol in ("file", "local"):
        return str(make_path_posix(task_dir.removeprefix("file://").removeprefix("local://")))
    if _PASSWORD.match(task_dir):
        raise InvalidPathError(
            f"the {protocol} URL holds a password, which would show in logs and results; take "
            "'user:password@' out of it and pass both in storage_options"
        )
    place = task_dir.partition("://")[2].rstrip("/")
    if not place.strip("/") or (place.startswith("/") and protocol in ("s3", "s3a")):
        raise InvalidPathError(f"{task_dir!r} names no bucket or directory; add one")
    return task_dir.rstrip("/")


def open_store(root: str, storage_options: Redacted, tuning: Tuning) -> Store:
    """Return the store of the task directory `root`, as made by :func:`normalize_root`.

    Parameters
    ----------
    root : str
        Absolute path or URL.
    storage_options : Redacted of dict
        Passed to the fsspec file system; may hold credentials.
    tuning : Tuning
        How much is sent in one request, and how long one is tried again.

    Raises
    ------
    InvalidPathError
        The file system does not take these options, or its package is not installed.
    """
    store = STORES.get(get_protocol(root), ObjectStore)
    try:
        options = store.complete_options(storage_options.reveal())
        file_system, path = open_file_system(root, options)
    except ImportError as error:
        raise InvalidPathError(f"{root.partition('://')[0]}:// needs a package: {error}") from None
    except (TypeError, ValueError) as error:
        names = ", ".join(sorted(storage_options.reveal())) or "none"
        raise InvalidPathError(
            f"storage_options ({names}) do not fit {root}: {type(error).__name__}"
        ) from None
    opened: Store = store(file_system, path, tuning)
    for wrap in WRAPPERS:
        opened = wrap(opened)
    return RetryingStore(opened, tuning.retry_seconds)


def open_target(spec: RunSpec) -> Store:
    """Return the store that a run writes to; errors as :func:`open_store`."""
    return open_store(spec.target.root, spec.target.storage_options, spec.tuning)
