"""Remove what writes that ended badly left in a task directory, and nothing else.

Whether a write still lives is told by its newest file, of which its lease is one, and by the clock
of the store alone. Before anything of a write goes, its lease is taken from it, on the condition
that it is still as it was seen: from then on it cannot commit.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pamola_dwriter import layout, manifest
from pamola_dwriter.contracts import Found, Store
from pamola_dwriter.errors import DataReadError, EncryptionKeyError
from pamola_dwriter.lease import read_lease, seconds_left, seize
from pamola_dwriter.opening import find_dataset
from pamola_dwriter.paths import PathLike, Place, open_place
from pamola_dwriter.request import check_seconds
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import WriteId

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A file, or an upload that was never completed, which no version of a dataset needs.

    Attributes
    ----------
    path : str
        Relative to the task directory.
    write_id : str or None
        The write that left it; None for a temporary file.
    modified : datetime.datetime
        When it was changed last, by the clock of the store, in UTC.
    is_upload : bool
        Whether it is an upload rather than a file.
    reason : str
        Why it is removed, or kept.
    """

    path: str
    write_id: WriteId | None
    modified: datetime
    is_upload: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageReport:
    """What a collection removed (or would have, if ``dry_run``), and what it left for now.

    Attributes
    ----------
    unopened : tuple of str
        Datasets, relative to the task directory, of which garbage could not be told from parts:
        encrypted and no key given that opens them, or damaged.
    """

    removed: tuple[Garbage, ...]
    kept: tuple[Garbage, ...]
    unopened: tuple[str, ...]
    dry_run: bool


def collect_garbage(
    task_dir: PathLike,
    *,
    older_than: float | str | timedelta = "24h",
    dry_run: bool = False,
    encryption_key: Any = None,
    storage_options: Mapping[str, Any] | None = None,
) -> GarbageReport:
    """Remove staged files, losing attempts, unfinished uploads and parts that no manifest names.

    What a write left is garbage once it gave no sign of life for `older_than`, and never before
    its lease is over (``lease-seconds``). Only names that this package gives are looked at.
    Files of a dataset whose manifest is missing or damaged are kept, unless a lease tells that
    they are of a write that never committed.

    Parameters
    ----------
    task_dir : str, path or UPath
        The task directory.
    older_than : float, str or timedelta, default "24h"
        Seconds, or text such as ``"30min"``.
    dry_run : bool, default False
        Only report.
    encryption_key : optional
        As for reading. Without it, of an encrypted dataset only what was left by writes that are
        no part of its present version can be told from its parts.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Raises
    ------
    InvalidWriteError, InvalidPathError
        An argument is wrong.
    TargetUnavailableError
        The store cannot be listed, or does not let files be deleted.
    """
    settings = Settings.load()
    place = open_place(task_dir, storage_options, settings.tuning)
    patience = max(check_seconds("older_than", older_than, zero=True), settings.lease_seconds)
    survey = _Survey(place, encryption_key, settings.retain_seconds)
    now = place.store.now()
    removed: list[Garbage] = []
    kept = survey.kept
    for write in survey.writes:
        if seconds_left(write.newest, now, patience) > 0:
            kept += write.tell(f"its write gave a sign of life {now - write.newest:.0f} s ago")
        elif dry_run or write.end(place.store):
            removed += write.tell("its write ended without it")
        else:
            kept += write.tell("its write gave a sign of life just now")
    if not dry_run:
        place.store.discard(())  # whatever folders are empty by now
    return GarbageReport(
        removed=tuple(removed),
        kept=tuple(kept),
        unopened=tuple(sorted(survey.unopened)),
        dry_run=dry_run,
    )


@dataclass(slots=True)
class _Write:
    """What one write left; temporary files count as a write each."""

    write_id: WriteId | None
    found: list[Found] = field(default_factory=list)

    @property
    def newest(self) -> float:
        return max(each.modified for each in self.found)

    @property
    def has_lease(self) -> bool:
        return self.write_id is not None and any(map(self._is_lease, self.found))

    def tell(self, reason: str) -> list[Garbage]:
        return [_tell(each, self.write_id, reason) for each in self.found]

    def end(self, store: Store) -> bool:
        """Remove it all; False if the write turns out to live."""
        if self.has_lease and not self._take_lease(store):
            return False
        # The lease goes last: while it stands as taken, the write cannot come back.
        store.discard([each for each in self.found if not self._is_lease(each)])
        if self.has_lease:
            store.discard(self._staged_now(store))
        return True

    def _take_lease(self, store: Store) -> bool:
        assert self.write_id is not None  # noqa: S101 - else it has no lease
        entry = read_lease(store, self.write_id)
        if entry is None:
            return False
        if any(each.modified > self.newest for each in self._staged_now(store)):
            return False
        return entry.state == "collected" or seize(store, entry)

    def _staged_now(self, store: Store) -> list[Found]:
        assert self.write_id is not None  # noqa: S101 - as above
        staged = store.survey(layout.join(layout.STAGING, self.write_id))
        return [each for each in staged if layout.parse_staged(each.path)]

    def _is_lease(self, found: Found) -> bool:
        return self.write_id is not None and found.path == layout.lease_path(self.write_id)


