"""No key, passphrase or credential in anything that writing and reading leaves behind or shows.

All kinds of keys are used at the same time on one cluster that logs everything and spills every
result to its disk. Whatever it shows is collected once, and searched for the secrets of each kind.
"""

from __future__ import annotations

import io
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyrage
import pytest
import s3fs
from distributed import Client, performance_report, wait

from deploy.local import servers
from deploy.local.key_servers import kms_server, vault_server
from pamola_dwriter import DataWriter, LazyWrite, keys, layout, manifest, read_dataset
from pamola_dwriter.errors import SchemaMismatchError, WriteFailedError
from pamola_dwriter.keys.age import dataset_identity
from tests import sweeping
from tests.places import batch
from tests.sweeping import Secret

PARTITIONS = 4
PATIENCE = 60
IDENTITY, HOLDER = (pyrage.x25519.Identity.generate() for _ in range(2))
RAW, IN_FILE = (token_bytes(32) for _ in range(2))
PASSPHRASE = f"wonderful-tortoise-{token_hex(8)}"

LOUD = {"DASK_LOGGING__ROOT": "debug", "DASK_LOGGING__DISTRIBUTED": "debug"}
SPILLING = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "1e-12",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL_COMPRESSION": "false",
}
"""Every result goes to disk at once, as it is."""


@dataclass(frozen=True)
class Case:
    """A way to name a key; ``travels`` if the workers cannot resolve it."""

    key: Any = field(repr=False)
    secret: bytes | None = field(repr=False)
    travels: bool = False
    opens: str | None = field(default=None, repr=False)
    mode: str | None = None

    def given(self, folder: Path) -> Any:
        """What is given as encryption_key; a file of a key is in `folder`."""
        return self.key.format(folder=folder) if isinstance(self.key, str) else self.key

    def opener(self, folder: Path) -> Any:
        """What opens the data: not the key given, if that is public."""
        return self.opens or self.given(folder)


CASES = {
    "raw": Case(RAW, RAW, travels=True),
    "passphrase": Case(PASSPHRASE, PASSPHRASE.encode(), travels=True),
    "env": Case("env:PII_KEY", None),
    "file": Case("file:{folder}/key", IN_FILE),
    "awskms": Case("awskms:alias/pii", None),
    "vault": Case("vault:pii", None),
    "age identity": Case(str(IDENTITY), str(IDENTITY).encode(), travels=True),
    "age recipient": Case(
        str(HOLDER.to_public()),
        str(HOLDER).encode(),
        travels=True,
        opens=str(HOLDER),
    ),
    "age files": Case(
        ["env:PII_KEY", str(HOLDER.to_public())],
        str(HOLDER).encode(),
        opens=str(HOLDER),
        mode="age",
    ),
}


def hold(partition: pd.DataFrame, folder: str, name: str) -> pd.DataFrame:
    """Let the last partition wait until a test opens the gate."""
    if len(partition) and partition["x"].max() == 10 * PARTITIONS - 1:
        Path(folder, f"waiting-{name}").touch()
        while not Path(folder, "open").exists():
            time.sleep(0.02)
    return partition


def explode(partition: pd.DataFrame, folder: str, name: str) -> pd.DataFrame:
    if len(partition) and partition["x"].max() > 20:
        raise RuntimeError("deliberate")
    return partition


@dataclass
class Run:
    """Writes with all kinds of keys on one cluster, and what was seen of them."""

    cluster: servers.Cluster
    client: Client
    s3: servers.S3Server
    folder: Path
    places: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, list[Secret]] = field(default_factory=dict)
    carried: dict[str, bool] = field(default_factory=dict)
    write_ids: dict[str, list[str]] = field(default_factory=dict)

    def writer(self, name: str, **options: Any) -> DataWriter:
        case = CASES[name]
        return DataWriter(
            f"s3://{self.s3.bucket}/{name.replace(' ', '-')}",
            storage_options=self.s3.storage_options,
            encryption_key=case.given(self.folder),
            encryption_mode=case.mode,
            **options,
        )

    def compile(self, name: str, function: Callable[..., Any], **options: Any) -> LazyWrite:
        """Compile a write, and learn its dataset key as who may open it does."""
        ddf = dd.from_pandas(batch(0, 10 * PARTITIONS), npartitions=PARTITIONS)
        held = ddf.map_partitions(function, str(self.folder), name, meta=ddf._meta)
        writer = self.writer(name)
        lazy = writer.write_dataframe(held, "people", "parquet", compute=False, **options)
        sealing = lazy._spec.sealing
        assert sealing is not None
        opener = keys.resolve(CASES[name].opener(self.folder))
        context = manifest.key_context(sealing.keyed_by)
        key = keys.unwrap_any(opener, sealing.wrapped, context)
        identity = dataset_identity(key).encode()
        self.secrets.setdefault(name, []).extend(
            [Secret("the dataset key", key), Secret("the identity of the dataset", identity)]
        )
        self.carried[name] = any(_holds(sweeping.pickled(lazy.__dask_graph__()), key))
        self.write_ids.setdefault(name, []).append(lazy.write_id)
        self.see(f"{name}: writer", writer)
        self.see(f"{name}: lazy write", lazy, dict(lazy.__dask_graph__()), lazy._spec)
        return lazy

    def see(self, place: str, *things: Any) -> None:
        said = "\n".join(map(sweeping.shown, things))
        self.places[f"{place}, number {len(self.places)}"] = said.encode()

    def add(self, when: str, found: dict[str, bytes]) -> None:
        self.places |= {f"{place}, {when}": data for place, data in found.items()}
