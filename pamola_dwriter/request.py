"""What a caller may ask of a write, checked as far as it can be without looking at anything."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypedDict

import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from pamola_dwriter import formats, layout
from pamola_dwriter.encryption import ParquetEncryption
from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.formats.parquet_encryption import check_supported
from pamola_dwriter.spec import FormatSpec, WriteSpec


class WriteOptions(TypedDict, total=False):
    """Options of ``write_dataframe`` and ``submit_dataframe`` beyond those of every write.

    Attributes
    ----------
    compression : str, optional
        Parquet: zstd (default), snappy, gzip, brotli, lz4, none. ORC: zstd (default), snappy,
        zlib, lz4, none. Arrow: lz4 (default), zstd, none. CSV, JSON and JSON Lines: none
        (default), gzip, zstd. Excel: none.
    row_group_size : int, optional
        Rows in a Parquet row group.
    write_index : bool, optional
        Whether the index is stored. Default: not if pandas made it by itself; else yes for
        Parquet and Arrow, as Dask does, and for other formats unless it is unnamed
        integers, which only number the rows. An append does as the dataset does.
    partition_on : str or list of str, optional
        Columns that become hive folders (and leave the files).
    single_file : bool or "auto", optional
        One file instead of a directory of parts. Default ``"auto"``: if there is one partition.
    target_part_size : int or str, optional
        Repartition to about so many bytes of memory each (``"128MB"``). Sizes are measured on
        the cluster first, as ``repartition(partition_size=...)`` does.
    schema : pyarrow.Schema, optional
        Types to enforce; columns it leaves out are inferred.
    format_options : mapping, optional
        ``delimiter`` for CSV, ``compression_level`` for Parquet.
    append : bool, default False
        Add to the dataset of that name, atomically, as a new version with the same schema; make
        it if there is none. Options given must be those of the dataset.
    resume : bool, default False
        Go on with the last write of this dataset that was interrupted, whose client, scheduler
        or cluster was lost: partitions that it staged are kept. It must have had the same input
        (a Dask collection, made the same way), schema and options; else this is refused. Without
        one that was interrupted, all is written; but not with ``append``, where nobody could
        tell whether it was committed.
    encryption : ParquetEncryption, optional
        Encrypt columns inside Parquet files, each group under a key of its own, rather than
        whole files. It makes a directory of parts, and goes without `append` and `resume`.
    """

    compression: str | None
    row_group_size: int | None
    write_index: bool | None
    partition_on: str | Sequence[str] | None
    single_file: bool | Literal["auto"]
    target_part_size: int | str | None
    schema: pa.Schema | None
    format_options: Mapping[str, Any]
    append: bool
    resume: bool
    encryption: ParquetEncryption | None


class StreamOptions(WriteOptions, total=False):
    """Options of ``open_stream``: those of a dataset, and when a part or a version ends.

    Attributes
    ----------
    part_rows : int, optional
        End a part at so many rows.
    part_bytes : int or str, default "128MB"
        End a part at so many bytes in memory.
    part_seconds : float, str or timedelta, optional
        End a part so long after its first row (``30``, ``"5min"``).
    commit_every : float, str or timedelta, optional
        Commit so often, each time a whole version; default only at the end.
    """

    part_rows: int | None
    part_bytes: int | str | None
    part_seconds: float | str | timedelta | None
    commit_every: float | str | timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a stream ends a part, and when it commits what it has.

    Attributes
    ----------
    rows, size_bytes : int or None
        End a part at so many rows, or at so many bytes in memory.
    seconds : float or None
        End a part so long after its first row.
    commit_every : float or None
        Seconds between two commits; None commits at the end only.
    """

    rows: int | None
    size_bytes: int | None
    seconds: float | None
    commit_every: float | None

    @property
    def tick(self) -> float | None:
        """Seconds between two looks at the clock; None if no time was given."""
        spans = [span for span in (self.seconds, self.commit_every) if span is not None]
        return min(spans) / 4 if spans else None


OPTIONS = frozenset(WriteOptions.__annotations__)
STREAM_OPTIONS = frozenset(StreamOptions.__annotations__) - OPTIONS

