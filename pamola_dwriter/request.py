"""What a caller may ask of a write, checked as far as it can be without looking at anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import pyarrow as pa
from dask.utils import parse_bytes

from pamola_dwriter import formats, layout
from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.spec import FormatSpec, WriteSpec


class WriteOptions(TypedDict, total=False):
    """Options of ``write_dataframe`` and ``submit_dataframe`` beyond those of every write.

    Attributes
    ----------
    compression : str, optional
        Parquet: zstd (default), snappy, gzip, brotli, lz4, none. CSV and JSON Lines: none
        (default), gzip, zstd.
    row_group_size : int, optional
        Rows in a Parquet row group.
    write_index : bool, optional
        Whether the index is stored. Default: yes for Parquet, as Dask does; for CSV and JSON
        Lines unless it is an unnamed integer index, which only numbers the rows.
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
    """

    compression: str | None
    row_group_size: int | None
    write_index: bool | None
    partition_on: str | Sequence[str] | None
    single_file: bool | Literal["auto"]
    target_part_size: int | str | None
    schema: pa.Schema | None
    format_options: Mapping[str, Any]


def check_request(
    name: object, format_name: object, subdir: object, options: WriteOptions, **flags: bool
) -> WriteSpec:
    """Return what was asked, or say what is wrong with it.

    Raises
    ------
    InvalidWriteError
        A name, the format or an option is wrong.
    """
    known = set(WriteOptions.__annotations__)
    if unknown := sorted(set(options) - known):
        raise InvalidWriteError(f"unknown option(s) {unknown}; there are {sorted(known)}")
    for flag, value in {**flags, "write_index": options.get("write_index")}.items():
        check_flag(flag, value)
    spec = WriteSpec(
        name=layout.check_name(name),
        subdir=layout.check_subdir(subdir),
        format=_check_format(format_name, options),
        write_index=options.get("write_index"),
        partition_on=_check_columns(options.get("partition_on")),
        single_file=_check_single_file(options.get("single_file", "auto")),
        target_part_size=_check_size(options.get("target_part_size")),
        schema=_check_schema(options.get("schema")),
        **flags,
    )
    if spec.single_file is True and (spec.partition_on or spec.target_part_size):
        raise InvalidWriteError("single_file=True excludes partition_on and target_part_size")
    return spec


def check_flag(name: str, value: object) -> None:
    """Raise InvalidWriteError unless `value` is True, False or None: "no" would count as true."""
    if value is not None and not isinstance(value, bool):
        raise InvalidWriteError(f"{name} must be True or False, not {value!r}")


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


def _check_size(size: Any) -> int | None:
    if size is None:
        return None
    try:
        parsed = parse_bytes(size)
    except (ValueError, TypeError, AttributeError):
        parsed = 0
    if isinstance(size, bool) or parsed <= 0:
        raise InvalidWriteError(f"target_part_size must be bytes or '128MB', not {size!r}")
    return int(parsed)
