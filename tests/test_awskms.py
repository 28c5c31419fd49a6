"""AWS KMS as a key provider: what opens what, how often it is asked, and that nothing shows."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import logging
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

import dask.dataframe as dd
import pytest
from distributed import Client

from deploy.local import servers
from deploy.local.key_servers import KmsServer, kms_server
from pamola_dwriter import DataWriter, keys, open_artifact, read_dataset, sealing
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    InsecureTransportError,
    IntegrityError,
    InvalidKeyError,
    WrongKeyError,
)
from pamola_dwriter.spec import Sealing, WrappedKey, WriteId
from pamola_dwriter.testing.suite import KeyProviderSuite
from tests.places import batch

DATASET_KEY = bytes(range(200, 232))
CONTEXT = b"pamola_dwriter.dataset:0123456789abcdef"
WRITE = WriteId("0123456789abcdef")


class Recorder:
    """Passes requests on to KMS, and keeps what was asked; may be told to answer by itself."""

    def __init__(self, upstream_port: int) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str], tuple[int, bytes] | None] = lambda operation: None
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].partition(".")[2]
                recorder.requests.append((operation, json.loads(body)))
                status, answer = recorder.answer(operation) or self.forward(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def forward(self, body: bytes) -> tuple[int, bytes]:
                link = http.client.HTTPConnection(servers.HOST, upstream_port, timeout=10)
                link.request("POST", "/", body, dict(self.headers))
                answer = link.getresponse()
                content = answer.read()
                link.close()
                return answer.status, content

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((servers.HOST, 0), Handler)
        self.port = int(self.server.server_address[1])

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.requests)

    def refuse(self, code: str, message: str = "") -> None:
        body = json.dumps({"__type": code, "message": message}).encode()
        self.answer = lambda operation: (400, body)


@contextmanager
def recording(upstream_port: int) -> Iterator[Recorder]:
    recorder = Recorder(upstream_port)
    thread = threading.Thread(target=recorder.server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield recorder
    finally:
        recorder.server.shutdown()
        thread.join()
        recorder.server.server_close()


@pytest.fixture(scope="module")
def kms() -> Iterator[KmsServer]:
    """An emulated KMS with the key ``alias/pii``."""
    with kms_server() as server:
        server.make_key("pii")
        yield server


@pytest.fixture(scope="module")
def shared_wire(kms: KmsServer) -> Iterator[Recorder]:
    """What stands between all our clients and KMS."""
    with recording(kms.port) as recorder, pytest.MonkeyPatch.context() as patch:
        for name, value in kms.environment_by(recorder.port).items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield recorder


@pytest.fixture
def wire(shared_wire: Recorder) -> Recorder:
    """The same, without what it recorded before."""
    shared_wire.requests.clear()
    shared_wire.answer = lambda operation: None
    return shared_wire


@pytest.fixture(scope="module")
def kms_cluster(shared_wire: Recorder) -> Iterator[servers.Cluster]:
    """A cluster whose two workers, of four threads each, can reach KMS."""
    with servers.cluster(threads=4, dashboard=False) as running:
        yield running


def provider(name: str = "alias/pii") -> KeyProvider:
    return keys.resolve(f"awskms:{name}")[0]


class TestAwsKms(KeyProviderSuite):
    """All that is promised of a key provider."""

    @pytest.fixture
    def make(self, wire: Recorder) -> Callable[[], KeyProvider]:
        """One key."""
        return provider

    @pytest.fixture
    def make_other(self, kms: KmsServer, wire: Recorder) -> Callable[[], KeyProvider]:
        """Another."""
        kms.make_key(name := token_hex(4))
        return lambda: provider(f"alias/{name}")


def names(kms: KmsServer) -> list[str]:
    """Return the four ways to name the same key."""
    arn = kms.make_key(alias := token_hex(4))
    key_id = arn.rpartition("/")[2]
    return [arn, key_id, f"alias/{alias}", arn.replace(f"key/{key_id}", f"alias/{alias}")]


def test_any_name_opens(kms: KmsServer, wire: Recorder) -> None:
    """A key wraps by any of its names, shows its ARN, and opens by another."""
    same = names(kms)
    for name in same:
        wrapped = provider(name).wrap(DATASET_KEY, CONTEXT)
        assert wrapped.key_id == same[0]
        stored = keys.wrapped_from_json(json.loads(json.dumps(keys.wrapped_to_json(wrapped))))
        other = same[same.index(name) - 1]
        assert provider(other).unwrap(stored, CONTEXT) == DATASET_KEY


def test_context_is_sent(wire: Recorder) -> None:
    """The encryption context names the dataset, readable in the log of KMS, both ways."""
    provider().unwrap(provider().wrap(DATASET_KEY, CONTEXT), CONTEXT)
    sent = [body["EncryptionContext"] for _, body in wire.requests]
    assert sent == [{"pamola_dwriter": CONTEXT.decode()}] * 2
    assert [body["KeyId"] for _, body in wire.requests] == ["alias/pii"] * 2


@pytest.mark.parametrize("context", [b"", b"%", b"%25", b"\xff\x00", "ü".encode()])
def test_any_context_binds(wire: Recorder, context: bytes) -> None:
    """Whatever the bytes of a context, it opens with them and with no others."""
    wrapped = provider().wrap(DATASET_KEY, context)
    assert provider().unwrap(wrapped, context) == DATASET_KEY
    with pytest.raises(WrongKeyError):
        provider().unwrap(wrapped, context + b"5")


def test_tampering(kms: KmsServer, wire: Recorder) -> None:
    """Another dataset, a flipped bit, another key and another method are one opaque error."""
    wrapped = provider().wrap(DATASET_KEY, CONTEXT)
    ciphertext = bytearray(base64.b64decode(str(wrapped.parameters["ciphertext"])))
    ciphertext[-1] ^= 1
    flipped = {"ciphertext": base64.b64encode(ciphertext).decode()}
    said = set()
    for attack, context in [
        (wrapped, b"pamola_dwriter.dataset:0000000000000000"),
        (dataclasses.replace(wrapped, parameters=flipped), CONTEXT),
        (dataclasses.replace(wrapped, parameters={"ciphertext": "QUJD"}), CONTEXT),
        (dataclasses.replace(wrapped, key_id=kms.make_key()), CONTEXT),
        (dataclasses.replace(wrapped, method="hkdf-sha256"), CONTEXT),
    ]:
        with pytest.raises(WrongKeyError) as caught:
            provider().unwrap(attack, context)
        said.add(str(caught.value))
    assert len(said) == 1


def test_attackers_key_does_not_open(kms: KmsServer, wire: Recorder) -> None:
    """What an attacker wrapped under their own key does not open, whatever id it claims."""
    mine, theirs = kms.make_key(), kms.make_key()
    forged = provider(theirs).wrap(DATASET_KEY, CONTEXT)
    wire.requests.clear()
    for name in (mine, mine.rpartition("/")[2]):
        with pytest.raises(WrongKeyError):
            provider(name).unwrap(forged, CONTEXT)
        assert wire.requests == []  # its id gives it away
        # AWS answers IncorrectKeyException here; moto says that access is denied.
        with pytest.raises((WrongKeyError, InvalidKeyError)):
            provider(name).unwrap(dataclasses.replace(forged, key_id=mine), CONTEXT)
        assert {body["KeyId"] for _, body in wire.requests} == {name}
        wire.requests.clear()


def test_answer_of_another_key_is_refused(kms: KmsServer, wire: Recorder) -> None:
    """An answer that another key opened is not believed, though it holds a key."""
    wrapped = provider().wrap(DATASET_KEY, CONTEXT)
    body = {"KeyId": kms.make_key(), "Plaintext": base64.b64encode(DATASET_KEY).decode()}
    wire.answer = lambda operation: (200, json.dumps(body).encode())
    with pytest.raises(WrongKeyError):
        provider().unwrap(wrapped, CONTEXT)


def test_multi_region_key(wire: Recorder) -> None:
    """The replica of a multi-region key opens what its primary wrapped; another key does not."""
    there = "arn:aws:kms:us-east-1:1:key/mrk-0f"
    here = "arn:aws:kms:eu-west-1:1:key/mrk-0f"
    body = {"KeyId": here, "Plaintext": base64.b64encode(DATASET_KEY).decode()}
    wire.answer = lambda operation: (200, json.dumps(body).encode())
    wrapped = WrappedKey(method="awskms", key_id=there, parameters={"ciphertext": "QUJD"})
    assert provider(here).unwrap(wrapped, CONTEXT) == DATASET_KEY
    for other in (there.replace(":1:", ":2:"), there.replace("mrk-0f", "mrk-1f")):
        with pytest.raises(WrongKeyError):
            provider(here).unwrap(dataclasses.replace(wrapped, key_id=other), CONTEXT)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"ciphertext": ""},
        {"ciphertext": 5},
        {"ciphertext": "%"},
        {"ciphertext": "QUJD" * 9999},
        {"ciphertext": "QUJD", "more": "x"},
    ],
)
def test_damaged_wrap(wire: Recorder, parameters: dict[str, Any]) -> None:
    """What nobody can have written is an IntegrityError, and KMS is not asked."""
    wrapped = WrappedKey(method="awskms", key_id="x", parameters=parameters)
    with pytest.raises(IntegrityError):
        provider().unwrap(wrapped, CONTEXT)
    assert wire.requests == []


@pytest.mark.parametrize(
    "uri",
    ["", "alias/", "key/x", "a b", "arn:aws:s3:::lake", "arn:aws:kms:us-east-1:1:alias/", "x\n"],
)
def test_bad_uri(uri: str) -> None:
    """A URI that can name no key is refused, with the forms that can."""
    with pytest.raises(InvalidKeyError, match="KEY_ID"):
        keys.resolve(f"awskms:{uri}")


def test_absent_key(wire: Recorder) -> None:
    """A key that is not there is unavailable: neither wrong nor silently made."""
    with pytest.raises(InvalidKeyError, match="NotFoundException; correct its name"):
        provider("alias/absent").wrap(DATASET_KEY, CONTEXT)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AccessDeniedException", "kms:Encrypt and kms:Decrypt"),
        ("DisabledException", "enable"),
        ("KMSInvalidStateException", "deletion"),
        ("UnrecognizedClientException", "credentials"),
        ("ExpiredTokenException", "credentials"),
        ("InvalidKeyUsageException", "symmetric"),
        ("SomethingNew", "AWS"),
    ],
)
def test_refusals(wire: Recorder, code: str, remedy: str) -> None:
    """What AWS refuses names AWS's code and what to do, and nothing of what AWS wrote."""
    wrapped = provider().wrap(DATASET_KEY, CONTEXT)
    wire.refuse(code, "secret-of-the-account")
    for act in (
        lambda: provider().wrap(DATASET_KEY, CONTEXT),
        lambda: provider().unwrap(wrapped, CONTEXT),
    ):
        with pytest.raises(InvalidKeyError, match=f"{code}; .*{remedy}") as caught:
            act()
        shown = "".join(traceback.format_exception(caught.value))
        assert "secret-of-the-account" not in shown
        assert "botocore" not in shown.replace("botocore.exceptions import", "")
    assert len(wire.requests) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("IncorrectKeyException", "The key ID in the request does not identify a CMK"),
        ("InvalidCiphertextException", ""),
        ("AccessDeniedException", "The ciphertext refers to a customer master key that does not"),
    ],
)
def test_answers_of_a_wrong_key(wire: Recorder, code: str, message: str) -> None:
    """What real KMS answers for another key or context is the one opaque error."""
    wrapped = provider().wrap(DATASET_KEY, CONTEXT)
    wire.refuse(code, message)
    with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
        provider().unwrap(wrapped, CONTEXT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AWS_DEFAULT_REGION": None}, "NoRegionError; set AWS_DEFAULT_REGION"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "NoCredentialsError; give"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "PartialCredentialsError; give"),
        ({"AWS_PROFILE": "absent"}, "ProfileNotFound; correct AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:1"}, "EndpointConnectionError; see"),
        ({"AWS_ENDPOINT_URL_KMS": "nonsense"}, "ValueError; correct AWS_ENDPOINT_URL_KMS"),
    ],
)
def test_configuration(
    wire: Recorder, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], message: str
) -> None:
    """What is missing in the AWS configuration is named with its remedy, before a request."""
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(InvalidKeyError, match=message):
        provider().wrap(DATASET_KEY, CONTEXT)
    assert wire.requests == []


