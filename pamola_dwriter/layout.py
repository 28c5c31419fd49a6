"""Every name this package makes, each with the function that parses it back.

A dataset looks like this; everything but the parts begins with ``_``, and what is not yet
published lies in ``_staging/<write id>/`` of the task directory::

    output/customers/
        part-00000-<write id>-<attempt>-000.parquet
        country=FR/part-00001-<write id>-<attempt>-000.parquet     (partition_on)
        _manifest.json            the commit
        _parts-<write id>-<attempt>.parquet     part table of a very wide dataset
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, get_args
from urllib.parse import quote, unquote

from pamola_dwriter.errors import InvalidNameError
from pamola_dwriter.spec import Attempt, PartitionValues, SealedAs, WriteId

MANIFEST = "_manifest.json"
STAGING = "_staging"
FOLDERS = ("output", "dictionaries", "logs", "visualizations")
"""Standard folders of a task directory; metrics and single figures lie in its root."""

AUDIT = "logs/_audit"
"""One record of each write; see :mod:`pamola_dwriter.auditlog`."""

SEALED_EXTENSION: SealedAs = "pdw"
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MAX_NAME_BYTES = 200
_COMMIT_FILES = frozenset({MANIFEST, f"{MANIFEST}.lock"})

Stage = Literal[
    "infer",
    "schema",
    "serialize",
    "encrypt",
    "put",
    "part",
    "keep",
    "gather",
    "count",
    "claim",
    "publish",
    "collect",
    "commit",
]
"""Stages of the graph, in order; ``part`` is serialize, encrypt and put fused into one, and
``keep`` takes over what an interrupted run has put.

