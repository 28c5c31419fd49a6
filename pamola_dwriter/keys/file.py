"""``file:PATH``: a key in a file that only its owner can read, unless it is a public key."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys.pairs import is_recipient
from pamola_dwriter.keys.stored import StoredKey

_SCHEME = "file:"
_LARGEST = 64 * 1024


class FileKey(StoredKey):
    """The key in a file: 32 raw bytes, hex, base64, one of a pair, or else a passphrase.

    Parameters
    ----------
    uri : str
        ``file:PATH``, where PATH may begin with ``~`` or be relative.

    Raises
    ------
    InvalidKeyError
        The file is absent, unreadable, readable by others, or holds no key.
    """

    __slots__ = ()

    def __init__(self, uri: str) -> None:
        super().__init__(f"{_SCHEME}{_path(uri)}", read(uri))


def _path(uri: str) -> Path:
    name = uri.removeprefix(_SCHEME)
    if not uri.startswith(_SCHEME) or not name:
        raise InvalidKeyError("name the file of the key: 'file:PATH'")
    if name.startswith("///"):  # the URL spelling, file:///etc/key
        name = name[2:]
    return Path(os.path.abspath(os.path.expanduser(name)))


def read(uri: str) -> bytes:
    """Return what a key file holds; errors as :class:`FileKey`."""
    path = _path(uri)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InvalidKeyError(f"the key file {path} cannot be read: {reason}") from None
    if len(content) > _LARGEST:
        raise InvalidKeyError(f"the key file {path} is too large to hold a key")
    # Windows has no such bits: st_mode there shows every file as readable by all.
    exposed = os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO)
    if exposed and not is_recipient(content.decode("ascii", "replace")):
        raise InvalidKeyError(f"the key file {path} is open to others: chmod 600 it")
    return content
