"""Key providers: what opens what, and that no key is ever shown."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import EncryptionKeyError, IntegrityError, InvalidKeyError, WrongKeyError
from pamola_dwriter.keys import (
    PROVIDERS,
    Cost,
    EnvKey,
    FileKey,
    Passphrase,
    RawKey,
    resolve,
    unwrap_any,
    wrap_all,
    wrapped_from_json,
    wrapped_to_json,
)
from pamola_dwriter.spec import WrappedKey

RAW = bytes(range(200, 232))
WORDS = "correct horse battery"
DATASET_KEY = bytes(range(32))
CONTEXT = b"pamola_dwriter.dataset:0123456789abcdef"
CHEAP = Cost(iterations=1, memory_kib=64, lanes=1)


def cheap() -> Passphrase:
    return Passphrase(WORDS, cost=CHEAP)


def edited(wrapped: WrappedKey, **parameters: Any) -> WrappedKey:
    return dataclasses.replace(wrapped, parameters={**wrapped.parameters, **parameters})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(RAW.hex() + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("provider", [RawKey(RAW), cheap(), Passphrase(WORDS)], ids=repr)
def test_wrap_and_unwrap(provider: KeyProvider) -> None:
    """Each provider opens what it wrapped, after a trip through JSON text."""
    wrapped = provider.wrap(DATASET_KEY, CONTEXT)
    stored = wrapped_from_json(json.loads(json.dumps(wrapped_to_json(wrapped))))
    assert stored == wrapped
    assert provider.unwrap(stored, CONTEXT) == DATASET_KEY
    assert provider.wrap(DATASET_KEY, CONTEXT) != wrapped


def test_wrapping_never_changes() -> None:
    """Known answers: what a release wrapped once, every later one opens."""
    salt, nonce = bytes(16), bytes(12)
    raw = RawKey(RAW).wrap_with(DATASET_KEY, CONTEXT, salt=salt, nonce=nonce)
    words = cheap().wrap_with(DATASET_KEY, CONTEXT, salt=salt, nonce=nonce)
    path = Path(__file__).parent / "vectors/wrapped_v1.json"
    assert [wrapped_to_json(raw), wrapped_to_json(words)] == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("provider", "other"),
    [(RawKey(RAW), RawKey(bytes(32))), (cheap(), Passphrase("another passphrase"))],
    ids=["raw", "passphrase"],
)
def test_another_key_or_context_opens_nothing(provider: Any, other: Any) -> None:
    """Another key, another context, another key id and a changed bit read all the same."""
    wrapped = provider.wrap(DATASET_KEY, CONTEXT)
    flipped = bytearray(base64.b64decode(wrapped.parameters["ciphertext"]))
    flipped[0] ^= 1
    attempts = [
        (other, wrapped, CONTEXT),
        (provider, wrapped, CONTEXT + b"!"),
        (provider, dataclasses.replace(wrapped, key_id="raw:0"), CONTEXT),
        (provider, dataclasses.replace(wrapped, method="rot13"), CONTEXT),
        (provider, edited(wrapped, ciphertext=base64.b64encode(flipped).decode()), CONTEXT),
        (provider, edited(wrapped, salt=base64.b64encode(b"s" * 16).decode()), CONTEXT),
        (provider, edited(wrapped, nonce=base64.b64encode(b"n" * 12).decode()), CONTEXT),
    ]
    for one, attempt, context in attempts:
        with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$") as caught:
            one.unwrap(attempt, context)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("provider", "parameters"),
    [
        (RawKey(RAW), {"salt": "AAAA"}),
        (RawKey(RAW), {"salt": "not base64 at all!"}),
        (RawKey(RAW), {"nonce": 12}),
        (RawKey(RAW), {"ciphertext": ""}),
        (RawKey(RAW), {"more": 1}),
        (cheap(), {"memory_kib": 1024 * 1024 + 1}),
        (cheap(), {"memory_kib": 7}),
        (cheap(), {"memory_kib": "64"}),
        (cheap(), {"iterations": 17}),
        (cheap(), {"iterations": 0}),
        (cheap(), {"iterations": True}),
        (cheap(), {"lanes": 17}),
        (cheap(), {"lanes": 9}),
        (cheap(), {"salt": "AAAA"}),
    ],
)
def test_malformed_parameters_are_integrity_errors(
    provider: KeyProvider, parameters: Mapping[str, Any]
) -> None:
    """Parameters nobody writes, or of a ruinous cost, are refused before any derivation."""
    wrapped = edited(provider.wrap(DATASET_KEY, CONTEXT), **parameters)
    with pytest.raises(IntegrityError, match="a wrapped key is damaged"):
        unwrap_any([provider], [wrapped], CONTEXT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["method", "key_id", "parameters", "x"]), inner)
        ),
    )
)
def test_garbage_is_no_wrapped_key(obj: Any) -> None:
    """Whatever JSON stands for a wrapped key, parsing returns one or raises IntegrityError."""
    try:
        parsed = wrapped_from_json(obj)
    except IntegrityError:
        return
    assert wrapped_to_json(parsed) == obj


@pytest.mark.parametrize(
    "change",
    [
        {"method": 1},
        {"key_id": None},
        {"parameters": []},
        {"parameters": {"salt": True}},
        {"parameters": {"salt": 1.5}},
        {"parameters": {"salt": ["x"]}},
        {"more": 1},
    ],
)
def test_a_wrapped_key_has_one_shape(change: dict[str, Any]) -> None:
    """A field of another type, or one too many, is an IntegrityError."""
    with pytest.raises(IntegrityError, match="a wrapped key is damaged"):
        wrapped_from_json(wrapped_to_json(RawKey(RAW).wrap(DATASET_KEY, CONTEXT)) | change)


def test_any_of_several_keys_opens() -> None:
    """A dataset key wrapped under several providers opens with each one alone."""
    providers: list[KeyProvider] = [RawKey(RAW), cheap(), RawKey(bytes(32))]
    wrapped = wrap_all(providers, DATASET_KEY, CONTEXT)
    assert len(wrapped) == 3
    for provider in providers:
        assert unwrap_any([RawKey(b"x" * 32), provider], wrapped, CONTEXT) == DATASET_KEY


def test_no_key_opens() -> None:
    """When nothing opens, one opaque error says so, with no cause and no context."""
    wrapped = wrap_all([RawKey(RAW), cheap()], DATASET_KEY, CONTEXT)
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$") as caught:
        unwrap_any([RawKey(bytes(32)), Passphrase("something else")], wrapped, CONTEXT)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_too_many_wrapped_keys_are_refused() -> None:
    """A manifest cannot make a reader derive keys for hours."""
    wrapped = wrap_all([cheap()], DATASET_KEY, CONTEXT) * 17
    with pytest.raises(IntegrityError, match="more than 16"):
        unwrap_any([cheap()], wrapped, CONTEXT)


def test_a_passphrase_is_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening many things wrapped alike costs one derivation."""
    provider = cheap()
    calls: list[Any] = []
    wrapped = provider.wrap(DATASET_KEY, CONTEXT)
    monkeypatch.setattr("pamola_dwriter.keys.passphrase.Argon2id", calls.append)
    assert provider.unwrap(wrapped, CONTEXT) == provider.unwrap(wrapped, CONTEXT) == DATASET_KEY
    assert calls == []


