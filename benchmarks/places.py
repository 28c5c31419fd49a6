"""Where the benchmarks write: this machine's disk, an S3 server, and one far away."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import s3fs

from deploy.local.proxy import Line, proxy
from deploy.local.s3 import S3Server, s3_server

LATENCY = 0.040
"""Seconds that the slow line adds to each request."""
RATE = 25e6
"""Bytes per second of each connection of the slow line."""

PLACES = ("local", "s3", "slow-s3")


@dataclass(slots=True)
class Place:
    """Hands out folders that nobody has written to, and removes them.

    Attributes
    ----------
    root : str
        Path or URL that all of them are in.
    storage_options : dict
        For fsspec; with S3 they hold credentials, so do not print them.
    """

    root: str
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)
    _server: S3Server | None = field(default=None, repr=False)
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    def new(self) -> str:
        """Return a folder that does not exist."""
        return f"{self.root}/{next(self._numbers)}"

    def remove(self, folder: str) -> None:
        """Remove what was written, not over the slow line."""
        if self._server is None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        files = s3fs.S3FileSystem(**self.direct_options, use_listings_cache=False)
        if files.exists(folder):
            files.rm(folder, recursive=True)

    @property
    def direct_options(self) -> dict[str, Any]:
        """Storage options that leave a slow line aside."""
        return {} if self._server is None else self._server.storage_options

    @contextmanager
    def counted(self) -> Iterator[tuple[dict[str, Any], Callable[[], int]]]:
        """Reach an S3 server over a line that counts, which takes time.

        Yields
        ------
        dict and callable
            Storage options for that line, and what returns the bytes that clients have received
            over it, heads of replies among them.
        """
        if self._server is None:
            raise ValueError("a disk has no line to count on")
        with proxy(self._server.ports[0]) as line:
            yield self._server.storage_options_by(line.port), lambda: line.bytes_received


@contextmanager
def open_place(name: str, folder: Path) -> Iterator[Place]:
    """Open one of :data:`PLACES`; the disk is that of `folder`."""
    if name == "local":
        yield Place(str(folder / "written"))
        return
    with s3_server() as server:
        root = f"s3://{server.bucket}/benchmark"
        if name == "s3":
            yield Place(root, server.storage_options, server)
            return
        with proxy(server.ports[0], Line(latency=LATENCY, rate=RATE)) as line:
            yield Place(root, server.storage_options_by(line.port), server)
