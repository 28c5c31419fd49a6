"""The known answers on disk: made anew they are the same bytes, and others read them too.

The reader here is written from the README and uses primitives alone, so that it stands for an
implementation in another language.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import unicodedata
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tink
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tink import streaming_aead

from pamola_dwriter import keys, manifest, open_artifact
from pamola_dwriter.envelope import check_authentic, open_sealed
from pamola_dwriter.errors import DataReadError, IntegrityError, WrongKeyError
from tests.test_envelope import tink_primitive
from tests.vectors import make_vectors as made


def answers(name: str) -> list[dict[str, Any]]:
    """Return the entries of one of the files."""
    entries: list[dict[str, Any]] = json.loads((made.DIRECTORY / name).read_text("utf-8"))
    return entries


SEALED = answers("sealed_v1.json")
REFUSED = answers("refused_v1.json")
WRAPS = answers("wraps_v1.json")
MANIFESTS = answers("manifests_v1.json")
FILES = answers("files_v1.json")
PARQUET = answers("parquet_v1.json")
RECIPIENTS = answers("recipients_v1.json")


class RefusedError(Exception):
    """What the independent reader says of anything that must not open."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, in which no name stands twice."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def split(sealed: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Return header, prefix and stream of sealed bytes, as "The sealed format" says."""
    length = int.from_bytes(sealed[4:8], "big")
    if sealed[:4] != b"PDW1" or length > 1 << 20 or len(sealed) < 8 + length:
        raise RefusedError("prefix")
    text = sealed[8 : 8 + length]
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
        spelled = json.dumps(
            header, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode("utf-8")
    except ValueError:
        raise RefusedError("header") from None
    if not isinstance(header, dict) or spelled != text:
        raise RefusedError("spelling")
    return header, sealed[: 8 + length], sealed[8 + length :]


def size_of_segments(prefix: bytes) -> int:
    """Return *S*, as "The sealed format" says."""
    size = json.loads(prefix[8:]).get("segment", 1_048_576)
    if type(size) is not int or not 4_096 <= size <= 67_108_864:
        raise RefusedError("segment size")
    return size


def open_stream(stream: bytes, prefix: bytes, key: bytes) -> bytes:
    """Open a stream segment by segment, as "The sealed format" says."""
    size = size_of_segments(prefix)
    if len(stream) < 56 or stream[0] != 0x28:
        raise RefusedError("stream header")
    salt, nonce_prefix = stream[1:33], stream[33:40]
    aes = AESGCM(HKDF(SHA256(), 32, salt, prefix).derive(key))
    count = -(-len(stream) // size)
    plain = []
    for i in range(count):
        nonce = nonce_prefix + i.to_bytes(4, "big") + bytes([i == count - 1])
        try:
            plain.append(aes.decrypt(nonce, stream[i * size or 40 : (i + 1) * size], None))
        except (InvalidTag, ValueError):
            raise RefusedError(f"segment {i}") from None
    return b"".join(plain)


def unwrap(wrapped: dict[str, Any], secret: dict[str, Any], context: str) -> bytes:
    """Return the dataset key, as "Wrapped keys" says."""
    parameters = wrapped["parameters"]
    salt, nonce, ciphertext = (
        base64.b64decode(parameters[name], validate=True)
        for name in ("salt", "nonce", "ciphertext")
    )
    if wrapped["method"] == "hkdf-sha256":
        raw = bytes.fromhex(secret["raw"])
        identity = HKDF(SHA256(), 32, None, b"pamola_dwriter key id v1").derive(raw)
        if wrapped["key_id"] != f"raw:{identity[:8].hex()}":
            raise RefusedError("key id")
        key = HKDF(SHA256(), 32, salt, b"pamola_dwriter wrap v1").derive(raw)
    else:
        assert wrapped["method"] == "argon2id"
        key = Argon2id(
            salt=salt,
            length=32,
            iterations=parameters["iterations"],
            lanes=parameters["lanes"],
            memory_cost=parameters["memory_kib"],
        ).derive(unicodedata.normalize("NFC", secret["passphrase"]).encode("utf-8"))
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, context.encode("ascii"))
    except InvalidTag:
        raise RefusedError("wrapped key") from None


def sealed_bytes(entry: dict[str, Any]) -> bytes:
    """Return the sealed bytes of an entry, which long ones leave to be put together here."""
    if "sealed" in entry:
        return bytes.fromhex(entry["sealed"])
    prefix, salt = bytes.fromhex(entry["prefix"]), bytes.fromhex(entry["salt"])
    nonce_prefix = bytes.fromhex(entry["nonce_prefix"])
    aes = AESGCM(HKDF(SHA256(), 32, salt, prefix).derive(bytes.fromhex(entry["key"])))
    plain = (bytes(range(251)) * (entry["size"] // 251 + 1))[: entry["size"]]
    size = size_of_segments(prefix)
    bounds = [0, *range(size - 56, len(plain), size - 16), len(plain)]
    segments = [plain[a:b] for a, b in pairwise(bounds)]
    stream = b"\x28" + salt + nonce_prefix
    for i, segment in enumerate(segments):
        nonce = nonce_prefix + i.to_bytes(4, "big") + bytes([i == len(segments) - 1])
        stream += aes.encrypt(nonce, segment, None)
    return prefix + stream


def edited(data: bytes, edits: list[list[Any]]) -> bytes:
    """Return sealed bytes after `edits`."""
    for kind, *arguments in edits:
        changed = bytearray(data)
        if kind == "flip":
            changed[arguments[0]] ^= arguments[1]
        elif kind == "put":
            at, new = arguments[0], bytes.fromhex(arguments[1])
            changed[at : at + len(new)] = new
        elif kind == "cut":
            del changed[arguments[0] :]
        elif kind == "header":
            _, prefix, stream = split(data)
            text = bytes.fromhex(arguments[0])
            changed = bytearray(prefix[:4] + len(text).to_bytes(4, "big") + text + stream)
        else:
            one, other, size = arguments
            changed[other : other + size] = data[one : one + size]
            if kind == "swap":
                changed[one : one + size] = data[other : other + size]
        data = bytes(changed)
    return data


@pytest.mark.parametrize("name", made.MADE)
def test_the_vectors_are_made_anew_byte_for_byte(name: str) -> None:
    """The script gives the very bytes on disk: nothing of any format has changed."""
    assert (made.DIRECTORY / name).read_text("utf-8") == made.text_of(name)


@pytest.mark.parametrize("entry", SEALED, ids=lambda entry: str(entry["size"]))
def test_others_open_what_is_sealed(entry: dict[str, Any]) -> None:
    """Primitives and Tink's library both open the sealed bytes, and find the hashes on disk."""
    sealed, key = sealed_bytes(entry), bytes.fromhex(entry["key"])
    assert (len(sealed), hashlib.sha256(sealed).hexdigest()) == (
        entry["sealed_size"],
        entry["sealed_sha256"],
    )
    header, prefix, stream = split(sealed)
    assert (header, prefix.hex()) == (entry["header"], entry["prefix"])
    plain = open_stream(stream, prefix, key)
    assert hashlib.sha256(plain).hexdigest() == entry["plaintext_sha256"]
    tinks = tink_primitive(key, size_of_segments(prefix))
    assert tinks.new_decrypting_stream(io.BytesIO(stream), prefix).read() == plain
    assert open_sealed(sealed, key, expect=entry["header"]) == plain


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry["what"])
def test_nobody_opens_what_was_altered(entry: dict[str, Any]) -> None:
    """Neither this package, nor the independent reader, nor Tink opens the negative vectors."""
    original = SEALED[entry["of"]]
    altered, key = edited(sealed_bytes(original), entry["edits"]), bytes.fromhex(original["key"])
    assert altered != sealed_bytes(original)
    with pytest.raises(DataReadError):
        open_sealed(altered, key)
    with pytest.raises(RefusedError):
        open_stream(*reversed(split(altered)[1:]), key)
    whole = bytes.fromhex(original["prefix"])
    prefix, stream = altered[: len(whole)], altered[len(whole) :]
    tinks = tink_primitive(key, size_of_segments(whole))
    # A header of another length leaves Tink, which knows no header, with another prefix.
    with pytest.raises((tink.TinkError, OSError, EOFError)):
        tinks.new_decrypting_stream(io.BytesIO(stream), prefix).read()


