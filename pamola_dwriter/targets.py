"""Decide which file or directory a write goes to, and check it; changes nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from pamola_dwriter import layout, manifest
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import DataReadError, InvalidTargetError, TargetExistsError
from pamola_dwriter.paths import Place
from pamola_dwriter.spec import SealedAs

_WAYS: tuple[SealedAs, ...] = get_args(SealedAs)

_DRAWN_KEPT = 10_000
_drawn: OrderedDict[str, None] = OrderedDict()
_drawing = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller wants to write: a name, and what may happen to what bears it already.

    Attributes
    ----------
    extension : str
        Of the single file, or of the parts; without a leading dot.
    sealed_as : str or None
        How a single file is encrypted, which adds an extension to its name; None if it is not.
    adds : bool
        Whether the write adds to what stands there, rather than replacing it.
    resumes : bool
        Whether parts without a manifest may be those of the write that this goes on with.
    """

    name: str
    subdir: str
    extension: str
    sealed_as: SealedAs | None
    timestamp_in_name: bool = False
    overwrite: bool = True
    adds: bool = False
    resumes: bool = False

    def stamped(self, place: Place) -> Wanted:
        """Return this with the time in its name, if wanted: to the second if that is free.

        Threads of this process never draw the same name, however long their writes take.
        """
        if not self.timestamp_in_name:
            return self
        exact = False
        while True:
            name = layout.timestamped(self.name, datetime.now(UTC), exact=exact)
            stamped = Wanted(
                name=name,
                subdir=self.subdir,
                extension=self.extension,
                sealed_as=self.sealed_as,
                overwrite=False,
            )
            if not stamped.is_taken(place.store) and _draw(place.url(stamped.directory)):
                return stamped
            exact = True

    @property
    def directory(self) -> str:
        """The dataset of this name."""
        return layout.join(self.subdir, self.name)

    @property
    def file(self) -> str:
        """The single file of this name."""
        return self._files[self.sealed_as]

    @property
    def other_files(self) -> dict[SealedAs | None, str]:
        """The single files that the name has when encrypted in another way, by that way."""
        return {way: file for way, file in self._files.items() if way != self.sealed_as}

    @property
    def _files(self) -> dict[SealedAs | None, str]:
        plain = f"{self.directory}.{self.extension}"
        return {None: plain} | {way: f"{plain}.{way}" for way in _WAYS}

    def is_taken(self, store: Store) -> bool:
        """Return whether anything bears this name, in whatever form."""
        return bool(store.files_among(self._files.values()) or store.listdir(self.directory))


def _draw(url: str) -> bool:
    """Return whether a name is drawn for the first time in this process, of late."""
    with _drawing:
        if url in _drawn:
            return False
        _drawn[url] = None
        while len(_drawn) > _DRAWN_KEPT:
            _drawn.popitem(last=False)
        return True


def check_file(place: Place, wanted: Wanted) -> tuple[str, ...]:
    """Check the single file of a name; return what it supersedes.

    Raises
    ------
    TargetExistsError
        It exists and must not be overwritten, or a dataset or directory bears its name.
    TargetUnavailableError
        It cannot be written.
    """
    place.store.check_writable(wanted.file)
    _check_nothing_else(place, wanted)
    return _superseded(place, wanted, [*wanted.other_files.values()], [wanted.file])


def check_update(place: Place, wanted: Wanted) -> None:
    """Check the single file of a name, of which a new version will be made; as `check_file`.

    Whether one that is there can be written is left to the update itself, which loses nothing
    if it cannot: each item of a log would pay for the question.
    """
    if not place.store.is_file(wanted.file):
        place.store.check_writable(wanted.file)
    _check_nothing_else(place, wanted)


def _check_nothing_else(place: Place, wanted: Wanted) -> None:
    """Refuse what would stand in a dataset, or beside something else of its name."""
    _check_outside_datasets(place, wanted)
    if place.store.listdir(wanted.file):
        raise TargetExistsError(f"{place.url(wanted.file)} is a directory; choose another name")
    if holds_dataset(place.store, wanted):
        raise TargetExistsError(
            f"{place.url(wanted.directory)} is a dataset of that name, which one file would leave "
            "standing; pass single_file=False to overwrite it, or choose another name"
        )


def check_directory(place: Place, wanted: Wanted) -> tuple[str | None, tuple[str, ...]]:
    """Check the dataset of a name; return the version of its manifest, and what it supersedes.

    Raises
    ------
    TargetExistsError
        It exists and must not be overwritten, or holds files of others.
    InvalidTargetError
        Its manifest is damaged, or was written by a newer release.
    TargetUnavailableError
        It cannot be written.
    """
    store, url = place.store, place.url(wanted.directory)
    commit = layout.join(wanted.directory, layout.MANIFEST)
    if store.is_file(wanted.directory):
        raise TargetExistsError(f"{url} is a file; choose another name")
    store.check_writable(commit)
    _check_outside_datasets(place, wanted)
    files = store.listdir(wanted.directory)
    stands = layout.MANIFEST in files if wanted.resumes else bool(files)
    if stands and not (wanted.overwrite or wanted.adds):
        raise _exists(url)
    if foreign := layout.foreign_files(files):
        raise TargetExistsError(
            f"{url} holds files this package did not write, such as {foreign[0]!r}; "
            "overwriting would mix or lose them. Choose another name"
        )
    present = store.read_versioned(commit)
    if present is not None:
        try:
            manifest.parse_envelope(present.data)
        except DataReadError as error:
            raise InvalidTargetError(f"{url} is kept as it is: {error}") from error
    single = [wanted.file, *wanted.other_files.values()]
    if not wanted.adds:
        superseded = _superseded(place, wanted, single, single)
    elif standing := sorted(store.files_among(single)):
        raise InvalidTargetError(
            f"{place.url(standing[0])} is a single file, which nothing can be appended to; write "
            "it anew with single_file=False, or choose another name"
        )
    else:
        superseded = ()
    return (present.version if present else None), superseded


def holds_dataset(store: Store, wanted: Wanted) -> bool:
    """Return whether a dataset bears the name."""
    return store.is_file(layout.join(wanted.directory, layout.MANIFEST))


def _superseded(
    place: Place, wanted: Wanted, others: Sequence[str], all_forms: Sequence[str]
) -> tuple[str, ...]:
    if wanted.overwrite:
        return tuple(sorted(place.store.files_among(others)))
    if standing := sorted(place.store.files_among({*others, *all_forms})):
        raise _exists(place.url(standing[0]))
    return ()


def _check_outside_datasets(place: Place, wanted: Wanted) -> None:
    """Refuse a file inside a dataset: the next overwrite of that would find it foreign."""
    steps = wanted.subdir.split("/") if wanted.subdir else []
    folders = ["/".join(steps[:depth]) for depth in range(len(steps) + 1)]
    commits = {layout.join(folder, layout.MANIFEST): folder for folder in folders}
    if standing := sorted(place.store.files_among(commits)):
        raise TargetExistsError(
            f"{place.url(commits[standing[0]]).rstrip('/')} is a dataset, and nothing else may lie "
            "in it; choose another subdir"
        )


def _exists(url: str) -> TargetExistsError:
    return TargetExistsError(f"{url} exists; pass overwrite=True or another name")
