"""Make visible what is staged: in the commit itself, or in tasks of their own on many workers.

What is published counts for nothing until the commit names it. So that nobody sees parts of a write
that fails, none is published before all are staged, and the claim is made first: that this write
may follow the version that stands, and that no garbage collection has taken what it staged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pamola_dwriter import inflight, layout, manifest, storage
from pamola_dwriter.contracts import Store, Versioned
from pamola_dwriter.errors import TargetUnavailableError, WriteFailedError
from pamola_dwriter.lease import Lease
from pamola_dwriter.records import Records
from pamola_dwriter.spec import PartRecord, RunSpec
from pamola_dwriter.versions import check_expected, read_manifest


def claim(partitions: int, spec: RunSpec) -> bool:
    """Check that a write with so many staged partitions may publish, and take its lease.

    Returns
    -------
    bool
        Whether it is to publish: not if it is committed already, and its tasks run once more.

    Raises
    ------
    ConcurrentWriteError
        Another writer committed since this write was prepared.
    WriteFailedError
        A partition is missing, or a garbage collection has taken what was staged.
    """
    if partitions != spec.partitions:
        raise WriteFailedError(
            f"{partitions} of {spec.partitions} partitions have a record; nothing was committed"
        )
    with inflight.working_on(spec.write_id, "claim"):
        store = storage.open_target(spec)
        present = read_manifest(store, spec)
        if is_committed(present, spec):
            return False
        check_expected(present, spec)
        Lease(store, spec).take()
        return True


def publish(records: Records, claimed: bool, spec: RunSpec) -> Records:
    """Publish the parts of some partitions if they are claimed; return their records.

    Raises
    ------
    WriteFailedError
        A garbage collection has taken them.
    TargetUnavailableError
        They could not be published.
    """
    if not claimed:
        return records
    with inflight.working_on(spec.write_id, "publish"):
        store = storage.open_target(spec)
        try:
            publish_staged(store, (part for parts in records.values() for part in parts), spec)
        except WriteFailedError:
            # Or another run of this write has committed since the claim, and swept these parts.
            if is_committed(read_manifest(store, spec), spec):
                return records
            raise
    return {
        index: tuple(replace(part, staged="") for part in parts) for index, parts in records.items()
    }


def check_counts(records: Records, counts: Sequence[int]) -> Records:
    """Return what was published, which has to be as many partitions as were counted before."""
    if len(records) != sum(counts):
        raise WriteFailedError(
            f"{len(records)} of {sum(counts)} partitions were published; nothing was committed"
        )
    return records


def publish_staged(store: Store, parts: Iterable[PartRecord], spec: RunSpec) -> None:
    """Publish those that are not published yet, of a write that is claimed.

    Errors as :func:`publish`.
    """
    staged = {
        layout.join(spec.target.path, part.path): part.staged for part in parts if part.staged
    }
    try:
        store.publish(staged)
    except TargetUnavailableError as error:
        if error.answered and store.find_staged(spec.target.path, staged) < staged.keys():
            raise Lease(store, spec).lost() from error
        raise


def is_committed(present: Versioned | None, spec: RunSpec) -> bool:
    """Return whether the version that stands has this write in it."""
    return present is not None and spec.write_id in manifest.parse_envelope(present.data).writes
