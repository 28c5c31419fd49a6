"""The dataset key never crosses a network in the clear, unless it is let."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import psutil
import pytest
from distributed import Client, LocalCluster

from deploy.local import servers
from deploy.local.certificates import Certificates, make_certificates
from deploy.local.proxy import proxy
from pamola_dwriter import DataWriter, read_dataset, verify
from pamola_dwriter.errors import InsecureTransportError
from pamola_dwriter.transit import is_private
from tests.places import batch

KEY = bytes(range(32))
ALLOW = {"pamola-dwriter.allow-insecure-transport": True}


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("tcp://127.3.2.1:1", True),
        ("tcp://[::1]:8786", True),
        ("tcp://localhost:8786", True),
        ("tls://10.0.0.7:8786", True),
        ("wss://example.org:443", True),
        ("inproc://10.0.0.7/1/2", True),
        ("tcp://10.0.0.7:8786", False),
        ("tcp://scheduler:8786", False),
        ("tcp://localhost.example.org:8786", False),
        ("ws://10.0.0.7:80", False),
        ("ucx://10.0.0.7:8786", False),
        ("gateway://example.org:8786/0a1b", True),
        ("ucxx+tls://10.0.0.7:8786", False),
        ("tcp://[10.0.0.7", False),
        ("", False),
    ],
)
def test_private_links(address: str, private: bool) -> None:
    """Only this process, this host and TLS count as private."""
    assert is_private(address) is private


@pytest.fixture(scope="module")
def host() -> str:
    """An address of this machine as other hosts see it."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    assert found, "these tests need a network interface besides the loopback one"
    return found[0]


@pytest.fixture(scope="module")
def plain_cluster(host: str) -> Iterator[servers.Cluster]:
    """Plain TCP on that address, and workers that resolve ``env:PII_KEY``."""
    env = {"PII_KEY": "5eed" * 16}
    with servers.cluster(env=env, dashboard=False, host=host) as running:
        yield running


