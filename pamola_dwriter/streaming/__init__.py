"""Write a dataset from data that is still being made, one version after another."""

from __future__ import annotations

from pamola_dwriter.streaming.stream import WriteStream

__all__ = ["WriteStream"]
