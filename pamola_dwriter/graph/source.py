"""What is written: the partitions of a frame, and the graph that makes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask.dataframe as dd
import pandas as pd
from dask._expr import Expr
from dask._task_spec import DataNode
from dask.base import tokenize

_CACHES = frozenset({"_dataset_info_cache", "_pq_length_stats"})
"""Parameters in which an expression keeps what it has looked up."""

Key = Any
Graph = dict[Key, Any]


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a layer: its name, with each of some numbers of partitions."""

    name: str
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Key]:
        return ((self.name, number) for number in self.numbers)

    def without(self, numbers: Collection[int]) -> Keys:
        """Return those that are left."""
        if not numbers:
            return self
        return replace(self, numbers=[n for n in self.numbers if n not in numbers])


@dataclass(frozen=True, slots=True)
class Source:
    """The partitions to write.

    Attributes
    ----------
    make : callable
        Returns a graph; can be pickled, and is small where the frame is not in memory.
    keys : Keys
        Of each partition.
    identity : tuple of str, or None
        Tokens that are the same for the same input in another process; None for a frame in
        memory.
    """

    make: Callable[[], Graph]
    keys: Keys
    identity: tuple[str, ...] | None

    @classmethod
    def from_dask(cls, frame: dd.DataFrame) -> Source:
        """Take the optimized expression of a Dask DataFrame."""
        expression = frame.optimize().expr.lower_completely()
        return cls(
            expression.__dask_graph__,
            Keys(expression._name, range(expression.npartitions)),
            (str(frame.npartitions), *map(_identify, frame.expr.walk())),
        )

    @classmethod
    def from_pandas(cls, frames: Sequence[pd.DataFrame], name: str) -> Source:
        """Take frames in memory, each as one partition."""
        keys = Keys(name, range(len(frames)))
        return cls(partial(_hold, keys, frames), keys, None)


def _hold(keys: Keys, frames: Sequence[pd.DataFrame]) -> Graph:
    return {key: DataNode(key, frame) for key, frame in zip(keys, frames, strict=True)}


def _identify(node: Any) -> str:
    """Return a token of one step of an expression; what it is applied to has tokens of its own.

    The names that Dask gives to Parquet input are no such tokens: they depend on a cache.
    """
    parameters = [*node._parameters, *[""] * (len(node.operands) - len(node._parameters))]
    own = [
        (parameter, operand)
        for parameter, operand in zip(parameters, node.operands, strict=True)
        if parameter not in _CACHES and not isinstance(operand, Expr)
    ]
    checksum = node.checksum if hasattr(type(node), "checksum") else None  # of Parquet files
    token: str = tokenize(type(node).__name__, checksum, own)
    return token