Dask would show a stage named ``finalize`` as ``pamola``: it takes any word of eight letters that
begins with a to f for a hexadecimal token.
"""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\<>:"|?*]')
_PART = re.compile(
    r"part-(?P<partition>\d{5,})-(?P<write_id>[0-9a-f]{16})-(?P<attempt>[0-9a-f]{8})"
    r"-(?P<piece>\d{3,})\.(?P<extension>[a-z0-9.]+)",
    re.ASCII,
)
_PART_TABLE = re.compile(r"_parts-(?P<write_id>[0-9a-f]{16})(-[0-9a-f]{8})?\.[a-z.]+", re.ASCII)
_AUDIT_RECORD = re.compile(rf"(.+/)?{AUDIT}/[0-9a-f]{{16}}\.json", re.ASCII | re.DOTALL)
_LEASE = "lease.json"
_RECORD = re.compile(r"record-(?P<partition>\d{5,})-[0-9a-f]{8}\.json(\.pdw)?", re.ASCII)
_STAGED = re.compile(rf"{STAGING}/(?P<write_id>[0-9a-f]{{16}})/(?P<name>[^/]+)", re.ASCII)
_STAGED_NAME = re.compile(r".+\.[0-9a-f]{8}", re.ASCII | re.DOTALL)
_UPDATING = ".updating"
_PASSING = re.compile(
    rf"(.+/)?({STAGING}/(tmp|probe)-[0-9a-f]{{16}}|_[^/]+\{_UPDATING})", re.ASCII | re.DOTALL
)
_KEY = re.compile(r"pamola-(?P<stage>[a-z]+)-(?P<write_id>[0-9a-f]{16})")
_SECONDS, _EXACT = "%Y%m%d_%H%M%S", "%Y%m%d_%H%M%S_%f"
_TIMESTAMP = re.compile(
    r"(?P<name>.+?)_(?P<time>\d{8}_\d{6}(?P<exact>_\d{6})?)", re.ASCII | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class PartName:
    """The parsed name of a part file."""

    partition: int
    write_id: WriteId
    attempt: Attempt
    piece: int
    extension: str


def check_name(name: object, *, what: str = "name") -> str:
    """Return `name` if it is one safe path component.

    Raises
    ------
    InvalidNameError
        It is not text, empty, reserved (leading ``_`` or ``.``), longer than 200 bytes, or
        holds a separator, a control character or one that some file systems refuse.
    """
    if not isinstance(name, str):
        raise InvalidNameError(f"{what} must be a str, not {type(name).__name__}")
    if not name or name != name.strip():
        raise InvalidNameError(f"{what} {name!r} is empty or has blanks around it")
    if name.startswith(("_", ".")):
        raise InvalidNameError(f"{what} {name!r} must not begin with '_' or '.', which are ours")
    if found := _FORBIDDEN.search(name):
        raise InvalidNameError(f"{what} {name!r} must not contain {found.group()!r}")
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise InvalidNameError(f"{what} is longer than {MAX_NAME_BYTES} bytes; shorten it")
    return name


def check_subdir(subdir: object) -> str:
    """Return `subdir` as a relative path of safe components; ``""`` is the task root."""
    if subdir is None or subdir == "":
        return ""
    if not isinstance(subdir, str):
        raise InvalidNameError(f"subdir must be a str, not {type(subdir).__name__}")
    return "/".join(check_name(component, what="subdir") for component in subdir.split("/"))


def join(*components: str) -> str:
    """Join path components with forward slashes, leaving out empty ones."""
    return "/".join(component for component in components if component)


def temporary_path(token: str) -> str:
    """Name a file that is renamed at once; what is left of it was left by a killed process."""
    return join(STAGING, f"tmp-{token}")


def updating_name(name: str) -> str:
    """Name the file beside a file, by whose lock it is held, that is to take its place at once."""
    return f"_{name.removeprefix('_')}{_UPDATING}"


def probe_path(token: str) -> str:
    """Name a file that is deleted at once."""
    return join(STAGING, f"probe-{token}")


def staged_name(path: str, token: str) -> str:
    """Name what is staged to become `path`, in the staging folder of its write."""
    return f"{path.rpartition('/')[2]}.{token}"


def lease_path(write_id: WriteId) -> str:
    """Name the lease of a write; its folder is parsed back by :func:`parse_staged`."""
    return join(STAGING, write_id, _LEASE)


def audit_path(write_id: WriteId) -> str:
    """Name the audit record of a write; told from other files by :func:`is_audit`."""
    return join(AUDIT, f"{write_id}.json")


def is_audit(path: str) -> bool:
    """Return whether this is a file that :func:`audit_path` named, below any task directory."""
    return _AUDIT_RECORD.fullmatch(path) is not None


def record_path(write_id: WriteId, partition: int, attempt: Attempt, *, sealed: bool) -> str:
    """Name the record of a staged partition; parsed back by :func:`parse_record_path`."""
    name = f"record-{partition:05d}-{attempt}.json"
    return join(STAGING, write_id, f"{name}.{SEALED_EXTENSION}" if sealed else name)


def parse_record_path(path: str) -> int | None:
    """Return the partition of a record; None if `path` is not one."""
    found = _RECORD.fullmatch(path.rpartition("/")[2])
    return int(found["partition"]) if found else None


def parse_staged(path: str) -> WriteId | None:
    """Return the write that a file under ``_staging/`` belongs to; None if it is of none."""
    found = _STAGED.fullmatch(path)
    if found is None:
        return None
    name = found["name"]
    ours = name in (_LEASE, f"_{_LEASE}.lock") or _RECORD.fullmatch(name)
    return WriteId(found["write_id"]) if ours or _STAGED_NAME.fullmatch(name) else None


def is_passing(path: str) -> bool:
    """Return whether this is a file that lives for a moment.

    As named by :func:`temporary_path`, :func:`probe_path` and :func:`updating_name`.
    """
    return _PASSING.fullmatch(path) is not None


def part_name(
    partition: int, write_id: WriteId, attempt: Attempt, piece: int, extension: str
) -> str:
    """Name one part file, Spark style; parsed back by :func:`parse_part_name`."""
    return f"part-{partition:05d}-{write_id}-{attempt}-{piece:03d}.{extension}"


def parse_part_name(path: str) -> PartName | None:
    """Parse the file name at the end of `path`; None if it is not one of ours."""
    found = _PART.fullmatch(path.rpartition("/")[2])
    if found is None:
        return None
    return PartName(
        partition=int(found["partition"]),
        write_id=WriteId(found["write_id"]),
        attempt=Attempt(found["attempt"]),
        piece=int(found["piece"]),
        extension=found["extension"],
    )


def hive_directory(values: PartitionValues) -> str:
    """Return ``column=value/...`` with values percent-encoded, as pyarrow's hive does."""
    return "/".join(f"{quote(column, safe='')}={_hive_value(value)}" for column, value in values)


