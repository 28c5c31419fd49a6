"""Change which keys open everything below a directory, each dataset and single file on its own.

There is no transaction over all of them, nor need for one: what was rotated is passed over when
the same is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pamola_dwriter import layout
from pamola_dwriter.errors import (
    InvalidTargetError,
    PamolaWriterError,
    RotationIncompleteError,
    TargetNotFoundError,
    TargetUnavailableError,
)
from pamola_dwriter.manifest import key_context
from pamola_dwriter.opening import Artifact, Dataset, find
from pamola_dwriter.paths import Place
from pamola_dwriter.rotation.change import Change, Wrapped
from pamola_dwriter.rotation.datasets import check_encrypted, rotate_dataset
from pamola_dwriter.rotation.files import check_sealed, is_plain, rotate_file
from pamola_dwriter.rotation.reports import (
    DirectoryRotationReport,
    FailedRotation,
    RotationReport,
)
from pamola_dwriter.spec import WriteId

logger = logging.getLogger(__name__)

_SHOWN = 10
"""Failures that the message of an error names; its report names all."""


def rotate_found(
    found: Dataset | Artifact, change: Change, *, alone: bool = False
) -> RotationReport:
    """Rotate the keys of one dataset or single file.

    If that is all there is, an id to revoke that it does not know raises InvalidKeyError.
    """
    if isinstance(found, Dataset):
        check_encrypted(found)
        rotate: Callable[[], RotationReport] = partial(rotate_dataset, found, change)
    else:
        check_sealed(found)
        rotate = partial(rotate_file, found, change)
    if alone:
        change.check_known(found.root, found.wrapped)
    return rotate()


def rotate_directory(place: Place, change: Change) -> DirectoryRotationReport:
    """Rotate the keys of all below a directory; see :func:`pamola_dwriter.rotation.rotate_keys`."""
    tally = _Tally()
    sealed = dict(_look_around(place, tally))
    if not (sealed or tally.plain or tally.failed):
        raise TargetNotFoundError(
            f"there is no dataset or single file at {place.root}, nor any below it"
        )
    if not (sealed or tally.failed):
        raise InvalidTargetError(
            f"nothing below {place.root} is encrypted, so there are no keys to rotate; write it "
            "anew with encryption_key"
        )
    if sealed:
        _check_known(place, sealed, change)
    for path in sealed:
        tally.rotate(place, path, change)
    report = tally.report()
    if report.failed:
        raise _incomplete(place, report)
    return report


@dataclass(slots=True)
class _Tally:
    """What became of each target so far."""

    rotated: dict[str, RotationReport] = field(default_factory=dict)
    unchanged: dict[str, RotationReport] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    failed: dict[str, FailedRotation] = field(default_factory=dict)
    outage: TargetUnavailableError | None = None

    def rotate(self, place: Place, path: str, change: Change) -> None:
        """Rotate the keys of one target, unless the store is known to be down."""
        if self.outage is not None:
            self.fail(path, self.outage)
            return
        try:
            report = rotate_found(_find(place, path), change)
        except PamolaWriterError as error:
            self.fail(path, error)
            return
        changed = self.rotated if report.added or report.revoked else self.unchanged
        changed[path] = report
        logger.info("keys of %s: %s", place.url(path), ", ".join(report.key_ids))

    def fail(self, path: str, error: PamolaWriterError) -> None:
        """Note why a target is as it was; one that is gone by now has no keys any more."""
        if isinstance(error, TargetNotFoundError):
            return
        if isinstance(error, TargetUnavailableError) and error.transient:
            self.outage = error  # it was tried for as long as may be: not so again for each target
        self.failed[path] = FailedRotation(error=type(error).__name__, message=str(error))

    def report(self) -> DirectoryRotationReport:
        return DirectoryRotationReport(
            rotated=self.rotated,
            unchanged=self.unchanged,
            plain=tuple(self.plain),
            failed=self.failed,
        )


class _Locked(NamedTuple):
    """The wrapped keys of a target when it was looked at, and what they are bound to."""

    wrapped: Wrapped
    keyed_by: WriteId


def _look_around(place: Place, tally: _Tally) -> Iterator[tuple[str, _Locked]]:
    """Yield what is sealed below a directory; note what is plain or cannot be looked at."""
    for path in _targets(place.store.listdir("")):
        if tally.outage is not None:
            tally.fail(path, tally.outage)
            continue
        try:
            found = _find(place, path)
            locked = _look_at(found)
        except PamolaWriterError as error:
            tally.fail(path, error)
            continue
        if locked is None:
            tally.plain.append(path)
        else:
            yield path, locked


def _look_at(found: Dataset | Artifact) -> _Locked | None:
    """Return None if it is plain."""
    if isinstance(found, Dataset):
        return _Locked(found.wrapped, found.shown.keyed_by) if found.shown.sealed else None
    if is_plain(found):
        return None
    held = check_sealed(found)
    return _Locked(held.wrapped, held.keyed_by)


def _targets(files: list[str]) -> list[str]:
    """Return the datasets and single files among all files of a directory."""
    found = []
    for path in files:
        folder, _, name = path.rpartition("/")
        if name == layout.MANIFEST:
            found.append(folder)
        elif not (
            layout.is_staged(path)
            or layout.is_lock(path)
            or layout.is_passing(path)
            or layout.is_audit(path)
            or layout.write_id_of(path)
        ):
            found.append(path)
    return sorted(found)


def _find(place: Place, path: str) -> Dataset | Artifact:
    return find(place.url(path), place.storage_options.reveal())


def _check_known(place: Place, sealed: Mapping[str, _Locked], change: Change) -> None:
    """Raise InvalidKeyError if nothing has an id to revoke, nor had it before it was revoked."""
    wrapped = [each for locked in sealed.values() for each in locked.wrapped]
    unknown = change.revoke - {each.key_id for each in wrapped}
    if unknown and not any(_was_made(place, locked, change) for locked in sealed.values()):
        change.check_known(place.root, wrapped)


def _was_made(place: Place, locked: _Locked, change: Change) -> bool:
    """Return whether this very change was made to one target by an earlier run."""
    try:
        key = change.open(place.root, locked.wrapped, key_context(locked.keyed_by))
    except PamolaWriterError:
        return False
    return change.was_made(locked.wrapped, key)


def _incomplete(place: Place, report: DirectoryRotationReport) -> RotationIncompleteError:
    done = len(report.rotated) + len(report.unchanged)
    reasons = [f"{path}: {why.error}: {why.message}" for path, why in report.failed.items()]
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return RotationIncompleteError(
        f"{len(reasons)} of {done + len(reasons)} encrypted outputs below {place.root} are as they "
        f"were; do the same again when that is mended, which passes over what is done. "
        f"{'; '.join(reasons[:_SHOWN])}{more}",
        report=report,
    )
