"""The key of one column, or footer, of one Parquet file, wrapped for the place it belongs to.

The wrapped form is base64 of ``nonce (12) | AES-256-GCM ciphertext and tag``. Its associated data
are not stored, so that a key, and with it the file, opens nowhere else.
"""

from __future__ import annotations

import base64
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pamola_dwriter.errors import IntegrityError

_NONCE = 12
_AUTHENTICATES = b"pamola_dwriter manifest v1"
_FOOTERS = b"pamola_dwriter parquet footer v1"


def wrap_data_key(key: bytes, data_key: bytes, place: bytes, nonce: bytes) -> str:
    """Wrap the key of a column; `nonce` must never serve twice with `key`."""
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, data_key, place)).decode()


def unwrap_data_key(key: bytes, wrapped: str | bytes, place: bytes) -> bytes:
    """Undo :func:`wrap_data_key`; IntegrityError if anything about it is another."""
    try:
        data = base64.b64decode(wrapped, validate=True)
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], place)
    except (InvalidTag, ValueError):
        raise IntegrityError("it was altered, or belongs to another place") from None


def footer_key(dataset_key: bytes) -> bytes:
    """Return the key that wraps those of the footers of a dataset."""
    return hmac.digest(dataset_key, _FOOTERS, "sha256")


def authenticate(key: bytes, data: bytes) -> bytes:
    """Return the HMAC-SHA256 of `data` under a key derived from `key`."""
    return hmac.digest(hmac.digest(key, _AUTHENTICATES, "sha256"), data, "sha256")


def check_authentic(key: bytes, data: bytes, tag: bytes) -> None:
    """Raise IntegrityError unless :func:`authenticate` made `tag`."""
    if not hmac.compare_digest(authenticate(key, data), tag):
        raise IntegrityError("the manifest was altered")
