"""A task directory that a test can look at behind the writer's back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import fsspec
import pandas as pd

from pamola_dwriter import DataWriter, layout, read_dataset
from pamola_dwriter.spec import Tuning

TUNING = Tuning(
    upload_part_size=5 * 2**20,
    bytes_in_flight=64 * 2**20,
    inline_parts=4096,
    retry_seconds=0,
    lease_seconds=120,
    retain_seconds=0,
    audit=True,
    actor="tester@here",
)


def batch(first: int, rows: int = 10) -> pd.DataFrame:
    """Return people whose ``x`` counts from `first`."""
    numbers = range(first, first + rows)
    return pd.DataFrame({"x": numbers, "name": [f"person {n}" for n in numbers]})


def slow_frame(partitions: int, seconds: float = 0.0, gate: Path | None = None) -> dd.DataFrame:
    """Return a frame of five rows a partition, each of which takes a while to make.

    With `gate`, a new folder, half of the partitions are not made before it is gone.
    """
    made = dd.from_pandas(pd.DataFrame({"x": range(5 * partitions)}), npartitions=partitions)
    if gate is not None:
        gate.mkdir()
    return made.map_partitions(_slowly, seconds, gate, partitions // 2, meta=made._meta)


def open_gate(gate: Path) -> None:
    """Let the other half be made."""
    gate.rename(gate.with_suffix(".open"))


def _slowly(part: pd.DataFrame, seconds: float, gate: Path | None, half: int) -> pd.DataFrame:
    time.sleep(seconds)
    if gate is not None:
        with suppress(FileNotFoundError):
            while len(list(gate.iterdir())) >= half:
                time.sleep(0.02)
            gate.joinpath(str(part["x"].iloc[0])).touch()
    return part


@dataclass(frozen=True)
class Place:
    """A task directory, with what it takes to look at it behind the writer's back."""

    root: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def files(self) -> list[str]:
        """Every file of the task directory, relative to it."""
        file_system, root = self._open()
        try:
            found = [file[len(root) :].lstrip("/") for file in file_system.find(root)]
        except FileNotFoundError:
            return []
        return sorted(file for file in found if file and not layout.is_audit(file))

    def pending_uploads(self) -> list[str]:
        """Keys of the multipart uploads that nobody completed or aborted."""
        if not self.root.startswith("s3://"):
            return []
        file_system, root = self._open()
        bucket, prefix = root.split("/", 1)
        reply = file_system.call_s3("list_multipart_uploads", Bucket=bucket)
        return [u["Key"] for u in reply.get("Uploads", ()) if u["Key"].startswith(prefix)]

    def assert_no_leftovers(self, *write_ids: str) -> None:
        """Nothing stands but what these writes committed."""
        assert self.pending_uploads() == []
        for file in self.files():
            name = file.rpartition("/")[2]
            ours = any(write_id in name for write_id in write_ids)
            assert ours or (write_ids and name.startswith("_manifest.json")), file

    def writer(self, **options: Any) -> DataWriter:
        return DataWriter(self.root, storage_options=self.options, **options)

    def read(self, path: Any, **options: Any) -> pd.DataFrame:
        frame = read_dataset(path, storage_options=self.options, **options).compute()
        return frame.sort_values("x").reset_index(drop=True)

    def _open(self) -> tuple[Any, str]:
        options = {**self.options, "use_listings_cache": False}
        file_system, root = fsspec.core.url_to_fs(self.root, **options)
        return file_system, root.rstrip("/")
