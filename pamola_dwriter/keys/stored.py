"""What keys named by a URI share: any worker that can read the place can open the data."""

from __future__ import annotations

import base64
import re
from typing import Self

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys.age import AgeIdentity
from pamola_dwriter.keys.pairs import Identity, Recipient, can_open, parse_pair
from pamola_dwriter.keys.passphrase import Passphrase
from pamola_dwriter.keys.raw import RawKey
from pamola_dwriter.keys.wrapping import KEY, wrong_key
from pamola_dwriter.spec import WrappedKey

_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=")
_REFERENCE = re.compile(r"\s*(awskms|env|file|vault):", re.ASCII | re.IGNORECASE)
_STANDARD = str.maketrans("-_", "+/")

Stored = RawKey | Passphrase | Identity | Recipient
"""What a variable or a file may hold."""


class StoredKey:
    """A key that is read from somewhere when the object is made.

    Pickles as its URI alone, and is then read again wherever it arrives.
    """

    __slots__ = ("_inner", "_uri")

    def __init__(self, uri: str, content: bytes) -> None:
        self._uri = uri
        self._inner = parse_secret(content, uri)

    @property
    def uri(self) -> str | None:
        """What :func:`pamola_dwriter.keys.resolve` makes this provider from.

        None if a public key was found there: a worker would open nothing with it.
        """
        return self._uri if self.can_open else None

    @property
    def can_open(self) -> bool:
        """False if a public key was found there, which encrypts alone."""
        return can_open(self._inner)

    @property
    def key_id(self) -> str:
        """That of the key found there."""
        return self._inner.key_id

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key, authenticated together with `context`."""
        return self._inner.wrap(dataset_key, context)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key; WrongKeyError if this key did not wrap it so."""
        return self._inner.unwrap(wrapped, context)

    @property
    def public(self) -> str | None:
        """The public key of the pair; None if it is another kind of key."""
        return getattr(self._inner, "public", None)

    @property
    def age_recipient(self) -> str | None:
        """The public key of age that was found there; None if it is another kind of key."""
        return getattr(self._inner, "age_recipient", None)

    def open_age_file(self, data: bytes) -> bytes:
        """Return the content of an age file; WrongKeyError if this key does not open it."""
        if not isinstance(self._inner, AgeIdentity):
            raise wrong_key()
        return self._inner.open_age_file(data)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self._uri,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._uri!r})"


def parse_secret(content: bytes, source: str) -> Stored:
    """Return the key that the content of a variable or file stands for.

    A public or private key is told by how it is spelled. 64 hex digits, 44 base64 characters, or
    32 bytes that are not text are a raw key; any other text is a passphrase. 32 bytes of text are
    a passphrase too, since a trailing newline must not decide whether it gets the protection of
    Argon2id.
    """
    if found := _parse_pair(content):
        return found
    text = _text(content)
    if text is not None and _REFERENCE.match(text):
        raise InvalidKeyError(
            f"{source} holds no key, but the name of another place of one: give that name itself"
        )
    if text is None and len(content) == KEY:
        return RawKey(content)
    if text is not None and _HEX.fullmatch(text):
        return RawKey(bytes.fromhex(text))
    if text is not None and _BASE64.fullmatch(text):
        return RawKey(base64.b64decode(text.translate(_STANDARD)))
    try:
        return Passphrase(text or "")
    except InvalidKeyError as error:
        raise InvalidKeyError(
            f"{source} must hold 64 hex digits, 44 base64 characters or {KEY} bytes of a key, or "
            f"a passphrase; what stands there is none of these: {error}"
        ) from None


def _parse_pair(content: bytes) -> Identity | Recipient | None:
    try:
        return parse_pair(content.decode("ascii"))
    except UnicodeDecodeError:
        return None


def _text(content: bytes) -> str | None:
    """Return `content` as text without its last newline, or None if it is not text."""
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return None
    return text if text.replace("\t", " ").isprintable() else None
