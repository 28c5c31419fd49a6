"""A real S3 server on this machine, in processes of its own."""

from __future__ import annotations

import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.local.certificates import Certificates
from deploy.local.processes import (
    HOST,
    kill_group,
    on_free_ports,
    program,
    spawn,
    stop,
    wait_until,
)

REGION = "us-east-1"

_PORTS = ("s3", "master", "volume", "filer", "admin")


@dataclass(kw_only=True)
class S3Server:
    """A SeaweedFS server that speaks S3; made by :func:`s3_server`.

    ``data`` outlives :meth:`kill`, so :meth:`restart` is what a crashed server's return looks like.

    Attributes
    ----------
    data, run : Path
        The objects; and what is of no use when the server has ended.
    logs : Path, optional
        Where the log goes, if not to ``run``.
    tls : Certificates, optional
        With it the server speaks HTTPS alone, to clients. Its own parts (filer, master, volumes,
        which are one process) speak to each other in the clear, on the loopback interface.
    signing_keys : tuple of str
        What the filer's own port wants requests to be signed with.
    extra_environment : mapping
        What its process has beside what it needs.
    """

    bucket: str
    data: Path
    run: Path
    logs: Path | None = None
    tls: Certificates | None = None
    access_key: str = field(default_factory=lambda: token_hex(10), repr=False)
    secret_key: str = field(default_factory=lambda: token_hex(20), repr=False)
    ports: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    signing_keys: tuple[str, str] = field(
        default_factory=lambda: (token_hex(32), token_hex(32)), repr=False
    )
    extra_environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def endpoint_url(self) -> str:
        """Where the server speaks S3."""
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.ports[0]}"

    @property
    def filer_port(self) -> int:
        """Where the server keeps what S3 serves; it has an access control of its own."""
        return self.ports[_PORTS.index("filer")]

    @property
    def storage_options(self) -> dict[str, Any]:
        """Keyword arguments of ``s3fs.S3FileSystem``; they hold the credentials: do not print."""
        return self.storage_options_by(self.ports[0])

    def storage_options_by(self, port: int) -> dict[str, Any]:
        """As :attr:`storage_options`, for what passes requests on to the server from `port`."""
        endpoint_url = f"{'https' if self.tls else 'http'}://{HOST}:{port}"
        trust = {"verify": str(self.tls.ca)} if self.tls else {}
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "client_kwargs": {"endpoint_url": endpoint_url, "region_name": REGION, **trust},
        }

    @property
    def log(self) -> Path:
        """The file with everything the server said."""
        return (self.logs or self.run) / "s3.log"

    def start(self) -> None:
        """Start on the present ports, or on new ones, and wait until a signed PUT succeeds."""
        if self.ports:
            self._start_once()
        else:
            on_free_ports(2 * len(_PORTS), self._start_on, self.log)

    def is_ready(self) -> bool:
        """Healthy, and a signed PUT succeeds: the first alone comes before the second."""
        trust = ssl.create_default_context(cafile=self.tls.ca) if self.tls else None
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/healthz", timeout=2, context=trust):
                return self._put_probe()
        except OSError:
            return False

    def kill(self) -> None:
        """End the server as a power cut would: SIGKILL, nothing flushed."""
        if self.process is not None:
            kill_group(self.process)
            self.process = None

    def restart(self) -> None:
        """Kill the server and start it again on the same folder, ports and credentials."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Ask the server to end, and kill it if it does not."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def _start_on(self, ports: tuple[int, ...]) -> None:
        self.ports = ports
        try:
            self._start_once()
        except BaseException:
            self.ports = ()
            raise

    def _start_once(self) -> None:
        self.process = spawn(self._command(), self.log, self._environment(), self.run)
        try:
            wait_until(self.is_ready, "the S3 server", self.process, self.log)
        except BaseException:
            self.kill()
            raise

    def _command(self) -> list[str]:
        http, grpc = self.ports[: len(_PORTS)], self.ports[len(_PORTS) :]
        options = [f"-{name}.port={port}" for name, port in zip(_PORTS, http, strict=True)]
        options += [f"-{name}.port.grpc={port}" for name, port in zip(_PORTS, grpc, strict=True)]
        if self.tls:
            options += [f"-s3.cert.file={self.tls.cert}", f"-s3.key.file={self.tls.key}"]
        return [
            program("weed"),
            "mini",
            f"-dir={self.data.absolute()}",
            f"-bucket={self.bucket}",
            # Either alone leaves some of its listeners on every interface.
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *options,
            # Relative to where it is started: a socket's path may have 107 characters at most.
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]

    def _environment(self) -> dict[str, str]:
        """Secrets go through the environment: a command line is readable by every user."""
        return {
            **self.extra_environment,
            "PATH": os.defpath,
            "HOME": str(self.run),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            # Without these the filer's own port gives every object to whoever asks.
            "WEED_JWT_FILER_SIGNING_KEY": self.signing_keys[0],
            "WEED_JWT_FILER_SIGNING_READ_KEY": self.signing_keys[1],
        }

    def _put_probe(self) -> bool:
        client: Any = botocore.session.Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            verify=str(self.tls.ca) if self.tls else None,
            config=Config(connect_timeout=2, read_timeout=2, retries={"max_attempts": 0}),
        )
        try:
            client.put_object(Bucket=self.bucket, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=self.bucket, Key=".ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


@contextmanager
def s3_server(folder: Path | None = None, *, bucket: str = "lake") -> Iterator[S3Server]:
    """Run a real S3 server with one bucket and random credentials.

    Parameters
    ----------
    folder : Path, optional
        Where the objects are kept, and left; by default a temporary folder that is removed.
    bucket : str
        Created at the start.

    Raises
    ------
    ServerStartError
        It was not ready after :data:`START_SECONDS`.
    """
    with TemporaryDirectory(prefix="weed-", ignore_cleanup_errors=True) as run:
        data = folder or Path(run, "data")
        data.mkdir(parents=True, exist_ok=True)
        server = S3Server(bucket=bucket, data=data, run=Path(run))
        try:
            server.start()
            yield server
        finally:
            # A polite stop takes two seconds; nobody will read a temporary folder again.
            if folder:
                server.stop()
            else:
                server.kill()
