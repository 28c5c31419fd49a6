"""The file systems of this process: one for all threads where that is safe, so connections last.

fsspec keeps one for each thread, since some are not safe to share. Those that do their work in
fsspec's one event loop are; and threads come and go (see :mod:`pamola_dwriter.overlap`), each of
which would begin with a new session and leave it behind.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.utils import get_protocol

_REMEMBERED = 32

_shared: OrderedDict[tuple[int, str, bytes], AbstractFileSystem] = OrderedDict()
_lock = threading.Lock()


def open_file_system(root: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL or path, and the path inside it.

    Raises
    ------
    ImportError
        Its package is not installed.
    TypeError, ValueError
        It does not take these options.
    """
    kind = fsspec.get_filesystem_class(get_protocol(root))
    name = _name(root, options) if kind.async_impl else None
    with _lock:
        if name is not None and (known := _shared.get(name)) is not None:
            _shared.move_to_end(name)
            return known, known._strip_protocol(root)
    file_system, path = fsspec.core.url_to_fs(root, **options)
    with _lock:
        if name is not None:
            file_system = _shared.setdefault(name, file_system)
            while len(_shared) > _REMEMBERED:
                _shared.popitem(last=False)
    return file_system, path


def _name(root: str, options: Mapping[str, Any]) -> tuple[int, str, bytes] | None:
    """Tell file systems apart, also those of a process that was forked; None if that cannot be."""
    if options.get("skip_instance_cache") or "::" in root:
        return None
    place = root.partition("://")[0] + root.partition("://")[2].partition("/")[0]
    try:
        return os.getpid(), place, hashlib.sha256(pickle.dumps(dict(options))).digest()
    except Exception:  # noqa: BLE001 - options may be objects, each of which refuses in its own way
        return None
