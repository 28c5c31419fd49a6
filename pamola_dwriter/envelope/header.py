"""The readable header of a sealed file, and the prefix that holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pamola_dwriter.envelope.segments import SEGMENT
from pamola_dwriter.errors import IntegrityError, UnsupportedVersionError

MAGIC = b"PDW1"
MAX_HEADER = 1 << 20

_SEGMENTS = range(1 << 12, (1 << 26) + 1)
"""Sizes that a segment may have: one is held in memory."""

_HEAD = 4096  # one request brings nearly every header, and the stream header after it

ReadRange = Callable[[int, int], bytes | memoryview]
"""Returns stored bytes ``start:end``; fewer where the object ends, as a slice does."""


@dataclass(frozen=True, slots=True)
class SealedHeader:
    """What stands before the stream; not to be believed until the stream has been opened.

    Attributes
    ----------
    fields : dict
        The parsed header.
    prefix : bytes
        Everything before the stream, magic included: its associated data.
    following : bytes
        What came along behind the prefix; saves the reader a request.
    """

    fields: dict[str, Any]
    prefix: bytes = field(repr=False)
    following: bytes = field(default=b"", repr=False, compare=False)

    @property
    def segment(self) -> int:
        """Stored bytes of a full segment; IntegrityError if none can have so many."""
        try:
            return segment_size(self.fields)
        except ValueError:
            raise IntegrityError(
                "the sealed header is damaged: it names an impossible segment size"
            ) from None

    def check(self, expect: Mapping[str, Any]) -> None:
        """Raise IntegrityError, naming the first field that is not as expected."""
        for name, value in expect.items():
            if name not in self.fields or _canonical(self.fields[name]) != _canonical(value):
                raise IntegrityError(f"the sealed header has another {name!r} than expected")


def segment_size(header: Mapping[str, Any]) -> int:
    """Return the stored bytes of a full segment, which a header may name as ``segment``.

    Raises
    ------
    ValueError
        It is no size of a segment.
    """
    size = header.get("segment", SEGMENT)
    if type(size) is not int or size not in _SEGMENTS:
        low, high = _SEGMENTS[0], _SEGMENTS[-1]
        raise ValueError(f"segment takes an integer from {low} to {high}, not {size!r}")
    return size


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Return the prefix of a sealed file; parsed by :func:`read_header`."""
    encoded = _canonical(dict(header))
    if len(encoded) > MAX_HEADER:
        raise ValueError(f"the header has {len(encoded)} bytes of JSON; at most {MAX_HEADER} fit")
    return MAGIC + len(encoded).to_bytes(4, "big") + encoded


def read_header(read: ReadRange) -> SealedHeader:
    """Parse the header of sealed bytes, without authenticating it; made by `encode_header`.

    Raises
    ------
    IntegrityError
        These are not sealed bytes.
    UnsupportedVersionError
        They were sealed by a newer version of this package.
    """
    head = bytes(read(0, _HEAD))
    if head[:3] == MAGIC[:3] and head[3:4].isdigit() and head[3:4] != MAGIC[3:]:
        raise UnsupportedVersionError("sealed by a newer version; update pamola_dwriter")
    if head[:4] != MAGIC or len(head) < 8:
        raise IntegrityError("this is not a sealed file: it does not begin as one")
    end = 8 + int.from_bytes(head[4:8], "big")
    if end > 8 + MAX_HEADER:
        raise IntegrityError("the sealed header is damaged: its length is impossible")
    if len(head) < end:
        head += read(len(head), end)
    return SealedHeader(_parse(head[8:end]), head[:end], head[end:])


def _parse(encoded: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(encoded)
        # One spelling only (no duplicate names, no NaN), so that no two parsers read it apart.
        if isinstance(fields, dict) and _canonical(fields) == encoded:
            return fields
    except (ValueError, RecursionError):
        pass
    raise IntegrityError("the sealed header is damaged: it is not the JSON we write")


def _canonical(value: Any) -> bytes:
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()
