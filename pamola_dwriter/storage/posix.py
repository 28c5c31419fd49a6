"""Local and shared POSIX file systems: fsync, rename, hard link, advisory lock.

Staged files lie in ``_staging/<write id>/`` of the task directory, thus on the same file
system as their destination, and are renamed into place. A manifest that must not exist yet is
hard-linked, which fails if it does; one that must be replaced is compared and renamed under an
advisory lock (``_manifest.json.lock``, left in place: removing a lock file splits its waiters).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile

import pyarrow as pa
from filelock import FileLock

from pamola_dwriter import layout
from pamola_dwriter.contracts import VersionConflict
from pamola_dwriter.errors import TargetUnavailableError
from pamola_dwriter.spec import WriteId
from pamola_dwriter.storage.objects import ObjectStore


class PosixStore(ObjectStore):
    """A task directory in a directory that every worker can reach under the same path."""

    def check_writable(self, path: str) -> None:
        target = Path(self._full(path))
        for ancestor in target.parents:
            if ancestor.is_dir():
                _check_directory(ancestor)
                return
            if ancestor.exists():
                raise TargetUnavailableError(
                    f"{str(ancestor)!r} is a file, so nothing can be written below it; "
                    "choose another task_dir or move the file away"
                )

    def listdir(self, path: str) -> list[str]:
        directory = Path(self._full(path))
        return sorted(
            file.relative_to(directory).as_posix()
            for file in directory.rglob("*")
            if not file.is_dir()
        )

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        name = f"{path.rpartition('/')[2]}.{token_hex(4)}"
        staged = layout.join(layout.STAGING, write_id, name)
        with self._explained("write", path):
            self._write_durably(self._full(staged), data)
        return staged

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        directories: set[str] = set()
        for path, token in staged.items():
            with self._explained("publish", path):
                self._move(self._full(token), self._full(path), overwrite=overwrite)
            directories.add(self._parent(path))
        for directory in directories:
            _sync_directory(directory)

    def put(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            os.replace(self._write_beside(path, data), self._full(path))
            _sync_directory(self._parent(path))

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        with self._explained("write", path):
            temporary = self._write_beside(path, data)
            try:
                if expected is None:
                    _link(temporary, self._full(path))
                else:
                    with FileLock(self._full(path) + ".lock"):
                        self._check_version(path, expected)
                        os.replace(temporary, self._full(path))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            _sync_directory(self._parent(path))

    def _check_version(self, path: str, expected: str) -> None:
        present = self.read_versioned(path)
        if present is None or present.version != expected:
            raise VersionConflict(path)

    def _write_beside(self, path: str, data: bytes) -> str:
        folder, _, name = self._full(path).rpartition("/")
        temporary = f"{folder}/_{name}.{token_hex(4)}.tmp"
        self._write_durably(temporary, data)
        return temporary

    def _write_durably(self, full_path: str, data: bytes | pa.Buffer) -> None:
        os.makedirs(os.path.dirname(full_path), exist_ok=True)
        try:
            with open(full_path, "xb") as file:
                file.write(memoryview(data))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                os.unlink(full_path)
            raise

    def _move(self, source: str, destination: str, *, overwrite: bool) -> None:
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        try:
            if overwrite:
                os.replace(source, destination)
            else:
                _link(source, destination)
                os.unlink(source)
        except FileNotFoundError:
            os.stat(destination)  # published by another run of finalize, or an error

    def _remove(self, paths: Collection[str]) -> None:
        for path in paths:
            with self._explained("delete", path), suppress(FileNotFoundError):
                os.unlink(self._full(path))

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        super().sweep(directory, write_ids, keep)
        for folder, _, _ in os.walk(self._full(directory), topdown=False):
            _remove_if_empty(folder)

    def sweep_staged(self, directory: str, write_id: WriteId) -> None:
        super().sweep_staged(directory, write_id)
        _remove_if_empty(self._full(layout.join(layout.STAGING, write_id)))
        _remove_if_empty(self._full(layout.STAGING))

    def _was_answered(self, error: Exception) -> bool:
        return True  # a system call that failed did nothing


def _check_directory(directory: Path) -> None:
    """Make a file that never has a name: os.access says yes to root on read-only mounts."""
    try:
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise TargetUnavailableError(
            f"cannot write in {str(directory)!r} ({error.strerror}): give this user write "
            "permission, remount it read-write, or choose another task_dir"
        ) from error


def _remove_if_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except FileExistsError:
        if not os.path.samefile(source, destination):  # else an earlier run of finalize did it
            raise VersionConflict(destination) from None


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
