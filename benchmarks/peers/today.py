"""What people do today: ``to_parquet``, then encrypt every file and delete the plain one."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.peers.peer import SUM, Guarantees, Peer, Task, Write, engine

_KEY = bytes(range(32))
_NONCE_BYTES = 12

Seal = Callable[[bytes], bytes]
"""Encrypts a whole file, or decrypts it."""


def _aes(data: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(_KEY).encrypt(nonce, data, None)


def _open_aes(data: bytes) -> bytes:
    return AESGCM(_KEY).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None)


@cache
def _identity() -> Any:
    return engine("pyrage").x25519.Identity.generate()


def _age(recipient: str, data: bytes) -> bytes:
    """Encrypt to a recipient named by text, since workers cannot be sent the object."""
    pyrage = engine("pyrage")
    sealed: bytes = pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(recipient)])
    return sealed


def _open_age(data: bytes) -> bytes:
    plain: bytes = engine("pyrage").decrypt(data, [_identity()])
    return plain


def seal_file(plain: Path, seal: Seal) -> None:
    """Encrypt a file beside itself, on the worker, and delete it."""
    plain.with_name(f"{plain.name}.enc").write_bytes(seal(plain.read_bytes()))
    plain.unlink()


def _opening(prepare: Callable[[], Seal]) -> Callable[[Task], AbstractContextManager[Write]]:
    @contextmanager
    def opened(task: Task) -> Iterator[Write]:
        seal = prepare()

        def write(folder: Path) -> None:
            task.frame.to_parquet(str(folder), compression="zstd")
            sealing = dask.delayed(seal_file)
            dask.compute(*(sealing(file, seal) for file in folder.glob("*.parquet")))

        yield write

    return opened


def _reading(unseal: Seal) -> Callable[[Path], Iterator[pa.Table]]:
    def read(folder: Path) -> Iterator[pa.Table]:
        for file in sorted(folder.glob("*.enc")):
            yield pq.read_table(io.BytesIO(unseal(file.read_bytes())), columns=[SUM])

    return read


def _guarantees(encrypted: str) -> Guarantees:
    return Guarantees(
        atomic="no: plain files are visible first, encrypted ones appear one by one",
        encrypted=encrypted,
        checksummed="partly: a changed file does not decrypt, a dropped or swapped one is not seen",
        retried="no: a run that died leaves plain and encrypted files mixed",
    )


AES = Peer(
    setup="`to_parquet` as above, then AES-256-GCM of `cryptography` over each whole file on the "
    "workers, then the plain file is deleted",
    guarantees=_guarantees("partly: plain bytes reach the disk first, one key for all files"),
    open=_opening(lambda: _aes),
    read=_reading(_open_aes),
    package="cryptography",
)
AGE = Peer(
    setup="the same with age (X25519 recipient) of `pyrage`",
    guarantees=_guarantees("partly: plain bytes reach the disk first"),
    open=_opening(lambda: partial(_age, str(_identity().to_public()))),
    read=_reading(_open_age),
    package="pyrage",
    module="pyrage",
)
