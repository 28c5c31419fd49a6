"""What every engine is given, what it gives back, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pamola_dwriter.errors import PamolaWriterError

CORES = 2
LEVEL = 1
"""Of zstd, which is what Arrow takes when nobody says; set wherever an engine lets it be set."""
SUM = "l_extendedprice"
"""The column that is added up to see that everything was written."""


class MissingEngineError(PamolaWriterError, ImportError):
    """An engine is not installed; the message names the extra that brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The table to write.

    Attributes
    ----------
    files : list of str
        Parquet files, each of one row group.
    frame : dask.dataframe.DataFrame
        The same, one partition a file, for those who write with Dask.
    """

    files: list[str]
    frame: dd.DataFrame

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all files."""
        return sum(Path(file).stat().st_size for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantees:
    """What holds for what was written; each begins with yes, no or partly, and gives the reason.

    Attributes
    ----------
    atomic : str
        Readers see all of the new dataset or none of it, whatever dies.
    encrypted : str
        Nobody without a key can read the stored bytes or change them unseen, as measured here.
    checksummed : str
        A changed byte is found when reading.
    retried : str
        A failure that passes is tried again, without duplicates.
    """

    atomic: str
    encrypted: str
    checksummed: str
    retried: str

    def as_dict(self) -> dict[str, str]:
        """Return the four of them, JSON-ready."""
        return asdict(self)


Write = Callable[[Path], object]
"""Writes the table to a folder that does not exist."""
Read = Callable[[Path], Iterable[pa.Table]]
"""Reads the checked column back."""


def read_parquet(folder: Path) -> Iterator[pa.Table]:
    """Read the checked column of all Parquet files in a folder."""
    for file in sorted(folder.rglob("*.parquet")):
        yield pq.read_table(file, columns=[SUM], partitioning=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An engine.

    Attributes
    ----------
    setup : str
        How it was set up.
    open : callable
        Starts the engine, which is not timed, and gives what writes; leaving ends the engine.
    read : callable
        Reads back what was written, to see that all of it was.
    package : str or None
        Distribution whose version is kept with the result.
    module : str or None
        What to import of an extra.
    """

    setup: str
    guarantees: Guarantees
    open: Callable[[Task], AbstractContextManager[Write]]
    read: Read = read_parquet
    package: str | None = None
    module: str | None = None


def require(peers: Iterable[Peer]) -> None:
    """See that all engines are installed, without importing any: some read settings then.

    Raises
    ------
    MissingEngineError
        One is not.
    """
    for peer in peers:
        if peer.module is not None and find_spec(peer.module) is None:
            raise _missing(peer.module)


def engine(module: str) -> Any:
    """Import an engine or a part of it.

    Raises
    ------
    MissingEngineError
        It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(module) from error


def _missing(module: str) -> MissingEngineError:
    return MissingEngineError(
        f"{module} is not installed: pip install -e '.[bench]', or leave it out by --only"
    )


def checked(tables: Iterable[pa.Table]) -> tuple[int, Decimal]:
    """Count rows and add up the checked column."""
    rows, total = 0, Decimal(0)
    for table in tables:
        rows += table.num_rows
        total += pc.sum(table[SUM]).as_py() or 0
    return rows, total
