"""The tasks of a write: serialize, encrypt and put one partition, and gather their records.

Every function is top level, picklable, synchronous and safe to run twice: whoever fixes the
bytes of a part also draws a new attempt for its name, so that two runs never share a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

import pandas as pd
import pyarrow as pa
from distributed import get_worker
from distributed.sizeof import safe_sizeof

from pamola_dwriter import (
    envelope,
    formats,
    inflight,
    layout,
    manifest,
    overlap,
    sealing,
    storage,
)
from pamola_dwriter.envelope import agefile
from pamola_dwriter.events import TOPIC, PartitionStaged
from pamola_dwriter.formats.parquet_encryption import dumps_encrypted
from pamola_dwriter.records import Records, put_record
from pamola_dwriter.sealing import FileKeys
from pamola_dwriter.spec import (
    Attempt,
    PartitionValues,
    PartRecord,
    RunSpec,
    Sealing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The bytes of one part, in memory on a worker.

    Attributes
    ----------
    memory_bytes : int
        What the partition, of which this may be one part of several, took in memory.
    """

    path: str
    values: PartitionValues
    rows: int
    plain_bytes: int
    data: pa.Buffer
    memory_bytes: int

    def __sizeof__(self) -> int:
        return int(self.data.size)


def infer(partition: pd.DataFrame, index: int, spec: RunSpec) -> pa.Schema:
    """Find the types of the columns that the collection's meta leaves open."""
    return formats.infer_columns(partition, spec.frame, spec.unresolved, index)


