"""Vault's transit engine as a key provider, against a real OpenBao server."""

from __future__ import annotations

import base64
import dataclasses
import logging
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any

import dask.dataframe as dd
import pytest
from click.testing import CliRunner
from distributed import Client

from deploy.local import processes, servers
from deploy.local.key_servers import KmsServer, VaultServer, kms_server, vault_server
from pamola_dwriter import DataWriter, describe, keys, read_dataset, rotate_keys, verify
from pamola_dwriter.cli import main
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    InsecureTransportError,
    IntegrityError,
    InvalidKeyError,
    WrongKeyError,
)
from pamola_dwriter.opening import find_dataset
from pamola_dwriter.spec import WrappedKey
from pamola_dwriter.testing.suite import KeyProviderSuite
from tests.places import batch

DATASET_KEY = bytes(range(200, 232))
CONTEXT = b"pamola_dwriter.dataset:0123456789abcdef"
OTHER = b"pamola_dwriter.dataset:0000000000000000"


@pytest.fixture(scope="module")
def vault() -> Iterator[VaultServer]:
    """A real server, which our clients find by their environment."""
    with vault_server() as server, pytest.MonkeyPatch.context() as patch:
        for name in ("VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_CAPATH"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def kms() -> Iterator[KmsServer]:
    """An emulated AWS KMS, which our clients find by their environment."""
    with kms_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def key(vault: VaultServer) -> str:
    """The name of a new key, derived for each context."""
    vault.make_key(name := token_hex(4), derived=True)
    return name


def provider(key: str) -> KeyProvider:
    return keys.resolve(f"vault:{key}")[0]


@pytest.mark.parametrize("derived", [True, False])
class TestVault(KeyProviderSuite):
    """All that is promised of a key provider."""

    @pytest.fixture
    def make(self, vault: VaultServer, *, derived: bool) -> Callable[[], KeyProvider]:
        """One key."""
        return self._in(vault, derived)

    @pytest.fixture
    def make_other(self, vault: VaultServer, *, derived: bool) -> Callable[[], KeyProvider]:
        """Another."""
        return self._in(vault, derived)

    def _in(self, vault: VaultServer, derived: bool) -> Callable[[], KeyProvider]:
        vault.make_key(name := token_hex(4), derived=derived)
        return lambda: provider(name)


@pytest.mark.parametrize(
    "options",
    [
        {"derived": True},
        {"derived": False},
        {"derived": True, "convergent_encryption": True},
        {"type": "chacha20-poly1305"},
        {"type": "xchacha20-poly1305", "derived": True},
        {"type": "aes128-gcm96"},
    ],
    ids=str,
)
def test_binds_to_the_dataset(vault: VaultServer, options: dict[str, Any]) -> None:
    """Every kind of symmetric key, derived or not, opens what it wrapped for that dataset alone."""
    vault.make_key(name := token_hex(4), **options)
    wrapped = provider(name).wrap(DATASET_KEY, CONTEXT)
    assert provider(f"transit/{name}").unwrap(wrapped, CONTEXT) == DATASET_KEY
    assert wrapped.key_id == f"vault:transit/{name}:v1"
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
        provider(name).unwrap(wrapped, OTHER)


def test_key_that_cannot_bind(vault: VaultServer) -> None:
    """An RSA key binds to nothing, and is refused with the kinds that do."""
    vault.make_key(name := token_hex(4), type="rsa-2048")
    with pytest.raises(InvalidKeyError, match="aes256-gcm96"):
        provider(name).wrap(DATASET_KEY, CONTEXT)


def test_other_mount(vault: VaultServer) -> None:
    """A transit engine may be mounted anywhere, and its keys are told from those elsewhere."""
    mount = f"teams/{token_hex(4)}"
    vault.call(f"sys/mounts/{mount}", type="transit")
    vault.make_key("pii", mount=mount)
    vault.make_key("pii")
    wrapped = provider(f"{mount}/pii").wrap(DATASET_KEY, CONTEXT)
    assert wrapped.key_id == f"vault:{mount}/pii:v1"
    assert provider(f"{mount}/pii").unwrap(wrapped, CONTEXT) == DATASET_KEY
    with pytest.raises(WrongKeyError):
        provider("pii").unwrap(wrapped, CONTEXT)


def test_tampering(vault: VaultServer, key: str) -> None:
    """A flipped bit, another version, key or method: one opaque error for all of them."""
    vault.make_key(other := token_hex(4), derived=True)
    wrapped = provider(key).wrap(DATASET_KEY, CONTEXT)
    forged = provider(other).wrap(DATASET_KEY, CONTEXT)
    text = str(wrapped.parameters["ciphertext"])
    flipped = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    said = set()
    for attack in (
        dataclasses.replace(wrapped, parameters={"ciphertext": flipped}),
        dataclasses.replace(wrapped, key_id=f"vault:transit/{key}:v2"),
        dataclasses.replace(
            wrapped,
            key_id=f"vault:transit/{key}:v2",
            parameters={"ciphertext": text.replace("v1", "v2")},
        ),
        forged,
        dataclasses.replace(forged, key_id=wrapped.key_id),
        dataclasses.replace(wrapped, method="awskms"),
    ):
        with pytest.raises(WrongKeyError) as caught:
            provider(key).unwrap(attack, CONTEXT)
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize(
    "ciphertext", ["", 5, "junk", "vault:v0:" + "A" * 80, "vault:v1:../" + "A" * 9999, "vault:v1:"]
)
def test_damaged_wrap(ciphertext: Any) -> None:
    """What transit cannot have written is an IntegrityError, and no server is asked."""
    parameters = {"ciphertext": ciphertext}
    wrapped = WrappedKey(method="vault-transit", key_id="x", parameters=parameters)
    with pytest.raises(IntegrityError):
        provider("pii").unwrap(wrapped, CONTEXT)


@pytest.mark.parametrize(
    "uri", ["", "/", "a/", "/a", "..", "../sys/seal", "a/../b", "a b", "a?b", "a%2fb", "ä", "a\n"]
)
def test_bad_uri(uri: str) -> None:
    """A URI that can name no key, or would lead out of its mount, is refused."""
    with pytest.raises(InvalidKeyError, match="vault:MOUNT/KEY"):
        keys.resolve(f"vault:{uri}")


def test_denied_policy(vault: VaultServer, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that may encrypt alone writes and cannot read; nor can it make a key by mistake."""
    rule = 'path "transit/encrypt/*" { capabilities = ["update"] }'
    monkeypatch.setenv("VAULT_TOKEN", token := vault.make_token(rule))
    wrapped = provider(key).wrap(DATASET_KEY, CONTEXT)
    with pytest.raises(InvalidKeyError, match=r"Forbidden; .*policy") as caught:
        provider(key).unwrap(wrapped, CONTEXT)
    assert token not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(InvalidKeyError):
        provider(f"absent-{key}").wrap(DATASET_KEY, CONTEXT)


def test_absent_key_and_mount(vault: VaultServer, key: str) -> None:
    """A key that is gone and a mount that is not there say so."""
    wrapped = provider(key).wrap(DATASET_KEY, CONTEXT)
    vault.call(f"transit/keys/{key}/config", deletion_allowed=True)
    subprocess.run(
        [processes.program("bao"), "delete", f"transit/keys/{key}"],
        env={"BAO_ADDR": vault.address, "BAO_TOKEN": vault.token, "HOME": "/nonexistent"},
        check=True,
        capture_output=True,
    )
    with pytest.raises(InvalidKeyError, match="make the key, or correct its name"):
        provider(key).unwrap(wrapped, CONTEXT)
    with pytest.raises(InvalidKeyError, match="InvalidPath; mount"):
        provider(f"nowhere/{key}").wrap(DATASET_KEY, CONTEXT)


def test_token_file(
    vault: VaultServer, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without VAULT_TOKEN the file of ``vault login`` counts; without both that is said."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(InvalidKeyError, match="set VAULT_TOKEN"):
        provider(key).wrap(DATASET_KEY, CONTEXT)
    (tmp_path / ".vault-token").write_text(f"{vault.token}\n")
    wrapped = provider(key).wrap(DATASET_KEY, CONTEXT)
    assert provider(key).unwrap(wrapped, CONTEXT) == DATASET_KEY
    for damage in (b"\xffhvs.secret", b"hvs.secret\nX: y", "hvs.secret\N{SNOWMAN}".encode()):
        (tmp_path / ".vault-token").write_bytes(damage)
        with pytest.raises(InvalidKeyError) as caught:
            provider(key).wrap(DATASET_KEY, CONTEXT)
        assert "hvs.secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"VAULT_ADDR": ""}, "VAULT_ADDR is not set"),
        ({"VAULT_ADDR": "http://127.0.0.1:1"}, "ConnectionError; see"),
        ({"VAULT_ADDR": "127.0.0.1:8200"}, "set VAULT_ADDR"),
        ({"VAULT_ADDR": "https://[::1"}, "set VAULT_ADDR"),
        ({"VAULT_TOKEN": "wrong"}, "Forbidden; give a VAULT_TOKEN"),
        ({"VAULT_NAMESPACE": "absent"}, "InvalidPath; .*VAULT_NAMESPACE"),
        ({"VAULT_ADDR": "https://127.0.0.1:1", "VAULT_CACERT": "/absent"}, "VAULT_CACERT"),
    ],
)
def test_configuration(
    vault: VaultServer,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    message: str,
) -> None:
    """What is wrong in the environment is named with its remedy."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidKeyError, match=message):
        provider(key).wrap(DATASET_KEY, CONTEXT)


@pytest.mark.parametrize("address", ["http://192.0.2.1:8200", "http://vault.example:8200"])
def test_plain_http(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Plain http to another host is refused before anything is sent."""
    monkeypatch.setenv("VAULT_ADDR", address)
    with pytest.raises(InsecureTransportError, match="set VAULT_ADDR to its https://"):
        provider("pii").wrap(DATASET_KEY, CONTEXT)


def test_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over https the server is trusted by VAULT_CACERT, and not without it."""
    with vault_server(tls=True) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        wrapped = provider("pii").wrap(DATASET_KEY, CONTEXT)
        assert provider("pii").unwrap(wrapped, CONTEXT) == DATASET_KEY
        monkeypatch.delenv("VAULT_CACERT")
        with pytest.raises(InvalidKeyError, match=r"SSLError; .*VAULT_CACERT"):
            provider("pii").unwrap(wrapped, CONTEXT)


def test_redirect_is_not_followed(vault: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that points elsewhere gets neither the token nor the key there."""
    asked = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", f"http://{servers.HOST}:{server.server_port}/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((servers.HOST, 0), Redirecting) as server:
        thread = Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        monkeypatch.setenv("VAULT_ADDR", f"http://{servers.HOST}:{server.server_port}")
        with pytest.raises(InvalidKeyError, match="redirects"):
            provider("pii").wrap(DATASET_KEY, CONTEXT)
        server.shutdown()
        thread.join()
    assert asked == ["/v1/transit/encrypt/pii"]


def test_sealed_and_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed server and one that has died are unavailable, each with its remedy."""
    with vault_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        wrapped = provider("pii").wrap(DATASET_KEY, CONTEXT)
        server.call("sys/seal")
        with pytest.raises(InvalidKeyError, match="VaultDown; unseal"):
            provider("pii").unwrap(wrapped, CONTEXT)
        server.kill()
        with pytest.raises(InvalidKeyError, match="ConnectionError; see that VAULT_ADDR"):
            provider("pii").unwrap(wrapped, CONTEXT)


def test_nothing_shows(vault: VaultServer, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """No log at DEBUG, repr, pickle or wrapped key shows the dataset key or the token."""
    caplog.set_level(logging.DEBUG, "")
    wrapped = provider(key).wrap(DATASET_KEY, CONTEXT)
    provider(key).unwrap(wrapped, CONTEXT)
    pickled = pickle.dumps(provider(key))
    assert pickle.loads(pickled).uri == f"vault:{key}"  # noqa: S301 - made just above
    shown = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    assert f"/v1/transit/encrypt/{key}" in shown  # urllib3 does log
    shown += f"{provider(key)!r} {wrapped!r} {pickled!r}"
    encoded = base64.b64encode(DATASET_KEY).decode()
    for secret in (DATASET_KEY.hex(), encoded, repr(DATASET_KEY)[2:-1], vault.token):
        assert secret not in shown


def test_without_the_extra(vault: VaultServer) -> None:
    """Without hvac everything else works, and the error names the extra."""
    code = (
        "import sys; sys.modules['hvac'] = None\n"
        "from pamola_dwriter import keys\n"
        "try: keys.resolve('vault:pii')[0].wrap(bytes(32), b'')\n"
        "except keys.InvalidKeyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'pamola_dwriter[vault]'" in done.stdout


def write(folder: Path, encryption_key: Any) -> str:
    frame = dd.from_pandas(batch(0), npartitions=3)
    result = DataWriter(folder).write_dataframe(frame, "people", encryption_key=encryption_key)
    return str(result.path)


def key_ids(path: str) -> list[str]:
    return [key["key_id"] for key in describe(path)["keys"]]


def test_rotation_in_vault(vault: VaultServer, key: str, tmp_path: Path) -> None:
    """After Vault rotated its key the dataset follows, and the old version can be retired."""
    uri, old, new = f"vault:{key}", f"vault:transit/{key}:v1", f"vault:transit/{key}:v2"
    path = write(tmp_path, uri)
    (kept,) = find_dataset(path, None).wrapped
    vault.call(f"transit/keys/{key}/rotate")
    assert verify(path, encryption_key=uri).rows == 10
    assert rotate_keys(path, encryption_key=uri, to=uri).added == ()  # it opens it already

    report = rotate_keys(path, encryption_key=uri, to=uri, revoke=old)
    assert (report.added, report.revoked, report.key_ids) == ((new,), (old,), (new,))
    vault.call(f"transit/keys/{key}/config", min_decryption_version=2)
    assert verify(path, encryption_key=uri).rows == 10
    with pytest.raises(InvalidKeyError, match="min_decryption_version"):
        provider(key).unwrap(kept, CONTEXT)


def test_rotation_from_the_command_line(vault: VaultServer, key: str, tmp_path: Path) -> None:
    """``rotate --to vault:KEY --revoke`` the old version's id is all that it takes."""
    path = write(tmp_path, uri := f"vault:{key}")
    vault.call(f"transit/keys/{key}/rotate")
    arguments = ["rotate", path, "--encryption-key", uri, "--to", uri]
    done = CliRunner().invoke(main, [*arguments, "--revoke", f"vault:transit/{key}:v1"])
    assert done.exit_code == 0, done.output
    assert key_ids(path) == [f"vault:transit/{key}:v2"]


def test_servers_leave_nothing() -> None:
    """No process, port or file of a key service outlives its block."""
    for run in (vault_server, kms_server):
        with run() as server:
            assert server.log.exists()
        assert server.process.returncode is not None
        assert not server.log.exists()
        with socket.socket() as probe:
            assert probe.connect_ex((servers.HOST, server.port)) != 0


def test_retired_version_does_not_hide_the_new(
    vault: VaultServer, key: str, tmp_path: Path
) -> None:
    """A dataset under a retired version and another key opens by the other, and is rotated."""
    spare = keys.RawKey(bytes(32))
    uri, old = f"vault:{key}", f"vault:transit/{key}:v1"
    path = write(tmp_path, [uri, spare])
    vault.call(f"transit/keys/{key}/rotate")
    vault.call(f"transit/keys/{key}/config", min_decryption_version=2)
    with pytest.raises(InvalidKeyError, match="min_decryption_version"):
        verify(path, encryption_key=uri)
    assert verify(path, encryption_key=[uri, spare]).rows == 10
    rotate_keys(path, encryption_key=spare, to=uri, revoke=old)
    assert verify(path, encryption_key=uri).rows == 10


def test_on_a_cluster_between_providers(
    vault: VaultServer, kms: KmsServer, pii_key: str, key: str, tmp_path: Path
) -> None:
    """Workers seal and open by each provider; rotation leads from each to each other one."""
    uris = ["env:PII_KEY", f"awskms:{kms.make_key()}", f"vault:{key}"]
    with servers.cluster(dashboard=False) as running, Client(running.scheduler_address):
        for uri in uris:
            path = write(tmp_path / uri[:3], uri)
            now = uri
            for target in [each for each in uris if each != uri] + [uri]:
                rotate_keys(path, encryption_key=now, to=target, revoke=key_ids(path))
                with pytest.raises(WrongKeyError):
                    read_dataset(path, encryption_key=now)
                now = target
                assert len(read_dataset(path, encryption_key=now).compute()) == 10
