"""Read back what a writer committed."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import dask
import dask.dataframe as dd
from distributed import Client

from pamola_dwriter import formats, keys, layout
from pamola_dwriter.columnkeys import open_columns
from pamola_dwriter.envelope import footer_key, simplefile
from pamola_dwriter.errors import (
    DataReadError,
    InvalidTargetError,
    MissingKeyError,
    TargetExistsError,
)
from pamola_dwriter.opening import Artifact, Dataset, find, find_artifact, find_dataset
from pamola_dwriter.parts import load_index, load_part, naming_manifest, naming_part, open_part
from pamola_dwriter.paths import PathLike


def read_dataset(
    path: PathLike,
    columns: Sequence[str] | None = None,
    *,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
) -> dd.DataFrame:
    """Open a dataset as a Dask DataFrame that is read, and decrypted, on the workers.

    Parameters
    ----------
    path : str, pathlib.Path or upath.UPath
        The dataset directory: ``WriterResult.path``.
    columns : sequence of str, optional
        Columns to read; of Parquet only their byte ranges are fetched. A later projection of
        the frame has the same effect.
    encryption_key : optional
        As given to the writer; required if the dataset is encrypted, refused if it is not. Of one
        written with :class:`~pamola_dwriter.ParquetEncryption`, only for the columns that have
        a key.
    storage_options : mapping, optional
        Passed to the fsspec file system.
    client : distributed.Client, optional
        Cluster that will compute the frame; default the current one.

    Returns
    -------
    dask.dataframe.DataFrame
        One partition per part, with the index, dtypes and categories that were written.

    Raises
    ------
    TargetNotFoundError
        There is no dataset at `path`.
    EncryptionKeyError
        The key is missing or wrong, or would travel in the clear.
    IntegrityError
        The manifest, now, or a part, when computed, is not what was written.
    DatasetReplacedError
        When computed: the dataset was overwritten since, and its parts were removed.
    """
    dataset = find_dataset(path, storage_options)
    committed = dataset.open(encryption_key)
    source = dataset.source(committed, encryption_key, client)
    chosen = None if columns is None else list(columns)
    formats.stored_columns(source.frame, chosen)
    source.check_opened(chosen)
    with naming_manifest():
        meta = formats.empty_meta(source.schema, source.frame, chosen)
    selected = {"columns": chosen} if chosen else {}
    # Dask would make text of every object column: of decimals, dates and lists too.
    with dask.config.set({"dataframe.convert-string": False}):
        if not committed.parts:
            return _typed(dd.from_pandas(meta, npartitions=1))
        load = load_index if chosen == [] else load_part  # Dask takes [] for all columns
        return _typed(dd.from_map(load, committed.parts, source=source, meta=meta, **selected))


def _typed(frame: dd.DataFrame) -> dd.DataFrame:
    return frame  # Dask's constructors are not annotated


def open_parquet_keys(
    path: PathLike,
    *,
    encryption_key: Any,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the keys that the Parquet files of a dataset are encrypted under, by their name.

    They are for tools that read the files without this package. Each key in a file is wrapped
    under one of these, as base64 of a 12-byte nonce and AES-256-GCM ciphertext; the associated
    data are ``pamola_dwriter.dataset:WRITE_ID:KEY_NAME:PART``, with the path of the file in the
    dataset and the write id in its name. Whoever holds a key reads what is under it, also after
    a rotation: keep them in memory.

    Returns
    -------
    dict of str to bytes
        Those that `encryption_key` opens, 32 bytes each; that of the footer among them, as
        ``footer`` if it has no name.

    Raises
    ------
    DataReadError
        It was not written with :class:`~pamola_dwriter.ParquetEncryption`.
    MissingKeyError, WrongKeyError, TargetNotFoundError, IntegrityError
        As :func:`read_dataset`.
    """
    dataset = find_dataset(path, storage_options)
    committed = dataset.open(encryption_key)
    columns = committed.manifest.parquet
    if columns is None:
        raise DataReadError(f"{dataset.root} was not written with ParquetEncryption")
    if committed.key is None:
        raise MissingKeyError(f"{dataset.root} is encrypted; give its encryption_key")
    opened = open_columns(committed, keys.resolve(encryption_key))
    held = {name: key.value for name, key in opened.items()}
    return {columns.footer_key: footer_key(committed.key.reveal()), **held}


def open_artifact(
    path: PathLike,
    *,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> BinaryIO:
    """Open the plain bytes of a single-file output, as a seekable binary file.

    Raises
    ------
    TargetNotFoundError
        There is no such file.
    MissingKeyError, WrongKeyError
        It is encrypted and the key is missing or wrong.
    IntegrityError
        A key is given and the file is not encrypted; or, when read, it was altered.
    """
    return find_artifact(path, storage_options).open(encryption_key)


def decrypt(
    path: PathLike,
    destination: str | os.PathLike[str],
    *,
    encryption_key: Any,
    storage_options: Mapping[str, Any] | None = None,
    legacy_simple: bool = False,
) -> list[Path]:
    """Copy an encrypted dataset or single file to plain local files, all of them or none.

    Parameters
    ----------
    destination : str or pathlib.Path
        A local directory (for a dataset) or file that does not exist yet.
    legacy_simple : bool
        `path` is a file that pamola-core wrote in its mode ``simple``, and `encryption_key` the
        very text that it was given as key, or where that is (``env:NAME``, ``file:PATH``).

    Returns
    -------
    list of pathlib.Path
        The files made, with the names and hive folders a plain write would have.

    Raises
    ------
    TargetExistsError
        `destination` exists.
    IntegrityError
        A part is not what was written; nothing stands at `destination`.
    DatasetReplacedError
        The dataset was overwritten meanwhile; nothing stands at `destination`.
    """
    target = Path(destination)
    if target.exists():
        raise TargetExistsError(f"{target} exists; choose a destination that does not")
    found = find(path, storage_options)
    building = target.with_name(f"_{target.name}.{token_hex(4)}.tmp")
    try:
        if isinstance(found, Artifact):
            open_file = _open_simple if legacy_simple else Artifact.open
            _copy(open_file(found, encryption_key), building)
            names = [""]
        elif legacy_simple:
            raise InvalidTargetError(f"{found.root} is a dataset; pamola-core wrote single files")
        else:
            names = _copy_parts(found, encryption_key, building)
        building.replace(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if building.is_file():
            building.unlink()
    return [target / name for name in names]


def _open_simple(artifact: Artifact, encryption_key: Any) -> BinaryIO:
    stored = artifact.store.read(artifact.name)
    return io.BytesIO(simplefile.open_simple(stored, keys.password_bytes(encryption_key)))


def _copy_parts(dataset: Dataset, encryption_key: Any, folder: Path) -> list[str]:
    committed = dataset.open(encryption_key)
    source = dataset.source(committed, encryption_key, None)
    folder.mkdir(parents=True)
    names = []
    for part in committed.parts:
        name = layout.plain_name(part.path).rpartition("/")[2]
        names.append(layout.join(layout.hive_directory(part.values), name))
        with naming_part(part, source):
            _copy(open_part(source, part, ranged=True), folder / names[-1])
    return names


def _copy(file: BinaryIO, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy, 2**24)
