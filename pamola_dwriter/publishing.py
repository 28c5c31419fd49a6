"""Make visible what is staged: in the commit itself, or in tasks of their own on many workers.

No manifest names a part that is published before the commit. So that nobody sees parts of a write
that fails, none is published before all are staged, and the claim is made first: that this write
may follow the version that stands, and that no garbage collection has taken what it staged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pamola_dwriter import inflight, layout, manifest, storage
from pamola_dwriter.contracts import Store, Versioned
from pamola_dwriter.errors import TargetUnavailableError, WriteFailedError
from pamola_dwriter.lease import Lease
from pamola_dwriter.records import Records
from pamola_dwriter.spec import PartRecord, RunSpec
from pamola_dwriter.versions import check_expected, read_manifest


def claim(partitions: int, spec: RunSpec) -> bool:
    """Return whether the parts of a write, of which so many partitions are staged, come next.

    They do not if it is committed already, and its tasks run once more.

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
        publish_staged(store, (part for parts in records.values() for part in parts), spec)
    return {
        index: tuple(replace(part, staged="") for part in parts) for index, parts in records.items()
    }


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
