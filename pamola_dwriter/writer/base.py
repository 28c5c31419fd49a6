"""What all writes of a writer share: where it writes, with which key, and whom it tells."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from distributed import Client
from upath import UPath

from pamola_dwriter import keys, layout
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    DataWriteError,
    InvalidWriteError,
    MissingKeyError,
    NonAtomicStoreWarning,
)
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.paths import PathLike, open_place, present_path
from pamola_dwriter.request import check_flag, drop_strays
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, SealedAs, WriteId
from pamola_dwriter.subtask import Tracker, WriteSubtask, check_tracker
from pamola_dwriter.targets import Wanted

Logger = logging.Logger | logging.LoggerAdapter[Any]

PARAMETERS = frozenset({"name", "timestamp_in_name", "encryption_key", "overwrite"})
"""What most methods take; a keyword that is nearly one of these is a misspelling."""

_MODES = ("none", "simple", "age")
"""Modes of the reference library: ``age`` makes age files, any other the sealed format."""

_NOT_ATOMIC = (
    "the store of {} has no atomic create: if two processes write one dataset or change one "
    "document there at the same moment, both may report success, and the work of one is lost. Let "
    "only one write at a time and collect garbage only while none does, or use a local disk, S3, "
    "Azure or Google Cloud storage"
)


class WriterBase:
    """A task directory, opened for writing; see :class:`~pamola_dwriter.writer.DataWriter`."""

    def __init__(  # noqa: PLR0913 - the specified signature
        self,
        task_dir: PathLike,
        logger: Logger | None = None,
        progress_tracker: Tracker | None = None,
        use_encryption: bool | None = None,
        encryption_key: Any = None,
        encryption_mode: str | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        client: Client | None = None,
    ) -> None:
        check_flag("use_encryption", use_encryption)
        if encryption_mode not in (None, *_MODES):
            raise InvalidWriteError(
                f"encryption_mode must be one of {', '.join(_MODES)}, not {encryption_mode!r}"
            )
        if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
            raise InvalidWriteError(f"logger must be a Logger, not {type(logger).__name__}")
        self._logger = logging.getLogger("pamola_dwriter") if logger is None else logger
        self._tracker = check_tracker(progress_tracker)
        self._client = client
        settings = Settings.load()
        self._place = open_place(task_dir, storage_options, settings.tuning)
        self._use_encryption = use_encryption
        self._makes_age_files = encryption_mode == "age"
        self._encryption_key = Redacted(encryption_key)
        self._resolved: tuple[KeyProvider, ...] | None = None
        self._writes = WeakValueDictionary[WriteId, WriteFuture]()
        self._ensure_directories()
        if not self._place.store.atomic:
            warnings.warn(_NOT_ATOMIC.format(self._place.root), NonAtomicStoreWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place.root}>"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the key as its URI, or not at all: a writer may be caught in a task graph.

        Raises
        ------
        TypeError
            The key is a raw one, a passphrase or an age identity.
        """
        self._key(None)
        return {**vars(self), "_encryption_key": Redacted(None), "_writes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Another process has no part in the writes that were under way here."""
        vars(self).update(state, _writes=WeakValueDictionary[WriteId, WriteFuture]())

    @property
    def task_dir(self) -> Path | UPath:
        """The task directory: a Path, or a UPath without its storage options."""
        return present_path(self._place.root)

    def _ensure_directories(self) -> None:
        """Make the standard folders, where the store has folders."""
        self._place.store.make_folders(layout.FOLDERS)

    def _key(self, encryption_key: Any) -> tuple[KeyProvider, ...]:
        """Return the providers of one write's key; none if it is not encrypted."""
        if encryption_key is not None:
            return keys.resolve(encryption_key)
        if self._resolved is None:
            # Once, and not before a write needs it: a passphrase costs its derivation, and tasks
            # of the reference library make writers that never write, with what is no key.
            self._resolved = self._resolve_default()
        return self._resolved

    def _resolve_default(self) -> tuple[KeyProvider, ...]:
        default = self._encryption_key.reveal()
        if self._use_encryption is False or (default is None and not self._use_encryption):
            return ()
        if default is None:
            raise MissingKeyError("use_encryption=True needs an encryption_key")
        return keys.resolve(default)

    def _age_recipients(self, providers: tuple[KeyProvider, ...]) -> tuple[str, ...]:
        """Return the public keys to encrypt to, if that is how this writer does it."""
        return keys.age_recipients(providers) if providers and self._makes_age_files else ()

    def _sealed_as(self, providers: tuple[KeyProvider, ...]) -> SealedAs | None:
        if not providers:
            return None
        return "age" if self._age_recipients(providers) else "pdw"

    def _take(
        self,
        method: str,
        given: Mapping[str, Any],
        parameters: Collection[str],
        encryption_key: Any,
    ) -> dict[str, Any]:
        """Return the options among the keywords of a method; see :func:`drop_strays`.

        Raises
        ------
        MissingKeyError
            One of them asks for encryption, and there is no key.
        """
        options = drop_strays(given, method, parameters, self._logger)
        if given.get("use_encryption") is True and not self._key(encryption_key):
            raise MissingKeyError("use_encryption=True needs an encryption_key")
        return options

    @contextmanager
    def _reporting(self, action: str) -> Iterator[None]:
        """Log an error of ours, once, and let it say first what it is about."""
        try:
            yield
        except DataWriteError as error:
            self._report(action, error)
            raise

    def _report(self, action: str, error: DataWriteError) -> None:
        error.say_first(f"Failed to {action}")
        self._logger.error("%s", error)

    @contextmanager
    def _step(self, description: str) -> Iterator[None]:
        """Make what is done inside one subtask of the caller's tracker."""
        if self._tracker is None:
            yield
            return
        subtask = WriteSubtask(self._tracker, description, total=1)
        try:
            yield
        except BaseException:
            subtask.close("failed")
            raise
        subtask.close("committed")

    def _wanted(
        self,
        name: str,
        subdir: str | None,
        extension: str,
        providers: tuple[KeyProvider, ...],
        **flags: bool,
    ) -> Wanted:
        """Return the single file that is wanted, its name checked."""
        for flag, value in flags.items():
            check_flag(flag, value)
        return Wanted(
            name=layout.check_name(name),
            subdir=layout.check_subdir(subdir),
            extension=extension,
            sealed_as=self._sealed_as(providers),
            **flags,
        )
