"""The dataset key never crosses a network in the clear."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pamola_dwriter.errors import InsecureTransportError
from pamola_dwriter.keys import RawKey, wrap_all
from pamola_dwriter.spec import WriteId
from pamola_dwriter.transit import choose_sealing, is_private

WRITE = WriteId("0123456789abcdef")


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("tcp://127.3.2.1:1", True),
        ("tcp://[::1]:8786", True),
        ("tcp://localhost:8786", True),
        ("tls://10.0.0.7:8786", True),
        ("wss://example.org:443", True),
        ("inproc://10.0.0.7/1/2", True),
        ("tcp://10.0.0.7:8786", False),
        ("tcp://scheduler:8786", False),
        ("tcp://localhost.example.org:8786", False),
        ("ws://10.0.0.7:80", False),
        ("ucx://10.0.0.7:8786", False),
        ("", False),
    ],
)
def test_private_links(address: str, private: bool) -> None:
    """Only this process, this host and TLS count as private."""
    assert is_private(address) is private


@pytest.mark.parametrize("exposed", ["scheduler", "worker"])
def test_key_is_not_sent_over_plain_tcp(exposed: str) -> None:
    """One exposed link, to the scheduler or a worker, refuses the write and says the remedy."""
    far, near = "tcp://10.0.0.7:8786", "tcp://127.0.0.1:8786"
    client: Any = SimpleNamespace(
        scheduler=SimpleNamespace(address=far if exposed == "scheduler" else near),
        nthreads=lambda: {far if exposed == "worker" else near: 1},
    )
    providers = (RawKey(bytes(32)),)
    wrapped = wrap_all(providers, bytes(32), b"context")
    with pytest.raises(InsecureTransportError, match="tls://"):
        choose_sealing(client, providers, wrapped, bytes(32), WRITE)
