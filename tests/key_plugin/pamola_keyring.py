"""``keyring:PATH#NAME``: one of the keys, in hex, of a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from pamola_dwriter import RawKey
from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.spec import WrappedKey


class KeyringKey:
    """A key in a JSON file, which every worker must be able to read."""

    def __init__(self, uri: str) -> None:
        path, _, name = uri.removeprefix("keyring:").partition("#")
        try:
            self._key = RawKey(bytes.fromhex(json.loads(Path(path).read_text())[name]))
        except (OSError, KeyError, ValueError):
            raise InvalidKeyError(f"{path} has no key named {name!r}") from None
        self.uri = uri

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key."""
        return self._key.wrap(dataset_key, context)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key."""
        return self._key.unwrap(wrapped, context)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.uri,)

    def __repr__(self) -> str:
        return f"KeyringKey({self.uri!r})"