@pytest.fixture(scope="module")
def certificates(host: str, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """For that address."""
    return make_certificates(tmp_path_factory.mktemp("tls"), [host])


@pytest.fixture(scope="module")
def tls_cluster(host: str, certificates: Certificates) -> Iterator[servers.Cluster]:
    """TLS on that address."""
    with servers.cluster(dashboard=False, host=host, tls=certificates) as running:
        yield running


def write(client: Client, folder: Path, key: Any) -> Any:
    frame = dd.from_pandas(batch(0), npartitions=2)
    writer = DataWriter(folder, encryption_key=key, client=client)
    return writer.write_dataframe(frame, "people", "parquet").path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_key_that_would_travel_is_refused(plain_cluster: servers.Cluster, tmp_path: Path) -> None:
    """Over plain TCP to another address the write does not begin; the remedies are named."""
    with plain_cluster.connect() as client:
        for key in (KEY, "wonderful-tortoise-42"):
            with pytest.raises(InsecureTransportError) as caught:
                write(client, tmp_path, key)
            for remedy in ("env:NAME", "tls://", "allow-insecure-transport"):
                assert remedy in str(caught.value)
            assert f"unencrypted to {plain_cluster.scheduler_address}" in str(caught.value)
    assert files(tmp_path) == []


def test_a_key_that_workers_have_need_not_travel(
    plain_cluster: servers.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same links a key that every worker resolves is used, to write and to verify."""
    monkeypatch.setenv("PII_KEY", "5eed" * 16)
    with plain_cluster.connect() as client:
        path = write(client, tmp_path, "env:PII_KEY")
        assert verify(path, encryption_key="env:PII_KEY", client=client).rows == 10


def test_workers_that_lack_the_key_are_told_apart(
    plain_cluster: servers.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that the client alone has is named in the refusal."""
    monkeypatch.setenv("CLIENT_KEY", "beef" * 16)
    with (
        plain_cluster.connect() as client,
        pytest.raises(InsecureTransportError, match="could not resolve env:CLIENT_KEY"),
    ):
        write(client, tmp_path, "env:CLIENT_KEY")


def test_reading_is_refused_too(plain_cluster: servers.Cluster, tmp_path: Path) -> None:
    """The key that opens would travel like the one that seals."""
    path = DataWriter(tmp_path, encryption_key=KEY).write_dataframe(
        dd.from_pandas(batch(0), npartitions=2), "people", "parquet"
    )
    with plain_cluster.connect() as client, client.as_current():
        for use in (read_dataset, verify):
            with pytest.raises(InsecureTransportError):
                use(path.path, encryption_key=KEY)


def test_it_can_be_allowed(
    plain_cluster: servers.Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The setting lets the key travel, and a warning says where to."""
    with (
        plain_cluster.connect() as client,
        dask.config.set(ALLOW),
        caplog.at_level(logging.WARNING, "pamola_dwriter"),
    ):
        path = write(client, tmp_path, KEY)
        assert verify(path, encryption_key=KEY, client=client).rows == 10
    assert f"key travels unencrypted to {plain_cluster.scheduler_address}" in caplog.text
    assert KEY.hex() not in caplog.text


def test_over_tls_it_travels(tls_cluster: servers.Cluster, tmp_path: Path) -> None:
    """On a cluster of TLS, on an address that others see, any key writes and reads."""
    assert tls_cluster.scheduler_address.startswith("tls://")
    with tls_cluster.connect() as client:
        assert all(address.startswith("tls://") for address in client.nthreads())
        path = write(client, tmp_path, KEY)
        with client.as_current():
            frame = read_dataset(path, encryption_key=KEY).compute()
    assert sorted(frame["x"]) == list(range(10))


def greeted(address: str, trusted: Certificates, shown: Certificates | None) -> bool:
    """Return whether who shows this certificate is let in: Dask then speaks first."""
    host, port = address.removeprefix("tls://").rsplit(":", 1)
    context = ssl.create_default_context(cafile=str(trusted.ca))
    if shown:
        context.load_cert_chain(shown.cert, shown.key)
    try:
        with (
            socket.create_connection((host, int(port)), 10) as raw,
            context.wrap_socket(raw, server_hostname=host) as wrapped,
        ):
            return wrapped.recv(1) != b""
    except (ssl.SSLError, ConnectionError):
        return False


def test_tls_lets_nobody_else_in(
    tls_cluster: servers.Cluster, certificates: Certificates, tmp_path: Path
) -> None:
    """Scheduler and workers refuse plain TCP, no certificate, and one of another authority."""
    other = make_certificates(tmp_path / "other", ["192.0.2.1"])
    with tls_cluster.connect() as client:
        addresses = [tls_cluster.scheduler_address, *client.nthreads()]
    for address in addresses:
        assert greeted(address, certificates, certificates)
        assert not greeted(address, certificates, None)
        assert not greeted(address, certificates, other)
        with pytest.raises(OSError, match=r"Timed out|timed out|lost|closed"):
            Client(address.replace("tls://", "tcp://"), timeout=2, set_as_default=False)


def test_workers_that_are_not_there_yet(tmp_path: Path) -> None:
    """Where the scheduler listens on this host alone, whoever joins later is on it."""
    with (
        LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as waiting,
        Client(waiting, set_as_default=False) as client,
    ):
        lazy = DataWriter(tmp_path, encryption_key=KEY, client=client).write_dataframe(
            dd.from_pandas(batch(0), npartitions=2), "people", "parquet", compute=False
        )
    assert lazy._spec.sealing.dataset_key is not None


async def listen_too(address: str, dask_scheduler: Any) -> None:
    await dask_scheduler.listen(address)


def test_a_second_listener_is_seen(host: str, tmp_path: Path) -> None:
    """A scheduler that names a private address and also listens in the clear is exposed."""
    with (
        LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as double,
        Client(double, set_as_default=False) as client,
    ):
        client.run_on_scheduler(listen_too, f"tcp://{host}:0")
        with pytest.raises(InsecureTransportError, match=rf"that connect to tcp://{host}:"):
            write(client, tmp_path, KEY)


def test_a_forwarder_on_this_host_is_seen(tmp_path: Path) -> None:
    """A loopback address that another program passes on proves nothing of where it leads."""
    with (
        LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as far,
        proxy(int(far.scheduler_address.rsplit(":", 1)[1])) as forwarder,
        Client(f"tcp://127.0.0.1:{forwarder.port}", set_as_default=False) as client,
        pytest.raises(InsecureTransportError, match="passes it on"),
    ):
        write(client, tmp_path, KEY)


def test_another_cluster_is_looked_at_again(plain_cluster: servers.Cluster, tmp_path: Path) -> None:
    """A write made without a cluster is not taken to one where its key would be seen."""
    frame = dd.from_pandas(batch(0), npartitions=2)
    lazy = DataWriter(tmp_path, encryption_key=KEY).write_dataframe(
        frame, "people", "parquet", compute=False
    )
    with (
        plain_cluster.connect() as client,
        client.as_current(),
        pytest.raises(InsecureTransportError, match="unencrypted"),
    ):
        dask.compute(lazy)
    assert files(tmp_path) == []


def test_a_tunnel_does_not_hide_the_scheduler(tmp_path: Path) -> None:
    """A scheduler that is reached by the loopback interface and listens beyond it is exposed."""
    with LocalCluster(
        n_workers=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=None,
        host="0.0.0.0",  # noqa: S104
    ) as wide:
        port = wide.scheduler_address.rsplit(":", 1)[1]
        with (
            Client(f"tcp://127.0.0.1:{port}", set_as_default=False) as client,
            pytest.raises(
                InsecureTransportError, match=rf"that connect to tcp://0\.0\.0\.0:{port}"
            ),
        ):
            write(client, tmp_path, KEY)
