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
    dataset key does, redacted, and only within this process or over loopback or TLS.

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
    scheduler: Any = client.scheduler  # set while the client runs
    workers = list(client.nthreads())
    if not workers and urlsplit(scheduler.address).scheme not in _ENCRYPTED | _IN_PROCESS:
        raise InsecureTransportError(
            "the dataset key would travel to workers that are not there yet, over links that "
            "cannot be checked. Wait for them (client.wait_for_workers), give them the key "
            "(env:NAME or file:PATH), or run the cluster with tls://"
        )
    addresses = [scheduler.address, *workers]
    exposed = [address for address in addresses if not is_private(address)]
    if exposed:
        tried = f" (they could not resolve {', '.join(uris)})" if uris else ""
        raise InsecureTransportError(
            f"the dataset key would travel to {exposed[0]} unencrypted, because the workers "
            f"cannot resolve the key themselves{tried}. Give them the key (env:NAME or "
            "file:PATH), or run the cluster with tls://"
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
