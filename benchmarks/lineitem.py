"""TPC-H lineitem as Parquet files: the input of the benchmarks that write a table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dask.dataframe as dd
import pyarrow as pa
import pyarrow.parquet as pq

from deploy.local.processes import program


def generate(folder: Path, scale: float, files: int) -> Path:
    """Make the table in `folder`, or leave what an earlier call has made there.

    Parameters
    ----------
    folder : Path
        One folder for each scale and number of files is made in it.
    scale : float
        TPC-H scale factor; 1 is six million rows, about 220 MB of Parquet.
    files : int
        As many files, each of one row group, are as many partitions.
    """
    made = folder / f"lineitem-{scale:g}-{files}"
    if not made.exists():
        draft = folder / f".{made.name}"
        command = [program("tpchgen-cli"), "parquet", "-s", f"{scale:g}", "--tables", "lineitem"]
        command += ["--parts", str(files), "--output-dir", str(draft)]
        subprocess.run(command, check=True, capture_output=True)
        for file in draft.rglob("*.parquet"):
            _without_views(file)
        draft.rename(made)
    return made


def files_of(made: Path) -> list[str]:
    """Return the files of a table, in order."""
    return [str(file) for file in sorted(made.rglob("*.parquet"))]


def frame_of(made: Path) -> dd.DataFrame:
    """Read the table as a Dask DataFrame, Arrow-backed, one partition a file."""
    return dd.read_parquet(files_of(made), dtype_backend="pyarrow", index=False)


def _without_views(file: Path) -> None:
    """Store text as ``string``: pandas cannot take rows of the ``string_view`` it comes in."""
    table = pq.read_table(file)
    fields = [
        field.with_type(pa.string()) if field.type == pa.string_view() else field
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), file, row_group_size=len(table))
