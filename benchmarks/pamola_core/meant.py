"""The differences from the reference that are meant, each with its reason."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.pamola_core.compare import MISSING, Difference
from benchmarks.pamola_core.content import SEALED

_METRICS = "metrics/"


@dataclass(frozen=True)
class Rule:
    """A difference that is meant: how it is known, and why it is so."""

    name: str
    reason: str
    holds: Callable[[Difference], bool]


def aligned(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return our files under the reference's names for them, and the reasons for renaming."""
    found: dict[str, Any] = {}
    reasons = set()
    for name, value in sorted(ours.items(), key=lambda item: not item[0].endswith("/")):
        known = name.removesuffix(SEALED)
        if known != name:
            reasons.add("sealed files say so: they end in .pdw")
        if known not in theirs and _METRICS + known in theirs:
            known = _METRICS + known
            found.pop(_METRICS, None)  # what they make as a folder stays empty
            reasons.add("write_metrics writes to the task directory, as is specified")
        found[known] = value
    return found, reasons


def _nan_is_null(difference: Difference) -> bool:
    theirs, ours = difference.theirs, difference.ours
    return ours is None and isinstance(theirs, float) and not math.isfinite(theirs)


def _tuple_is_array(difference: Difference) -> bool:
    theirs, ours = difference.theirs, difference.ours
    if not isinstance(theirs, str) or not isinstance(ours, list) or not theirs.startswith("("):
        return False
    try:
        return list(ast.literal_eval(theirs)) == ours
    except (ValueError, SyntaxError):
        return False


def _moment_is_iso(difference: Difference) -> bool:
    theirs, ours = difference.theirs, difference.ours
    if not isinstance(theirs, str) or not isinstance(ours, str):
        return False
    try:
        return "T" in ours and pd.Timestamp(theirs) == pd.Timestamp(ours)
    except ValueError:
        return False


def _is_sealed(difference: Difference) -> bool:
    return difference.path[-1] == "protection" and (
        (difference.theirs, difference.ours) == ("simple", "sealed")
    )


def _more_of_the_caller(difference: Difference) -> bool:
    return difference.path[-4:] == ("content", "metadata", "operation", "version") and (
        difference.theirs is MISSING
    )


def _stands_in_the_task(difference: Difference) -> bool:
    theirs, ours = difference.theirs, difference.ours
    return (
        isinstance(theirs, str)
        and isinstance(ours, str)
        and theirs.replace(f"TASK/{_METRICS}", "TASK/") == ours.removesuffix(SEALED)
    )


def _whole_float(difference: Difference) -> bool:
    theirs, ours = difference.theirs, difference.ours
    return (
        isinstance(theirs, str)
        and isinstance(ours, str)
        and theirs.endswith(".0")
        and theirs.removesuffix(".0") == ours
        and "cells" in difference.path
    )


def _size_of_an_artifact(difference: Difference) -> bool:
    return difference.path[-1] == "size" and "artifacts" in difference.path


RULES = [
    Rule("metrics", "write_metrics writes to the task directory", _stands_in_the_task),
    Rule("sizes in a cache", "an artifact that differs has its own size", _size_of_an_artifact),
    Rule("sealed", "one authenticated format instead of the mode 'simple'", _is_sealed),
    Rule("whole floats", "CSV says 6 for 6.0; typed readers know the schema", _whole_float),
    Rule("NaN is null", "JSON has no NaN; other readers refuse it", _nan_is_null),
    Rule("tuples are arrays", "the reference writes their Python text", _tuple_is_array),
    Rule("moments are ISO 8601", "the reference writes their Python text", _moment_is_iso),
    Rule("version of the operation", "metrics also say which version", _more_of_the_caller),
]


def rule_for(difference: Difference) -> Rule | None:
    """Return the rule under which a difference is meant, if there is one."""
    return next((rule for rule in RULES if rule.holds(difference)), None)
