"""``pamola-dwriter keygen`` and ``public-key``, as somebody at a shell uses them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from pamola_dwriter import DataWriter
from pamola_dwriter.cli import main
from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.keys import generate_key, resolve
from tests.places import batch

KINDS = ["raw", "x25519", "x25519-mlkem768"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_goes_to_the_file_alone(kind: str, folder: Path) -> None:
    """Whatever the umask, only the owner can read the file; the secret is shown nowhere."""
    before = os.umask(0)
    try:
        result = run("keygen", "new.key", "--kind", kind, "--json")
    finally:
        os.umask(before)
    assert result.exit_code == 0
    secret = (folder / "new.key").read_text().strip()
    assert secret.rpartition(":")[2] not in result.output
    assert (folder / "new.key").stat().st_mode & 0o777 == 0o600
    facts = json.loads(result.stdout)
    assert (facts["file"], facts["kind"]) == ("new.key", kind)
    (provider,) = resolve("file:new.key")
    assert provider.wrap(bytes(32), b"x").key_id == facts["key_id"]
    assert ("public_key" in facts) == (kind != "raw")


def test_from_keygen_to_reading(folder: Path) -> None:
    """The printed public key writes on the command line, and the file's private key reads."""
    run("keygen", "auditor.key", "--kind", "x25519-mlkem768")
    public = run("public-key", "file:auditor.key").stdout.strip()
    batch(0).to_parquet("in.parquet")
    into = ("--task-dir", "task", "--name", "p", "--encryption-key", public, "--json")
    done = run("write", "in.parquet", *into)
    assert done.exit_code == 0, done.output
    path = json.loads(done.stdout)["path"]
    refused = run("verify", path, "--encryption-key", public)
    assert (refused.exit_code, "opens nothing" in refused.output) == (4, True)
    assert run("verify", path, "--encryption-key", "file:auditor.key").exit_code == 0
    run("decrypt", path, "plain.parquet", "--encryption-key", "file:auditor.key")
    assert pd.read_parquet("plain.parquet")["x"].tolist() == list(range(10))


def test_keys_are_never_overwritten(folder: Path) -> None:
    """Neither a file nor what a link points to, be it there or not, is written over."""
    (folder / "old").write_text("precious")
    (folder / "link").symlink_to("old")
    (folder / "dangling").symlink_to("nowhere")
    for name in ("old", "link", "dangling"):
        result = run("keygen", name)
        assert (result.exit_code, "exists" in result.output) == (2, True)
    assert (folder / "old").read_text() == "precious"
    assert not (folder / "nowhere").exists()
    missing = run("keygen", "no/folder/key")
    assert (missing.exit_code, "No such file" in missing.output) == (2, True)


def test_to_stdout_alone(folder: Path) -> None:
    """With ``-`` stdout is the key and nothing else, for a pipe into a secret store."""
    for kind in KINDS:
        out = run("keygen", "-", "--kind", kind).stdout
        assert out.endswith("\n")
        resolve(out.strip() if kind != "raw" else bytes.fromhex(out))
    assert list(folder.iterdir()) == []


def test_pem(folder: Path) -> None:
    """PEM of both halves is what other tools read; kinds without one say so, and make no file."""
    assert run("keygen", "a.pem", "--kind", "x25519", "--pem").exit_code == 0
    private = load_pem_private_key((folder / "a.pem").read_bytes(), None)
    public = load_pem_public_key(run("public-key", "file:a.pem", "--pem").stdout.encode())
    raw = [key.public_bytes_raw() for key in (private.public_key(), public)]  # type: ignore[union-attr]
    assert raw[0] == raw[1]
    assert len(raw[0]) == 32
    for kind in ("raw", "x25519-mlkem768"):
        result = run("keygen", "b.pem", "--kind", kind, "--pem")
        assert (result.exit_code, "no PEM" in result.output) == (4, True)
    assert not (folder / "b.pem").exists()


def test_only_pairs_have_a_public_key(folder: Path) -> None:
    """A key that is not one of a pair, and a private key on the command line, are refused."""
    run("keygen", "raw.key")
    result = run("public-key", "file:raw.key")
    assert (result.exit_code, "not one of a pair" in result.output) == (4, True)
    secret = generate_key("x25519").strip()
    result = run("public-key", secret)
    assert (result.exit_code, "refused" in result.output) == (2, True)
    assert secret not in result.output


def test_every_key_is_new() -> None:
    """Two keys are never alike, and an unknown kind is none."""
    for kind in KINDS:
        assert len({generate_key(kind) for _ in range(20)}) == 20
    with pytest.raises(InvalidKeyError, match="x25519-mlkem768"):
        generate_key("rsa")


def test_a_raw_key_is_not_stretched(folder: Path) -> None:
    """A raw key of keygen is a raw key, and no passphrase to stretch."""
    run("keygen", "raw.key")
    result = DataWriter("task", encryption_key="file:raw.key").write_json({"a": 1}, "x")
    assert b"hkdf-sha256" in Path(result.path).read_bytes()
