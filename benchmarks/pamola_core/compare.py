"""Comparing two runs leaf by leaf, and naming the differences that are meant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]


_MEASURED = re.compile(r"duration|elapsed|execution_time|per_second|memory", re.IGNORECASE)


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


@dataclass(frozen=True)
class Difference:
    """One leaf that is not the same."""

    path: Path
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{' > '.join(self.path)}: {_short(self.theirs)} | {_short(self.ours)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:87]}..."


def differences(theirs: Any, ours: Any, path: Path = ()) -> Iterator[Difference]:
    """Yield the leaves in which two values of JSON's kind differ; what only one has, as one."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for name in dict.fromkeys([*theirs, *ours]):
            one, other = theirs.get(name, MISSING), ours.get(name, MISSING)
            yield from differences(one, other, (*path, str(name)))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(one, other, (*path, str(number)))
    elif not _same(theirs, ours):
        yield Difference(path, theirs, ours)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


def is_measured(difference: Difference) -> bool:
    """Tell whether two numbers differ that both were measured while running."""
    numbers = (int, float)
    return (
        bool(_MEASURED.search(difference.path[-1]))
        and isinstance(difference.theirs, numbers)
        and isinstance(difference.ours, numbers)
    )
