"""Write and change single files that are small enough to be made in this process."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pamola_dwriter import envelope, keys, manifest
from pamola_dwriter.auditlog import AuditRecord, record
from pamola_dwriter.contracts import KeyProvider, VersionConflict
from pamola_dwriter.envelope import agefile
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataReadError,
    EncryptionKeyError,
    InvalidTargetError,
    MissingKeyError,
    TargetExistsError,
    TargetUnavailableError,
)
from pamola_dwriter.paths import Place, present_path
from pamola_dwriter.sealing import FileKeys, file_header, parse_file_header
from pamola_dwriter.spec import Redacted, WrappedKey, WriteId, WriterResult
from pamola_dwriter.targets import Wanted, check_file, check_update

logger = logging.getLogger(__name__)

Providers = tuple[KeyProvider, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lock:
    """The key that a file is sealed under, and how its header carries it."""

    dataset_key: Redacted
    keyed_by: WriteId
    wrapped: tuple[WrappedKey, ...]

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Which keys open it, as an audit record says."""
        return tuple(f"{key.method} {key.key_id}" for key in self.wrapped)

    def seal(self, data: bytes, file_name: str, write_id: WriteId) -> bytes:
        held = FileKeys(write_id=write_id, keyed_by=self.keyed_by, wrapped=self.wrapped)
        header = file_header(file_name, held)
        sealed: bytes = envelope.seal(data, self.dataset_key.reveal(), header).to_pybytes()
        return sealed


