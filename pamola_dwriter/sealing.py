"""How a write gets at its dataset key, and how a single file carries the key it is sealed under."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pamola_dwriter import envelope, keys, manifest
from pamola_dwriter.errors import DataReadError, IntegrityError, InvalidKeyError
from pamola_dwriter.formats.parquet_encryption import FileLock
from pamola_dwriter.spec import ParquetSealing, Redacted, Sealing, WrappedKey, WriteId

_REMEMBERED = 64
"""Dataset keys that a process keeps at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKeys:
    """What the header of a sealed single file says of its key.

    Attributes
    ----------
    write_id : str
        The write that made the file as it is.
    keyed_by : str
        The write that drew the key, which the wrapped keys are bound to; changing the file
        keeps the key, and with it everybody who can open it.
    """

    write_id: WriteId
    keyed_by: WriteId
    wrapped: tuple[WrappedKey, ...]


def file_header(file_name: str, held: FileKeys) -> dict[str, Any]:
    """Return the header of a sealed single file; parsed by :func:`parse_file_header`."""
    return manifest.sealed_header(held.write_id, "artifact", file_name) | {
        "keyed_by": held.keyed_by,
        "keys": [keys.wrapped_to_json(key) for key in held.wrapped],
    }


def parse_file_header(fields: Mapping[str, Any]) -> FileKeys:
    """Parse the header fields of a sealed single file.

    Raises
    ------
    DataReadError
        It is a part of a dataset, which carries no key.
    IntegrityError
        It is not a header that we write.
    """
    if fields.get("kind") != "artifact":
        raise DataReadError("it is part of a dataset; open that with read_dataset")
    write_id, listed = fields.get("write_id"), fields.get("keys")
    keyed_by = fields.get("keyed_by", write_id)
    if not isinstance(listed, list) or not listed or not (_is_id(write_id) and _is_id(keyed_by)):
        raise IntegrityError("its sealed header is damaged")
    return FileKeys(
        write_id=WriteId(str(write_id)),
        keyed_by=WriteId(str(keyed_by)),
        wrapped=tuple(keys.wrapped_from_json(key) for key in listed),
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def open_sealing(sealing: Sealing) -> bytes:
    """Return the dataset key; at most one call of the provider per process and dataset.

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
    slot = _slot(sealing)
    with slot.lock:
        if slot.dataset_key is None:  # also after a failure, which may have passed
            context = manifest.key_context(sealing.keyed_by, sealing.key_name)
            providers = keys.resolve(sealing.provider)
            slot.dataset_key = keys.unwrap_any(providers, sealing.wrapped, context)
        return slot.dataset_key


def part_lock(sealing: ParquetSealing, footer: Sealing, write_id: WriteId, path: str) -> FileLock:
    """Return how the Parquet file of one part is encrypted, for whoever has its keys."""

    def key_and_place(key_name: str) -> tuple[bytes, bytes]:
        place = manifest.part_key_context(write_id, path, key_name)
        if key_name == sealing.layout.footer_key:
            return envelope.footer_key(open_sealing(footer)), place
        if key_name not in sealing.column_keys:
            raise IntegrityError("it asks for a key that its manifest does not name")
        return open_sealing(sealing.column_keys[key_name]), place

    def wrap(data_key: bytes, key_name: str) -> str:
        key, place = key_and_place(key_name)
        return envelope.wrap_data_key(key, data_key, place, os.urandom(12))

    def unwrap(wrapped: str | bytes, key_name: str) -> bytes:
        return _unwrap(wrapped, Redacted(key_and_place(key_name)))

    return FileLock(layout=sealing.layout, wrap=wrap, unwrap=unwrap)


def _unwrap(wrapped: str | bytes, key_and_place: Redacted) -> bytes:
    try:
        key, place = key_and_place.reveal()
        return envelope.unwrap_data_key(key, wrapped, place)
    except IntegrityError as error:
        key = b""
        raise error.with_traceback(None) from None  # without the frames below, which hold the key


def remember(sealing: Sealing, dataset_key: bytes) -> None:
    """Save this process from asking the provider for a dataset key that it already has."""
    slot = _slot(sealing)
    with slot.lock:
        slot.dataset_key = dataset_key


@dataclass(slots=True)
class _Slot:
    """One dataset key; whoever needs it while another thread asks for it waits for the answer."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    dataset_key: bytes | None = field(default=None, repr=False)


_slots: dict[tuple[str | None, str, WriteId, str], _Slot] = {}
_slots_lock = threading.Lock()


def _slot(sealing: Sealing) -> _Slot:
    wrapped = json.dumps([keys.wrapped_to_json(key) for key in sealing.wrapped])
    name = (sealing.provider, wrapped, sealing.keyed_by, sealing.key_name)
    with _slots_lock:
        slot = _slots[name] = _slots.pop(name) if name in _slots else _Slot()  # now the last
        while len(_slots) > _REMEMBERED:
            del _slots[next(iter(_slots))]
    return slot
