"""Decide how the dataset key reaches the workers, and refuse to send it in the clear."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from distributed import Client

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import InsecureTransportError
from pamola_dwriter.sealing import open_sealing, remember
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, Sealing, WrappedKey, WriteId

logger = logging.getLogger(__name__)

_PRIVATE = frozenset({"tls", "wss", "gateway", "inproc"})
"""Encrypted links, and those within a process. Dask Gateway's connector takes nothing but TLS."""


def choose_sealing(
    client: Client | None,
    providers: Sequence[KeyProvider],
    wrapped: tuple[WrappedKey, ...],
    dataset_key: bytes,
    keyed_by: WriteId,
    key_name: str = "",
) -> Sealing:
    """Return a Sealing whose tasks can open the dataset key wherever they run.

    Where every worker resolves one of the providers itself, only wrapped keys travel. Else the
    dataset key does, redacted, and only within this process or over loopback or TLS, or where
    the setting ``allow-insecure-transport`` lets it.

    Raises
    ------
    InsecureTransportError
        The key would have to travel over a network link that is not encrypted.
    """
    uris = [provider.uri for provider in providers if provider.uri is not None]
    for uri in uris:
        sealing = Sealing(wrapped=wrapped, keyed_by=keyed_by, provider=uri, key_name=key_name)
        if client is None:
            remember(sealing, dataset_key)
            return sealing
        if _everywhere(client, sealing):
            return sealing
    held = Redacted(dataset_key)
    sealing = Sealing(wrapped=wrapped, keyed_by=keyed_by, dataset_key=held, key_name=key_name)
    check_links(client, sealing, uris)
    return sealing


def check_links(client: Client | None, sealing: Sealing | None, tried: Sequence[str] = ()) -> None:
    """Refuse to let a dataset key travel in the clear.

    Between the making of a graph and its submission a cluster may have changed, so this is asked
    at both. Tasks reach a worker by its connection to the scheduler alone, and no result of a
    task holds the key: so a worker that joins later gets it by a link that the scheduler
    listens for now.

    Parameters
    ----------
    client : Client or None
        Of the cluster that the tasks are for; None for this process, from which nothing travels.
    sealing : Sealing or None
        What the tasks carry; with no dataset key in it any link will do.
    tried : sequence of str
        Providers that the workers could not resolve, for the message.

    Raises
    ------
    InsecureTransportError
        It would cross a link that is not encrypted, and ``allow-insecure-transport`` is not set.
    """
    if client is None or sealing is None or not sealing.carries_key:
        return
    exposed = next(_exposed_links(client), None)
    if exposed is None:
        return
    could_not = f" (they could not resolve {', '.join(tried)})" if tried else ""
    if not Settings.load().allow_insecure_transport:
        raise InsecureTransportError(
            f"the dataset key would travel unencrypted {exposed}, because the workers cannot "
            f"resolve a key themselves{could_not}. Give them one (env:NAME, file:PATH, "
            "awskms:KEY, vault:KEY), or run the cluster with tls://; where the network is private "
            "and that is enough, set pamola-dwriter.allow-insecure-transport in Dask's "
            "configuration"
        )
    logger.warning(
        "the dataset key travels unencrypted %s, as allow-insecure-transport lets it%s",
        exposed,
        could_not,
    )


def _everywhere(client: Client, sealing: Sealing) -> bool:
    answers = client.run(_can_open, sealing, on_error="return")
    unable = sorted(address for address, answer in answers.items() if answer is not True)
    if unable:
        logger.warning(
            "%d of %d workers cannot resolve %s themselves (%s)",
            len(unable),
            len(answers),
            sealing.provider,
            ", ".join(unable[:3]),
        )
    return not unable


def _can_open(sealing: Sealing) -> bool:
    return bool(open_sealing(sealing))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Links:
    """The links of a scheduler, as it sees them itself.

    Attributes
    ----------
    client : str or None
        The far end of the connection of the client that asks.
    listeners : tuple of str
        All of its addresses, of which it names only the first to others; ``0.0.0.0`` and ``::``
        stand for every interface.
    workers : tuple of str
        Where its workers are reached.
    """

    client: str | None
    listeners: tuple[str, ...]
    workers: tuple[str, ...]


def _look(client_id: str, dask_scheduler: Any) -> _Links:
    stream = dask_scheduler.client_comms.get(client_id)
    return _Links(
        client=stream.comm.peer_address if stream and stream.comm else None,
        listeners=tuple(listener.listen_address for listener in dask_scheduler.listeners),
        workers=tuple(dask_scheduler.workers),
    )


def _exposed_links(client: Client) -> Iterator[str]:
    """Yield what the key would cross in the clear, as the end of a sentence."""
    connected: Any = client  # its streams are untyped
    scheduler = connected.scheduler.address
    if not is_private(scheduler):
        yield f"to {scheduler}"
        return
    try:
        links: _Links = client.run_on_scheduler(_look, client.id)
    except (ImportError, AttributeError, ValueError) as error:
        # It lacks this package, or has an old one, or runs no functions (distributed.scheduler.
        # pickle): none of them can be told from one that hides where it listens.
        yield f"by a scheduler that does not tell its links ({type(error).__name__})"
        return
    here = connected.scheduler_comm.comm.local_address
    if urlsplit(here).scheme == "tcp" and here != links.client:
        yield f"beyond {scheduler}, which passes it on to a scheduler elsewhere"
    for listener in links.listeners:
        if not is_private(listener):
            yield f"to workers that connect to {listener}"
    for worker in links.workers:
        if not is_private(worker):
            yield f"to {worker}"


def is_private(address: str) -> bool:
    """Return whether a Dask address is in this process, on this host, or encrypted."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme in _PRIVATE:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