def provider_of(secret: dict[str, Any]) -> keys.RawKey | keys.Passphrase:
    """Return the key provider of a secret of the vectors."""
    if "raw" in secret:
        return keys.RawKey(bytes.fromhex(secret["raw"]))
    return keys.Passphrase(secret["passphrase"])


@pytest.mark.parametrize("entry", WRAPS, ids=lambda entry: entry["what"])
def test_others_unwrap_keys_alike(entry: dict[str, Any]) -> None:
    """Package and primitives get the same key out of a wrapped one, or both of them none."""
    secret, context = entry["secret"], entry["context"]
    wrapped = keys.wrapped_from_json(entry["wrapped"])
    if entry["key"] is not None:
        assert unwrap(entry["wrapped"], secret, context).hex() == entry["key"]
        assert provider_of(secret).unwrap(wrapped, context.encode()).hex() == entry["key"]
        return
    with pytest.raises(RefusedError):
        unwrap(entry["wrapped"], secret, context)
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$") as caught:
        provider_of(secret).unwrap(wrapped, context.encode())
    assert caught.value.__cause__ is None


def test_every_method_has_wraps() -> None:
    """Raw keys and passphrases have known answers that open, and some that must not."""
    methods = {(entry["wrapped"]["method"], entry["key"] is None) for entry in WRAPS}
    assert methods == {(m, no) for m in ("hkdf-sha256", "argon2id") for no in (True, False)}


