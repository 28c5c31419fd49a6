"""A key of 32 raw bytes: wraps by AES-256-GCM under an HKDF of it."""

from __future__ import annotations

import os
from typing import NoReturn

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys.wrapping import (
    KEY,
    NONCE,
    SALT,
    bytes_parameter,
    check_parameters,
    decrypt_key,
    encrypt_key,
    hkdf,
    is_key,
    to_base64,
    wrong_key,
)
from pamola_dwriter.spec import WrappedKey

METHOD = "hkdf-sha256"

_WRAP_INFO = b"pamola_dwriter wrap v1"
_ID_INFO = b"pamola_dwriter key id v1"


class RawKey:
    """Wraps dataset keys under 32 bytes of your own, drawn at random and kept elsewhere.

    Parameters
    ----------
    key : bytes
        Exactly 32 bytes, such as ``secrets.token_bytes(32)``.
    """

    __slots__ = ("_key", "_key_id")

    def __init__(self, key: bytes) -> None:
        if not is_key(key):
            raise InvalidKeyError(
                f"a raw key must be exactly {KEY} bytes, such as secrets.token_bytes({KEY})"
            )
        self._key = key
        self._key_id = f"raw:{hkdf(key, None, _ID_INFO)[:8].hex()}"

    @property
    def uri(self) -> None:
        """None: a worker cannot find this key by itself."""
        return None

    @property
    def key_id(self) -> str:
        """A fingerprint of the key; tells keys apart and says nothing of their value."""
        return self._key_id

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key, authenticated together with `context`."""
        return self.wrap_with(dataset_key, context, salt=os.urandom(SALT), nonce=os.urandom(NONCE))

    def wrap_with(
        self, dataset_key: bytes, context: bytes, *, salt: bytes, nonce: bytes
    ) -> WrappedKey:
        """Wrap deterministically; salt and nonce must never serve twice."""
        wrapping_key = hkdf(self._key, salt, _WRAP_INFO)
        parameters: dict[str, str | int] = {
            "salt": to_base64(salt),
            "nonce": to_base64(nonce),
            "ciphertext": encrypt_key(wrapping_key, dataset_key, context, nonce),
        }
        return WrappedKey(method=METHOD, key_id=self._key_id, parameters=parameters)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key; WrongKeyError if this key did not wrap it so."""
        if wrapped.method != METHOD:
            raise wrong_key()
        check_parameters(wrapped, {"salt", "nonce", "ciphertext"})
        if wrapped.key_id != self._key_id:
            raise wrong_key()
        salt = bytes_parameter(wrapped, "salt", SALT)
        return decrypt_key(hkdf(self._key, salt, _WRAP_INFO), wrapped, context)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RawKey must not be pickled: its key would enter the task graph")

    def __repr__(self) -> str:
        # An error report that shows locals may ask before the key was found good.
        return f"RawKey(key_id={getattr(self, '_key_id', None)!r})"
