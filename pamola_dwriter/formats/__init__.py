"""File formats, one module each, and the pandas side of Arrow that they share.

``SERIALIZERS`` is the table from name to serializer; a new format is one module and one line.
"""

from __future__ import annotations

from pamola_dwriter.contracts import Serializer
from pamola_dwriter.errors import UnknownFormatError
from pamola_dwriter.formats.csv import CsvSerializer
from pamola_dwriter.formats.frame import (
    describe,
    empty_meta,
    stored_columns,
    to_arrow,
    to_pandas,
)
from pamola_dwriter.formats.hive import check_hive_columns, from_text, to_text
from pamola_dwriter.formats.jsonl import JsonLinesSerializer
from pamola_dwriter.formats.parquet import ParquetSerializer
from pamola_dwriter.formats.schema import (
    apply_user_schema,
    infer_columns,
    infer_schema,
    resolve,
    unify,
)

__all__ = [
    "SERIALIZERS",
    "CsvSerializer",
    "JsonLinesSerializer",
    "ParquetSerializer",
    "apply_user_schema",
    "canonical_name",
    "check_hive_columns",
    "describe",
    "empty_meta",
    "from_text",
    "get",
    "infer_columns",
    "infer_schema",
    "resolve",
    "stored_columns",
    "to_arrow",
    "to_pandas",
    "to_text",
    "unify",
]

SERIALIZERS: dict[str, Serializer] = {
    "parquet": ParquetSerializer(),
    "csv": CsvSerializer(),
    "jsonl": JsonLinesSerializer(),
}

_ALIASES = {"json": "jsonl"}


def canonical_name(name: str) -> str:
    """Return the name under which a format is registered (``json`` is ``jsonl``).

    Raises
    ------
    UnknownFormatError
        There is no such format.
    """
    canonical = _ALIASES.get(name, name)
    if canonical not in SERIALIZERS:
        known = ", ".join(sorted(SERIALIZERS))
        raise UnknownFormatError(f"unknown format {name!r}; choose one of {known}")
    return canonical


def get(name: str) -> Serializer:
    """Return the serializer of a format.

    Raises
    ------
    UnknownFormatError
        There is no such format.
    """
    return SERIALIZERS[canonical_name(name)]
