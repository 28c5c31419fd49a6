"""Public-key recipients: held against other implementations, and used as a writer uses them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from distributed import Client
from hypothesis import assume, given
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from pamola_dwriter import DataWriter, describe, open_artifact, read_dataset, rotate_keys, verify
from pamola_dwriter.errors import EncryptionKeyError, InvalidKeyError, WrongKeyError
from pamola_dwriter.keys import (
    HpkeIdentity,
    HpkeRecipient,
    generate_key,
    resolve,
    unwrap_any,
    wrap_all,
)
from pamola_dwriter.spec import WrappedKey
from tests.places import Place, batch

INFO = b"pamola_dwriter hpke v1:"
CONTEXT = b"pamola_dwriter.dataset:0123456789abcdef"
DATASET_KEY = bytes(range(32))
SECRET = {kind: generate_key(kind).strip() for kind in ("x25519", "x25519-mlkem768")}
PUBLIC = {kind: HpkeIdentity(line).public for kind, line in SECRET.items()}
KINDS = list(SECRET)


def people(rows: int = 40) -> dd.DataFrame:
    return dd.from_pandas(batch(0, rows), npartitions=4)


def raw(line: str) -> bytes:
    """Return the key in a line, as the module's docstring says where it stands."""
    data = line.split(":")[2]
    return base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))[:-4]


def ciphertext(wrapped: WrappedKey) -> bytes:
    return base64.b64decode(str(wrapped.parameters["ciphertext"]))


def test_another_implementation_of_the_rfc_opens_it() -> None:
    """pyhpke, by another author, opens what is wrapped to an X25519 key, and the other way."""
    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    private = X25519PrivateKey.from_private_bytes(raw(SECRET["x25519"]))
    theirs = KEMKey.from_pyca_cryptography_key(private)
    wrapped = HpkeRecipient(PUBLIC["x25519"]).wrap(DATASET_KEY, CONTEXT)
    sealed = ciphertext(wrapped)
    opener = suite.create_recipient_context(sealed[:32], theirs, info=INFO + CONTEXT)
    assert opener.open(sealed[32:]) == DATASET_KEY

    public = KEMKey.from_pyca_cryptography_key(private.public_key())
    encapsulated, sender = suite.create_sender_context(public, info=INFO + CONTEXT)
    text = base64.b64encode(encapsulated + sender.seal(DATASET_KEY)).decode()
    by_them = replace(wrapped, parameters={"kind": "x25519", "ciphertext": text})
    assert HpkeIdentity(SECRET["x25519"]).unwrap(by_them, CONTEXT) == DATASET_KEY


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869 with SHA-256."""
    blocks, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(secret, block + info + bytes([counter]), "sha256")
        blocks += block
    return blocks[:length]


def open_hybrid(secret: bytes, sealed: bytes, info: bytes) -> bytes:
    """Open a message of HPKE from primitives alone.

    The KEM combines ML-KEM-768 and X25519 by SHA3-256 (draft-connolly-cfrg-xwing-kem, section
    5.3); the key schedule is that of RFC 9180, section 5.1, in base mode.
    """
    lattice, curve = (
        MLKEM768PrivateKey.from_seed_bytes(secret[:64]),
        X25519PrivateKey.from_private_bytes(secret[64:]),
    )
    ct_m, ct_x, message = sealed[:1088], sealed[1088:1120], sealed[1120:]
    ss_m = lattice.decapsulate(ct_m)
    ss_x = curve.exchange(X25519PublicKey.from_public_bytes(ct_x))
    own = curve.public_key().public_bytes_raw()
    shared = hashlib.sha3_256(ss_m + ss_x + ct_x + own + rb"\.//^\\"[:6]).digest()

    suite_id = b"HPKE" + (0x647A).to_bytes(2) + (1).to_bytes(2) + (2).to_bytes(2)

    def extract(salt: bytes, label: bytes, keying: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + keying, "sha256")

    def labeled_expand(key: bytes, label: bytes, content: bytes, length: int) -> bytes:
        return expand(key, length.to_bytes(2) + b"HPKE-v1" + suite_id + label + content, length)

    schedule = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    derived = extract(shared, b"secret", b"")
    key = labeled_expand(derived, b"key", schedule, 32)
    nonce = labeled_expand(derived, b"base_nonce", schedule, 12)
    return AESGCM(key).decrypt(nonce, message, b"")


def test_the_hybrid_is_what_it_says() -> None:
    """A straight-line HPKE over ML-KEM and X25519 opens what is wrapped to a hybrid key."""
    wrapped = HpkeRecipient(PUBLIC["x25519-mlkem768"]).wrap(DATASET_KEY, CONTEXT)
    secret = raw(SECRET["x25519-mlkem768"])
    assert open_hybrid(secret, ciphertext(wrapped), INFO + CONTEXT) == DATASET_KEY


@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_that_cannot_read(kind: str, place: Place, client: Client) -> None:
    """On a cluster, the public key alone writes; it opens nothing, and the private key all."""
    result = place.writer(encryption_key=PUBLIC[kind]).write_dataframe(people(), "p", "parquet")
    frame = place.read(result.path, encryption_key=SECRET[kind])
    assert frame.to_dict("list") == batch(0, 40).to_dict("list")
    options = {"storage_options": place.options, "client": client}
    assert verify(result.path, encryption_key=SECRET[kind], **options).parts == 4
    with pytest.raises(WrongKeyError, match="a public key encrypts and opens nothing"):
        read_dataset(result.path, encryption_key=PUBLIC[kind], storage_options=place.options)


def test_any_of_several_opens(tmp_path: Path, pii_key: str) -> None:
    """Two recipients and a key of the cluster's own: each opens the dataset by itself."""
    keys = [*PUBLIC.values(), "env:PII_KEY"]
    result = DataWriter(tmp_path, encryption_key=keys).write_dataframe(people(), "p", "parquet")
    for one in (*SECRET.values(), "env:PII_KEY"):
        assert len(read_dataset(result.path, encryption_key=one)) == 40


