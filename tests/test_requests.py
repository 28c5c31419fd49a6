"""How often a write asks an S3 server: each request takes a round trip, and many cost money."""

from __future__ import annotations

from collections import Counter

import dask.dataframe as dd
import pandas as pd
import pytest

from deploy.local.servers import S3Server
from pamola_dwriter import DataWriter
from tests.places import Place
from tests.proxy import Proxy

EACH = {"create": 1, "part": 1, "complete": 1, "put": 1}
"""For a partition: to begin its part, to fill it, to publish it; and its record."""
AROUND = 24
"""At most, for all else: checks, lease, manifest, sweep and audit record."""


def requests_of(
    s3: S3Server, place: Place, partitions: int, key: bytes | None
) -> tuple[Counter[str], int]:
    """Return the requests of a write to a new dataset, and how many bodies were announced first."""
    frame = dd.from_pandas(pd.DataFrame({"x": range(partitions)}), npartitions=partitions)
    with Proxy(s3).listening() as proxy:
        writer = DataWriter(place.root, storage_options=proxy.options(s3))
        writer.write_dataframe(
            frame, f"d{partitions}", "parquet", single_file=False, encryption_key=key
        )
        return proxy.requests, proxy.announced


@pytest.mark.parametrize("key", [None, bytes(32)], ids=["plain", "encrypted"])
def test_requests_of_a_write(s3: S3Server, s3_place: Place, key: bytes | None) -> None:
    """Each partition adds four requests, and what comes around them does not grow."""
    few, announced = requests_of(s3, s3_place, 2, key)
    many, _ = requests_of(s3, s3_place, 7, key)
    assert many - few == Counter({kind: 5 * count for kind, count in EACH.items()})
    assert few.total() - 2 * sum(EACH.values()) <= AROUND
    assert announced == 0