def canonical(document: Any) -> bytes:
    """Spell a manifest's body as the writer does."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("entry", MANIFESTS, ids=["plain", "sealed", "table"])
def test_others_read_manifests(entry: dict[str, Any], tmp_path: Path) -> None:
    """Primitives find in a manifest what the package does, and it is dumped to the same bytes."""
    stored = entry["stored"].encode()
    shown = json.loads(stored, object_pairs_hook=once)
    assert (shown["kind"], shown["version"]) == ("pamola_dwriter.dataset", 1)
    body = shown
    if "encryption" in shown:
        locked = shown["encryption"]
        context = f"pamola_dwriter.dataset:{locked['keyed_by']}"
        key = unwrap(locked["keys"][0], {"raw": entry["raw"]}, context)
        header, prefix, stream = split(base64.b64decode(locked["sealed"], validate=True))
        expected = {"kind": "manifest", "path": "_manifest.json", "write_id": shown["write_id"]}
        assert header == expected
        text = open_stream(stream, prefix, key)
        assert text == entry["body"].encode()
        body = json.loads(text)
        assert (body["writes"], body["retired"]) == (shown["writes"], shown["retired"])
    envelope = manifest.parse_envelope(stored)
    assert manifest.dump_envelope(envelope) == stored
    parsed = manifest.parse_body(envelope.write_id, canonical(body))
    names = set(json.loads(manifest.dump_body(parsed)))
    assert manifest.dump_body(parsed) == canonical({n: body[n] for n in names})
    assert parsed.created == datetime.fromisoformat(body["created"])
    assert parsed.schema == pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body["schema"])))
    assert [f"{field.name}: {field.type}" for field in parsed.schema] == [
        f"{name}: {kind}" for name, kind in body["columns"].items()
    ]
    assert manifest.totals(made.parts()) == body["totals"]
    assert parsed.parts == (() if parsed.part_table else made.parts())


def test_others_read_the_part_table() -> None:
    """The table has the hash that the manifest names, and the rows of the README's columns."""
    stored = (made.DIRECTORY / "part_table_v1.parquet").read_bytes()
    named = json.loads(MANIFESTS[2]["body"])["part_table"]
    assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (
        named["sha256"],
        named["size_bytes"],
    )
    rows = pq.read_table(pa.BufferReader(stored)).to_pylist()
    listed = json.loads(MANIFESTS[1]["body"])["parts"]
    assert rows == listed
    assert manifest.parse_parts(stored) == made.parts()
    assert manifest.parse_parts(manifest.dump_parts(made.parts())) == made.parts()


