"""Formats that other packages bring.

A package offers a format in its ``pyproject.toml``, by the name that callers will give::

    [project.entry-points."pamola_dwriter.formats"]
    tsv = "their_package:TsvSerializer"

The object is a :class:`~pamola_dwriter.contracts.Serializer`, or a class of which one is made
without arguments.
"""

from __future__ import annotations

import re
from typing import Any

from pamola_dwriter.contracts import Serializer
from pamola_dwriter.errors import UnknownFormatError
from pamola_dwriter.extensions import ExtensionPoint
from pamola_dwriter.spec import FormatSpec

FORMATS = ExtensionPoint("pamola_dwriter.formats", "format", UnknownFormatError)

_METHODS = ("check_options", "check_schema", "extension", "dumps", "load")
_EXTENSION = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*", re.ASCII)


def load_format(name: str) -> Serializer | None:
    """Import a format of another package; None if no installed package offers it.

    Raises
    ------
    UnknownFormatError
        Several packages offer it, or the one that does is broken; names the packages.
    """
    offered = FORMATS.load(name)
    if offered is None:
        return None
    try:
        return _make(offered, name)
    except Exception as error:  # whatever somebody else's class raises
        raise FORMATS.broken(name, error) from error


def _make(offered: Any, name: str) -> Serializer:
    made: Any = offered() if isinstance(offered, type) else offered
    absent = [method for method in _METHODS if not callable(getattr(made, method, None))]
    if not isinstance(getattr(made, "columnar", None), bool):
        absent.append("columnar")
    if absent:
        raise TypeError(f"it is no Serializer: it lacks {', '.join(absent)}")
    serializer: Serializer = made
    extension = serializer.extension(serializer.check_options(FormatSpec(name=name)))
    if not _EXTENSION.fullmatch(extension):
        raise ValueError(f"its extension {extension!r} is not of lower-case letters and digits")
    return serializer