def test_the_public_key_replaces_and_does_not_add(tmp_path: Path) -> None:
    """Overwriting needs no private key; appending reads what stands, is refused, loses nothing."""
    writer = DataWriter(tmp_path, encryption_key=PUBLIC["x25519"])
    writer.write_dataframe(people(8), "p", "parquet")
    path = writer.write_dataframe(people(), "p", "parquet", overwrite=True).path
    with pytest.raises(WrongKeyError, match="give the private key"):
        writer.write_dataframe(people(), "p", "parquet", append=True)
    writer.append_to_json_array({"n": 1}, "log")
    with pytest.raises(WrongKeyError, match="give the private key"):
        writer.append_to_json_array({"n": 2}, "log")
    assert len(read_dataset(path, encryption_key=SECRET["x25519"])) == 40
    with open_artifact(tmp_path / "log.json.pdw", encryption_key=SECRET["x25519"]) as log:
        assert json.load(log) == [{"n": 1}]


def test_a_recipient_is_added_and_removed(tmp_path: Path) -> None:
    """Rotation lets an auditor in by a public key, and out by its id, in the manifest alone."""
    writer = DataWriter(tmp_path, encryption_key=bytes(32))
    path = writer.write_dataframe(people(), "p", "parquet").path
    before = {part: part.read_bytes() for part in Path(path).glob("part-*")}
    auditor = HpkeRecipient(PUBLIC["x25519-mlkem768"]).key_id
    report = rotate_keys(path, encryption_key=bytes(32), to=PUBLIC["x25519-mlkem768"])
    assert auditor in report.key_ids
    assert len(read_dataset(path, encryption_key=SECRET["x25519-mlkem768"])) == 40
    rotate_keys(path, encryption_key=bytes(32), revoke=[auditor])
    with pytest.raises(WrongKeyError):
        read_dataset(path, encryption_key=SECRET["x25519-mlkem768"])
    assert {part: part.read_bytes() for part in Path(path).glob("part-*")} == before
    assert auditor not in json.dumps(describe(path))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_typing_mistake_is_found(kind: str, data: st.DataObject) -> None:
    """Whatever one character of a public key is changed to, it is refused."""
    line = PUBLIC[kind]
    at = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.characters(max_codepoint=127).filter(lambda c: c != line[at]))
    changed = line[:at] + other + line[at + 1 :]
    assume(changed.strip() != line)
    with pytest.raises(InvalidKeyError):
        HpkeRecipient(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_private_key_is_not_shown(kind: str) -> None:
    """The error says what to do, and neither it nor what it comes from holds the key."""
    for damaged in (SECRET[kind][:-3], SECRET[kind] + "AAAA", SECRET[kind].replace(":", ";", 2)):
        with pytest.raises(EncryptionKeyError) as caught:
            HpkeIdentity(damaged)
        assert SECRET[kind][-20:-4] not in f"{caught.value!r} {caught.value.__context__!r}"
    assert SECRET[kind][-20:-4] not in repr(HpkeIdentity(SECRET[kind]))


def private_pem(key: Any, password: bytes | None = None) -> str:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return pem.decode()


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)],
    ids=["ed25519", "rsa"],
)
def test_pem_of_another_type_is_refused(key: Any) -> None:
    """What looks like a key and is for signatures says which type it must be."""
    spki = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for pem in (private_pem(key), key.public_key().public_bytes(*spki).decode()):
        with pytest.raises(InvalidKeyError, match="X25519"):
            resolve(pem)


