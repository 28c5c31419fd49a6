"""A file opened for reading, each of whose reads is done by somebody else's leave."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO


class GuardedFile(io.RawIOBase):
    """Passes every read on to another file, by way of `guard`.

    Parameters
    ----------
    file : file object
        Seekable, opened for reading; closed together with this.
    guard : callable
        Is given a function that reads, and returns what that returns; it may call it several
        times, which begins at the same place each time.
    """

    def __init__(self, file: BinaryIO, guard: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._file = file
        self._guard = guard

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another place, which no request is sent for."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place of the next read."""
        return int(self._file.tell())

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes at once."""
        return self._again(self._file.read, -1 if size is None else size)

    def readall(self) -> bytes:
        """Read to the end."""
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        """Read into `buffer`."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read one line."""
        return self._again(self._file.readline, -1 if size is None else size)

    def close(self) -> None:
        """Close the file as well."""
        try:
            self._file.close()
        finally:
            super().close()

    def _again(self, read: Callable[[int], bytes], size: int) -> bytes:
        start = self.tell()

        def from_start() -> bytes:
            self._file.seek(start)
            return read(size)

        return bytes(self._guard(from_start))
