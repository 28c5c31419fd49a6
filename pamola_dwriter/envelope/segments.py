"""Where the segments of a stream lie, and how one of them is sealed and opened. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pamola_dwriter.errors import IntegrityError, InvalidKeyError

SEGMENT = 1 << 20
"""Stored bytes of a full segment, unless the header names another size."""
SMALL_SEGMENT = 1 << 16
"""For what is read in pieces, such as one column: less that nobody asked for is fetched."""
SALT, NONCE_PREFIX, TAG = 32, 7, 16
STREAM_HEADER = 1 + SALT + NONCE_PREFIX

_MAX_SEGMENTS = 1 << 32


def sealed_size(plain_size: int, header_size: int, segment: int = SEGMENT) -> int:
    """Return the bytes that `plain_size` bytes take sealed behind a prefix of `header_size`."""
    return Layout(header_size, plain_size, segment).total


def plain_size(sealed_size: int, header_size: int, segment: int = SEGMENT) -> int:
    """Return the bytes inside `sealed_size` stored ones; the inverse of :func:`sealed_size`.

    Raises
    ------
    IntegrityError
        Nothing sealed has that size.
    """
    segments = -(-(sealed_size - header_size) // segment)
    plain = sealed_size - header_size - STREAM_HEADER - segments * TAG
    fits = plain >= 0 and segments <= _MAX_SEGMENTS
    if not fits or Layout(header_size, plain, segment).total != sealed_size:
        raise IntegrityError("nothing sealed has this size: it was truncated or extended")
    return plain


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each segment lies in the plaintext and in the sealed bytes.

    Attributes
    ----------
    offset : int
        Where the stream begins: the size of the prefix.
    plain : int
        Bytes of plaintext.
    segment : int
        Stored bytes of a full segment.
    """

    offset: int
    plain: int
    segment: int = SEGMENT

    @property
    def segments(self) -> int:
        """Number of segments; one even if there is no plaintext."""
        return -(-(self.plain + STREAM_HEADER) // self._full)

    @property
    def _full(self) -> int:
        return self.segment - TAG

    @property
    def total(self) -> int:
        """Bytes of prefix and stream."""
        return self.offset + STREAM_HEADER + self.plain + self.segments * TAG

    def plain_range(self, index: int) -> slice:
        """Return where segment `index` lies in the plaintext."""
        start = index * self._full - STREAM_HEADER
        return slice(max(0, start), min(self.plain, start + self._full))

    def stored_range(self, index: int) -> slice:
        """Return where segment `index` and its tag lie in the sealed bytes."""
        start = self.offset + index * self.segment
        end = min(self.total, start + self.segment)
        return slice(start if index else start + STREAM_HEADER, end)

    def touched(self, start: int, end: int) -> range:
        """Return the segments that hold plaintext ``start:end``, which is not empty."""
        first, last = ((p + STREAM_HEADER) // self._full for p in (start, end - 1))
        return range(first, last + 1)


class Stream:
    """Seals and opens single segments, in place."""

    def __init__(self, layout: Layout, key: bytes, prefix: bytes, salt: bytes, nonce: bytes):
        if len(key) != 32:
            raise InvalidKeyError("the dataset key must have 32 bytes")
        self._last = layout.segments - 1
        self._nonce = nonce
        self._aes = AESGCM(HKDF(SHA256(), 32, salt, prefix).derive(key))

    def _nonce_of(self, index: int) -> bytes:
        return self._nonce + index.to_bytes(4, "big") + bytes([index == self._last])

    # Straight into our memory, under a key that is expanded once: 12 GB/s in segments of 64 KiB,
    # where a Cipher for each does 8.
    def seal(self, index: int, plain: memoryview, out: memoryview) -> None:
        """Fill `out` with one segment and its tag."""
        self._aes.encrypt_into(self._nonce_of(index), plain, None, out)

    def open(self, index: int, sealed: memoryview, out: memoryview) -> None:
        """Fill `out` with one segment's plaintext; not to be shown if this raises."""
        try:
            self._aes.decrypt_into(self._nonce_of(index), sealed, None, out)
        except InvalidTag:
            raise broken() from None


def broken() -> IntegrityError:
    """Return the one error of a failed decryption; it says nothing of why, on purpose."""
    return IntegrityError("the content does not authenticate: altered, moved or truncated")


def view(buffer: Any) -> memoryview:
    """Return the bytes of any contiguous buffer, in place."""
    return memoryview(buffer).cast("B")
