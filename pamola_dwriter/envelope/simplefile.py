"""Files that the encryption mode ``simple`` of pamola-core wrote: read, and never written.

One JSON object with ``data`` (AES-256-GCM ciphertext and tag, without associated data), ``iv`` (12
bytes) and ``salt`` (16 bytes), all in base64, beside ``mode``, ``version`` ``"1.0"``,
``algorithm`` ``"AES-GCM"``, ``key_derivation`` ``"PBKDF2-SHA256"`` and ``iterations``. The key is
PBKDF2-HMAC-SHA256 of the text that was given as key, whatever it looks like. Established from
``pamola_core/utils/crypto_helpers/providers/simple_provider.py`` of pamola-core 1.0.0.dev4.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pamola_dwriter.errors import IntegrityError, WrongKeyError

_KEY, _IV, _SALT, _TAG = 32, 12, 16, 16
_MOST_ITERATIONS = 1_000_000
"""It writes 100,000; the number stands in a file that anybody may have edited."""
_MOST_DATA = 2**31 - 1
"""Beyond this `cryptography` panics, with what is no Exception, or raises OverflowError."""

_FIXED = {
    "mode": "simple",
    "version": "1.0",
    "algorithm": "AES-GCM",
    "key_derivation": "PBKDF2-SHA256",
}


def open_simple(stored: bytes, password: bytes) -> bytes:
    """Return the content of a file.

    It takes about four times the size of `stored` in memory.

    Raises
    ------
    IntegrityError
        It is not such a file.
    WrongKeyError
        The password is another, or the content was altered; which, nobody can tell.
    """
    fields = _parse(stored)
    iv, salt, data = (_decode(fields, name) for name in ("iv", "salt", "data"))
    rounds = fields.get("iterations")
    if len(iv) != _IV or len(salt) != _SALT or not _TAG <= len(data) <= _MOST_DATA:
        raise _damaged("its iv, salt or data have another size")
    if type(rounds) is not int or not 1 <= rounds <= _MOST_ITERATIONS:
        raise _damaged(f"its iterations are no number from 1 to {_MOST_ITERATIONS:,}")
    key = hashlib.pbkdf2_hmac("sha256", password, salt, rounds, _KEY)
    try:
        return AESGCM(key).decrypt(iv, data, None)
    except InvalidTag:
        raise WrongKeyError("the given key does not open this") from None


def _parse(stored: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(stored)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise _damaged("it is not one JSON object")
    for name, value in _FIXED.items():
        if fields.get(name) != value:
            raise _damaged(f"its {name} is not {value!r}")
    return fields


def _decode(fields: dict[str, Any], name: str) -> bytes:
    text = fields.get(name)
    try:
        return base64.b64decode(text if isinstance(text, str) else "!", validate=True)
    except ValueError:
        raise _damaged(f"its {name} is not base64") from None


def _damaged(what: str) -> IntegrityError:
    return IntegrityError(f"this is not a file of pamola-core's mode 'simple': {what}")