@pytest.mark.parametrize("entry", PARQUET, ids=["plain-footer"])
def test_others_unwrap_data_keys(entry: dict[str, Any]) -> None:
    """Primitives find the keys of columns and footers, and what authenticates a shown manifest."""
    shown = json.loads(entry["manifest"], object_pairs_hook=once)
    locked = shown.pop("encryption")
    context = f"pamola_dwriter.dataset:{locked['keyed_by']}"
    dataset_key = unwrap(locked["keys"][0], {"raw": entry["raw"]}, context)
    assert entry["footer_key"] == tag(dataset_key, b"pamola_dwriter parquet footer v1").hex()
    secret = tag(dataset_key, b"pamola_dwriter manifest v1")
    assert locked["mac"] == base64.b64encode(tag(secret, canonical(shown))).decode()
    column_key = unwrap(locked["column_keys"]["pii"][0], {"raw": entry["raw"]}, f"{context}:pii")
    assert column_key.hex() == entry["column_key"]
    wrapped = base64.b64decode(entry["wrapped"], validate=True)
    data_key = AESGCM(column_key).decrypt(wrapped[:12], wrapped[12:], entry["place"].encode())
    assert data_key.hex() == entry["data_key"]
    parsed = manifest.parse_envelope(entry["manifest"].encode())
    check_authentic(dataset_key, manifest.shown_body(parsed), parsed.mac or b"")


def tag(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


@pytest.mark.parametrize("entry", RECIPIENTS, ids=["x25519", "hybrid", "age"])
def test_what_was_wrapped_to_a_public_key_opens_forever(entry: dict[str, Any]) -> None:
    """The private key opens it, for its context alone."""
    (identity,) = keys.resolve(entry["secret"])
    wrapped = keys.wrapped_from_json(entry["wrapped"])
    assert identity.unwrap(wrapped, entry["context"].encode()).hex() == entry["key"]
    with pytest.raises(WrongKeyError):
        identity.unwrap(wrapped, entry["context"][:-1].encode())


@pytest.mark.parametrize("entry", FILES, ids=["written", "changed"])
def test_others_open_single_files(entry: dict[str, Any], tmp_path: Path) -> None:
    """Package and primitives open an encrypted single file, also under another name."""
    stored, plain = bytes.fromhex(entry["stored"]), bytes.fromhex(entry["plain"])
    header, prefix, stream = split(stored)
    assert header == entry["header"]
    context = f"pamola_dwriter.dataset:{header['keyed_by']}"
    key = unwrap(header["keys"][0], {"raw": entry["raw"]}, context)
    assert open_stream(stream, prefix, key) == plain
    for name in (header["path"], "renamed"):
        (tmp_path / name).write_bytes(stored)
        with open_artifact(tmp_path / name, encryption_key=bytes.fromhex(entry["raw"])) as file:
            assert file.read() == plain


@pytest.mark.parametrize("name", ["write_id", "keyed_by", "path", "kind"])
def test_an_edited_header_of_a_single_file_opens_nothing(name: str, tmp_path: Path) -> None:
    """Whatever field of the header is edited, an error of ours is all that comes out."""
    header, _, stream = split(bytes.fromhex(FILES[1]["stored"]))
    changed = header | {name: "0" * 16 if name != "kind" else "part"}
    text = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    (tmp_path / "x").write_bytes(b"PDW1" + len(text).to_bytes(4, "big") + text + stream)
    with (
        pytest.raises((IntegrityError, WrongKeyError, DataReadError)),
        open_artifact(tmp_path / "x", encryption_key=bytes.fromhex(FILES[1]["raw"])) as file,
    ):
        file.read()


streaming_aead.register()
