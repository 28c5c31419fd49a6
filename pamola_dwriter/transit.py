"""Decide how the dataset key reaches the workers, and refuse to send it in the clear."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from distributed import Client

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import InsecureTransportError
from pamola_dwriter.sealing import open_sealing, remember
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, Sealing, WrappedKey, WriteId

logger = logging.getLogger(__name__)

_ENCRYPTED = frozenset({"tls", "wss", "ucxx+tls"})
_IN_PROCESS = frozenset({"inproc"})


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
    if client is not None:
        _check_links(client, uris)
    held = Redacted(dataset_key)
    return Sealing(wrapped=wrapped, keyed_by=keyed_by, dataset_key=held, key_name=key_name)


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


def _check_links(client: Client, uris: Sequence[str]) -> None:
    exposed = _exposed_link(client)
    if exposed is None:
        return
    tried = f" (they could not resolve {', '.join(uris)})" if uris else ""
    if not Settings.load().allow_insecure_transport:
        raise InsecureTransportError(
            f"the dataset key would travel to {exposed}, because the workers cannot resolve a key "
            f"themselves{tried}. Give them one (env:NAME, file:PATH, awskms:KEY, vault:KEY), or "
            "run the cluster with tls://; where the network is private and that is enough, set "
            "pamola-dwriter.allow-insecure-transport in Dask's configuration"
        )
    logger.warning(
        "the dataset key travels to %s, as allow-insecure-transport lets it%s", exposed, tried
    )


def _exposed_link(client: Client) -> str | None:
    """Return what the key would cross in the clear; None if all links are private.

    The scheduler is looked at as we reach it and as workers do: an address on this host may lead
    to another through a tunnel.
    """
    connected: Any = client.scheduler  # set while the client runs
    schedulers = (connected.address, str(client.scheduler_info()["address"]))
    workers = list(client.nthreads())
    for address in (*schedulers, *workers):
        if not is_private(address):
            return f"{address} unencrypted"
    if workers or urlsplit(connected.address).scheme in _ENCRYPTED | _IN_PROCESS:
        return None
    return (
        "workers that are not there yet, over links that cannot be checked (wait for them: "
        "client.wait_for_workers)"
    )


def is_private(address: str) -> bool:
    """Return whether a Dask address is in this process, on this host, or encrypted."""
    parts = urlsplit(address)
    if parts.scheme in _ENCRYPTED | _IN_PROCESS:
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"