def test_pem_of_other_tools(tmp_path: Path) -> None:
    """PEM as OpenSSL writes it is taken, from a variable's text or a file; damaged it is not."""
    pem = private_pem(X25519PrivateKey.generate())
    file = tmp_path / "key.pem"
    file.touch(mode=0o600)
    file.write_text(pem)
    (identity,), (stored,) = resolve(pem), resolve(f"file:{file}")
    wrapped = wrap_all([stored], DATASET_KEY, CONTEXT)
    assert unwrap_any([identity], wrapped, CONTEXT) == DATASET_KEY
    with pytest.raises(InvalidKeyError, match="X25519"):
        resolve(pem.replace("MC4C", "MC4D"))


def test_a_public_key_may_lie_open(tmp_path: Path) -> None:
    """A file with a public key is readable by all, one with a private key must not be."""
    for name, text in (("public", PUBLIC["x25519"]), ("private", SECRET["x25519"])):
        (tmp_path / name).write_text(text + "\n")
        (tmp_path / name).chmod(0o644)
    (stored,) = resolve(f"file:{tmp_path / 'public'}")
    assert stored.uri is None  # nothing for a worker to open data with
    result = DataWriter(tmp_path / "task", encryption_key=stored).write_json({"a": 1}, "x")
    assert json.loads(open_artifact(result.path, encryption_key=SECRET["x25519"]).read()) == {
        "a": 1
    }
    with pytest.raises(InvalidKeyError, match="chmod 600"):
        resolve(f"file:{tmp_path / 'private'}")


def test_points_of_low_order_are_refused() -> None:
    """A public key made so that everybody can open what is wrapped to it is no key."""
    for point in (bytes(32), b"\1" + bytes(31)):
        head = "hpke:x25519:"
        check = hashlib.sha256(head.encode() + point).digest()[:4]
        line = head + base64.urlsafe_b64encode(point + check).decode().rstrip("=")
        with pytest.raises(InvalidKeyError, match="low order"):
            HpkeRecipient(line).wrap(DATASET_KEY, CONTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY= somebody@example.org",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
        "ssh-dss AAAAB3NzaC1kc3M=",
        "# public key: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
        "AGE1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ",
        "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----",
        "HPKE:x25519:AAAA",
        "ENV:PII_KEY_NAME",
        "AWSKMS:alias/whatever",
    ],
    ids=lambda text: text[:12],
)
def test_what_looks_like_a_key_is_no_passphrase(text: str, tmp_path: Path) -> None:
    """A public key, or a misspelt name of a key, would else open the data to whoever reads it."""
    with pytest.raises(InvalidKeyError):
        resolve(text)
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(text)
    with pytest.raises(InvalidKeyError):
        resolve(f"file:{tmp_path / 'key'}")


def test_blanks_before_a_uri_do_not_make_it_a_passphrase(pii_key: str) -> None:
    """The same key is found as without them."""
    wrapped = wrap_all(resolve(" env:PII_KEY"), DATASET_KEY, CONTEXT)
    assert unwrap_any(resolve("env:PII_KEY"), wrapped, CONTEXT) == DATASET_KEY
