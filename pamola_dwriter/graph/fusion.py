"""One task for a partition and for the stage that takes it in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from dask._task_spec import Alias, Task, convert_legacy_graph

from pamola_dwriter.graph.layers import without
from pamola_dwriter.graph.source import Graph


class Fusion:
    """Two layers that are made together: the tasks of the second take in those of the first."""

    def __init__(self, make_input: Callable[[], Graph], make_parts: Callable[[], Graph]) -> None:
        self._make_input = make_input
        self._make_parts = make_parts

    def __getstate__(self) -> dict[str, Any]:
        return without("_layers", vars(self))

    @cached_property
    def _layers(self) -> tuple[Graph, Graph]:
        given, parts = convert_legacy_graph(self._make_input()), self._make_parts()
        shared = set().union(*(node.dependencies for node in given.values()))
        for key, part in parts.items():
            (partition,) = part.dependencies
            if partition not in shared and _can_be_fused(given[partition]):
                parts[key] = Task.fuse(given.pop(partition), part, key=key)
        return given, parts

    def layer(self, number: int) -> Graph:
        """Return what is left of the first layer (0), or the second one (1)."""
        return self._layers[number]


def _can_be_fused(node: Any) -> bool:
    # An alias is no work; and its own key may be that of what it stands for.
    return not (node.block_fusion or isinstance(node, Alias))
