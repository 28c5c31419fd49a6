"""Reading a part fetches the bytes it needs, sealed or not, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pamola_dwriter import DataWriter, open_artifact, read_dataset
from pamola_dwriter.storage.objects import ObjectStore

COLUMNS = 16
ROWS = 300_000


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Sixteen columns that do not compress, 2.4 MB each."""
    rng = np.random.default_rng(7)
    return pd.DataFrame({f"c{n:02d}": rng.integers(0, 2**62, ROWS) for n in range(COLUMNS)})


def test_one_column_of_a_sealed_part_costs_its_own_bytes(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of sixteen columns is read with a tenth of the bytes and less than ten requests."""
    key = bytes(range(32))
    result = DataWriter(tmp_path).write_dataframe(
        frame, "wide", "parquet", encryption_key=key, single_file=False, write_index=False
    )
    requests: list[int] = []
    read = ObjectStore.read

    def counted(
        self: ObjectStore, path: str, start: int | None = None, end: int | None = None
    ) -> bytes:
        data = read(self, path, start, end)
        if "part-" in path:
            requests.append(len(data))
        return data

    monkeypatch.setattr(ObjectStore, "read", counted)
    column = read_dataset(result.path, encryption_key=key)[["c07"]].compute()
    assert column["c07"].tolist() == frame["c07"].tolist()
    assert sum(requests) < result.size_bytes * 0.16
    assert len(requests) < 10


def test_a_sealed_file_can_be_read_from_the_middle(frame: pd.DataFrame, tmp_path: Path) -> None:
    """open_artifact seeks: pandas reads one column of an encrypted single file."""
    key = bytes(range(32))
    result = DataWriter(tmp_path).write_dataframe(frame, "one", "parquet", encryption_key=key)
    with open_artifact(result.path, encryption_key=key) as file:
        found = pd.read_parquet(file, columns=["c03"])
    assert found["c03"].tolist() == frame["c03"].tolist()
