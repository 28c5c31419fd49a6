"""Any fsspec file system, with nothing assumed but whole-file reads and writes.

A part becomes visible when it is staged, under a name no other attempt uses, and counts only
once the manifest names it. A single file is staged under ``_staging/`` and copied into place.
Where fsspec gives no atomic create (most stores but S3), the condition of a manifest or an update
is checked and then written: two processes within that window are not told apart, and one of two
updates may be lost. The threads of one process take turns.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from secrets import token_hex
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
from fsspec import AbstractFileSystem

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, VersionConflict, Versioned
from pamola_dwriter.errors import PamolaWriterError, TargetUnavailableError
from pamola_dwriter.spec import Tuning, WriteId
from pamola_dwriter.storage import failures, file_systems, updates
from pamola_dwriter.storage.guarded import GuardedFile

_READING = frozenset({"read", "look up", "list"})
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What says that there is no such file, rather than that it could not be found out."""

_OBJECT_STORES = frozenset(
    {"abfs", "abfss", "az", "gcs", "gs", "memory", "oci", "oss", "s3", "s3a", "tos"}
)
"""Protocols that show a file whole or not at all, and have no folders.

There a small file is written in place, and nothing is made before it: asked for a folder, some
make the bucket, misspelt as it may be. Everywhere else (sftp, hdfs, smb ...) a reader would see
half a file, so it is renamed into place. One that is missing here costs a copy, nothing worse.
"""

T = TypeVar("T")


