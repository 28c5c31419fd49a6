"""Real servers, shared by the whole session: starting them takes two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from uuid import uuid4

import pytest
from distributed import Client

from deploy.local import servers
from tests.places import Place


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3Server]:
    """A real S3 server with an empty bucket."""
    with servers.s3_server() as server:
        yield server


@pytest.fixture
def s3_task_dir(s3: servers.S3Server) -> str:
    """A task directory in the bucket that no other test knows."""
    return f"s3://{s3.bucket}/{uuid4().hex}"


@pytest.fixture(scope="session")
def pii_key() -> Iterator[str]:
    """The value of PII_KEY, here and in every worker: ``encryption_key="env:PII_KEY"``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PII_KEY", key := token_hex(32))
        yield key


@pytest.fixture(scope="session")
def cluster(pii_key: str) -> Iterator[servers.Cluster]:
    """A real scheduler and two workers, each a process of its own."""
    with servers.cluster(env={"PII_KEY": pii_key}) as running:
        yield running


@pytest.fixture
def client(cluster: servers.Cluster) -> Iterator[Client]:
    """A client of the cluster, with all workers up even if the last test killed one."""
    cluster.wait_for_workers()
    with Client(cluster.scheduler_address) as connected:
        yield connected


@pytest.fixture(params=["posix", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A task directory on each kind of storage that has a protocol of its own."""
    if request.param == "posix":
        return Place(str(tmp_path / "task"))
    return request.getfixturevalue("s3_place")  # type: ignore[no-any-return]


@pytest.fixture
def s3_place(s3: servers.S3Server, s3_task_dir: str) -> Place:
    """A task directory on S3."""
    return Place(s3_task_dir, s3.storage_options)


@pytest.fixture(params=[None, "env:PII_KEY"], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest, pii_key: str) -> str | None:
    """No key, or one that every worker resolves itself."""
    value: str | None = request.param
    return value
