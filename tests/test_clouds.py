"""Azure and Google: the promises of a store, whole writes, and what each of them does its own way.

The servers are emulators; where one of them differs from what the vendor documents, a test here
says so, and the store holds to the vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from deploy.local import emulators
from pamola_dwriter.contracts import Store
from pamola_dwriter.spec import Redacted
from pamola_dwriter.storage import open_store
from pamola_dwriter.testing.suite import StoreSuite
from tests.places import TUNING, Place


@pytest.fixture(scope="module")
def azure() -> Iterator[emulators.AzureServer]:
    """An Azure emulator with an empty container."""
    with emulators.azure_server() as server:
        yield server


@pytest.fixture(scope="module")
def gcs() -> Iterator[emulators.GcsServer]:
    """A Google emulator with an empty bucket."""
    with emulators.gcs_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield server


@pytest.fixture
def azure_place(azure: emulators.AzureServer) -> Place:
    """A task directory in the container that no other test knows."""
    return Place(f"abfs://{azure.container}/{uuid4().hex}", azure.storage_options)


@pytest.fixture
def gcs_place(gcs: emulators.GcsServer) -> Place:
    """A task directory in the bucket that no other test knows."""
    return Place(f"gs://{gcs.bucket}/{uuid4().hex}", gcs.storage_options)


def _open(place: Place) -> Store:
    return open_store(place.root, Redacted(place.options), TUNING)


class TestAzure(StoreSuite):
    """Azure Blob Storage keeps every promise of a store."""

    @pytest.fixture
    def opener(self, azure_place: Place) -> Callable[[], Store]:
        return lambda: _open(azure_place)


class TestGcs(StoreSuite):
    """Google Cloud Storage keeps every promise of a store."""

    @pytest.fixture
    def opener(self, gcs_place: Place) -> Callable[[], Store]:
        return lambda: _open(gcs_place)
