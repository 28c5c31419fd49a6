"""File formats, one module each, and the pandas side of Arrow that they share.

``SERIALIZERS`` is the table from name to serializer; a new format is one module and one line, or
a package that declares it (:mod:`pamola_dwriter.formats.installed`).
"""

from __future__ import annotations

import platform

from pamola_dwriter.contracts import Serializer
from pamola_dwriter.errors import UnknownFormatError
from pamola_dwriter.formats.arrow import ArrowSerializer
from pamola_dwriter.formats.csv import CsvSerializer
from pamola_dwriter.formats.excel import ExcelSerializer
from pamola_dwriter.formats.frame import (
    describe,
    empty_meta,
    stored_columns,
    to_arrow,
    to_pandas,
)
from pamola_dwriter.formats.hive import check_hive_columns, from_text, to_text
from pamola_dwriter.formats.installed import FORMATS, load_format
from pamola_dwriter.formats.json import JsonSerializer
from pamola_dwriter.formats.jsonl import JsonLinesSerializer
from pamola_dwriter.formats.orc import OrcSerializer
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
    "ArrowSerializer",
    "CsvSerializer",
    "ExcelSerializer",
    "JsonLinesSerializer",
    "JsonSerializer",
    "OrcSerializer",
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
    "json": JsonSerializer(),
    "orc": OrcSerializer(),
    "arrow": ArrowSerializer(),
    "excel": ExcelSerializer(),
}
"""From name to serializer; a format of another package is added when it is first asked for."""

_ALIASES = {"feather": "arrow", "ipc": "arrow", "xlsx": "excel"}


def canonical_name(name: str) -> str:
    """Return the name under which a format is registered (``feather`` is ``arrow``).

    Names of our own come first: no other package can take them over.

    Raises
    ------
    UnknownFormatError
        There is no such format here, or the package that brings it is broken.
    """
    canonical = _ALIASES.get(name, name)
    if canonical not in SERIALIZERS:
        serializer = load_format(canonical)
        if serializer is None:
            known = ", ".join(sorted({*SERIALIZERS, *FORMATS.names()}))
            raise UnknownFormatError(
                f"unknown format {name!r} on host {platform.node()}; choose one of {known}, or "
                "install the package that brings it, on the client and on every worker"
            )
        SERIALIZERS[canonical] = serializer
    return canonical


def get(name: str) -> Serializer:
    """Return the serializer of a format.

    Raises
    ------
    UnknownFormatError
        There is no such format here, or the package that brings it is broken.
    """
    return SERIALIZERS[canonical_name(name)]
