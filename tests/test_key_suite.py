"""Every key provider that needs no server keeps all promises of a key provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.keys import Cost, Passphrase, generate_key, resolve
from pamola_dwriter.testing.suite import KeyProviderSuite

Maker = Callable[[], KeyProvider]

CHEAP = Cost(iterations=1, memory_kib=64, lanes=1)
PRIVATE_KEYS = [
    (generate_key("x25519"), generate_key("x25519")),
    (generate_key("x25519", pem=True), generate_key("x25519", pem=True)),
    (generate_key("x25519-mlkem768"), generate_key("x25519-mlkem768")),
    (str(pyrage.x25519.Identity.generate()), str(pyrage.x25519.Identity.generate())),
]


class TestRawKey(KeyProviderSuite):
    """32 bytes."""

    @pytest.fixture
    def make(self) -> Maker:
        """One key."""
        return lambda: resolve(bytes(range(32)))[0]

    @pytest.fixture
    def make_other(self) -> Maker:
        """Another."""
        return lambda: resolve(bytes(32))[0]


class TestPassphrase(KeyProviderSuite):
    """Words, here at little cost."""

    @pytest.fixture
    def make(self) -> Maker:
        """One passphrase."""
        return lambda: Passphrase("correct horse battery", cost=CHEAP)

    @pytest.fixture
    def make_other(self) -> Maker:
        """Another."""
        return lambda: Passphrase("correct horse batteries", cost=CHEAP)


@pytest.mark.parametrize("pair", PRIVATE_KEYS, ids=["line", "pem", "hybrid", "age"])
class TestPrivateKeys(KeyProviderSuite):
    """Both ends of a pair in one hand."""

    @pytest.fixture
    def make(self, pair: tuple[str, str]) -> Maker:
        """One pair."""
        return lambda: resolve(pair[0])[0]

    @pytest.fixture
    def make_other(self, pair: tuple[str, str]) -> Maker:
        """Another."""
        return lambda: resolve(pair[1])[0]


@pytest.mark.parametrize("kind", ["raw", "x25519", "x25519-mlkem768"])
class TestVariables(KeyProviderSuite):
    """What ``env:`` finds."""

    @pytest.fixture
    def make(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> Maker:
        """One variable."""
        monkeypatch.setenv("PAMOLA_ONE", generate_key(kind))
        return lambda: resolve("env:PAMOLA_ONE")[0]

    @pytest.fixture
    def make_other(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> Maker:
        """Another."""
        monkeypatch.setenv("PAMOLA_TWO", generate_key(kind))
        return lambda: resolve("env:PAMOLA_TWO")[0]


@pytest.mark.parametrize("pem", [False, True], ids=["line", "pem"])
class TestFiles(KeyProviderSuite):
    """What ``file:`` finds."""

    @pytest.fixture
    def make(self, tmp_path: Path, *, pem: bool) -> Maker:
        """One file."""
        return _in_file(tmp_path / "one", pem)

    @pytest.fixture
    def make_other(self, tmp_path: Path, *, pem: bool) -> Maker:
        """Another."""
        return _in_file(tmp_path / "two", pem)


def _in_file(path: Path, pem: bool) -> Maker:
    path.touch(mode=0o600)
    path.write_text(generate_key("x25519", pem=pem))
    return lambda: resolve(f"file:{path}")[0]
