"""Write TPC-H lineitem to local Parquet: ours, plain and encrypted, against ``to_parquet``.

``python -m benchmarks.write_local --scale 1 --partitions 16 --rounds 5`` alternates the writers
on one LocalCluster of two single-threaded workers and prints the ratio of medians to
``to_parquet`` with the smallest and largest ratio of a round.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster

from deploy.local.servers import program
from pamola_dwriter import DataWriter

PEER = "to_parquet"
KEY = bytes(range(32))


def main() -> None:
    """Run the benchmark named by the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pamola-bench-") as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        source = _lineitem(Path(folder) / "source", arguments.scale, arguments.partitions)
        _report(_measure(_writers(source, Path(folder)), arguments.rounds))


def _lineitem(folder: Path, scale: float, partitions: int) -> dd.DataFrame:
    command = [program("tpchgen-cli"), "parquet", "-s", str(scale), "--tables", "lineitem"]
    command += ["--parts", str(partitions), "--output-dir", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    files = sorted(folder.rglob("*.parquet"))
    for file in files:
        _without_views(file)
    return dd.read_parquet([str(file) for file in files], dtype_backend="pyarrow", index=False)


def _without_views(file: Path) -> None:
    """Store text as ``string``: pandas cannot take rows of the ``string_view`` it comes in."""
    table = pq.read_table(file)
    fields = [
        field.with_type(pa.string()) if field.type == pa.string_view() else field
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), file)


def _writers(source: dd.DataFrame, folder: Path) -> dict[str, Callable[[], None]]:
    def peer() -> None:
        shutil.rmtree(folder / "peer", ignore_errors=True)
        source.to_parquet(folder / "peer", compression="zstd")

    def ours(fuse: bool, key: Any) -> Callable[[], None]:
        def write() -> None:
            shutil.rmtree(folder / "ours", ignore_errors=True)
            with dask.config.set({"pamola-dwriter.fuse-stages": fuse}):
                DataWriter(folder / "ours").write_dataframe(
                    source, "lineitem", "parquet", encryption_key=key
                )

        return write

    return {
        PEER: peer,
        "ours, plain": ours(False, None),
        "ours, encrypted": ours(False, KEY),
        "ours, plain, fused": ours(True, None),
        "ours, encrypted, fused": ours(True, KEY),
    }


def _measure(writers: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    for write in writers.values():  # imports, connections and page cache, on every worker
        write()
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for number in range(rounds):
        names = list(writers) if number % 2 == 0 else list(reversed(writers))
        for name in names:
            started = time.perf_counter()
            writers[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _report(seconds: dict[str, list[float]]) -> None:
    peer = seconds[PEER]
    print(f"{'writer':<24}{'median s':>10}{'ratio':>8}{'min':>8}{'max':>8}")
    for name, times in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(times, peer, strict=True)]
        ratio = statistics.median(times) / statistics.median(peer)
        print(
            f"{name:<24}{statistics.median(times):>10.2f}{ratio:>8.2f}"
            f"{min(ratios):>8.2f}{max(ratios):>8.2f}"
        )


if __name__ == "__main__":
    main()
