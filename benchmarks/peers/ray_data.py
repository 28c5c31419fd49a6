"""Ray Data on two CPUs of a local Ray, started once for the whole run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from benchmarks.peers.ending import ending_processes
from benchmarks.peers.peer import CORES, LEVEL, Guarantees, Peer, Task, Write, engine
from deploy.local.processes import HOST

_STORE_BYTES = 2 * 2**30


@contextmanager
def _open(task: Task) -> Iterator[Write]:
    # Ray reads them when it is imported. With no token it would leave one in the user's home.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = token_hex(32)
    ray = engine("ray")
    data = engine("ray.data")
    with TemporaryDirectory(prefix="ray-") as sessions, ending_processes() as stops:
        stops.callback(ray.shutdown)
        ray.init(
            "local",
            num_cpus=CORES,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=HOST,
            _temp_dir=sessions,
        )
        data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

        # A row group a file, as Arrow does for the others: Ray's blocks of a stream are smaller.
        rows_each = -(-task.rows // len(task.files))
        arrow_options = {"compression_level": LEVEL, "row_group_size": rows_each}

        def write(folder: Path) -> None:
            data.read_parquet(task.files, override_num_blocks=len(task.files)).write_parquet(
                str(folder), max_rows_per_file=rows_each, compression="zstd", **arrow_options
            )

        yield write


RAY = Peer(
    setup="`num_cpus=2`, 2 GiB object store, reading and writing fused into one task, "
    "`max_rows_per_file` and `row_group_size` for about as many files as the input, zstd level 1",
    guarantees=Guarantees(
        atomic="no: each task writes its file under the final name, nothing marks the set complete",
        encrypted="no: not in this write",
        checksummed="no: Arrow writes page checksums only when asked",
        retried="yes: tasks of lost workers and listed I/O errors are",
    ),
    open=_open,
    package="ray",
    module="ray",
)
