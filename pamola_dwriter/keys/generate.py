"""New keys."""

from __future__ import annotations

import os

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys import hpke, hpketext
from pamola_dwriter.keys.wrapping import KEY

KINDS = ("raw", *hpketext.KINDS)
"""What :func:`generate_key` makes: one key that encrypts and opens, or pairs."""


def generate_key(kind: str = "raw", *, pem: bool = False) -> str:
    """Draw a new key.

    Parameters
    ----------
    kind : {"raw", "x25519", "x25519-mlkem768"}
        One secret key, or the private key of a pair.
    pem : bool
        Whether as PEM, which x25519 keys alone have.

    Returns
    -------
    str
        What a variable or file holds that ``env:NAME`` or ``file:PATH`` names, with a newline at
        the end.

    Raises
    ------
    InvalidKeyError
        There is no such kind, or it has no PEM.
    """
    if kind not in KINDS:
        raise InvalidKeyError(f"there is no such kind of key; choose one of {', '.join(KINDS)}")
    if kind in hpketext.KINDS:
        return hpke.generate(kind, os.urandom, pem=pem)
    if pem:
        raise hpke.no_pem(kind)
    return os.urandom(KEY).hex() + "\n"


def public_key(provider: KeyProvider, *, pem: bool = False) -> str | None:
    """Return the public key of a pair as text; None if the provider is not one of a pair.

    Raises
    ------
    InvalidKeyError
        It has no PEM, and was asked for it.
    """
    line: str | None = getattr(provider, "public", None)
    return hpke.HpkeRecipient(line).pem if line is not None and pem else line
