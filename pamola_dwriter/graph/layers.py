"""Layers of the graph: tasks that are made where they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from functools import cached_property
from typing import Any

from dask.highlevelgraph import HighLevelGraph, Layer

from pamola_dwriter import layout
from pamola_dwriter.graph.source import Graph, Key
from pamola_dwriter.layout import Stage
from pamola_dwriter.settings import Settings
from pamola_dwriter.spec import RunSpec


def without(name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an object as it travels, without what it has made of it."""
    return {other: value for other, value in state.items() if other != name}


class TaskLayer(Layer):
    """Tasks that are made where they are looked at, which is on the scheduler.

    What travels there is how to make them, so that the size of a graph does not depend on the
    number of its partitions.
    """

    def __init__(self, make: Callable[[], Graph], annotations: Mapping[str, Any] | None) -> None:
        super().__init__(annotations=annotations)
        self._make = make

    @cached_property
    def _tasks(self) -> Graph:
        return self._make()

    def __getstate__(self) -> dict[str, Any]:
        return without("_tasks", vars(self))

    def __getitem__(self, key: Key) -> Any:
        return self._tasks[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def is_materialized(self) -> bool:
        return "_tasks" in vars(self)

    def get_output_keys(self) -> Set[Key]:
        return self.keys()


class Layers:
    """Layers of the graph of one write under construction, with their dependencies."""

    def __init__(self, spec: RunSpec, settings: Settings) -> None:
        self.spec = spec
        self.settings = settings
        self._layers: dict[str, TaskLayer] = {}
        self._dependencies: dict[str, set[str]] = {}

    def name(self, stage: Stage) -> str:
        """Return the name of the layer of a stage, with which its keys begin."""
        return layout.task_key(stage, self.spec.write_id)

    def add(
        self,
        name: str,
        make: Callable[[], Graph],
        *,
        stores: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a layer, with annotations: one that stores something is retried by Dask.

        Annotations that are set while a dask-expr collection is built are lost.
        """
        retries = {"retries": self.settings.task_retries} if stores else {}
        self._dependencies[name] = set(self._layers)
        self._layers[name] = TaskLayer(make, {**retries, **(more or {})} or None)

    def graph(self) -> HighLevelGraph:
        return HighLevelGraph(self._layers, self._dependencies)
