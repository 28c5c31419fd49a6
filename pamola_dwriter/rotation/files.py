"""Change which keys open a sealed single file: it is sealed anew.

Its header holds the wrapped keys and is what the tags of its stream vouch for, so that it cannot be
exchanged alone. That is done by compare-and-set, as every other change of a single file is: an
append at the same time counts, and whatever the store takes for one file passes through memory.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from pamola_dwriter import envelope, layout, manifest
from pamola_dwriter.errors import (
    IntegrityError,
    InvalidKeyError,
    InvalidTargetError,
    TargetNotFoundError,
)
from pamola_dwriter.opening import Artifact
from pamola_dwriter.rotation.change import Change, DatasetKey, Wrapped
from pamola_dwriter.rotation.reports import RotationReport
from pamola_dwriter.sealing import FileKeys, file_header, parse_file_header
from pamola_dwriter.spec import WriteId


def is_plain(file: Artifact) -> bool:
    """Return whether a single file is not encrypted, nor was when it got its name."""
    return not file.encrypted and layout.plain_name(file.name) == file.name


def check_sealed(file: Artifact) -> FileKeys:
    """Return what the header of a sealed single file says of its key.

    Raises
    ------
    InvalidTargetError
        It is plain, or an age file.
    IntegrityError
        It does not begin as its name has it, or its header is damaged.
    DataReadError
        It is a part of a dataset.
    """
    if file.is_age:
        raise InvalidTargetError(
            f"{file.root} is an age file, which does not say who opens it; write it anew with "
            "the keys it is to have"
        )
    if is_plain(file):
        raise InvalidTargetError(
            f"{file.root} is not encrypted, so it has no keys to rotate; write it anew with "
            "encryption_key"
        )
    held = file.keys
    if held is None:
        raise IntegrityError(f"{file.root} is not encrypted, as its name has it: it was altered")
    return held


def rotate_file(file: Artifact, change: Change) -> RotationReport:
    """Rotate the keys of a single file; see :func:`pamola_dwriter.rotation.rotate_keys`."""
    step = _decide(file.root, check_sealed(file), change)
    if not step.changes:
        return step.report(None)
    done: dict[str, _Step] = {}

    def change_stored(stored: bytes | None) -> bytes:
        nonlocal step
        if stored is None:
            raise TargetNotFoundError(f"{file.root} was removed meanwhile")
        try:
            header = envelope.read_header(lambda start, end: stored[start:end])
            held = parse_file_header(header.fields)
            if held.keyed_by != step.held.keyed_by or held.wrapped != step.held.wrapped:
                step = _decide(file.root, held, change)
            step = replace(step, held=held)
            changed = _seal_anew(stored, header, held, step)
        except IntegrityError as error:
            error.say_first(file.root)
            raise
        done[manifest.checksum(changed)] = step
        return changed

    # What landed need not be what was made last: a reply may have been lost before.
    checksum = manifest.checksum(file.store.update(file.name, change_stored))
    return done[checksum].report(checksum)


@dataclass(frozen=True, slots=True)
class _Step:
    """The keys that a file has, and those that it is to have."""

    held: FileKeys
    old: DatasetKey
    new: DatasetKey
    keyed_by: WriteId
    wrapped: Wrapped
    added: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.added or self.revoked)

    def report(self, checksum: str | None) -> RotationReport:
        return RotationReport(
            write_id=self.held.write_id,
            added=self.added,
            revoked=self.revoked,
            key_ids=tuple(each.key_id for each in self.wrapped),
            checksum=checksum,
            fresh_key=self.new.value != self.old.value,
        )


def _decide(root: str, held: FileKeys, change: Change) -> _Step:
    """Draw a fresh key; where only keys are added, and not all that stay were given, keep the old.

    It cannot be wrapped under a key that was not given, which may stay only while it opens all
    that it ever did.
    """
    old = change.open(root, held.wrapped, manifest.key_context(held.keyed_by))
    revoked = change.revoked(held.wrapped, old)
    stays = tuple(each for each in held.wrapped if each not in revoked)
    kept = change.add(stays, old)
    if kept == held.wrapped:
        change.check(root, kept, old)
        return _Step(held, old, old, held.keyed_by, kept)
    keyed_by = WriteId(secrets.token_hex(8))
    new = DatasetKey(secrets.token_bytes(32), manifest.key_context(keyed_by))
    again = change.wrap_again(stays, old, new)
    known = tuple(each for each in again if each is not None)
    if len(known) == len(stays):
        wrapped = change.add(known, new)
    elif revoked:
        missing = sorted(a.key_id for a, b in zip(stays, again, strict=True) if b is None)
        raise InvalidKeyError(
            f"{', '.join(missing)} would go on opening {root}, but cannot be given the fresh key "
            "that revoking takes; give every key that stays, in `to` or encryption_key, or revoke "
            "it too"
        )
    else:
        new, keyed_by, wrapped = old, held.keyed_by, kept
    change.check(root, wrapped, new)
    return _Step(
        *(held, old, new, keyed_by, wrapped),
        added=tuple(each.key_id for each in wrapped[len(stays) :]),
        revoked=tuple(each.key_id for each in revoked),
    )


def _seal_anew(stored: bytes, header: envelope.SealedHeader, held: FileKeys, step: _Step) -> bytes:
    """Return a file under the keys of `step`, all of whose bytes have been authenticated."""
    if not step.changes:
        return stored
    reader = envelope.SealedReader(
        lambda start, end: stored[start:end], len(stored), step.old.value, header
    )
    keyed = FileKeys(write_id=held.write_id, keyed_by=step.keyed_by, wrapped=step.wrapped)
    fields = header.fields | file_header(header.fields["path"], keyed)
    sealed: bytes = envelope.seal(reader.read_buffer(), step.new.value, fields).to_pybytes()
    return sealed
