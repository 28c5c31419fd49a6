"""Look at a task directory behind the writer's back: nothing may stand there that no version names.

Only the listing of the store and the manifests are believed, no bookkeeping of a write.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pamola_dwriter import layout, manifest
from pamola_dwriter.contracts import Found
from pamola_dwriter.opening import Dataset, find_dataset
from pamola_dwriter.paths import PathLike, open_place
from pamola_dwriter.settings import Settings

_SHOWN = 20


def assert_no_leftovers(
    task_dir: PathLike,
    *,
    storage_options: Mapping[str, Any] | None = None,
    encryption_key: Any = None,
    write_ids: Collection[str] | None = None,
) -> None:
    """Assert that a task directory holds nothing but what committed versions consist of.

    No losing attempt, no part of an earlier version (unless ``retain-seconds`` keeps it), no
    pending upload, nothing in ``_staging``. Audit records stay for good. Single files of whatever
    making are nobody's leftovers, unless `write_ids` says otherwise.

    Parameters
    ----------
    task_dir : path-like
        Path or URL of the task directory.
    storage_options : mapping, optional
        Passed to fsspec.
    encryption_key : optional
        Opens encrypted datasets; without it, every part of the writes that one shows counts as
        named, losing attempts included.
    write_ids : collection of str, optional
        The writes that the versions may consist of. When given, nothing else at all may stand
        there, not even a single file; with none, the directory must be empty.

    Raises
    ------
    AssertionError
        Something is left; the message lists it.
    DataReadError, EncryptionKeyError
        A manifest cannot be opened.
    """
    place = open_place(task_dir, storage_options, Settings.load().tuning)
    found = place.store.survey("")
    named: set[str] = set()
    for directory in _datasets(found):
        url = place.url(directory).rstrip("/")
        dataset = find_dataset(url, place.storage_options.reveal())
        named |= {
            layout.join(directory, path)
            for path in _named(dataset, encryption_key, dataset.store.listdir(""))
            if write_ids is None or _made_by(path, dataset, write_ids)
        }
    left = [
        f"upload of {each.path}" if each.upload else each.path
        for each in found
        if each.upload
        or (
            each.path not in named
            and not layout.is_audit(each.path)
            and (write_ids is not None or _is_leftover(each.path))
        )
    ]
    left += _staging_folders(place.root)
    if left:
        more = f"\n  and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        raise AssertionError(
            f"{len(left)} left in {place.root}:\n  " + "\n  ".join(left[:_SHOWN]) + more
        )


def _datasets(found: Iterable[Found]) -> list[str]:
    """Return the directories with a manifest."""
    files = (each.path.rpartition("/") for each in found if not each.upload)
    return [directory for directory, _, name in files if name == layout.MANIFEST]


def _named(dataset: Dataset, encryption_key: Any, files: Iterable[str]) -> Iterator[str]:
    """Yield which files of a dataset its version consists of, or still retains."""
    yield from (layout.MANIFEST, f"{layout.MANIFEST}.lock")
    shown = dataset.shown
    kept = manifest.retained(shown.retired, datetime.now(UTC), Settings.load().retain_seconds)
    writes = set(kept)
    if shown.sealed is not None and encryption_key is None:
        writes |= set(shown.writes)
    else:
        committed = dataset.open(encryption_key if shown.sealed is not None else None)
        yield from (part.path for part in committed.parts)
        yield from committed.special_files
    yield from (file for file in files if layout.write_id_of(file) in writes)


def _made_by(path: str, dataset: Dataset, write_ids: Collection[str]) -> bool:
    return (layout.write_id_of(path) or dataset.shown.write_id) in write_ids


def _is_leftover(path: str) -> bool:
    """Return whether a file that no version names is one that a write should have removed."""
    return (
        path.startswith(f"{layout.STAGING}/")
        or layout.is_passing(path)
        or layout.write_id_of(path) is not None
    )


def _staging_folders(root: str) -> list[str]:
    """Return the empty folders that a local task directory has, which no listing shows."""
    if "://" in root:
        return []
    staging = os.path.join(root, layout.STAGING)
    return [
        os.path.relpath(folder, root) + "/"
        for folder, folders, files in os.walk(staging)
        if not (folders or files)
    ]