def _hive_value(value: str | None) -> str:
    if value is None:
        return HIVE_NULL
    # The text that stands for null is told from a null by encoding its first letter too.
    return quote(value, safe="").replace("_", "%5F", 1) if value == HIVE_NULL else quote(value, "")


def parse_hive_directory(directory: str) -> PartitionValues:
    """Parse what :func:`hive_directory` made."""
    pairs = (component.split("=", 1) for component in directory.split("/") if component)
    return tuple(
        (unquote(column), None if value == HIVE_NULL else unquote(value)) for column, value in pairs
    )


def plain_name(path: str) -> str:
    """Return a path without the extension that it has for being encrypted."""
    stem, _, extension = path.rpartition(".")
    return stem if extension in get_args(SealedAs) else path


def part_table_name(write_id: WriteId, attempt: Attempt, extension: str) -> str:
    """Name the file that holds the part table of a very wide dataset."""
    return f"_parts-{write_id}-{attempt}.{extension}"


def is_staged(path: str) -> bool:
    """Return whether a file is in a staging folder, also one below the task directory."""
    return STAGING in path.split("/")[:-1]


def lock_name(name: str) -> str:
    """Name the lock file beside a file; see :mod:`pamola_dwriter.storage.posix`.

    It is the lock of that file's :func:`updating_name` as well.
    """
    return f"_{name.removeprefix('_').removesuffix(_UPDATING)}.lock"


def is_lock(path: str) -> bool:
    """Return whether this is a file that :func:`lock_name` named."""
    name = path.rpartition("/")[2]
    return name.startswith("_") and name.endswith(".lock")


def write_id_of(path: str) -> WriteId | None:
    """Return the write that made a part or part table, or None for anything else."""
    if part := parse_part_name(path):
        return part.write_id
    table = _PART_TABLE.fullmatch(path.rpartition("/")[2])
    return WriteId(table["write_id"]) if table else None


def foreign_files(paths: Iterable[str]) -> list[str]:
    """Return those of the files below a dataset that are no part of it; audit records last."""
    foreign = [path for path in paths if write_id_of(path) is None and path not in _COMMIT_FILES]
    return sorted(foreign, key=is_audit)


def task_key(stage: Stage, write_id: WriteId) -> str:
    """Name a layer of the graph; Dask groups tasks by the part before the write id."""
    return f"pamola-{stage}-{write_id}"


def parse_task_key(key: object) -> tuple[str, WriteId, int | None] | None:
    """Parse a task key into (stage, write id, index); None if it is not one of ours."""
    name, index = (key[0], key[1]) if isinstance(key, tuple) and len(key) > 1 else (key, None)
    found = _parse_layer(name) if isinstance(name, str) else None
    return None if found is None else (*found, index if isinstance(index, int) else None)


@lru_cache(maxsize=1024)  # a scheduler asks for every transition of every task
def _parse_layer(name: str) -> tuple[str, WriteId] | None:
    found = _KEY.fullmatch(name)
    return (found["stage"], WriteId(found["write_id"])) if found else None


def timestamped(name: str, moment: datetime, *, exact: bool = False) -> str:
    """Append ``_YYYYMMDD_HHMMSS`` in UTC, with microseconds after it if `exact`.

    Parsed back by :func:`parse_timestamped`.
    """
    return f"{name}_{moment.astimezone(UTC).strftime(_EXACT if exact else _SECONDS)}"


def parse_timestamped(name: str) -> tuple[str, datetime] | None:
    """Parse what :func:`timestamped` made; None if `name` carries no timestamp."""
    found = _TIMESTAMP.fullmatch(name)
    if found is None:
        return None
    pattern = _EXACT if found["exact"] else _SECONDS
    try:
        moment = datetime.strptime(found["time"] + "+0000", f"{pattern}%z").astimezone(UTC)
    except ValueError:
        return None
    return found["name"], moment
