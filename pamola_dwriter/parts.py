"""Reading one stored part back, on whichever worker does it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import pandas as pd
import pyarrow as pa

from pamola_dwriter import envelope, formats, layout, manifest, sealing, storage
from pamola_dwriter.contracts import Store
from pamola_dwriter.dataset import names_write
from pamola_dwriter.encryption import ParquetColumns
from pamola_dwriter.envelope import agefile
from pamola_dwriter.errors import (
    DataReadError,
    DatasetReplacedError,
    IntegrityError,
    MissingKeyError,
    PamolaWriterError,
    TargetUnavailableError,
    UnsupportedVersionError,
)
from pamola_dwriter.formats.parquet import read_parquet
from pamola_dwriter.formats.parquet_encryption import load_encrypted
from pamola_dwriter.keys.age import dataset_identity
from pamola_dwriter.spec import FormatSpec, PartRecord, Redacted, Sealing, Tuning, WriteId

_UNFIT = (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What comes of parsing a file, or restoring a frame, that is not what was written."""

_STRIDE = 64 * 2**20
"""Bytes hashed at a time when a part is verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSource:
    """What a worker needs to read any part of one dataset."""

    root: str
    storage_options: Redacted
    tuning: Tuning
    write_id: WriteId
    format: FormatSpec
    schema: pa.Schema
    frame: Mapping[str, Any]
    partition_on: tuple[str, ...]
    sealing: Sealing | None
    parquet: ParquetColumns | None = None

    def store(self) -> Store:
        """Open the store whose root is the dataset itself."""
        return storage.open_store(self.root, self.storage_options, self.tuning)

    def check_opened(self, columns: Sequence[str] | None) -> None:
        """Raise MissingKeyError, naming them, if some of the `columns` need a key not given."""
        if self.parquet is None:
            return
        held = self.sealing.parquet if self.sealing else None
        stored = formats.stored_columns(self.frame, columns)
        if locked := self.parquet.locked(stored, list(held.column_keys) if held else []):
            given = "the key given does not open" if held else "no key was given for"
            raise MissingKeyError(
                f"{given} the column(s) {', '.join(locked)} of {self.root}; give one that does as "
                "encryption_key, or name the other columns"
            )


def load_part(
    part: PartRecord, source: PartSource, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read one part as a frame, or only its `columns`.

    Raises
    ------
    IntegrityError
        The part is missing, or is not what was written.
    DatasetReplacedError
        It is missing because the dataset was overwritten.
    """
    stored = formats.stored_columns(source.frame, columns)
    hive = dict(part.values)
    inside = [name for name in stored if name not in hive]
    schema = pa.schema([f for f in source.schema if f.name not in hive], source.schema.metadata)
    with naming_part(part, source):
        table = _load_table(part, source, schema, inside)
        if inside and table.num_rows != part.rows:
            raise IntegrityError(f"it has {table.num_rows} rows, not the {part.rows} written")
        for name in stored:
            if name in hive:
                field = source.schema.field(name)
                column = formats.from_text(hive[name], field.type, part.rows)
                table = table.append_column(field, column)
    with naming_manifest():
        return formats.to_pandas(table, source.frame, columns)


def load_index(part: PartRecord, source: PartSource) -> pd.DataFrame:
    """Read only the index of one part, as a frame without columns."""
    return load_part(part, source, [])


def open_part(source: PartSource, part: PartRecord, *, ranged: bool) -> BinaryIO:
    """Open the plain bytes of a part, as a seekable file.

    Parameters
    ----------
    ranged : bool
        Fetch only the byte ranges that are read; else fetch the part whole, at once, as an age
        file always is.
    """
    store = source.store()
    if source.parquet is not None:
        return io.BytesIO(_decrypted_parquet(source, part))
    if source.sealing is None:
        return store.open(part.path) if ranged else io.BytesIO(store.read(part.path))
    if source.sealing.age_recipients:
        return io.BytesIO(_decrypted(part, source.sealing, store.read(part.path)))
    read = partial(store.read, part.path)
    if ranged:  # in large pieces, which no buffer shall copy
        return cast("BinaryIO", _unsealed(source, part, read))
    return io.BufferedReader(_unsealed(source, part, partial(_slice, read())))


@contextmanager
def naming_manifest() -> Iterator[None]:
    """Turn what a frame description that nobody wrote leads to into an IntegrityError."""
    try:
        yield
    except PamolaWriterError:
        raise
    except _UNFIT as error:
        raise IntegrityError(
            f"the manifest is damaged: its schema and frame do not fit ({type(error).__name__})"
        ) from None


