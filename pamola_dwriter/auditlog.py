"""Who wrote what and when: one record of each committed write, in ``logs/_audit``.

Each is an object of its own, created once and never changed: none is lost however many write at
once, also where nothing can be appended to, and a store may lock them. The name is the id of the
write, so that a commit task that runs twice leaves one record. Rows and bytes stand in it in plain
text, also of an encrypted write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

from pamola_dwriter import layout
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.errors import IntegrityError, PamolaWriterError, UnsupportedVersionError
from pamola_dwriter.paths import PathLike, open_place
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec, Tuning, WriteId, WriterResult

logger = logging.getLogger(__name__)

_FORMAT = 1
_PRODUCERS = ("pamola_dwriter", "dask", "distributed", "pandas", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One committed write.

    Attributes
    ----------
    write_id : str
    committed : datetime.datetime
        Time of the commit, UTC.
    actor : str
        Who wrote: ``user@host`` of the client's process, or the setting ``actor``.
    operation : str
        ``create``, ``overwrite`` or ``append``; of a single file or document, ``write``.
    path : str
        Relative to the task directory.
    format : str
    encrypted : bool
    rows : int or None
        Rows that this write wrote; None for what has none.
    size_bytes, parts : int
        Stored bytes and files of this write.
    checksum : str
        As in the WriterResult.
    keys : tuple of str
        Method and id of every key that opens it, or public keys of age files; no secret.
    resumed : int
        Partitions taken over from an interrupted write.
    versions : mapping of str to str
        Of the packages that wrote it.
    """

    write_id: WriteId
    committed: datetime
    actor: str
    operation: str
    path: str
    format: str
    encrypted: bool
    rows: int | None
    size_bytes: int
    parts: int
    checksum: str
    keys: tuple[str, ...]
    resumed: int
    versions: Mapping[str, str]

    @classmethod
    def of(
        cls, result: WriterResult, path: str, operation: str, keys: tuple[str, ...], actor: str
    ) -> AuditRecord:
        """Record what a write returned."""
        return cls(
            write_id=result.write_id,
            committed=result.timestamp,
            actor=actor,
            operation=operation,
            path=path,
            format=result.format,
            encrypted=result.encrypted,
            rows=result.rows,
            size_bytes=result.size_bytes,
            parts=result.partitions,
            checksum=result.checksum,
            keys=keys,
            resumed=result.resumed,
            versions={name: version(name) for name in _PRODUCERS},
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values; parsed back by :meth:`from_json`."""
        return {"version": _FORMAT, **asdict(self), "committed": self.committed.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> AuditRecord:
        """Parse what :meth:`to_json` made.

        Raises
        ------
        UnsupportedVersionError
            A newer version of this package wrote it.
        KeyError, TypeError, ValueError, AttributeError
            It is no record.
        """
        fields = {name: value for name, value in values.items() if name != "version"}
        if values["version"] > _FORMAT:
            raise UnsupportedVersionError(
                f"an audit record has format version {values['version']}, and this pamola_dwriter "
                f"reads up to {_FORMAT}; install a newer one"
            )
        made = cls(**fields)
        moment = datetime.fromisoformat(values["committed"])
        return replace(made, committed=moment, keys=tuple(made.keys))


def record_frame(store: Store, result: WriterResult, spec: RunSpec) -> None:
    """Leave a record of a frame that is committed; as :func:`record`."""
    if spec.target.single_file:
        operation = "write"
    elif spec.append:
        operation = "append"
    else:
        operation = "create" if spec.expected is None else "overwrite"
    sealing = spec.sealing
    wrapped = sealing.wrapped if sealing else ()
    keys = [f"{key.method} {key.key_id}" for key in wrapped]
    if sealing is not None:
        keys += [f"age {recipient}" for recipient in sealing.age_recipients]
        columns = sealing.parquet.column_keys if sealing.parquet else {}
        keys += [
            f"{key.method} {key.key_id} ({name})"
            for name, own in columns.items()
            for key in own.wrapped
        ]
    record(
        store,
        AuditRecord.of(result, spec.target.path, operation, tuple(keys), spec.tuning.actor),
        spec.tuning,
    )


def record(store: Store, made: AuditRecord, tuning: Tuning) -> None:
    """Leave a record, unless that is turned off; a failure is logged and undoes nothing."""
    if not tuning.audit:
        return
    data = json.dumps(made.to_json(), indent=2, ensure_ascii=False).encode()
    try:
        store.put_if(layout.audit_path(made.write_id), data, None)
    except VersionConflict:
        return  # the commit task runs again, or the reply to the first try was lost
    except (PamolaWriterError, OSError) as error:
        logger.warning("write %s is committed, but has no audit record: %s", made.write_id, error)


def read_audit(
    task_dir: PathLike, *, storage_options: Mapping[str, Any] | None = None
) -> list[AuditRecord]:
    """Return the records of all writes to a task directory, the oldest first.

    Changes of JSON documents (``append_to_json_array``, ``merge_json_objects``) have none.

    Parameters
    ----------
    task_dir : str, Path or UPath
        An absent one has no records.
    storage_options : mapping, optional
        Passed to fsspec.

    Raises
    ------
    IntegrityError
        A record is damaged; the message names it.
    UnsupportedVersionError
        A newer version of this package wrote one.
    TargetUnavailableError
        The store cannot be read.
    """
    place = open_place(task_dir, storage_options, Settings.load().tuning)
    paths = [layout.join(layout.AUDIT, name) for name in place.store.listdir(layout.AUDIT)]
    found = [_parse(place.store, path) for path in paths if layout.is_audit(path)]
    return sorted(found, key=lambda one: (one.committed, one.write_id))


def _parse(store: Store, path: str) -> AuditRecord:
    try:
        made = AuditRecord.from_json(json.loads(store.read(path)))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise IntegrityError(f"the audit record {path} is damaged") from None
    if layout.audit_path(made.write_id) != path:
        raise IntegrityError(f"the audit record {path} is of another write")
    return made
