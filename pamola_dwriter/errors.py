"""Every error this package raises, grouped by what a caller can do about it.

::

    PamolaWriterError
    ├── DataWriteError                      the write did not commit
    │   ├── InvalidWriteError (ValueError)      change the arguments
    │   │   ├── InvalidNameError                    ... the name or subdirectory
    │   │   ├── UnknownFormatError                  ... the format
    │   │   └── UnsupportedDataError                ... the frame itself
    │   ├── SchemaMismatchError (ValueError)    a partition differs from the declared schema
    │   ├── TargetExistsError (FileExistsError) choose a name, or overwrite=True
    │   ├── InvalidTargetError (ValueError)     what stands there cannot be added to; it is kept
    │   ├── ConcurrentWriteError                another writer committed first: read, then retry
    │   ├── WriteFailedError                    a task failed: the cause is chained
    │   ├── WriteCancelledError                 somebody called cancel()
    │   ├── RotationIncompleteError             the keys of some were not rotated: see .report
    │   └── CommitOutcomeUnknownError           committed or not? look before you retry
    ├── DataReadError                       the read did not succeed
    │   ├── TargetNotFoundError (FileNotFoundError)
    │   ├── IntegrityError                      stored bytes are not what was written
    │   ├── DatasetReplacedError                overwritten while it was being read: read again
    │   └── UnsupportedVersionError             written by a newer version of this package
    └── both a DataWriteError and a DataReadError
        ├── InvalidPathError (ValueError)       change the path or its storage options
        ├── TargetUnavailableError (OSError)    mend the target, its credentials or its space
        └── EncryptionKeyError                  mend the key
            ├── MissingKeyError                     encrypted, and no key was given
            ├── InvalidKeyError (ValueError)        the key or its provider is malformed
            ├── WrongKeyError                       no key given opens it: one opaque error
            └── InsecureTransportError              the key would cross a network in the clear

*Failed* and *outcome unknown* are different types on purpose: after a failure nothing was
committed; after :class:`CommitOutcomeUnknownError` nothing was deleted either.
"""

from __future__ import annotations

import pickle
from typing import Any


class PamolaWriterError(Exception):
    """Base of every error of this package; pickles together with its cause."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "__cause__": _portable(self.__cause__)}

    def say_first(self, text: str) -> None:
        """Put `text` and a colon before the message."""
        self.args = (f"{text}: {self.args[0]}" if self.args else text, *self.args[1:])


def _portable(cause: BaseException | None) -> BaseException | None:
    """Return a cause that another process can load: its type and text, if not itself."""
    try:
        pickle.loads(pickle.dumps(cause))  # noqa: S301 - made on the line itself
    except Exception:  # noqa: BLE001 - whoever wrote the class may raise anything here
        return RuntimeError(f"{type(cause).__name__}: {cause}")
    return cause


class DataWriteError(PamolaWriterError):
    """A write did not commit; the previous version, if any, still stands."""


class InvalidWriteError(DataWriteError, ValueError):
    """The arguments of a write cannot be honoured; raised before any work starts."""


class InvalidNameError(InvalidWriteError):
    """A name or subdirectory is empty, absolute, or would leave the task directory."""


class UnknownFormatError(InvalidWriteError):
    """No serializer is registered under the requested format, or its package is broken."""


class UnsupportedDataError(InvalidWriteError):
    """The frame cannot be held by the requested format (column names, types, duplicates)."""


class SchemaMismatchError(DataWriteError, ValueError):
    """One partition does not fit the schema of its dataset.

    Attributes
    ----------
    partition : int or None
        Index of the offending partition.
    column : str or None
        Name of the offending column.
    """

    def __init__(
        self, message: str, *, partition: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(message)
        self.partition = partition
        self.column = column


class TargetExistsError(DataWriteError, FileExistsError):
    """The target exists and ``overwrite=False``, or it is not ours to overwrite."""


class InvalidTargetError(DataWriteError, ValueError):
    """What stands at the target is damaged, or of another kind than this write adds to.

    It is kept as it is: mend it, move it away, or choose another name.
    """


class ConcurrentWriteError(DataWriteError):
    """Another writer committed a version of this dataset first; nothing of ours remains."""


class WriteFailedError(DataWriteError):
    """A task of the write failed; the cause is chained and nothing was committed.

    Attributes
    ----------
    partitions : tuple of int
        Indices of the partitions that could not be computed or stored, if it was one of them.
    """

    def __init__(self, message: str, *, partitions: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.partitions = partitions


class WriteCancelledError(DataWriteError):
    """The write was cancelled before it committed."""


class RotationIncompleteError(DataWriteError):
    """The keys of some of what lies below a directory were not rotated; those of the rest were.

    Attributes
    ----------
    report : DirectoryRotationReport or None
        What was rotated, what was not, and why.
    """

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class CommitOutcomeUnknownError(DataWriteError):
    """The commit was sent and its outcome could not be read back; nothing was deleted."""


class DataReadError(PamolaWriterError):
    """Something written earlier could not be read."""


class TargetNotFoundError(DataReadError, FileNotFoundError):
    """There is no dataset or artifact at that path."""


class IntegrityError(DataReadError):
    """Stored bytes differ from what was written.

    Attributes
    ----------
    part : str or None
        Path of the offending part, relative to its dataset.
    """

    def __init__(self, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.part = part


class DatasetReplacedError(DataReadError):
    """The version being read was overwritten meanwhile, and what it consisted of is gone.

    Read again, which gets the version that stands. Where reads and overwrites often meet, set
    ``retain-seconds`` where it is written to as long as a read may take.
    """


class UnsupportedVersionError(DataReadError):
    """The manifest or sealed file has a version this release does not know."""


class InvalidPathError(DataWriteError, DataReadError, ValueError):
    """A path or its storage options cannot be used, whatever stands there."""


class TargetUnavailableError(DataWriteError, DataReadError, OSError):
    """The target cannot be reached, read or written: missing bucket, permission, disk full.

    Attributes
    ----------
    answered : bool
        Whether the store itself refused, so that the request certainly changed nothing.
    transient : bool
        Whether the failure may pass by itself: a lost connection, an overloaded server.
    """

    def __init__(self, message: str, *, answered: bool = True, transient: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        self.transient = transient


class NonAtomicStoreWarning(UserWarning):
    """The store of a task directory cannot write a file on the condition of what stands there.

    Of two processes that write the same dataset, or change the same document, at the same moment
    both may then report success, and the work of one of them is lost.
    """


class EncryptionKeyError(DataWriteError, DataReadError):
    """Base of everything that is wrong with a key, whether writing or reading."""


class MissingKeyError(EncryptionKeyError):
    """The dataset or artifact is encrypted and no key was given."""


class InvalidKeyError(EncryptionKeyError, ValueError):
    """A key or key provider is malformed, unknown or unavailable."""


class WrongKeyError(EncryptionKeyError):
    """None of the given keys opens this; deliberately says no more."""


class InsecureTransportError(EncryptionKeyError):
    """The dataset key would have to travel over an unencrypted network link."""
