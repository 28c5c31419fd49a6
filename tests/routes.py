"""The benchmark job as one command: on every route it is this one, with other addresses.

Each route's own test runs or renders it, and compares what it found with :func:`job_command`.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

ROWS = 2000
PARTITIONS = 4


def job_command(scheduler: str, target: str, *, python: str = "python") -> list[str]:
    """Return the command, word for word."""
    return [
        *(python, "-m", "benchmarks", "job"),
        *("--scheduler", scheduler, "--target", target),
        *("--rows", str(ROWS), "--partitions", str(PARTITIONS)),
    ]


def split_options(words: Sequence[str]) -> list[str]:
    """Read ``--option=value`` as two words, which is how the command above has them."""
    return [
        part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])
    ]


def report(said: str) -> dict[str, Any]:
    """Read the job's report, which is the last thing it says."""
    found: dict[str, Any]
    found, _ = json.JSONDecoder().raw_decode(said[said.index("\n{\n") :].lstrip())
    return found


def answers(url: str) -> bool:
    """Tell whether a server of a route is there, and well."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
