"""Finalize: check what was staged, publish it, commit the manifest, sweep.

One task, safe to run twice: a second run finds its own write id in the manifest and returns
the same result. Until the manifest is written, the previous version stands.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa

from pamola_dwriter import envelope, formats, inflight, keys, layout, manifest, sealing, storage
from pamola_dwriter.contracts import Store, VersionConflict, Versioned
from pamola_dwriter.dataset import Committed, open_committed
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    TargetExistsError,
    TargetUnavailableError,
    WriteFailedError,
)
from pamola_dwriter.manifest import Manifest, PartTable
from pamola_dwriter.paths import present_path
from pamola_dwriter.spec import PartRecord, RunSpec, WriteId, WriterResult

logger = logging.getLogger(__name__)

_PRODUCERS = ("pamola_dwriter", "dask", "pandas", "pyarrow")


def finalize(
    records: dict[int, tuple[PartRecord, ...]], resolved: pa.Schema | None, spec: RunSpec
) -> WriterResult:
    """Commit a write, given the records of all its partitions and the types of open columns.

    Raises
    ------
    ConcurrentWriteError
        Another writer committed since this write was prepared.
    TargetExistsError
        A single file appeared meanwhile and ``overwrite=False``.
    CommitOutcomeUnknownError
        The store did not say whether the manifest was written; nothing was deleted.
    """
    parts = _every_partition_once(records, spec)
    store = storage.open_store(spec.target.root, spec.target.storage_options, spec.upload_part_size)
    schema = spec.schema if resolved is None else formats.resolve(spec.schema, resolved)
    with inflight.working_on(spec.write_id):
        if spec.target.single_file:
            return _commit_file(store, parts[0], spec)
        return _commit_dataset(store, parts, schema, spec)


def recover(store: Store, spec: RunSpec) -> WriterResult | None:
    """Return the result of a dataset write that committed, though its reply was lost."""
    if spec.target.single_file:
        return None
    present = store.read_versioned(_manifest_path(spec))
    if present is None or manifest.parse_envelope(present.data).write_id != spec.write_id:
        return None
    return _result(_open(store, present, spec), spec)


def _manifest_path(spec: RunSpec) -> str:
    return layout.join(spec.target.path, layout.MANIFEST)


def _every_partition_once(
    records: dict[int, tuple[PartRecord, ...]], spec: RunSpec
) -> tuple[PartRecord, ...]:
    missing = sorted(set(range(spec.partitions)) - records.keys())
    if missing or len(records) != spec.partitions:
        raise WriteFailedError(f"no record of partition(s) {missing[:10]}; nothing was committed")
    return tuple(part for _, parts in sorted(records.items()) for part in parts)


def _commit_file(store: Store, part: PartRecord, spec: RunSpec) -> WriterResult:
    try:
        store.publish({spec.target.path: part.staged}, overwrite=spec.overwrite)
    except VersionConflict:
        raise TargetExistsError(
            f"{spec.target.url} appeared while it was being written; "
            "choose another name or pass overwrite=True"
        ) from None
    _sweep(store, spec, keep=(), previous=None)
    return WriterResult(
        path=present_path(spec.target.url),
        size_bytes=part.size_bytes,
        timestamp=datetime.now(UTC),
        format=spec.format.name,
        rows=part.rows,
        partitions=1,
        write_id=spec.write_id,
        encrypted=spec.sealing is not None,
        manifest=None,
        checksum=f"sha256:{part.sha256}",
    )


def _commit_dataset(
    store: Store, parts: tuple[PartRecord, ...], schema: pa.Schema, spec: RunSpec
) -> WriterResult:
    present = store.read_versioned(_manifest_path(spec))
    previous = manifest.parse_envelope(present.data).write_id if present else None
    committed = present if previous == spec.write_id else None
    if committed is None:
        if (present.version if present else None) != spec.expected:
            raise _concurrent(spec)
        store.publish({layout.join(spec.target.path, part.path): part.staged for part in parts})
        document = _describe(store, parts, schema, spec)
        committed = _put_manifest(store, _encode(document, spec), spec)
    opened = _open(store, committed, spec)
    keep = {part.path for part in opened.parts} | opened.special_files
    _sweep(store, spec, keep=keep, previous=previous)
    return _result(opened, spec)


def _open(store: Store, present: Versioned, spec: RunSpec) -> Committed:
    return open_committed(store, spec.target.path, present.data, lambda _: _dataset_key(spec))


def _put_manifest(store: Store, data: bytes, spec: RunSpec) -> Versioned:
    """Write the manifest, or find out that it was written though the reply was lost."""
    path = _manifest_path(spec)
    failure: TargetUnavailableError | None = None
    try:
        store.put_if(path, data, spec.expected)
    except VersionConflict:
        pass  # a retry below us may have met our own manifest: only reading tells
    except TargetUnavailableError as error:
        failure = error
    try:
        present = store.read_versioned(path)
    except TargetUnavailableError as error:
        raise _unknown(spec) from error
    if present is not None and manifest.parse_envelope(present.data).write_id == spec.write_id:
        return present
    if failure is None:
        raise _concurrent(spec)
    if failure.answered:
        raise failure
    raise _unknown(spec) from failure


def _describe(
    store: Store, parts: tuple[PartRecord, ...], schema: pa.Schema, spec: RunSpec
) -> Manifest:
    table = None
    if len(parts) > spec.inline_parts:
        table = _put_part_table(store, parts, spec)
    return Manifest(
        write_id=spec.write_id,
        created=datetime.now(UTC),
        format=spec.format,
        schema=schema,
        frame=spec.frame,
        partition_on=spec.partition_on,
        totals=manifest.totals(parts),
        producer={name: version(name) for name in _PRODUCERS},
        parts=() if table else parts,
        part_table=table,
    )


def _put_part_table(store: Store, parts: tuple[PartRecord, ...], spec: RunSpec) -> PartTable:
    data = manifest.dump_parts(parts)
    name = layout.part_table_name(spec.write_id, "parquet")
    if spec.sealing is not None:
        name = f"{name}.{layout.SEALED_EXTENSION}"
        data = _seal(data, "parts", name, spec)
    store.put(layout.join(spec.target.path, name), data.to_pybytes())
    return PartTable(path=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=data.size)


def _seal(data: bytes | pa.Buffer, kind: str, path: str, spec: RunSpec) -> pa.Buffer:
    header = manifest.sealed_header(spec.write_id, kind, path)
    return envelope.seal(data, _dataset_key(spec), header)


def _dataset_key(spec: RunSpec) -> bytes:
    assert spec.sealing is not None  # noqa: S101 - only called for an encrypted write
    return sealing.open_sealing(spec.sealing, spec.write_id)


def _encode(document: Manifest, spec: RunSpec) -> bytes:
    body = manifest.dump_body(document)
    if spec.sealing is None:
        return manifest.dump_envelope(manifest.plain_envelope(spec.write_id, body))
    sealed = _seal(body, "manifest", layout.MANIFEST, spec)
    wrapped = [keys.wrapped_to_json(key) for key in spec.sealing.wrapped]
    return manifest.dump_envelope(
        manifest.Envelope(
            write_id=spec.write_id, wrapped=tuple(wrapped), sealed=sealed.to_pybytes()
        )
    )


def _sweep(store: Store, spec: RunSpec, keep: Collection[str], previous: WriteId | None) -> None:
    """Remove losing attempts and the previous version; a failure never undoes a commit."""
    write_ids = {spec.write_id} | ({previous} if previous else set())
    try:
        if spec.target.single_file:
            store.sweep_staged(spec.directory, spec.write_id)
        else:
            store.sweep(spec.directory, write_ids, keep)
    except (TargetUnavailableError, FileNotFoundError) as error:
        logger.warning("%s is committed, but not swept: %s", spec.target.url, error)


def _concurrent(spec: RunSpec) -> ConcurrentWriteError:
    return ConcurrentWriteError(
        f"another writer committed {spec.target.url} since this write began; its version "
        "stands and nothing of this write remains. Read it, then write again"
    )


def _unknown(spec: RunSpec) -> CommitOutcomeUnknownError:
    return CommitOutcomeUnknownError(
        f"the store did not say whether write {spec.write_id} of {spec.target.url} was "
        "committed; nothing was deleted. Look at its manifest before writing again"
    )


def _result(committed: Committed, spec: RunSpec) -> WriterResult:
    document = committed.manifest
    return WriterResult(
        path=present_path(spec.target.url),
        size_bytes=document.totals["bytes"],
        timestamp=document.created,
        format=document.format.name,
        rows=document.totals["rows"],
        partitions=document.totals["parts"],
        write_id=spec.write_id,
        encrypted=spec.sealing is not None,
        manifest=present_path(f"{spec.target.url}/{layout.MANIFEST}"),
        checksum=manifest.checksum(committed.stored),
    )
