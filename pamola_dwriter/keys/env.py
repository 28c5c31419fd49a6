"""``env:NAME``: a key in an environment variable of every process that needs it."""

from __future__ import annotations

import os

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys.stored import StoredKey

_SCHEME = "env:"


class EnvKey(StoredKey):
    """The key in an environment variable: hex, base64, or else a passphrase.

    Parameters
    ----------
    uri : str
        ``env:NAME``.

    Raises
    ------
    InvalidKeyError
        The variable is not set here, or holds no key.
    """

    __slots__ = ()

    def __init__(self, uri: str) -> None:
        super().__init__(uri, read(uri))


def read(uri: str) -> bytes:
    """Return what a variable holds; errors as :class:`EnvKey`."""
    name = uri.removeprefix(_SCHEME)
    if not uri.startswith(_SCHEME) or not name:
        raise InvalidKeyError("name the environment variable of the key: 'env:NAME'")
    value = os.environ.get(name)
    if value is None:
        raise InvalidKeyError(f"the environment variable {name!r} of the key is not set here")
    return os.fsencode(value)
