"""Get at the keys of the Parquet columns of a dataset, as far as somebody's key opens them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from distributed import Client

from pamola_dwriter import keys, manifest
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.dataset import Committed
from pamola_dwriter.errors import EncryptionKeyError
from pamola_dwriter.manifest import Envelope
from pamola_dwriter.spec import ParquetSealing, WrappedKey
from pamola_dwriter.transit import choose_sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedKey:
    """A key of columns, and which provider opened it."""

    provider: KeyProvider
    wrapped: tuple[WrappedKey, ...]
    value: bytes = field(repr=False)


def wrapped_columns(shown: Envelope) -> dict[str, tuple[WrappedKey, ...]]:
    """Return the wrapped keys of columns that a manifest shows, by key name."""
    return {
        name: tuple(keys.wrapped_from_json(key) for key in listed)
        for name, listed in shown.column_keys.items()
    }


def open_columns(committed: Committed, providers: Sequence[KeyProvider]) -> dict[str, OpenedKey]:
    """Return the keys of columns that one of `providers` opens, by key name.

    Only names in the body are tried, which is authenticated, while the wrapped keys beside it are
    not: a passphrase costs its derivation each time.
    """
    shown, columns = committed.shown, committed.manifest.parquet
    listed = wrapped_columns(shown)
    opened = {}
    for name in () if columns is None else columns.columns:
        wrapped = listed.get(name, ())
        context = manifest.key_context(shown.keyed_by, name)
        for provider in providers:
            try:
                value = keys.unwrap_any([provider], wrapped, context)
            except EncryptionKeyError:  # of other columns; or not available, as another may be
                continue
            opened[name] = OpenedKey(provider=provider, wrapped=wrapped, value=value)
            break
    return opened


def parquet_sealing(
    committed: Committed, providers: Sequence[KeyProvider], client: Client | None
) -> ParquetSealing | None:
    """Return how workers get at the keys of columns; None if the parts have none inside."""
    columns = committed.manifest.parquet
    if columns is None:
        return None
    keyed_by = committed.shown.keyed_by
    sealings = {
        name: choose_sealing(client, [key.provider], key.wrapped, key.value, keyed_by, name)
        for name, key in open_columns(committed, providers).items()
    }
    return ParquetSealing(layout=columns, column_keys=sealings)
