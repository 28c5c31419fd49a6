"""What all providers share: one AES-256-GCM wrap, and the stored form of a wrapped key."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pamola_dwriter.errors import IntegrityError, InvalidKeyError, WrongKeyError
from pamola_dwriter.spec import WrappedKey

KEY = 32
SALT = 16
NONCE = 12
CIPHERTEXT = KEY + 16
_LONGEST_LABEL = 2048


def wrong_key() -> WrongKeyError:
    """Return the one error of a failed unwrap; it says nothing of why, on purpose."""
    return WrongKeyError("none of the given keys opens this")


def malformed(what: str) -> IntegrityError:
    """Return the error of a wrapped key that nobody can have written."""
    return IntegrityError(f"a wrapped key is damaged: {what}")


def is_key(value: object) -> bool:
    """Return whether `value` has the type and size of a key."""
    return isinstance(value, bytes) and len(value) == KEY


def hkdf(secret: bytes, salt: bytes | None, info: bytes) -> bytes:
    """Derive a 32-byte key from a secret that is already uniformly random."""
    return HKDF(SHA256(), KEY, salt, info).derive(secret)


def encrypt_key(wrapping_key: bytes, dataset_key: bytes, context: bytes, nonce: bytes) -> str:
    """Return the dataset key as base64 AES-256-GCM ciphertext, bound to `context`."""
    if not is_key(dataset_key):
        raise InvalidKeyError(f"a dataset key must be {KEY} bytes")
    return to_base64(AESGCM(wrapping_key).encrypt(nonce, dataset_key, context))


def decrypt_key(wrapping_key: bytes, wrapped: WrappedKey, context: bytes) -> bytes:
    """Undo :func:`encrypt_key`; WrongKeyError if the key or `context` is another."""
    nonce = bytes_parameter(wrapped, "nonce", NONCE)
    ciphertext = bytes_parameter(wrapped, "ciphertext", CIPHERTEXT)
    try:
        return AESGCM(wrapping_key).decrypt(nonce, ciphertext, context)
    except InvalidTag:
        raise wrong_key() from None


def check_parameters(wrapped: WrappedKey, names: set[str]) -> None:
    """Raise IntegrityError unless `wrapped` has exactly these parameters."""
    if set(wrapped.parameters) != names:
        raise malformed(f"method {wrapped.method!r} has the parameters {sorted(names)}")


def bytes_parameter(wrapped: WrappedKey, name: str, size: int) -> bytes:
    """Return a base64 parameter, which must hold `size` bytes."""
    value = wrapped.parameters.get(name)
    try:
        decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        decoded = b""
    if len(decoded) != size:
        raise malformed(f"{name!r} must be {size} bytes in base64")
    return decoded


def int_parameter(wrapped: WrappedKey, name: str, low: int, high: int) -> int:
    """Return an integer parameter within bounds (inclusive)."""
    value = wrapped.parameters.get(name)
    if type(value) is not int or not low <= value <= high:
        raise malformed(f"{name!r} must be a whole number from {low} to {high}")
    return value


def to_base64(data: bytes) -> str:
    """Return `data` as standard base64 text."""
    return base64.b64encode(data).decode("ascii")


def wrapped_to_json(wrapped: WrappedKey) -> dict[str, Any]:
    """Return a JSON object of `wrapped`; parsed by :func:`wrapped_from_json`."""
    return {
        "method": wrapped.method,
        "key_id": wrapped.key_id,
        "parameters": dict(wrapped.parameters),
    }


def _is_label(text: object) -> bool:
    """Return whether `text` can be shown: who edits a manifest must not steer a screen."""
    return isinstance(text, str) and len(text) <= _LONGEST_LABEL and text.isprintable()


def wrapped_from_json(obj: object) -> WrappedKey:
    """Parse what :func:`wrapped_to_json` made.

    Raises
    ------
    IntegrityError
        It is anything else. Whether the parameters fit the method, the provider judges.
    """
    if not isinstance(obj, Mapping) or set(obj) != {"method", "key_id", "parameters"}:
        raise malformed("it has a method, a key_id and parameters")
    method, key_id, parameters = obj["method"], obj["key_id"], obj["parameters"]
    if not all(_is_label(text) for text in (method, key_id)):
        raise malformed("its method and key_id are short, printable text")
    if not isinstance(parameters, Mapping) or not all(
        type(name) is str and type(value) in (str, int) for name, value in parameters.items()
    ):
        raise malformed("its parameters are text or whole numbers")
    return WrappedKey(method=method, key_id=key_id, parameters=dict(parameters))
