"""What every key provider promises."""

from __future__ import annotations

import base64
import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    EncryptionKeyError,
    IntegrityError,
    InvalidKeyError,
    WrongKeyError,
)
from pamola_dwriter.keys import resolve, wrapped_from_json, wrapped_to_json
from pamola_dwriter.spec import WrappedKey

DATASET_KEY = bytes(range(100, 132))
CONTEXT = b"pamola_dwriter.dataset:0123456789abcdef"

Maker = Callable[[], KeyProvider]


class KeyProviderSuite:
    """Every promise of a key provider; a subclass gives the fixtures `make` and `make_other`."""

    @pytest.fixture
    def make(self) -> Maker:
        """Make a provider of one key; each call is one more process that has it."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture named 'make'")

    @pytest.fixture
    def make_other(self) -> Maker:
        """Make a provider of the same class that has another key."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture named 'make_other'")

    @pytest.fixture
    def provider(self, make: Maker) -> KeyProvider:
        """The provider under test."""
        return make()

    @pytest.fixture
    def wrapped(self, provider: KeyProvider) -> WrappedKey:
        """A dataset key that it wrapped."""
        return provider.wrap(DATASET_KEY, CONTEXT)

    def test_opens_what_it_wrapped(self, make: Maker, wrapped: WrappedKey) -> None:
        """After a trip through the JSON of a manifest, in another process, any number of times."""
        stored = wrapped_from_json(json.loads(json.dumps(wrapped_to_json(wrapped))))
        assert stored == wrapped
        later = make()
        assert [later.unwrap(stored, CONTEXT) for _ in range(2)] == [DATASET_KEY] * 2

    def test_never_wraps_twice_alike(self, provider: KeyProvider, wrapped: WrappedKey) -> None:
        """Each wrap draws what it needs anew."""
        again = provider.wrap(DATASET_KEY, CONTEXT)
        assert (again.method, again.key_id) == (wrapped.method, wrapped.key_id)
        assert again.parameters != wrapped.parameters

    def test_is_bound_to_its_context(self, provider: KeyProvider, wrapped: WrappedKey) -> None:
        """The key of one dataset does not open as that of another."""
        for context in (CONTEXT + b"!", CONTEXT[:-1]):
            with pytest.raises(WrongKeyError):
                provider.unwrap(wrapped, context)

    def test_another_key_opens_nothing(self, make_other: Maker, wrapped: WrappedKey) -> None:
        """Another key of the same kind does not, also if the key id is made to fit.

        It is a wrong key, or one that is not available: a service may not tell these apart.
        """
        other = make_other()
        own = other.wrap(DATASET_KEY, CONTEXT)
        for one in (wrapped, replace(wrapped, key_id=own.key_id)):
            with pytest.raises(EncryptionKeyError):
                other.unwrap(one, CONTEXT)

    def test_passes_over_what_others_wrapped(
        self, provider: KeyProvider, wrapped: WrappedKey
    ) -> None:
        """Several kinds of keys stand side by side in a manifest."""
        foreign = WrappedKey(method="no-such-method", key_id="x", parameters={"n": 1})
        for one in (foreign, replace(wrapped, method="no-such-method")):
            with pytest.raises(WrongKeyError):
                provider.unwrap(one, CONTEXT)

    def test_finds_every_change(self, provider: KeyProvider, wrapped: WrappedKey) -> None:
        """Whatever is changed in its parameters, it does not open, and fails in one of our ways."""
        for changed in _changes(wrapped):
            with pytest.raises((EncryptionKeyError, IntegrityError)):
                provider.unwrap(changed, CONTEXT)

    def test_refuses_another_size(self, provider: KeyProvider) -> None:
        """A dataset key has 32 bytes."""
        for size in (0, 16, 31, 33, 64):
            with pytest.raises(InvalidKeyError):
                provider.wrap(bytes(size), CONTEXT)

    def test_shows_no_dataset_key(self, provider: KeyProvider, wrapped: WrappedKey) -> None:
        """Neither what it stores, nor its repr, nor an error holds the dataset key."""
        with pytest.raises(WrongKeyError) as caught:
            provider.unwrap(wrapped, b"another")
        shown = [
            json.dumps(wrapped_to_json(wrapped)),
            repr(provider),
            "".join(traceback.format_exception(caught.value)),
        ]
        for text in shown:
            for spelled in (DATASET_KEY.hex(), base64.b64encode(DATASET_KEY).decode()[:42]):
                assert spelled.lower() not in text.lower()
            assert repr(DATASET_KEY)[2:-1] not in text

    def test_travels_by_its_uri_or_not_at_all(
        self, provider: KeyProvider, wrapped: WrappedKey
    ) -> None:
        """A worker resolves its URI to the same key; without a URI, it is never pickled."""
        if provider.uri is None:
            with pytest.raises(TypeError, match="pickle"):
                pickle.dumps(provider)
            return
        (resolved,) = resolve(provider.uri)
        assert resolved.uri == provider.uri
        assert resolved.unwrap(wrapped, CONTEXT) == DATASET_KEY
        arrived = pickle.loads(pickle.dumps(provider))  # noqa: S301  # made here
        assert arrived.unwrap(wrapped, CONTEXT) == DATASET_KEY

    def test_serves_threads(self, provider: KeyProvider, wrapped: WrappedKey) -> None:
        """The tasks of a worker share one provider."""
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(lambda _: provider.unwrap(wrapped, CONTEXT), range(16)))
        assert opened == [DATASET_KEY] * 16


def _changes(wrapped: WrappedKey) -> Iterator[WrappedKey]:
    """Yield `wrapped` with one parameter changed, removed or added."""
    for name, value in wrapped.parameters.items():
        others = [part for part in wrapped.parameters if part != name]
        yield replace(wrapped, parameters={part: wrapped.parameters[part] for part in others})
        for changed in (value + 1, 0, -1) if isinstance(value, int) else _texts(value):
            yield replace(wrapped, parameters={**wrapped.parameters, name: changed})
    yield replace(wrapped, parameters={**wrapped.parameters, "one_more": "x"})


def _texts(text: str) -> Iterator[str | int]:
    yield from ("", text[:-4], text * 2, 7)
    for at in {0, len(text) // 2, max(0, len(text) - 4)}:
        yield text[:at] + ("B" if text[at : at + 1] != "B" else "C") + text[at + 1 :]
