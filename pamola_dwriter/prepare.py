"""Turn what a caller asked into one run: everything checked, nothing changed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from distributed import Client

from pamola_dwriter import formats, keys, layout, manifest
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import (
    InvalidWriteError,
    TargetExistsError,
    UnsupportedDataError,
)
from pamola_dwriter.graph import Source
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import Redacted, RunSpec, Sealing, Target, WriteId, WriteSpec
from pamola_dwriter.transit import choose_sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a writer writes: its task directory, opened."""

    root: str
    storage_options: Redacted
    store: Store


def bind(
    place: Place,
    spec: WriteSpec,
    frame: pd.DataFrame | dd.DataFrame,
    encryption_key: Any,
    client: Client | None,
    settings: Settings,
) -> tuple[Source, RunSpec]:
    """Bind a request to a frame, a target and a write id; reads the target, changes nothing.

    Raises
    ------
    UnsupportedDataError
        The frame cannot be held by the format.
    TargetExistsError
        The target exists and ``overwrite=False``, or is not ours.
    TargetUnavailableError
        The target cannot be written.
    EncryptionKeyError
        The key is malformed or unavailable, or would travel in the clear.
    """
    _check_reach(place, client)
    meta = _meta(frame)
    described, schema, unresolved = _describe(meta, spec)
    write_id = WriteId(secrets.token_hex(8))
    source, partitions = _partitions(frame, spec, write_id)
    single_file = _is_single_file(spec, partitions)
    target = _target(place, spec, single_file, encrypted=encryption_key is not None)
    return source, RunSpec(
        write_id=write_id,
        target=target,
        format=spec.format,
        overwrite=spec.overwrite,
        expected=_check_target(place.store, target, spec),
        schema=schema,
        unresolved=unresolved,
        frame=described,
        partition_on=spec.partition_on,
        partitions=1 if single_file else partitions,
        sealing=_seal(encryption_key, client, write_id),
        upload_part_size=settings.upload_part_size,
        inline_parts=settings.inline_parts,
    )


def _check_reach(place: Place, client: Client | None) -> None:
    if client is None or not place.root.startswith("memory://"):
        return
    if any(not address.startswith("inproc://") for address in client.nthreads()):
        raise InvalidWriteError(
            f"{place.root} is in the memory of this process, where the workers cannot write; "
            "choose a directory or store that all of them reach, or a client in this process"
        )


def _meta(frame: object) -> pd.DataFrame:
    if isinstance(frame, pd.DataFrame):
        return frame.iloc[:0]
    meta = frame._meta if isinstance(frame, dd.DataFrame) else None
    if isinstance(meta, pd.DataFrame):
        return meta
    raise UnsupportedDataError(
        f"df must be a pandas or Dask DataFrame (pandas-backed), not {type(frame).__name__}"
    )


def _describe(
    meta: pd.DataFrame, spec: WriteSpec
) -> tuple[Mapping[str, Any], pa.Schema, tuple[str, ...]]:
    described = formats.describe(meta, _keeps_index(meta, spec))
    schema, unresolved = formats.infer_schema(meta, described)
    if spec.schema is not None:
        schema = formats.apply_user_schema(schema, spec.schema)
        unresolved = tuple(name for name in unresolved if name not in spec.schema.names)
    _check_partition_on(schema, described, spec)
    rest = [field for field in schema if field.name not in spec.partition_on]
    formats.get(spec.format.name).check_schema(pa.schema(rest, metadata=schema.metadata))
    return described, schema, unresolved


def _keeps_index(meta: pd.DataFrame, spec: WriteSpec) -> bool:
    if spec.write_index is not None:
        return spec.write_index
    numbers_rows = (
        meta.index.nlevels == 1
        and meta.index.name is None
        and pd.api.types.is_integer_dtype(meta.index.dtype)
    )
    return spec.format.name == "parquet" or not numbers_rows


def _check_partition_on(schema: pa.Schema, described: Mapping[str, Any], spec: WriteSpec) -> None:
    columns = {column["name"] for column in described["columns"]}
    if absent := [name for name in spec.partition_on if name not in columns]:
        raise InvalidWriteError(f"partition_on names {absent}, which the frame has no column for")
    if len(set(spec.partition_on)) != len(spec.partition_on):
        raise InvalidWriteError(f"partition_on names a column twice: {list(spec.partition_on)}")
    if spec.partition_on and columns <= set(spec.partition_on):
        raise InvalidWriteError("partition_on must leave at least one column to write")
    formats.check_hive_columns(schema, spec.partition_on)


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


def _is_single_file(spec: WriteSpec, partitions: int) -> bool:
    if spec.single_file == "auto":
        return partitions == 1 and not spec.partition_on and spec.target_part_size is None
    return spec.single_file


def _target(place: Place, spec: WriteSpec, single_file: bool, *, encrypted: bool) -> Target:
    name = spec.name
    if spec.timestamp_in_name:
        name = layout.timestamped(name, datetime.now(UTC))
    if single_file:
        name = f"{name}.{formats.get(spec.format.name).extension(spec.format)}"
        name += f".{layout.SEALED_EXTENSION}" if encrypted else ""
    return Target(
        root=place.root,
        path=layout.join(spec.subdir, name),
        single_file=single_file,
        storage_options=place.storage_options,
    )


def _check_target(store: Store, target: Target, spec: WriteSpec) -> str | None:
    """Return the version of the manifest that this write may replace."""
    if target.single_file:
        _check_file(store, target, spec)
        return None
    commit = layout.join(target.path, layout.MANIFEST)
    if store.is_file(target.path):
        raise TargetExistsError(f"{target.url} is a file; choose another name")
    store.check_writable(commit)
    files = store.listdir(target.path)
    if files and not spec.overwrite:
        raise _exists(target)
    if foreign := layout.foreign_files(files):
        raise TargetExistsError(
            f"{target.url} holds files this package did not write, such as {foreign[0]!r}; "
            "overwriting would mix or lose them. Choose another name"
        )
    present = store.read_versioned(commit)
    if present is None:
        return None
    manifest.parse_envelope(present.data)
    return present.version


def _check_file(store: Store, target: Target, spec: WriteSpec) -> None:
    store.check_writable(target.path)
    if store.listdir(target.path):
        raise TargetExistsError(f"{target.url} is a directory; choose another name")
    if not spec.overwrite and store.is_file(target.path):
        raise _exists(target)


def _exists(target: Target) -> TargetExistsError:
    return TargetExistsError(f"{target.url} exists; pass overwrite=True or another name")


def _seal(encryption_key: Any, client: Client | None, write_id: WriteId) -> Sealing | None:
    if encryption_key is None:
        return None
    providers = keys.resolve(encryption_key)
    dataset_key = secrets.token_bytes(32)
    wrapped = keys.wrap_all(providers, dataset_key, manifest.key_context(write_id))
    return choose_sealing(client, providers, wrapped, dataset_key, write_id)