def unify(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Find one type per open column that holds what every partition has."""
    return formats.unify(schemas)


def settled_schema(spec: RunSpec, resolved: pa.Schema | None) -> pa.Schema:
    """Return the schema of every part, given the types that the open columns turned out to have.

    Raises
    ------
    UnsupportedDataError
        The format cannot hold one of those.
    """
    if resolved is None:
        return spec.schema
    schema = formats.resolve(spec.schema, resolved)
    formats.check_hive_columns(schema, spec.partition_on)
    formats.get(spec.format.name).check_schema(schema)
    return schema


def combine(partitions: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate partitions into the one frame of a single-file output."""
    return pd.concat(partitions) if len(partitions) > 1 else partitions[0]


def serialize(
    partition: pd.DataFrame, index: int, spec: RunSpec, resolved: pa.Schema | None
) -> tuple[Piece, ...]:
    """Turn one partition into the plain bytes of its parts.

    Raises
    ------
    SchemaMismatchError
        The partition does not fit the schema; names partition and column, never a value.
    UnsupportedDataError
        As :func:`settled_schema`.
    """
    schema = settled_schema(spec, resolved)
    table = formats.to_arrow(partition, schema, spec.frame, index)
    return _cut(table, index, spec, safe_sizeof(partition))


def _cut(table: pa.Table, index: int, spec: RunSpec, memory_bytes: int) -> tuple[Piece, ...]:
    """Turn a table into the plain bytes of its parts."""
    attempt = _draw_attempt()
    pieces = []
    for number, (values, rows) in enumerate(_split(table, spec.partition_on)):
        path = _part_path(spec, index, attempt, number, values)
        data = _dump(rows, path, spec)
        pieces.append(
            Piece(
                path=path,
                values=values,
                rows=rows.num_rows,
                plain_bytes=data.size,
                data=data,
                memory_bytes=memory_bytes,
            )
        )
    return tuple(pieces)


def _dump(table: pa.Table, path: str, spec: RunSpec) -> pa.Buffer:
    """Return the bytes of one file; those of columns encrypted, if that is how it is done."""
    used = spec.sealing
    if used is None or used.parquet is None:
        return formats.get(spec.format.name).dumps(table, spec.format)
    lock = sealing.part_lock(used.parquet, used, spec.write_id, path)
    return dumps_encrypted(table, spec.format, lock)


def encrypt(pieces: tuple[Piece, ...], index: int, spec: RunSpec) -> tuple[Piece, ...]:
    """Seal the parts of one partition under the dataset key, or to the recipients of age."""
    if spec.sealing is None or spec.sealing.parquet is not None:
        return pieces
    attempt = _draw_attempt()
    done = []
    for number, piece in enumerate(pieces):
        path = _part_path(spec, index, attempt, number, piece.values)
        data = _encrypt_piece(piece.data, path, index, spec, spec.sealing)
        done.append(replace(piece, path=path, data=data))
    return tuple(done)


def _encrypt_piece(
    data: pa.Buffer, path: str, index: int, spec: RunSpec, used: Sealing
) -> pa.Buffer:
    if used.age_recipients:
        return pa.py_buffer(agefile.encrypt(data, used.age_recipients))
    header = _sealed_header(spec, used, index, path)
    return envelope.seal(data, sealing.open_sealing(used), header)


def put(
    pieces: tuple[Piece, ...], index: int, spec: RunSpec, resolved: pa.Schema | None
) -> Records:
    """Make the parts of one partition durable, not yet visible, and report them."""
    with inflight.working_on(spec.write_id, "put"):
        store = storage.open_target(spec)
        digests = [hashlib.sha256(piece.data).hexdigest() for piece in pieces]
        size = sum(piece.data.size for piece in pieces)
        with overlap.storing(size, spec.tuning.bytes_in_flight):
            parts = tuple(
                PartRecord(
                    path=piece.path,
                    partition=index,
                    values=piece.values,
                    rows=piece.rows,
                    size_bytes=piece.data.size,
                    plain_bytes=piece.plain_bytes,
                    sha256=digest,
                    staged=store.stage(_store_path(spec, piece.path), piece.data, spec.write_id),
                )
                for piece, digest in zip(pieces, digests, strict=True)
            )
            put_record(store, spec, index, parts, resolved)
    return keep(parts, index, spec, max((piece.memory_bytes for piece in pieces), default=0))


def keep(
    parts: tuple[PartRecord, ...], index: int, spec: RunSpec, memory_bytes: int = 0
) -> Records:
    """Report the parts of a partition that are staged."""
    _report(PartitionStaged.of(spec.write_id, index, parts, memory_bytes))
    return {index: parts}


def write_part(
    partition: pd.DataFrame, index: int, spec: RunSpec, resolved: pa.Schema | None
) -> Records:
    """Serialize, encrypt and put in one task, for collections of many small partitions."""
    with inflight.working_on(spec.write_id, "part"):
        pieces = serialize(partition, index, spec, resolved)
        return put(encrypt(pieces, index, spec), index, spec, resolved)


def write_table(table: pa.Table, index: int, spec: RunSpec) -> Records:
    """Write one part of a stream: a table that has the schema already."""
    with inflight.working_on(spec.write_id, "part"):
        pieces = _cut(table, index, spec, table.nbytes)
        return put(encrypt(pieces, index, spec), index, spec, None)


def gather(records: Sequence[Records]) -> Records:
    """Merge the records of several partitions."""
    return {index: parts for some in records for index, parts in some.items()}


def _store_path(spec: RunSpec, part: str) -> str:
    """Return the path of a part relative to the task directory."""
    return spec.target.path if spec.target.single_file else layout.join(spec.target.path, part)


def _draw_attempt() -> Attempt:
    return Attempt(token_hex(4))


def _part_path(
    spec: RunSpec, index: int, attempt: Attempt, number: int, values: PartitionValues
) -> str:
    if spec.target.single_file:
        return spec.target.path.rpartition("/")[2]
    extension = formats.get(spec.format.name).extension(spec.format)
    used = spec.sealing
    if used is not None and used.parquet is None:
        extension = f"{extension}.{used.sealed_as}"
    if used is not None and not used.shows_body:
        values = ()  # a value in a path would show what the part hides
    name = layout.part_name(index, spec.write_id, attempt, number, extension)
    return layout.join(layout.hive_directory(values), name)


def _sealed_header(spec: RunSpec, used: Sealing, index: int, path: str) -> dict[str, Any]:
    columnar = formats.get(spec.format.name).columnar
    return _own_header(spec, used, index, path) | (
        {"segment": envelope.SMALL_SEGMENT} if columnar else {}
    )


def _own_header(spec: RunSpec, used: Sealing, index: int, path: str) -> dict[str, Any]:
    if not spec.target.single_file:
        return manifest.sealed_header(spec.write_id, "part", path) | {"partition": index}
    return sealing.file_header(
        path,
        FileKeys(
            write_id=spec.write_id,
            keyed_by=used.keyed_by,
            wrapped=used.wrapped,
        ),
    )


def _split(
    table: pa.Table, partition_on: tuple[str, ...]
) -> Iterable[tuple[PartitionValues, pa.Table]]:
    """Cut a table by the values of its hive columns, which the parts then leave out."""
    if not partition_on:
        return [((), table)]
    texts = pd.DataFrame(
        {
            column: formats.to_text(table[column]).to_pandas().astype(object)
            for column in partition_on
        }
    )
    rest = table.drop_columns(list(partition_on))
    groups = texts.groupby(list(partition_on), dropna=False, sort=True).indices
    return [(_values(partition_on, key), rest.take(rows)) for key, rows in groups.items()]


def _values(partition_on: tuple[str, ...], key: Any) -> PartitionValues:
    values = key if isinstance(key, tuple) else (key,)
    return tuple(
        (column, value if isinstance(value, str) else None)
        for column, value in zip(partition_on, values, strict=True)
    )


def _report(event: PartitionStaged) -> None:
    try:
        worker = get_worker()
    except ValueError:  # Dask's threaded scheduler
        inflight.tell(event)
    else:
        worker.log_event(TOPIC, event.to_message())
