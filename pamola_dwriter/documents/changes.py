"""JSON documents made anew, or from the bytes of their last version."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson

from pamola_dwriter.documents.plain import plain
from pamola_dwriter.documents.syntax import KEPT, Json, decode, dumps, kind_of
from pamola_dwriter.errors import InvalidTargetError, UnsupportedDataError

_LENGTHS_KEPT = 64
_lengths: OrderedDict[bytes, int] = OrderedDict()
"""Items of the arrays that appends of this process made last, by SHA-256.

Most appends find an array as they left it, and need not parse it, which takes several times as
long. Of the arrays themselves, which may be encrypted where they are stored, nothing is kept.
"""


def encode(data: Any, *, pretty: bool) -> bytes:
    """Return `data` as a JSON document in UTF-8, without a newline at its end.

    =================================== =======================================================
    What                                becomes
    =================================== =======================================================
    NaN, infinities, NaT, NA            ``null``: JSON has no other word for them
    int                                 all its digits, beyond 64 bits too
    Decimal, UUID, path, Period, dtype  text (a JSON number would lose digits of a Decimal)
    datetime, date, time, timedelta     text, ISO 8601 (``P1DT2H3M4.5S``; a minus in front)
    Interval                            text: ``(0, 1]``
    bytes                               text, base64
    Enum, NumPy scalar                  what its value becomes
    Mapping, dataclass, named tuple     object
    list, tuple, range, deque, views    array
    set                                 array: numbers by size, text by code point, other
                                        members by their JSON
    NumPy array, Index, Categorical     array
    Series                              object by its labels; array if the index is unnamed
                                        integers, which only number the rows
    DataFrame                           array of records, the index among them unless as above
    key that is not text                what it becomes as a value, if that is text; else its
                                        JSON: ``1``, ``true``, ``null``, ``["a",1]``
    =================================== =======================================================

    Every other type is refused, complex numbers and generators among them; nothing is turned
    into its ``str()`` unasked.

    Raises
    ------
    UnsupportedDataError
        The data cannot be written; the message names the place (``$.a[3].b``) and the type.
    """
    return dumps(plain(data), pretty=pretty)


def append_item(stored: bytes | None, item: Any, *, pretty: bool) -> bytes:
    """Return the stored array with one more item; an array of just that if nothing is stored.

    What is stored keeps its bytes: the item is put before the closing bracket. So documents
    that were always appended to in one style are what :func:`encode` makes of the whole list.

    Raises
    ------
    InvalidTargetError
        What is stored is not a JSON array.
    UnsupportedDataError
        The item cannot be written; see :func:`encode`.
    """
    if stored is None:
        made = dumps([plain(item, (0,))], pretty=pretty)
        _remember(hashlib.sha256(made).digest(), 1)
        return made
    kept = stored[: max(stored.rfind(b"]"), 0)].rstrip(b" \t\r\n")
    hashed = hashlib.sha256(kept)
    length = _array_length(stored, _digest(hashed, stored[len(kept) :]))
    end = stored[stored.rindex(b"]") :]
    comma = b"," if length else b""
    added = comma + dumps([plain(item, (length,))], pretty=pretty)[1:-1]
    hashed.update(added)
    _remember(_digest(hashed, end), length + 1)
    return kept + added + end


def _array_length(stored: bytes, digest: bytes) -> int:
    length = _lengths.get(digest)
    if length is not None:
        return length
    value = _fast_value(stored)
    if isinstance(value, list):
        return len(value)
    raise InvalidTargetError(f"what is stored is {kind_of(value)}, not an array; {KEPT}")


def _digest(hashed: hashlib._Hash, more: bytes) -> bytes:
    """Return the digest of what was hashed and of `more` behind it."""
    whole = hashed.copy()
    whole.update(more)
    return whole.digest()


def _remember(digest: bytes, length: int) -> None:
    _lengths[digest] = length
    while len(_lengths) > _LENGTHS_KEPT:
        _lengths.popitem(last=False)


def _fast_value(stored: bytes) -> Json:
    """Return the stored value with inexact integers, far faster than :func:`decode`."""
    try:
        value: Json = orjson.loads(stored)
    except ValueError:
        pass
    else:
        return value
    # Damaged; or it holds an integer that no double holds, which orjson takes for damage.
    return decode(stored)


def merge_object(
    stored: bytes | None,
    data: Mapping[Any, Any],
    *,
    overwrite_existing: bool,
    recursive: bool,
    pretty: bool,
) -> bytes:
    """Return the stored object with the members of `data` added; new ones stand at the end.

    A member that both have is replaced, or kept without `overwrite_existing`. With `recursive`,
    where both are objects they are merged by the same rule instead. The document is written
    anew, so its layout is that of `pretty`.

    Raises
    ------
    InvalidTargetError
        What is stored is not a JSON object.
    UnsupportedDataError
        The data does not become an object, or cannot be written; see :func:`encode`.
    """
    new = plain(data)
    if not isinstance(new, dict):
        raise UnsupportedDataError(f"only an object can be merged, not {kind_of(new)}; use a dict")
    old = {} if stored is None else decode(stored)
    if not isinstance(old, dict):
        raise InvalidTargetError(f"what is stored is {kind_of(old)}, not an object; {KEPT}")
    return dumps(_merged(old, new, overwrite_existing, recursive), pretty=pretty)


def _merged(
    old: dict[str, Json], new: dict[str, Json], overwrite: bool, recursive: bool
) -> dict[str, Json]:
    merged = dict(old)
    for name, value in new.items():
        present = old.get(name)
        if recursive and isinstance(present, dict) and isinstance(value, dict):
            merged[name] = _merged(present, value, overwrite, recursive)
        elif overwrite or name not in old:
            merged[name] = value
    return merged
