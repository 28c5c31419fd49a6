"""Turn what a caller asked into one run: everything checked, nothing changed."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from typing import Any, Self

import dask.dataframe as dd
import pandas as pd
from distributed import Client

from pamola_dwriter import formats, keys, manifest
from pamola_dwriter.cluster import computing_on
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    IntegrityError,
    InvalidTargetError,
    InvalidWriteError,
    TargetNotFoundError,
    UnsupportedVersionError,
)
from pamola_dwriter.frames import as_frame, has_index
from pamola_dwriter.graph.source import Source
from pamola_dwriter.keys.age import AgeIdentity, dataset_identity
from pamola_dwriter.locking import check_columns, lock_columns
from pamola_dwriter.opening import find_dataset
from pamola_dwriter.paths import Place
from pamola_dwriter.records import Kept
from pamola_dwriter.resuming import Interrupted, find_interrupted, fingerprint
from pamola_dwriter.settings import Settings
from pamola_dwriter.shapes import Shape, fit, shape_of
from pamola_dwriter.spec import Redacted, RunSpec, SealedAs, Sealing, Target, WriteId, WriteSpec
from pamola_dwriter.targets import Wanted, check_directory, check_file, holds_dataset
from pamola_dwriter.transit import choose_sealing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A run, its input, and what of it an interrupted run has done already."""

    source: Source
    run: RunSpec
    kept: Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lock:
    """The dataset key, and how workers get at it; both None for a plain dataset."""

    sealing: Sealing | None = None
    key: Redacted | None = None

    def reveal(self) -> bytes | None:
        return None if self.key is None else self.key.reveal()

    @classmethod
    def of_age_file(cls, write_id: WriteId, recipients: tuple[str, ...]) -> Self:
        """Return the lock of a single age file, which holds no key of ours."""
        return cls(sealing=Sealing(wrapped=(), keyed_by=write_id, age_recipients=recipients))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """The dataset that a write appends to, and the writes that made it."""

    shape: Shape
    lock: _Lock
    writes: tuple[WriteId, ...]


def bind(
    place: Place,
    spec: WriteSpec,
    data: Any,
    providers: tuple[KeyProvider, ...],
    client: Client | None,
    settings: Settings,
) -> Bound:
    """Bind a request to a frame, a target and a write id; reads the target, changes nothing.

    Raises
    ------
    UnsupportedDataError
        The data is no frame, or one the format cannot hold.
    SchemaMismatchError
        It does not fit the dataset it would be appended to.
    TargetExistsError
        The target exists and ``overwrite=False``, or is not ours.
    InvalidTargetError
        What stands there cannot be appended to.
    TargetUnavailableError
        The target cannot be written.
    EncryptionKeyError
        The key is malformed or unavailable, or would travel in the clear.
    InvalidWriteError
        There is an interrupted write, and it was of something else than this one resumes.
    ConcurrentWriteError
        The write to resume is still under way.
    """
    _check_reach(place, client)
    write_id = WriteId(secrets.token_hex(8))
    wanted = _wanted(place, spec, encrypted=bool(providers))
    base = _base(place, wanted, providers, client) if spec.append else None
    if base is not None and spec.write_index is None:
        spec = replace(spec, write_index=bool(base.shape.frame["index"]))
    with computing_on(client):
        # Some inputs are looked at, and partitions measured: on the cluster that will write.
        frame = as_frame(data)
        if spec.write_index is None and not has_index(data):
            spec = replace(spec, write_index=False)
        shape = shape_of(frame, spec)
        source, partitions = _partitions(frame, spec, write_id)
    if base is not None:
        shape = fit(shape, base.shape, spec)
    single_file = _is_single_file(place, spec, wanted, partitions)
    expected, supersedes = (
        (None, check_file(place, wanted)) if single_file else check_directory(place, wanted)
    )
    resumable = source.identity is not None and not single_file and spec.encryption is None
    interrupted = None
    if spec.resume:
        _check_resumable(source)
        if resumable:
            interrupted = find_interrupted(place, wanted.directory, providers, settings.tuning)
    if single_file and spec.age_recipients:
        lock = _Lock.of_age_file(write_id, spec.age_recipients)
    else:
        lock = base.lock if base else _lock(spec, shape, providers, client, write_id, interrupted)
    run = RunSpec(
        write_id=interrupted.entry.write_id if interrupted else write_id,
        target=Target(
            root=place.root,
            path=wanted.file if single_file else wanted.directory,
            single_file=single_file,
            storage_options=place.storage_options,
        ),
        format=shape.format,
        overwrite=wanted.overwrite,
        append=spec.append,
        expected=expected,
        supersedes=supersedes,
        schema=shape.schema,
        unresolved=shape.unresolved,
        frame=shape.frame,
        partition_on=shape.partition_on,
        partitions=1 if single_file else partitions,
        sealing=lock.sealing,
        tuning=settings.tuning,
        fingerprint=fingerprint(source.identity or (), shape, spec, lock.reveal())
        if resumable
        else None,
    )
    kept = _resume(place, run, interrupted, base) if spec.resume else Kept()
    return Bound(source=source, run=replace(run, resumed=len(kept.partitions)), kept=kept)


def _check_resumable(source: Source) -> None:
    if source.identity is None:
        raise InvalidWriteError(
            "resume=True goes on with the write of a Dask collection; a frame in memory is written "
            "anew: leave resume out"
        )


