"""Reading back, verifying and decrypting what a writer committed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import dask.base
import dask.dataframe as dd
from dask.delayed import delayed
from distributed import Client

from pamola_dwriter import envelope, formats, keys, layout, manifest, storage
from pamola_dwriter.cluster import current_client
from pamola_dwriter.contracts import Store
from pamola_dwriter.dataset import Committed, open_committed
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    MissingKeyError,
    TargetNotFoundError,
)
from pamola_dwriter.manifest import Envelope
from pamola_dwriter.parts import PartSource, check_part, load_part, open_part
from pamola_dwriter.paths import PathLike, resolve_path
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Sealing, WriteId
from pamola_dwriter.transit import choose_sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What :func:`verify` found in order."""

    write_id: WriteId
    parts: int
    rows: int
    size_bytes: int
    encrypted: bool
    checksum: str


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
        As given to the writer; required if the dataset is encrypted, refused if it is not.
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
    """
    committed, source = _open(path, encryption_key, storage_options, client)
    chosen = None if columns is None else list(columns)
    formats.stored_columns(source.frame, chosen)
    meta = formats.empty_meta(source.schema, source.frame, chosen)
    frame: dd.DataFrame
    if committed.parts:
        frame = dd.from_map(load_part, committed.parts, source=source, columns=chosen, meta=meta)
    else:
        frame = dd.from_pandas(meta, npartitions=1)
    return frame


def verify(
    path: PathLike,
    *,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
) -> VerifyReport:
    """Check every part of a dataset against its manifest, on the workers.

    Raises
    ------
    IntegrityError
        A part is altered, missing or not listed; the message names each, up to ten.
    TargetNotFoundError, EncryptionKeyError
        As :func:`read_dataset`.
    """
    committed, source = _open(path, encryption_key, storage_options, client)
    known = {part.path for part in committed.parts} | committed.special_files
    extra = [
        f"{file} is not listed in the manifest"
        for file in source.store().listdir("")
        if file not in known and not file.startswith(layout.MANIFEST)
    ]
    check = delayed(check_part, pure=False)
    tasks = [check(part, source) for part in committed.parts]
    runner = current_client(client)
    compute: Any = dask.base.compute  # not annotated in Dask
    found = compute(*tasks, scheduler=runner or "threads")
    if wrong := [problem for problem in found if problem] + extra:
        raise IntegrityError(
            f"{len(wrong)} problem(s) in {source.root}: " + "; ".join(wrong[:10]),
        )
    totals = committed.manifest.totals
    return VerifyReport(
        write_id=source.write_id,
        parts=totals["parts"],
        rows=totals["rows"],
        size_bytes=totals["bytes"],
        encrypted=source.sealing is not None,
        checksum=manifest.checksum(committed.stored),
    )


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
    root, options = resolve_path(path, storage_options)
    folder, _, name = root.rpartition("/")
    store = storage.open_store(folder, options, Settings.load().upload_part_size)
    try:
        size = store.size(name)
        sealed = store.read(name, 0, min(size, len(envelope.MAGIC))) == envelope.MAGIC
    except (FileNotFoundError, IsADirectoryError):
        raise TargetNotFoundError(f"there is no file at {root}") from None
    if not sealed:
        _refuse_downgrade(root, encryption_key)
        return store.open(name)
    read = partial(store.read, name)
    header = envelope.read_header(read)
    key = _artifact_key(root, header.fields, encryption_key)
    return io.BufferedReader(envelope.SealedReader(read, size, key, header))


def decrypt(
    path: PathLike,
    destination: str | os.PathLike[str],
    *,
    encryption_key: Any,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Copy an encrypted dataset or single file to plain local files.

    Parameters
    ----------
    destination : str or pathlib.Path
        A local directory (for a dataset) or file that does not exist yet.

    Returns
    -------
    list of pathlib.Path
        The files made, with the names and hive folders a plain write would have.

    Raises
    ------
    DataReadError
        `destination` exists, or the source cannot be read.
    """
    target = Path(destination)
    if target.exists():
        raise DataReadError(f"{target} exists; choose a destination that does not")
    options = {"encryption_key": encryption_key, "storage_options": storage_options}
    if not _is_dataset(path, storage_options):
        return [_copy(open_artifact(path, **options), target)]
    committed, source = _open(path, encryption_key, storage_options, None)
    made = []
    for part in committed.parts:
        name = part.path.removesuffix(f".{layout.SEALED_EXTENSION}").rpartition("/")[2]
        file = target / layout.join(layout.hive_directory(part.values), name)
        made.append(_copy(open_part(source, part, ranged=True), file))
    return made


