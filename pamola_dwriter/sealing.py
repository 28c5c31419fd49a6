"""How a task gets at the dataset key: from its own provider, or from what it was handed."""

from __future__ import annotations

import json
from functools import lru_cache

from pamola_dwriter import keys, manifest
from pamola_dwriter.errors import InvalidKeyError
from pamola_dwriter.spec import Sealing, WriteId


def open_sealing(sealing: Sealing, write_id: WriteId) -> bytes:
    """Return the dataset key; at most one call of the provider per process and write.

    Raises
    ------
    InvalidKeyError
        This process cannot resolve the provider.
    WrongKeyError
        It resolves to another key than the one that wrapped the dataset key.
    """
    if sealing.dataset_key is not None:
        return bytes(sealing.dataset_key.reveal())
    if sealing.provider is None:
        raise InvalidKeyError("this write carries neither a key nor a provider of one")
    wrapped = json.dumps([keys.wrapped_to_json(key) for key in sealing.wrapped])
    return _unwrap(sealing.provider, wrapped, write_id)


@lru_cache(maxsize=64)
def _unwrap(provider: str, wrapped: str, write_id: WriteId) -> bytes:
    parsed = [keys.wrapped_from_json(key) for key in json.loads(wrapped)]
    return keys.unwrap_any(keys.resolve(provider), parsed, manifest.key_context(write_id))
