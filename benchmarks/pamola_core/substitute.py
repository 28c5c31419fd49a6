"""Putting another class in the place of the reference's ``DataWriter``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pamola_core.utils.ops.op_data_writer import DataWriter as ReferenceWriter

_NAME = "DataWriter"


@contextmanager
def substitute(writer: type[Any]) -> Iterator[None]:
    """Let every module of the reference that has its writer by name have `writer` instead."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("pamola_core") and vars(module).get(_NAME) is ReferenceWriter
    ]
    for module in modules:
        setattr(module, _NAME, writer)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, _NAME, ReferenceWriter)
