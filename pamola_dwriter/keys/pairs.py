"""Keys that come in pairs, told apart by how they are spelled: recipients encrypt, identities open.

A recipient is public: it may stand in a script, on a command line or in a file that all can read.
"""

from __future__ import annotations

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.envelope import agefile
from pamola_dwriter.keys import hpketext
from pamola_dwriter.keys.age import AgeIdentity, AgeRecipient
from pamola_dwriter.keys.hpke import HpkeIdentity, HpkeRecipient

Recipient = AgeRecipient | HpkeRecipient
Identity = AgeIdentity | HpkeIdentity


def is_recipient(text: str) -> bool:
    """Return whether `text` has the shape of a public key."""
    return hpketext.is_public(text) or agefile.is_recipient(text)


def parse_pair(text: str) -> Recipient | Identity | None:
    """Return the recipient or identity that `text` is; None if it has the shape of neither.

    Raises
    ------
    InvalidKeyError
        It has the shape and is damaged, or needs an extra that is not installed.
    """
    if hpketext.is_public(text):
        return HpkeRecipient(text)
    if hpketext.is_secret(text):
        return HpkeIdentity(text)
    if agefile.is_recipient(text):
        return AgeRecipient(text)
    return AgeIdentity(text) if agefile.is_identity(text) else None


def can_open(provider: KeyProvider) -> bool:
    """Return whether a provider opens anything; public keys do not, and say so."""
    return bool(getattr(provider, "can_open", True))
