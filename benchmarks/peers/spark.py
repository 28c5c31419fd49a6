"""PySpark on two local threads, one JVM for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.ending import ending_processes
from benchmarks.peers.peer import CORES, LEVEL, Guarantees, Peer, Task, Write, engine
from deploy.local.processes import HOST


@contextmanager
def _open(task: Task) -> Iterator[Write]:
    sql = engine("pyspark.sql")
    largest = max(Path(file).stat().st_size for file in task.files)
    settings = {
        "spark.driver.memory": "4g",
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        # One file a task, so that as many files come out as went in.
        "spark.sql.files.maxPartitionBytes": str(largest),
        "spark.sql.files.openCostInBytes": str(largest),
    }
    builder = sql.SparkSession.builder.master(f"local[{CORES}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    with ending_processes() as stops:
        session = builder.getOrCreate()
        stops.callback(session.stop)
        frame = session.read.parquet(*task.files)

        def write(folder: Path) -> None:
            frame.write.option("compression", "zstd").option(
                "parquet.compression.codec.zstd.level", str(LEVEL)
            ).parquet(str(folder))

        yield write


SPARK = Peer(
    setup="`local[2]` in one JVM with 4 GB, one task a file, vectorized reader, zstd level 1",
    guarantees=Guarantees(
        atomic="partly: FileOutputCommitter v1 renames tasks' files when the job ends, so a "
        "failed task shows nothing, but a driver that dies between renames leaves some; "
        "`_SUCCESS` marks the end, overwriting deletes first",
        encrypted="no: Parquet modular encryption can be configured, not measured",
        checksummed="partly: Hadoop's local file system keeps CRCs in `.crc` files; "
        "Parquet-Java writes page CRCs, and checks them only when asked",
        retried="yes: tasks are on a cluster (`spark.task.maxFailures`, 4), in `local[2]` once",
    ),
    open=_open,
    package="pyspark",
    module="pyspark",
)
