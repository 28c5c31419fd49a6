"""Keys that come in pairs, told apart by how they are spelled: recipients encrypt, identities open.

A recipient is public: it may stand in a script, on a command line or in a file that all can read.
"""

from __future__ import annotations

import re

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.envelope import agefile
from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys import hpketext
from pamola_dwriter.keys.age import AgeIdentity, AgeRecipient
from pamola_dwriter.keys.hpke import HpkeIdentity, HpkeRecipient

Recipient = AgeRecipient | HpkeRecipient
Identity = AgeIdentity | HpkeIdentity

_KEY_SHAPED = re.compile(
    r"\s*(ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-|hpke:|hpke-secret:|-----BEGIN |# public key:"
    r"|age1[0-9a-z]{50})",
    re.ASCII | re.IGNORECASE,
)


def is_recipient(text: str) -> bool:
    """Return whether `text` has the shape of a public key."""
    return hpketext.is_public(text) or agefile.is_recipient(text)


def parse_pair(text: str) -> Recipient | Identity | None:
    """Return the recipient or identity that `text` is; None if it has the shape of neither.

    Raises
    ------
    InvalidKeyError
        It has the shape and is damaged, needs an extra that is not installed, or is of another
        kind. As a passphrase a public key would open what everybody believes it only encrypts.
    """
    if hpketext.is_public(text):
        return HpkeRecipient(text)
    if hpketext.is_secret(text):
        return HpkeIdentity(text)
    if agefile.is_recipient(text):
        return AgeRecipient(text)
    if agefile.is_identity(text):
        return AgeIdentity(text)
    if _KEY_SHAPED.match(text):
        raise InvalidKeyError(
            "this is a public or private key of a kind that is not taken: give hpke:..., age1..., "
            "an ssh-ed25519 or ssh-rsa key, or an X25519 key in PEM, and nothing beside it"
        )
    return None


def can_open(provider: KeyProvider) -> bool:
    """Return whether a provider opens anything; public keys do not, and say so."""
    return bool(getattr(provider, "can_open", True))