def test_remembered_derivations_are_bounded() -> None:
    """A long-lived provider does not collect derived keys without end."""
    provider = cheap()
    for _ in range(40):
        provider.wrap(DATASET_KEY, CONTEXT)
    assert len(provider._derived) == 16


def test_a_passphrase_is_typed_on_any_system() -> None:
    """Composed and decomposed accents are the same passphrase."""
    wrapped = Passphrase("pâté à la carte", cost=CHEAP).wrap(DATASET_KEY, CONTEXT)
    decomposed = "pa\u0302te\u0301 a\u0300 la carte"
    assert Passphrase(decomposed).unwrap(wrapped, CONTEXT) == DATASET_KEY


def test_resolve_takes_every_form(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    """Passphrase, bytes, URIs, providers, and lists of these become providers."""
    monkeypatch.setenv("PII_KEY", WORDS)
    own = cheap()
    given_keys = [WORDS, RAW, "env:PII_KEY", f"file:{key_file}", own, "C:\\not a uri", "No: either"]
    providers = resolve(given_keys)
    assert [type(one) for one in providers[:4]] == [Passphrase, RawKey, EnvKey, FileKey]
    assert providers[4] is own
    assert [type(one) for one in providers[5:]] == [Passphrase, Passphrase]
    assert resolve(tuple(given_keys[1:2]))[0].uri is None
    assert set(PROVIDERS) == {"awskms", "env", "file", "vault"}


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("", "at least 8"),
        ("hunter2", "at least 8"),
        ("hunter2:hunter2", "Passphrase"),
        ("gcpkms:hunter2", "unknown here"),
        ("hunter2 \ud800", "UTF-8"),
        (b"", "exactly 32"),
        (b"hunter2", "exactly 32"),
        (bytearray(b"hunter2" * 5), "bytearray"),
        (True, "bool"),
        (827364, "int"),
        (None, "NoneType"),
        ({"hunter2": 1}, "dict"),
        (RawKey, "type"),
        ([], "between 1"),
        (["long enough"] * 17, "between 1"),
        ([["long enough"]], "list"),
        (["long enough", "hunter2"], "at least 8"),
        ("env:", "env:NAME"),
        ("env:PAMOLA_NOT_SET", "PAMOLA_NOT_SET"),
        ("file:", "file:PATH"),
        ("file:/does/not/exist", "/does/not/exist"),
        ("file:/nul\0byte", "not a path"),
        ("file:/tmp", "directory"),
    ],
)
def test_malformed_keys_say_what_to_change(key: Any, remedy: str) -> None:
    """A key of another shape is an InvalidKeyError with the remedy, without the value."""
    with pytest.raises(InvalidKeyError, match=remedy) as caught:
        resolve(key)
    assert "hunter2" not in str(caught.value)
    assert "827364" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_passphrase_shaped_like_a_uri_is_given_as_such() -> None:
    """What the refusal of an unknown scheme recommends, works."""
    assert isinstance(resolve(Passphrase("hunter2:hunter2"))[0], Passphrase)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
