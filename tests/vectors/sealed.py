"""Known answers of the sealed format, and what must not open, for :mod:`.make_vectors`."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pamola_dwriter.envelope import SEGMENT, SMALL_SEGMENT, encode_header, seal_with

KEY = bytes(range(32))
SALT = bytes(range(100, 132))
NONCE_PREFIX = bytes(range(200, 207))
SHORT = 200
FIRST = SEGMENT - 40 - 16

PART: dict[str, Any] = {"write_id": "0123456789abcdef", "path": "größe/part-00000", "kind": "part"}
SMALL = PART | {"segment": SMALL_SEGMENT}
_SMALL_FIRST = SMALL_SEGMENT - 40 - 16
SEGMENTED = [
    *((SMALL_SEGMENT, size) for size in (0, _SMALL_FIRST - 1, _SMALL_FIRST, _SMALL_FIRST + 1)),
    (SMALL_SEGMENT, _SMALL_FIRST + SMALL_SEGMENT - 16 + SHORT),
    *((4096, size) for size in (SHORT, 4096 - 40 - 16, 4096 - 40 - 15, 3 * 4096)),
    (67_108_864, SHORT),
]
"""Sizes of segments that a header names, each with a size of plaintext."""


def pattern(size: int) -> bytes:
    """Return the plaintext of `size` bytes."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def vector(size: int, header: dict[str, Any]) -> dict[str, Any]:
    """Return one known answer; the sealed bytes are spelt out only if they are few."""
    buffer = seal_with(pattern(size), KEY, header, salt=SALT, nonce_prefix=NONCE_PREFIX)
    stored = buffer.to_pybytes()
    answer = {
        "header": header,
        "prefix": encode_header(header).hex(),
        "key": KEY.hex(),
        "salt": SALT.hex(),
        "nonce_prefix": NONCE_PREFIX.hex(),
        "size": size,
        "plaintext_sha256": hashlib.sha256(pattern(size)).hexdigest(),
        "sealed_size": len(stored),
        "sealed_sha256": hashlib.sha256(stored).hexdigest(),
    }
    return answer | ({"sealed": stored.hex()} if size <= SHORT else {})


def answers() -> list[dict[str, Any]]:
    """Return all known answers of the sealed format."""
    sizes = [0, 1, SHORT, FIRST - 1, FIRST, FIRST + 1, FIRST + SEGMENT - 16, 3 * SEGMENT]
    more = [FIRST + SEGMENT - 17, FIRST + SEGMENT - 15]
    return [
        vector(0, {}),
        *(vector(size, PART) for size in [*sizes, *more]),
        *(vector(1, each) for each in HEADERS),
        *(vector(size, PART | {"segment": size_of}) for size_of, size in SEGMENTED),
    ]


HEADERS: list[dict[str, Any]] = [
    {"kind": "part", "partition": 0, "path": "p", "write_id": "0" * 16},
    {"\U0001f511": "outside the basic plane", "\uffff": "before it by code point"},
    {"quoted": '"\\/\b\f\n\r\t\x00\x1f\x7f\u2028', "é": "e\u0301"},
    {"nested": [{"b": [], "a": {}}, None, True, False], "n": [0, -1, 2**53, 2**64, 1.5]},
    {"long": "x" * 5000},
]
"""Headers whose one spelling another implementation is likely to miss."""