def _resume(
    place: Place, run: RunSpec, interrupted: Interrupted | None, base: _Base | None
) -> Kept:
    url = place.url(run.target.path)
    if interrupted is None:
        if run.append:
            raise InvalidTargetError(
                f"there is no interrupted append to {url}: either it was committed, as "
                "`pamola-dwriter show` tells, or never begun. Leave resume out to append"
            )
        logger.info("there is nothing to resume at %s; all of it is written", url)
        return Kept()
    has_committed = base is not None and run.write_id in base.writes
    interrupted.check(run.fingerprint or {}, url, has_committed=has_committed)
    kept = interrupted.keep(place, types_are_open=bool(run.unresolved))
    logger.info(
        "resuming write %s of %s: %d of %d partitions are kept",
        *(run.write_id, url, len(kept.partitions), run.partitions),
    )
    return kept


def _check_reach(place: Place, client: Client | None) -> None:
    if client is None or not place.root.startswith("memory://"):
        return
    if any(not address.startswith("inproc://") for address in client.nthreads()):
        raise InvalidWriteError(
            f"{place.root} is in the memory of this process, where the workers cannot write; "
            "choose a directory or store that all of them reach, or a client in this process"
        )


def _partitions(
    frame: pd.DataFrame | dd.DataFrame, spec: WriteSpec, write_id: WriteId
) -> tuple[Source, int]:
    if isinstance(frame, dd.DataFrame):
        collection: Any = frame
        if spec.target_part_size is not None:
            collection = frame.repartition(partition_size=str(spec.target_part_size))
        return Source.from_dask(collection), int(collection.npartitions)
    frames = [frame]
    if spec.target_part_size is not None and len(frame):
        size = max(int(frame.memory_usage(deep=True).sum()), 1)
        rows = max(1, len(frame) * spec.target_part_size // size)
        frames = [frame.iloc[start : start + rows] for start in range(0, len(frame), rows)]
    return Source.from_pandas(frames, f"pamola-input-{write_id}"), len(frames)


def _wanted(place: Place, spec: WriteSpec, *, encrypted: bool) -> Wanted:
    way: SealedAs = "age" if spec.age_recipients else "pdw"
    return Wanted(
        name=spec.name,
        subdir=spec.subdir,
        extension=formats.get(spec.format.name).extension(spec.format),
        sealed_as=way if encrypted else None,
        timestamp_in_name=spec.timestamp_in_name,
        overwrite=spec.overwrite,
        adds=spec.append,
        resumes=spec.resume,
    ).stamped(place)


def _is_single_file(place: Place, spec: WriteSpec, wanted: Wanted, partitions: int) -> bool:
    if spec.single_file != "auto":
        return spec.single_file
    if partitions > 1 or spec.partition_on or spec.target_part_size or spec.append:
        return False
    if spec.encryption is not None:
        return False  # a single file has no manifest to hold the keys
    # Else the dataset would go on standing beside the file, out of date.
    return not holds_dataset(place.store, wanted)


def _base(
    place: Place, wanted: Wanted, providers: tuple[KeyProvider, ...], client: Client | None
) -> _Base | None:
    url = place.url(wanted.directory)
    try:
        dataset = find_dataset(url, place.storage_options.reveal())
        if not dataset.shown.encrypted and providers:
            raise InvalidTargetError(
                f"{url} is not encrypted, so encrypted parts cannot be appended to it; leave "
                "encryption_key out, or write it anew"
            )
        encryption_key = providers or None
        committed = dataset.open(encryption_key)
        if committed.manifest.parquet is not None:
            raise InvalidTargetError(
                f"{url} was written with ParquetEncryption, and nothing can be appended to that; "
                "write it anew"
            )
    except TargetNotFoundError:
        return None
    except (IntegrityError, UnsupportedVersionError) as error:
        raise InvalidTargetError(f"{url} is kept as it is: {error}") from error
    held = committed.manifest
    shape = Shape(
        format=held.format, partition_on=held.partition_on, frame=held.frame, schema=held.schema
    )
    sealing = dataset.sealing(committed, encryption_key, client)
    lock = _Lock(sealing=sealing, key=committed.key)
    return _Base(shape=shape, lock=lock, writes=held.writes)


def _lock(
    spec: WriteSpec,
    shape: Shape,
    providers: tuple[KeyProvider, ...],
    client: Client | None,
    write_id: WriteId,
    interrupted: Interrupted | None,
) -> _Lock:
    if spec.encryption is not None:
        check_columns(spec.encryption, shape, providers, age=bool(spec.age_recipients))
        return _Lock(sealing=lock_columns(spec.encryption, providers, client, write_id))
    if not providers:
        return _Lock()
    if interrupted is not None and interrupted.key is not None:
        held = interrupted.entry
        keyed_by, wrapped = held.keyed_by or held.write_id, held.wrapped
        dataset_key = interrupted.key.reveal()
    else:
        dataset_key, keyed_by = secrets.token_bytes(32), write_id
        wrapped = keys.wrap_all(providers, dataset_key, manifest.key_context(write_id))
    sealing = choose_sealing(client, providers, wrapped, dataset_key, keyed_by)
    if spec.age_recipients:
        own = AgeIdentity(dataset_identity(dataset_key)).age_recipient
        sealing = replace(sealing, age_recipients=(*spec.age_recipients, own))
    return _Lock(sealing=sealing, key=Redacted(dataset_key))
