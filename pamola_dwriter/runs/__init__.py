"""One execution of a compiled write, on a cluster or in this process, and its aftermath."""

from __future__ import annotations

from pamola_dwriter.runs.base import Run
from pamola_dwriter.runs.cluster import ClusterRun
from pamola_dwriter.runs.local import LocalRun

__all__ = ["ClusterRun", "LocalRun", "Run"]