@dataclass(frozen=True, slots=True)
class _AgeLock:
    """The public keys that an age file is encrypted to."""

    recipients: tuple[str, ...]

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The public keys, as an audit record says."""
        return tuple(f"age {recipient}" for recipient in self.recipients)

    def seal(self, data: bytes, file_name: str, write_id: WriteId) -> bytes:
        return agefile.encrypt(data, self.recipients)


def put_artifact(
    place: Place, wanted: Wanted, data: bytes, providers: Providers, *, format_name: str
) -> WriterResult:
    """Write one file, atomically and durably, sealed if there are providers of a key.

    Raises
    ------
    TargetExistsError
        It exists and must not be overwritten.
    TargetUnavailableError
        It cannot be written.
    CommitOutcomeUnknownError
        The store did not say whether it was.
    """
    while True:
        named = wanted.stamped(place)
        try:
            supersedes = check_file(place, named)
        except TargetExistsError:
            if wanted.timestamp_in_name and named.is_taken(place.store):
                continue  # by somebody who was faster, at that very time
            raise
        write_id = WriteId(secrets.token_hex(8))
        lock = _new_lock(named, providers, write_id)
        stored = _seal(data, lock, named, write_id)
        try:
            _put(place, named, stored)
        except VersionConflict:
            if wanted.timestamp_in_name:
                continue
            raise TargetExistsError(
                f"{place.url(named.file)} appeared meanwhile; pass overwrite=True or another name"
            ) from None
        _remove(place, supersedes)
        result = _result(place, named, stored, write_id, format_name)
        key_ids = () if lock is None else lock.key_ids
        made = AuditRecord.of(result, named.file, "write", key_ids, place.tuning.actor)
        record(place.store, made, place.tuning)
        return result


def update_artifact(
    place: Place,
    wanted: Wanted,
    change: Callable[[bytes | None], bytes],
    providers: Providers,
    *,
    format_name: str,
) -> WriterResult:
    """Replace a file by what `change` makes of its plain bytes, losing nobody else's change.

    `change` gets None for a file that is not there yet. Of a sealed file, all keys that open it
    go on doing so; an age file, which does not say who opens it, is encrypted anew to the public
    keys among `providers`.

    Raises
    ------
    InvalidTargetError
        It is damaged; or it is plain and a key is given.
    MissingKeyError, WrongKeyError
        It is encrypted and the key is missing or wrong.
    ConcurrentWriteError
        Others kept being faster for too long.
    """
    _check_other_form(place, wanted)  # also here, before there is a lock file
    check_update(place, wanted)
    write_id = WriteId(secrets.token_hex(8))

    def change_stored(stored: bytes | None) -> bytes:
        _check_other_form(place, wanted)  # now that nobody else can change this one
        if stored is None:
            return _seal(change(None), _new_lock(wanted, providers, write_id), wanted, write_id)
        lock, plain = _open(stored, wanted, providers)
        return _seal(change(plain), lock, wanted, write_id)

    stored = place.store.update(wanted.file, change_stored)
    return _result(place, wanted, stored, write_id, format_name)


def _check_other_form(place: Place, wanted: Wanted) -> None:
    others = wanted.other_files
    standing = place.store.files_among(others.values())
    for way, file in others.items():
        if file not in standing:
            continue
        url = place.url(file)
        if way is None:
            raise InvalidTargetError(
                f"{url} is not encrypted; leave encryption_key out to add to it, or write it anew "
                "with the key"
            )
        if wanted.sealed_as is None:
            raise MissingKeyError(f"{url} is encrypted; give its encryption_key")
        raise InvalidTargetError(
            f"{url} is encrypted in another way than this writer does it; add to it with a writer "
            "of its encryption_mode, or write it anew"
        )


def _put(place: Place, wanted: Wanted, stored: bytes) -> None:
    try:
        if wanted.overwrite:
            place.store.put(wanted.file, stored)
        else:
            place.store.put_if(wanted.file, stored, None)
    except VersionConflict:
        if _read(place, wanted) != stored:  # else a retry below us met our own file
            raise
    except TargetUnavailableError as error:
        if error.answered:
            raise
        if _read(place, wanted) != stored:
            raise CommitOutcomeUnknownError(
                f"the store did not say whether {place.url(wanted.file)} was written; "
                "look at it before writing again"
            ) from error


def _read(place: Place, wanted: Wanted) -> bytes | None:
    try:
        return place.store.read(wanted.file)
    except (TargetUnavailableError, FileNotFoundError):
        return None


def _remove(place: Place, supersedes: tuple[str, ...]) -> None:
    try:
        place.store.remove(supersedes)
    except TargetUnavailableError as error:
        logger.warning("written, but an earlier version could not be removed: %s", error)


def _new_lock(wanted: Wanted, providers: Providers, write_id: WriteId) -> _Lock | _AgeLock | None:
    if wanted.sealed_as is None:
        return None
    if wanted.sealed_as == "age":
        return _AgeLock(keys.age_recipients(providers))
    dataset_key = secrets.token_bytes(32)
    wrapped = keys.wrap_all(providers, dataset_key, manifest.key_context(write_id))
    return _Lock(dataset_key=Redacted(dataset_key), keyed_by=write_id, wrapped=wrapped)


def _seal(data: bytes, lock: _Lock | _AgeLock | None, wanted: Wanted, write_id: WriteId) -> bytes:
    return data if lock is None else lock.seal(data, wanted.file.rpartition("/")[2], write_id)


def _open(
    stored: bytes, wanted: Wanted, providers: Providers
) -> tuple[_Lock | _AgeLock | None, bytes]:
    if wanted.sealed_as is None:
        return None, stored
    if wanted.sealed_as == "age":
        return _AgeLock(keys.age_recipients(providers)), keys.open_age(providers, stored)
    try:
        held = parse_file_header(envelope.read_header(partial(_slice, stored)).fields)
        key = keys.unwrap_any(providers, held.wrapped, manifest.key_context(held.keyed_by))
        plain = envelope.open_sealed(stored, key)
    except EncryptionKeyError:
        raise
    except DataReadError as error:
        raise InvalidTargetError(f"the file is damaged and kept as it is: {error}") from error
    lock = _Lock(dataset_key=Redacted(key), keyed_by=held.keyed_by, wrapped=held.wrapped)
    return lock, plain


def _slice(data: bytes, start: int, end: int) -> bytes:
    return data[start:end]


def _result(
    place: Place, wanted: Wanted, stored: bytes, write_id: WriteId, format_name: str
) -> WriterResult:
    return WriterResult(
        path=present_path(place.url(wanted.file)),
        size_bytes=len(stored),
        timestamp=datetime.now(UTC),
        format=format_name,
        rows=None,
        partitions=1,
        write_id=write_id,
        encrypted=wanted.sealed_as is not None,
        manifest=None,
        checksum=f"sha256:{hashlib.sha256(stored).hexdigest()}",
    )
