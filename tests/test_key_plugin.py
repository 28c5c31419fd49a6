"""Key providers of other packages: a real one, installed with pip, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.local import servers
from pamola_dwriter import keys
from pamola_dwriter.errors import InvalidKeyError
from tests import plugins

PACKAGE = Path(__file__).with_name("key_plugin")

PROGRAM = """
import logging, sys
import pandas as pd, dask.dataframe as dd
from dask.distributed import Client
from pamola_dwriter import DataWriter, read_dataset

logging.basicConfig(level="INFO")
folder, uri, address = sys.argv[1:]
client = Client(address) if address else None
assert "pamola_keyring" not in sys.modules  # nothing is imported before it is asked for
frame = dd.from_pandas(pd.DataFrame({"n": range(6)}), npartitions=2)
result = DataWriter(folder, encryption_key=uri).write_dataframe(frame, "x", "parquet")
print("read", int(read_dataset(result.path, encryption_key=uri)["n"].sum().compute()))
"""

SUITE = """
import sys
from pathlib import Path
import pytest
from pamola_dwriter.keys import resolve
from pamola_dwriter.testing.suite import KeyProviderSuite

class TestKeyring(KeyProviderSuite):
    @pytest.fixture
    def make(self):
        return lambda: resolve({one!r})[0]

    @pytest.fixture
    def make_other(self):
        return lambda: resolve({other!r})[0]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package."""
    return plugins.install(PACKAGE, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    """A file with two keys."""
    path = tmp_path / "keyring.json"
    path.write_text(json.dumps({"pii": "5eed" * 16, "hr": "beef" * 16}))
    return path


def test_in_threads(installed: Path, keyring: Path, tmp_path: Path) -> None:
    """An installed package brings a scheme that writes and reads like any of ours."""
    done = plugins.run(PROGRAM, installed, tmp_path / "task", f"keyring:{keyring}#pii", "")
    assert done.stdout.split() == ["read", "15"], done.stderr


def test_on_a_cluster(installed: Path, keyring: Path, tmp_path: Path) -> None:
    """Workers that have the package resolve the key themselves, so that none travels."""
    env = {"PYTHONPATH": plugins.path_with(installed)}
    with servers.cluster(n_workers=1, env=env, dashboard=False) as running:
        arguments = (tmp_path / "task", f"keyring:{keyring}#pii", running.scheduler_address)
        done = plugins.run(PROGRAM, installed, *arguments)
    assert done.stdout.split() == ["read", "15"], done.stderr
    assert "cannot resolve" not in done.stderr


def test_workers_without_the_package(
    installed: Path, keyring: Path, tmp_path: Path, cluster: servers.Cluster
) -> None:
    """Where workers lack the package the write says so, and its key travels on this host alone."""
    arguments = (tmp_path / "task", f"keyring:{keyring}#pii", cluster.scheduler_address)
    done = plugins.run(PROGRAM, installed, *arguments)
    assert done.stdout.split() == ["read", "15"], done.stderr
    assert "2 of 2 workers cannot resolve keyring:" in done.stderr


def test_its_own_errors_come_through(installed: Path, keyring: Path, tmp_path: Path) -> None:
    """What the package says of a bad URI reaches whoever gave it."""
    done = plugins.run(PROGRAM, installed, tmp_path / "task", f"keyring:{keyring}#none", "")
    assert done.stderr.strip().endswith("has no key named 'none'")
    assert not [path for path in (tmp_path / "task").rglob("*") if path.is_file()]


def test_the_suite_is_for_other_packages_too(
    installed: Path, keyring: Path, tmp_path: Path
) -> None:
    """The conformance suite runs where only this package and pytest are, and passes."""
    source = SUITE.format(one=f"keyring:{keyring}#pii", other=f"keyring:{keyring}#hr")
    (tmp_path / "test_keyring.py").write_text(source)
    program = "import pytest, sys; sys.exit(pytest.main(['-q', '--rootdir', *sys.argv[1:]]))"
    done = plugins.run(program, installed, tmp_path, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout


BROKEN = {
    "absent_module": ("", "no_such_module:Thing", "No module named 'no_such_module'"),
    "fails_on_import": ("1 / 0", "{module}:Thing", "ZeroDivisionError"),
    "fails_when_made": (
        "def Thing(uri): raise OSError(uri)",
        "{module}:Thing",
        "could not be made of its URI (OSError)",
    ),
    "not_callable": ("Thing = 1", "{module}:Thing", "could not be made of its URI (TypeError)"),
    "no_provider": ("Thing = str", "{module}:Thing", "a str lacks uri, wrap or unwrap"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_named(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong, the error says what, and does not repeat a URI that may be a secret."""
    source, value, reason = BROKEN[case]
    (tmp_path / f"broken_key_{case}.py").write_text(source)
    offered = value.format(module=f"broken_key_{case}")
    plugins.offer(tmp_path, f"broken-{case}", keys.INSTALLED.group, "toy", offered)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidKeyError, match="'toy'") as caught:
        keys.resolve("toy:hunter2")
    assert reason in str(caught.value)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_schemes_of_ours_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pii_key: str
) -> None:
    """A package that offers ``env:`` is passed over."""
    plugins.offer(tmp_path, "thief", keys.INSTALLED.group, "env", "no_such_module:Thing")
    monkeypatch.syspath_prepend(tmp_path)
    (provider,) = keys.resolve("env:PII_KEY")
    assert isinstance(provider, keys.EnvKey)


def test_two_packages_with_one_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme that two packages offer is refused, naming both, rather than picked by chance."""
    for package in ("first", "second"):
        plugins.offer(tmp_path, package, keys.INSTALLED.group, "toy", "no_such_module:Thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidKeyError, match="offered by first and second"):
        keys.resolve("toy:x")