_ALIKE = 0.85
"""Similarity (``difflib``) from which an unknown keyword is a misspelling of one of ours: it
catches ``compresion`` and ``overwrit``, and lets ``encryption_mode`` pass beside
``encryption_key``."""

_SYNONYMS = {
    "index": "write_index",
    "partition_by": "partition_on",
    "partition_cols": "partition_on",
}
"""What pandas and others call an option of ours."""

_SECRETS = frozenset({"encrypt", "encryption", "encryption_password", "passphrase", "password"})
"""Keywords that ask for encryption, in other words than ours: never to be passed over."""


def drop_strays(
    given: Mapping[str, Any],
    method: str,
    parameters: Collection[str],
    logger: logging.Logger | logging.LoggerAdapter[Any],
) -> dict[str, Any]:
    """Return those of the `given` keywords that are options of ours.

    Operations forward their own keywords to whatever writer they have. One that is no option is
    logged at debug level and left out; one that is nearly an option is taken for a misspelling.

    Parameters
    ----------
    parameters : collection of str
        All that the method takes: options, and the parameters in its signature.

    Raises
    ------
    InvalidWriteError
        A keyword is misspelt.
    """
    options = {}
    for name, value in given.items():
        known = _SYNONYMS.get(name, name)
        if known in parameters:
            options[known] = value
        elif name in _SECRETS and value not in (None, False):
            raise InvalidWriteError(f"unknown keyword {name!r}; the key is encryption_key")
        elif alike := difflib.get_close_matches(name, parameters, n=1, cutoff=_ALIKE):
            raise InvalidWriteError(f"unknown keyword {name!r}; did you mean {alike[0]!r}?")
        else:
            logger.debug("%s ignores the keyword %r", method, name)
    return options


def check_request(
    name: object,
    format_name: object,
    subdir: object,
    options: WriteOptions,
    *,
    timestamp_in_name: bool,
    overwrite: bool,
) -> WriteSpec:
    """Return what was asked, or say what is wrong with it.

    Raises
    ------
    InvalidWriteError
        A name, the format or an option is wrong.
    """
    append, resume = options.get("append", False), options.get("resume", False)
    flags = {
        "timestamp_in_name": timestamp_in_name,
        "overwrite": overwrite,
        "append": append,
        "resume": resume,
        "write_index": options.get("write_index"),
    }
    for flag, value in flags.items():
        check_flag(flag, value)
    spec = WriteSpec(
        name=layout.check_name(name),
        subdir=layout.check_subdir(subdir),
        format=_check_format(format_name, options),
        write_index=options.get("write_index"),
        partition_on=_check_columns(options.get("partition_on")),
        single_file=_check_single_file(options.get("single_file", "auto")),
        target_part_size=_check_size("target_part_size", options.get("target_part_size")),
        schema=_check_schema(options.get("schema")),
        append=bool(append),
        resume=bool(resume),
        encryption=_check_encryption(options.get("encryption")),
        given=frozenset(name for name, value in options.items() if value is not None),
        timestamp_in_name=timestamp_in_name,
        overwrite=overwrite,
    )
    if spec.append and (spec.single_file is True or spec.timestamp_in_name):
        raise InvalidWriteError("append=True excludes single_file=True and timestamp_in_name")
    if spec.resume and (spec.single_file is True or spec.timestamp_in_name):
        raise InvalidWriteError(
            "resume=True excludes single_file=True and timestamp_in_name; give the name in full"
        )
    if spec.encryption is not None:
        _check_encrypts(spec, spec.encryption)
    if spec.single_file is True and (spec.partition_on or spec.target_part_size):
        raise InvalidWriteError("single_file=True excludes partition_on and target_part_size")
    return spec


