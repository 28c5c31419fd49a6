"""Change which keys open an encrypted dataset: its manifest is rewritten, and nothing else.

The dataset key stays what it is, and with it the sealed body of the manifest and every part; only
the list of its wrapped forms changes, on the condition that nobody else changed the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pamola_dwriter import keys, layout, manifest, storage
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.dataset import open_body
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    InvalidTargetError,
    TargetUnavailableError,
)
from pamola_dwriter.keys import age
from pamola_dwriter.opening import Dataset, find_dataset
from pamola_dwriter.rotation.change import Change, DatasetKey, Wrapped
from pamola_dwriter.rotation.columns import ColumnKeys, rewrap_columns
from pamola_dwriter.rotation.reports import RotationReport
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, WriteId
from pamola_dwriter.storage import updates

_TRIES = 50
"""Times to follow others who commit to the same dataset, or rotate its keys."""


def check_encrypted(dataset: Dataset) -> None:
    """Raise InvalidTargetError if a dataset is plain."""
    if not dataset.shown.encrypted:
        raise InvalidTargetError(
            f"{dataset.root} is not encrypted, so it has no keys to rotate; write it anew with "
            "encryption_key"
        )


def rotate_dataset(dataset: Dataset, change: Change) -> RotationReport:
    """Rotate the keys of a dataset; see :func:`pamola_dwriter.rotation.rotate_keys`."""
    opened = _open(dataset, change)
    for tried in range(_TRIES):
        if tried:
            updates.pause(tried - 1)
            dataset = find_dataset(dataset.root, dataset.options.reveal())
            if opened.keyed_by != dataset.shown.keyed_by:
                opened = _open(dataset, change)
        wrapped = _rewrap(dataset, opened, change)
        columns = rewrap_columns(dataset.root, dataset.shown, change)
        data = _dump(dataset, opened, wrapped, columns)
        same = wrapped == dataset.wrapped and columns == dataset.shown.column_keys
        if same or _put(dataset, data):
            return RotationReport(
                write_id=dataset.shown.write_id,
                added=_ids_missing(wrapped, dataset.wrapped),
                revoked=_ids_missing(dataset.wrapped, wrapped),
                key_ids=tuple(each.key_id for each in wrapped),
                checksum=manifest.checksum(data),
            )
    raise ConcurrentWriteError(
        f"others kept changing the manifest of {dataset.root}, so this rotation was given up and "
        "changed nothing; try again when there are fewer at once"
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A dataset key, and the wrapped forms of it that go.

    They are told by what they are and not by their id: passphrases have one id, and somebody else
    may let another one open the dataset meanwhile.
    """

    keyed_by: WriteId
    key: DatasetKey
    revoked: Wrapped


def _open(dataset: Dataset, change: Change) -> _Opened:
    check_encrypted(dataset)
    keyed_by = dataset.shown.keyed_by
    key = change.open(dataset.root, dataset.wrapped, manifest.key_context(keyed_by))
    return _Opened(keyed_by, key, change.revoked(dataset.wrapped, key))


def _rewrap(dataset: Dataset, opened: _Opened, change: Change) -> Wrapped:
    """Return the wrapped keys that are to stand, one of which is sure to open the dataset."""
    stays = tuple(each for each in dataset.wrapped if each not in opened.revoked)
    wrapped = change.add(stays, opened.key)
    change.check(dataset.root, wrapped, opened.key)
    return wrapped


def _dump(dataset: Dataset, opened: _Opened, wrapped: Wrapped, columns: ColumnKeys) -> bytes:
    """Return the manifest to store; its body has been opened, so that it can be again.

    Raises
    ------
    InvalidTargetError
        A revoked key opens the parts all the same.
    """
    listed = tuple(keys.wrapped_to_json(each) for each in wrapped)
    data = manifest.dump_envelope(replace(dataset.shown, wrapped=listed, column_keys=columns))
    document = open_body(manifest.parse_envelope(data), Redacted(opened.key.value))
    if document.age_recipients:
        _check_age(dataset.root, opened.revoked)
    return data


def _check_age(root: str, revoked: Wrapped) -> None:
    """Refuse to promise what no manifest keeps: an age file opens for whom it was encrypted to."""
    if held := [each.key_id for each in revoked if each.method == age.METHOD]:
        raise InvalidTargetError(
            f"the parts of {root} are age files, which {', '.join(held)} opens whatever the "
            "manifest says; write the dataset anew without that key"
        )


def _put(dataset: Dataset, data: bytes) -> bool:
    """Write the manifest if it is still the one that was read; False if somebody was faster."""
    store, path = _store_around(dataset)
    try:
        store.put_if(path, data, dataset.version)
    except VersionConflict:
        return False
    except TargetUnavailableError as error:
        return _has_landed(dataset, data, error)
    return True


def _store_around(dataset: Dataset) -> tuple[Store, str]:
    """Return a store, and where in it the manifest is.

    What a store writes passes through ``_staging`` in its root on the way, and inside a dataset
    that would be a file that nobody lists.
    """
    folder, _, name = dataset.root.rpartition("/")
    if folder.endswith(":/"):  # a bucket, where nothing passes through anything
        return dataset.store, layout.MANIFEST
    store = storage.open_store(folder or "/", dataset.options, Settings.load().tuning)
    return store, layout.join(name, layout.MANIFEST)


def _has_landed(dataset: Dataset, data: bytes, failure: TargetUnavailableError) -> bool:
    """Return whether the manifest was written though the store failed; False to try again."""
    unknown = CommitOutcomeUnknownError(
        f"the store did not say whether the keys of {dataset.root} were rotated; see "
        "`pamola-dwriter show`, or rotate them again, which does nothing twice"
    )
    try:
        present = dataset.store.read_versioned(layout.MANIFEST)
    except TargetUnavailableError:
        raise unknown from failure
    if present is not None and present.data == data:
        return True
    if failure.answered:
        raise failure
    if present is not None and present.version == dataset.version:  # it may land yet
        raise unknown from failure
    return False


def _ids_missing(some: Wrapped, others: Wrapped) -> tuple[str, ...]:
    return tuple(each.key_id for each in some if each not in others)