def refused() -> list[dict[str, Any]]:
    """Return what must not open: `edits` are done one after another to entry `of`."""
    short, segments, answer = 3, 8, vector(SHORT, PART)
    prefix, size = (len(answer["prefix"]) // 2, answer["sealed_size"])
    text = bytes.fromhex(answer["prefix"])[8:]
    spellings = {
        "another order of names": b'{"path":"p","kind":"part"}',
        "blanks": text.replace(b":", b": ", 1),
        "an escape for a character": text.replace("ö".encode(), b"\\u00f6", 1),
        "a name twice": b'{"a":1,"a":1}',
        "not a number": b'{"a":NaN}',
        "no object": b"[]",
        "nothing": b"",
        "no UTF-8": b'{"a":"\xff"}',
        "half a surrogate pair": b'{"a":"\\ud800"}',
    }
    second, third, fourth = (prefix + n * SEGMENT for n in (1, 2, 3))
    return [
        _refused(short, "a letter of the magic", ["flip", 0, 1]),
        _refused(short, "the version", ["put", 3, b"2".hex()]),
        _refused(short, "the length of the header", ["flip", 7, 1]),
        _refused(short, "an impossible length of the header", ["put", 4, "ffffffff"]),
        _refused(short, "a field of the header", ["put", text.index(b"0123") + 8, b"1".hex()]),
        _refused(short, "the length of the stream header", ["flip", prefix, 1]),
        _refused(short, "the salt", ["flip", prefix + 1, 128]),
        _refused(short, "the nonce prefix", ["flip", prefix + 39, 1]),
        _refused(short, "the ciphertext", ["flip", prefix + 40, 1]),
        _refused(short, "the tag", ["flip", size - 1, 1]),
        *(
            _refused(short, f"cut to {cut} bytes", ["cut", cut])
            for cut in (0, 4, 8, prefix, prefix + 40, prefix + 56, size - 16, size - 1)
        ),
        _refused(short, "a byte more", ["put", size, "00"]),
        *(
            _refused(short, f"a header spelt with {how}", ["header", spelling.hex()])
            for how, spelling in spellings.items()
        ),
        _refused(segments, "a bit of the middle", ["flip", second + 5, 16]),
        _refused(segments, "a bit of the last segment", ["flip", fourth + 5, 16]),
        _refused(segments, "cut after a segment", ["cut", second]),
        _refused(segments, "cut after two segments", ["cut", third]),
        _refused(segments, "two segments swapped", ["swap", second, third, SEGMENT]),
        _refused(segments, "a segment twice", ["copy", second, third, SEGMENT]),
        _refused(segments, "the last segment gone", ["cut", fourth]),
        *refused_segments(),
    ]


def refused_segments() -> list[dict[str, Any]]:
    """Return what must not open for its ``segment``, or for where that puts the segments."""
    short, several = 16, 20
    second, third = (len(encode_header(SMALL)) + n * SMALL_SEGMENT for n in (1, 2))
    edits: dict[str, dict[str, Any]] = {
        "doubled": {"segment": 2 * SMALL_SEGMENT},
        "halved": {"segment": SMALL_SEGMENT // 2},
        "off by one": {"segment": SMALL_SEGMENT + 1},
        "that of no name": {"segment": SEGMENT},
    }
    headers = {how: SMALL | fields for how, fields in edits.items()} | {"removed": PART}
    return [
        *(
            _refused(of, f"{which}, segment {how}", ["header", encode_header(header)[8:].hex()])
            for of, which in ((short, "one segment"), (several, "three segments"))
            for how, header in headers.items()
        ),
        *(
            _refused(short, f"sealed with segment {wrong!r}", ["cut", 0], ["put", 0, _empty(wrong)])
            for wrong in (4095, 67_108_865, 0, -65_536, True, 65_536.0, "65536", None)
        ),
        _refused(several, "a bit of the middle, small segments", ["flip", second + 5, 16]),
        _refused(several, "small segments cut after one", ["cut", second]),
        _refused(several, "small segments cut after two", ["cut", third]),
        _refused(
            several,
            "the end of a small segment for another",
            ["copy", second - 100, third - 100, 100],
        ),
    ]


def _empty(segment: Any) -> str:
    """Return nothing, sealed under a header that names what is no size; its tag is right."""
    prefix = encode_header(PART | {"segment": segment})
    aes = AESGCM(HKDF(SHA256(), 32, SALT, prefix).derive(KEY))
    tag = aes.encrypt(NONCE_PREFIX + bytes([0, 0, 0, 0, 1]), b"", None)
    return (prefix + b"\x28" + SALT + NONCE_PREFIX + tag).hex()


def _refused(of: int, what: str, *edits: list[Any]) -> dict[str, Any]:
    return {"what": what, "of": of, "edits": list(edits)}
