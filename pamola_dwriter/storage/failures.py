"""Which failures may pass by themselves, and what mends the others, whoever raises them.

Every file system of fsspec raises what its own client does. Importing those clients only to name
their errors would make each of them a dependency, so the classes are known by name, and replies
by the HTTP status that such an error carries.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN"),
        *("EHOSTUNREACH", "EINTR", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENOBUFS", "EPIPE"),
        *("ESTALE", "ETIMEDOUT"),
    )
)

_NETWORK = frozenset(
    {
        *("ClientConnectionError", "ClientPayloadError"),  # aiohttp
        *("ConnectionError", "Timeout", "ChunkedEncodingError"),  # Python, botocore, requests
        *("HTTPClientError", "IncompleteReadError", "ResponseParserError"),  # botocore
        *("IncompleteRead", "TimeoutError"),  # http.client, Python
        *("ServiceRequestError", "ServiceResponseError"),  # azure.core
        *("TransportError", "RemoteError"),  # httpx and google.auth
    }
)
"""Names of the classes with which a client says that it got no whole reply."""

_LASTING = frozenset({501, 505, 507})
"""Statuses of 500 and more that mean "never": not implemented, no room."""

_ROOM = "free some space there or write to another place"
_PERMISSION = "have whoever writes there given permission to, or write to another place"

_REMEDIES = {
    errno.EACCES: _PERMISSION,
    errno.EDQUOT: "free some of the quota or have it raised",
    errno.EFBIG: "have the limit on the size of a file raised (ulimit -f), or cut the data into "
    "more partitions",
    errno.EISDIR: "move the folder away that stands where a file belongs, or choose another name",
    errno.EMFILE: "have the limit on open files raised (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: _ROOM,
    errno.ENOTDIR: "move the file away that stands where a folder belongs, or choose another name",
    errno.EPERM: _PERMISSION,
    errno.EROFS: "have it mounted for writing, or write to another place",
    401: "give credentials that are valid there",
    403: _PERMISSION,
    507: _ROOM,
}
"""What a person can do, by error number or HTTP status: no number is both."""


def is_transient(error: BaseException) -> bool:
    """Return whether what failed may work when it is tried again."""
    chain = list(_causes(error))
    if any(_is_lasting(each) for each in chain):
        return False
    for each in chain:
        # In this order: a reply that breaks off has, for aiohttp, a status of 400.
        if _is_passing(each):
            return True
        if (status := _status(each)) is not None:
            return status_is_transient(status)
    return False


def remedy(error: BaseException) -> str:
    """Return what a person can do about it, to be put behind a message, or an empty text."""
    for each in _causes(error):
        number = each.errno if isinstance(each, OSError) else _status(each)
        if number is None and isinstance(each, PermissionError):  # as fsspec raises it
            number = errno.EACCES
        if number in _REMEDIES:
            return f"; {_REMEDIES[number]}"
    return ""


def status_is_transient(status: int) -> bool:
    """Return whether a server that answered with this HTTP status may answer better later."""
    return status in (408, 429) or (status >= 500 and status not in _LASTING)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what is known to be behind it."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, getattr(each, "os_error", None)]  # the latter of aiohttp
        details = getattr(each, "kwargs", None)  # of botocore
        waiting.append(details.get("error") if isinstance(details, dict) else None)


def _is_lasting(error: BaseException) -> bool:
    """Return whether this is a host that does not exist, or one that speaks no such TLS."""
    if isinstance(error, socket.gaierror):
        return error.errno != socket.EAI_AGAIN
    broken_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(error, ssl.SSLError) and not isinstance(error, broken_off)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return not _NETWORK.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error, or the reply in it, carries."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None
