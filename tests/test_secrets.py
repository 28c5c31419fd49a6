"""No key, passphrase or credential in anything a run leaves behind."""

from __future__ import annotations

import base64
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
import s3fs
import yaml
from distributed import Client

from deploy.local.servers import Cluster, S3Server
from pamola_dwriter import DataWriter, read_dataset
from pamola_dwriter.errors import WriteFailedError

RAW = bytes.fromhex("7f3a91c2" * 8)
PASSPHRASE = "wonderful-tortoise-42"


def forms(secret: bytes) -> list[str]:
    """Every form in which a secret may show in text."""
    plain = [secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]]
    return [*plain, base64.urlsafe_b64encode(secret).decode(), str(list(secret))[1:-1]]


def frame(function: Any = None) -> dd.DataFrame:
    ddf = dd.from_pandas(pd.DataFrame({"x": range(100)}), npartitions=4)
    return ddf if function is None else ddf.map_partitions(function, meta=ddf._meta)


def explode(partition: pd.DataFrame) -> pd.DataFrame:
    if partition["x"].max() > 80:
        raise RuntimeError("deliberate")
    return partition


def traces(client: Client, cluster: Cluster, folder: Path) -> str:
    """Everything the cluster would show an operator, as one text."""
    client.dump_cluster_state(str(folder / "dump"), format="yaml")
    dump = (folder / "dump.yaml").read_text()
    assert isinstance(yaml.load(dump, Loader=yaml.CSafeLoader), dict)
    logs = [client.get_scheduler_logs(), client.get_worker_logs(), client.get_events()]
    profile = json.dumps(client.profile(), default=str)
    return "\n".join([dump, cluster.read_logs(), *map(repr, logs), profile])


@pytest.mark.parametrize(
    ("key", "secrets"),
    [
        (RAW, forms(RAW)),
        (PASSPHRASE, [PASSPHRASE]),
        ("env:PII_KEY", None),
    ],
    ids=["raw", "passphrase", "env"],
)
def test_no_secret_in_what_a_run_leaves_behind(  # noqa: PLR0913 - fixtures, not parameters
    key: Any,
    secrets: list[str] | None,
    client: Client,
    cluster: Cluster,
    s3: S3Server,
    s3_task_dir: str,
    pii_key: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A good write, a failing one and a read: dumps, logs, events, reprs and files are clean."""
    sought = [*(secrets or [pii_key]), s3.secret_key]
    caplog.set_level(logging.DEBUG, logger="pamola_dwriter")
    caplog.set_level(logging.DEBUG, logger="distributed")
    writer = DataWriter(s3_task_dir, storage_options=s3.storage_options, encryption_key=key)
    lazy = writer.write_dataframe(frame(), "people", "parquet", compute=False)
    shown = [repr(writer), repr(lazy), repr(dict(lazy.__dask_graph__())), str(lazy._spec)]
    handle = lazy.submit()
    result = handle.result(timeout=60)
    shown += [repr(handle), repr(handle.progress()), repr(result), result._repr_html_()]
    with pytest.raises(WriteFailedError) as caught:
        writer.write_dataframe(frame(explode), "people", "parquet")
    shown += [repr(caught.value), str(caught.value), repr(caught.value.__cause__)]
    back = read_dataset(result.path, encryption_key=key)
    assert len(back) == 100
    shown += [repr(back), repr(back.expr), repr(dict(back.__dask_graph__()))]
    stored = "".join(data.decode("latin-1") for data in _files(s3, s3_task_dir))
    text = "\n".join([*shown, caplog.text, traces(client, cluster, tmp_path), stored])
    assert result.write_id in text
    for secret in sought:
        assert secret not in text


def test_resolvable_key_is_not_in_the_graph(client: Client, tmp_path: Path, pii_key: str) -> None:
    """Where the workers resolve the provider, not even the pickled graph holds a key."""
    writer = DataWriter(tmp_path, encryption_key="env:PII_KEY")
    lazy = writer.write_dataframe(frame(), "people", "parquet", compute=False)
    assert lazy._spec.sealing is not None
    assert lazy._spec.sealing.dataset_key is None
    graph = pickle.dumps(dict(lazy.__dask_graph__()))
    assert pii_key.encode() not in graph
    assert bytes.fromhex(pii_key) not in graph


def test_unresolvable_provider_travels_with_a_warning(
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A variable set here and not on the workers: the dataset key travels, and a log says so."""
    monkeypatch.setenv("ONLY_HERE", RAW.hex())
    writer = DataWriter(tmp_path, encryption_key="env:ONLY_HERE")
    result = writer.write_dataframe(frame(), "people", "parquet")
    assert "cannot resolve env:ONLY_HERE" in caplog.text
    assert len(read_dataset(result.path, encryption_key=RAW)) == 100


def _files(s3: S3Server, task_dir: str) -> list[bytes]:
    file_system = s3fs.S3FileSystem(**s3.storage_options, use_listings_cache=False)
    found = file_system.find(task_dir)
    assert found
    return [file_system.cat_file(file) for file in found]
