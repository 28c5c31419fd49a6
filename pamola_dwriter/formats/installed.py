"""Formats that other packages bring, found by the entry points they declare.

A package offers a format in its ``pyproject.toml``, by the name that callers will give::

    [project.entry-points."pamola_dwriter.formats"]
    tsv = "their_package:TsvSerializer"

The object is a :class:`~pamola_dwriter.contracts.Serializer`, or a class of which one is made
without arguments. It is imported when its format is first asked for, in each process that writes
or reads: so the package is installed on the client and on every worker.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pamola_dwriter.contracts import Serializer
from pamola_dwriter.errors import UnknownFormatError
from pamola_dwriter.spec import FormatSpec

GROUP = "pamola_dwriter.formats"

_METHODS = ("check_options", "check_schema", "extension", "dumps", "load")
_EXTENSION = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*", re.ASCII)


def installed_formats() -> list[str]:
    """Return the names of the formats that installed packages offer, sorted."""
    return sorted(entry_points(group=GROUP).names)


def load_format(name: str) -> Serializer | None:
    """Import a format of another package; None if no installed package offers it.

    Raises
    ------
    UnknownFormatError
        Several packages offer it, or the one that does is broken; names the packages.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        return None
    packages = sorted({_package(entry) for entry in found})
    if len(packages) > 1:
        raise UnknownFormatError(
            f"format {name!r} is offered by {' and '.join(packages)}; uninstall all but one"
        )
    try:
        return _make(found[0])
    except Exception as error:  # whatever somebody else's module raises
        raise UnknownFormatError(
            f"format {name!r} of package {packages[0]} is broken ({type(error).__name__}: "
            f"{error}); mend or uninstall the package"
        ) from error


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _make(entry: EntryPoint) -> Serializer:
    offered = entry.load()
    made: Any = offered() if isinstance(offered, type) else offered
    absent = [method for method in _METHODS if not callable(getattr(made, method, None))]
    if not isinstance(getattr(made, "columnar", None), bool):
        absent.append("columnar")
    if absent:
        raise TypeError(f"{entry.value} is no Serializer: it lacks {', '.join(absent)}")
    serializer: Serializer = made
    extension = serializer.extension(serializer.check_options(FormatSpec(name=entry.name)))
    if not _EXTENSION.fullmatch(extension):
        raise ValueError(f"its extension {extension!r} is not of lower-case letters and digits")
    return serializer