@pytest.mark.parametrize(
    "spelling",
    [
        RAW.hex(),
        RAW.hex().upper(),
        base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode(),
    ],
)
def test_a_stored_raw_key_opens_what_the_bytes_wrapped(
    spelling: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hex and base64, in a variable or a file, are the same key as the raw bytes."""
    monkeypatch.setenv("PII_KEY", spelling + ending)
    path = tmp_path / "key"
    path.write_bytes((spelling + ending).encode())
    path.chmod(0o400)
    wrapped = RawKey(RAW).wrap(DATASET_KEY, CONTEXT)
    for provider in resolve(["env:PII_KEY", f"file:{path}"]):
        assert provider.unwrap(wrapped, CONTEXT) == DATASET_KEY
        assert RawKey(RAW).unwrap(provider.wrap(DATASET_KEY, CONTEXT), CONTEXT) == DATASET_KEY


@pytest.mark.parametrize("text", [WORDS, "exactly thirty-two characters ok", "é" * 16, "a" * 63])
def test_stored_text_is_a_passphrase(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other text is a passphrase, of whatever length, with or without a newline."""
    monkeypatch.setenv("PII_KEY", text)
    plain, ended = tmp_path / "plain", tmp_path / "ended"
    plain.write_bytes(text.encode())
    ended.write_bytes(text.encode() + b"\n")
    plain.chmod(0o600)
    ended.chmod(0o600)
    wrapped = Passphrase(text, cost=CHEAP).wrap(DATASET_KEY, CONTEXT)
    for provider in resolve(["env:PII_KEY", f"file:{plain}", f"file:{ended}"]):
        assert provider.unwrap(wrapped, CONTEXT) == DATASET_KEY


def test_a_file_may_hold_32_raw_bytes(key_file: Path) -> None:
    """A file of exactly 32 bytes that are no text is the raw key itself."""
    key_file.write_bytes(RAW)
    assert FileKey(f"file:{key_file}").key_id == RawKey(RAW).key_id


@pytest.mark.parametrize("content", [b"", b"hunter2", b"\xff" * 31, b"x" * 70_000])
def test_a_file_that_holds_no_key_is_refused(content: bytes, key_file: Path) -> None:
    """Neither a key nor a passphrase: an InvalidKeyError that shows nothing of it."""
    key_file.write_bytes(content)
    with pytest.raises(InvalidKeyError, match=r"must hold|too large") as caught:
        resolve(f"file:{key_file}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_file_open_to_others_is_refused(mode: int, key_file: Path) -> None:
    """Permissions for group or others are refused with the remedy."""
    key_file.chmod(mode)
    with pytest.raises(InvalidKeyError, match="chmod 600"):
        resolve(f"file:{key_file}")


def test_file_uris_are_absolute(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, home and URL spellings name one absolute path, which any process resolves."""
    monkeypatch.chdir(key_file.parent)
    monkeypatch.setenv("HOME", str(key_file.parent))
    for spelling in ("file:key", "file:./key", "file:~/key", f"file://{key_file}"):
        provider = FileKey(spelling)
        assert provider.uri == f"file:{key_file}"
        assert repr(provider) == f"FileKey('file:{key_file}')"


def test_no_key_material_is_shown(
    monkeypatch: pytest.MonkeyPatch, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Reprs, str, errors and logs hold neither keys nor passphrases in any spelling."""
    monkeypatch.setenv("PII_KEY", WORDS)
    providers = resolve([RAW, WORDS, "env:PII_KEY", f"file:{key_file}"])
    wrapped = wrap_all(providers, DATASET_KEY, CONTEXT)
    with caplog.at_level(logging.DEBUG), pytest.raises(EncryptionKeyError) as caught:
        unwrap_any(providers, wrapped, b"another context")
    shown = " ".join([repr(providers), f"{providers}", repr(wrapped), repr(caught), caplog.text])
    for secret in (RAW, DATASET_KEY):
        for spelling in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)):
            assert spelling not in shown
    assert WORDS not in shown
    assert repr(providers[0]).startswith("RawKey(key_id='raw:")
    assert repr(providers[1]) == "Passphrase(...)"
    assert repr(providers[2]) == "EnvKey('env:PII_KEY')"


def test_secrets_refuse_to_be_pickled() -> None:
    """A raw key or passphrase cannot enter a task graph, nor be copied into one."""
    for secret in (RawKey(RAW), Passphrase(WORDS)):
        with pytest.raises(TypeError, match="must not be pickled"):
            pickle.dumps(secret)


def test_stored_keys_pickle_as_their_uri(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable or file travels by name, and is read again where it arrives."""
    monkeypatch.setenv("PII_KEY", WORDS)
    pickled = [pickle.dumps(one) for one in resolve(["env:PII_KEY", f"file:{key_file}"])]
    for data in pickled:
        assert WORDS.encode() not in data
        assert RAW not in data
        assert RAW.hex().encode() not in data
    assert [pickle.loads(data).key_id for data in pickled] == ["passphrase", RawKey(RAW).key_id]  # noqa: S301
    monkeypatch.delenv("PII_KEY")
    with pytest.raises(InvalidKeyError, match="PII_KEY"):
        pickle.loads(pickled[0])  # noqa: S301


def test_key_ids_tell_raw_keys_apart() -> None:
    """A raw key's id is stable, and differs from key to key; passphrases have none."""
    assert RawKey(RAW).key_id == RawKey(RAW).key_id != RawKey(bytes(32)).key_id
    assert len(RawKey(RAW).key_id) == len("raw:") + 16
    assert Passphrase(WORDS).key_id == "passphrase"


@pytest.mark.parametrize("dataset_key", [b"", bytes(31), bytes(33)])
def test_only_dataset_keys_are_wrapped(dataset_key: bytes) -> None:
    """A dataset key of another size is refused when wrapping."""
    with pytest.raises(InvalidKeyError, match="32 bytes"):
        RawKey(RAW).wrap(dataset_key, CONTEXT)


@pytest.mark.parametrize("label", ["\x1b]0;title\x07", "\ud800", "x" * 3000, "a\nb"])
@pytest.mark.parametrize("field", ["method", "key_id"])
def test_labels_of_wrapped_keys_can_be_shown(field: str, label: str) -> None:
    """Whoever edits a manifest cannot steer the screen of those who list its keys."""
    stored = wrapped_to_json(RawKey(RAW).wrap(DATASET_KEY, CONTEXT)) | {field: label}
    with pytest.raises(IntegrityError, match="printable"):
        wrapped_from_json(stored)


def test_a_provider_that_fails_keeps_its_words() -> None:
    """What another package's provider raises is not repeated, and the other keys are tried."""

    class Broken:
        uri = None

        def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
            raise RuntimeError("hvs.secret-token")

        def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
            raise RuntimeError("hvs.secret-token")

    wrapped = wrap_all([RawKey(RAW)], DATASET_KEY, CONTEXT)
    assert unwrap_any([Broken(), RawKey(RAW)], wrapped, CONTEXT) == DATASET_KEY
    with pytest.raises(InvalidKeyError, match=r"a Broken failed \(RuntimeError\)") as caught:
        unwrap_any([Broken()], wrapped, CONTEXT)
    assert "hvs" not in "".join(traceback.format_exception(caught.value))
