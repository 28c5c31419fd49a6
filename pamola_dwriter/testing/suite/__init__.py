"""What every store and every key provider promises, as tests that pytest collects.

Whoever writes a store of their own holds it against all of
:class:`pamola_dwriter.contracts.Store` with a few lines::

    from pamola_dwriter.testing.suite import StoreSuite

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def opener(self, tmp_path):
            return lambda: MyStore(tmp_path)

and an author of a key provider likewise, with two keys::

    from pamola_dwriter.testing.suite import KeyProviderSuite

    class TestMyProvider(KeyProviderSuite):
        @pytest.fixture
        def make(self):
            return lambda: MyKey("mykms:one")

        @pytest.fixture
        def make_other(self):
            return lambda: MyKey("mykms:two")

It needs pytest, as nothing else of this package does, and is therefore not among the names of
:mod:`pamola_dwriter.testing`.
"""

from __future__ import annotations

import pytest

# Before the import: else a failing promise would say "assert False" and no more.
_MODULES = ("conditions", "files", "listings", "parts", "providers")
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from pamola_dwriter.testing.suite.conditions import ConditionPromises  # noqa: E402
from pamola_dwriter.testing.suite.files import FilePromises  # noqa: E402
from pamola_dwriter.testing.suite.listings import ListingPromises  # noqa: E402
from pamola_dwriter.testing.suite.parts import PartPromises  # noqa: E402
from pamola_dwriter.testing.suite.providers import KeyProviderSuite  # noqa: E402

__all__ = ["KeyProviderSuite", "StoreSuite"]


class StoreSuite(PartPromises, FilePromises, ConditionPromises, ListingPromises):
    """Every promise of a store; a subclass gives the fixture `opener`.

    Attributes
    ----------
    shows_staged_parts : bool
        Whether a part is visible under its final name as soon as it is staged, since the store
        has no other way.
    clock_step : float
        Seconds to which the store gives the time of a change.
    """
