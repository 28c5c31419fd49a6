"""Draw and wrap the keys of a write that encrypts inside Parquet files."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distributed import Client

from pamola_dwriter import keys, manifest
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.encryption import ParquetEncryption
from pamola_dwriter.errors import EncryptionKeyError, InvalidKeyError, InvalidWriteError
from pamola_dwriter.shapes import Shape
from pamola_dwriter.spec import ParquetSealing, Sealing, WrappedKey, WriteId
from pamola_dwriter.transit import choose_sealing

Providers = tuple[KeyProvider, ...]


def check_columns(
    asked: ParquetEncryption, shape: Shape, providers: Providers, *, age: bool
) -> None:
    """Refuse an encryption that the frame, or the writer, cannot be held to.

    Raises
    ------
    InvalidWriteError
        There is no key; or a column is unknown, or would show all the same.
    """
    if not providers:
        raise InvalidWriteError("encryption=ParquetEncryption(...) needs an encryption_key")
    if age:
        raise InvalidWriteError(
            "encryption=ParquetEncryption(...) encrypts inside the files, and "
            "encryption_mode='age' whole files; use a writer without that"
        )
    described = {column["name"]: column["dtype"] for column in shape.frame["columns"]}
    levels = {level["stored"] for level in shape.frame["index"]}
    for key_name, names in asked.columns.items():
        for name in names:
            if name in levels:
                raise InvalidWriteError(
                    f"key {key_name!r} names {name!r}, which is in the index, and every read needs "
                    "that; use reset_index(), or write_index=False"
                )
            if name not in described:
                raise InvalidWriteError(
                    f"key {key_name!r} names {name!r}, which the frame has no column for"
                )
            if inner := [other for other in described if other.startswith(f"{name}.")]:
                # Parquet writes the fields of a column so, and cannot tell them apart.
                raise InvalidWriteError(f"columns {name!r} and {inner[0]!r} clash; rename one")
            if asked.footer is None:
                _check_hidden(name, described[name])


def _check_hidden(name: str, dtype: Mapping[str, Any]) -> None:
    if dtype["kind"] == "category" and dtype["categories"] is not None:
        raise InvalidWriteError(
            f"the manifest, which has no key here, would show the categories of {name!r}; use "
            f"ddf[{name!r}].cat.as_unknown() or another type, or give a footer key"
        )


def lock_columns(
    asked: ParquetEncryption, providers: Providers, client: Client | None, write_id: WriteId
) -> Sealing:
    """Draw the keys of a write; return how workers get at them.

    Whoever opens any column opens the footer too, which is needed to read it.
    """
    by_name = {name: _resolve(name, asked, providers) for name in asked.columns}
    everybody = (*providers, *(one for each in by_name.values() for one in each))
    sealing = _draw(everybody, client, write_id, "")
    column_keys = {name: _draw(each, client, write_id, name) for name, each in by_name.items()}
    parquet = ParquetSealing(layout=asked.layout, column_keys=column_keys)
    return replace(sealing, parquet=parquet)


def _resolve(name: str, asked: ParquetEncryption, providers: Providers) -> Providers:
    if name not in asked.keys:
        return providers
    try:
        return keys.resolve(asked.keys[name])
    except InvalidKeyError as error:
        error.say_first(f"keys[{name!r}]")
        raise


def _draw(providers: Providers, client: Client | None, write_id: WriteId, key_name: str) -> Sealing:
    key = secrets.token_bytes(32)
    wrapped = _wrap(providers, key, manifest.key_context(write_id, key_name))
    if len(wrapped) > keys.MAX_WRAPPED:
        raise InvalidKeyError(f"at most {keys.MAX_WRAPPED} keys open a dataset, not {len(wrapped)}")
    return choose_sealing(client, providers, wrapped, key, write_id, key_name)


def _wrap(providers: Providers, key: bytes, context: bytes) -> tuple[WrappedKey, ...]:
    """Wrap a key for each provider; one that is given for several columns counts once."""
    wrapped: tuple[WrappedKey, ...] = ()
    for provider in {id(each): each for each in providers}.values():
        made = provider.wrap(key, context)
        twin = [one for one in wrapped if (one.method, one.key_id) == (made.method, made.key_id)]
        if not (twin and _opens(provider, twin, context)):
            wrapped += (made,)
    return wrapped


def _opens(provider: KeyProvider, wrapped: list[WrappedKey], context: bytes) -> bool:
    try:
        keys.unwrap_any([provider], wrapped, context)
    except EncryptionKeyError:  # passphrases have one id, and a public key opens nothing
        return False
    return True
