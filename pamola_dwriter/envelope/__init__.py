"""The sealed format: a header anybody may read, and a stream only the key opens.

::

    b"PDW1" | uint32 BE length | header, canonical JSON | Tink AES256-GCM-HKDF stream
    └──────────── prefix = associated data ───────────┘

    stream  = 40 | salt (32) | nonce prefix (7) | segments, the first 40 bytes shorter
    segment = AES-256-GCM under HKDF-SHA256(key, salt, info=prefix), its 16-byte tag last,
              nonce = nonce prefix | uint32 BE segment number | 1 if it is the last, else 0

Segments have 1 MiB, or the size that the header names as ``segment``: 64 KiB in parts that are read
by columns. The stream is that of Tink's ``AesGcmHkdfStreamingKey`` (``AES256_GCM_HKDF_1MB``, RAW,
but for that size), so any Tink library opens it given the key and the prefix. Its tags vouch for
the header too: one that was edited, or put before another stream, opens nothing. See
https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pamola_dwriter.envelope.datakeys import (
    authenticate,
    check_authentic,
    footer_key,
    unwrap_data_key,
    wrap_data_key,
)
from pamola_dwriter.envelope.header import (
    MAGIC,
    MAX_HEADER,
    ReadRange,
    SealedHeader,
    encode_header,
    read_header,
    segment_size,
)
from pamola_dwriter.envelope.reader import SealedReader
from pamola_dwriter.envelope.segments import (
    NONCE_PREFIX,
    SALT,
    SEGMENT,
    SMALL_SEGMENT,
    STREAM_HEADER,
    Layout,
    Stream,
    plain_size,
    sealed_size,
    view,
)

__all__ = [
    "MAGIC",
    "MAX_HEADER",
    "SEGMENT",
    "SMALL_SEGMENT",
    "ReadRange",
    "SealedHeader",
    "SealedReader",
    "authenticate",
    "check_authentic",
    "encode_header",
    "footer_key",
    "open_sealed",
    "plain_size",
    "read_header",
    "seal",
    "seal_with",
    "sealed_size",
    "unwrap_data_key",
    "wrap_data_key",
]


def seal(data: Any, key: bytes, header: Mapping[str, Any]) -> pa.Buffer:
    """Seal `data` under a 32-byte key behind a readable, authenticated header.

    Parameters
    ----------
    data : bytes-like or pyarrow.Buffer
        What is sealed; it is read in place.
    key : bytes
        The dataset key.
    header : mapping
        JSON values; anybody can read them. ``segment`` is the stored size of a full segment,
        which is :data:`SEGMENT` if it is missing.

    Raises
    ------
    ValueError
        The header is not JSON, is too long, or names an impossible segment size.
    """
    return seal_with(
        data, key, header, salt=os.urandom(SALT), nonce_prefix=os.urandom(NONCE_PREFIX)
    )


def seal_with(
    data: Any, key: bytes, header: Mapping[str, Any], *, salt: bytes, nonce_prefix: bytes
) -> pa.Buffer:
    """Seal deterministically; use :func:`seal`, unless you make test vectors.

    A salt (32 bytes) and nonce prefix (7 bytes) that serve twice give the plaintext away.
    """
    if len(salt) != SALT or len(nonce_prefix) != NONCE_PREFIX:
        raise ValueError(f"salt takes {SALT} bytes, nonce_prefix {NONCE_PREFIX}")
    prefix, plain = encode_header(header), view(data)
    layout = Layout(len(prefix), len(plain), segment_size(header))
    stream = Stream(layout, key, prefix, salt, nonce_prefix)
    buffer = pa.allocate_buffer(layout.total)
    out = view(buffer)
    out[: len(prefix) + STREAM_HEADER] = prefix + bytes([STREAM_HEADER]) + salt + nonce_prefix
    for index in range(layout.segments):
        stream.seal(index, plain[layout.plain_range(index)], out[layout.stored_range(index)])
    return buffer


def open_sealed(data: Any, key: bytes, *, expect: Mapping[str, Any] | None = None) -> bytes:
    """Return the plaintext of small sealed bytes, whose header has the `expect` fields.

    Raises
    ------
    IntegrityError
        Altered, moved, truncated, sealed under another key, or not as expected.
    """
    stored = view(data)

    def read(start: int, end: int) -> memoryview:
        return stored[start:end]

    header = read_header(read)
    header.check(expect or {})
    return SealedReader(read, len(stored), key, header).readall()
