"""Key services on this machine, each as a process of its own: AWS KMS, and Vault's transit engine.

AWS ships no server to run oneself, so KMS is played by moto over HTTP: it checks ciphertexts and
contexts, and neither signatures nor whether a key is disabled. OpenBao, which speaks Vault's
protocol, is the real server. Like everything in :mod:`deploy.local.servers` they listen on the
loopback interface only, on ports that were free, keep everything in memory, and are gone when the
``with`` block ends, whatever ended it.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from deploy.local import processes
from deploy.local.servers import HOST, REGION

_REQUEST_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class KmsServer:
    """A moto server that speaks KMS; made by :func:`kms_server`."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What AWS clients need in their environment to use this server."""
        return self.environment_by(self.port)

    def environment_by(self, port: int) -> dict[str, str]:
        """As :attr:`environment`, for what passes requests on to the server from `port`."""
        return {
            "AWS_ENDPOINT_URL_KMS": f"http://{HOST}:{port}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }

    def call(self, operation: str, **arguments: Any) -> Any:
        """Call an operation of KMS, such as ``DisableKey``, below any client."""
        # Moto reads whom a request is from, and does not check its signature.
        scope = f"testing/20260101/{REGION}/kms/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"TrentService.{operation}",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=, Signature=",
        }
        return _post(f"http://{HOST}:{self.port}/", arguments, headers)

    def make_key(self, alias: str | None = None) -> str:
        """Make a key, and point ``alias/NAME`` at it if asked to; return its ARN."""
        made = self.call("CreateKey")["KeyMetadata"]
        if alias is not None:
            self.call("CreateAlias", AliasName=f"alias/{alias}", TargetKeyId=made["KeyId"])
        return str(made["Arn"])

    def kill(self) -> None:
        """End the server at once, and with it all its keys."""
        processes.kill_group(self.process)


@dataclass(frozen=True, kw_only=True)
class VaultServer:
    """An OpenBao server, unsealed, with a transit engine; made by :func:`vault_server`.

    ``ca`` is the certificate to trust it by, if it speaks TLS.
    """

    port: int
    log: Path
    ca: Path | None
    token: str = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"{'http' if self.ca is None else 'https'}://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What Vault's clients need in their environment; it holds the root token: do not print."""
        trust = {} if self.ca is None else {"VAULT_CACERT": str(self.ca)}
        return {"VAULT_ADDR": self.address, "VAULT_TOKEN": self.token, **trust}

    def call(self, path: str, **arguments: Any) -> Any:
        """Post to a path of the API below ``/v1/``, as root, and return the ``data`` answered."""
        headers = {"Content-Type": "application/json", "X-Vault-Token": self.token}
        answer = _post(f"{self.address}/v1/{path}", arguments, headers, self.ca)
        return None if answer is None else answer.get("data") or answer

    def make_key(self, name: str, *, mount: str = "transit", **options: Any) -> None:
        """Make a key of the transit engine, such as with ``derived=True``."""
        self.call(f"{mount}/keys/{name}", **options)

    def make_token(self, policy: str) -> str:
        """Return a token that may do what a policy, in HCL, says."""
        name = token_hex(4)
        self.call(f"sys/policies/acl/{name}", policy=policy)
        made = self.call("auth/token/create", policies=[name])
        return str(made["auth"]["client_token"])

    def kill(self) -> None:
        """End the server at once, and with it all its keys."""
        processes.kill_group(self.process)


@contextmanager
def kms_server() -> Iterator[KmsServer]:
    """Run an emulated AWS KMS without keys.

    Raises
    ------
    ServerStartError
        It was not ready after :data:`processes.START_SECONDS`.
    """
    with TemporaryDirectory(prefix="kms-", ignore_cleanup_errors=True) as run:
        (port,), log = processes.free_ports(1), Path(run, "moto.log")
        command = [processes.program("moto_server"), "-H", HOST, "-p", str(port)]
        environment = {"PATH": os.defpath, "HOME": run}
        url = f"http://{HOST}:{port}/moto-api/data.json"
        with _running(command, environment, log, lambda: _answers(url)) as process:
            yield KmsServer(port=port, log=log, process=process)


@contextmanager
def vault_server(*, tls: bool = False) -> Iterator[VaultServer]:
    """Run OpenBao in memory, unsealed, with a transit engine and a root token drawn at random.

    Parameters
    ----------
    tls : bool
        Speak https, with a certificate of a CA that is made for it.

    Raises
    ------
    ServerStartError
        It was not ready after :data:`processes.START_SECONDS`.
    """
    with TemporaryDirectory(prefix="bao-", ignore_cleanup_errors=True) as run:
        (port,), log, token = processes.free_ports(1), Path(run, "bao.log"), token_hex(16)
        ca = Path(run, "vault-ca.pem") if tls else None
        options = ["-dev-tls", f"-dev-tls-cert-dir={run}"] if tls else []
        command = [processes.program("bao"), "server", "-dev", "-dev-no-store-token", *options]
        environment = {
            "PATH": os.defpath,
            "HOME": run,
            "BAO_DEV_LISTEN_ADDRESS": f"{HOST}:{port}",
            "BAO_DEV_ROOT_TOKEN_ID": token,  # a command line is readable by every user
        }
        health = f"{'https' if tls else 'http'}://{HOST}:{port}/v1/sys/health"
        with _running(command, environment, log, lambda: _answers(health, ca)) as process:
            server = VaultServer(port=port, log=log, ca=ca, token=token, process=process)
            server.call("sys/mounts/transit", type="transit")
            yield server


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, ready: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    process = processes.spawn(command, log, environment)
    try:
        processes.wait_until(ready, Path(command[0]).name, process, log)
        yield process
    finally:
        processes.kill_group(process)


def _answers(url: str, ca: Path | None = None) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=_trust(ca)):
            return True
    except OSError:
        return False


def _post(
    url: str, arguments: Mapping[str, Any], headers: Mapping[str, str], ca: Path | None = None
) -> Any:
    data = json.dumps(arguments).encode()
    request = urllib.request.Request(url, data=data, headers=dict(headers), method="POST")
    with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS, context=_trust(ca)) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def _trust(ca: Path | None) -> ssl.SSLContext | None:
    return None if ca is None else ssl.create_default_context(cafile=ca)