@contextmanager
def naming_part(part: PartRecord, source: PartSource) -> Iterator[None]:
    """Turn whatever goes wrong with the bytes of a part into an IntegrityError that names it.

    A part that is gone together with its version is a DatasetReplacedError. The parser's own
    error is not chained: it may quote a value.
    """
    try:
        yield
    except IntegrityError as error:
        raise IntegrityError(f"part {part.path}: {error}", part=part.path) from None
    except FileNotFoundError:
        raise _missing(part, source) from None
    except UnsupportedVersionError as error:
        error.say_first(f"part {part.path}")
        raise
    except TargetUnavailableError:
        # An object store may refuse a range that a part which was cut no longer has.
        if source.store().size(part.path) == part.size_bytes:
            raise
        raise IntegrityError(f"part {part.path} was truncated", part=part.path) from None
    except PamolaWriterError:
        raise
    except (*_UNFIT, OSError):
        raise IntegrityError(f"part {part.path} cannot be parsed", part=part.path) from None


def check_part(part: PartRecord, source: PartSource) -> str | None:
    """Compare one stored part with its record; return what is wrong, or None.

    Raises
    ------
    DatasetReplacedError
        It is missing because the dataset was overwritten.
    """
    store = source.store()
    try:
        size = store.size(part.path)
        if size != part.size_bytes:
            return f"part {part.path} has {size} bytes, not the {part.size_bytes} written"
        digest = hashlib.sha256()
        for start in range(0, size, _STRIDE):
            digest.update(store.read(part.path, start, min(start + _STRIDE, size)))
    except FileNotFoundError:
        missing = _missing(part, source)
        if isinstance(missing, DatasetReplacedError):
            raise missing from None
        return str(missing)
    if digest.hexdigest() != part.sha256:
        return f"part {part.path} was altered: its SHA-256 differs"
    return None


def _missing(part: PartRecord, source: PartSource) -> DataReadError:
    """Tell a part that was lost from one that went with the version it belonged to."""
    if names_write(source.store(), "", _made_by(part, source)):
        return IntegrityError(f"part {part.path} is missing", part=part.path)
    return DatasetReplacedError(
        f"{source.root} was overwritten while it was being read, and the parts of the version "
        "read are gone. Read it again; or set retain-seconds where it is written, so that they "
        "stay for as long as a read may take"
    )


def _made_by(part: PartRecord, source: PartSource) -> WriteId:
    """Return the write of a part, which need not be the last one that was appended."""
    return layout.write_id_of(part.path) or source.write_id


def _unsealed(source: PartSource, part: PartRecord, read: Any) -> envelope.SealedReader:
    if source.sealing is None:
        raise IntegrityError("a plain dataset has no sealed parts")
    header = envelope.read_header(read)
    expect = manifest.sealed_header(_made_by(part, source), "part", part.path)
    header.check(expect | {"partition": part.partition})
    bounded = partial(_to_the_end, read, part.size_bytes)
    # Not kept in a variable, which an error report may show.
    return envelope.SealedReader(
        bounded, part.size_bytes, sealing.open_sealing(source.sealing), header
    )


def _decrypted(part: PartRecord, used: Sealing, data: bytes) -> bytes:
    # Only the digest in the sealed manifest tells whether an age file is the one written here.
    return agefile.decrypt(_intact(part, data), dataset_identity(sealing.open_sealing(used)))


def _intact(part: PartRecord, data: bytes) -> bytes:
    """Return the bytes of a part; IntegrityError if they are not those that were written."""
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise IntegrityError("it was altered: its SHA-256 differs")
    return data


def _to_the_end(read: Any, size: int, start: int, end: int) -> bytes:
    # One byte more where the part should end, so that what was added to it is seen.
    return bytes(read(start, end + 1 if end == size else end))


def _load_table(
    part: PartRecord, source: PartSource, schema: pa.Schema, columns: Sequence[str]
) -> pa.Table:
    if source.parquet is not None:
        return _load_parquet(source, part, schema, columns)
    serializer = formats.get(source.format.name)
    with open_part(source, part, ranged=serializer.columnar) as file:
        return serializer.load(file, schema, columns, source.format)


def _load_parquet(
    source: PartSource, part: PartRecord, schema: pa.Schema, columns: Sequence[str]
) -> pa.Table:
    """Read `columns` of a Parquet file that is encrypted inside; without keys, plain ones."""
    used, store = source.sealing, source.store()
    if used is None or used.parquet is None:
        with store.open(part.path) as file:
            return read_parquet(file, schema, columns)
    lock = sealing.part_lock(used.parquet, used, _made_by(part, source), part.path)
    # Columns without a key have no other protection, and pyarrow can crash on an altered file.
    with io.BytesIO(_intact(part, store.read(part.path))) as file:
        return load_encrypted(file, schema, columns, lock)


def _decrypted_parquet(source: PartSource, part: PartRecord) -> memoryview:
    """Return a Parquet file that is encrypted inside as a plain one."""
    source.check_opened(None)
    hive = dict(part.values)
    schema = pa.schema([f for f in source.schema if f.name not in hive], source.schema.metadata)
    table = _load_parquet(source, part, schema, schema.names)
    return memoryview(formats.get(source.format.name).dumps(table, source.format))


def _slice(data: bytes, start: int | None, end: int | None) -> bytes:
    return data[start:end]
