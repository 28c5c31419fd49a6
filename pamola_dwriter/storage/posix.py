"""Local and shared POSIX file systems: fsync, rename, hard link, advisory lock.

Everything is written under ``_staging/`` of the task directory, thus on the same file system as
its destination, and then moved into place; what a killed process leaves there is part of nothing.
An update writes ``_<name>.updating`` beside the file instead: its lock is held, so one name will
do, and to make and remove the folder for each would take as long as all else but the syncs.
A file that must not exist yet is hard-linked, which fails if it does. One that must be unchanged
is compared and replaced under an advisory lock, which the kernel drops when its holder dies:
``_<name>.lock`` beside the file, left in place, since removing a lock file splits its waiters.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex
from stat import S_ISREG
from tempfile import TemporaryFile
from typing import TypeVar

import pyarrow as pa

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, VersionConflict
from pamola_dwriter.errors import ConcurrentWriteError, TargetUnavailableError
from pamola_dwriter.spec import WriteId
from pamola_dwriter.storage import failures, locks
from pamola_dwriter.storage.objects import ABSENT, ObjectStore
from pamola_dwriter.storage.updates import Change

_LOCK_PATIENCE = 600.0
"""Seconds to wait for a lock: its holder may be opening an encrypted file for each of many."""

_TRIES = 100
"""Times to make a folder that others remove as soon as it is empty."""

_REFUSALS = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EAGAIN", "EBUSY", "EDQUOT", "EEXIST", "EFBIG", "EINTR", "EISDIR", "ELOOP"),
        *("EMFILE", "EMLINK", "ENAMETOOLONG", "ENFILE", "ENOENT", "ENOLCK", "ENOSPC", "ENOTDIR"),
        *("EPERM", "EROFS", "EXDEV"),
    )
)
"""What a system call fails with that did nothing.