def _check_encrypts(spec: WriteSpec, encryption: ParquetEncryption) -> None:
    if spec.format.name != "parquet":
        raise InvalidWriteError(
            f"encryption=ParquetEncryption(...) needs format='parquet', not {spec.format.name!r}"
        )
    if spec.append or spec.resume or spec.single_file is True:
        raise InvalidWriteError("encryption excludes append=True, resume=True and single_file=True")
    encrypted = {name for names in encryption.columns.values() for name in names}
    if shown := [name for name in spec.partition_on if name in encrypted]:
        raise InvalidWriteError(
            f"partition_on would show the values of {shown} in the paths of the parts; leave them "
            "out of it, or give them no key"
        )
    check_supported()


def check_flag(name: str, value: object) -> None:
    """Raise InvalidWriteError unless `value` is True, False or None: "no" would count as true."""
    if value is not None and not isinstance(value, bool):
        raise InvalidWriteError(f"{name} must be True or False, not {value!r}")


def check_pace(options: Mapping[str, Any]) -> Pace:
    """Return when a stream ends parts and versions.

    Raises
    ------
    InvalidWriteError
        A number of rows, bytes or seconds is none, or not above zero.
    """
    rows = options.get("part_rows")
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise InvalidWriteError(f"part_rows must be a number of rows above 0, not {rows!r}")
    return Pace(
        rows=rows,
        size_bytes=_check_size("part_bytes", options.get("part_bytes", "128MB")),
        seconds=_check_optional_seconds("part_seconds", options.get("part_seconds")),
        commit_every=_check_optional_seconds("commit_every", options.get("commit_every")),
    )


def _check_optional_seconds(name: str, span: Any) -> float | None:
    return None if span is None else check_seconds(name, span)


def check_seconds(name: str, span: Any, *, zero: bool = False) -> float:
    """Return a span in seconds, given so or as text or timedelta.

    Raises
    ------
    InvalidWriteError
        It is no span of time, is negative, or is none at all unless `zero`.
    """
    try:
        seconds = span if isinstance(span, int | float) else pd.Timedelta(span).total_seconds()
    except (ValueError, TypeError):
        seconds = -1
    if isinstance(span, bool) or not 0 <= seconds < math.inf or (seconds == 0 and not zero):
        raise InvalidWriteError(f"{name} must be seconds or '5min', not {span!r}")
    return float(seconds)


def _check_encryption(encryption: object) -> ParquetEncryption | None:
    if encryption is not None and not isinstance(encryption, ParquetEncryption):
        # It is not shown: it may well be a key.
        raise InvalidWriteError(
            f"encryption must be a ParquetEncryption, not {type(encryption).__name__}"
        )
    return encryption


def _check_columns(columns: object) -> tuple[str, ...]:
    listed = [columns] if isinstance(columns, str) else columns
    if listed is None:
        return ()
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise InvalidWriteError(f"partition_on must be a column name or a list, not {columns!r}")
    return tuple(listed)


def _check_single_file(choice: object) -> bool | Literal["auto"]:
    if isinstance(choice, bool):
        return choice
    if choice != "auto":
        raise InvalidWriteError(f"single_file must be True, False or 'auto', not {choice!r}")
    return "auto"


def _check_schema(schema: object) -> pa.Schema | None:
    if schema is not None and not isinstance(schema, pa.Schema):
        raise InvalidWriteError(f"schema must be a pyarrow.Schema, not {type(schema).__name__}")
    return schema


def _check_format(name: object, options: WriteOptions) -> FormatSpec:
    if not isinstance(name, str):
        raise InvalidWriteError(f"format must be a str, not {type(name).__name__}")
    given = options.get("format_options") or {}
    if not isinstance(given, Mapping):
        raise InvalidWriteError(f"format_options must be a mapping, not {type(given).__name__}")
    serializer = formats.get(name)
    asked = FormatSpec(
        name=formats.canonical_name(name),
        compression=options.get("compression"),
        row_group_size=options.get("row_group_size"),
        options=given,
    )
    return serializer.check_options(asked)


def _check_size(name: str, size: Any) -> int | None:
    if size is None:
        return None
    try:
        parsed = parse_bytes(size)
    except (ValueError, TypeError, AttributeError):
        parsed = 0
    if isinstance(size, bool) or parsed <= 0:
        raise InvalidWriteError(f"{name} must be bytes or '128MB', not {size!r}")
    return int(parsed)
