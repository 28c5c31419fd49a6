"""``awskms:KEY``: a key that never leaves AWS KMS, which wraps and unwraps by request.

The request and the context that KMS authenticates are described in its API reference, under
`Encrypt <https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>`_ and
`Decrypt <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>`_.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Self

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pamola_dwriter.errors import EncryptionKeyError, InvalidKeyError
from pamola_dwriter.keys.services import (
    CONNECT_SECONDS,
    READ_SECONDS,
    check_link,
    context_text,
    silenced,
)
from pamola_dwriter.keys.wrapping import (
    check_parameters,
    is_key,
    malformed,
    to_base64,
    wrong_key,
)
from pamola_dwriter.spec import WrappedKey

METHOD = "awskms"

_SCHEME = "awskms:"
_CONTEXT = "pamola_dwriter"
_TRIES = 3
_LARGEST = 6144
"""Bytes of a ciphertext that Decrypt takes."""

_KEY_ARN = re.compile(r"arn:[^:]+:kms:(?P<region>[^:]+):(?P<account>[^:]+):key/(?P<id>[^/:]+)")
_NAME = re.compile(
    r"arn:[^:\s]+:kms:(?P<region>[^:\s]+):[^:\s]+:(?:key|alias)/[\w/-]+|alias/[\w/-]+|[\w-]+",
    re.ASCII,
)
_MULTI_REGION = "mrk-"

_LOGGERS = ("botocore.endpoint", "botocore.parsers", "botocore.httpsession")
"""Those that show the bodies of requests and answers, which hold the dataset key, at DEBUG."""

_WRONG = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})
_ANOTHER_KEY = "The ciphertext refers to"
"""How AccessDeniedException begins when the ciphertext is of a key that is not the one named."""

_CREDENTIALS = "give AWS credentials that are valid there"
_REMEDIES = {
    "AccessDeniedException": "allow these credentials kms:Encrypt and kms:Decrypt on it",
    "ConnectTimeoutError": "see that the endpoint can be reached from here",
    "DisabledException": "enable the key",
    "EndpointConnectionError": "see that the endpoint can be reached from here",
    "ExpiredTokenException": _CREDENTIALS,
    "IncompleteSignatureException": _CREDENTIALS,
    "InvalidKeyUsageException": "name a symmetric key for encryption and decryption",
    "InvalidSignatureException": _CREDENTIALS,
    "KMSInvalidStateException": "enable the key, or cancel its deletion",
    "NoCredentialsError": "give AWS credentials in the environment or the AWS configuration",
    "NoRegionError": "set AWS_DEFAULT_REGION, or name the key by its ARN",
    "NotFoundException": "correct its name, the region or the account",
    "PartialCredentialsError": "give AWS credentials in the environment or the AWS configuration",
    "ProfileNotFound": "correct AWS_PROFILE",
    "ReadTimeoutError": "see that the endpoint can be reached from here",
    "SSLError": "set AWS_CA_BUNDLE to the CA of the endpoint",
    "UnrecognizedClientException": _CREDENTIALS,
    "ValueError": "correct AWS_ENDPOINT_URL_KMS or the region",
}


class AwsKmsKey:
    """Wraps dataset keys by AWS KMS, bound to their dataset by the encryption context.

    Wherever it is used it finds region, credentials and endpoint as every AWS client does; it
    holds none of them, and pickles as its URI alone.

    Parameters
    ----------
    uri : str
        ``awskms:KEY_ID``, ``awskms:alias/NAME`` or ``awskms:ARN`` of a symmetric key. A region
        in the ARN goes before that of the configuration. An alias that was pointed at another
        key does not open what the first one wrapped: name that one by its ARN.

    Raises
    ------
    InvalidKeyError
        It names no key; or, when it is used, KMS does not serve it: the code of AWS is named.
    InsecureTransportError
        When it is used: the configured endpoint is plain http on another host.
    """

    __slots__ = ("_name", "_region", "_uri")

    def __init__(self, uri: str) -> None:
        name = uri.removeprefix(_SCHEME)
        found = _NAME.fullmatch(name)
        if not uri.startswith(_SCHEME) or found is None:
            raise InvalidKeyError(
                "name the key in AWS KMS: 'awskms:KEY_ID', 'awskms:alias/NAME' or 'awskms:ARN'"
            )
        self._uri, self._name, self._region = uri, name, found["region"]

    @property
    def uri(self) -> str:
        """What :func:`pamola_dwriter.keys.resolve` makes this provider from."""
        return self._uri

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key by one ``Encrypt``, authenticated together with `context`."""
        if not is_key(dataset_key):
            raise InvalidKeyError("a dataset key must be 32 bytes")
        answer = self._call("encrypt", context, Plaintext=dataset_key)
        if _KEY_ARN.fullmatch(answer["KeyId"]) is None:
            raise InvalidKeyError(
                f"what answers for {self._uri} names no key ARN: it is no AWS KMS"
            )
        parameters: dict[str, str | int] = {"ciphertext": to_base64(answer["CiphertextBlob"])}
        return WrappedKey(method=METHOD, key_id=answer["KeyId"], parameters=parameters)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key, by at most one ``Decrypt``.

        KMS is told the key that was named here, never the one that `wrapped` names: who edits a
        manifest could else have it opened by a key of their own.
        """
        if wrapped.method != METHOD:
            raise wrong_key()
        ciphertext = _ciphertext(wrapped)
        if not self._may_be(wrapped.key_id):
            raise wrong_key()
        answer = self._call("decrypt", context, CiphertextBlob=ciphertext)
        dataset_key = answer["Plaintext"]
        if not _same_key(answer["KeyId"], wrapped.key_id) or not is_key(dataset_key):
            raise wrong_key()
        return bytes(dataset_key)

    def _may_be(self, key_id: str) -> bool:
        """Return whether this may be the key with that ARN; what an alias means, only KMS knows."""
        if "alias/" in self._name:
            return True
        if self._region is not None:
            return _same_key(self._name, key_id)
        return key_id.endswith(f":key/{self._name}")

    def _call(self, operation: str, context: bytes, **arguments: bytes) -> dict[str, Any]:
        failure: EncryptionKeyError
        try:
            with silenced(*_LOGGERS):
                answer: dict[str, Any] = self._send(operation, context, arguments)
        except EncryptionKeyError:
            raise
        except ClientError as error:
            failure = self._refused(dict(error.response.get("Error", {})))
        except (BotoCoreError, ValueError) as error:
            failure = self._unavailable(type(error).__name__)
        else:
            return answer
        # Outside of the handler: an error of AWS may show what was sent.
        raise failure

    def _send(self, operation: str, context: bytes, arguments: dict[str, bytes]) -> Any:
        client = botocore.session.Session().create_client(
            "kms",
            region_name=self._region,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _TRIES},
            ),
        )
        try:
            check_link(client.meta.endpoint_url, "set AWS_ENDPOINT_URL_KMS to an https:// address")
            return getattr(client, operation)(
                KeyId=self._name, EncryptionContext={_CONTEXT: context_text(context)}, **arguments
            )
        finally:
            client.close()

    def _refused(self, error: dict[str, Any]) -> EncryptionKeyError:
        code, message = str(error.get("Code", "")), str(error.get("Message", ""))
        if code in _WRONG or message.startswith(_ANOTHER_KEY):
            return wrong_key()
        return self._unavailable(code)

    def _unavailable(self, code: str) -> InvalidKeyError:
        remedy = _REMEDIES.get(code, "see what AWS says of this code, and try again")
        return InvalidKeyError(f"AWS KMS cannot use the key {self._uri} here: {code}; {remedy}")

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self._uri,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._uri!r})"


def _ciphertext(wrapped: WrappedKey) -> bytes:
    check_parameters(wrapped, {"ciphertext"})
    value = wrapped.parameters["ciphertext"]
    try:
        decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        decoded = b""
    if not 0 < len(decoded) <= _LARGEST:
        raise malformed(f"'ciphertext' must be up to {_LARGEST} bytes in base64")
    return decoded


def _same_key(arn: str, other: str) -> bool:
    """Return whether two ARNs are of one key; a multi-region key has one in each region."""
    if arn == other:
        return _KEY_ARN.fullmatch(arn) is not None
    one, two = _KEY_ARN.fullmatch(arn), _KEY_ARN.fullmatch(other)
    return (
        one is not None
        and two is not None
        and one["id"].startswith(_MULTI_REGION)
        and one.group("account", "id") == two.group("account", "id")
    )
