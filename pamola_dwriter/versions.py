"""One version of a dataset: its manifest, written under the condition that makes it the commit."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from secrets import token_hex
from typing import Any

import pyarrow as pa

from pamola_dwriter import envelope, keys, layout, manifest, sealing
from pamola_dwriter.contracts import Store, VersionConflict, Versioned
from pamola_dwriter.dataset import Committed, open_committed
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    TargetUnavailableError,
)
from pamola_dwriter.manifest import Envelope, Manifest, PartTable, Retired, retained
from pamola_dwriter.spec import Attempt, PartRecord, RunSpec, Sealing, WriteId

_PRODUCERS = ("pamola_dwriter", "dask", "pandas", "pyarrow")

_APPENDS_TRIED = 50
"""Times that an append tries to follow others which append to the same dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What a new version takes over from the one that it follows; nothing if it is the first.

    Attributes
    ----------
    wrapped : tuple of WrappedKey-as-JSON, or None
        The keys of the dataset appended to, which may have changed since the append began.
    """

    parts: tuple[PartRecord, ...] = ()
    writes: tuple[WriteId, ...] = ()
    retired: Retired = field(default_factory=dict)
    wrapped: tuple[Mapping[str, Any], ...] | None = None
    column_keys: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)


def read_manifest(store: Store, spec: RunSpec) -> Versioned | None:
    """Return the manifest that stands at the target now, as stored."""
    return store.read_versioned(_manifest_path(spec))


def _manifest_path(spec: RunSpec) -> str:
    return layout.join(spec.target.path, layout.MANIFEST)


def open_version(store: Store, stored: bytes, spec: RunSpec) -> Committed:
    """Open a stored manifest that has this write in it.

    Raises
    ------
    ConcurrentWriteError
        It was overwritten by another while it was opened.
    """
    committed = _open(store, stored, spec)
    if spec.write_id not in committed.manifest.writes:
        raise _concurrent(spec)
    return committed


def check_expected(present: Versioned | None, spec: RunSpec) -> None:
    """Raise ConcurrentWriteError if this write must not follow the version that stands.

    An overwrite follows the one that it prepared for. Nothing counts a second time: no version
    is followed by a write that was committed before it and replaced.
    """
    if not spec.append and (present.version if present else None) != spec.expected:
        raise _concurrent(spec)
    if present is not None and spec.write_id in manifest.parse_envelope(present.data).retired:
        raise _concurrent(spec)


def put_version(
    store: Store,
    parts: tuple[PartRecord, ...],
    schema: pa.Schema,
    spec: RunSpec,
    present: Versioned | None,
) -> Committed:
    """Write the manifest of published parts, to follow the version `present`.

    An append follows whatever others append meanwhile.

    Raises
    ------
    ConcurrentWriteError
        Another writer was faster.
    CommitOutcomeUnknownError
        The store did not say whether the manifest was written.
    """
    for tried in range(_APPENDS_TRIED if spec.append else 1):
        if tried:
            time.sleep(random.random() * min(0.02 * tried, 0.5))  # noqa: S311 - to part the racers
            present = read_manifest(store, spec)
            check_expected(present, spec)
        before = _look_back(store, present, schema, spec)
        listed = before.parts + parts
        document = _describe(store, listed, schema, spec, before)
        shown = _envelope(document, spec, before)
        data = manifest.dump_envelope(shown)
        stands = _put_manifest(store, data, present.version if present else None, spec)
        if stands == data:
            return Committed(manifest=document, shown=shown, parts=listed, stored=data, key=None)
        if stands is not None:  # of another run of this task, or with more appended since
            return open_version(store, stands, spec)
    raise _concurrent(spec)


def _look_back(
    store: Store, present: Versioned | None, schema: pa.Schema, spec: RunSpec
) -> _Before:
    moment = datetime.now(UTC)
    if present is None:
        if spec.follows is not None:
            raise _concurrent(spec)
        return _Before()
    if not spec.append:
        shown = manifest.parse_envelope(present.data)
        young = retained(shown.retired, moment, spec.tuning.retain_seconds)
        return _Before(retired=young | dict.fromkeys(shown.writes, moment))
    base = _open_base(store, present, schema, spec)
    return _Before(
        parts=base.parts,
        writes=base.manifest.writes,
        retired=retained(base.manifest.retired, moment, spec.tuning.retain_seconds),
        wrapped=base.shown.wrapped,
        column_keys=base.shown.column_keys,
    )


def _open(store: Store, stored: bytes, spec: RunSpec) -> Committed:
    return open_committed(store, spec.target.path, stored, partial(_key_of, spec))


def _key_of(spec: RunSpec, shown: Envelope) -> bytes:
    """Return the key of an encrypted version, which must be that of this run."""
    if spec.sealing is None or shown.keyed_by != spec.sealing.keyed_by:
        raise _concurrent(spec)
    return _dataset_key(spec)


def _open_base(store: Store, present: Versioned, schema: pa.Schema, spec: RunSpec) -> Committed:
    """Open the version to append to, which must still be of the same making."""
    base = _open(store, present.data, spec)
    held = base.manifest
    if (base.key is None) != (spec.sealing is None):
        raise _concurrent(spec)
    if spec.follows is not None and spec.follows not in held.writes:
        raise _concurrent(spec)
    same = (held.format, dict(held.frame), held.partition_on) == (
        spec.format,
        dict(spec.frame),
        spec.partition_on,
    )
    if not same or not held.schema.equals(schema):
        raise _concurrent(spec)
    return base


def _put_manifest(store: Store, data: bytes, expected: str | None, spec: RunSpec) -> bytes | None:
    """Write the manifest; return what stands with this write in it, or None if beaten."""
    failure: TargetUnavailableError | None = None
    try:
        store.put_if(_manifest_path(spec), data, expected)
        if store.atomic:
            return data
    except VersionConflict:
        pass  # a retry below us may have met our own manifest: only reading tells
    except TargetUnavailableError as error:
        failure = error
    try:
        present = read_manifest(store, spec)
    except TargetUnavailableError as error:
        raise outcome_unknown(spec) from error
    if present and spec.write_id in manifest.parse_envelope(present.data).writes:
        return present.data
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
    before: _Before,
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
        writes=(*before.writes, spec.write_id),
        retired=before.retired,
        parts=() if table else listed,
        part_table=table,
        age_recipients=spec.sealing.age_recipients if spec.sealing else (),
        parquet=spec.sealing.parquet.layout if spec.sealing and spec.sealing.parquet else None,
    )


def _put_part_table(store: Store, parts: tuple[PartRecord, ...], spec: RunSpec) -> PartTable:
    data = manifest.dump_parts(parts)
    # Two runs of this task must not share a file: their times, and so their hashes, differ.
    name = layout.part_table_name(spec.write_id, Attempt(token_hex(4)), "parquet")
    if spec.sealing is not None and not spec.sealing.shows_body:
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


def _envelope(document: Manifest, spec: RunSpec, before: _Before) -> Envelope:
    body = manifest.dump_body(document)
    if spec.sealing is None:
        return manifest.plain_envelope(document, body)
    wrapped = before.wrapped
    if wrapped is None:
        wrapped = tuple(keys.wrapped_to_json(key) for key in spec.sealing.wrapped)
    shown = replace(
        manifest.plain_envelope(document, body),
        keyed_by=spec.sealing.keyed_by,
        wrapped=wrapped,
        column_keys=_column_keys(spec.sealing) if before.wrapped is None else before.column_keys,
    )
    if spec.sealing.shows_body:
        mac = envelope.authenticate(_dataset_key(spec), manifest.shown_body(shown))
        return replace(shown, mac=mac)
    sealed = _seal(body, "manifest", layout.MANIFEST, spec).to_pybytes()
    return replace(shown, body=None, sealed=sealed)


def _column_keys(used: Sealing) -> dict[str, tuple[Mapping[str, Any], ...]]:
    held = used.parquet.column_keys if used.parquet else {}
    return {
        name: tuple(keys.wrapped_to_json(key) for key in each.wrapped)
        for name, each in held.items()
    }


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
