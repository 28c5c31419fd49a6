"""Seal bytes in memory: our sealed format against Tink's and age's packages for Python.

All three are authenticated streams of segments; Tink's is the same stream as ours, in segments of
1 MiB where ours has the 64 KiB of Parquet parts. One thread seals pieces of the size of a part, one
after the other, each into one buffer. The packages are imported
late: who runs the other benchmarks need not have them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.measuring import Comparison, keep_option, publish, rounds_option, time_in_turns
from pamola_dwriter import envelope

OURS = "ours"
PEERS = {
    "tink": "AES256_GCM_HKDF_1MB, into a file in memory, all of a piece in one call of write",
    "pyrage": "pyrage.encrypt to one X25519 recipient, ChaCha20-Poly1305",
}
AT_LEAST = 10.0
MIB = 2**20

_HEADER = {"what": "benchmark", "segment": envelope.SMALL_SEGMENT}

Seal = Callable[[bytes], object]


@click.command()
@click.option("--mib", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option("--piece-mib", type=click.IntRange(min=1), default=32, show_default=True)
@rounds_option(3)
@keep_option
def sealing(mib: int, piece_mib: int, rounds: int, keep: Path | None) -> None:
    """Seal bytes in memory, against Tink and age."""
    sizes = [min(piece_mib, mib - done) * MIB for done in range(0, mib, piece_mib)]
    data = os.urandom(sizes[0])
    pieces = [data[:size] for size in sizes]

    def all_pieces(seal: Seal) -> None:
        for piece in pieces:
            seal(piece)

    figures = time_in_turns(
        {name: lambda s=s: all_pieces(s) for name, s in _seals().items()},  # type: ignore[misc]
        rounds,
    )
    comparison = Comparison(
        name="sealing",
        title=f"Sealing {mib:,} MiB in pieces of {piece_mib} MiB with one thread",
        unit="s",
        peer=OURS,
        figures=figures,
        parameters={"mib": mib, "piece_mib": piece_mib, "rounds": rounds},
        remarks=PEERS,
        at_least=dict.fromkeys(PEERS, AT_LEAST),
    )
    publish(comparison, keep)


def _seals() -> dict[str, Seal]:
    import pyrage

    key = os.urandom(32)
    recipient = pyrage.x25519.Identity.generate().to_public()
    primitive = _tink_primitive()

    def by_tink(piece: bytes) -> bytes:
        sealed = _Kept()
        with primitive.new_encrypting_stream(sealed, b"benchmark") as stream:
            stream.write(piece)
        return sealed.getvalue()

    return {
        OURS: lambda piece: envelope.seal(piece, key, _HEADER),
        "tink": by_tink,
        "pyrage": lambda piece: pyrage.encrypt(piece, [recipient]),
    }


class _Kept(io.BytesIO):
    """Tink closes what it writes to."""

    def close(self) -> None:
        """Stay readable."""


def _tink_primitive() -> Any:
    import tink
    from tink import streaming_aead

    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    return tink.new_keyset_handle(template).primitive(streaming_aead.StreamingAead)
