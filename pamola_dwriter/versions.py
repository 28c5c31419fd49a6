"""One version of a dataset: its manifest, written under the condition that makes it the commit."""

from __future__ import annotations

import hashlib
import random
import time
from datetime import UTC, datetime
from importlib.metadata import version
from secrets import token_hex

import pyarrow as pa

from pamola_dwriter import envelope, keys, layout, manifest, sealing
from pamola_dwriter.contracts import Store, VersionConflict, Versioned
from pamola_dwriter.dataset import Committed, open_committed
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    TargetUnavailableError,
)
from pamola_dwriter.manifest import Envelope, Manifest, PartTable
from pamola_dwriter.spec import Attempt, PartRecord, RunSpec

_PRODUCERS = ("pamola_dwriter", "dask", "pandas", "pyarrow")

_APPENDS_TRIED = 50
"""Times that an append tries to follow others which append to the same dataset."""


def read_manifest(store: Store, spec: RunSpec) -> Versioned | None:
    """Return the manifest that stands at the target now, as stored."""
    return store.read_versioned(layout.join(spec.target.path, layout.MANIFEST))


def open_version(store: Store, present: Versioned, spec: RunSpec) -> Committed:
    """Open a stored manifest with the key of this run."""
    return open_committed(store, spec.target.path, present.data, lambda _: _dataset_key(spec))


def check_expected(present: Versioned | None, spec: RunSpec) -> None:
    """Raise ConcurrentWriteError if an overwrite meets another version than it prepared for."""
    if not spec.append and (present.version if present else None) != spec.expected:
        raise _concurrent(spec)


def put_version(
    store: Store, parts: tuple[PartRecord, ...], schema: pa.Schema, spec: RunSpec
) -> Committed:
    """Write the manifest of published parts; an append follows whatever others append meanwhile.

    Raises
    ------
    ConcurrentWriteError
        Another writer was faster.
    CommitOutcomeUnknownError
        The store did not say whether the manifest was written.
    """
    for tried in range(_APPENDS_TRIED if spec.append else 1):
        time.sleep(random.random() * min(0.02 * tried, 0.5))  # noqa: S311 - to part the racers
        expected, base = spec.expected, None
        present = read_manifest(store, spec) if spec.append else None
        if present is not None:
            expected, base = present.version, _open_base(store, present, schema, spec)
        elif spec.follows is not None:
            raise _concurrent(spec)
        listed = (base.parts if base else ()) + parts
        document = _describe(store, listed, schema, spec, base)
        data = _encode(document, spec)
        stands = _put_manifest(store, data, expected, spec)
        if stands is not None and stands.data == data:
            return Committed(manifest=document, parts=listed, stored=data, key=None)
        if stands is not None:  # of another run of this task, or with more appended since
            return open_version(store, stands, spec)
    raise _concurrent(spec)


def _open_base(store: Store, present: Versioned, schema: pa.Schema, spec: RunSpec) -> Committed:
    """Open the version to append to, which must still be of the same making."""
    shown = manifest.parse_envelope(present.data)
    keyed_by = None if shown.sealed is None else shown.keyed_by
    if keyed_by != (spec.sealing.keyed_by if spec.sealing else None):
        raise _concurrent(spec)
    if spec.follows is not None and spec.follows not in shown.writes:
        raise _concurrent(spec)
    base = open_version(store, present, spec)
    held = base.manifest
    same = (held.format, dict(held.frame), held.partition_on) == (
        spec.format,
        dict(spec.frame),
        spec.partition_on,
    )
    if not same or not held.schema.equals(schema):
        raise _concurrent(spec)
    return base


def _put_manifest(
    store: Store, data: bytes, expected: str | None, spec: RunSpec
) -> Versioned | None:
    """Write the manifest; return what stands with this write in it, or None if beaten."""
    failure: TargetUnavailableError | None = None
    try:
        store.put_if(layout.join(spec.target.path, layout.MANIFEST), data, expected)
    except VersionConflict:
        pass  # a retry below us may have met our own manifest: only reading tells
    except TargetUnavailableError as error:
        failure = error
    try:
        present = read_manifest(store, spec)
    except TargetUnavailableError as error:
        raise outcome_unknown(spec) from error
    if present and spec.write_id in manifest.parse_envelope(present.data).writes:
        return present
    if failure is None:
        return None
    if failure.answered:
        raise failure
    raise outcome_unknown(spec) from failure


def _describe(
    store: Store,
    listed: tuple[PartRecord, ...],
    schema: pa.Schema,
    spec: RunSpec,
    base: Committed | None,
) -> Manifest:
    table = None
    if len(listed) > spec.tuning.inline_parts:
        table = _put_part_table(store, listed, spec)
    return Manifest(
        write_id=spec.write_id,
        created=datetime.now(UTC),
        format=spec.format,
        schema=schema,
        frame=spec.frame,
        partition_on=spec.partition_on,
        totals=manifest.totals(listed),
        producer={name: version(name) for name in _PRODUCERS},
        writes=(*(base.manifest.writes if base else ()), spec.write_id),
        parts=() if table else listed,
        part_table=table,
    )


def _put_part_table(store: Store, parts: tuple[PartRecord, ...], spec: RunSpec) -> PartTable:
    data = manifest.dump_parts(parts)
    # Two runs of this task must not share a file: their times, and so their hashes, differ.
    name = layout.part_table_name(spec.write_id, Attempt(token_hex(4)), "parquet")
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
    return sealing.open_sealing(spec.sealing)


def _encode(document: Manifest, spec: RunSpec) -> bytes:
    body = manifest.dump_body(document)
    if spec.sealing is None:
        return manifest.dump_envelope(manifest.plain_envelope(document, body))
    return manifest.dump_envelope(
        Envelope(
            write_id=spec.write_id,
            writes=document.writes,
            keyed_by=spec.sealing.keyed_by,
            wrapped=tuple(keys.wrapped_to_json(key) for key in spec.sealing.wrapped),
            sealed=_seal(body, "manifest", layout.MANIFEST, spec).to_pybytes(),
        )
    )


def _concurrent(spec: RunSpec) -> ConcurrentWriteError:
    return ConcurrentWriteError(
        f"another writer committed {spec.target.url} since this write began; its version "
        "stands and this write counts for nothing. Read it, then write again"
    )


def outcome_unknown(spec: RunSpec) -> CommitOutcomeUnknownError:
    """Return the error of a commit whose reply was lost and that cannot be read back."""
    return CommitOutcomeUnknownError(
        f"the store did not say whether write {spec.write_id} of {spec.target.url} was "
        "committed; nothing was deleted. Look at what stands there before writing again"
    )
