"""``vault:[MOUNT/]KEY``: a key in the transit engine of HashiCorp Vault or OpenBao.

The engine encrypts and decrypts by request and never gives its key away; see the `API of transit
<https://openbao.org/api-docs/secret/transit/>`_. Both kinds of its symmetric keys bind what they
wrap to the dataset: ``associated_data`` is authenticated by any of them, and a key with
``derived=true`` is another one for each ``context`` besides. Keys that can bind nothing (RSA)
are refused by the engine itself.
"""

from __future__ import annotations

import base64
import os
import re
from typing import Any, Self

from pamola_dwriter.errors import EncryptionKeyError, InvalidKeyError
from pamola_dwriter.keys.services import CONNECT_SECONDS, READ_SECONDS, check_link
from pamola_dwriter.keys.wrapping import check_parameters, is_key, malformed, to_base64, wrong_key
from pamola_dwriter.spec import WrappedKey

METHOD = "vault-transit"

_SCHEME = "vault:"
_MOUNT = "transit"
_SEGMENT = r"\w(?:[\w.-]*\w)?"
_NAME = re.compile(rf"(?:(?P<mount>{_SEGMENT}(?:/{_SEGMENT})*)/)?(?P<key>{_SEGMENT})", re.ASCII)
_CIPHERTEXT = re.compile(r"vault:v(?P<version>[1-9][0-9]{0,8}):[A-Za-z0-9+/]{40,400}={0,2}")
_ADDRESS = "set VAULT_ADDR to its https:// address"

_WRONG = ("message authentication failed", "invalid ciphertext", "version is too new")
"""What transit says, with status 400, of a ciphertext that this key and context did not make."""

_REMEDIES = {
    "BadGateway": "see that the server behind VAULT_ADDR is up",
    "Forbidden": "give a VAULT_TOKEN whose policy allows 'update' on its encrypt and decrypt paths",
    "InvalidPath": "mount the transit engine there, or correct the mount or VAULT_NAMESPACE",
    "Unauthorized": "give a valid VAULT_TOKEN",
    "VaultDown": "unseal the server",
    "VaultNotInitialized": "initialize the server",
}
_TEXTS = {
    "too old": "it no longer opens what this version wrapped (min_decryption_version); rotate the "
    "dataset with another of its keys, and revoke this one",
    "key not found": "make the key, or correct its name",
    "non-AEAD": "use a key of type aes256-gcm96 or chacha20-poly1305, which binds to the dataset",
    "missing client token": "give a valid VAULT_TOKEN",
}


