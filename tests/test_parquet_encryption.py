"""Parquet Modular Encryption: keys for columns, inside files that other tools read too."""

from __future__ import annotations

from pathlib import Path

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

from pamola_dwriter import DataWriter, ParquetEncryption, read_dataset, verify
from pamola_dwriter.errors import MissingKeyError

COLUMNS = {"pii": ["name", "ssn"], "geo": ["place"]}
OWNER, ANALYST = b"o" * 32, b"a" * 32


def people(rows: int = 200, partitions: int = 2) -> dd.DataFrame:
    frame = pd.DataFrame(
        {
            "name": [f"topsecretname-{row}" for row in range(rows)],
            "ssn": [f"secretssn-{row:09d}" for row in range(rows)],
            "place": [f"hiddenplace-{row}" for row in range(rows)],
            "amount": range(rows),
        }
    )
    return dd.from_pandas(frame, npartitions=partitions)


def test_a_frame_comes_back_whole_from_workers_that_resolve_the_key(
    client: Client, tmp_path: Path
) -> None:
    """Workers find the key themselves, encrypt columns, and read them back."""
    ddf = people()
    done = DataWriter(tmp_path, client=client).write_dataframe(
        ddf,
        "people",
        "parquet",
        encryption=ParquetEncryption(columns=COLUMNS),
        encryption_key="env:PII_KEY",
    )
    back = read_dataset(done.path, encryption_key="env:PII_KEY", client=client)
    pd.testing.assert_frame_equal(back.compute(), ddf.compute(), check_dtype=False)
    assert read_dataset(done.path, ["amount"], client=client).amount.sum().compute() == 19900
    with pytest.raises(MissingKeyError, match="name, ssn, place"):
        read_dataset(done.path, client=client)
    assert verify(done.path).parts == 2
    assert verify(done.path, encryption_key="env:PII_KEY", client=client).encrypted
