"""age recipients and identities: public keys to encrypt to, private ones that open.

As a key wrap: the dataset key, and a digest of what it is bound to, as one small age file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NoReturn

from pamola_dwriter.envelope import agefile
from pamola_dwriter.errors import IntegrityError, InvalidKeyError
from pamola_dwriter.keys.wrapping import (
    KEY,
    check_parameters,
    hkdf,
    is_key,
    malformed,
    to_base64,
    wrong_key,
)
from pamola_dwriter.spec import WrappedKey

METHOD = "age"

_IDENTITY_INFO = b"pamola_dwriter age identity v1"
_LARGEST = 8192
"""Bytes of a wrapped key: one stanza takes a few hundred, of RSA about a thousand."""


class AgeRecipient:
    """A public key of age: encrypts, and opens nothing.

    Parameters
    ----------
    text : str
        ``age1...``, or an ``ssh-ed25519`` or ``ssh-rsa`` public key.

    Raises
    ------
    InvalidKeyError
        It is none of these; or the extra ``[age]`` is not installed.
    """

    __slots__ = ("age_recipient",)

    can_open = False

    def __init__(self, text: str) -> None:
        self.age_recipient = agefile.check_recipient(text)
        """What parts are encrypted to, and what says who can open them."""

    @property
    def uri(self) -> None:
        """None: nobody opens anything with it."""
        return None

    @property
    def key_id(self) -> str:
        """The recipient itself; of an SSH key its SHA-256 fingerprint."""
        return _key_id(self.age_recipient)

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key together with a digest of `context`."""
        if not is_key(dataset_key):
            raise InvalidKeyError(f"a dataset key must be {KEY} bytes")
        sealed = agefile.encrypt(dataset_key + _bound_to(context), [self.age_recipient])
        return WrappedKey(
            method=METHOD, key_id=self.key_id, parameters={"ciphertext": to_base64(sealed)}
        )

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Raise WrongKeyError: it takes the identity to open."""
        raise wrong_key()

    def __repr__(self) -> str:
        return f"AgeRecipient({self.age_recipient!r})"


class AgeIdentity:
    """A private key of age, which opens what was encrypted to its recipient.

    Parameters
    ----------
    text : str
        What ``age-keygen`` writes to a file, or an OpenSSH private key without a passphrase.

    Raises
    ------
    InvalidKeyError
        It is none of these; or the extra ``[age]`` is not installed.
    """

    __slots__ = ("_public", "_secret")

    def __init__(self, text: str) -> None:
        self._secret = text
        self._public = AgeRecipient(agefile.recipient_of(text))

    @property
    def age_recipient(self) -> str:
        """The public key that belongs to it."""
        return self._public.age_recipient

    @property
    def uri(self) -> None:
        """None: a worker cannot find this identity by itself."""
        return None

    @property
    def key_id(self) -> str:
        """That of its recipient."""
        return self._public.key_id

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key to the recipient of this identity."""
        return self._public.wrap(dataset_key, context)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key; WrongKeyError if it was not wrapped so to this identity."""
        if wrapped.method != METHOD:
            raise wrong_key()
        check_parameters(wrapped, {"ciphertext"})
        if wrapped.key_id != self.key_id:
            raise wrong_key()
        plain = self.open_age_file(_ciphertext(wrapped))
        if len(plain) != 2 * KEY or not hmac.compare_digest(plain[KEY:], _bound_to(context)):
            raise wrong_key()
        return plain[:KEY]

    def open_age_file(self, data: bytes) -> bytes:
        """Return the content of an age file.

        Raises
        ------
        WrongKeyError
            It was encrypted to others, or altered: age does not tell which.
        """
        try:
            return agefile.decrypt(data, self._secret)
        except IntegrityError:
            raise wrong_key() from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AgeIdentity must not be pickled: its key would enter the task graph")

    def __repr__(self) -> str:
        return f"AgeIdentity(recipient={self.age_recipient!r})"


def dataset_identity(dataset_key: bytes) -> str:
    """Return the identity that opens the parts of a dataset of age files.

    Each part is encrypted to it too, so that whoever opens the dataset key, by whatever provider,
    reads the parts, and the workers need nothing else.
    """
    return agefile.identity_from(hkdf(dataset_key, None, _IDENTITY_INFO))


def _bound_to(context: bytes) -> bytes:
    return hashlib.sha256(context).digest()


def _key_id(recipient: str) -> str:
    kind, _, blob = recipient.partition(" ")
    if not blob:
        return kind
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return f"{kind}:SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _ciphertext(wrapped: WrappedKey) -> bytes:
    text = wrapped.parameters["ciphertext"]
    try:
        decoded = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        decoded = b""
    if not decoded.startswith(agefile.MAGIC) or len(decoded) > _LARGEST:
        raise malformed("'ciphertext' must be a small age file in base64")
    return decoded
