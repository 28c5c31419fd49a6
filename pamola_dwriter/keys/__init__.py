"""Key providers: who wraps and unwraps the random key of each dataset.

A new provider is one class in a file of its own, made from its URI, and one line in
:data:`PROVIDERS`; or it is brought by another package, which declares it by the scheme of its
URIs::

    [project.entry-points."pamola_dwriter.keys"]
    gcpkms = "their_package:GcpKmsKey"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    EncryptionKeyError,
    InsecureTransportError,
    IntegrityError,
    InvalidKeyError,
    PamolaWriterError,
    WrongKeyError,
)
from pamola_dwriter.extensions import ExtensionPoint
from pamola_dwriter.keys.age import AgeIdentity, AgeRecipient
from pamola_dwriter.keys.awskms import AwsKmsKey
from pamola_dwriter.keys.env import EnvKey
from pamola_dwriter.keys.file import FileKey
from pamola_dwriter.keys.generate import KINDS, generate_key, public_key
from pamola_dwriter.keys.hpke import HpkeIdentity, HpkeRecipient
from pamola_dwriter.keys.pairs import can_open, is_recipient, parse_pair
from pamola_dwriter.keys.passphrase import Cost, Passphrase
from pamola_dwriter.keys.password import password_bytes
from pamola_dwriter.keys.raw import RawKey
from pamola_dwriter.keys.stored import parse_secret
from pamola_dwriter.keys.vault import VaultKey
from pamola_dwriter.keys.wrapping import wrapped_from_json, wrapped_to_json, wrong_key
from pamola_dwriter.spec import WrappedKey

__all__ = [
    "INSTALLED",
    "KINDS",
    "PROVIDERS",
    "AgeIdentity",
    "AgeRecipient",
    "AwsKmsKey",
    "Cost",
    "EnvKey",
    "FileKey",
    "HpkeIdentity",
    "HpkeRecipient",
    "Passphrase",
    "RawKey",
    "VaultKey",
    "age_recipients",
    "generate_key",
    "is_recipient",
    "open_age",
    "parse_secret",
    "password_bytes",
    "public_key",
    "resolve",
    "unwrap_any",
    "wrap_all",
    "wrapped_from_json",
    "wrapped_to_json",
]

PROVIDERS: dict[str, Callable[[str], KeyProvider]] = {
    "awskms": AwsKmsKey,
    "env": EnvKey,
    "file": FileKey,
    "vault": VaultKey,
}
"""From URI scheme to the class that takes such a URI."""

INSTALLED = ExtensionPoint("pamola_dwriter.keys", "key provider", InvalidKeyError)
"""Providers of other packages; none takes over a scheme of our own."""

MAX_WRAPPED = 16
"""Most keys one dataset is wrapped under; bounds what a hostile manifest costs to try."""

_URI = re.compile(r"([a-z][a-z0-9+.-]*):", re.ASCII | re.IGNORECASE)


def resolve(encryption_key: Any) -> tuple[KeyProvider, ...]:
    """Return the providers that an ``encryption_key`` argument stands for.

    Parameters
    ----------
    encryption_key : str, bytes, KeyProvider, or list or tuple of these
        A passphrase, 32 raw bytes, a public or private key (``hpke:...``, ``age1...``), or a
        provider or its URI (``env:NAME``, ``file:PATH``, ``awskms:KEY``, ``vault:KEY``).

    Raises
    ------
    InvalidKeyError
        It is none of these, or not available here.
    """
    if not isinstance(encryption_key, list | tuple):
        return (_resolve_one(encryption_key),)
    if not 1 <= len(encryption_key) <= MAX_WRAPPED:
        raise InvalidKeyError(f"encryption_key must list between 1 and {MAX_WRAPPED} keys")
    return tuple(_resolve_one(key) for key in encryption_key)


def _resolve_one(key: Any) -> KeyProvider:
    if isinstance(key, str):
        return _resolve_text(key)
    if isinstance(key, bytes):
        return RawKey(key)
    if not _is_provider(key):
        raise InvalidKeyError(
            "encryption_key must be a passphrase, 32 bytes, a provider or its URI, or a list of "
            f"these; a {type(key).__name__} is none of them"
        )
    provider: KeyProvider = key
    return provider


def _is_provider(key: Any) -> bool:
    named = all(hasattr(key, name) for name in ("uri", "wrap", "unwrap"))
    return named and not isinstance(key, type)


def _resolve_text(text: str) -> KeyProvider:
    if pair := parse_pair(text):
        return pair
    uri = text.lstrip()
    scheme = _URI.match(uri)
    if scheme is None:
        return Passphrase(text)
    if scheme[1] in PROVIDERS:
        return PROVIDERS[scheme[1]](uri)
    if scheme[1].islower() or scheme[1].lower() in PROVIDERS:  # the name of a key, or misspelt
        return _resolve_installed(scheme[1], uri)
    return Passphrase(text)


def _resolve_installed(scheme: str, uri: str) -> KeyProvider:
    make = INSTALLED.load(scheme)
    if make is None:
        # Not even the scheme is shown: this may well be a passphrase with a colon in it.
        known = ", ".join(sorted({*PROVIDERS, *INSTALLED.names()}))
        raise InvalidKeyError(
            "encryption_key looks like the URI of a key provider that is unknown here (known: "
            f"{known}); a passphrase of that shape is given as Passphrase(...)"
        )
    try:
        provider: KeyProvider = make(uri)
    except EncryptionKeyError:
        raise
    except Exception as error:  # noqa: BLE001  # of somebody else's class; its words may tell
        raise InvalidKeyError(
            f"key provider {scheme!r} could not be made of its URI ({type(error).__name__})"
        ) from None
    if not _is_provider(provider):
        raise InvalidKeyError(
            f"key provider {scheme!r} is broken: a {type(provider).__name__} lacks uri, wrap or "
            "unwrap; mend or uninstall its package"
        )
    return provider


def age_recipients(providers: Sequence[KeyProvider]) -> tuple[str, ...]:
    """Return the public keys of age among the providers.

    Raises
    ------
    InvalidKeyError
        There is none, so that the ``age`` command would open nothing.
    """
    found = [getattr(provider, "age_recipient", None) for provider in providers]
    recipients = tuple(dict.fromkeys(text for text in found if text is not None))
    if not recipients:
        raise InvalidKeyError(
            "encryption_mode='age' encrypts to public keys of age: give at least one as "
            "encryption_key (age1..., 'ssh-ed25519 ...', or file:PATH of an identity); other keys "
            "may stand beside it"
        )
    return recipients


def open_age(providers: Sequence[KeyProvider], data: bytes) -> bytes:
    """Return the content of a single age file, by the first identity that opens it.

    Raises
    ------
    WrongKeyError
        No provider is an identity that opens it; or it was altered, which age does not tell.
    """
    for provider in providers:
        open_age_file = getattr(provider, "open_age_file", None)
        if open_age_file is not None:
            try:
                return bytes(open_age_file(data))
            except WrongKeyError:
                continue
    raise wrong_key()


def wrap_all(
    providers: Sequence[KeyProvider], dataset_key: bytes, context: bytes
) -> tuple[WrappedKey, ...]:
    """Wrap one dataset key under each provider; any of them opens it later."""
    return tuple(provider.wrap(dataset_key, context) for provider in providers)


def unwrap_any(
    providers: Sequence[KeyProvider], wrapped: Sequence[WrappedKey], context: bytes
) -> bytes:
    """Return the dataset key, by the first provider that opens one of the wrapped keys.

    One that is not available here (its service is down, say) does not keep the others from being
    tried.

    Raises
    ------
    WrongKeyError
        No provider opens any of them; which of the two it is, a wrong or an altered key, is not
        told, except that a public key opens nothing.
    InvalidKeyError, InsecureTransportError
        The same, but the first that was not available might have.
    IntegrityError
        A wrapped key is damaged.
    """
    if len(wrapped) > MAX_WRAPPED:
        raise IntegrityError(f"more than {MAX_WRAPPED} wrapped keys: this is not what was written")
    unavailable: EncryptionKeyError | None = None
    for provider in providers:
        for one in wrapped:
            try:
                return provider.unwrap(one, context)
            except WrongKeyError:
                continue
            except (InvalidKeyError, InsecureTransportError) as error:
                unavailable = unavailable or error
            except PamolaWriterError:
                raise
            except Exception as error:  # noqa: BLE001  # of somebody else's class; its words may tell
                failed = f"a {type(provider).__name__} failed ({type(error).__name__})"
                unavailable = unavailable or InvalidKeyError(failed)
    if unavailable is None and not any(can_open(provider) for provider in providers):
        raise WrongKeyError(
            "a public key encrypts and opens nothing: give the private key that belongs to it"
        )
    raise unavailable or wrong_key()
