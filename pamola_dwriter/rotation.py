"""Change which keys open an encrypted dataset: its manifest is rewritten, and nothing else.

The dataset key stays what it is, and with it the sealed body of the manifest and every part; only
the list of its wrapped forms changes, on the condition that nobody else changed the manifest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pamola_dwriter import envelope, keys, layout, manifest, storage
from pamola_dwriter.contracts import KeyProvider, Store, VersionConflict
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    InvalidKeyError,
    InvalidTargetError,
    InvalidWriteError,
    TargetUnavailableError,
    WrongKeyError,
)
from pamola_dwriter.opening import Dataset, find_dataset
from pamola_dwriter.paths import PathLike
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import WrappedKey, WriteId
from pamola_dwriter.storage import updates

_TRIES = 50
"""Times to follow others who commit to the same dataset, or rotate its keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationReport:
    """What :func:`rotate_keys` changed, and how it stands now.

    Attributes
    ----------
    write_id : str
        The write that committed the version; a rotation is none.
    added, revoked : tuple of str
        Ids of the keys that came and went. One in `to` that opened the dataset before is not
        added again.
    key_ids : tuple of str
        Ids of all keys that open the dataset now.
    checksum : str
        ``sha256:`` and the hex digest of the manifest, which is no longer that of the write.
    """

    write_id: WriteId
    added: tuple[str, ...]
    revoked: tuple[str, ...]
    key_ids: tuple[str, ...]
    checksum: str


