"""The keys of Parquet columns, each of which is wrapped for readers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pamola_dwriter import keys, manifest
from pamola_dwriter.errors import EncryptionKeyError, InvalidKeyError
from pamola_dwriter.manifest import Envelope
from pamola_dwriter.rotation.change import Change, Wrapped

ColumnKeys = Mapping[str, tuple[Mapping[str, Any], ...]]
"""Wrapped keys as JSON, by key name."""


def rewrap_columns(root: str, shown: Envelope, change: Change) -> ColumnKeys:
    """Return the wrapped keys of columns that are to stand; those given open what they opened.

    Raises
    ------
    InvalidKeyError
        Nobody, or too many, would open some of the columns.
    """
    changed = {}
    for name, listed in shown.column_keys.items():
        before = tuple(keys.wrapped_from_json(each) for each in listed)
        context = manifest.key_context(shown.keyed_by, name)
        wrapped = _rewrap(root, before, context, change)
        if not 1 <= len(wrapped) <= keys.MAX_WRAPPED:
            raise InvalidKeyError(
                f"{len(wrapped)} keys would open the columns under {name!r} of {root}; from 1 to "
                f"{keys.MAX_WRAPPED} may"
            )
        changed[name] = tuple(keys.wrapped_to_json(each) for each in wrapped)
    return changed


def _rewrap(root: str, before: Wrapped, context: bytes, change: Change) -> Wrapped:
    try:
        key = change.open(root, before, context)
    except EncryptionKeyError:  # columns of others: only who is revoked goes
        return tuple(each for each in before if each.key_id not in change.revoke)
    revoked = change.revoked(before, key)
    return change.add(tuple(each for each in before if each not in revoked), key)
