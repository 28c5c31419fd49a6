"""Find an interrupted write of the same thing, and what of it need not be done again."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pamola_dwriter import keys, layout, manifest
from pamola_dwriter.contracts import KeyProvider, Store
from pamola_dwriter.errors import (
    ConcurrentWriteError,
    DataReadError,
    InvalidWriteError,
    MissingKeyError,
    WrongKeyError,
)
from pamola_dwriter.lease import Entry, read_lease, seconds_left
from pamola_dwriter.paths import Place
from pamola_dwriter.records import Kept, Staged, read_records
from pamola_dwriter.shapes import Shape
from pamola_dwriter.spec import PartRecord, Redacted, Tuning, WriteSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A write that was interrupted, and the dataset key it drew (None if it is plain)."""

    entry: Entry
    key: Redacted | None

    def check(self, fingerprint: Mapping[str, str], url: str, *, has_committed: bool) -> None:
        """Raise InvalidWriteError unless the write was of the same input, schema and options.

        A first append that `has_committed` is held to the input alone: the schema and options
        come from what stands by now, and that is what it wrote.
        """
        held = self.entry.fingerprint or {}
        names = ["input"] if has_committed else list(fingerprint)
        if different := [name for name in names if held.get(name) != fingerprint[name]]:
            raise InvalidWriteError(
                f"the interrupted write {self.entry.write_id} of {url} differs from this one in "
                f"its {' and '.join(different)}, so it cannot be resumed. Make the same call with "
                "the same input, or leave resume out to write anew"
            )

    def keep(self, place: Place, *, types_are_open: bool) -> Kept:
        """Return the partitions whose parts are all still staged."""
        key = None if self.key is None else self.key.reveal()
        records = read_records(place.store, self.entry.write_id, key)
        if types_are_open:
            records = [record for record in records if record.resolved is not None]
        standing = _standing(place.store, self.entry.path, records)
        partitions: dict[int, tuple[PartRecord, ...]] = {}
        for record in records:
            if all(_full(self.entry.path, part) in standing for part in record.parts):
                partitions.setdefault(record.partition, record.parts)
        resolved = records[0].resolved if partitions else None
        return Kept(partitions=partitions, resolved=resolved)


def find_interrupted(
    place: Place, directory: str, providers: tuple[KeyProvider, ...], tuning: Tuning
) -> Interrupted | None:
    """Return the last interrupted write of a dataset; waits for the lease of one that is silent.

    Raises
    ------
    ConcurrentWriteError
        It is not interrupted at all.
    InvalidWriteError
        One of the two is encrypted and the other is not.
    MissingKeyError, WrongKeyError
        It is encrypted, and there is no key, or another one.
    """
    found = _last_write(place.store, directory)
    if found is None:
        return None
    entry, modified = found
    if entry.state == "live" and not _has_ended(place, entry, modified, tuning):
        return None
    url = place.url(directory)
    if not entry.wrapped:
        if providers:
            raise InvalidWriteError(
                f"the interrupted write {entry.write_id} of {url} is not encrypted; leave "
                "encryption_key out to resume it, or resume to write anew"
            )
        return Interrupted(entry=entry, key=None)
    if not providers:
        raise MissingKeyError(
            f"the interrupted write {entry.write_id} of {url} is encrypted; give its encryption_key"
        )
    context = manifest.key_context(entry.keyed_by or entry.write_id)
    try:
        key = keys.unwrap_any(providers, entry.wrapped, context)
    except WrongKeyError as error:
        error.say_first(
            f"the interrupted write {entry.write_id} of {url} opens with a key that it was begun "
            "with, also where that was revoked since; give one of those beside the present key"
        )
        raise
    return Interrupted(entry=entry, key=Redacted(key))


def fingerprint(
    identity: Iterable[str], shape: Shape, spec: WriteSpec, key: bytes | None
) -> dict[str, str]:
    """Return digests of what two runs of one write have in common.

    Parameters
    ----------
    identity : iterable of str
        Tokens of the input; see :class:`~pamola_dwriter.graph.source.Source`.
    key : bytes or None
        The dataset key; with it nobody can guess what an encrypted dataset is made from.
    """
    kinds = {
        "input": list(identity),
        "schema": [shape.schema.serialize().to_pybytes().hex(), shape.frame, shape.unresolved],
        "options": [
            *(shape.format.name, shape.format.compression, shape.format.row_group_size),
            *(dict(shape.format.options), shape.partition_on, spec.append),
            *spec.age_recipients,
        ],
    }
    return {name: _digest(json.dumps(facts, default=str), key) for name, facts in kinds.items()}


def _digest(text: str, key: bytes | None) -> str:
    return hashlib.blake2b(text.encode(), key=key or b"", digest_size=16).hexdigest()


def _last_write(store: Store, directory: str) -> tuple[Entry, float] | None:
    for found in sorted(store.survey(layout.STAGING), key=lambda one: one.modified, reverse=True):
        write_id = layout.parse_staged(found.path)
        if write_id is None or found.path != layout.lease_path(write_id):
            continue
        try:
            entry = read_lease(store, write_id)
        except DataReadError as error:
            logger.warning("%s is passed over: %s", found.path, error)
            continue
        if entry is None or entry.path != directory or entry.fingerprint is None:
            continue
        if entry.state != "collected":
            return entry, found.modified
    return None


def _has_ended(place: Place, entry: Entry, modified: float, tuning: Tuning) -> bool:
    """Return whether a write died without a word, rather than ending while this waited."""
    left = seconds_left(modified, place.store.now(), tuning.lease_seconds)
    if left > 0:
        logger.warning(
            "write %s of %s gave a sign of life not long ago; waiting %.0f s to see whether it "
            "gives another",
            *(entry.write_id, place.url(entry.path), left),
        )
        time.sleep(left)
    now = read_lease(place.store, entry.write_id)
    if now is None or now.state == "collected":
        return False
    if now.version != entry.version and now.state == "live":
        raise ConcurrentWriteError(
            f"write {entry.write_id} of {place.url(entry.path)} is still under way; wait for it, "
            "or cancel it first"
        )
    return True


def _standing(store: Store, directory: str, records: Iterable[Staged]) -> set[str]:
    staged = {_full(directory, part): part.staged for record in records for part in record.parts}
    return store.find_staged(directory, staged)


def _full(directory: str, part: PartRecord) -> str:
    return layout.join(directory, part.path)