def test_region_of_an_arn(kms: KmsServer, wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key named by its ARN needs no region in the configuration."""
    arn = kms.make_key()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert provider(arn).unwrap(provider(arn).wrap(DATASET_KEY, CONTEXT), CONTEXT) == DATASET_KEY


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8080", "http://kms.example", "http://127.1.evil"]
)
def test_plain_http(wire: Recorder, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Plain http to another host is refused at once, with the remedy."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
    with pytest.raises(InsecureTransportError, match="AWS_ENDPOINT_URL_KMS to an https"):
        provider().wrap(DATASET_KEY, CONTEXT)


def test_plain_http_through_a_proxy(wire: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http to this host is refused too if a proxy elsewhere would see it."""
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    with pytest.raises(InsecureTransportError, match="NO_PROXY"):
        provider().wrap(DATASET_KEY, CONTEXT)
    monkeypatch.setenv("no_proxy", servers.HOST)
    provider().wrap(DATASET_KEY, CONTEXT)


def test_nothing_shows(wire: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """No log at DEBUG, repr, pickle or wrapped key shows the dataset key or the credentials."""
    caplog.set_level(logging.DEBUG, "")
    wrapped = provider().wrap(DATASET_KEY, CONTEXT)
    provider().unwrap(wrapped, CONTEXT)
    shown = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    pickled = pickle.dumps(provider())
    assert pickle.loads(pickled).uri == "awskms:alias/pii"  # noqa: S301 - made just above
    shown += f"{provider()!r} {wrapped!r} {pickled!r}"
    encoded = base64.b64encode(DATASET_KEY).decode()
    for secret in (DATASET_KEY.hex(), encoded, repr(DATASET_KEY)[2:-1]):
        assert secret not in shown
    assert any(record.name.startswith("botocore") for record in caplog.records)
    assert encoded in json.dumps(wire.requests)  # so that it was looked for in the right form


def test_one_call_while_threads_race(wire: Recorder) -> None:
    """Sixteen threads that want one dataset key at once ask KMS once."""
    wrapped = provider().wrap(DATASET_KEY, CONTEXT)
    asked = Sealing(wrapped=(wrapped,), keyed_by=WRITE, provider="awskms:alias/pii")
    barrier = threading.Barrier(16)

    def race(_: int) -> bytes:
        barrier.wait()
        return sealing.open_sealing(asked)

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(race, range(16))) == {DATASET_KEY}
    assert wire.count("Decrypt") == 1


def test_failures_are_not_remembered(wire: Recorder) -> None:
    """A key that was not available is asked for again, and opens when it is."""
    wrapped = provider().wrap(token_bytes(32), CONTEXT)
    asked = Sealing(wrapped=(wrapped,), keyed_by=WRITE, provider="awskms:alias/pii")
    wire.refuse("DisabledException")
    for _ in range(2):
        with pytest.raises(InvalidKeyError):
            sealing.open_sealing(asked)
    wire.answer = lambda operation: None
    sealing.open_sealing(asked)
    sealing.open_sealing(asked)
    assert wire.count("Decrypt") == 3


def test_passing_failures_are_tried_again(wire: Recorder) -> None:
    """A request that is throttled is sent again, a bounded number of times."""
    wire.refuse("ThrottlingException")
    with pytest.raises(InvalidKeyError, match="ThrottlingException"):
        provider().wrap(DATASET_KEY, CONTEXT)
    assert wire.count("Encrypt") == 3


def test_requests_without_a_cluster(wire: Recorder, tmp_path: Path) -> None:
    """On threads a write costs one Encrypt, and opening it one Decrypt, whatever its parts."""
    result = DataWriter(tmp_path).write_dataframe(
        dd.from_pandas(batch(0), npartitions=5), "people", "csv", encryption_key="awskms:alias/pii"
    )
    assert [name for name, _ in wire.requests] == ["Encrypt"]
    sealing._slots.clear()  # as in another process
    frame = read_dataset(result.path, encryption_key="awskms:alias/pii")
    assert len(frame.compute()) == len(batch(0))
    assert len(frame.compute()) == len(batch(0))
    assert [name for name, _ in wire.requests] == ["Encrypt", "Decrypt"]


def test_requests_of_a_cluster(
    kms_cluster: servers.Cluster, wire: Recorder, tmp_path: Path
) -> None:
    """One Encrypt for a write; one Decrypt for each worker process, also for one that joins."""
    with Client(kms_cluster.scheduler_address) as client:
        writer = DataWriter(tmp_path)
        frame = dd.from_pandas(batch(0), npartitions=8)
        result = writer.write_dataframe(frame, "people", encryption_key="awskms:alias/pii")
        assert (wire.count("Encrypt"), wire.count("Decrypt"), len(wire.requests)) == (1, 2, 3)

        read = read_dataset(result.path, encryption_key="awskms:alias/pii")
        assert len(read.compute()) == len(batch(0))
        assert wire.count("Decrypt") == 3  # the client's own; both workers have the key

        client.restart()  # two new processes, which the graph did not know
        for _ in range(2):
            assert len(read.compute()) == len(batch(0))
        assert 1 <= wire.count("Decrypt") - 3 <= 2
        assert wire.count("Encrypt") == 1


def test_single_file(wire: Recorder, tmp_path: Path) -> None:
    """A single file opens by the key that its own header names."""
    DataWriter(tmp_path).write_json({"a": 1}, "facts", encryption_key="awskms:alias/pii")
    (path,) = (file for file in tmp_path.rglob("facts*") if file.is_file())
    with open_artifact(path, encryption_key="awskms:alias/pii") as file:
        assert json.load(file) == {"a": 1}
    assert (wire.count("Encrypt"), wire.count("Decrypt")) == (1, 1)


def test_unavailable_key_does_not_stop_others(
    wire: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another key opens while KMS is down; if none does, its being down is what is said."""
    monkeypatch.setenv("SPARE_KEY", token_hex(32))
    given = keys.resolve(["awskms:alias/pii", "env:SPARE_KEY"])
    wrapped = keys.wrap_all(given, DATASET_KEY, CONTEXT)
    wire.refuse("DisabledException")
    assert keys.unwrap_any(given, wrapped, CONTEXT) == DATASET_KEY
    for some in (given[:1], (given[0], keys.RawKey(bytes(32))), (keys.RawKey(bytes(32)), given[0])):
        with pytest.raises(InvalidKeyError, match="DisabledException"):
            keys.unwrap_any(some, wrapped, CONTEXT)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://192.0.2.1")
    assert keys.unwrap_any(given, wrapped, CONTEXT) == DATASET_KEY
    with pytest.raises(InsecureTransportError):
        keys.unwrap_any(given[:1], wrapped, CONTEXT)
