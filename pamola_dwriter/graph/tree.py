"""Trees that reduce many results to one, in which no task has too many inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from dask._task_spec import List, Task, TaskRef

from pamola_dwriter.graph.layers import Layers
from pamola_dwriter.graph.source import Graph, Key, Keys
from pamola_dwriter.layout import Stage

Reduce = Callable[..., Any]
"""Takes a list of inputs, or of its own results."""


def add_tree(layers: Layers, inputs: Sequence[Keys], function: Reduce, stage: Stage) -> Key:
    """Add a layer that reduces `inputs` to one result, and return the key of that."""
    name, width = layers.name(stage), layers.settings.gather_width
    layers.add(name, partial(reduce, name, inputs, function, width))
    return root(name, sum(map(len, inputs)), width)


def reduce(
    name: str, inputs: Sequence[Keys], function: Reduce, width: int, first: int = 0
) -> Graph:
    """Return the tasks of a tree, numbered from `first` to its root."""
    tree: Graph = {}
    level = inputs
    while not tree or len(level[0]) > 1:
        made = group(name, level, function, width, first + len(tree))
        level = [Keys(name, range(first + len(tree), first + len(tree) + len(made)))]
        tree |= made
    return tree


def group(name: str, inputs: Sequence[Keys], function: Reduce, width: int, first: int = 0) -> Graph:
    """Return one level of a tree: tasks that take at most `width` inputs each."""
    keys = list(chain(*inputs))
    starts = range(0, len(keys), width)
    return {
        (name, number): Task(
            (name, number), function, List(*map(TaskRef, keys[start : start + width]))
        )
        for number, start in enumerate(starts, first)
    }


def root(name: str, inputs: int, width: int, first: int = 0) -> Key:
    """Return the key of the root of the tree that :func:`reduce` makes of so many inputs."""
    size, level = 0, inputs
    while level > 1 or not size:
        level = -(-level // width)
        size += level
    return name, first + size - 1
