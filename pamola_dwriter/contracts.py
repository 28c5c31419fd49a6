"""The protocols a new format, key provider or store implements, each in one file of its own.

A class becomes available by one line in the table of its package:
:data:`pamola_dwriter.formats.SERIALIZERS`, :data:`pamola_dwriter.keys.PROVIDERS`,
:data:`pamola_dwriter.storage.STORES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import pyarrow as pa

from pamola_dwriter.spec import FormatSpec, WrappedKey, WriteId


class Serializer(Protocol):
    """Turns one Arrow table into the bytes of one file, and back."""

    columnar: bool
    """Whether `load` reads only the byte ranges of the columns it is asked for."""

    def check_options(self, spec: FormatSpec) -> FormatSpec:
        """Return `spec` with defaults filled in.

        Raises
        ------
        InvalidWriteError
            An option is unknown to this format or has an impossible value.
        """
        ...

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise UnsupportedDataError, naming the column, if a type cannot be held."""
        ...

    def extension(self, spec: FormatSpec) -> str:
        """Return the file name extension, without a leading dot (``csv.gz``)."""
        ...

    def dumps(self, table: pa.Table, spec: FormatSpec) -> pa.Buffer:
        """Return the bytes of one file holding `table`."""
        ...

    def load(
        self, file: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None, spec: FormatSpec
    ) -> pa.Table:
        """Return a table with exactly `schema` (or its `columns`) from a seekable file."""
        ...


class KeyProvider(Protocol):
    """Wraps and unwraps dataset keys; the only thing that ever sees a long-lived key.

    One that is a public key, and so opens nothing, has an attribute ``can_open`` that is false.
    :class:`pamola_dwriter.testing.suite.KeyProviderSuite` holds a provider to all of this.
    """

    @property
    def uri(self) -> str | None:
        """What a worker can resolve by itself (``env:NAME``), or None if it cannot."""
        ...

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        """Wrap a 32-byte key, authenticated together with `context`.

        Raises
        ------
        InvalidKeyError
            `dataset_key` has another size; or the key is not available here, such as a service
            that is down: the message says what to change.
        """
        ...

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the 32-byte key.

        Raises
        ------
        WrongKeyError
            This provider's key did not wrap it, or `wrapped` or `context` was altered.
        IntegrityError
            `wrapped` has parameters that nobody can have written.
        InvalidKeyError
            The key is not available here.
        """
        ...


@dataclass(frozen=True, slots=True)
class Versioned:
    """Bytes of a small object together with a token of that exact version."""

    data: bytes
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file as a listing shows it, or an upload that was begun and neither completed nor aborted.

    Attributes
    ----------
    path : str
        Relative to the task directory.
    modified : float
        Seconds since the epoch by the clock of the store, which is nobody else's clock.
    upload : str or None
        Identity of the upload; None for a file.
    """

    path: str
    modified: float
    upload: str | None = None


class VersionConflict(Exception):
    """A conditional put found another version than expected; never leaves the package."""


class Store(Protocol):
    """A task directory on one kind of storage; all paths are relative to it.

    Every method is synchronous, may be repeated, and is safe to call from several threads.
    A failure of the storage is raised as
    :class:`~pamola_dwriter.errors.TargetUnavailableError`; an absent file as
    ``FileNotFoundError``.
    """

    @property
    def atomic(self) -> bool:
        """Whether `put_if` and `update` compare and write in one step, whoever else writes."""
        ...

    def check_writable(self, path: str) -> None:
        """Raise TargetUnavailableError unless `path` could be written; leave no trace."""
        ...

    def make_folders(self, paths: Collection[str]) -> None:
        """Make empty folders, where the store has such a thing."""
        ...

    def is_file(self, path: str) -> bool:
        """Return whether a file stands at `path`."""
        ...

    def files_among(self, paths: Collection[str]) -> set[str]:
        """Return at which of some paths a file stands; a store far away asks for all at once."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Return the files anywhere below directory `path`, relative to it, sorted."""
        ...

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        ...

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return bytes ``start:end`` of a file."""
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading by ranges: every read is one request of that range."""
        ...

    def read_versioned(self, path: str) -> Versioned | None:
        """Return a small file and its version, or None if absent."""
        ...

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        """Make `data` durable; return a token for `publish`, which is not empty.

        Nothing readers look at changes: a part may become visible here only where the store
        has no other way, and then under a name that no other attempt uses.
        """
        ...

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        """Make staged files visible, given ``{path: token}``; done ones are passed over.

        Raises
        ------
        VersionConflict
            `overwrite` is false and somebody else's file stands there.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a small file, atomically."""
        ...

    def note(self, path: str, data: bytes) -> None:
        """Write a new small file as cheaply as may be: after a crash it may be torn or gone."""
        ...

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        """Write a small file if its version is still `expected` (None: if absent).

        Raises
        ------
        VersionConflict
            It is not; or it is ours already and the reply was lost: read back to know.
        """
        ...

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace a small file by what `change` makes of its bytes; return those.

        `change` gets None for an absent file. It has no side effect, since it is called again
        when somebody else was faster; whatever it raises is passed on and changes nothing.
        Every update counts exactly once, whoever races and whatever reply is lost.

        Raises
        ------
        ConcurrentWriteError
            Others kept being faster for so long that this update gave up.
        CommitOutcomeUnknownError
            The store did not say whether it was written, nor could it be read back.
        """
        ...

    def survey(self, path: str) -> list[Found]:
        """Return every file and open upload anywhere below directory `path`."""
        ...

    def now(self) -> float:
        """Return the time by the clock that `survey` goes by; writes and deletes a probe."""
        ...

    def discard(self, found: Collection[Found]) -> None:
        """Delete files and abort uploads, and then folders that are left empty by writes.

        Those that are gone are passed over.
        """
        ...

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        """Return the paths of ``{path: token}`` that `publish` would make visible, or has.

        All of them are below `directory`.
        """
        ...

    def remove(self, paths: Collection[str]) -> None:
        """Delete files; absent ones are passed over."""
        ...

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        """Remove what `write_ids` staged or published under `directory`, except `keep`.

        `keep` holds paths relative to `directory`. Unfinished uploads count as staged.
        """
        ...

    def sweep_staged(self, write_id: WriteId) -> None:
        """Remove the single file that `write_id` staged and did not publish."""
        ...
