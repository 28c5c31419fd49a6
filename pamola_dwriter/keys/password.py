"""A key as the very text that was given, for formats of others which stretch that."""

from __future__ import annotations

from typing import Any

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys import env, file


def password_bytes(encryption_key: Any) -> bytes:
    """Return what stands at ``env:NAME`` or ``file:PATH``, or the text itself, in UTF-8.

    One newline at the end of a variable or file does not count.

    Raises
    ------
    InvalidKeyError
        It is neither text that UTF-8 can hold nor bytes; is empty; or the variable or file is not
        available.
    """
    if isinstance(encryption_key, str):
        password = _text(encryption_key)
    elif isinstance(encryption_key, bytes):
        password = encryption_key
    else:
        raise InvalidKeyError(
            "encryption_key must be the text that was given to pamola-core, env:NAME or "
            f"file:PATH; a {type(encryption_key).__name__} is none of them"
        )
    if not password:
        raise InvalidKeyError("encryption_key is empty")
    return password


def _text(text: str) -> bytes:
    for scheme, read in (("env:", env.read), ("file:", file.read)):
        if text.startswith(scheme):
            return read(text).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return text.encode()
    except UnicodeEncodeError:  # it would carry the text in its attributes
        raise InvalidKeyError("encryption_key is not text that UTF-8 can hold") from None
