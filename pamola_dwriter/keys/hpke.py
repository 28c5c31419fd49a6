"""Public-key recipients: whoever writes needs a public key alone, which opens nothing.

Hybrid Public Key Encryption (RFC 9180) in base mode, with HKDF-SHA256 and AES-256-GCM, over one of
two key encapsulations: ``x25519`` (DHKEM, of the RFC), or ``x25519-mlkem768``, which also holds
against quantum computers (MLKEM768-X25519 of draft-ietf-hpke-pq, as ``cryptography`` has it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys.hpketext import (
    KINDS,
    SIZES,
    parse_public,
    parse_secret,
    public_line,
    secret_line,
)
from pamola_dwriter.keys.wrapping import (
    KEY,
    bytes_parameter,
    check_parameters,
    is_key,
    malformed,
    to_base64,
    wrong_key,
)
from pamola_dwriter.spec import WrappedKey

METHOD = "hpke"

_INFO = b"pamola_dwriter hpke v1:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One key encapsulation, and how its keys are made from raw bytes.

    Attributes
    ----------
    encapsulated : int
        Size of the encapsulated key, which a wrapped key begins with.
    """

    suite: hpke.Suite
    encapsulated: int
    load_public: Callable[[bytes], Any]
    load_secret: Callable[[bytes], Any]
    public_of: Callable[[bytes], bytes]


def _suite(kem: hpke.KEM) -> hpke.Suite:
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _hybrid_public(raw: bytes) -> Any:
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(raw[:-32]),
        X25519PublicKey.from_public_bytes(raw[-32:]),
    )


def _hybrid_secret(raw: bytes) -> Any:
    return hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(raw[:-32]),
        X25519PrivateKey.from_private_bytes(raw[-32:]),
    )


def _x25519_public_of(raw: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()


def _hybrid_public_of(raw: bytes) -> bytes:
    lattice = MLKEM768PrivateKey.from_seed_bytes(raw[:-32]).public_key().public_bytes_raw()
    return lattice + _x25519_public_of(raw[-32:])


_KINDS = {
    "x25519": _Kind(
        suite=_suite(hpke.KEM.X25519),
        encapsulated=32,
        load_public=X25519PublicKey.from_public_bytes,
        load_secret=X25519PrivateKey.from_private_bytes,
        public_of=_x25519_public_of,
    ),
    "x25519-mlkem768": _Kind(
        suite=_suite(hpke.KEM.MLKEM768_X25519),
        encapsulated=1088 + 32,
        load_public=_hybrid_public,
        load_secret=_hybrid_secret,
        public_of=_hybrid_public_of,
    ),
}


class HpkeRecipient:
    """A public key: encrypts, and opens nothing.

    Parameters
    ----------
    text : str
        ``hpke:KIND:DATA``, or a PEM public key of type X25519.

    Raises
    ------
    InvalidKeyError
        It is none of these, or damaged.
    """

    __slots__ = ("_key", "_kind", "_raw")

    can_open = False

    def __init__(self, text: str) -> None:
        self._kind, self._raw = parse_public(text)
        self._key = _load(_KINDS[self._kind].load_public, self._raw, self._kind)

    @property
    def public(self) -> str:
        """The public key in one line."""
        return public_line(self._kind, self._raw)

    @property
    def pem(self) -> str:
        """The public key as PEM; InvalidKeyError for a kind that has none."""
        if not isinstance(self._key, X25519PublicKey):
            raise no_pem(self._kind)
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def uri(self) -> None:
        """None: nobody opens anything with it."""
        return None

    @property
    def key_id(self) -> str:
        """The kind, and a fingerprint of the public key."""
        return f"{self._kind}:{hashlib.sha256(self._raw).hexdigest()[:16]}"

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key to this public key, bound to `context` by the info of HPKE."""
        if not is_key(dataset_key):
            raise InvalidKeyError(f"a dataset key must be {KEY} bytes")
        try:
            sealed = _KINDS[self._kind].suite.encrypt(dataset_key, self._key, _INFO + context)
        except ValueError:
            raise InvalidKeyError(
                "the public key cannot be used: it is a point of low order, which nobody makes "
                "by chance"
            ) from None
        return WrappedKey(
            method=METHOD,
            key_id=self.key_id,
            parameters={"kind": self._kind, "ciphertext": to_base64(sealed)},
        )

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Raise WrongKeyError: it takes the private key to open."""
        raise wrong_key()

    def __repr__(self) -> str:
        return f"HpkeRecipient({self.key_id!r})"


class HpkeIdentity:
    """A private key, which opens what was wrapped to its public key.

    Parameters
    ----------
    text : str
        ``hpke-secret:KIND:DATA``, or a PEM private key of type X25519 without a passphrase.

    Raises
    ------
    InvalidKeyError
        It is none of these, or damaged.
    """

    __slots__ = ("_key", "_kind", "_recipient")

    def __init__(self, text: str) -> None:
        self._kind, raw = parse_secret(text)
        kind = _KINDS[self._kind]
        self._key = _load(kind.load_secret, raw, self._kind)
        self._recipient = HpkeRecipient(public_line(self._kind, kind.public_of(raw)))

    @property
    def public(self) -> str:
        """The public key in one line."""
        return self._recipient.public

    @property
    def uri(self) -> None:
        """None: a worker cannot find this key by itself."""
        return None

    @property
    def key_id(self) -> str:
        """That of its public key."""
        return self._recipient.key_id

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key to the public key that belongs to this one."""
        return self._recipient.wrap(dataset_key, context)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key; WrongKeyError if it was not wrapped so to this key."""
        if wrapped.method != METHOD:
            raise wrong_key()
        check_parameters(wrapped, {"kind", "ciphertext"})
        kind = _KINDS.get(str(wrapped.parameters["kind"]))
        if kind is None:
            raise malformed(f"'kind' must be one of {', '.join(KINDS)}")
        sealed = bytes_parameter(wrapped, "ciphertext", kind.encapsulated + KEY + 16)
        if wrapped.key_id != self.key_id or wrapped.parameters["kind"] != self._kind:
            raise wrong_key()
        try:
            return kind.suite.decrypt(sealed, self._key, _INFO + context)
        except (InvalidTag, ValueError):
            raise wrong_key() from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("an HpkeIdentity must not be pickled: its key would enter the task graph")

    def __repr__(self) -> str:
        return f"HpkeIdentity({self.key_id!r})"


def generate(kind: str, random: Callable[[int], bytes], *, pem: bool = False) -> str:
    """Return a new private key as text.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    random : callable
        Returns so many uniformly random bytes, as ``os.urandom`` does.
    pem : bool
        Whether as PEM; InvalidKeyError for a kind that has none.
    """
    raw = random(SIZES[kind].secret)
    if not pem:
        return secret_line(kind, raw) + "\n"
    key = _KINDS[kind].load_secret(raw)
    if not isinstance(key, X25519PrivateKey):
        raise no_pem(kind)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def no_pem(kind: str) -> InvalidKeyError:
    """Return the error of asking for a PEM that nobody has defined."""
    return InvalidKeyError(f"{kind} keys have no PEM: leave out pem, or choose x25519")


def _load(load: Callable[[bytes], Any], raw: bytes, kind: str) -> Any:
    try:
        return load(raw)
    except ValueError:
        raise InvalidKeyError(f"the key has the form of an {kind} key and is none") from None
    except UnsupportedAlgorithm:
        raise InvalidKeyError(
            f"{kind} keys need ML-KEM, which the OpenSSL beneath the installed cryptography lacks: "
            "install cryptography from its wheel, or use an x25519 key"
        ) from None