class VaultKey:
    """Wraps dataset keys by the transit engine of Vault, bound to their dataset.

    Wherever it is used it goes by ``VAULT_ADDR``, ``VAULT_TOKEN`` or ``~/.vault-token``,
    ``VAULT_NAMESPACE``, ``VAULT_CACERT``, ``VAULT_CAPATH``, ``VAULT_CLIENT_CERT`` and
    ``VAULT_CLIENT_KEY``, as the command ``vault`` does. It holds none of them, and pickles as its
    URI alone. It needs the extra ``vault``.

    A token that may *create* on the encrypt path makes Vault create a key that does not exist, so
    that a misspelt name works: let its policy allow ``update`` alone.

    Parameters
    ----------
    uri : str
        ``vault:KEY`` in the engine mounted at ``transit``, or ``vault:MOUNT/KEY``.

    Raises
    ------
    InvalidKeyError
        It names no key; or, when it is used, Vault does not serve it.
    InsecureTransportError
        When it is used: ``VAULT_ADDR`` is plain http on another host.
    """

    __slots__ = ("_key", "_mount", "_uri")

    def __init__(self, uri: str) -> None:
        found = _NAME.fullmatch(uri.removeprefix(_SCHEME))
        if not uri.startswith(_SCHEME) or found is None:
            raise InvalidKeyError("name the key in Vault: 'vault:KEY' or 'vault:MOUNT/KEY'")
        self._uri, self._mount, self._key = uri, found["mount"] or _MOUNT, found["key"]

    @property
    def uri(self) -> str:
        """What :func:`pamola_dwriter.keys.resolve` makes this provider from."""
        return self._uri

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key by one request, authenticated together with `context`."""
        if not is_key(dataset_key):
            raise InvalidKeyError("a dataset key must be 32 bytes")
        ciphertext = self._call("encrypt", context, plaintext=to_base64(dataset_key))
        found = _CIPHERTEXT.fullmatch(ciphertext)
        if found is None:
            raise self._unavailable("it answers with no ciphertext of transit; correct VAULT_ADDR")
        return WrappedKey(
            method=METHOD,
            key_id=self._key_id(found["version"]),
            parameters={"ciphertext": ciphertext},
        )

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key, by at most one request."""
        if wrapped.method != METHOD:
            raise wrong_key()
        check_parameters(wrapped, {"ciphertext"})
        ciphertext = str(wrapped.parameters["ciphertext"])
        found = _CIPHERTEXT.fullmatch(ciphertext)
        if found is None:
            raise malformed("'ciphertext' must be as transit writes it: 'vault:vN:BASE64'")
        if wrapped.key_id != self._key_id(found["version"]):
            raise wrong_key()
        return _decode_key(self._call("decrypt", context, ciphertext=ciphertext))

    def _key_id(self, version: str) -> str:
        """Return the id of one version, so that a rotation in Vault shows and can be followed."""
        return f"{_SCHEME}{self._mount}/{self._key}:v{version}"

    def _call(self, operation: str, context: bytes, **arguments: str) -> str:
        hvac = self._library()
        bound = to_base64(context)
        failure: EncryptionKeyError
        try:
            answer = self._send(hvac, operation, context=bound, associated_data=bound, **arguments)
        except EncryptionKeyError:
            raise
        except hvac.exceptions.VaultError as error:
            failure = self._refused(error)
        except (OSError, ValueError) as error:  # of requests too; its texts may show the token
            failure = self._unavailable(
                f"{type(error).__name__}; see that VAULT_ADDR can be reached from here, and that "
                "VAULT_CACERT is its CA"
            )
        else:
            return answer
        # Outside of the handler: what failed may show what was sent.
        raise failure

    def _send(self, hvac: Any, operation: str, **arguments: str) -> str:
        address = os.environ.get("VAULT_ADDR")
        if not address:
            raise self._unavailable("VAULT_ADDR is not set; set it to the address of the server")
        check_link(address, _ADDRESS)
        client = hvac.Client(
            url=address,
            cert=_client_certificate(),
            verify=os.environ.get("VAULT_CACERT") or os.environ.get("VAULT_CAPATH") or True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            # A redirect would take the token and the key wherever the answer says.
            allow_redirects=False,
            namespace=os.environ.get("VAULT_NAMESPACE"),
        )
        try:
            if not client.token:
                raise self._unavailable("there is no token; set VAULT_TOKEN, or log in with vault")
            send = getattr(client.secrets.transit, f"{operation}_data")
            answer = send(self._key, mount_point=self._mount, **arguments)
        finally:
            client.adapter.close()
        data = answer.get("data") if isinstance(answer, dict) else None
        wanted = "ciphertext" if operation == "encrypt" else "plaintext"
        if not isinstance(data, dict) or not isinstance(data.get(wanted), str):
            raise self._unavailable(
                "it answers as no Vault does, or redirects to another server; set VAULT_ADDR to "
                "the active one"
            )
        return str(data[wanted])

    def _library(self) -> Any:
        try:
            import hvac  # noqa: PLC0415 - an extra, wanted by those who have a Vault
        except ImportError:
            failure = self._unavailable("it needs a package: pip install 'pamola_dwriter[vault]'")
        else:
            return hvac
        raise failure

    def _refused(self, error: Any) -> EncryptionKeyError:
        said = " ".join(map(str, error.errors or [error.text]))
        if any(text in said for text in _WRONG):
            return wrong_key()
        name = type(error).__name__
        remedies = (remedy for text, remedy in _TEXTS.items() if text in said)
        remedy = next(remedies, _REMEDIES.get(name, "see the log of the server, and try again"))
        return self._unavailable(f"{name}; {remedy}")

    def _unavailable(self, why: str) -> InvalidKeyError:
        return InvalidKeyError(f"Vault cannot use the key {self._uri} here: {why}")

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self._uri,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._uri!r})"


def _decode_key(plaintext: str) -> bytes:
    try:
        dataset_key = base64.b64decode(plaintext, validate=True)
    except ValueError:
        dataset_key = b""
    if not is_key(dataset_key):
        raise wrong_key()
    return dataset_key


def _client_certificate() -> tuple[str, str] | None:
    certificate, key = (os.environ.get(f"VAULT_CLIENT_{name}") for name in ("CERT", "KEY"))
    return (certificate, key) if certificate and key else None
