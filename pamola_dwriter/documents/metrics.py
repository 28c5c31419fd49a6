"""Metrics with where they come from: the operation that wrote them, found on the stack."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from types import FrameType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
_NOT_A_FUNCTION = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who called this package; names only, nothing of the caller's data.

    Attributes
    ----------
    class_name : str or None
        Class of the object whose method it is.
    version : str or None
        Version of that object, else of the package it comes from.
    """

    module: str
    class_name: str | None = None
    function: str
    version: str | None = None


def enrich_metrics(
    metrics: Any, *, name: str, moment: datetime, caller: Caller | None
) -> dict[str, Any]:
    """Return the document of `metrics`: they under ``metrics``, their origin under ``metadata``.

    ``metadata`` has ``timestamp`` (UTC), ``name`` and ``operation`` (``module``, ``class``,
    ``function`` and ``version``, as far as known).
    """
    return {
        "metadata": {
            "timestamp": moment.astimezone(UTC).isoformat(),
            "name": name,
            "operation": _operation(caller),
        },
        "metrics": metrics,
    }


def _operation(caller: Caller | None) -> dict[str, str]:
    if caller is None:
        return {}
    known = {
        "module": caller.module,
        "class": caller.class_name,
        "function": caller.function,
        "version": caller.version,
    }
    return {field: value for field, value in known.items() if value is not None}


def find_caller() -> Caller | None:
    """Return the nearest function on the stack that is not of this package, None without one.

    None of its code is run: a version is read only where it is stored as text or number, not
    where a property would compute it.
    """
    frame = inspect.currentframe()
    while frame is not None and (_is_ours(frame) or frame.f_code.co_name in _NOT_A_FUNCTION):
        frame = frame.f_back
    return None if frame is None else _describe(frame)


def _is_ours(frame: FrameType) -> bool:
    return _module_of(frame).partition(".")[0] == _PACKAGE


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def _describe(frame: FrameType) -> Caller:
    module = _module_of(frame)
    owner = _owner(frame)
    kind = owner if owner is None or isinstance(owner, type) else type(owner)
    return Caller(
        module=module,
        class_name=None if kind is None else kind.__name__,
        function=frame.f_code.co_name,
        version=_version_of_object(owner) or _version_of_package(frame.f_globals, module),
    )


def _owner(frame: FrameType) -> object | None:
    """Return ``self`` or ``cls`` of a method, or of the method that a function stands in."""
    code = frame.f_code
    candidates = (*code.co_varnames[: min(code.co_argcount, 1)], *code.co_freevars)
    for name in ("self", "cls"):
        if name in candidates:
            return frame.f_locals.get(name)
    return None


def _version_of_object(owner: object | None) -> str | None:
    for name in ("version", "__version__"):
        if version := _as_text(inspect.getattr_static(owner, name, None)):
            return version
    return None


def _version_of_package(namespace: Mapping[str, Any], module: str) -> str | None:
    top = module.partition(".")[0]
    held_by = getattr(sys.modules.get(top), "__dict__", {})
    version = _as_text(namespace.get("__version__")) or _as_text(held_by.get("__version__"))
    if version is not None:
        return version
    try:
        return metadata.version(top)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _as_text(version: object) -> str | None:
    stored = isinstance(version, str | int | float) and not isinstance(version, bool)
    return str(version) if stored else None