def rotate_keys(
    path: PathLike,
    *,
    encryption_key: Any,
    to: Any = None,
    revoke: str | Collection[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> RotationReport:
    """Let other keys open an encrypted dataset, and some no longer.

    Only the manifest is written, in one step, whatever the size of the dataset; no part is read.
    Reads and appends go on meanwhile, and another rotation at the same time counts as well. An
    overwrite that was begun before fails with ConcurrentWriteError: it would have put the keys
    back.

    Rotation does not draw a new dataset key. Whoever could open the dataset may have kept that
    key, or a copy of the manifest, and opens with it the parts that stand and those appended
    later. Against them only writing the dataset anew helps.

    Parameters
    ----------
    path : str, path or UPath
        The dataset, such as ``WriterResult.path``.
    encryption_key : str, bytes, KeyProvider, or list of these
        One that opens it now.
    to : str, bytes, KeyProvider, or list of these, optional
        Keys to open it from now on, besides those that are not revoked.
    revoke : str or collection of str, optional
        Ids of keys to open it no longer, as in ``describe(path)["keys"]``. All passphrases have
        one id. A key in `to` is wrapped anew if what it opens is revoked.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    RotationReport

    Raises
    ------
    TargetNotFoundError
        There is no dataset.
    InvalidTargetError
        It is not encrypted.
    MissingKeyError, WrongKeyError
        `encryption_key` does not open it.
    InvalidKeyError
        No key has an id in `revoke`; or no key that was given would open the dataset afterwards.
    IntegrityError
        The manifest was altered.
    ConcurrentWriteError
        Others kept committing for so long that this was given up; it changed nothing.
    CommitOutcomeUnknownError
        The store did not say whether the manifest was written. Another try does nothing twice.
    """
    change = _Change.of(encryption_key, to, revoke)
    opened: _Opened | None = None
    for tried in range(_TRIES):
        dataset = find_dataset(path, storage_options)
        if opened is None or opened.keyed_by != dataset.shown.keyed_by:
            opened = _open(dataset, change, is_first=opened is None)
        wrapped = _rewrap(dataset, opened, change)
        data = _dump(dataset, opened, wrapped)
        if wrapped == dataset.wrapped or _put(dataset, data):
            return RotationReport(
                write_id=dataset.shown.write_id,
                added=_ids_missing(wrapped, dataset.wrapped),
                revoked=_ids_missing(dataset.wrapped, wrapped),
                key_ids=tuple(each.key_id for each in wrapped),
                checksum=manifest.checksum(data),
            )
        updates.pause(tried)
    raise ConcurrentWriteError(
        f"others kept changing the manifest of {dataset.root}, so this rotation was given up and "
        "changed nothing; try again when there are fewer at once"
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """What a caller asked for."""

    given: tuple[KeyProvider, ...]
    to: tuple[KeyProvider, ...]
    revoke: frozenset[str]

    @classmethod
    def of(cls, encryption_key: Any, to: Any, revoke: str | Collection[str]) -> Self:
        ids = frozenset([revoke] if isinstance(revoke, str) else revoke)
        if to is None and not ids:
            raise InvalidWriteError("a rotation changes nothing without `to` and `revoke`")
        given = () if encryption_key is None else keys.resolve(encryption_key)
        try:
            return cls(given, () if to is None else keys.resolve(to), ids)
        except InvalidKeyError as error:
            error.say_first("to")
            raise


@dataclass(frozen=True, slots=True)
class _Opened:
    """A dataset key, and the wrapped forms of it that go.

    They are told by what they are and not by their id: passphrases have one id, and somebody else
    may let another one open the dataset meanwhile.
    """

    keyed_by: WriteId
    key: bytes = field(repr=False)
    revoked: tuple[WrappedKey, ...]


def _open(dataset: Dataset, change: _Change, *, is_first: bool) -> _Opened:
    """Open a dataset; one that stands there since an overwrite need not know the revoked ids."""
    if dataset.shown.sealed is None:
        raise InvalidTargetError(
            f"{dataset.root} is not encrypted, so it has no keys to rotate; write it anew with "
            "encryption_key"
        )
    key = dataset.unwrap(change.given or None)
    ids = {each.key_id for each in dataset.wrapped}
    if is_first and (unknown := change.revoke - ids):
        raise InvalidKeyError(
            f"no key of {dataset.root} has the id {', '.join(sorted(unknown))}; those it has are "
            f"{', '.join(sorted(ids))}"
        )
    revoked = tuple(each for each in dataset.wrapped if each.key_id in change.revoke)
    return _Opened(dataset.shown.keyed_by, key, revoked)


def _rewrap(dataset: Dataset, opened: _Opened, change: _Change) -> tuple[WrappedKey, ...]:
    """Return the wrapped keys that are to stand, one of which is sure to open the dataset."""
    context = manifest.key_context(opened.keyed_by)
    wrapped = tuple(each for each in dataset.wrapped if each not in opened.revoked)
    for provider in change.to:
        if not _opens((provider,), wrapped, context, opened.key):
            wrapped += (provider.wrap(opened.key, context),)
    if len(wrapped) > keys.MAX_WRAPPED:
        raise InvalidKeyError(
            f"at most {keys.MAX_WRAPPED} keys open a dataset, and {len(wrapped)} would open "
            f"{dataset.root}; revoke some"
        )
    if not _opens(change.to or change.given, wrapped, context, opened.key):
        raise InvalidKeyError(
            f"none of the keys that you gave would open {dataset.root} afterwards; name in `to` "
            "one that does"
        )
    return wrapped


def _opens(
    providers: Sequence[KeyProvider],
    wrapped: Sequence[WrappedKey],
    context: bytes,
    dataset_key: bytes,
) -> bool:
    try:
        return keys.unwrap_any(providers, wrapped, context) == dataset_key
    except WrongKeyError:
        return False


def _dump(dataset: Dataset, opened: _Opened, wrapped: Sequence[WrappedKey]) -> bytes:
    """Return the manifest to store; its body has been opened, so that it can be again."""
    listed = tuple(keys.wrapped_to_json(each) for each in wrapped)
    data = manifest.dump_envelope(replace(dataset.shown, wrapped=listed))
    shown = manifest.parse_envelope(data)
    expect = manifest.sealed_header(shown.write_id, "manifest", layout.MANIFEST)
    envelope.open_sealed(shown.sealed, opened.key, expect=expect)
    return data


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


def _ids_missing(some: Sequence[WrappedKey], others: Sequence[WrappedKey]) -> tuple[str, ...]:
    return tuple(each.key_id for each in some if each not in others)
