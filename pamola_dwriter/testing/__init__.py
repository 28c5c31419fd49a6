"""Break a store on purpose, and look whether a write survived it: for tests, ours and yours.

:func:`inject` lets the calls go wrong that this process makes to its stores, :func:`install` those
of a worker, :class:`FaultyStore` those of one store; each :class:`Fault` says which call, and how
far it comes. :func:`assert_no_leftovers` then looks at what stands.

>>> import tempfile
>>> import pandas as pd
>>> from pamola_dwriter import DataWriter, read_dataset
>>> from pamola_dwriter.testing import Fault, assert_no_leftovers, inject
>>> lost = Fault("put_if", "lost", path="*/_manifest.json")
>>> with tempfile.TemporaryDirectory() as task_dir, inject(lost) as injection:
...     writer = DataWriter(task_dir)
...     result = writer.write_dataframe(pd.DataFrame({"x": [1, 2]}), "d", single_file=False)
...     rows = len(read_dataset(result.path))
...     assert_no_leftovers(task_dir, write_ids=[result.write_id])
>>> rows, [call.paths for _, call in injection.injected]
(2, [('output/d/_manifest.json',)])

Authors of stores and key providers find conformance suites in
:mod:`pamola_dwriter.testing.suite`, which alone needs pytest.
"""

from __future__ import annotations

from pamola_dwriter.testing.faults import Call, Crash, Fault, Injection
from pamola_dwriter.testing.injecting import inject, install, uninstall
from pamola_dwriter.testing.leftovers import assert_no_leftovers
from pamola_dwriter.testing.stores import FaultyStore, SlowStore
from pamola_dwriter.testing.wrapper import StoreWrapper

__all__ = [
    "Call",
    "Crash",
    "Fault",
    "FaultyStore",
    "Injection",
    "SlowStore",
    "StoreWrapper",
    "assert_no_leftovers",
    "inject",
    "install",
    "uninstall",
]
