"""Records of the partitions that a write has staged, for the run that resumes it.

One file each in ``_staging/<write id>/``: JSON, sealed under the dataset key if there is one. They
are not synced to disk, since the worst that can come of one that is torn or gone is that its
partition is staged once more.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from secrets import token_hex
from typing import Any

import pyarrow as pa

from pamola_dwriter import envelope, layout, manifest, sealing, untrusted
from pamola_dwriter.contracts import Store
from pamola_dwriter.errors import DataReadError, TargetUnavailableError
from pamola_dwriter.spec import Attempt, PartRecord, RunSpec, WriteId

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 16

Records = Mapping[int, tuple[PartRecord, ...]]
"""Part records by input partition; a partition may have several parts, or none."""

_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A partition that is staged: its parts, and the types that its open columns have.

    Attributes
    ----------
    resolved : pyarrow.Schema or None
        None if no column was open.
    """

    partition: int
    parts: tuple[PartRecord, ...]
    resolved: pa.Schema | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a run need not do again, because an interrupted one has.

    Attributes
    ----------
    partitions : Records
        The parts that are staged, by partition.
    resolved : pyarrow.Schema or None
        As :attr:`Staged.resolved`, the same for all of them.
    """

    partitions: Records = field(default_factory=dict)
    resolved: pa.Schema | None = None


def put_record(
    store: Store,
    spec: RunSpec,
    partition: int,
    parts: Sequence[PartRecord],
    resolved: pa.Schema | None,
) -> None:
    """Note that a partition is staged, if the run can be resumed at all."""
    if spec.fingerprint is None:
        return
    path = layout.record_path(
        spec.write_id, partition, Attempt(token_hex(4)), sealed=spec.sealing is not None
    )
    document = {
        "partition": partition,
        "parts": [asdict(part) for part in parts],
        "resolved": None if resolved is None else base64.b64encode(resolved.serialize()).decode(),
    }
    data = json.dumps(document).encode()
    if spec.sealing is not None:
        header = manifest.sealed_header(spec.write_id, "record", path)
        data = envelope.seal(data, sealing.open_sealing(spec.sealing), header).to_pybytes()
    store.note(path, data)


def read_records(store: Store, write_id: WriteId, key: bytes | None) -> list[Staged]:
    """Return the records of a write; those that are torn or altered are passed over."""
    folder = layout.join(layout.STAGING, write_id)
    paths = [
        layout.join(folder, name)
        for name in store.listdir(folder)
        if layout.parse_record_path(name) is not None
    ]
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = pool.map(lambda path: _read_record(store, write_id, path, key), paths)
        return [record for record in found if record is not None]


def _read_record(store: Store, write_id: WriteId, path: str, key: bytes | None) -> Staged | None:
    try:
        data = store.read(path)
        if key is not None:
            expect = manifest.sealed_header(write_id, "record", path)
            data = bytes(envelope.open_sealed(data, key, expect=expect))
        return _parse(untrusted.parse_json(data), path)
    except TargetUnavailableError:
        raise
    except (DataReadError, FileNotFoundError, *_DAMAGED) as error:
        logger.info("%s is passed over: %s", path, type(error).__name__)
        return None


def _parse(document: Mapping[str, Any], path: str) -> Staged:
    if document["partition"] != layout.parse_record_path(path):
        raise ValueError(path)
    return Staged(
        partition=document["partition"],
        parts=tuple(untrusted.part_record(part, part["values"]) for part in document["parts"]),
        resolved=_parse_schema(document["resolved"]),
    )


def _parse_schema(text: str | None) -> pa.Schema | None:
    if text is None:
        return None
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
    except (pa.ArrowException, OSError) as error:
        raise ValueError("schema") from error
