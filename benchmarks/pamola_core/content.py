"""What a task directory holds, as plain values that can be compared leaf by leaf."""

from __future__ import annotations

import hashlib
import io
import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from PIL import Image

from pamola_dwriter import open_artifact

SEALED = ".pdw"

_OF_A_RUN = (
    re.compile(r"\d{8}_\d{6}(_\d{6})?"),
    re.compile(r"20[2-9]\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{3,6}([+-]\d\d:\d\d)?"),
    re.compile(r"(?<=Operation_)[0-9a-f]{32}"),  # a cache key, which some make of the time
)


def timeless(text: str) -> str:
    """Return `text` with every moment of this run replaced by one word."""
    for pattern in _OF_A_RUN:
        text = pattern.sub("TIME", text)
    return text


def contents(root: Path, key: str | None = None) -> dict[str, Any]:
    """Return the content of every file below `root` by its name, and every empty folder."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = timeless(path.relative_to(root).as_posix())
        if path.is_dir():
            if not any(path.iterdir()):
                found[f"{name}/"] = "empty"
        else:
            found[name] = _content(path, root, key)
    return found


def _content(path: Path, root: Path, key: str | None) -> Any:
    stored = path.read_bytes()
    data, protection = _opened(path, stored, key)
    suffix = Path(path.name.removesuffix(SEALED)).suffix
    value = _READERS.get(suffix, _read_text)(data)
    return _without(root, {"protection": protection, "content": value})


def _opened(path: Path, stored: bytes, key: str | None) -> tuple[bytes, str]:
    if key is None:
        return stored, "none"
    if path.name.endswith(SEALED):
        with open_artifact(path, encryption_key=key) as file:
            return file.read(), "sealed"
    if stored.startswith(b'{"mode": "simple"'):
        return open_simple(stored, key), "simple"
    return stored, "none"


def open_simple(stored: bytes, passphrase: str) -> bytes:
    """Decrypt what the reference writes in its mode ``simple``, without the reference.

    AES-256-GCM over the whole file, without associated data, under PBKDF2-HMAC-SHA256 of the
    passphrase; salt, nonce and ciphertext stand in base64 in a JSON object.
    """
    sealed = json.loads(stored)
    salt, nonce, data = (b64decode(sealed[name]) for name in ("salt", "iv", "data"))
    key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, sealed["iterations"], 32)
    return AESGCM(key).decrypt(nonce, data, None)


def _read_csv(data: bytes) -> Any:
    typed = pd.read_csv(io.BytesIO(data))
    cells = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    return {
        "rows": len(cells),
        "types": {name: str(kind) for name, kind in typed.dtypes.items()},
        "cells": {name: cells[name].to_list() for name in cells},
        "values": {name: typed[name].to_list() for name in typed},
    }


def _read_parquet(data: bytes) -> Any:
    table = pq.read_table(pa.BufferReader(data))
    return {
        "rows": table.num_rows,
        "types": {field.name: str(field.type) for field in table.schema},
        "values": table.to_pydict(),
        "frame": {
            str(name): column.to_list()
            for name, column in table.to_pandas().reset_index(drop=True).items()
        },
    }


def _read_image(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        lowest, highest = image.convert("L").getextrema()
        return {"image": image.format, "drawn": lowest != highest}


def _read_json_lines(data: bytes) -> Any:
    return [json.loads(line) for line in data.splitlines()]


def _read_text(data: bytes) -> str:
    return data.decode(errors="replace")


_READERS: dict[str, Callable[[bytes], Any]] = {
    ".csv": _read_csv,
    ".json": json.loads,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
    ".png": _read_image,
}


def _without(root: Path, value: Any) -> Any:
    """Return `value` with what belongs to this run alone, its folder and moments, taken out."""
    if isinstance(value, Mapping):
        return {timeless(str(name)): _without(root, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without(root, one) for one in value]
    if isinstance(value, str):
        return timeless(value.replace(str(root), "TASK"))
    return value