class _Survey:
    """The files of a task directory that may be garbage, by the write that left them."""

    def __init__(self, place: Place, encryption_key: Any, retain_seconds: float) -> None:
        self._place = place
        self._key = encryption_key
        self._retain = retain_seconds
        self.kept: list[Garbage] = []
        self.unopened: list[str] = []
        self._writes: dict[object, _Write] = {}
        # Listed before any manifest is read: what is committed meanwhile is in the manifest, and
        # what is staged meanwhile is not in the list.
        files = place.store.survey("")
        manifests = {each.path for each in files if each.path.endswith(f"/{layout.MANIFEST}")}
        directories = {path.rpartition("/")[0] for path in manifests}
        of_datasets: dict[str, list[Found]] = {directory: [] for directory in directories}
        loose: list[Found] = []
        for each in files:
            if layout.is_passing(each.path):
                self._writes[each.path] = _Write(None, [each])
            elif write_id := layout.parse_staged(each.path):
                self._add(write_id, each)
            elif layout.write_id_of(each.path):
                directory = _dataset_of(each.path, directories)
                (loose if directory is None else of_datasets[directory]).append(each)
        for directory, found in of_datasets.items():
            self._sort(directory, found)
        for each in loose:
            self._sort_loose(each)

    @property
    def writes(self) -> Iterable[_Write]:
        return self._writes.values()

    def _add(self, write_id: WriteId, found: Found) -> None:
        self._writes.setdefault(write_id, _Write(write_id)).found.append(found)

    def _sort(self, directory: str, found: list[Found]) -> None:
        """Tell the garbage in a dataset from its parts."""
        try:
            needed = _Needed.of(self._place, directory, self._key, self._retain)
        except DataReadError as error:
            logger.warning("all of %s is kept: %s", self._place.url(directory), error)
            needed = _Needed(listed=None, writes=None, retained=())
        if needed.listed is None:
            self.unopened.append(directory)
        for each in found:
            write_id = layout.write_id_of(each.path)
            assert write_id is not None  # noqa: S101 - chosen by it
            if write_id in needed.retained:
                reason = "it is of a version replaced not long ago (retain-seconds)"
                self.kept.append(_tell(each, write_id, reason))
            elif each.upload is not None or not needed.may_list(each.path, write_id):
                self._add(write_id, each)

    def _sort_loose(self, found: Found) -> None:
        """Sort what lies where there is no manifest: of a first write, or of a damaged dataset."""
        write_id = layout.write_id_of(found.path)
        assert write_id is not None  # noqa: S101 - chosen by it
        left = self._writes.get(write_id)
        if found.upload is not None or (left is not None and left.has_lease):
            self._add(write_id, found)
        else:
            reason = "there is no manifest, and no lease of its write that would tell it is garbage"
            self.kept.append(_tell(found, write_id, reason))


@dataclass(frozen=True, slots=True)
class _Needed:
    """What a dataset needs: what it lists; if that cannot be read, all of its writes; or all."""

    listed: Collection[str] | None
    writes: Collection[WriteId] | None
    retained: Collection[WriteId]

    @classmethod
    def of(cls, place: Place, directory: str, key: Any, retain_seconds: float) -> _Needed:
        dataset = find_dataset(place.url(directory), place.storage_options.reveal())
        shown = dataset.shown
        young = manifest.retained(shown.retired, datetime.now(UTC), retain_seconds)
        try:
            committed = dataset.open(key if shown.sealed is not None else None)
        except EncryptionKeyError:
            return cls(None, shown.writes, young)
        listed = {part.path for part in committed.parts} | committed.special_files
        return cls({layout.join(directory, path) for path in listed}, shown.writes, young)

    def may_list(self, path: str, write_id: WriteId) -> bool:
        """Return whether a file is a part of the dataset, for all that is known."""
        if self.listed is not None:
            return path in self.listed
        return self.writes is None or write_id in self.writes


def _dataset_of(path: str, directories: Collection[str]) -> str | None:
    while path:
        path = path.rpartition("/")[0]
        if path in directories:
            return path
    return None


def _tell(found: Found, write_id: WriteId | None, reason: str) -> Garbage:
    return Garbage(
        path=found.path,
        write_id=write_id,
        modified=datetime.fromtimestamp(found.modified, UTC),
        is_upload=found.upload is not None,
        reason=reason,
    )
