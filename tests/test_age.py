"""age files: what is written opens with another implementation of age, and the other way round."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from distributed import Client

from deploy.local import processes
from deploy.local.emulators import install_npm
from pamola_dwriter import DataWriter, decrypt, open_artifact, read_dataset, rotate_keys, verify
from pamola_dwriter.audit import describe
from pamola_dwriter.errors import (
    IntegrityError,
    InvalidKeyError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    WrongKeyError,
)
from pamola_dwriter.keys import AgeIdentity, AgeRecipient, resolve, unwrap_any, wrap_all
from tests.places import Place, batch

TYPAGE = "0.3.1"
"""An implementation of age in TypeScript, by its author; ours is in Rust."""

SECRET, OTHER = (str(pyrage.x25519.Identity.generate()) for _ in range(2))
PUBLIC, OTHER_PUBLIC = (
    str(pyrage.x25519.Identity.from_str(s).to_public()) for s in (SECRET, OTHER)
)
PASSPHRASE = "wonderful-tortoise-42"

LOCKED = """
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABBTeZOpXz
GVC5LgdgYeLVRuAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIBmS/v/sIafGf1yC
2/d3HF3ccyVS2aGFQdcLY9bONL5EAAAAkH+enLYtY/7sOrxwVD5a9ItWEYu6qy9gKCwfzi
oNgTseDRTthiJzOSoeQF8HaRndlbxWX7KNrgvbuwp9kiZNKlQCW9tJQV4mRnBrbJqUww5C
cqMRtHAGiZtzOiaQUYhIsrMR0S2X9wiSZebOjaKBlamTW88qQ5Wyk+ZK/8p0axliTk3vdc
fQqI30vNR2OyTUAw==
-----END OPENSSH PRIVATE KEY-----
"""
"""An SSH key under a passphrase, which opens nothing."""

DECRYPT = """
import * as age from "age-encryption";
import { readFileSync, writeFileSync } from "node:fs";
const [identity, ...files] = JSON.parse(readFileSync(0, "utf-8"));
for (const file of files) {
  const decrypter = new age.Decrypter();
  decrypter.addIdentity(identity);
  writeFileSync(file + ".plain", await decrypter.decrypt(readFileSync(file)));
}
"""
ENCRYPT = """
import * as age from "age-encryption";
import { readFileSync, writeFileSync } from "node:fs";
const [recipient, text, file] = JSON.parse(readFileSync(0, "utf-8"));
const encrypter = new age.Encrypter();
encrypter.addRecipient(recipient);
writeFileSync(file, await encrypter.encrypt(text));
"""


def typage(script: str, *arguments: str) -> None:
    """Run a script that uses the other implementation; the arguments come on its stdin."""
    modules = install_npm("age-encryption", TYPAGE)
    command = [processes.program("node"), "--input-type=module", "-e", script]
    told = json.dumps(arguments)
    subprocess.run(command, cwd=modules.parent, input=told, text=True, check=True, timeout=60)


def people(rows: int = 40) -> dd.DataFrame:
    return dd.from_pandas(batch(0, rows), npartitions=4)


def ssh_key(private: Any) -> tuple[str, str]:
    """Return an SSH key as its two files have it, the public one with a comment."""
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return secret, f"{public} somebody@example.org"


def test_every_part_opens_with_another_implementation(
    place: Place, client: Client, tmp_path: Path
) -> None:
    """Parts written on a cluster by the public key alone are Parquet files to typage."""
    writer = place.writer(encryption_key=PUBLIC, encryption_mode="age")
    result = writer.write_dataframe(people(), "people", "parquet")
    assert result.encrypted
    parts = [file for file in place.files() if "part-" in file]
    assert len(parts) == 4
    assert all(file.endswith(".parquet.age") for file in parts)
    file_system, root = place._open()
    copies = [tmp_path / f"{number}.age" for number in range(4)]
    for file, copy in zip(parts, copies, strict=True):
        copy.write_bytes(file_system.cat_file(f"{root}/{file}"))
    typage(DECRYPT, SECRET, *map(str, copies))
    frames = [pd.read_parquet(f"{copy}.plain") for copy in copies]
    assert sorted(pd.concat(frames)["x"]) == list(range(40))
    back = place.read(result.path, encryption_key=SECRET)
    assert list(back["name"]) == list(batch(0, 40)["name"])
    place.assert_no_leftovers(result.write_id)


def test_what_another_implementation_wrote_is_read(tmp_path: Path) -> None:
    """open_artifact, verify and decrypt take any age file, and append_to_json_array adds to it."""
    file = tmp_path / "log.json.age"
    typage(ENCRYPT, PUBLIC, "[1, 2]", str(file))
    with open_artifact(file, encryption_key=SECRET) as opened:
        assert opened.read() == b"[1, 2]"
    assert verify(file, encryption_key=SECRET).encrypted
    assert describe(file)["encrypted"] is True
    writer = DataWriter(tmp_path, encryption_key=SECRET, encryption_mode="age")
    writer.append_to_json_array(3, "log", pretty=False)
    decrypt(file, tmp_path / "plain", encryption_key=SECRET)
    assert json.loads((tmp_path / "plain").read_bytes()) == [1, 2, 3]


def test_any_of_several_keys_opens(tmp_path: Path, client: Client, pii_key: str) -> None:
    """Beside its recipients an age dataset opens with every other kind of key."""
    keys = [PUBLIC, OTHER_PUBLIC, PASSPHRASE, "env:PII_KEY"]
    writer = DataWriter(tmp_path, encryption_key=keys, encryption_mode="age")
    result = writer.write_dataframe(people(), "people", "csv")
    for key in (SECRET, OTHER, PASSPHRASE, "env:PII_KEY"):
        assert len(read_dataset(result.path, encryption_key=key)) == 40
    third = str(pyrage.x25519.Identity.generate())
    with pytest.raises(WrongKeyError):
        read_dataset(result.path, encryption_key=third)


def test_age_keys_open_the_sealed_format_too(tmp_path: Path) -> None:
    """Without the mode, a public key of age wraps the dataset key like any other provider."""
    writer = DataWriter(tmp_path, encryption_key=PUBLIC)
    result = writer.write_dataframe(people(), "people", "parquet")
    assert all(part.suffix == ".pdw" for part in Path(result.path).glob("part-*"))
    assert len(read_dataset(result.path, encryption_key=SECRET)) == 40
    assert describe(result.path)["keys"] == [{"method": "age", "key_id": PUBLIC}]


def test_a_recipient_of_age_files_cannot_be_revoked(tmp_path: Path, pii_key: str) -> None:
    """No manifest takes back what a part is encrypted to: refused; other keys come and go."""
    writer = DataWriter(tmp_path, encryption_key=[PUBLIC, "env:PII_KEY"], encryption_mode="age")
    path = writer.write_dataframe(people(), "people", "parquet").path
    with pytest.raises(InvalidTargetError, match=f"{PUBLIC} opens whatever"):
        rotate_keys(path, encryption_key="env:PII_KEY", revoke=PUBLIC)
    assert len(read_dataset(path, encryption_key=SECRET)) == 40
    (raw_id,) = (key["key_id"] for key in describe(path)["keys"] if key["method"] != "age")
    rotate_keys(path, encryption_key=SECRET, to=PASSPHRASE, revoke=raw_id)
    assert len(read_dataset(path, encryption_key=PASSPHRASE)) == 40
    with pytest.raises(WrongKeyError):
        read_dataset(path, encryption_key="env:PII_KEY")


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_ssh_keys(kind: str, tmp_path: Path) -> None:
    """SSH keys encrypt and open as age takes them, from text and from their files."""
    private = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else rsa.generate_private_key(65537, 2048)
    )
    secret, public = ssh_key(private)
    file = tmp_path / "id"
    file.write_text(secret)
    file.chmod(0o600)
    writer = DataWriter(tmp_path, encryption_key=public, encryption_mode="age")
    result = writer.write_dataframe(people(), "people", "parquet")
    document = writer.write_json({"a": 1}, "settings")
    for key in (secret, f"file:{file}"):
        assert len(read_dataset(result.path, encryption_key=key)) == 40
        assert json.load(open_artifact(document.path, encryption_key=key)) == {"a": 1}
    shown = describe(result.path)["keys"][0]["key_id"]
    assert shown.startswith(f"ssh-{kind}:SHA256:")


def test_ssh_key_under_a_passphrase_is_refused() -> None:
    """It says to give one without, and shows nothing of it."""
    with pytest.raises(InvalidKeyError, match="passphrase") as caught:
        resolve(LOCKED)
    assert LOCKED.splitlines()[2] not in str(caught.value)


def test_identity_file_of_age_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """file: and env: take what age-keygen writes, with its comments."""
    written = f"# created: 2026-11-23T00:00:00Z\n# public key: {PUBLIC}\n{SECRET}\n"
    file = tmp_path / "key.txt"
    file.write_text(written)
    file.chmod(0o600)
    monkeypatch.setenv("AGE_KEY", SECRET)
    result = DataWriter(tmp_path, encryption_key=PUBLIC, encryption_mode="age").write_json([], "x")
    for key in (f"file:{file}", "env:AGE_KEY", written):
        assert json.load(open_artifact(result.path, encryption_key=key)) == []
    (provider,) = resolve(f"file:{file}")
    assert provider.key_id == PUBLIC
    assert SECRET not in repr(provider)


def test_every_kind_of_file(tmp_path: Path, client: Client) -> None:
    """Documents, tables, single frames, streams and appends are age files, and are read back."""
    writer = DataWriter(tmp_path, encryption_key=SECRET, encryption_mode="age")
    single = writer.write_dataframe(batch(0), "single", "csv")
    table = writer.write_dictionary({"a": [1, 2]}, "table", format="parquet")
    metrics = writer.write_metrics({"rows": 3}, "metrics")
    merged = writer.merge_json_objects({"b": 2}, "merged")
    merged = writer.merge_json_objects({"c": 3}, "merged")
    for result in (single, table, metrics, merged):
        assert str(result.path).endswith(".age")
        data = Path(result.path).read_bytes()
        assert pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(SECRET)])
        assert verify(result.path, encryption_key=SECRET).checksum == result.checksum
    assert json.load(open_artifact(merged.path, encryption_key=SECRET)) == {"b": 2, "c": 3}
    with writer.open_stream("stream", part_rows=5) as stream:
        stream.write(batch(0))
    assert len(read_dataset(stream.result.path, encryption_key=SECRET)) == 10
    first = writer.write_dataframe(people(), "grows", "parquet", partition_on=None)
    again = writer.write_dataframe(people(), "grows", "parquet", append=True)
    assert len(read_dataset(again.path, encryption_key=SECRET)) == 80
    parts = list(Path(first.path).glob("part-*.age"))
    assert len(parts) == 8
    for part in parts:
        assert pyrage.decrypt(part.read_bytes(), [pyrage.x25519.Identity.from_str(SECRET)])


def test_an_append_is_made_as_the_dataset_is(tmp_path: Path) -> None:
    """A writer of either mode adds to a dataset of the other in the way that stands there."""
    age = DataWriter(tmp_path, encryption_key=[SECRET, PASSPHRASE], encryption_mode="age")
    sealed = DataWriter(tmp_path, encryption_key=[SECRET, PASSPHRASE])
    for first, second, suffix in ((age, sealed, ".age"), (sealed, age, ".pdw")):
        name = f"people{suffix.replace('.', '_')}"
        first.write_dataframe(people(), name, "parquet")
        result = second.write_dataframe(people(), name, "parquet", append=True)
        assert {part.suffix for part in Path(result.path).glob("part-*")} == {suffix}
        assert len(read_dataset(result.path, encryption_key=PASSPHRASE)) == 80


def test_a_write_supersedes_the_file_in_its_other_forms(tmp_path: Path) -> None:
    """Plain, sealed or age: under one name there is one file."""
    names = []
    for options in ({}, {"encryption_key": SECRET}, {"encryption_key": SECRET, "mode": "age"}):
        mode = options.pop("mode", None)
        writer = DataWriter(tmp_path, encryption_mode=mode, **options)
        writer.write_json({"a": 1}, "one")
        names.append([path.name for path in tmp_path.glob("one.*")])
    assert names == [["one.json"], ["one.json.pdw"], ["one.json.age"]]


def test_adding_to_a_document_of_another_mode_is_refused(tmp_path: Path) -> None:
    """Else there would be two arrays of one name; what stands is kept."""
    DataWriter(tmp_path, encryption_key=SECRET).append_to_json_array(1, "log")
    before = (tmp_path / "log.json.pdw").read_bytes()
    with pytest.raises(InvalidTargetError, match="encryption_mode"):
        DataWriter(tmp_path, encryption_key=SECRET, encryption_mode="age").append_to_json_array(
            2, "log"
        )
    assert (tmp_path / "log.json.pdw").read_bytes() == before
    assert not (tmp_path / "log.json.age").exists()


@pytest.mark.parametrize("key", [PASSPHRASE, bytes(32), "env:PII_KEY"])
def test_the_mode_needs_a_public_key(key: Any, tmp_path: Path, pii_key: str) -> None:
    """Without one the age command would open nothing: refused before any work."""
    writer = DataWriter(tmp_path, encryption_key=key, encryption_mode="age")
    with pytest.raises(InvalidKeyError, match="age1"):
        writer.write_dataframe(people(), "people", "parquet")
    with pytest.raises(InvalidKeyError, match="age1"):
        writer.write_json({}, "x")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "text",
    [
        PUBLIC[:-1],
        PUBLIC[:-1] + ("q" if PUBLIC[-1] != "q" else "p"),
        "age1qqqqqq",
        "ssh-ed25519 AAAA",
    ],
    ids=["short", "checksum", "age", "ssh"],
)
def test_a_damaged_recipient_is_found(text: str, tmp_path: Path) -> None:
    """A typing mistake in a public key is refused: nobody could open what it encrypts."""
    with pytest.raises(InvalidKeyError, match="age"):
        DataWriter(tmp_path, encryption_key=text, encryption_mode="age").write_json({}, "x")


def test_a_damaged_identity_is_found_and_not_shown() -> None:
    """Neither the error nor what it comes from holds the private key."""
    with pytest.raises(InvalidKeyError, match="identity") as caught:
        resolve(SECRET[:-1])
    assert SECRET[20:40] not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(InvalidKeyError, match="exactly one"):
        resolve(f"{SECRET}\n{OTHER}")


def test_without_the_extra(tmp_path: Path) -> None:
    """Where pyrage is not installed, everything else works, and age says what to install."""
    script = (
        "import sys; sys.modules['pyrage'] = None\n"
        "from pamola_dwriter import DataWriter, keys\n"
        f"DataWriter({str(tmp_path)!r}, encryption_key={PASSPHRASE!r}).write_json([], 'x')\n"
        f"keys.resolve({PUBLIC!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "InvalidKeyError" in done.stderr
    assert "pip install 'pamola_dwriter[age]'" in done.stderr
    assert (tmp_path / "x.json.pdw").exists()


def flip(parts: list[Path]) -> None:
    data = bytearray(parts[1].read_bytes())
    data[-5] ^= 1
    parts[1].write_bytes(data)


def cut(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-1])


def swap(parts: list[Path]) -> None:
    first, second = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(second)
    parts[2].write_bytes(first)


def forge(parts: list[Path]) -> None:
    recipient = pyrage.x25519.Recipient.from_str(PUBLIC)
    plain = pyrage.decrypt(parts[1].read_bytes(), [pyrage.x25519.Identity.from_str(SECRET)])
    parts[1].write_bytes(pyrage.encrypt(plain, [recipient]))


def drop(parts: list[Path]) -> None:
    parts[1].unlink()


@pytest.mark.parametrize("tamper", [flip, cut, swap, forge, drop])
def test_tampering_names_the_part(tamper: Any, tmp_path: Path) -> None:
    """Also a part made anew for the same recipient is found: anybody knows a public key."""
    writer = DataWriter(tmp_path, encryption_key=PUBLIC, encryption_mode="age")
    result = writer.write_dataframe(people(), "people", "parquet")
    parts = sorted(Path(result.path).glob("part-*"))
    tamper(parts)
    with pytest.raises(IntegrityError, match=parts[1].name):
        verify(result.path, encryption_key=SECRET)
    with pytest.raises(IntegrityError, match=r"part-0000[12]"):
        read_dataset(result.path, encryption_key=SECRET).compute()


def test_a_single_file_that_was_altered(tmp_path: Path) -> None:
    """age tells an altered file from one for others by nothing: one opaque error."""
    writer = DataWriter(tmp_path, encryption_key=PUBLIC, encryption_mode="age")
    path = Path(writer.write_json({"a": 1}, "x").path)
    with pytest.raises(MissingKeyError):
        open_artifact(path)
    errors = []
    for key, data in ((OTHER, path.read_bytes()), (SECRET, path.read_bytes()[:-1])):
        path.write_bytes(data)
        with pytest.raises(WrongKeyError) as caught:
            open_artifact(path, encryption_key=key)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_wraps_are_bound_to_their_dataset() -> None:
    """A wrapped key that is put before another dataset does not open."""
    dataset_key = bytes(range(32))
    wrapped = wrap_all(resolve([PUBLIC, OTHER_PUBLIC]), dataset_key, b"this")
    assert unwrap_any(resolve(SECRET), wrapped, b"this") == dataset_key
    with pytest.raises(WrongKeyError):
        unwrap_any(resolve(SECRET), wrapped, b"that")
    assert [key.key_id for key in wrapped] == [PUBLIC, OTHER_PUBLIC]


def test_no_identity_is_shown_or_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in reprs, errors, logs or the pickled graph; it cannot be pickled at all."""
    caplog.set_level(logging.DEBUG)
    identity = AgeIdentity(SECRET)
    with pytest.raises(TypeError, match="must not be pickled"):
        pickle.dumps(identity)
    writer = DataWriter(tmp_path, encryption_key=SECRET, encryption_mode="age")
    lazy = writer.write_dataframe(people(), "people", "parquet", compute=False)
    graph = pickle.dumps(dict(lazy.__dask_graph__()))
    lazy.compute()
    body = SECRET.removeprefix("AGE-SECRET-KEY-1")
    shown = f"{identity!r} {identity} {writer!r} {lazy!r} {AgeRecipient(PUBLIC)!r} {caplog.text}"
    assert body not in shown
    assert body.encode() not in graph
    assert PUBLIC in shown


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    """A mode that is none of ours is an error that lists them."""
    with pytest.raises(InvalidWriteError, match="none, simple, age"):
        DataWriter(tmp_path, encryption_mode="pgp")
