"""Sealed bytes as a seekable file."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from itertools import groupby
from typing import Any

import pyarrow as pa

from pamola_dwriter.envelope.header import ReadRange, SealedHeader
from pamola_dwriter.envelope.segments import (
    SALT,
    STREAM_HEADER,
    Layout,
    Stream,
    broken,
    plain_size,
    view,
)

_KEPT = 4 << 20
"""Bytes of opened segments that a reader keeps; one segment in any case."""


class SealedReader(io.RawIOBase):
    """Reads sealed bytes as a seekable file; fetches and opens only the segments touched.

    Every byte returned, and the end of the file where it is met, has been authenticated. Each
    run of adjoining segments is one `read`, and of the segments opened the last 4 MiB are kept.
    Nothing is fetched ahead: small sequential reads cost one `read` a segment, so over a network
    put an :class:`io.BufferedReader` of some MiB around.

    Parameters
    ----------
    read : callable
        ``read(start, end)`` returns stored bytes.
    size : int
        Number of stored bytes.
    key : bytes
        The dataset key.
    header : SealedHeader
        From :func:`read_header`; check it, since any sealed header opens its own stream.

    Raises
    ------
    IntegrityError
        From here and from each read: altered, moved, truncated, or sealed under another key.
    """

    def __init__(self, read: ReadRange, size: int, key: bytes, header: SealedHeader) -> None:
        super().__init__()
        self._stored = read
        offset = len(header.prefix)
        segment = header.segment
        self._layout = Layout(offset, plain_size(size, offset, segment), segment)
        self._most = max(1, _KEPT // segment)
        head = header.following[:STREAM_HEADER]
        if len(head) < STREAM_HEADER:
            head = bytes(self._fetch(offset, offset + STREAM_HEADER))
        if head[0] != STREAM_HEADER:
            raise broken()
        salt, nonce = head[1 : 1 + SALT], head[1 + SALT :]
        self._stream = Stream(self._layout, key, header.prefix, salt, nonce)
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        self._end_seen = False
        self._position = 0
        self._lock = threading.RLock()

    @property
    def size(self) -> int:
        """Bytes of plaintext, as the stored size has it."""
        return self._layout.plain

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the plaintext, and return it."""
        with self._lock:
            base = (0, self._position, self.size)[whence]
            if base + offset < 0:
                raise ValueError("a position cannot be negative")
            self._position = base + offset
            return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes; all that remain if negative or None."""
        return bytes(self.read_buffer(size).to_pybytes())

    def readall(self) -> bytes:
        """Return all that remains."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on, and return how many bytes there were."""
        out = view(buffer)
        data = self.read_buffer(len(out))
        out[: data.size] = view(data)
        return int(data.size)

    def read_buffer(self, size: int | None = -1) -> pa.Buffer:
        """Do as :meth:`read` without the copy; pyarrow calls this by itself."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        with self._lock:
            wanted = self.size if size is None or size < 0 else self._position + size
            start, end = min(self._position, self.size), min(wanted, self.size)
            out = self._plain(start, max(start, end))
            if wanted > end or end == self.size:
                self._authenticate_end()
            self._position += out.size
            return out

    def _plain(self, start: int, end: int) -> pa.Buffer:
        buffer = pa.allocate_buffer(end - start)
        out = view(buffer)
        missing = []
        for index in self._layout.touched(start, end) if end > start else ():
            if index in self._cache:
                self._cache.move_to_end(index)
                self._copy(index, self._cache[index], start, out)
            else:
                missing.append(index)
        # Adjoining segments share the distance between number and place: one group, one fetch.
        for _, run in groupby(enumerate(missing), key=lambda pair: pair[1] - pair[0]):
            self._open_run([index for _, index in run], start, out)
        return buffer

    def _open_run(self, run: list[int], start: int, out: memoryview) -> None:
        stored = [self._layout.stored_range(index) for index in run]
        base = stored[0].start
        sealed = self._fetch(base, stored[-1].stop)
        for index, at in zip(run, stored, strict=True):
            plain = self._layout.plain_range(index)
            piece = sealed[at.start - base : at.stop - base]
            if start <= plain.start and plain.stop <= start + len(out):
                self._stream.open(index, piece, out[plain.start - start : plain.stop - start])
            else:
                segment = view(pa.allocate_buffer(plain.stop - plain.start))
                self._stream.open(index, piece, segment)
                self._remember(index, segment)
                self._copy(index, segment, start, out)
            self._end_seen |= index == self._layout.segments - 1

    def _copy(self, index: int, segment: memoryview, start: int, out: memoryview) -> None:
        plain = self._layout.plain_range(index)
        low, high = max(plain.start, start), min(plain.stop, start + len(out))
        if low < high:
            out[low - start : high - start] = segment[low - plain.start : high - plain.start]

    def _remember(self, index: int, segment: memoryview) -> None:
        self._cache[index] = segment
        if len(self._cache) > self._most:
            self._cache.popitem(last=False)

    def _authenticate_end(self) -> None:
        # Only the last segment says that it is the last: without it, the end could be a cut.
        if not self._end_seen:
            self._open_run([self._layout.segments - 1], self.size, memoryview(bytearray()))

    def _fetch(self, start: int, end: int) -> memoryview:
        data = view(self._stored(start, end))
        if len(data) != end - start:
            raise broken()
        return data
