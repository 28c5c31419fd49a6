"""A bad network on this machine: a TCP proxy that delays, slows, stalls and resets connections.

It listens on the loopback interface and passes bytes on as they are, so a signature made for its
address reaches the server intact (the ``Host`` header is the proxy's own, on both sides). It runs
in a thread of its own and is gone when the ``with`` block ends.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from deploy.local.servers import HOST

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, with no time to linger: what is closed so ends with RST, not FIN."""
_FARTHEST_EXPONENT = 16
_SHORTEST_SLEEP = 0.002
"""Seconds; a shorter wait is saved up, for the loop's own delay would be longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How bad the network is.

    Attributes
    ----------
    latency : float
        Seconds that each new connection waits, and each request on it.
    rate : float or None
        Bytes per second of each direction of each connection; None is unlimited.
    reset_probability : float
        That a request is doomed: after a number of its bytes, or of its reply's, drawn evenly
        on a logarithmic scale up to 64 KiB, both sides get a RST. One that is over by then
        escapes; :attr:`Proxy.resets` counts what came to pass.
    """

    latency: float = 0.0
    rate: float | None = None
    reset_probability: float = 0.0


class Proxy:
    """A running proxy; made by :func:`proxy`.

    Attributes
    ----------
    line : Line
        May be changed at any time; the next chunk goes by it.
    connections, requests, resets : int
        How many there have been. A request begins with the first byte that a client sends
        after the server has spoken.
    bytes_received : int
        What the server has sent and clients were passed on.
    """

    def __init__(self, upstream_port: int, line: Line, seed: int) -> None:
        self.line = line
        self.connections = self.requests = self.resets = 0
        self.bytes_received = 0
        self._upstream_port = upstream_port
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        """Where to connect, on the loopback interface."""
        assert self._server is not None  # noqa: S101 - set before anybody is handed a proxy
        return int(self._server.sockets[0].getsockname()[1])

    def stall(self) -> None:
        """Pass nothing on, either way, until :meth:`resume`; connections stay open."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        """Let everything flow that :meth:`stall` held up."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def reset_all(self) -> None:
        """Reset every connection that is open."""
        self._call(self._reset_all())

    def _start(self) -> None:
        self._thread.start()
        self._call(self._listen())

    def _stop(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0)

    async def _close(self) -> None:
        assert self._server is not None  # noqa: S101 - as above
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset_all(self) -> None:
        for link in list(self._links):
            self._reset(link)

    def _reset(self, link: _Link) -> None:
        self.resets += 1
        link.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the other end is gone, or the proxy is being closed: nobody is left to tell
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.line.latency)
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._upstream_port)
        except OSError:
            _abort(writer)  # as if nobody listened here either
            raise
        link = _Link(writer, far_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(link, reader, far_writer, up=True),
                self._pump(link, far_reader, writer, up=False),
            )
        finally:
            self._links.discard(link)
            link.close()

    async def _pump(
        self,
        link: _Link,
        source: asyncio.StreamReader,
        destination: asyncio.StreamWriter,
        *,
        up: bool,
    ) -> None:
        due = self._loop.time()
        while data := await source.read(_CHUNK):
            if up and link.begins():
                await self._begin(link)
            await self._flowing.wait()
            passed = link.pass_on(len(data), up=up)
            self.bytes_received += 0 if up else passed
            destination.write(data[:passed])
            if passed < len(data):
                # What was passed on is in the kernel by now, unless its buffers are full.
                self._reset(link)
                return
            await destination.drain()
            if rate := self.line.rate:
                due = max(due, self._loop.time()) + len(data) / rate
                if (wait := due - self._loop.time()) > _SHORTEST_SLEEP:
                    await asyncio.sleep(wait)
        with suppress(OSError):
            destination.write_eof()

    async def _begin(self, link: _Link) -> None:
        """Begin a request: let it wait, and draw whether it is doomed."""
        self.requests += 1
        link.doom = None
        if self._random.random() < self.line.reset_probability:
            up = self._random.random() < 0.5
            left = int(2 ** self._random.uniform(0, _FARTHEST_EXPONENT)) - 1
            link.doom = _Doom(up=up, left=left)
        await asyncio.sleep(self.line.latency)


@dataclass(slots=True)
class _Doom:
    """A reset to come, after `left` more bytes in one direction."""

    up: bool
    left: int


@dataclass(slots=True, eq=False)
class _Link:
    """One connection of a client with its connection to the server."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    doom: _Doom | None = None
    _answered: bool = field(default=True)

    def begins(self) -> bool:
        """Return whether what the client just sent begins a request."""
        begins, self._answered = self._answered, False
        return begins

    def pass_on(self, size: int, *, up: bool) -> int:
        """Return how many bytes of a chunk may pass; fewer than `size` if the link ends there."""
        self._answered = self._answered or not up
        if self.doom is None or self.doom.up is not up:
            return size
        passed = min(size, self.doom.left)
        self.doom.left -= passed
        return passed

    def reset(self) -> None:
        """End both connections with RST."""
        _abort(self.near)
        _abort(self.far)

    def close(self) -> None:
        """End both connections politely, if they have not ended."""
        self.near.close()
        self.far.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with suppress(OSError):  # closed already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@contextmanager
def proxy(upstream_port: int, line: Line | None = None, *, seed: int = 0) -> Iterator[Proxy]:
    """Run a proxy before a server on the loopback interface.

    Parameters
    ----------
    upstream_port : int
        Of the server, which may come and go.
    line : Line, optional
        How bad the network is; by default it is good, and can be made worse later.
    seed : int
        Of the draws; the order in which requests arrive is not up to us.
    """
    running = Proxy(upstream_port, line or Line(), seed)
    running._start()
    try:
        yield running
    finally:
        running._stop()
