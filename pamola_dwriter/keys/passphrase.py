"""A passphrase: wraps by AES-256-GCM under an Argon2id of it."""

from __future__ import annotations

import os
import threading
import unicodedata
from dataclasses import dataclass
from typing import NoReturn

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys.wrapping import (
    KEY,
    NONCE,
    SALT,
    bytes_parameter,
    check_parameters,
    decrypt_key,
    encrypt_key,
    int_parameter,
    to_base64,
    wrong_key,
)
from pamola_dwriter.spec import WrappedKey

METHOD = "argon2id"
MIN_LENGTH = 8

_KEY_ID = "passphrase"
_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one guess at a passphrase costs; the defaults are RFC 9106's second choice.

    Attributes
    ----------
    iterations, memory_kib, lanes : int
        Argon2id's t, m and p.
    """

    iterations: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4


class Passphrase:
    """Wraps dataset keys under a passphrase, at a deliberate cost of about 0.1 s a key.

    Parameters
    ----------
    text : str
        At least 8 characters. Normalized (NFC), so that it can be typed on any system.
    cost : Cost, optional
        Stored with each wrapped key, so it may be raised at any time.
    """

    __slots__ = ("_cost", "_derived", "_lock", "_secret")

    def __init__(self, text: str, *, cost: Cost | None = None) -> None:
        if not _is_long_text(text):
            raise InvalidKeyError(f"a passphrase must be text of at least {MIN_LENGTH} characters")
        try:
            self._secret = unicodedata.normalize("NFC", text).encode()
        except UnicodeEncodeError:  # carries the passphrase: neither chained nor shown
            raise InvalidKeyError("a passphrase must be text that UTF-8 can hold") from None
        self._cost = cost or Cost()
        self._derived: dict[tuple[bytes, Cost], bytes] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> None:
        """None: a worker cannot find this passphrase by itself."""
        return None

    @property
    def key_id(self) -> str:
        """``passphrase``: a fingerprint would let others test guesses cheaply."""
        return _KEY_ID

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key, authenticated together with `context`."""
        return self.wrap_with(dataset_key, context, salt=os.urandom(SALT), nonce=os.urandom(NONCE))

    def wrap_with(
        self, dataset_key: bytes, context: bytes, *, salt: bytes, nonce: bytes
    ) -> WrappedKey:
        """Wrap deterministically; salt and nonce must never serve twice."""
        wrapping_key = self._derive(salt, self._cost)
        parameters: dict[str, str | int] = {
            "iterations": self._cost.iterations,
            "memory_kib": self._cost.memory_kib,
            "lanes": self._cost.lanes,
            "salt": to_base64(salt),
            "nonce": to_base64(nonce),
            "ciphertext": encrypt_key(wrapping_key, dataset_key, context, nonce),
        }
        return WrappedKey(method=METHOD, key_id=_KEY_ID, parameters=parameters)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key; WrongKeyError if this passphrase did not wrap it so."""
        if wrapped.method != METHOD:
            raise wrong_key()
        cost = _stored_cost(wrapped)
        if wrapped.key_id != _KEY_ID:
            raise wrong_key()
        salt = bytes_parameter(wrapped, "salt", SALT)
        return decrypt_key(self._derive(salt, cost), wrapped, context)

    def _derive(self, salt: bytes, cost: Cost) -> bytes:
        with self._lock:  # threads that open the same dataset wait for one derivation
            if (salt, cost) not in self._derived:
                while len(self._derived) >= _REMEMBERED:
                    del self._derived[next(iter(self._derived))]
                self._derived[salt, cost] = Argon2id(
                    salt=salt,
                    length=KEY,
                    iterations=cost.iterations,
                    lanes=cost.lanes,
                    memory_cost=cost.memory_kib,
                ).derive(self._secret)
            return self._derived[salt, cost]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Passphrase must not be pickled: it would enter the task graph")

    def __repr__(self) -> str:
        return "Passphrase(...)"


def _is_long_text(value: object) -> bool:
    return isinstance(value, str) and len(value) >= MIN_LENGTH


def _stored_cost(wrapped: WrappedKey) -> Cost:
    """Return the cost in `wrapped`, bounded: whoever edits a manifest sets it."""
    costs = {"iterations", "memory_kib", "lanes"}
    check_parameters(wrapped, costs | {"salt", "nonce", "ciphertext"})
    lanes = int_parameter(wrapped, "lanes", 1, 16)
    return Cost(
        iterations=int_parameter(wrapped, "iterations", 1, 16),
        memory_kib=int_parameter(wrapped, "memory_kib", 8 * lanes, 1024 * 1024),
        lanes=lanes,
    )
