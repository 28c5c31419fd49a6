"""Parse what anybody may have edited: within bounds, and into the types that were written.

All functions here raise ValueError or TypeError, without any of the content in the message; the
caller knows which file is damaged, and says so in an error of this package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pamola_dwriter.spec import PartRecord, WriteId

MAX_JSON = 1 << 29
"""Bytes of a JSON document. A manifest has about 400 for each part that it lists itself."""

MAX_PATH = 4096
"""Bytes of a path, as on Linux; objects of S3 have names of at most 1024."""

MAX_COUNT = (1 << 63) - 1

_MAX_EXPANSION = 256
"""Times its stored size that a part table may have in memory. Real ones have about ten, since the
SHA-256 of each row does not compress; with hive paths of thousands of bytes, a hundred."""
_SLACK = 1 << 20
_ROWS_AT_ONCE = 8192

_WRITE_ID = re.compile("[0-9a-f]{16}", re.ASCII)
_SHA256 = re.compile("[0-9a-f]{64}", re.ASCII)


def parse_json(data: bytes) -> Any:
    """Parse JSON in UTF-8, in which no name stands twice.

    Numbers of thousands of digits and nesting that no stack holds are refused, and so are more
    than `MAX_JSON` bytes.
    """
    if len(data) > MAX_JSON:
        raise ValueError(f"more than {MAX_JSON} bytes")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (RecursionError, MemoryError, UnicodeError):
        raise ValueError("not the JSON we write") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("a name stands twice")
    return parsed


def write_id(value: object) -> WriteId:
    """Return the identity of a write."""
    if not isinstance(value, str) or not _WRITE_ID.fullmatch(value):
        raise ValueError("the identity of a write is none")
    return WriteId(value)


def part_path(value: object) -> str:
    """Return a path below the dataset: nothing in it leads out, or is nameless."""
    if not isinstance(value, str) or "\0" in value or _size(value) > MAX_PATH:
        raise ValueError("a path is none")
    if any(component in ("", ".", "..") for component in value.split("/")):
        raise ValueError("a path leads out of its directory")
    return value


def _size(text: str) -> int:
    # A name on a disk need not be UTF-8: Python shows the bytes that are none as half pairs.
    return len(text.encode("utf-8", "surrogatepass"))


def part_record(row: Mapping[str, Any], pairs: Any) -> PartRecord:
    """Return the part that a row describes, whose hive values are `pairs`."""
    counts = [row[name] for name in ("partition", "rows", "size_bytes", "plain_bytes")]
    if not all(type(count) is int and 0 <= count <= MAX_COUNT for count in counts):
        raise TypeError("a count is none")
    values = tuple((column, value) for column, value in pairs)
    if not all(
        isinstance(column, str) and (value is None or isinstance(value, str))
        for column, value in values
    ):
        raise TypeError("a hive value is none")
    if not isinstance(row["sha256"], str) or not _SHA256.fullmatch(row["sha256"]):
        raise ValueError("a SHA-256 is none")
    if not isinstance(row.get("staged", ""), str):
        raise TypeError("a token is none")
    part_path(row["path"]).encode()
    return PartRecord(**{**row, "values": values})


def read_rows(data: bytes | pa.Buffer, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Read the rows of a small Parquet file with the columns of `schema`.

    Text is kept as a dictionary until its length is known, so that a few stored bytes which stand
    for gigabytes are refused before they become so. What a page of Parquet expands to is believed
    as the footer says it.

    Raises
    ------
    ValueError, KeyError, OSError, pyarrow.ArrowException
        It is no such file, or would expand to more than the part tables that are written.
    """
    size = len(memoryview(data))
    most = _MAX_EXPANSION * size + _SLACK
    footer = pq.read_metadata(pa.BufferReader(data))
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    cells = [group.column(n).num_values for group in groups for n in range(group.num_columns)]
    if sum(group.total_byte_size for group in groups) > most or max(cells, default=0) * 32 > most:
        raise ValueError("it expands to more than a part table does")
    if footer.num_rows > size or footer.num_columns > 2 * len(schema):
        raise ValueError("it has more rows or columns than a part table of this size")
    leaves = [footer.schema.column(number) for number in range(footer.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=schema.names):
        most -= sum(_text_size(column) for column in batch.columns)
        if most < 0:
            raise ValueError("it expands to more than a part table does")
        yield from batch.select(schema.names).to_pylist()


def _text_size(column: pa.Array) -> int:
    """Return how many bytes the text of a column takes once it is spelt out."""
    if pa.types.is_list(column.type):
        column = column.flatten()
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return int(pc.sum(lengths).as_py() or 0) + int(column.indices.nbytes)
