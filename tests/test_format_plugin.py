"""Formats of other packages: a real one, installed with pip, and broken ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.local import servers
from pamola_dwriter import formats
from pamola_dwriter.errors import UnknownFormatError
from pamola_dwriter.formats.installed import FORMATS
from tests import plugins

PACKAGE = Path(__file__).with_name("format_plugin")

PROGRAM = """
import sys
import pandas as pd, dask.dataframe as dd
from dask.distributed import Client
from pamola_dwriter import DataWriter, formats, read_dataset

folder, address = sys.argv[1:]
client = Client(address) if address else None
assert "tsv" not in formats.SERIALIZERS  # nothing is imported before it is asked for
frame = pd.DataFrame({"n": [3, 1, 2], "s": pd.array(["b", "a", None], "string[pyarrow]")})
writer = DataWriter(folder, encryption_key=bytes(range(32)))
result = writer.write_dataframe(dd.from_pandas(frame, npartitions=2), "x", "tsv")
loaded = read_dataset(result.path, encryption_key=bytes(range(32)))
pd.testing.assert_frame_equal(loaded.compute().reset_index(drop=True), frame)
pd.testing.assert_frame_equal(loaded[["s"]].compute().reset_index(drop=True), frame[["s"]])
print("read back", *(path.suffixes[0] for path in result.path.glob("part*")))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package."""
    return plugins.install(PACKAGE, tmp_path_factory.mktemp("installed"))


def test_a_format_of_another_package_in_threads(installed: Path, tmp_path: Path) -> None:
    """An installed package brings a format that is written and read like any of ours."""
    done = plugins.run(PROGRAM, installed, tmp_path, "")
    assert done.stdout.split() == ["read", "back", ".tsv", ".tsv"], done.stderr


def test_a_format_of_another_package_on_a_cluster(installed: Path, tmp_path: Path) -> None:
    """Workers that have the package write and read its format."""
    with servers.cluster(
        n_workers=1, env={"PYTHONPATH": plugins.path_with(installed)}, dashboard=False
    ) as cluster:
        done = plugins.run(PROGRAM, installed, tmp_path, cluster.scheduler_address)
    assert done.stdout.split() == ["read", "back", ".tsv", ".tsv"], done.stderr


def test_workers_without_the_package(
    installed: Path, tmp_path: Path, cluster: servers.Cluster
) -> None:
    """Workers that lack the package fail the write, and the error says what to install where."""
    done = plugins.run(PROGRAM, installed, tmp_path, cluster.scheduler_address)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "UnknownFormatError" in last
    assert "unknown format 'tsv' on host" in last
    assert "on the client and on every worker" in last
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


GOOD = """
    columnar = False
    def check_options(self, spec): return spec
    def check_schema(self, schema): pass
    def extension(self, spec): return "toy"
    def dumps(self, table, spec): pass
    def load(self, file, schema, columns, spec): pass
"""
BROKEN = {
    "absent_module": ("", "no_such_module:Thing", "No module named 'no_such_module'"),
    "absent_class": ("", "{module}:Thing", "AttributeError"),
    "fails_on_import": ("1 / 0", "{module}:Thing", "ZeroDivisionError"),
    "fails_when_made": (
        f"class Thing:{GOOD}\n    def __init__(self): raise OSError('no disc')",
        "{module}:Thing",
        "OSError: no disc",
    ),
    "takes_arguments": (
        f"class Thing:{GOOD}\n    def __init__(self, level): pass",
        "{module}:Thing",
        "level",
    ),
    "lacks_methods": (
        "class Thing:\n    columnar = True\n    dumps = load = extension = len",
        "{module}:Thing",
        "lacks check_options, check_schema",
    ),
    "lacks_columnar": (GOOD.replace("\n    ", "\n"), "{module}", "lacks columnar"),
    "odd_extension": (
        f"class Thing:{GOOD.replace('toy', '../toy')}",
        "{module}:Thing",
        "extension '../toy'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_named(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with a package's format, the error says which package and what."""
    source, value, reason = BROKEN[case]
    (tmp_path / f"broken_{case}.py").write_text(source.replace("columnar = False\ndef", "def"))
    plugins.offer(
        tmp_path, f"broken-{case}", FORMATS.group, "toy", value.format(module=f"broken_{case}")
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownFormatError, match=f"package broken-{case} is broken") as caught:
        formats.get("toy")
    assert reason in str(caught.value)
    assert "toy" not in formats.SERIALIZERS


def test_names_of_ours_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers a format of our name, or another name of it, is passed over."""
    for name in ("csv", "xlsx"):
        plugins.offer(tmp_path, f"thief-{name}", FORMATS.group, name, "no_such_module:Thing")
    monkeypatch.syspath_prepend(tmp_path)
    assert FORMATS.names() == ["csv", "xlsx"]
    assert type(formats.get("csv")).__name__ == "CsvSerializer"
    assert type(formats.get("xlsx")).__name__ == "ExcelSerializer"


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that two packages offer is refused, naming both, rather than picked by chance."""
    for package in ("first", "second"):
        plugins.offer(tmp_path, package, FORMATS.group, "toy", "no_such_module:Thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownFormatError, match="offered by first and second"):
        formats.get("toy")


def test_an_unknown_format_lists_those_of_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of an unknown format lists what is installed, without importing it."""
    plugins.offer(tmp_path, "other", FORMATS.group, "toy", "no_such_module:Thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownFormatError, match=r"'tyo' on host .* parquet, toy, or install"):
        formats.get("tyo")


def test_an_object_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point may name an object instead of a class; it is loaded once."""
    (tmp_path / "good_toy.py").write_text(f"class Toy:{GOOD}\ntoy = Toy()")
    plugins.offer(tmp_path, "good", FORMATS.group, "toy", "good_toy:toy")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(formats, "SERIALIZERS", dict(formats.SERIALIZERS))
    assert formats.get("toy") is formats.get("toy") is sys.modules["good_toy"].toy
