"""Configuration: complete both ways, read once, refused when impossible."""

from __future__ import annotations

import os
import subprocess
import sys

import dask
import pytest

from pamola_dwriter import settings
from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.settings import Settings


def test_defaults_and_settings_name_the_same_keys() -> None:
    """Every shipped default is read, and everything read has a shipped default."""
    shipped = settings.defaults()
    assert list(shipped) == [settings.SECTION]
    section = shipped[settings.SECTION]
    assert isinstance(section, dict)
    assert set(section) == settings.names()


def test_values_are_parsed() -> None:
    """Sizes are given as text and come out in bytes."""
    with dask.config.set({"pamola-dwriter.upload-part-size": "8 MiB"}):
        assert Settings.load().upload_part_size == 8 * 2**20


def test_environment_sets_a_value() -> None:
    """DASK_PAMOLA_DWRITER__LEASE_SECONDS is the setting lease-seconds, and the rest stays."""
    script = "from pamola_dwriter.settings import Settings as S; print(S.load())"
    environment = {**os.environ, "DASK_PAMOLA_DWRITER__LEASE_SECONDS": "7s"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    assert "lease_seconds=7" in done.stdout
    assert "gather_width=64" in done.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gather-width", 1),
        ("upload-part-size", "1 MiB"),
        ("inline-parts", "many"),
        ("allow-insecure-transport", "no"),
        ("fuse-stages", 1),
    ],
)
def test_impossible_values_are_refused(key: str, value: object) -> None:
    """An impossible value is an error of ours that names the section."""
    with (
        dask.config.set({f"pamola-dwriter.{key}": value}),
        pytest.raises(InvalidWriteError, match="pamola-dwriter"),
    ):
        Settings.load()
