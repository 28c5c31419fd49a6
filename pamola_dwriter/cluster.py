"""Which cluster a call runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from pamola_dwriter.errors import InvalidWriteError

_turn = threading.Lock()


@contextmanager
def computing_on(client: Client | None) -> Iterator[None]:
    """Let Dask compute on `client`, or on local threads, whatever client is the current one.

    One thread at a time: Dask sets its scheduler for the whole process, and two that took turns
    in another order than they came would leave it set for good.
    """
    if client is None:
        yield
        return
    with _turn, client.as_current():
        yield


def current_client(client: Client | None) -> Client | None:
    """Return `client`, else the current one of this process, else None for local threads.

    Raises
    ------
    InvalidWriteError
        It is closed, or asynchronous.
    """
    if client is None:
        try:
            client = Client.current()
        except ValueError:
            return None
        if client.status in ("connecting", "closed"):  # left behind by a failed connection
            return None
    if not isinstance(client, Client):
        raise InvalidWriteError(f"client must be a dask Client, not {type(client).__name__}")
    if client.status != "running":
        raise InvalidWriteError(f"the Dask client is {client.status}; connect a new one")
    if client.asynchronous:
        raise InvalidWriteError("an asynchronous Dask client cannot be used; give a blocking one")
    return client
