"""Change which keys open what was written: a dataset, a single file, or all below a directory.

Reading order: :mod:`~pamola_dwriter.rotation.change` (which wrapped keys follow from what was
asked), then one module for each kind of target.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pamola_dwriter.errors import TargetNotFoundError
from pamola_dwriter.opening import find
from pamola_dwriter.paths import PathLike, open_place
from pamola_dwriter.rotation.change import Change
from pamola_dwriter.rotation.directories import rotate_directory, rotate_found
from pamola_dwriter.rotation.reports import (
    DirectoryRotationReport,
    FailedRotation,
    RotationReport,
)
from pamola_dwriter.settings import Settings

__all__ = ["DirectoryRotationReport", "FailedRotation", "RotationReport", "rotate_keys"]


def rotate_keys(
    path: PathLike,
    *,
    encryption_key: Any,
    to: Any = None,
    revoke: str | Collection[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> RotationReport | DirectoryRotationReport:
    """Let other keys open what is encrypted, and some no longer.

    Of a **dataset** only the manifest is written, in one step, whatever its size; no part is
    read. Reads and appends go on meanwhile, and another rotation at the same time counts as well.
    An overwrite that was begun before fails with ConcurrentWriteError: it would have put the keys
    back. The dataset key stays: whoever could open the dataset may have kept it, or a copy of the
    manifest, and opens with it the parts that stand and those appended later. Against them only
    writing the dataset anew helps. The parts of a dataset of age files stay encrypted to the
    public keys that they were written to.

    Of one written with :class:`~pamola_dwriter.ParquetEncryption`, keys in `to` open the columns
    that `encryption_key` opens, and no others; a key in `revoke` opens none any longer.

    A **single file** is sealed anew, under a fresh key that is wrapped for every key that stays;
    so these must all be given, or be revoked too. Where keys are only added, and one that stays
    is not given, the file keeps its key instead (``RotationReport.fresh_key``). Appends go on
    meanwhile, and none is lost. All of it passes through memory, up to four times its size.

    Of a **directory**, such as a task directory, every dataset and sealed single file in it is
    rotated, each on its own. What was done before an interruption is passed over when the same is
    asked again. Something written meanwhile may be missed, and whoever still writes with a
    revoked key brings it back: change the keys of the writers first.

    Parameters
    ----------
    path : str, path or UPath
        A dataset or single file, such as ``WriterResult.path``, or a directory with some.
    encryption_key : str, bytes, KeyProvider, or list of these
        One that opens it now; for a directory, one for each output in it.
    to : str, bytes, KeyProvider, or list of these, optional
        Keys to open it from now on, besides those that are not revoked.
    revoke : str or collection of str, optional
        Ids of keys to open it no longer, as in ``describe(path)["keys"]``. All passphrases have
        one id. A key in `to` is wrapped anew if what it opens is revoked.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    RotationReport or DirectoryRotationReport

    Raises
    ------
    TargetNotFoundError
        There is nothing.
    InvalidTargetError
        It is not encrypted, nor is anything in the directory; or it is an age file.
    MissingKeyError, WrongKeyError
        `encryption_key` does not open it.
    InvalidKeyError
        Nothing has a key of an id in `revoke`; or no key that was given would open it afterwards;
        or one that stays was not given for the fresh key of a single file.
    IntegrityError
        The manifest or file was altered.
    ConcurrentWriteError
        Others kept committing for so long that this was given up; it changed nothing.
    CommitOutcomeUnknownError
        The store did not say whether it was written. Another try does nothing twice.
    RotationIncompleteError
        One of these held for some of a directory; its ``report`` says what became of each.
    """
    change = Change.of(encryption_key, to, revoke)
    try:
        found = find(path, storage_options)
    except TargetNotFoundError:
        return rotate_directory(open_place(path, storage_options, Settings.load().tuning), change)
    return rotate_found(found, change, alone=True)
