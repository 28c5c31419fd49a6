"""The three nouns of a write: what was asked, what this run does, what was done.

``WriteSpec`` is what a caller asked for, ``RunSpec`` is that request bound to one write id,
one target and one schema, and ``PartRecord`` is what one part turned out to be.
``WriterResult`` is what the caller gets back.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NewType

import pyarrow as pa
from dask.utils import format_bytes
from upath import UPath

from pamola_dwriter.encryption import ParquetColumns, ParquetEncryption

WriteId = NewType("WriteId", str)
"""Identity of one call: 16 lowercase hex digits, in the name of every part it makes."""

SealedAs = Literal["pdw", "age"]
"""What encrypted files are: in the sealed format of this package, or age files. The value is also
the extension of their names."""

Attempt = NewType("Attempt", str)
"""Identity of one execution of one part's tasks: 8 lowercase hex digits."""

PartitionValues = tuple[tuple[str, str | None], ...]
"""The hive keys of a part, ``(column, value as text or None)``, in ``partition_on`` order."""


class Redacted:
    """Holds a value that must travel but must not show: no repr, no str, no format.

    Examples
    --------
    >>> Redacted({"secret": "hunter2"})
    Redacted(...)
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def reveal(self) -> Any:
        """Return the value; call this as late as possible and keep no reference."""
        return self._value

    def __repr__(self) -> str:
        return "Redacted(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Redacted) and bool(self._value == other._value)

    __hash__ = None  # type: ignore[assignment]  # holds mappings; never a dict key


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatSpec:
    """How partitions become bytes.

    Attributes
    ----------
    name : str
        A key of :data:`pamola_dwriter.formats.SERIALIZERS`.
    compression : str or None
        Codec inside the file (Parquet) or around it (CSV, JSON Lines).
    row_group_size : int or None
        Rows in a Parquet row group; ``None`` leaves pyarrow's default.
    options : mapping
        Remaining options, already checked by the serializer.
    """

    name: str
    compression: str | None = None
    row_group_size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSpec:
    """What a caller of ``write_dataframe`` asked for, checked but not yet bound to a run.

    Attributes
    ----------
    given : frozenset of str
        Options that the caller named, rather than leaving them to their defaults.
    age_recipients : tuple of str
        Public keys to encrypt to as age files; none for the sealed format, or a plain write.
    encryption : ParquetEncryption or None
        Encrypt inside Parquet files, rather than whole files.
    """

    name: str
    format: FormatSpec
    subdir: str = "output"
    timestamp_in_name: bool = False
    overwrite: bool = True
    append: bool = False
    resume: bool = False
    write_index: bool | None = None
    partition_on: tuple[str, ...] = ()
    single_file: bool | Literal["auto"] = "auto"
    target_part_size: int | None = None
    schema: pa.Schema | None = None
    given: frozenset[str] = frozenset()
    age_recipients: tuple[str, ...] = ()
    encryption: ParquetEncryption | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A dataset key wrapped by one key provider; safe to store and to show.

    Attributes
    ----------
    method : str
        How to unwrap: ``hkdf-sha256`` (32 raw bytes), ``argon2id`` (passphrase), ``hpke``, ``age``,
        ``awskms``, ``vault-transit``, or one of another package.
    key_id : str
        Which key wrapped it; says nothing about the key's value.
    parameters : mapping of str to str or int
        Salt, cost and ciphertext, as the method defines them; bytes are base64.
    """

    method: str
    key_id: str
    parameters: Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How the parts of one write are encrypted, and how a worker gets at the key.

    At most one of `provider` and `dataset_key` is set: a worker either resolves the
    provider itself, or is handed the key in a redacted value over a link that was checked. A
    single age file has neither: it is encrypted to public keys alone.

    Attributes
    ----------
    keyed_by : str
        The write whose id the wrapped keys are bound to: the first of a dataset, which those
        that append to it share the key with.
    age_recipients : tuple of str
        Public keys that every part is encrypted to as an age file; none for the sealed format.
    key_name : str
        Key of Parquet columns that this is; empty for the dataset key.
    parquet : ParquetSealing or None
        How the parts are encrypted inside, if that is how; the dataset key is the footer's.
    """

    wrapped: tuple[WrappedKey, ...]
    keyed_by: WriteId
    provider: str | None = None
    dataset_key: Redacted | None = None
    age_recipients: tuple[str, ...] = ()
    key_name: str = ""
    parquet: ParquetSealing | None = None

    @property
    def sealed_as(self) -> SealedAs:
        """What the parts are."""
        return "age" if self.age_recipients else "pdw"

    @property
    def carries_key(self) -> bool:
        """Whether a key travels with the tasks: that of the dataset, or one of columns."""
        columns = self.parquet.column_keys.values() if self.parquet else ()
        return self.dataset_key is not None or any(one.carries_key for one in columns)

    @property
    def shows_body(self) -> bool:
        """Whether the manifest, and the footers of the parts, can be read without a key."""
        return self.parquet is not None and self.parquet.layout.footer is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSealing:
    """How Parquet files are encrypted inside, and how a worker gets at the keys of columns.

    Attributes
    ----------
    column_keys : mapping of str to Sealing
        By key name; a reader has only those that its key opens.
    """

    layout: ParquetColumns
    column_keys: Mapping[str, Sealing]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Settings that travel with a run, so that all workers go by those of the client.

    Attributes
    ----------
    upload_part_size : int
        Bytes in one request of a multipart upload.
    bytes_in_flight : int
        Bytes that one process stores at the same time while it computes other partitions.
    inline_parts : int
        Parts listed in the manifest itself.
    retry_seconds : float
        How long a request that failed for a passing reason is tried again.
    lease_seconds : float
        How long a write counts as under way after its last sign of life.
    retain_seconds : float
        How long the parts of a version stay after another one replaced it.
    audit : bool
        Leave an audit record of each write.
    actor : str
        Who writes, as such a record says.
    """

    upload_part_size: int
    bytes_in_flight: int
    inline_parts: int
    retry_seconds: float
    lease_seconds: float
    retain_seconds: float
    audit: bool
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a write goes.

    Attributes
    ----------
    root : str
        URL or absolute path of the task directory.
    path : str
        Dataset directory, or artifact file, relative to `root`, with forward slashes.
    single_file : bool
        Whether `path` is one file (an artifact) rather than a directory of parts.
    storage_options : Redacted of dict
        Passed to fsspec; may hold credentials.
    """

    root: str
    path: str
    single_file: bool
    storage_options: Redacted

    @property
    def url(self) -> str:
        """The full path or URL of the dataset or artifact."""
        return f"{self.root.rstrip('/')}/{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run of one write: everything a task needs besides its partition.

    Attributes
    ----------
    append : bool
        Add parts to the version that stands at the commit, instead of replacing `expected`.
    follows : str or None
        A write that the version appended to must contain; None if any will do.
    expected : str or None
        Version token of the manifest seen when the write was prepared; ``None`` if absent.
    supersedes : tuple of str
        Files of the task directory in which the previous version stands under the same name
        in another form (plain or sealed, single file or not); removed after the commit.
    schema : pyarrow.Schema
        The schema every partition must have.
    unresolved : tuple of str
        Columns whose type only the data can tell (object dtype); the graph infers them from
        all partitions before the first one is serialized.
    frame : mapping
        What Arrow cannot say about the pandas frame (index, dtypes), JSON-ready; see
        :mod:`pamola_dwriter.formats.frame`.
    partitions : int
        Number of input partitions, each of which must be recorded exactly once.
    fingerprint : mapping of str to str, optional
        Digests of what a write must have in common with this one to resume it; None if it
        cannot be resumed.
    resumed : int
        Partitions that an interrupted run of this write had staged already.
    """

    write_id: WriteId
    target: Target
    format: FormatSpec
    overwrite: bool
    append: bool
    follows: WriteId | None = None
    expected: str | None
    supersedes: tuple[str, ...]
    schema: pa.Schema
    unresolved: tuple[str, ...]
    frame: Mapping[str, Any]
    partition_on: tuple[str, ...]
    partitions: int
    sealing: Sealing | None
    tuning: Tuning
    fingerprint: Mapping[str, str] | None = None
    resumed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One part that is durable but, until it is published, not visible.

    Attributes
    ----------
    path : str
        Final path relative to the dataset (the file name itself, for an artifact).
    partition : int
        Index of the input partition.
    values : tuple of (str, str or None)
        Hive keys of the part; empty without ``partition_on``.
    rows, size_bytes, plain_bytes : int
        Rows; bytes as stored; bytes before sealing.
    sha256 : str
        Hex digest of the stored bytes.
    staged : str
        The store's own token of what it staged; empty once published and forgotten.
    """

    path: str
    partition: int
    values: PartitionValues
    rows: int
    size_bytes: int
    plain_bytes: int
    sha256: str
    staged: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterResult:
    """What a committed write left behind.

    Attributes
    ----------
    path : pathlib.Path or upath.UPath
        The dataset directory, or the single file.
    size_bytes : int
        Bytes this write stored, all parts together, without the manifest.
    timestamp : datetime.datetime
        Time of the commit, UTC.
    format : str
        ``parquet``, ``csv``, ``json``, ``png``... A directory of parts is
        ``partitioned_parquet``, ``partitioned_csv`` and so on.
    rows : int or None
        Rows this write wrote; None for what has no rows, such as JSON or a figure.
    partitions : int
        Files it wrote them to.
    write_id : str
        Identity of the write; part of every part's name.
    encrypted : bool
        Whether the parts are sealed.
    manifest : pathlib.Path, upath.UPath or None
        The manifest; ``None`` for a single file.
    checksum : str
        ``sha256:`` and the hex digest of the manifest (which holds the digest of every
        part), or of the single file.
    resumed : int
        Partitions taken over from an interrupted write; see ``resume=True``.
    """

    path: Path | UPath
    size_bytes: int
    timestamp: datetime
    format: str
    rows: int | None
    partitions: int
    write_id: WriteId
    encrypted: bool
    manifest: Path | UPath | None
    checksum: str
    resumed: int = 0

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("path", str(self.path)),
            ("format", self.format + (", encrypted" if self.encrypted else "")),
            ("rows", "none" if self.rows is None else f"{self.rows:,}"),
            ("size", f"{format_bytes(self.size_bytes)} in {self.partitions:,} file(s)"),
            ("committed", self.timestamp.isoformat(timespec="seconds")),
            ("write id", self.write_id),
            ("checksum", self.checksum),
            *([("resumed", f"{self.resumed:,} partition(s)")] if self.resumed else []),
        ]

    def __repr__(self) -> str:
        lines = "\n".join(f"  {name + ':':<11}{value}" for name, value in self._facts())
        return f"<WriterResult\n{lines}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'><code>{html.escape(value)}</code></td></tr>"
            for name, value in self._facts()
        )
        return f"<table><caption>WriterResult</caption>{rows}</table>"
