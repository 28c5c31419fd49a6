"""The demonstration: ``make demo``, or ``python -m deploy.local.demo``.

Three million rows of TPC-H go from a Dask cluster to an S3 server, encrypted on the workers, and
are read back and compared. The server, the scheduler and both workers are real processes on this
machine; none of them is left when it ends, also by Ctrl-C. Exit code 1 if anything differs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import s3fs
from distributed import Client

from deploy.local.processes import program
from deploy.local.servers import S3Server, cluster, s3_server
from pamola_dwriter import DataWriter, read_dataset, verify
from pamola_dwriter.cli import follow

KEY = "env:PII_KEY"
"""A reference: each worker finds the key in its own environment, so it never travels."""
SCALE = 0.5
FILES = 8
MONEY = "l_extendedprice"
_EXACT = pa.decimal128(38, 2)
_START = time.monotonic()


@dataclass(frozen=True, slots=True)
class Totals:
    """What has to be equal before and after."""

    rows: int
    money: Decimal

    def __str__(self) -> str:
        return f"{self.rows:,} rows, sum of {MONEY} {self.money:,}"


def main() -> int:
    """Run the demonstration and return its exit code."""
    signal.signal(signal.SIGTERM, _end)
    try:
        with ExitStack() as stack:
            same = _run(stack)
    except KeyboardInterrupt:
        say("Interrupted; the server and the cluster are stopped.")
        return 130
    say("Everything is stopped again. The same data came back." if same else "The data DIFFERS.")
    return 0 if same else 1


def say(text: str) -> None:
    """Tell the person who watches what happens, and when."""
    print(f"[{time.monotonic() - _START:5.1f} s] {text}", flush=True)


def _run(stack: ExitStack) -> bool:
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="tpch-")))
    say(f"Generating TPC-H lineitem at scale factor {SCALE} as {FILES} Parquet files ...")
    source = generate(folder)
    before = totals_of_files(source)
    say(f"  {before}")

    say("Starting an S3 server, a Dask scheduler and two workers, each a process of its own ...")
    os.environ["PII_KEY"] = token_hex(32)
    store = stack.enter_context(s3_server())
    running = stack.enter_context(cluster(n_workers=2, threads=1))
    stack.enter_context(Client(running.scheduler_address))
    say(f"  S3 at {store.endpoint_url}, dashboard at {running.dashboard_url}")

    path = write(store, source)
    show_stored(store, path)

    say("Verifying every part against the manifest ...")
    verify(path, encryption_key=KEY, storage_options=store.storage_options)
    say("  every part is what was written")

    say("Reading two of its sixteen columns back on the cluster ...")
    columns = ["l_orderkey", MONEY]
    frame = read_dataset(
        path, columns=columns, encryption_key=KEY, storage_options=store.storage_options
    )
    after = totals_of_frame(frame)
    say(f"  {after}")
    return before == after


def generate(folder: Path) -> Path:
    """Generate the table, and return the folder with its files."""
    options = ["--tables=lineitem", f"--parts={FILES}", f"--output-dir={folder}", "--quiet"]
    subprocess.run([program("tpchgen-cli"), "parquet", f"-s{SCALE}", *options], check=True)
    return folder / "lineitem"


def write(store: S3Server, source: Path) -> str:
    """Write the table encrypted, watch it, and return where it is."""
    # Arrow-backed: decimals as Python objects would take a thousand times longer.
    ddf = dd.read_parquet(source, dtype_backend="pyarrow")
    say(f"Writing {ddf.npartitions} partitions to s3://{store.bucket}/task_042, encrypted ...")
    writer = DataWriter(f"s3://{store.bucket}/task_042", storage_options=store.storage_options)
    handle = writer.submit_dataframe(ddf, "lineitem", format="parquet", encryption_key=KEY)
    follow(handle)
    result = handle.result()
    say(f"Committed:\n{result}")
    return str(result.path)


def show_stored(store: S3Server, path: str) -> None:
    """Show what somebody sees who has the bucket, but not the key."""
    files = s3fs.S3FileSystem(**store.storage_options)
    say("What is in the bucket, and how each file begins:")
    for name, info in files.find(path, detail=True).items():
        print(f"  {info['size']:>12,}  {name}  {files.cat_file(name, start=0, end=4)!r}")


def totals_of_files(folder: Path) -> Totals:
    """Count and add up with Arrow alone, in this process: the figures to compare with."""
    column = pq.read_table(folder, columns=[MONEY])[MONEY]
    return Totals(len(column), pc.sum(column.cast(_EXACT)).as_py())


def totals_of_frame(frame: Any) -> Totals:
    """Count and add up on the workers, exactly; ``frame`` is a Dask DataFrame."""
    meta = pd.DataFrame({"rows": pd.Series(dtype="int64"), "money": pd.Series(dtype="object")})
    parts = frame.map_partitions(_totals_of_part, meta=meta).compute()
    return Totals(int(parts["rows"].sum()), sum(map(Decimal, parts["money"]), Decimal(0)))


def _totals_of_part(part: pd.DataFrame) -> pd.DataFrame:
    total = pc.sum(pa.array(part[MONEY]).cast(_EXACT)).as_py() or Decimal(0)
    return pd.DataFrame({"rows": [len(part)], "money": [str(total)]})


def _end(signum: int, _frame: object) -> NoReturn:
    """Unwind, so that every ``with`` block ends its processes."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
