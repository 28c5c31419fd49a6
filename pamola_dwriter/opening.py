"""Find the dataset or single file that stands at a path, and get at its key."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from distributed import Client

from pamola_dwriter import envelope, keys, layout, manifest, storage
from pamola_dwriter.cluster import current_client
from pamola_dwriter.columnkeys import parquet_sealing
from pamola_dwriter.contracts import Store
from pamola_dwriter.dataset import Committed, open_committed
from pamola_dwriter.envelope import agefile
from pamola_dwriter.errors import (
    DataReadError,
    IntegrityError,
    MissingKeyError,
    TargetNotFoundError,
)
from pamola_dwriter.manifest import Envelope
from pamola_dwriter.parts import PartSource
from pamola_dwriter.paths import PathLike, resolve_path
from pamola_dwriter.sealing import FileKeys, parse_file_header
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, Sealing, WrappedKey, WriteId
from pamola_dwriter.transit import choose_sealing

_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A directory with a manifest, which may still be sealed.

    Attributes
    ----------
    stored, version : bytes and str
        The manifest as stored, and the store's token of that very state.
    """

    root: str
    options: Redacted
    store: Store
    shown: Envelope
    stored: bytes
    version: str

    @property
    def wrapped(self) -> tuple[WrappedKey, ...]:
        """The wrapped keys the manifest shows; none if it is plain."""
        return _wrapped_keys(self.shown)

    def open(self, encryption_key: Any) -> Committed:
        """Open the manifest.

        Raises
        ------
        MissingKeyError, WrongKeyError
            It is encrypted and the key is missing or wrong.
        IntegrityError
            It was altered; or a key is given and it is not encrypted.
        """
        committed = open_committed(
            self.store, "", self.stored, partial(self._open_key, encryption_key)
        )
        if not committed.shown.encrypted:
            _refuse_downgrade(self.root, encryption_key)
        return committed

    def _open_key(self, encryption_key: Any, shown: Envelope) -> bytes | None:
        if encryption_key is None and shown.sealed is None:
            return None
        return _unwrap(self.root, _wrapped_keys(shown), shown.keyed_by, encryption_key)

    def source(
        self, committed: Committed, encryption_key: Any, client: Client | None
    ) -> PartSource:
        """Return what workers need to read the parts, the key within their reach."""
        document = committed.manifest
        return PartSource(
            root=self.root,
            storage_options=self.options,
            tuning=Settings.load().tuning,
            write_id=document.write_id,
            format=document.format,
            schema=document.schema,
            frame=document.frame,
            partition_on=document.partition_on,
            parquet=document.parquet,
            sealing=self.sealing(committed, encryption_key, current_client(client)),
        )

    def sealing(
        self, committed: Committed, encryption_key: Any, client: Client | None
    ) -> Sealing | None:
        """Return how workers get at the key of the dataset; None if it is plain."""
        if committed.key is None:
            return None
        providers = keys.resolve(encryption_key)
        sealing = choose_sealing(
            client,
            providers,
            _wrapped_keys(committed.shown),
            committed.key.reveal(),
            committed.shown.keyed_by,
        )
        return replace(
            sealing,
            age_recipients=committed.manifest.age_recipients,
            parquet=parquet_sealing(committed, providers, client),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A single file; `header` is None if it is not in the sealed format."""

    root: str
    name: str
    store: Store
    size: int
    header: envelope.SealedHeader | None
    is_age: bool

    @property
    def encrypted(self) -> bool:
        """Whether it takes a key to open it."""
        return self.is_age or self.header is not None

    @property
    def keys(self) -> FileKeys | None:
        """What the header of a sealed file says of its key; None if it is plain.

        Raises
        ------
        DataReadError
            It is a part of a dataset, which has none.
        IntegrityError
            The header is not one that we write.
        """
        if self.header is None:
            return None
        try:
            return parse_file_header(self.header.fields)
        except DataReadError as error:
            raise type(error)(f"{self.root}: {error}") from None

    @property
    def wrapped(self) -> tuple[WrappedKey, ...]:
        """The wrapped keys in the header of a sealed file."""
        return () if self.keys is None else self.keys.wrapped

    @property
    def write_id(self) -> WriteId | None:
        """The write that made a sealed file."""
        return None if self.keys is None else self.keys.write_id

    def open(self, encryption_key: Any) -> BinaryIO:
        """Open the plain bytes; errors as :meth:`Dataset.open`."""
        if self.is_age:
            return io.BytesIO(self._open_age(encryption_key))
        held = self.keys
        if self.header is None or held is None:
            _refuse_downgrade(self.root, encryption_key)
            return self.store.open(self.name)
        key = _unwrap(self.root, held.wrapped, held.keyed_by, encryption_key)
        read = partial(self.store.read, self.name)
        reader = envelope.SealedReader(read, self.size, key, self.header)
        return io.BufferedReader(reader, buffer_size=2**23)

    def _open_age(self, encryption_key: Any) -> bytes:
        if encryption_key is None:
            raise MissingKeyError(f"{self.root} is an age file; give an identity that opens it")
        providers = keys.resolve(encryption_key)
        return keys.open_age(providers, self.store.read(self.name))


def find(path: PathLike, storage_options: Mapping[str, Any] | None) -> Dataset | Artifact:
    """Find what stands at `path`.

    Raises
    ------
    TargetNotFoundError
        Neither a dataset nor a file does.
    """
    root, options = resolve_path(path, storage_options)
    dataset = _find_dataset(root, options)
    return _find_artifact(root, options) if dataset is None else dataset


def find_dataset(path: PathLike, storage_options: Mapping[str, Any] | None) -> Dataset:
    """Find a dataset, or raise TargetNotFoundError."""
    root, options = resolve_path(path, storage_options)
    dataset = _find_dataset(root, options)
    if dataset is None:
        raise TargetNotFoundError(
            f"there is no dataset at {root}: it has no {layout.MANIFEST}. "
            "A single file is opened with open_artifact"
        )
    return dataset


def find_artifact(path: PathLike, storage_options: Mapping[str, Any] | None) -> Artifact:
    """Find a single file, or raise TargetNotFoundError."""
    return _find_artifact(*resolve_path(path, storage_options))


def _find_dataset(root: str, options: Redacted) -> Dataset | None:
    store = storage.open_store(root, options, Settings.load().tuning)
    try:
        present = store.read_versioned(layout.MANIFEST)
    except _NOT_THERE:
        return None
    if present is None:
        return None
    shown = manifest.parse_envelope(present.data)
    return Dataset(
        root=root,
        options=options,
        store=store,
        shown=shown,
        stored=present.data,
        version=present.version,
    )


def _find_artifact(root: str, options: Redacted) -> Artifact:
    absent = TargetNotFoundError(f"there is neither a dataset nor a file at {root}")
    folder, _, name = root.rpartition("/")
    if folder.endswith(":/"):  # a bucket
        raise absent
    store = storage.open_store(folder or "/", options, Settings.load().tuning)
    if not store.is_file(name):
        raise absent
    size = store.size(name)
    head = store.read(name, 0, min(size, len(agefile.MAGIC)))
    sealed = head.startswith(envelope.MAGIC)
    header = envelope.read_header(partial(store.read, name)) if sealed else None
    return Artifact(
        root=root,
        name=name,
        store=store,
        size=size,
        header=header,
        is_age=head.startswith(agefile.MAGIC),
    )


def _wrapped_keys(shown: Envelope) -> tuple[WrappedKey, ...]:
    return tuple(keys.wrapped_from_json(key) for key in shown.wrapped)


def _unwrap(
    root: str, wrapped: tuple[WrappedKey, ...], keyed_by: WriteId, encryption_key: Any
) -> bytes:
    if encryption_key is None:
        raise MissingKeyError(f"{root} is encrypted; give its encryption_key")
    return keys.unwrap_any(keys.resolve(encryption_key), wrapped, manifest.key_context(keyed_by))


def _refuse_downgrade(root: str, encryption_key: Any) -> None:
    if encryption_key is not None:
        raise IntegrityError(
            f"{root} is not encrypted, though a key was given: it is not what was written "
            "with that key. Leave encryption_key out to read it all the same"
        )
