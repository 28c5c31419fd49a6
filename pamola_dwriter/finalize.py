"""Finalize: check what was staged, publish what is not, commit the manifest, sweep.

One task, safe to run twice: a second run finds its own write id in the manifest and returns
the same result. Until the manifest is written, the previous version stands.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from datetime import UTC, datetime

import pyarrow as pa

from pamola_dwriter import formats, inflight, layout, manifest, storage
from pamola_dwriter.auditlog import record_frame
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.dataset import Committed
from pamola_dwriter.errors import TargetExistsError, TargetUnavailableError, WriteFailedError
from pamola_dwriter.lease import Lease
from pamola_dwriter.manifest import Retired
from pamola_dwriter.paths import present_path
from pamola_dwriter.publishing import is_committed, publish_staged
from pamola_dwriter.records import Records
from pamola_dwriter.spec import PartRecord, RunSpec, WriteId, WriterResult
from pamola_dwriter.versions import (
    check_expected,
    open_version,
    outcome_unknown,
    put_version,
    read_manifest,
)

logger = logging.getLogger(__name__)


def finalize(records: Records, resolved: pa.Schema | None, spec: RunSpec) -> WriterResult:
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
    with inflight.working_on(spec.write_id, "commit"):
        parts = _every_partition_once(records, spec)
        store = storage.open_target(spec)
        if spec.target.single_file:
            result = _commit_file(store, parts[0], spec)
        else:
            schema = spec.schema if resolved is None else formats.resolve(spec.schema, resolved)
            result = _commit_dataset(store, parts, schema, spec)
        record_frame(store, result, spec)
        inflight.remember(result)
        return result


def recover(store: Store, spec: RunSpec) -> WriterResult | None:
    """Return the result of a dataset write that committed, though its reply was lost."""
    if spec.target.single_file:
        return None
    present = read_manifest(store, spec)
    if present is None or not is_committed(present, spec):
        return None
    result = _result(open_version(store, present.data, spec), spec)
    record_frame(store, result, spec)
    return result


def _every_partition_once(records: Records, spec: RunSpec) -> tuple[PartRecord, ...]:
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
    except TargetUnavailableError as error:
        if error.answered:
            raise
        _check_published(store, part, spec, error)
    _sweep(store, spec, replaced=(), keep=())
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


def _check_published(
    store: Store, part: PartRecord, spec: RunSpec, failure: TargetUnavailableError
) -> None:
    """Raise CommitOutcomeUnknownError unless the file, whose reply was lost, is in place."""
    try:
        stored = store.read(spec.target.path)
    except (TargetUnavailableError, FileNotFoundError):
        stored = b""
    if hashlib.sha256(stored).hexdigest() != part.sha256:
        raise outcome_unknown(spec) from failure


def _commit_dataset(
    store: Store, parts: tuple[PartRecord, ...], schema: pa.Schema, spec: RunSpec
) -> WriterResult:
    present = read_manifest(store, spec)
    shown = manifest.parse_envelope(present.data) if present else None
    if present is not None and shown is not None and spec.write_id in shown.writes:
        committed = open_version(store, present.data, spec)
    else:
        check_expected(present, spec)
        lease = Lease(store, spec)
        if not parts or any(part.staged for part in parts):  # else the claim has taken it
            lease.take()
            publish_staged(store, parts, spec)
        lease.confirm()  # a garbage collection would else take parts that no manifest names yet
        committed = put_version(store, parts, schema, spec, present)
    gone = _replaced(committed, shown.retired if shown else {}, spec)
    keep = {part.path for part in committed.parts} | committed.special_files
    _sweep(store, spec, gone, keep)
    return _result(committed, spec)


def _replaced(committed: Committed, retired_before: Retired, spec: RunSpec) -> set[WriteId]:
    """Return the writes of which nothing stays but what the new version lists.

    A write replaced earlier is among them once its time is over, or if the sweep was cut short
    that should have removed it. Of the version appended to, the part table goes.
    """
    document = committed.manifest
    own = document.writes.index(spec.write_id)
    appended_to = document.writes[max(own - 1, 0) : own]
    young = manifest.retained(document.retired, datetime.now(UTC), spec.tuning.retain_seconds)
    return {*appended_to, *retired_before, *document.retired} - young.keys()


def _sweep(
    store: Store, spec: RunSpec, replaced: Collection[WriteId], keep: Collection[str]
) -> None:
    """Remove losing attempts and what was replaced; a failure never undoes a commit."""
    try:
        if spec.target.single_file:
            store.sweep_staged(spec.write_id)
        else:
            store.sweep(spec.target.path, {spec.write_id, *replaced}, keep)
        store.remove(spec.supersedes)
    except (TargetUnavailableError, FileNotFoundError) as error:
        logger.warning("%s is committed, but not swept: %s", spec.target.url, error)


def _result(committed: Committed, spec: RunSpec) -> WriterResult:
    document = committed.manifest
    own = [part for part in committed.parts if layout.write_id_of(part.path) == spec.write_id]
    counts = manifest.totals(own)
    return WriterResult(
        path=present_path(spec.target.url),
        size_bytes=counts["bytes"],
        timestamp=document.created,
        format=f"partitioned_{document.format.name}",
        rows=counts["rows"],
        partitions=counts["parts"],
        write_id=spec.write_id,
        encrypted=spec.sealing is not None,
        manifest=present_path(f"{spec.target.url}/{layout.MANIFEST}"),
        checksum=manifest.checksum(committed.stored),
        resumed=spec.resumed,
    )