def describe(
    path: PathLike,
    *,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a dataset's manifest says; without a key, what an encrypted one shows."""
    root, store, shown, stored = _find(path, storage_options)
    facts: dict[str, Any] = {
        "path": root,
        "write_id": shown.write_id,
        "encrypted": shown.sealed is not None,
        "checksum": manifest.checksum(stored),
        "keys": [{"method": key["method"], "key_id": key["key_id"]} for key in shown.wrapped],
    }
    if shown.sealed is not None and encryption_key is None:
        return facts
    committed = _commit(root, store, stored, encryption_key)
    document = committed.manifest
    return facts | {
        "created": document.created.isoformat(),
        "format": document.format.name,
        "compression": document.format.compression,
        "columns": {field.name: str(field.type) for field in document.schema},
        "partition_on": list(document.partition_on),
        "producer": dict(document.producer),
        **document.totals,
    }


def _find(
    path: PathLike, storage_options: Mapping[str, Any] | None
) -> tuple[str, Store, Envelope, bytes]:
    root, options = resolve_path(path, storage_options)
    store = storage.open_store(root, options, Settings.load().upload_part_size)
    try:
        present = store.read_versioned(layout.MANIFEST)
    except NotADirectoryError:
        present = None
    if present is None:
        raise TargetNotFoundError(
            f"there is no dataset at {root}: it has no {layout.MANIFEST}. "
            "A single file is opened with open_artifact"
        )
    return root, store, manifest.parse_envelope(present.data), present.data


def _is_dataset(path: PathLike, storage_options: Mapping[str, Any] | None) -> bool:
    try:
        _find(path, storage_options)
    except TargetNotFoundError:
        return False
    return True


def _commit(root: str, store: Store, stored: bytes, encryption_key: Any) -> Committed:
    def find_key(shown: Envelope) -> bytes:
        if encryption_key is None:
            raise MissingKeyError(f"{root} is encrypted; give its encryption_key")
        wrapped = [keys.wrapped_from_json(key) for key in shown.wrapped]
        context = manifest.key_context(shown.write_id)
        return keys.unwrap_any(keys.resolve(encryption_key), wrapped, context)

    committed = open_committed(store, "", stored, find_key)
    if committed.key is None:
        _refuse_downgrade(root, encryption_key)
    return committed


def _open(
    path: PathLike,
    encryption_key: Any,
    storage_options: Mapping[str, Any] | None,
    client: Client | None,
) -> tuple[Committed, PartSource]:
    root, store, shown, stored = _find(path, storage_options)
    committed = _commit(root, store, stored, encryption_key)
    document = committed.manifest
    return committed, PartSource(
        root=root,
        storage_options=resolve_path(path, storage_options)[1],
        upload_part_size=Settings.load().upload_part_size,
        write_id=document.write_id,
        format=document.format,
        schema=document.schema,
        frame=document.frame,
        partition_on=document.partition_on,
        sealing=_sealing(committed, shown, encryption_key, current_client(client)),
    )


def _sealing(
    committed: Committed, shown: Envelope, encryption_key: Any, client: Client | None
) -> Sealing | None:
    if committed.key is None:
        return None
    wrapped = tuple(keys.wrapped_from_json(key) for key in shown.wrapped)
    providers = keys.resolve(encryption_key)
    return choose_sealing(client, providers, wrapped, committed.key.reveal(), shown.write_id)


def _refuse_downgrade(root: str, encryption_key: Any) -> None:
    if encryption_key is not None:
        raise IntegrityError(
            f"{root} is not encrypted, though a key was given: it is not what was written "
            "with that key. Leave encryption_key out to read it all the same"
        )


def _artifact_key(root: str, fields: Mapping[str, Any], encryption_key: Any) -> bytes:
    if fields.get("kind") != "artifact":
        raise DataReadError(f"{root} is part of a dataset; open the dataset with read_dataset")
    if encryption_key is None:
        raise MissingKeyError(f"{root} is encrypted; give its encryption_key")
    try:
        wrapped = [keys.wrapped_from_json(key) for key in fields["keys"]]
        context = manifest.key_context(WriteId(fields["write_id"]))
    except (KeyError, TypeError):
        raise IntegrityError(f"the header of {root} is damaged") from None
    return keys.unwrap_any(keys.resolve(encryption_key), wrapped, context)


def _copy(file: BinaryIO, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"_{target.name}.tmp")
    try:
        with file, temporary.open("xb") as copy:
            while block := file.read(2**24):
                copy.write(block)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
