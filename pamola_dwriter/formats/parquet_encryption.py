"""Encrypted Parquet through pyarrow's key tools, whose objects are made where they are used.

pyarrow takes an AAD prefix with one key for a whole file only, and DuckDB takes none at all. So
the place of a file is bound to the keys inside it: each is random, and its wrapped form, which
the file holds, opens for that place alone (:mod:`pamola_dwriter.envelope.datakeys`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow.parquet import encryption as parquet_encryption

from pamola_dwriter.encryption import ParquetColumns
from pamola_dwriter.errors import DataReadError, IntegrityError, InvalidWriteError
from pamola_dwriter.formats.parquet import read_parquet, write_parquet
from pamola_dwriter.spec import FormatSpec

OLDEST_PYARROW = 26
"""Older ones cannot read some columns of a file without the keys of the others."""

_BITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLock:
    """How one file is encrypted: its columns, and functions that wrap keys for its place.

    Both functions take a key, or its wrapped form, and the name of the key to wrap it under.
    """

    layout: ParquetColumns
    wrap: Callable[[bytes, str], str]
    unwrap: Callable[[Any, str], bytes]


class _Kms(parquet_encryption.KmsClient):  # type: ignore[misc]  # pyarrow is not annotated
    """Wraps the keys of a file as its lock says."""

    def __init__(self, lock: FileLock) -> None:
        super().__init__()
        self._lock = lock
        self.used: set[str] = set()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        return self._lock.wrap(key_bytes, master_key_identifier)

    def unwrap_key(self, wrapped_key: Any, master_key_identifier: str) -> bytes:
        data_key = self._lock.unwrap(wrapped_key, master_key_identifier)
        self.used.add(master_key_identifier)
        return data_key


def is_supported() -> bool:
    """Return whether this process has a pyarrow that reads what is written here."""
    return int(pa.__version__.partition(".")[0]) >= OLDEST_PYARROW


def check_supported() -> None:
    """Raise InvalidWriteError, naming the version that is needed, if pyarrow is too old."""
    if not is_supported():
        raise InvalidWriteError(
            f"ParquetEncryption needs pyarrow {OLDEST_PYARROW} or newer, here and on the workers; "
            f"this is {pa.__version__}"
        )


def dumps_encrypted(table: pa.Table, spec: FormatSpec, lock: FileLock) -> pa.Buffer:
    """Return the bytes of one encrypted file holding `table`."""
    check_supported()
    layout = lock.layout
    master_keys = {name: list(columns) for name, columns in layout.columns.items()}
    named = {column for columns in master_keys.values() for column in columns}
    rest = [name for name in table.column_names if name not in named]
    if layout.footer is not None and master_keys and rest:
        master_keys[layout.footer] = rest  # to Parquet, they would be plain
    configuration = parquet_encryption.EncryptionConfiguration(
        footer_key=layout.footer_key,
        plaintext_footer=layout.footer is None,
        double_wrapping=False,
        data_key_length_bits=_BITS,
        **({"column_keys": master_keys} if master_keys else {"uniform_encryption": True}),
    )
    factory = parquet_encryption.CryptoFactory(lambda _: _Kms(lock))
    connection = parquet_encryption.KmsConnectionConfig()
    properties = factory.file_encryption_properties(connection, configuration)
    return write_parquet(table, spec, properties)


def load_encrypted(
    file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, lock: FileLock
) -> pa.Table:
    """Return a table with exactly `schema` (or its `columns`) from an encrypted file.

    Raises
    ------
    IntegrityError
        A key in the file does not belong there, or what has a key is not encrypted at all:
        pyarrow would take that as it is.
    """
    if not is_supported():
        raise DataReadError(f"reading this needs pyarrow {OLDEST_PYARROW} or newer")
    kms = _Kms(lock)
    factory = parquet_encryption.CryptoFactory(lambda _: kms)
    connection = parquet_encryption.KmsConnectionConfig()
    properties = factory.file_decryption_properties(connection)
    table = read_parquet(file, schema, columns, properties)
    needed = {lock.layout.footer_key}
    if table.num_rows:  # else there is no column chunk that would ask for its key
        needed |= lock.layout.key_names(table.column_names)
    if not needed <= kms.used:
        raise IntegrityError("it is not encrypted as it was written")
    return table