class ObjectStore:
    """A task directory on any fsspec file system.

    Parameters
    ----------
    file_system : fsspec.AbstractFileSystem
        Where it is.
    root : str
        Path of the task directory inside that file system.
    tuning : Tuning
        How much is sent in one request, where the store has multipart uploads.
    """

    @classmethod
    def complete_options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the file system is opened with, given the caller's storage options."""
        return {**given, "use_listings_cache": False}

    def __init__(self, file_system: AbstractFileSystem, root: str, tuning: Tuning) -> None:
        self._fs: Any = file_system
        self._root = root.rstrip("/")
        self._tuning = tuning
        protocol = file_system.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._has_folders = names.isdisjoint(_OBJECT_STORES)
        self._is_in_memory = "memory" in names  # and the threads of this process take turns

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._root!r}>"

    @property
    def atomic(self) -> bool:
        return self._is_in_memory

    def check_writable(self, path: str) -> None:
        """Write and delete a small file; the folders that takes are removed as well."""
        with self._explained("write", path):
            staging = self._full(layout.STAGING)
            made = file_systems.missing_folders(self._fs, staging) if self._has_folders else []
            try:
                with self._probe():
                    pass
            finally:
                for folder in made:
                    file_systems.remove_if_empty(self._fs, folder)

    @contextmanager
    def _probe(self) -> Iterator[str]:
        """Have a small file, and leave none: also not where the reply to its writing was lost."""
        probe = layout.probe_path(token_hex(8))
        try:
            self._write(probe, b"probe")
            yield self._full(probe)
            self._fs.rm_file(self._full(probe))
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(self._full(probe))
            raise

    def make_folders(self, paths: Collection[str]) -> None:
        """Make none: most such stores have no folders, or make them with the first file."""

    def is_file(self, path: str) -> bool:
        try:  # the isfile of fsspec says no as well when it could not find out
            with self._explained("look up", path):
                return bool(self._fs.info(self._full(path))["type"] == "file")
        except ABSENT:
            return False

    def files_among(self, paths: Collection[str]) -> set[str]:
        return {path for path in paths if self.is_file(path)}

    def listdir(self, path: str) -> list[str]:
        directory = self._full(path)
        try:
            with self._explained("list", path):
                found = self._fs.find(directory)
        except FileNotFoundError:
            return []
        return sorted(file[len(directory) :].lstrip("/") for file in found if file != directory)

    def survey(self, path: str) -> list[Found]:
        directory = self._full(path)
        try:
            with self._explained("list", path):
                found = self._fs.find(directory, detail=True)
                return [
                    Found(path=self._relative(file), modified=file_systems.modified(info))
                    for file, info in sorted(found.items())
                    if file != directory
                ]
        except FileNotFoundError:
            return []

    def now(self) -> float:
        with self._explained("write", layout.STAGING):
            try:
                with self._probe() as probe:
                    return file_systems.modified(self._fs.info(probe))
            finally:
                file_systems.remove_if_empty(self._fs, self._full(layout.STAGING))

    def size(self, path: str) -> int:
        with self._explained("look up", path):
            return int(self._fs.info(self._full(path))["size"])

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        with self._explained("read", path):
            return bytes(self._fs.cat_file(self._full(path), start=start, end=end))

    def open(self, path: str) -> BinaryIO:
        def explained(read: Callable[[], T]) -> T:
            with self._explained("read", path):
                return read()

        file = explained(lambda: self._fs.open(self._full(path), "rb", cache_type="none"))
        return cast("BinaryIO", GuardedFile(file, explained))

    def read_versioned(self, path: str) -> Versioned | None:
        data = self._read_if_there(path)
        return None if data is None else Versioned(data, hashlib.sha256(data).hexdigest())

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        with self._explained("write", path):
            if layout.write_id_of(path) is None:
                return self._stage_file(path, data, write_id)
            return self._stage_part(path, data)

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        parts = {path: token for path, token in staged.items() if layout.write_id_of(path)}
        self._publish_parts(parts)
        for path, token in staged.items():
            if path not in parts:
                self._publish_file(path, token, overwrite=overwrite)

    def put(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            if self._has_folders:
                self._write_beside_and_rename(path, data)
            else:
                self._write(path, data)

    def note(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            self._write(path, data)

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        with self._in_turn(path):
            self._put_if(path, data, expected)

    def _put_if(self, path: str, data: bytes, expected: str | None) -> None:
        present = self.read_versioned(path)
        if (present.version if present else None) != expected:
            raise VersionConflict(path)
        if expected is not None or self._has_folders:
            return self.put(path, data)
        with self._explained("write", path):
            try:
                self._fs.pipe_file(self._full(path), data, mode="create")
            except FileExistsError:
                raise VersionConflict(path) from None

    def update(self, path: str, change: updates.Change) -> bytes:
        with self._in_turn(path):
            return self._update(path, change)

    def _in_turn(self, path: str) -> AbstractContextManager[None]:
        return updates.in_turn(f"{type(self._fs).__name__}:{self._full(path)}")

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        return {layout.join(directory, path) for path in self.listdir(directory)} & staged.keys()

    def discard(self, found: Collection[Found]) -> None:
        self.remove([each.path for each in found if each.upload is None])

    def remove(self, paths: Collection[str]) -> None:
        # One by one: the bulk deletion of fsspec takes [ and ] for a pattern, and gives up at the
        # first file that is absent.
        for path in paths:
            with self._explained("delete", path), suppress(FileNotFoundError):
                self._fs.rm_file(self._full(path))

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        # A worker that was cut off could else publish something after the look at the parts.
        self._withdraw(directory, write_ids)
        self.remove(
            [
                layout.join(directory, path)
                for path in self.listdir(directory)
                if layout.write_id_of(path) in write_ids and path not in keep
            ]
        )
        # With the leases, which say of all the rest that it is garbage.
        for write_id in write_ids:
            self.sweep_staged(write_id)

    def _withdraw(self, directory: str, write_ids: Collection[WriteId]) -> None:
        """Take back what is staged and not published, but leave the leases."""
        for write_id in write_ids:
            staging = layout.join(layout.STAGING, write_id)
            staged = {layout.join(staging, path) for path in self.listdir(staging)}
            self.remove(staged - {layout.lease_path(write_id)})

    def sweep_staged(self, write_id: WriteId) -> None:
        staging = layout.join(layout.STAGING, write_id)
        self.remove([layout.join(staging, path) for path in self.listdir(staging)])

    def _stage_part(self, path: str, data: pa.Buffer) -> str:
        self._write(path, data.to_pybytes())
        return path

    def _publish_parts(self, staged: Mapping[str, str]) -> None:
        for path in staged:
            self.size(path)

    def _stage_file(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        staged = layout.join(layout.STAGING, write_id, layout.staged_name(path, token_hex(4)))
        self._write(staged, data.to_pybytes())
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

    def _update(self, path: str, change: updates.Change) -> bytes:
        deadline, tried = time.monotonic() + updates.PATIENCE, 0
        while True:
            present = self.read_versioned(path)
            data = change(present.data if present else None)
            try:
                self.put_if(path, data, present.version if present else None)
            except VersionConflict:
                if time.monotonic() > deadline:
                    raise updates.beaten(repr(path)) from None
            except TargetUnavailableError as error:
                if error.answered or self._still_stands(path, present):
                    raise
                raise updates.unknown(repr(path)) from error
            else:
                return data
            updates.pause(tried)
            tried += 1

    def _still_stands(self, path: str, present: Versioned | None) -> bool:
        try:
            return self.read_versioned(path) == present
        except TargetUnavailableError:
            return False

    def _write(self, path: str, data: bytes) -> None:
        """Write a file in place."""
        if not self._has_folders:
            self._fs.pipe_file(self._full(path), data)
            return
        for _ in range(3):
            self._fs.makedirs(self._parent(path), exist_ok=True)
            with suppress(FileNotFoundError):  # a check_writable took its folder away again
                self._fs.pipe_file(self._full(path), data)
                return
        self._fs.pipe_file(self._full(path), data)

    def _write_beside_and_rename(self, path: str, data: bytes) -> None:
        temporary = layout.temporary_path(token_hex(8))
        try:
            self._write(temporary, data)
            self._fs.makedirs(self._parent(path), exist_ok=True)
            file_systems.rename(self._fs, self._full(temporary), self._full(path))
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(self._full(temporary))
            raise

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _relative(self, full_path: str) -> str:
        return full_path[len(self._root) :].lstrip("/")

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
            if action in _READING and self._is_absent(error):
                raise
            raise self._unavailable(action, path, error) from error

    def _unavailable(self, action: str, path: str, error: Exception) -> TargetUnavailableError:
        reason = str(error) or type(error).__name__
        return TargetUnavailableError(
            f"cannot {action} {path!r} in {self._root!r}: {reason}{self._remedy(error)}",
            answered=self._was_answered(error),
            transient=self._is_transient(error),
        )

    def _was_answered(self, error: Exception) -> bool:
        """Return whether the store itself refused, so that nothing was changed."""
        return isinstance(error, PermissionError)

    def _remedy(self, error: Exception) -> str:
        """Return what a person can do about it, to be put behind a message, or an empty text."""
        return failures.remedy(error)

    def _is_absent(self, error: Exception) -> bool:
        """Return whether there is no such file, on a store that is there."""
        return isinstance(error, ABSENT)

    def _is_transient(self, error: BaseException) -> bool:
        """Return whether it may go better when it is tried again."""
        return failures.is_transient(error)
