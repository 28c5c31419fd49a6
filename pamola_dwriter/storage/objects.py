"""Any fsspec file system, with nothing assumed but whole-file reads and writes.

A part becomes visible when it is staged, under a name no other attempt uses, and counts only
once the manifest names it. A single file is staged under ``_staging/`` and copied into place.
Where fsspec gives no atomic create (most stores but S3), the manifest's condition is checked
and then written: two writers within that window are not told apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any, BinaryIO

import pyarrow as pa
from fsspec import AbstractFileSystem

from pamola_dwriter import layout
from pamola_dwriter.contracts import VersionConflict, Versioned
from pamola_dwriter.errors import PamolaWriterError, TargetUnavailableError
from pamola_dwriter.spec import WriteId

_READING = frozenset({"read", "look up", "list"})
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class ObjectStore:
    """A task directory on any fsspec file system.

    Parameters
    ----------
    file_system : fsspec.AbstractFileSystem
        Where it is.
    root : str
        Path of the task directory inside that file system.
    upload_part_size : int
        Bytes in one request of a multipart upload, where the store has such.
    """

    def __init__(
        self, file_system: AbstractFileSystem, root: str, upload_part_size: int = 2**25
    ) -> None:
        self._fs: Any = file_system
        self._root = root.rstrip("/")
        self._upload_part_size = upload_part_size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._root!r}>"

    def check_writable(self, path: str) -> None:
        with self._explained("write", self._root):
            self._fs.exists(self._full(path))

    def is_file(self, path: str) -> bool:
        with self._explained("look up", path):
            return bool(self._fs.isfile(self._full(path)))

    def listdir(self, path: str) -> list[str]:
        directory = self._full(path)
        with self._explained("list", path):
            try:
                found = self._fs.find(directory)
            except FileNotFoundError:
                return []
        return sorted(file[len(directory) :].lstrip("/") for file in found if file != directory)

    def size(self, path: str) -> int:
        with self._explained("look up", path):
            return int(self._fs.info(self._full(path))["size"])

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        with self._explained("read", path):
            return bytes(self._fs.cat_file(self._full(path), start=start, end=end))

    def open(self, path: str) -> BinaryIO:
        with self._explained("read", path):
            file: BinaryIO = self._fs.open(self._full(path), "rb", cache_type="none")
        return file

    def read_versioned(self, path: str) -> Versioned | None:
        try:
            data = self.read(path)
        except FileNotFoundError:
            return None
        return Versioned(data, hashlib.sha256(data).hexdigest())

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        if layout.write_id_of(path) is None:
            return self._stage_file(path, data, write_id)
        with self._explained("write", path):
            return self._stage_part(path, data)

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        parts = {path: token for path, token in staged.items() if layout.write_id_of(path)}
        self._publish_parts(parts)
        for path, token in staged.items():
            if path not in parts:
                self._publish_file(path, token, overwrite=overwrite)

    def put(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            self._fs.makedirs(self._parent(path), exist_ok=True)
            self._fs.pipe_file(self._full(path), data)

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        present = self.read_versioned(path)
        if (present.version if present else None) != expected:
            raise VersionConflict(path)
        if expected is not None:
            return self.put(path, data)
        with self._explained("write", path):
            self._fs.makedirs(self._parent(path), exist_ok=True)
            try:
                self._fs.pipe_file(self._full(path), data, mode="create")
            except FileExistsError:
                raise VersionConflict(path) from None

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        self._remove(
            [
                layout.join(directory, path)
                for path in self.listdir(directory)
                if layout.write_id_of(path) in write_ids and path not in keep
            ]
        )
        for write_id in write_ids:
            self.sweep_staged(directory, write_id)

    def sweep_staged(self, directory: str, write_id: WriteId) -> None:
        staging = layout.join(layout.STAGING, write_id)
        self._remove([layout.join(staging, path) for path in self.listdir(staging)])

    def _stage_part(self, path: str, data: pa.Buffer) -> str:
        self._fs.makedirs(self._parent(path), exist_ok=True)
        self._fs.pipe_file(self._full(path), data.to_pybytes())
        return path

    def _publish_parts(self, staged: Mapping[str, str]) -> None:
        for path in staged:
            self.size(path)

    def _stage_file(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        name = f"{path.rpartition('/')[2]}.{token_hex(4)}"
        staged = layout.join(layout.STAGING, write_id, name)
        self.put(staged, data.to_pybytes())
        return staged

    def _publish_file(self, path: str, staged: str, *, overwrite: bool) -> None:
        try:
            data = self.read(staged)
        except FileNotFoundError:
            self.size(path)  # published by an earlier run of finalize, or an error
            return
        if overwrite:
            self.put(path, data)
            return
        try:
            self.put_if(path, data, None)
        except VersionConflict:
            if self.read(path) != data:  # else an earlier run of finalize did it
                raise

    def _remove(self, paths: Collection[str]) -> None:
        if paths:
            with self._explained("delete", self._root), suppress(FileNotFoundError):
                self._fs.rm([self._full(path) for path in paths])

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _parent(self, path: str) -> str:
        return self._full(path).rpartition("/")[0]

    @contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        """Turn a failure of the storage into one of our errors that says what to mend."""
        try:
            yield
        except (VersionConflict, PamolaWriterError):
            raise
        except Exception as error:
            if isinstance(error, _ABSENT) and action in _READING:
                raise
            raise self._unavailable(action, path, error) from error

    def _unavailable(self, action: str, path: str, error: Exception) -> TargetUnavailableError:
        reason = str(error) or type(error).__name__
        return TargetUnavailableError(
            f"cannot {action} {path!r} in {self._root!r}: {reason}",
            answered=self._was_answered(error),
        )

    def _was_answered(self, error: Exception) -> bool:
        """Return whether the store itself refused, so that nothing was changed."""
        return isinstance(error, PermissionError)
