"""Write ``sealed_v1.json`` and ``wrapped_v1.json``: known answers, for any implementation.

Run ``python tests/vectors/make_vectors.py`` to make them anew. Their content must never change
as long as files begin with ``PDW1``. Long plaintexts are given by `size` alone: byte number
``i`` is ``i % 251``. The wrapped keys wrap bytes 0 to 31, under raw bytes 200 to 231 and under
a passphrase, with a salt and a nonce of zeros.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pamola_dwriter.envelope import SEGMENT, encode_header, seal_with
from pamola_dwriter.keys import Cost, Passphrase, RawKey, wrapped_to_json

DIRECTORY = Path(__file__).parent
KEY = bytes(range(32))
SALT = bytes(range(100, 132))
NONCE_PREFIX = bytes(range(200, 207))
SHORT = 200
FIRST = SEGMENT - 40 - 16


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


def sealed() -> list[dict[str, Any]]:
    """Return all known answers of the sealed format."""
    header = {"write_id": "0123456789abcdef", "path": "größe/part-00000", "kind": "part"}
    sizes = [0, 1, SHORT, FIRST - 1, FIRST, FIRST + 1, FIRST + SEGMENT - 16, 3 * SEGMENT]
    return [vector(0, {}), *(vector(size, header) for size in sizes)]


def wrapped() -> list[dict[str, Any]]:
    """Return one known answer of each wrapping method."""
    cheap = Cost(iterations=1, memory_kib=64, lanes=1)
    context = b"pamola_dwriter.dataset:0123456789abcdef"
    return [
        wrapped_to_json(provider.wrap_with(KEY, context, salt=bytes(16), nonce=bytes(12)))
        for provider in (
            RawKey(bytes(range(200, 232))),
            Passphrase("correct horse battery", cost=cheap),
        )
    ]


if __name__ == "__main__":
    for name, answers in (("sealed_v1.json", sealed()), ("wrapped_v1.json", wrapped())):
        text = json.dumps(answers, indent=1, ensure_ascii=False)
        (DIRECTORY / name).write_text(text + "\n", encoding="utf-8")
