"""The lease of a dataset write: who writes what, and its last sign of life.

It stands in ``_staging/<write id>/lease.json`` while the write is under way, and is changed only on
the condition that it still is what was read. So when a commit and a garbage collection meet, one
of them wins and the other knows. Its age is told by the clock of the store alone: the clocks of
those who write and of those who collect need not agree.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any, Literal, get_args

from pamola_dwriter import keys, layout, untrusted
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    IntegrityError,
    PamolaWriterError,
    TargetUnavailableError,
    WriteFailedError,
)
from pamola_dwriter.spec import RunSpec, WrappedKey, WriteId

logger = logging.getLogger(__name__)

KIND = "pamola_dwriter.write"

State = Literal["live", "interrupted", "collected"]
"""Under way, or died without a word; known to have stopped; taken by a garbage collection."""

_STATES: dict[str, State] = {name: name for name in get_args(State)}

_TRIES = 20
"""Times to change a lease that others change too: its run, its commit, a collector."""

_SHORTEST_BEAT = 0.25

_CLOCK_STEP = 1.0
"""Seconds by which the clock of a store may seem to jump: S3 tells times in whole ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a lease says.

    Attributes
    ----------
    path : str
        The dataset that is written, relative to the task directory.
    fingerprint : mapping of str to str, or None
        As :attr:`~pamola_dwriter.spec.RunSpec.fingerprint`.
    keyed_by, wrapped : str and tuple of WrappedKey
        The key of an encrypted dataset; None and empty for a plain one.
    version : str or None
        Token of this very state of the lease; None if it was not read.
    """

    write_id: WriteId
    path: str
    state: State
    fingerprint: Mapping[str, str] | None
    keyed_by: WriteId | None
    wrapped: tuple[WrappedKey, ...]
    version: str | None = None

    @classmethod
    def of(cls, spec: RunSpec, state: State) -> Entry:
        """Return the entry of a run."""
        return cls(
            write_id=spec.write_id,
            path=spec.target.path,
            state=state,
            fingerprint=spec.fingerprint,
            keyed_by=spec.sealing.keyed_by if spec.sealing else None,
            wrapped=spec.sealing.wrapped if spec.sealing else (),
        )

    def dump(self) -> bytes:
        """Serialize it; parsed by :meth:`parse`."""
        document: dict[str, Any] = {
            "kind": KIND,
            "write_id": self.write_id,
            "path": self.path,
            "state": self.state,
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
            "keyed_by": self.keyed_by,
            "keys": [keys.wrapped_to_json(key) for key in self.wrapped],
            # No two renewals are equal: after a lost reply, what stands is compared with what
            # was sent.
            "beat": token_hex(4),
        }
        return json.dumps(document).encode()

    @classmethod
    def parse(cls, write_id: WriteId, data: bytes, version: str) -> Entry:
        """Parse what :meth:`dump` made, or raise IntegrityError."""
        try:
            document = untrusted.parse_json(data)
            if (document["kind"], document["write_id"]) != (KIND, write_id):
                raise IntegrityError(f"the lease of write {write_id} is that of something else")
            keyed_by = document["keyed_by"]
            return cls(
                write_id=write_id,
                path=untrusted.part_path(document["path"]),
                state=_STATES[document["state"]],
                fingerprint=_parse_fingerprint(document["fingerprint"]),
                keyed_by=None if keyed_by is None else untrusted.write_id(keyed_by),
                wrapped=tuple(keys.wrapped_from_json(key) for key in document["keys"]),
                version=version,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise IntegrityError(f"the lease of write {write_id} is damaged") from None


def _parse_fingerprint(found: Any) -> Mapping[str, str] | None:
    if found is not None and not all(isinstance(text, str) for text in found.values()):
        raise TypeError("fingerprint")
    return None if found is None else dict(found)


def read_lease(store: Store, write_id: WriteId) -> Entry | None:
    """Return what the lease of a write says now; None if it has none.

    Raises
    ------
    IntegrityError
        It is not one that we write.
    """
    present = store.read_versioned(layout.lease_path(write_id))
    return None if present is None else Entry.parse(write_id, present.data, present.version)


def seize(store: Store, entry: Entry) -> bool:
    """Take from a write what it staged; False if it has shown a sign of life since it was read."""
    taken = replace(entry, state="collected")
    try:
        store.put_if(layout.lease_path(entry.write_id), taken.dump(), entry.version)
    except VersionConflict:
        return False
    return True


def seconds_left(modified: float, now: float, span: float) -> float:
    """Return for how long a file is not yet older than `span` seconds; 0 or less if it is.

    Both times are of the clock of the store.
    """
    return modified + span + _CLOCK_STEP - now if span else 0.0


class Lease:
    """The claim of a run on what it stages."""

    def __init__(self, store: Store, spec: RunSpec) -> None:
        self._store = store
        self._spec = spec
        self._renewed = -math.inf

    def take(self) -> None:
        """Claim what this write staged or will stage.

        Raises
        ------
        WriteFailedError
            A garbage collection has taken it.
        """
        self._put("live", create=True)

    def confirm(self) -> None:
        """Renew the lease unless it is fresh; errors as :meth:`take`."""
        if time.monotonic() - self._renewed >= self._spec.tuning.lease_seconds / 2:
            self._put("live", create=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take it, renew it again and again until the block ends, and then remove it.

        When the block ends with an outcome that is unknown, it stays, and says that the write has
        stopped.
        """
        self._take_or_leave_nothing()
        try:
            with self._kept():
                yield
        except CommitOutcomeUnknownError:
            self._let_go()
            raise
        except DataWriteError:
            self._clear()
            raise
        self._clear()

    def _take_or_leave_nothing(self) -> None:
        try:
            self.take()
        except TargetUnavailableError:
            if not self._spec.resumed:  # else it can be resumed another time
                self._clear()
            raise

    @contextmanager
    def _kept(self) -> Iterator[None]:
        over = threading.Event()
        name = f"pamola-lease-{self._spec.write_id}"
        thread = threading.Thread(target=self._beat, args=(over,), name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _clear(self) -> None:
        """Remove it once more: a renewal may have come after the sweep of the commit.

        And Dask may have known the result without running anything, of a write computed before.
        """
        with suppress(PamolaWriterError):  # else garbage that nobody sees
            self._store.sweep_staged(self._spec.write_id)

    def _let_go(self) -> None:
        """Let nobody wait in vain to resume the write."""
        try:
            self._put("interrupted", create=False)
        except PamolaWriterError as error:
            logger.info("the lease of write %s has to run out: %s", self._spec.write_id, error)

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(max(self._spec.tuning.lease_seconds / 4, _SHORTEST_BEAT)):
            try:
                self._put("live", create=False)
            except TargetUnavailableError as error:
                logger.warning("write %s gives no sign of life: %s", self._spec.write_id, error)
            except PamolaWriterError:  # committed and swept; or collected, as the commit will find
                return

    def _put(self, state: State, *, create: bool) -> None:
        path = layout.lease_path(self._spec.write_id)
        for _ in range(_TRIES):
            begun = time.monotonic()
            present = read_lease(self._store, self._spec.write_id)
            if present.state == "collected" if present else not create:
                raise self.lost()
            data = Entry.of(self._spec, state).dump()
            with suppress(VersionConflict):
                self._store.put_if(path, data, present.version if present else None)
                self._renewed = begun
                return
        raise TargetUnavailableError(f"{path!r} changes all the time, whoever does that")

    def lost(self) -> WriteFailedError:
        """Return the error of a write that lost what it had staged."""
        return WriteFailedError(
            f"write {self._spec.write_id} of {self._spec.target.url} gave no sign of life for so "
            "long that a garbage collection took what it had staged; nothing was committed. "
            "Write again, and collect with a greater --older-than"
        )
