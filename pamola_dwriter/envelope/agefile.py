"""age files: encrypted to public keys, and opened by the ``age`` command as well as here.

The format is https://age-encryption.org/v1: a random file key, wrapped for each recipient, and
ChaCha20-Poly1305 over chunks of 64 KiB. It has no associated data, so that what an age file
belongs to has to be vouched for elsewhere. This is the one module that calls pyrage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from pamola_dwriter.errors import IntegrityError, InvalidKeyError

MAGIC = b"age-encryption.org/v1\n"
EXTENSION = "age"

_RECIPIENT = re.compile(r"age1[0-9a-z]+|ssh-(ed25519|rsa) [A-Za-z0-9+/=]+( .*)?", re.ASCII)
_X25519 = "AGE-SECRET-KEY-1"
_SSH = "-----BEGIN OPENSSH PRIVATE KEY-----"


def is_recipient(text: str) -> bool:
    """Return whether `text` has the shape of a recipient: ``age1...``, ``ssh-ed25519 ...``."""
    return _RECIPIENT.fullmatch(text.strip()) is not None


def is_identity(text: str) -> bool:
    """Return whether `text` has the shape of an identity, as age or OpenSSH writes it to a file."""
    return _X25519 in text.upper() or text.lstrip().startswith(_SSH)


def check_recipient(text: str) -> str:
    """Return a recipient in its one spelling, without blanks around it or a comment.

    Raises
    ------
    InvalidKeyError
        It is not one; or the extra is not installed.
    """
    spelled = " ".join(text.split()[:2])
    _recipient(spelled)
    return spelled


def recipient_of(identity: str) -> str:
    """Return the recipient that an identity opens the files of.

    Raises
    ------
    InvalidKeyError
        It is no identity, or an SSH key under a passphrase; or the extra is not installed.
    """
    found = _identity(identity)
    if isinstance(found, _pyrage().x25519.Identity):
        return str(found.to_public())
    public = load_ssh_private_key(identity.strip().encode() + b"\n", None).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def encrypt(data: Any, recipients: Sequence[str]) -> bytes:
    """Return an age file of `data`, which any of the recipients' identities opens.

    Parameters
    ----------
    data : bytes-like or pyarrow.Buffer
    recipients : sequence of str
        At least one, as :func:`check_recipient` returns them.
    """
    sealed: bytes = _pyrage().encrypt(bytes(data), [_recipient(text) for text in recipients])
    return sealed


def decrypt(data: bytes, identity: str) -> bytes:
    """Return the content of an age file.

    Raises
    ------
    IntegrityError
        It was altered, or encrypted to others: age does not tell which.
    """
    pyrage = _pyrage()
    try:
        plain: bytes = pyrage.decrypt(data, [_identity(identity)])
    except pyrage.DecryptError:
        raise IntegrityError("the content does not authenticate: altered or truncated") from None
    return plain


def identity_from(secret: bytes) -> str:
    """Return the X25519 identity whose secret scalar is 32 uniformly random bytes."""
    bech32 = _import("bech32")
    words = bech32.convertbits(secret, 8, 5)
    return str(bech32.bech32_encode("age-secret-key-", words)).upper()


def _recipient(text: str) -> Any:
    pyrage = _pyrage()
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise InvalidKeyError(
            "an age recipient is damaged or of a kind that is not supported; give it as "
            "`age-keygen -y` prints it (age1...), or as an ssh-ed25519 or ssh-rsa public key"
        ) from None


def _identity(text: str) -> Any:
    pyrage = _pyrage()
    try:
        if text.lstrip().startswith(_SSH):
            return _ssh_identity(text)
        return pyrage.x25519.Identity.from_str(_secret_line(text))
    except pyrage.IdentityError:
        raise InvalidKeyError(
            "an age identity is damaged: it is no AGE-SECRET-KEY-1... and no OpenSSH private key "
            "of type ed25519 or rsa"
        ) from None


def _ssh_identity(text: str) -> Any:
    key = text.strip().encode() + b"\n"
    try:
        load_ssh_private_key(key, None)
    except (TypeError, ValueError):
        raise InvalidKeyError(
            "an OpenSSH private key is damaged or under a passphrase; give one without, or an "
            "identity of age-keygen"
        ) from None
    return _pyrage().ssh.Identity.from_buffer(key)


def _secret_line(text: str) -> str:
    """Return the identity in a file of `age-keygen`, which has comments too."""
    lines = [line.strip() for line in text.splitlines()]
    secrets = [line for line in lines if line and not line.startswith("#")]
    if len(secrets) != 1:
        raise InvalidKeyError("an age identity file must hold exactly one identity here")
    return secrets[0]


def _pyrage() -> Any:
    return _import("pyrage")


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise InvalidKeyError(
            "age needs a package that is not installed here: pip install 'pamola_dwriter[age]', "
            "on the client and on every worker"
        ) from None