After others (EIO, ESTALE, ETIMEDOUT) a server of NFS may have done it all the same.
"""

T = TypeVar("T")


class PosixStore(ObjectStore):
    """A task directory in a directory that every worker can reach under the same path."""

    @property
    def atomic(self) -> bool:
        return True

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

    def make_folders(self, paths: Collection[str]) -> None:
        for path in paths:
            if not os.path.isdir(self._full(path)):
                self.check_writable(path)
                with self._explained("make folder", path):
                    os.makedirs(self._full(path), exist_ok=True)

    def is_file(self, path: str) -> bool:
        with self._explained("look up", path), suppress(*ABSENT):
            return S_ISREG(os.stat(self._full(path)).st_mode)
        return False

    def listdir(self, path: str) -> list[str]:
        directory = self._full(path)
        with self._explained("list", path):
            return sorted(
                os.path.relpath(f"{folder}/{name}", directory)
                for folder, _, names in os.walk(directory, onerror=_unless_gone)
                for name in names
            )

    def survey(self, path: str) -> list[Found]:
        found = []
        for file in self.listdir(path):
            full = layout.join(path, file)
            with self._explained("look up", full), suppress(FileNotFoundError):
                found.append(Found(path=full, modified=os.stat(self._full(full)).st_mtime))
        return found

    def now(self) -> float:
        with self._explained("write", layout.STAGING):
            probe = self._full(layout.probe_path(token_hex(8)))
            descriptor = _in_directory(os.path.dirname(probe), partial(_create, probe))
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                os.unlink(probe)
                _remove_if_empty(self._full(layout.STAGING))

    def discard(self, found: Collection[Found]) -> None:
        super().discard(found)
        for folder, _, _ in os.walk(self._full(layout.STAGING), topdown=False):
            _remove_if_empty(folder)
        for each in found:
            # A dataset whose first write never ended, and the folders of its partitions.
            folder = each.path.rpartition("/")[0]
            while "/" in folder:
                _remove_if_empty(self._full(folder))
                folder = folder.rpartition("/")[0]

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        return {path for path, token in staged.items() if self.is_file(token) or self.is_file(path)}

    def note(self, path: str, data: bytes) -> None:
        with self._explained("write", path):
            full = self._full(path)
            with _in_directory(os.path.dirname(full), lambda: open(full, "wb")) as file:
                file.write(data)

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        staged = layout.join(layout.STAGING, write_id, layout.staged_name(path, token_hex(4)))
        with self._explained("write", path):
            self._write_durably(self._full(staged), data)
        return staged

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        directories: set[str] = set()
        for path, token in staged.items():
            with self._explained("publish", path), self._after_updates(path):
                self._publish(self._full(token), self._full(path), overwrite=overwrite)
            directories.add(self._parent(path))
        for directory in directories:
            _confirm(directory)

    def put(self, path: str, data: bytes) -> None:
        def replace(source: str, destination: str) -> None:
            # Looked for when all is written: an update that began meanwhile has read the old file.
            with self._after_updates(path):
                os.replace(source, destination)

        self._place(path, data, replace)

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        if expected is None:
            self._place(path, data, _link)
            return
        with self._locked(path):
            identity = _identity(self._full(path))
            present = self.read_versioned(path)
            if present is None or present.version != expected:
                raise VersionConflict(path)
            self._place(path, data, partial(_replace_if, identity))

    def update(self, path: str, change: Change) -> bytes:
        with self._locked(path):
            temporary = self._beside(path, layout.updating_name)
            while True:
                identity = _identity(self._full(path))
                present = self._read_if_there(path)
                data = change(present)
                move = _link if present is None else partial(_replace_if, identity)
                with suppress(VersionConflict):  # written without the lock meanwhile
                    self._place(path, data, move, temporary)
                    return data

    def remove(self, paths: Collection[str]) -> None:
        for path in paths:
            with (
                self._explained("delete", path),
                self._after_updates(path),
                suppress(FileNotFoundError),
            ):
                os.unlink(self._full(path))

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        super().sweep(directory, write_ids, keep)
        for folder, _, _ in os.walk(self._full(directory), topdown=False):
            _remove_if_empty(folder)

    def sweep_staged(self, write_id: WriteId) -> None:
        super().sweep_staged(write_id)
        _remove_if_empty(self._full(layout.join(layout.STAGING, write_id)))
        _remove_if_empty(self._full(layout.STAGING))

    def _place(
        self,
        path: str,
        data: bytes,
        move: Callable[[str, str], None],
        temporary: str | None = None,
    ) -> None:
        """Write a whole file and move it to `path`, durably."""
        temporary = temporary or self._full(layout.temporary_path(token_hex(8)))
        with self._explained("write", path):
            with _only_meanwhile(temporary):
                self._write_durably(temporary, data)
                _in_directory(self._parent(path), partial(move, temporary, self._full(path)))
            _confirm(self._parent(path))

    def _write_durably(self, full_path: str, data: bytes | pa.Buffer) -> None:
        """Write a file that is moved at once: the folders it is in need not outlast a crash."""
        create = partial(_create, full_path)
        descriptor = _in_directory(os.path.dirname(full_path), create, durable=self._root)
        try:
            with open(descriptor, "wb") as file:
                file.write(memoryview(data))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                os.unlink(full_path)
            raise

    def _publish(self, source: str, destination: str, *, overwrite: bool) -> None:
        def move() -> None:
            if overwrite:
                os.replace(source, destination)
            else:
                _link(source, destination)
                os.unlink(source)

        try:
            _in_directory(os.path.dirname(destination), move)
        except FileNotFoundError:
            os.stat(destination)  # published by another run of finalize, or an error

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        acquire = partial(locks.acquire, self._beside(path, layout.lock_name), _LOCK_PATIENCE)
        with self._explained("lock", path):
            try:
                descriptor = _in_directory(self._parent(path), acquire)
            except locks.LockHeldError:
                raise ConcurrentWriteError(
                    f"another process has held the lock of {self._full(path)!r} for "
                    f"{_LOCK_PATIENCE:.0f} seconds; see whether it hangs, then try again"
                ) from None
        try:
            yield
        finally:
            locks.release(descriptor)

    def _after_updates(self, path: str) -> AbstractContextManager[None]:
        """Wait for an update that is under way, which would undo this; most files never see one."""
        lock = self._beside(path, layout.lock_name)
        return self._locked(path) if os.path.exists(lock) else nullcontext()

    def _beside(self, path: str, namer: Callable[[str], str]) -> str:
        folder, _, name = self._full(path).rpartition("/")
        return f"{folder}/{namer(name)}"

    def _was_answered(self, error: Exception) -> bool:
        return isinstance(error, OSError) and error.errno in _REFUSALS


def _create(full_path: str) -> int:
    return os.open(full_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _check_directory(directory: Path) -> None:
    """Make a file that never has a name: os.access says yes to root on read-only mounts."""
    try:
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise TargetUnavailableError(
            f"cannot write in {str(directory)!r}: {error.strerror}{failures.remedy(error)}",
            transient=failures.is_transient(error),
        ) from error


def _unless_gone(error: OSError) -> None:
    """Let a walk go on past a folder that a sweep takes away, or a file in the place of one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _in_directory(directory: str, action: Callable[[], T], *, durable: str | None = None) -> T:
    """Make `directory` and act in it; again if a sweep took it away in between.

    A file is only as durable as its path, so what was made is synced: after the action, since
    that takes long, and down to the directory `durable`, by default `directory` itself.
    """
    made: set[str] = set()
    for tries_left in reversed(range(_TRIES)):
        try:
            made.update(_make_directory(directory))
            result = action()
        except FileNotFoundError:
            if not tries_left:
                raise
        else:
            break
    for folder in made:
        if f"{durable or directory}/".startswith(f"{folder}/"):
            _confirm(os.path.dirname(folder))
    return result


def _make_directory(directory: str) -> list[str]:
    """Make a directory and those above it; return which were missing."""
    missing: list[str] = []
    above = directory
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(folder)
    return missing


def _remove_if_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)


@contextmanager
def _only_meanwhile(temporary: str) -> Iterator[None]:
    """Have no file of this name before and after; nor the folder, if that leaves it empty."""
    # Before: what a killed process left may be a second name of the very file that it made.
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        _remove_if_empty(os.path.dirname(temporary))


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except FileExistsError:
        if not os.path.samefile(source, destination):  # else an earlier run of finalize did it
            raise VersionConflict(destination) from None


def _identity(full_path: str) -> tuple[int, int] | None:
    """Return what tells a file from any that is put in its place; None if there is none."""
    try:
        status = os.stat(full_path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _replace_if(identity: tuple[int, int] | None, source: str, destination: str) -> None:
    """Replace the very file that has an identity, for all that can be known.

    Whoever looked for the lock just before it was there may put a file without it.
    """
    if _identity(destination) != identity:
        raise VersionConflict(destination)
    os.replace(source, destination)


def _confirm(directory: str) -> None:
    """Make durable what was moved into `directory`; if that fails, it stands there all the same."""
    try:
        _sync_directory(directory)
    except OSError as error:
        raise TargetUnavailableError(
            f"{directory!r} was changed, and the disk did not confirm it: {error.strerror}",
            answered=False,
            transient=failures.is_transient(error),
        ) from error


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
