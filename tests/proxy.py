"""An HTTP proxy before an S3 server that knows its requests, and does to them what a test asks."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deploy.local.servers import S3Server

Reply = tuple[int, Mapping[str, str], bytes]

PUTS = frozenset({"put", "part"})

_REFUSALS = {
    "400": (400, "EntityTooLarge"),
    "403": (403, "AccessDenied"),
    "409": (409, "ConditionalRequestConflict"),
    "429": (429, "TooManyRequests"),
    "503": (503, "SlowDown"),
}
"""Faults that are answered without being forwarded."""


class Proxy:
    """Stands before an S3 server and does to requests what `faults` says, one after the other.

    ``lose``: forward, then hang up without a reply; ``drop``: hang up at once; ``stall``: say
    nothing until the client is tired; ``500``: forward, then answer 500; ``200``: forward, then
    answer 200 with an error in it, as S3 may for a completion; ``half``: forward, and hang up in
    the middle of the reply; ``400``, ``403``, ``409``, ``429``, ``503``: answer so, and forward
    nothing. An empty text lets one pass.

    Parameters
    ----------
    kinds : frozenset of str
        The requests that `faults` is for; see :func:`kind_of`.
    """

    def __init__(self, server: S3Server, *faults: str, kinds: frozenset[str] = PUTS) -> None:
        self.faults = deque(faults)
        self.kinds = kinds
        self.always = ""  # a fault for all of them, when `faults` is empty
        self.only = ""  # faults are for paths alone that contain this
        self.requests: Counter[str] = Counter()
        self.announced = 0  # bodies that waited to be asked for
        self.deaf = False  # when set, GETs are refused
        self.behind: Callable[[], None] = lambda: None  # called after a fault
        self._upstream = server.endpoint_url.removeprefix("http://")
        self._closing = threading.Event()

    def options(self, server: S3Server, **config: Any) -> dict[str, Any]:
        """Storage options that lead here."""
        client = {**server.storage_options["client_kwargs"], "endpoint_url": self.url}
        return {**server.storage_options, "client_kwargs": client, "config_kwargs": config}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        kind = kind_of(handler.command, handler.path)
        self.requests[kind] += 1
        self.announced += "Expect" in handler.headers
        fault = ""
        if kind in self.kinds and self.only in handler.path:
            fault = self.faults.popleft() if self.faults else self.always
        if fault == "stall":
            self._closing.wait(30)
        if fault in ("drop", "stall"):
            self.behind()
            self._hang_up(handler)
        elif self.deaf and handler.command == "GET":
            self._reply(handler, _error(403, "AccessDenied"))
        elif fault in _REFUSALS:
            self.behind()
            self._reply(handler, _error(*_REFUSALS[fault]))
        else:
            self._forward_and(fault, handler, body)

    def _forward_and(self, fault: str, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        reply = self._forward(handler, body)
        if fault:
            self.behind()
        if fault == "lose":
            self._hang_up(handler)
        elif fault == "half":
            self._reply(handler, reply, cut=len(reply[2]) // 2)
            self._hang_up(handler)
        elif fault in ("200", "500"):
            self._reply(handler, _error(int(fault), "InternalError"))
        else:
            self._reply(handler, reply)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> Reply:
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        connection.putrequest(
            handler.command, handler.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in handler.headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        except (OSError, http.client.HTTPException):
            return _error(502, "BadGateway")  # the server is down
        finally:
            connection.close()

    def _reply(self, handler: BaseHTTPRequestHandler, reply: Reply, cut: int | None = None) -> None:
        status, headers, data = reply
        handler.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", headers.get("Content-Length", str(len(data))))
        with suppress(OSError):  # the client may be gone
            handler.end_headers()
            handler.wfile.write(b"" if handler.command == "HEAD" else data[:cut])

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def listening(self) -> Iterator[Proxy]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else every reply takes 40 ms

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

            def handle_method(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_method  # noqa: N815

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
            listener.daemon_threads = True
            self.url = f"http://127.0.0.1:{listener.server_port}"
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield self
            finally:
                self._closing.set()
                listener.shutdown()


def kind_of(command: str, path: str) -> str:
    """Return what a request to S3 is: create, part, complete, abort, uploads, list, put..."""
    address = urlsplit(path)
    query = parse_qs(address.query, keep_blank_values=True)
    if "uploadId" in query:
        return {"PUT": "part", "POST": "complete", "DELETE": "abort"}[command]
    if "uploads" in query:
        return {"POST": "create", "GET": "uploads"}[command]
    if command == "POST":
        return "delete"
    if "/" not in address.path.strip("/"):
        return {"HEAD": "bucket", "GET": "list"}[command]
    return command.lower()


def _error(status: int, code: str) -> Reply:
    text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
    return status, {}, text.encode()
