"""Say what stands at a path, and whether it is what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.base
from dask.delayed import delayed
from distributed import Client

from pamola_dwriter import layout, manifest
from pamola_dwriter.cluster import current_client
from pamola_dwriter.columnkeys import wrapped_columns
from pamola_dwriter.dataset import Committed
from pamola_dwriter.errors import DataReadError, DatasetReplacedError, IntegrityError
from pamola_dwriter.opening import Artifact, Dataset, find
from pamola_dwriter.parts import check_part
from pamola_dwriter.paths import PathLike
from pamola_dwriter.spec import WriteId

_BLOCK = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What :func:`verify` found in order.

    Attributes
    ----------
    rows : int or None
        None for a single file, which does not say.
    """

    write_id: WriteId | None
    parts: int
    rows: int | None
    size_bytes: int
    encrypted: bool
    checksum: str


def verify(
    path: PathLike,
    *,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
) -> VerifyReport:
    """Check every part of a dataset against its manifest, on the workers.

    An encrypted single file is read to its end, which authenticates it. Parts of a version that
    was replaced, and that are retained for reads that go on (``retain-seconds``), are in order.

    Raises
    ------
    IntegrityError
        A part is altered, missing or not listed; the message names each, up to ten.
    DatasetReplacedError
        Another version was committed meanwhile, so that they could not be told apart.
    DataReadError
        It is a plain single file, which has nothing to be checked against.
    TargetNotFoundError, EncryptionKeyError
        As :func:`~pamola_dwriter.reader.read_dataset`.
    """
    found = find(path, storage_options)
    if isinstance(found, Artifact):
        return _verify_artifact(found, encryption_key)
    return _verify_dataset(found, encryption_key, client)


def describe(
    path: PathLike,
    *,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a dataset or single file says of itself, JSON-ready.

    Without its key an encrypted one says little: the writes that it consists of, the last of which
    gives it its id, and which keys open it.
    """
    found = find(path, storage_options)
    facts: dict[str, Any] = {
        "path": found.root,
        "keys": [{"method": key.method, "key_id": key.key_id} for key in found.wrapped],
    }
    if isinstance(found, Dataset) and found.shown.column_keys:
        facts["column_keys"] = {
            name: [{"method": key.method, "key_id": key.key_id} for key in wrapped]
            for name, wrapped in wrapped_columns(found.shown).items()
        }
    if isinstance(found, Artifact):
        facts |= {"encrypted": found.encrypted, "size_bytes": found.size}
        return facts | ({} if found.write_id is None else {"write_id": found.write_id})
    return facts | _describe_dataset(found, encryption_key)


def _describe_dataset(dataset: Dataset, encryption_key: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "write_id": dataset.shown.write_id,
        "writes": list(dataset.shown.writes),
        "encrypted": dataset.shown.encrypted,
        "checksum": manifest.checksum(dataset.stored),
    }
    if dataset.shown.sealed is not None and encryption_key is None:
        return facts
    committed = dataset.open(encryption_key)
    document = committed.manifest
    return facts | {
        "write_id": document.write_id,
        "writes": list(document.writes),
        "checksum": manifest.checksum(committed.stored),
        "created": document.created.isoformat(),
        "format": document.format.name,
        "compression": document.format.compression,
        "columns": {field.name: str(field.type) for field in document.schema},
        "partition_on": list(document.partition_on),
        "producer": dict(document.producer),
        **document.totals,
    }


def _verify_dataset(dataset: Dataset, encryption_key: Any, client: Client | None) -> VerifyReport:
    committed = dataset.open(encryption_key)
    source = dataset.source(committed, encryption_key, client)
    extra = [f"{file} is not listed in the manifest" for file in _unlisted(dataset, committed)]
    check = delayed(check_part, pure=False)
    compute: Any = dask.base.compute  # not annotated in Dask
    tasks = [check(part, source) for part in committed.parts]
    answers = compute(*tasks, scheduler=current_client(client) or "threads")
    if wrong := [answer for answer in answers if answer] + extra:
        present = dataset.store.read_versioned(layout.MANIFEST)
        if present is None or present.data != committed.stored:
            raise DatasetReplacedError(
                f"another version of {dataset.root} was committed while this one was verified; "
                "verify it again"
            )
        raise IntegrityError(f"{len(wrong)} problem(s) in {dataset.root}: " + "; ".join(wrong[:10]))
    totals = committed.manifest.totals
    return VerifyReport(
        write_id=source.write_id,
        parts=totals["parts"],
        rows=totals["rows"],
        size_bytes=totals["bytes"],
        encrypted=committed.shown.encrypted,
        checksum=manifest.checksum(committed.stored),
    )


def _unlisted(dataset: Dataset, committed: Committed) -> list[str]:
    known = {part.path for part in committed.parts} | committed.special_files
    return [
        file
        for file in dataset.store.listdir("")
        if file not in known
        and not file.startswith(layout.MANIFEST)
        and layout.write_id_of(file) not in committed.manifest.retired
    ]


def _verify_artifact(artifact: Artifact, encryption_key: Any) -> VerifyReport:
    with artifact.open(encryption_key) as file:
        if not artifact.encrypted:
            raise DataReadError(
                f"{artifact.root} is a plain single file, with nothing beside it to be checked "
                "against; compare its SHA-256 with the checksum of its WriterResult"
            )
        while file.read(_BLOCK):
            pass
    digest = hashlib.sha256()
    for start in range(0, artifact.size, _BLOCK):
        end = min(start + _BLOCK, artifact.size)
        digest.update(artifact.store.read(artifact.name, start, end))
    return VerifyReport(
        write_id=artifact.write_id,
        parts=1,
        rows=None,
        size_bytes=artifact.size,
        encrypted=True,
        checksum=f"sha256:{digest.hexdigest()}",
    )
