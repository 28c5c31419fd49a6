"""HPKE keys as text: in one line, or PEM.

A key in one line is ``hpke:KIND:DATA`` if it is public and ``hpke-secret:KIND:DATA`` if it is
private, where DATA is base64url without padding of the raw key and the first four bytes of the
SHA-256 of everything before, so that a typing mistake is found. The raw private key of the hybrid
is the 64-byte seed of ML-KEM (FIPS 203) and then the 32 bytes of X25519; its public key likewise.
X25519 keys may be PEM too (SubjectPublicKeyInfo and PKCS #8, RFC 8410).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from pamola_dwriter.errors import InvalidKeyError


class Sizes(NamedTuple):
    """Bytes of the raw keys of one kind."""

    public: int
    secret: int


SIZES = {
    "x25519": Sizes(public=32, secret=32),
    "x25519-mlkem768": Sizes(public=1184 + 32, secret=64 + 32),
}
"""By the name of the key encapsulation."""

KINDS = tuple(SIZES)
"""Names of the key encapsulations."""

_LINE = re.compile(r"(?P<form>hpke|hpke-secret):(?P<kind>[a-z0-9-]+):(?P<data>[\w-]+)", re.ASCII)
_CHECK = 4
_PEM_PRIVATE, _PEM_PUBLIC = "-----BEGIN PRIVATE KEY-----", "-----BEGIN PUBLIC KEY-----"


def public_line(kind: str, raw: bytes) -> str:
    """Return a public key in one line; parsed by :func:`parse_public`."""
    return _line("hpke", kind, raw)


def secret_line(kind: str, raw: bytes) -> str:
    """Return a private key in one line; parsed by :func:`parse_secret`."""
    return _line("hpke-secret", kind, raw)


def is_public(text: str) -> bool:
    """Return whether `text` has the shape of a public key."""
    return text.strip().startswith(("hpke:", _PEM_PUBLIC))


def is_secret(text: str) -> bool:
    """Return whether `text` has the shape of a private key."""
    return text.strip().startswith(("hpke-secret:", _PEM_PRIVATE))


def parse_public(text: str) -> tuple[str, bytes]:
    """Return kind and raw bytes of a public key; InvalidKeyError if it is none, or damaged."""
    if not text.strip().startswith(_PEM_PUBLIC):
        return _parse_line("hpke", text)
    try:
        loaded = load_pem_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, X25519PublicKey):
        raise InvalidKeyError("a PEM public key must be of type X25519, as keygen makes them")
    return "x25519", loaded.public_bytes_raw()


def parse_secret(text: str) -> tuple[str, bytes]:
    """Return kind and raw bytes of a private key; InvalidKeyError if it is none, or damaged."""
    if not text.strip().startswith(_PEM_PRIVATE):
        return _parse_line("hpke-secret", text)
    try:
        loaded = load_pem_private_key(text.strip().encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, X25519PrivateKey):
        raise InvalidKeyError("a PEM private key must be of type X25519, as keygen makes them")
    return "x25519", loaded.private_bytes_raw()


def _line(form: str, kind: str, raw: bytes) -> str:
    """Return a key in one line; parsed back by :func:`_parse_line`."""
    head = f"{form}:{kind}:"
    check = hashlib.sha256(head.encode() + raw).digest()[:_CHECK]
    return head + base64.urlsafe_b64encode(raw + check).decode("ascii").rstrip("=")


def _parse_line(form: str, text: str) -> tuple[str, bytes]:
    found = _LINE.fullmatch(text.strip())
    what = "public" if form == "hpke" else "private"
    if found is None or found["form"] != form or found["kind"] not in SIZES:
        raise InvalidKeyError(
            f"an HPKE {what} key is {form}:KIND:DATA in one line, where KIND is one of "
            f"{', '.join(KINDS)}; `pamola-dwriter keygen` makes them"
        )
    kind, data = found["kind"], found["data"]
    size = SIZES[kind].public if form == "hpke" else SIZES[kind].secret
    try:
        decoded = base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except ValueError:
        decoded = b""
    raw = decoded[:-_CHECK]
    if len(raw) != size or _line(form, kind, raw) != found[0]:
        raise InvalidKeyError(f"an HPKE {what} key is damaged: copy the whole line again")
    return kind, raw
