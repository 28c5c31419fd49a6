"""What key services reached over a network share: a safe link, and clients that log no key."""

from __future__ import annotations

import ipaddress
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import quote, urlsplit

from pamola_dwriter.errors import InsecureTransportError, InvalidKeyError

CONNECT_SECONDS = 5.0
"""Longest wait for a connection to a key service."""

READ_SECONDS = 10.0
"""Longest wait for its answer."""

_silent: ContextVar[bool] = ContextVar("pamola_dwriter_silent", default=False)


def check_link(url: str, remedy: str) -> None:
    """Refuse an address to which a dataset key would travel in the clear.

    Parameters
    ----------
    url : str
        Where the key service listens.
    remedy : str
        What the caller can change, such as ``set VAULT_ADDR to its https:// address``.

    Raises
    ------
    InsecureTransportError
        It is plain http, and on another host or through a proxy.
    InvalidKeyError
        It is no http or https URL.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidKeyError(f"the address of the key service is not a URL of http(s); {remedy}")
    if parts.scheme == "https":
        return
    if not _is_loopback(host):
        raise InsecureTransportError(
            f"the dataset key would travel unencrypted to the key service on {host}; {remedy}"
        )
    if "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        raise InsecureTransportError(
            "the dataset key would travel unencrypted to the proxy that the environment names; "
            f"add {host} to NO_PROXY, or {remedy}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def context_text(context: bytes) -> str:
    """Return `context` as text that a service can keep in its log; no two share a text."""
    return quote(context, safe=":")


class _Silencer(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _silent.get()


_SILENCER = _Silencer()


@contextmanager
def silenced(*loggers: str) -> Iterator[None]:
    """Drop what this thread logs to `loggers`: clients show whole messages at DEBUG.

    The filter stays in place afterwards and lets everything through; taking it away would race
    with threads that are still inside.
    """
    for name in loggers:
        logging.getLogger(name).addFilter(_SILENCER)
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)
